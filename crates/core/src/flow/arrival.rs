//! A request that asks to be released.

use std::sync::Arc;
use std::time::{Duration, Instant};

/// A request that asks to be released.
#[derive(Clone, Debug)]
pub struct Arrival {
    /// Priority of its objective; larger is more important. Without a band of its own it waits in band 0.
    pub priority: i32,
    /// Its flow.
    pub fairness_id: Arc<str>,
    /// Model as asked for; a label only.
    pub model: Arc<str>,
    /// Model after rewrites; a label only.
    pub target_model: Arc<str>,
    /// Bytes of the body.
    pub size: u64,
    /// Estimated tokens.
    pub tokens: u64,
    /// Time at which its headers came.
    pub received: Instant,
    /// Longest wait that it asks for; the configured one holds if that is shorter. `None` or 0 for the configured one.
    pub ttl: Option<Duration>,
    /// Objective for the time to first token, see [`super::slo_ttft`].
    pub slo_ttft: Option<Duration>,
}
