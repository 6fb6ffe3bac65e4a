//! The properties of a simulated server.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::engine::{EngineLimits, StepTimes};
use super::metrics_page::PageShape;
use super::profile::EngineProfile;

/// What a server does in disaggregated serving. A server without a role has no connector.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Role {
    /// Processes prompts for decode servers.
    Prefill,
    /// Fetches processed prompts and writes the answers.
    Decode,
    /// Either, as a request asks.
    Both,
    /// Encodes images, videos and sounds.
    Encode,
}

impl Role {
    pub(crate) fn prefills(self) -> bool {
        matches!(self, Self::Prefill | Self::Both)
    }

    pub(crate) fn decodes(self) -> bool {
        matches!(self, Self::Decode | Self::Both)
    }
}

/// Settings of one simulated server. [`Default`] is a fast server with one model and no adapters.
#[derive(Debug, Clone, PartialEq)]
pub struct SimConfig {
    /// Name in the `x-sim-server` header of every answer.
    pub name: String,
    /// Served names of the model, the first of which labels the metrics. Must not be empty.
    pub models: Vec<String>,
    /// Names of LoRA adapters.
    pub adapters: Vec<String>,
    /// LoRA adapters that fit one batch, at least one.
    pub max_loras: usize,
    /// Requests in one batch, at least one.
    pub max_num_seqs: usize,
    /// Requests that may wait; one more is answered with 503.
    pub max_waiting: usize,
    /// Tokens in one step of the engine, at least one.
    pub max_num_batched_tokens: usize,
    /// Tokens in a KV-cache block, at least one.
    pub block_size: usize,
    /// KV-cache blocks of each engine, at least one.
    pub num_gpu_blocks: usize,
    /// Prefill time of each prompt token that the prefix cache does not have.
    pub prefill_per_token: Duration,
    /// Time of a decode step.
    pub inter_token: Duration,
    /// Measured step times instead of these two.
    pub profile: Option<&'static EngineProfile>,
    /// Fixed part of the time to first token.
    pub first_token_base: Duration,
    /// What the server does in disaggregated serving; nothing has it ignore what requests say of other stages.
    pub role: Option<Role>,
    /// Fixed part of the time that fetching a processed prompt takes.
    pub transfer_base: Duration,
    /// Time to fetch each prompt token that the prefix cache does not have.
    pub transfer_per_token: Duration,
    /// API server processes to imitate: with two or more, filtered metrics are empty and the page has another shape.
    pub processes: usize,
    /// Engines (data-parallel ranks) behind the server, each with its own batch, cache and metrics rows.
    pub engines: usize,
    /// Chooses the words of answers and the requests hit by `error_rate`.
    pub seed: u64,
    /// Largest request body; a larger one is answered with 413.
    pub max_body_bytes: usize,
}

impl Default for SimConfig {
    fn default() -> Self {
        Self {
            name: "sim-0".to_owned(),
            models: vec!["sim-model".to_owned()],
            adapters: Vec::new(),
            max_loras: 1,
            max_num_seqs: 64,
            max_waiting: 1000,
            max_num_batched_tokens: 8192,
            block_size: 16,
            num_gpu_blocks: 16_384,
            prefill_per_token: Duration::from_micros(50),
            inter_token: Duration::from_millis(10),
            profile: None,
            first_token_base: Duration::from_millis(5),
            role: None,
            transfer_base: Duration::from_millis(2),
            transfer_per_token: Duration::from_micros(5),
            processes: 1,
            engines: 1,
            seed: 0,
            max_body_bytes: 128 * 1024 * 1024,
        }
    }
}

impl SimConfig {
    /// A server that answers without any delay.
    #[must_use]
    pub fn instant() -> Self {
        Self {
            prefill_per_token: Duration::ZERO,
            inter_token: Duration::ZERO,
            first_token_base: Duration::ZERO,
            transfer_base: Duration::ZERO,
            transfer_per_token: Duration::ZERO,
            ..Self::default()
        }
    }

    /// First served name.
    pub(crate) fn model_name(&self) -> &str {
        self.models.first().map_or("", String::as_str)
    }

    fn max_adapters(&self) -> Option<usize> {
        (!self.adapters.is_empty()).then_some(self.max_loras)
    }

    pub(crate) fn engine_limits(&self) -> EngineLimits {
        EngineLimits {
            max_running: self.max_num_seqs,
            max_waiting: self.max_waiting,
            max_adapters: self.max_adapters(),
            max_step_tokens: self.max_num_batched_tokens,
            block_size: self.block_size,
            blocks: self.num_gpu_blocks,
            first_token_base: self.first_token_base,
            step_times: self.profile.map_or(
                StepTimes::Linear {
                    prefill_per_token: self.prefill_per_token,
                    inter_token: self.inter_token,
                },
                StepTimes::Measured,
            ),
            transfer_base: self.transfer_base,
            transfer_per_token: self.transfer_per_token,
        }
    }

    pub(crate) fn page_shape(&self) -> PageShape {
        PageShape {
            model_name: self.model_name().to_owned(),
            engines: self.engines.max(1),
            multiprocess: self.processes > 1,
            max_loras: self.max_adapters(),
            block_size: self.block_size,
            blocks: self.num_gpu_blocks,
            started_unix: unix_seconds(),
        }
    }
}

/// Seconds since 1970.
pub(crate) fn unix_seconds() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}
