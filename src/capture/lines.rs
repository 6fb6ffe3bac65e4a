//! The lines of a capture. Each line is one JSON object whose `kind` names its type.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::exact::{Chains, Exact};
use crate::request::Usage;

/// The version of the schema. It grows with every change that a reader has to know.
pub const SCHEMA: u32 = 1;

/// The number of tokens in a block of [`RequestLine::chains`].
pub const BASE_BLOCK: u32 = 16;

/// One line of a capture.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Line {
    /// The first line of a file.
    Start(StartLine),
    /// The configuration that decides from here on.
    Config(ConfigLine),
    /// The list of endpoints from here on.
    Pool(PoolLine),
    /// A decision, and the figures that it was made from.
    Decision(Box<DecisionLine>),
    /// The headers of a response.
    Answer(AnswerLine),
    /// The first bytes of a response's body.
    FirstByte(FirstByteLine),
    /// The end of a request.
    Outcome(Box<OutcomeLine>),
    /// A note that lines are missing.
    Gap(GapLine),
}

/// The first line of a file.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct StartLine {
    /// The version of the schema.
    pub schema: u32,
    /// The version of the program that wrote the file.
    pub version: String,
    /// The name of the capture, which all its files share.
    pub capture: String,
    /// The number of the file in the capture, from 1.
    pub file: u64,
    /// The time in microseconds since 1970.
    pub time_us: u64,
    /// The namespace and the name of the pool.
    pub pool: String,
    /// The number of the first request that may be in the capture. It is 0 if the capture began with the process.
    pub first: u64,
}

/// The configuration that decides.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct ConfigLine {
    /// Number of the configuration in the process, from 1.
    #[serde(default)]
    pub generation: u64,
    /// The digest of the text: 16 hexadecimal digits.
    pub digest: String,
    /// The configuration document as it was read.
    pub text: String,
    /// The feature gates of the command line.
    pub feature_gates: Vec<String>,
    /// The random seed of the process, as a decimal number.
    pub seed: String,
    /// The profiles with their plugins, in the order of the document.
    pub profiles: Vec<ProfileLine>,
}

/// One profile of the configuration.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct ProfileLine {
    /// The name of the profile.
    pub name: String,
    /// The names of its filters, in the order in which they run.
    pub filters: Vec<String>,
    /// Its scorers, in the order in which they run.
    pub scorers: Vec<ScorerLine>,
    /// The name of its picker.
    pub picker: String,
}

/// One scorer of a profile.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct ScorerLine {
    /// The name of the scorer.
    pub name: String,
    /// The plugin type of the scorer.
    pub r#type: String,
    /// The factor of its scores.
    pub weight: Exact,
}

/// The endpoints of the pool. Other lines name an endpoint by its place in this list, from 0.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct PoolLine {
    /// The version of the list.
    pub version: u64,
    /// The endpoints, in the order of their places.
    pub endpoints: Vec<EndpointLine>,
}

/// One endpoint.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct EndpointLine {
    /// The namespace of the endpoint.
    pub namespace: String,
    /// The name of the endpoint.
    pub name: String,
    /// The name of its pod.
    pub pod: String,
    /// Its address, as `ip:port`.
    pub address: String,
    /// The labels of the pod.
    pub labels: BTreeMap<String, String>,
    /// The address of the node, if it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// The index of the port among the ports of the pool.
    pub rank: u32,
    /// The incarnation of the endpoint. A new pod under the same name has another number.
    pub incarnation: u64,
}

