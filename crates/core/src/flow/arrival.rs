//! A request that asks to be released.

use std::sync::Arc;
use std::time::{Duration, Instant};

/// A request that asks to be released.
#[derive(Clone, Debug)]
pub struct Arrival {
    /// Priority of the request's objective; a larger number is more important. A priority without a band waits in band
    /// 0.
    pub priority: i32,
    /// Fairness id, which names the request's flow.
    pub fairness_id: Arc<str>,
    /// Model that the client asked for; used as a label only.
    pub model: Arc<str>,
    /// Model after rewrites; used as a label only.
    pub target_model: Arc<str>,
    /// Bytes of the body.
    pub size: u64,
    /// Tokens of the prompts, exact or estimated.
    pub tokens: u64,
    /// Time at which the request headers came.
    pub received: Instant,
    /// Longest wait that the request asks for. The configured wait is in force if it is shorter, or if this is `None`
    /// or 0.
    pub ttl: Option<Duration>,
    /// Objective for the time to first token, see [`super::slo_ttft`].
    pub slo_ttft: Option<Duration>,
}
