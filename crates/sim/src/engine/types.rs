//! The input and the output of an engine.

use std::sync::Arc;
use std::time::Duration;

use super::adapters::AdapterRow;
use super::stats::Stats;
use super::step_times::StepTimes;

/// Names a request within its engine.
pub(crate) type RequestId = u64;

/// Sizes and speeds of an engine. All times are virtual: they are added to the `now` of the caller.
#[derive(Debug, Clone)]
pub(crate) struct EngineLimits {
    /// Requests in the batch.
    pub(crate) max_running: usize,
    /// Requests in the queue before it.
    pub(crate) max_waiting: usize,
    /// LoRA adapters in the batch; none when the server has no adapters.
    pub(crate) max_adapters: Option<usize>,
    /// Tokens in one step.
    pub(crate) max_step_tokens: usize,
    /// Tokens in a block.
    pub(crate) block_size: usize,
    /// Blocks in the cache.
    pub(crate) blocks: usize,
    /// Fixed time before a request takes part in its first step.
    pub(crate) first_token_base: Duration,
    /// Length of a step.
    pub(crate) step_times: StepTimes,
    /// Fixed time to fetch a processed prompt.
    pub(crate) transfer_base: Duration,
    /// Time to fetch each prompt token that the cache does not have.
    pub(crate) transfer_per_token: Duration,
}

/// Where the blocks of a prompt come from that the cache does not have.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Fetch {
    /// They are computed.
    #[default]
    Nothing,
    /// Another server has them.
    Now,
    /// Another server begins to compute them when the request begins here.
    WhenPrefilled,
}

/// The tokens of a prompt.
#[derive(Debug, Clone)]
pub(crate) enum Prompt {
    /// Their ids.
    Tokens(Vec<u32>),
    /// Names of blocks of them: equal ids at equal places mean equal tokens.
    Blocks {
        /// The names.
        ids: Arc<[u64]>,
        /// Tokens in each block; the last one may be cut short.
        block_tokens: usize,
        /// Tokens in all.
        tokens: usize,
    },
}

impl Prompt {
    /// Number of tokens.
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Tokens(tokens) => tokens.len(),
            Self::Blocks { tokens, .. } => *tokens,
        }
    }

    /// The ids of the tokens, if they are known.
    #[cfg(test)]
    pub(crate) fn tokens(&self) -> &[u32] {
        match self {
            Self::Tokens(tokens) => tokens,
            Self::Blocks { .. } => &[],
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The answer to generate.
#[derive(Debug, Clone)]
pub(crate) struct Submission {
    /// The prompt; an empty one is refused.
    pub(crate) prompt: Prompt,
    /// LoRA adapter, or the base model.
    pub(crate) adapter: Option<Arc<str>>,
    /// Tokens to generate, at least one.
    pub(crate) max_tokens: u32,
    /// Whether the end counts as the model's own rather than as a limit.
    pub(crate) stops_by_itself: bool,
    /// Chooses the words of the answer.
    pub(crate) answer_seed: u64,
    /// Where the prompt's blocks come from.
    pub(crate) fetch: Fetch,
}

/// Why a submission was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SubmitError {
    /// The queue is full.
    #[error("the request queue is full")]
    QueueFull,
    /// Prompt and answer cannot fit the cache, even alone.
    #[error("prompt and answer exceed the context length of {limit} tokens")]
    TooLong {
        /// Most tokens of prompt and answer together.
        limit: usize,
    },
    /// There is nothing to compute.
    #[error("the prompt is empty")]
    EmptyPrompt,
}

/// Why a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FinishReason {
    /// The model was done.
    Stop,
    /// The token limit was reached.
    Length,
}

/// An event of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Event {
    /// The first token; `cached_tokens` of the prompt came from the prefix cache.
    FirstToken { id: RequestId, cached_tokens: usize },
    /// A further token.
    Token { id: RequestId },
    /// The request is over; the last event of each request that is not cancelled.
    Finished { id: RequestId, reason: FinishReason },
}

/// The state that a metrics page shows.
#[derive(Debug, Clone)]
pub(crate) struct EngineValues {
    pub(crate) running: usize,
    pub(crate) waiting: usize,
    /// Of the waiting ones, those that wait for an adapter's place.
    pub(crate) deferred: usize,
    /// Share of blocks held by requests, 0 to 1.
    pub(crate) kv_usage: f64,
    pub(crate) stats: Stats,
    pub(crate) adapter_rows: Vec<AdapterRow>,
}

/// The load as a metrics page would show it.
#[derive(Debug, Clone, PartialEq)]
pub struct Glance {
    /// Requests in the batch.
    pub running: usize,
    /// Requests in the queue before it.
    pub waiting: usize,
    /// Share of the blocks that requests hold, 0 to 1.
    pub kv_usage: f64,
    /// Adapters of running requests, sorted, with commas.
    pub adapters_running: String,
    /// Adapters of waiting requests, sorted, with commas.
    pub adapters_waiting: String,
}

impl Event {
    /// The request that it is about.
    pub(crate) fn id(self) -> RequestId {
        match self {
            Event::FirstToken { id, .. } | Event::Token { id } | Event::Finished { id, .. } => id,
        }
    }
}
