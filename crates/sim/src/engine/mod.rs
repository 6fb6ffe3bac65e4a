//! The model of a model server: pure, clocked by its caller, without I/O.
//!
//! - `batch`: requests in, steps of continuous batching, tokens out
//! - `blocks`: KV-cache blocks with a prefix cache and least-recently-used eviction
//! - `adapters`: which LoRA adapters run and wait
//! - `step_times`: how long a step takes
//! - `stats`: what the engine counts about itself
//! - `types`: what goes in and what comes out
//! - `tokens`: text to token ids and made-up answers, both deterministic

mod adapters;
mod batch;
mod blocks;
mod request;
pub(crate) mod stats;
mod step_times;
pub(crate) mod tokens;
mod types;

pub(crate) use batch::Engine;
pub(crate) use step_times::StepTimes;
pub use types::Glance;
pub(crate) use types::{
    EngineLimits, EngineValues, Event, Fetch, FinishReason, Prompt, RequestId, Submission, SubmitError,
};

#[cfg(test)]
mod tests;
