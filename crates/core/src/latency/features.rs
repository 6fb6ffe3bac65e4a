//! The features from which latencies are predicted.

/// Number of features of the time to the first token.
pub(super) const FIRST: usize = 6;
/// Number of features of the time between tokens.
pub(super) const BETWEEN: usize = 4;

/// The figures of an endpoint and a request at the time of the decision.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Situation {
    /// Tokens of the prompt that the endpoint does not hold in its cache and has to prefill.
    pub uncached_tokens: f64,
    /// Prompt tokens that the endpoint has to prefill for other requests, which have no first token yet. Of peers'
    /// requests all prompt tokens count.
    pub queued_tokens: f64,
    /// Requests in flight at the endpoint.
    pub running: f64,
    /// Waiting requests in the endpoint's last reading.
    pub waiting: f64,
    /// KV-cache usage in the endpoint's last reading, 0..=1.
    pub kv_usage: f64,
}

impl Situation {
    /// Features of the time to the first token, scaled so that each is about 1 on a busy server.
    pub(super) fn first(&self) -> [f64; FIRST] {
        [
            1.0,
            bounded(self.uncached_tokens / 1000.0),
            bounded(self.queued_tokens / 1000.0),
            bounded(self.running / 10.0),
            bounded(self.waiting / 10.0),
            bounded(self.kv_usage),
        ]
    }

    pub(super) fn between(&self) -> [f64; BETWEEN] {
        let queued = bounded(self.queued_tokens / 1000.0);
        [1.0, bounded(self.running / 10.0), bounded(self.kv_usage), queued]
    }
}

/// Bounds a figure to a million of its units.
fn bounded(value: f64) -> f64 {
    if value.is_finite() { value.clamp(0.0, 1e6) } else { 0.0 }
}
