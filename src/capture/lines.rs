//! The lines of a capture. Each is one JSON object whose `kind` says what it is.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::exact::{Chains, Exact};
use crate::request::Usage;

/// Version of the schema. It grows with every change that a reader has to know of.
pub const SCHEMA: u32 = 1;

/// Tokens of a block of [`RequestLine::chains`].
pub const BASE_BLOCK: u32 = 16;

/// One line.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Line {
    /// A file begins.
    Start(StartLine),
    /// The configuration that decides from here on.
    Config(ConfigLine),
    /// The endpoints from here on.
    Pool(PoolLine),
    /// A decision, and all that it was made from.
    Decision(Box<DecisionLine>),
    /// The headers of a response came.
    Answer(AnswerLine),
    /// The first bytes of a response's body came.
    FirstByte(FirstByteLine),
    /// What became of a request.
    Outcome(Box<OutcomeLine>),
    /// Lines are missing.
    Gap(GapLine),
}

/// The begin of a file.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct StartLine {
    /// Version of the schema.
    pub schema: u32,
    /// Version of the program that wrote it.
    pub version: String,
    /// Names the capture: files of one capture share it.
    pub capture: String,
    /// Number of the file in the capture, from 1.
    pub file: u64,
    /// Microseconds since 1970.
    pub time_us: u64,
    /// Name and namespace of the pool.
    pub pool: String,
    /// Number of the first request that may be in the capture; 0 if it began with the process.
    pub first: u64,
}

/// A configuration.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct ConfigLine {
    /// Digest of the text: 16 hexadecimal digits.
    pub digest: String,
    /// The document as it was read.
    pub text: String,
    /// Feature gates of the command line.
    pub feature_gates: Vec<String>,
    /// Seed of the process, a decimal number.
    pub seed: String,
    /// The profiles with their plugins, in document order.
    pub profiles: Vec<ProfileLine>,
}

/// A profile of a configuration.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct ProfileLine {
    /// Its name.
    pub name: String,
    /// Names of its filters, in the order they run.
    pub filters: Vec<String>,
    /// Its scorers.
    pub scorers: Vec<ScorerLine>,
    /// Name of its picker.
    pub picker: String,
}

/// A scorer of a profile.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct ScorerLine {
    /// Its name.
    pub name: String,
    /// Its type.
    pub r#type: String,
    /// Factor of its scores.
    pub weight: Exact,
}

/// The endpoints of the pool. Other lines name an endpoint by its place in this list, from 0.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct PoolLine {
    /// Version of the list.
    pub version: u64,
    /// The endpoints.
    pub endpoints: Vec<EndpointLine>,
}

/// An endpoint.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct EndpointLine {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Pod.
    pub pod: String,
    /// `ip:port`.
    pub address: String,
    /// Labels of the pod.
    pub labels: BTreeMap<String, String>,
    /// Address of the node, where known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// Index of the port among those of the pool.
    pub rank: u32,
    /// Number of this life of the endpoint.
    pub incarnation: u64,
}

/// A decision.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct DecisionLine {
    /// Number of the request in the process, from 0.
    pub n: u64,
    /// Request id.
    pub id: String,
    /// Microseconds since 1970.
    pub time_us: u64,
    /// Nanoseconds since the process began to count, as in all lines.
    pub now_ns: u64,
    /// Microseconds in the queues of flow control.
    pub queue_us: u64,
    /// The request.
    pub request: RequestLine,
    /// Version of the pool.
    pub pool_version: u64,
    /// Places of the endpoints that could be asked; null for all.
    pub candidates: Option<Vec<u32>>,
    /// Figures of candidates, where they differ from those of an earlier line.
    pub loads: Vec<LoadLine>,
    /// What the candidates were believed to hold of the prompt; null if nobody counted that.
    pub matches: Option<MatchLine>,
    /// State of the request's random generator, a decimal number.
    pub rng: String,
    /// The runs of profiles, in order.
    pub runs: Vec<RunLine>,
    /// Profile whose choice answers; null if nothing was chosen.
    pub primary: Option<String>,
    /// Places of the endpoints in the order in which the proxy tries them.
    pub targets: Vec<u32>,
    /// The conversation that the request belongs to overruled the picker.
    pub bound: bool,
    /// Reason of a refusal.
    pub refusal: Option<String>,
}

/// What is kept of a request.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct RequestLine {
    /// Model as asked for.
    pub model: String,
    /// Model after rewriting.
    pub target_model: String,
    /// Priority.
    pub priority: i32,
    /// Fairness id.
    pub fairness_id: String,
    /// The API, as in metrics.
    pub api: String,
    /// A stream was asked for.
    pub stream: bool,
    /// Cap on output tokens.
    pub max_output_tokens: Option<u64>,
    /// Tokens of the prompts.
    pub tokens: u64,
    /// The tokens were counted; otherwise they are estimated.
    pub exact: bool,
    /// Images, videos and sounds.
    pub media: Vec<MediaLine>,
    /// Hashes of the prompts in blocks of 16 tokens, each of which stands for the whole prompt up to its end.
    pub chains: Chains,
    /// Headers that the configuration names, with their values.
    pub headers: Vec<(String, String)>,
}

/// An image, video or sound.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct MediaLine {
    /// `image`, `audio` or `video`.
    pub media: String,
    /// Hash of its address or data: 16 hexadecimal digits.
    pub hash: String,
}

