//! A record as a page shows it: the schema is in `docs/decisions.md`.

use serde::{Deserialize, Serialize};

/// One decision.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct DecisionView {
    /// Request id.
    pub id: String,
    /// Number of the request in this process, from 0.
    pub sequence: u64,
    /// Seed of the request's generator, as a decimal number.
    pub seed: String,
    /// When its decision began, RFC 3339.
    pub time: String,
    /// Model as asked for.
    pub model: String,
    /// Model after rewriting.
    pub target_model: String,
    /// Priority of its objective.
    pub priority: i32,
    /// Fairness id.
    pub fairness_id: String,
    /// Size of its prompt.
    pub prompt: PromptView,
    /// What it waited for.
    pub wait: WaitView,
    /// Milliseconds from the arrival of the request headers to the decision.
    pub decided_ms: f64,
    /// Version of the pool; absent if there were no candidates yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool_version: Option<u64>,
    /// The candidates with their figures, in slot order.
    pub candidates: Vec<CandidateView>,
    /// Endpoints of the pool that were no candidates: outside the subset hint, unreachable, or screened out.
    pub left_out: Vec<String>,
    /// The runs of profiles, in order.
    pub profiles: Vec<ProfileView>,
    /// Name of the profile whose choice answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub primary: Option<String>,
    /// The endpoint that was picked: the first target.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// Endpoints in the order in which the proxy tries them.
    pub targets: Vec<String>,
    /// The conversation that the request belongs to overruled the picker.
    pub bound: bool,
    /// Header changes of plugins; an empty value removes the header.
    pub edits: Vec<EditView>,
    /// What the shadow would have chosen; absent where none was asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shadow: Option<ShadowView>,
    /// Why it was refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refusal: Option<RefusalView>,
    /// What became of it.
    pub outcome: OutcomeView,
}

/// What a shadow would have chosen.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct ShadowView {
    /// The endpoint that it picks; absent if it finds none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// Its total under the shadow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub score: Option<f64>,
    /// How far it is ahead of the best other one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub margin: Option<f64>,
    /// It is the endpoint that the running configuration picked.
    pub agrees: bool,
    /// By how much its pick scores worse under the running configuration; absent if they agree or that rules it out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub regret_of_shadow: Option<f64>,
    /// By how much the pick of the running configuration scores worse under the shadow; absent likewise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub regret_of_running: Option<f64>,
    /// Tokens of the prompt that its pick is believed to hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cached_tokens: Option<u64>,
    /// Why it finds no endpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refusal: Option<String>,
    /// The runs of its profiles, in order.
    pub profiles: Vec<ProfileView>,
}

/// Size of a prompt.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct PromptView {
    /// Tokens.
    pub tokens: u64,
    /// They were counted; otherwise they are estimated.
    pub exact: bool,
    /// Whole blocks of the prefix index.
    pub blocks: u32,
    /// Tokens in a block.
    pub block_size: u32,
}

/// What a request waited for.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct WaitView {
    /// Milliseconds in the queues of flow control.
    pub queue_ms: f64,
    /// Priority of the band it waited in.
    pub band: i32,
    /// Milliseconds for what plugins find out before scheduling.
    pub preparation_ms: f64,
    /// What it waited for: `nothing`, `capacity`, `preparation`, or both with a comma.
    pub waited_for: String,
}

/// A candidate and the figures it was judged by.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct CandidateView {
    /// `namespace/name`.
    pub endpoint: String,
    /// `ip:port`.
    pub address: String,
    /// Milliseconds since its figures were read; absent if they never were.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub age_ms: Option<u32>,
    /// Waiting requests.
    pub waiting: u32,
    /// Running requests.
    pub running: u32,
    /// KV-cache usage, 0 to 1.
    pub kv_usage: f32,
    /// Requests of this process that it is serving.
    pub in_flight: u32,
    /// Tokens of those.
    pub in_flight_tokens: u32,
    /// Requests sent to it since its figures were read.
    pub sent_since_reading: u32,
    /// Blocks of the prompt that it is believed to hold; absent where nobody counts them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub matched_blocks: Option<u32>,
}

