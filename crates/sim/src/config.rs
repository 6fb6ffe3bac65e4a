//! The properties of a simulated server.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::engine::{EngineLimits, StepTimes};
use super::metrics_page::PageShape;
use super::profile::EngineProfile;

/// The stage of disaggregated serving that a server works in. A server without a role has no connector.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Role {
    /// Processes prompts for decode servers.
    Prefill,
    /// Fetches processed prompts and writes the answers.
    Decode,
    /// Processes prompts or writes answers, as each request asks.
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
    /// The value of the `x-sim-server` header in every answer.
    pub name: String,
    /// The served names of the model. The first one labels the metrics. Must not be empty.
    pub models: Vec<String>,
    /// The names of the LoRA adapters.
    pub adapters: Vec<String>,
    /// The most LoRA adapters in one batch; at least one.
    pub max_loras: usize,
    /// The most requests in one batch; at least one.
    pub max_num_seqs: usize,
    /// The most requests that may wait. A further request gets a 503.
    pub max_waiting: usize,
    /// The most tokens in one step of the engine; at least one.
    pub max_num_batched_tokens: usize,
    /// The tokens in a KV-cache block; at least one.
    pub block_size: usize,
    /// The KV-cache blocks of each engine; at least one.
    pub num_gpu_blocks: usize,
    /// The prefill time of each prompt token that the prefix cache does not have.
    pub prefill_per_token: Duration,
    /// The time of a decode step.
    pub inter_token: Duration,
    /// Measured step times, in place of `prefill_per_token` and `inter_token`.
    pub profile: Option<&'static EngineProfile>,
    /// The fixed part of the time to the first token.
    pub first_token_base: Duration,
    /// The role in disaggregated serving. With `None` the server ignores the members that concern other stages.
    pub role: Option<Role>,
    /// The fixed part of the time to fetch a processed prompt.
    pub transfer_base: Duration,
    /// The time to fetch each prompt token that the prefix cache does not have.
    pub transfer_per_token: Duration,
    /// The number of API server processes to imitate. With two or more, filtered metrics pages are empty and the page
    /// has another form.
    pub processes: usize,
    /// The engines (data-parallel ranks) behind the server. Each has its own batch, cache and metrics rows.
    pub engines: usize,
    /// The seed that chooses the words of answers and the requests hit by `error_rate`.
    pub seed: u64,
    /// The largest request body in bytes. A larger one gets a 413.
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

    /// The first served name.
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

/// The present time in seconds since 1970.
pub(crate) fn unix_seconds() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}