/// Figures of one endpoint. Times are nanoseconds as in `now_ns`; null for never.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct LoadLine {
    /// Its place.
    pub endpoint: u32,
    /// Requests that it is serving.
    pub in_flight: u64,
    /// Tokens of those.
    pub in_flight_tokens: u64,
    /// Requests ever sent to it.
    pub dispatched: u64,
    /// Waiting requests.
    pub waiting: u64,
    /// Running requests.
    pub running: u64,
    /// KV-cache usage, 0 to 1.
    pub kv_usage: Exact,
    /// Tokens of a KV-cache block.
    pub block_size: u32,
    /// KV-cache blocks.
    pub num_blocks: u32,
    /// When it was last read.
    pub read_ns: Option<u64>,
    /// When waiting requests, running requests and KV-cache usage were last read.
    pub figures_read_ns: [Option<u64>; 3],
    /// Requests sent before the last reading was asked for.
    pub dispatched_at_reading: u64,
    /// Requests in flight that the last reading counts.
    pub in_flight_at_reading: u64,
    /// Scrapes in a row without an answer.
    pub unanswered: u32,
    /// LoRA adapters; null without any.
    pub lora: Option<LoraLine>,
    /// Further figures.
    pub attributes: Vec<AttributeLine>,
}

/// LoRA adapters of an endpoint.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct LoraLine {
    /// Adapters that running requests use.
    pub active: Vec<String>,
    /// Adapters that waiting requests use.
    pub waiting: Vec<String>,
    /// Adapters that may be loaded at once.
    pub max_active: u64,
}

/// A further figure.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct AttributeLine {
    /// What it is.
    pub attribute: String,
    /// Which plugin says so.
    pub producer: String,
    /// The value.
    pub value: Exact,
}

/// What candidates are believed to hold of a prompt.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct MatchLine {
    /// Blocks of the prompt.
    pub total: u32,
    /// Tokens of a block.
    pub block_size: u32,
    /// Blocks that each candidate holds, in the order of the candidates that screeners left; empty if none holds any.
    pub matched: Vec<u32>,
    /// The same counted anywhere on the endpoint; empty if that is the same.
    pub cached: Vec<u32>,
}

/// One run of a profile.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct RunLine {
    /// Its name.
    pub profile: String,
    /// What each filter removed.
    pub removed: Vec<RemovedLine>,
    /// Places of the survivors.
    pub survivors: Vec<u32>,
    /// Raw scores of each scorer, in the order of the survivors.
    pub scores: Vec<Vec<Exact>>,
    /// Weighted totals of the survivors.
    pub totals: Vec<Exact>,
    /// State of the random generator before the choice.
    pub draw: String,
    /// Places of the endpoints that it picked, best first.
    pub picked: Vec<u32>,
}

/// What a filter removed.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct RemovedLine {
    /// Name of the filter.
    pub filter: String,
    /// Places of the endpoints.
    pub endpoints: Vec<u32>,
}

/// The headers of a response.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct AnswerLine {
    /// Number of the request.
    pub n: u64,
    /// When.
    pub now_ns: u64,
    /// HTTP status; 0 if there is none.
    pub status: u16,
    /// `ip:port` that served, as the proxy tells.
    pub served: Option<String>,
}

/// The first bytes of a response's body.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct FirstByteLine {
    /// Number of the request.
    pub n: u64,
    /// When.
    pub now_ns: u64,
    /// It is an event stream.
    pub streamed: bool,
}

/// What became of a request.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct OutcomeLine {
    /// Number of the request.
    pub n: u64,
    /// When.
    pub now_ns: u64,
    /// How it ended, as in metrics.
    pub ended: String,
    /// HTTP status; 0 if no headers were seen.
    pub status: u16,
    /// `namespace/name` of the endpoint that served.
    pub endpoint: String,
    /// It is an event stream.
    pub streamed: bool,
    /// The whole response was seen, and it reports no failure.
    pub succeeded: bool,
    /// Milliseconds from the arrival of the request to the first byte of the response body.
    pub ttft_ms: Option<Exact>,
    /// Milliseconds from the arrival of the request to the end of the response.
    pub duration_ms: Exact,
    /// Bytes of the response body.
    pub bytes: u64,
    /// Parts in which it came.
    pub chunks: u64,
    /// Tokens, as the model server counts them.
    pub usage: Option<UsageLine>,
}

/// Tokens of a response.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
pub struct UsageLine {
    /// Tokens of the prompt.
    pub prompt_tokens: u64,
    /// Generated tokens.
    pub completion_tokens: u64,
    /// Both.
    pub total_tokens: u64,
    /// Tokens of the prompt that came from the cache, where the server says so.
    pub cached_tokens: Option<u64>,
}

impl From<&Usage> for UsageLine {
    fn from(usage: &Usage) -> Self {
        let Usage { prompt_tokens, completion_tokens, total_tokens, cached_tokens } = *usage;
        Self { prompt_tokens, completion_tokens, total_tokens, cached_tokens }
    }
}

impl From<UsageLine> for Usage {
    fn from(line: UsageLine) -> Self {
        let UsageLine { prompt_tokens, completion_tokens, total_tokens, cached_tokens } = line;
        Self { prompt_tokens, completion_tokens, total_tokens, cached_tokens }
    }
}

/// Lines that are missing, for the queue to the writer was full.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
pub struct GapLine {
    /// Their number.
    pub lines: u64,
}