/// One decision.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct DecisionLine {
    /// The number of the request in the process, from 0.
    pub n: u64,
    /// The id of the request.
    pub id: String,
    /// The time in microseconds since 1970.
    pub time_us: u64,
    /// The time in nanoseconds of the process's clock, as in all lines.
    pub now_ns: u64,
    /// Number of the configuration that decided; 0 if the capture does not say it.
    #[serde(default)]
    pub generation: u64,
    /// The microseconds that the request spent in the queues of flow control.
    pub queue_us: u64,
    /// The features of the request.
    pub request: RequestLine,
    /// The version of the list of endpoints.
    pub pool_version: u64,
    /// The places of the endpoints that could be chosen; null for all endpoints.
    pub candidates: Option<Vec<u32>>,
    /// The figures of the candidates that differ from those of an earlier line.
    pub loads: Vec<LoadLine>,
    /// The part of the prompt that each candidate was expected to have cached; null if no plugin computed it.
    pub matches: Option<MatchLine>,
    /// The state of the request's random generator, as a decimal number.
    pub rng: String,
    /// The runs of profiles, in order.
    pub runs: Vec<RunLine>,
    /// The name of the profile whose choice answers; null if nothing was chosen.
    pub primary: Option<String>,
    /// The places of the chosen endpoints, in the order in which the proxy tries them.
    pub targets: Vec<u32>,
    /// True if the conversation of the request was bound to a server, which overruled the picker.
    pub bound: bool,
    /// The reason of a refusal; null if the request was not refused.
    pub refusal: Option<String>,
}

/// The features of a request.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct RequestLine {
    /// The model that the client asked for.
    pub model: String,
    /// The model after rewriting.
    pub target_model: String,
    /// The priority of the request.
    pub priority: i32,
    /// The fairness id of the request.
    pub fairness_id: String,
    /// The API, named as in metrics.
    pub api: String,
    /// True if the client asked for a stream.
    pub stream: bool,
    /// The bound on output tokens that the client set.
    pub max_output_tokens: Option<u64>,
    /// The number of tokens of the prompts.
    pub tokens: u64,
    /// True if the tokens were counted, and false if they were estimated.
    pub exact: bool,
    /// The images, videos and sounds.
    pub media: Vec<MediaLine>,
    /// The hashes of the prompts, one for each block of 16 tokens. A hash stands for the whole prompt up to the end of
    /// its block.
    pub chains: Chains,
    /// The headers that the configuration names or that pickers read, with their values.
    pub headers: Vec<(String, String)>,
}

/// One image, video or sound.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct MediaLine {
    /// `image`, `audio` or `video`.
    pub media: String,
    /// The hash of its address or its data: 16 hexadecimal digits.
    pub hash: String,
}

/// The figures of one endpoint. Times are nanoseconds as in `now_ns`, and null for never.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct LoadLine {
    /// The place of the endpoint.
    pub endpoint: u32,
    /// The number of requests that the picker counts as in flight at the endpoint.
    pub in_flight: u64,
    /// The tokens of those requests.
    pub in_flight_tokens: u64,
    /// The number of requests that were ever sent to the endpoint.
    pub dispatched: u64,
    /// The number of waiting requests that the server reported.
    pub waiting: u64,
    /// The number of running requests that the server reported.
    pub running: u64,
    /// The share of the KV cache in use, from 0 to 1.
    pub kv_usage: Exact,
    /// The number of tokens in a KV-cache block.
    pub block_size: u32,
    /// The number of KV-cache blocks.
    pub num_blocks: u32,
    /// The time of the last reading.
    pub read_ns: Option<u64>,
    /// The times at which the waiting requests, the running requests and the KV-cache usage were last read.
    pub figures_read_ns: [Option<u64>; 3],
    /// The number of requests that were sent before the last reading was asked for.
    pub dispatched_at_reading: u64,
    /// The number of requests in flight that the last reading includes.
    pub in_flight_at_reading: u64,
    /// The number of those that this process sent, and of whose answers no byte had come.
    #[serde(default)]
    pub prompts_at_reading: u64,
    /// The tokens in flight that peers sent.
    #[serde(default)]
    pub tokens_elsewhere: u64,
    /// The tokens of the requests that this process sent since the last reading.
    #[serde(default)]
    pub tokens_since_reading: u64,
    /// The number of scrapes in a row without an answer.
    pub unanswered: u32,
    /// The LoRA adapters; null if the endpoint has none.
    pub lora: Option<LoraLine>,
    /// Further figures of the endpoint.
    pub attributes: Vec<AttributeLine>,
}