/// One run of a profile.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct ProfileView {
    /// Name of the profile.
    pub name: String,
    /// What each filter removed, in the order they ran; filters that removed nobody are left out.
    pub removed: Vec<RemovedView>,
    /// The scorers.
    pub scorers: Vec<ScorerView>,
    /// A row for each survivor.
    pub rows: Vec<RowView>,
    /// Name of the picker.
    pub picker: String,
    /// Type of the picker.
    pub picker_type: String,
    /// Seed of the picker's draw, as a decimal number.
    pub draw: String,
    /// Endpoints that it picked, best first.
    pub picked: Vec<String>,
}

/// What one filter removed.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct RemovedView {
    /// Name of the filter.
    pub filter: String,
    /// Its type.
    pub r#type: String,
    /// Endpoints that it removed.
    pub endpoints: Vec<String>,
}

/// A scorer.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct ScorerView {
    /// Name.
    pub name: String,
    /// Type.
    pub r#type: String,
    /// Factor of its scores.
    pub weight: f64,
}

/// The scores of one survivor.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct RowView {
    /// `namespace/name`.
    pub endpoint: String,
    /// One score for each scorer, as it counted: 0 to 1.
    pub scores: Vec<f32>,
    /// One score for each scorer, as it was given; absent if none was outside 0 to 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub raw_scores: Option<Vec<f32>>,
    /// The sum of weight times score.
    pub total: f64,
}

/// A change of a header.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct EditView {
    /// Name of the header.
    pub name: String,
    /// Its new value.
    pub value: String,
}

/// A refusal.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct RefusalView {
    /// Label of the reason.
    pub reason: String,
    /// HTTP status.
    pub status: u16,
    /// Text; empty where it may quote the client.
    pub message: String,
}

/// What became of a request.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct OutcomeView {
    /// `refused`, `abandoned`, `running`, or how its response ended.
    pub state: String,
    /// HTTP status that the model server answered with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// Milliseconds from the arrival of the request headers to the first byte of the response body.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttft_ms: Option<f64>,
    /// Milliseconds from the arrival of the request headers to the end of the response.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration_ms: Option<f64>,
    /// Bytes of the response body.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response_bytes: Option<u64>,
    /// Endpoint that served.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub served_by: Option<String>,
    /// Tokens as the model server counts them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<UsageView>,
    /// Tokens of the prompt that the picked endpoint was believed to hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub predicted_cached_tokens: Option<u64>,
}

/// Tokens of a response.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct UsageView {
    /// Tokens of the prompt.
    pub prompt_tokens: u64,
    /// Generated tokens.
    pub completion_tokens: u64,
    /// Tokens of the prompt that came from the cache; absent if the model server does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cached_tokens: Option<u64>,
}

/// A list of decisions.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct ListView {
    /// Records that are kept in all.
    pub kept: usize,
    /// One request in this many is kept, beside refused and slow ones.
    pub one_in: u64,
    /// Those that were asked for.
    pub decisions: Vec<SummaryView>,
}

/// One decision in a list.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct SummaryView {
    /// Request id.
    pub id: String,
    /// Number of the request in this process.
    pub sequence: u64,
    /// When its decision began.
    pub time: String,
    /// Model as asked for.
    pub model: String,
    /// Model after rewriting.
    pub target_model: String,
    /// Fairness id.
    pub fairness_id: String,
    /// Priority.
    pub priority: i32,
    /// Tokens of its prompt.
    pub prompt_tokens: u64,
    /// The endpoint that was picked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// Its total.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub score: Option<f64>,
    /// How far it was ahead of the best other one; negative if another one had more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub margin: Option<f64>,
    /// Number of candidates.
    pub candidates: usize,
    /// Milliseconds in the queues.
    pub queue_ms: f64,
    /// Reason of a refusal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// What became of it.
    pub outcome: OutcomeView,
}
