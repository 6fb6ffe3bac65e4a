//! Where the numbers come from.

use tokio::sync::watch;

/// The figures of a pool that the scaler reads. Every method is cheap and never waits.
pub trait ScalerSource: Send + Sync + 'static {
    /// Requests that wait to be dispatched.
    fn queue_depth(&self) -> u64;
    /// Body bytes of the requests that wait.
    fn queued_bytes(&self) -> u64;
    /// Prompt tokens, as estimated, of the requests that wait.
    fn queued_tokens(&self) -> u64;
    /// Requests dispatched and not yet ended.
    fn running(&self) -> u64;
    /// Saturation of the pool, 1.0 = full, above 1 when overloaded; not a number when it is not known.
    fn saturation(&self) -> f64;
    /// Number of waiting requests, published with each change before the call that changed it returns. A burst may be
    /// published as one change. The sender lives as long as the pool: when it is dropped, streams end.
    fn subscribe(&self) -> watch::Receiver<u64>;
}
