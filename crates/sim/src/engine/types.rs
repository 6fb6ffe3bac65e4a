//! The input and the output of an engine.

use std::sync::Arc;
use std::time::Duration;

use super::adapters::AdapterRow;
use super::stats::Stats;
use super::step_times::StepTimes;

/// The number of a request in its engine.
pub(crate) type RequestId = u64;

/// The sizes and the speeds of an engine. All times are virtual: they are added to the caller's `now`.
#[derive(Debug, Clone)]
pub(crate) struct EngineLimits {
    /// The most requests in the batch.
    pub(crate) max_running: usize,
    /// The most requests in the queue.
    pub(crate) max_waiting: usize,
    /// The most LoRA adapters in the batch; `None` if the server has no adapters.
    pub(crate) max_adapters: Option<usize>,
    /// The most tokens in one step.
    pub(crate) max_step_tokens: usize,
    /// The tokens in a block.
    pub(crate) block_size: usize,
    /// The blocks of the cache.
    pub(crate) blocks: usize,
    /// The fixed time before a request takes part in its first step.
    pub(crate) first_token_base: Duration,
    /// The time of a step.
    pub(crate) step_times: StepTimes,
    /// The fixed time to fetch a processed prompt.
    pub(crate) transfer_base: Duration,
    /// The time to fetch each prompt token that the cache does not have.
    pub(crate) transfer_per_token: Duration,
}

/// The source of the prompt blocks that the cache does not have.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Fetch {
    /// The engine computes them.
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
    /// The ids of the tokens.
    Tokens(Vec<u32>),
    /// The ids of blocks of tokens. Equal ids at equal places mean equal tokens.
    Blocks {
        /// The ids of the blocks.
        ids: Arc<[u64]>,
        /// The tokens in each block. The last block may have fewer.
        block_tokens: usize,
        /// The number of all tokens.
        tokens: usize,
    },
}

impl Prompt {
    /// The number of tokens.
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

/// A request for an answer.
#[derive(Debug, Clone)]
pub(crate) struct Submission {
    /// The prompt; an empty one is refused.
    pub(crate) prompt: Prompt,
    /// The LoRA adapter; `None` for the base model.
    pub(crate) adapter: Option<Arc<str>>,
    /// The tokens to generate; at least one.
    pub(crate) max_tokens: u32,
    /// True if the end counts as the model's own, and not as reaching the limit.
    pub(crate) stops_by_itself: bool,
    /// The seed that chooses the words of the answer.
    pub(crate) answer_seed: u64,
    /// The source of the prompt's blocks.
    pub(crate) fetch: Fetch,
}

/// Why a submission was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SubmitError {
    /// The queue is full.
    #[error("the request queue is full")]
    QueueFull,
    /// The prompt and the answer do not fit into the cache, even alone.
    #[error("prompt and answer exceed the context length of {limit} tokens")]
    TooLong {
        /// The most tokens of prompt and answer together.
        limit: usize,
    },
    /// The prompt is empty.
    #[error("the prompt is empty")]
    EmptyPrompt,
}

/// Why a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FinishReason {
    /// The model ended the answer.
    Stop,
    /// The answer reached its limit of tokens.
    Length,
}

/// An event of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Event {
    /// The first token. `cached_tokens` of the prompt came from the prefix cache.
    FirstToken { id: RequestId, cached_tokens: usize },
    /// A further token.
    Token { id: RequestId },
    /// The request is over. This is the last event of each request that is not cancelled.
    Finished { id: RequestId, reason: FinishReason },
}

/// The state that a metrics page shows.
#[derive(Debug, Clone)]
pub(crate) struct EngineValues {
    pub(crate) running: usize,
    pub(crate) waiting: usize,
    /// The waiting requests that wait for room for their adapter.
    pub(crate) deferred: usize,
    /// The share of the blocks that requests use, 0 to 1.
    pub(crate) kv_usage: f64,
    pub(crate) stats: Stats,
    pub(crate) adapter_rows: Vec<AdapterRow>,
}

/// The load that a metrics page would show.
#[derive(Debug, Clone, PartialEq)]
pub struct Glance {
    /// The requests in the batch.
    pub running: usize,
    /// The requests in the queue.
    pub waiting: usize,
    /// The share of the blocks that requests use, 0 to 1.
    pub kv_usage: f64,
    /// The adapters of running requests, sorted and separated by commas.
    pub adapters_running: String,
    /// The adapters of waiting requests, sorted and separated by commas.
    pub adapters_waiting: String,
}

impl Event {
    /// The request that the event belongs to.
    pub(crate) fn id(self) -> RequestId {
        match self {
            Event::FirstToken { id, .. } | Event::Token { id } | Event::Finished { id, .. } => id,
        }
    }
}
