//! The facts of a request that flow control needs.

use std::sync::Arc;
use std::time::{Duration, Instant};

/// A request that asks to be released.
#[derive(Clone, Debug)]
pub struct Arrival {
    /// The priority of the request's objective; a larger number is more important. A request whose priority has no band
    /// waits in band 0.
    pub priority: i32,
    /// The fairness id, which names the flow of the request.
    pub fairness_id: Arc<str>,
    /// The model that the client asked for. It is used only as a label.
    pub model: Arc<str>,
    /// The model after rewrites. It is used only as a label.
    pub target_model: Arc<str>,
    /// The length of the body in bytes.
    pub size: u64,
    /// The number of tokens of the prompts, exact or estimated.
    pub tokens: u64,
    /// The time at which the request headers came.
    pub received: Instant,
    /// The longest wait that the request asks for. The configured wait applies if it is shorter, or if this field is
    /// `None` or 0.
    pub ttl: Option<Duration>,
    /// The objective for the time to the first token; see [`super::slo_ttft`].
    pub slo_ttft: Option<Duration>,
}