/// The LoRA adapters of an endpoint.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct LoraLine {
    /// The adapters that running requests use.
    pub active: Vec<String>,
    /// The adapters that waiting requests use.
    pub waiting: Vec<String>,
    /// The most adapters that may be loaded at the same time.
    pub max_active: u64,
}

/// A further figure of an endpoint.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct AttributeLine {
    /// The name of the figure.
    pub attribute: String,
    /// The plugin that computed the figure.
    pub producer: String,
    /// The value of the figure.
    pub value: Exact,
}

/// The part of a prompt that each candidate is expected to have cached.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct MatchLine {
    /// The number of blocks of the prompt.
    pub total: u32,
    /// The number of tokens in a block.
    pub block_size: u32,
    /// The number of leading blocks that each candidate has, in the order of the candidates that screeners left. Empty
    /// if no candidate has any.
    pub matched: Vec<u32>,
    /// The number of blocks that each candidate has, leading or not. Empty if the numbers equal those of `matched`.
    pub cached: Vec<u32>,
}

/// One run of a profile.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct RunLine {
    /// The name of the profile.
    pub profile: String,
    /// The endpoints that each filter removed.
    pub removed: Vec<RemovedLine>,
    /// The places of the endpoints that the filters left.
    pub survivors: Vec<u32>,
    /// The raw scores of each scorer, in the order of the survivors.
    pub scores: Vec<Vec<Exact>>,
    /// The weighted totals, in the order of the survivors.
    pub totals: Vec<Exact>,
    /// The state of the random generator before the picker ran.
    pub draw: String,
    /// The places of the endpoints that the picker chose, the best first.
    pub picked: Vec<u32>,
}

/// The endpoints that a filter removed.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct RemovedLine {
    /// The name of the filter.
    pub filter: String,
    /// The places of the endpoints.
    pub endpoints: Vec<u32>,
}

/// The headers of a response.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct AnswerLine {
    /// The number of the request.
    pub n: u64,
    /// The time in nanoseconds.
    pub now_ns: u64,
    /// The HTTP status; 0 if there is none.
    pub status: u16,
    /// The address `ip:port` of the server that answered, as the proxy reports it.
    pub served: Option<String>,
}

/// The first bytes of a response's body.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct FirstByteLine {
    /// The number of the request.
    pub n: u64,
    /// The time in nanoseconds.
    pub now_ns: u64,
    /// True if the body is an event stream.
    pub streamed: bool,
}

/// The end of a request.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct OutcomeLine {
    /// The number of the request.
    pub n: u64,
    /// The time in nanoseconds.
    pub now_ns: u64,
    /// How the request ended, named as in metrics.
    pub ended: String,
    /// The HTTP status; 0 if no headers were seen.
    pub status: u16,
    /// The endpoint that served, as `namespace/name`.
    pub endpoint: String,
    /// True if the body was an event stream.
    pub streamed: bool,
    /// True if the whole response was seen and reports no failure.
    pub succeeded: bool,
    /// The milliseconds from the arrival of the request to the first byte of the response's body.
    pub ttft_ms: Option<Exact>,
    /// The milliseconds from the arrival of the request to the end of the response.
    pub duration_ms: Exact,
    /// The bytes of the response's body.
    pub bytes: u64,
    /// The number of parts in which the body came.
    pub chunks: u64,
    /// The tokens that the model server counted.
    pub usage: Option<UsageLine>,
}

/// The tokens of a response.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
pub struct UsageLine {
    /// The tokens of the prompt.
    pub prompt_tokens: u64,
    /// The generated tokens.
    pub completion_tokens: u64,
    /// The sum of both.
    pub total_tokens: u64,
    /// The tokens of the prompt that came from the cache, if the server reports them.
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

/// A note that lines are missing, because the queue of the writer was full.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
pub struct GapLine {
    /// The number of missing lines.
    pub lines: u64,
}
