//! Waiting for something to become true, with an end.

use std::future::Future;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

/// How long a test waits for what must happen. Long, for the sake of loaded machines; nothing is ever waited for to its
/// end unless it fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// The first value that `probe` gives; the test fails if there is none in [`PATIENCE`].
pub(crate) async fn eventually<T>(what: &str, mut probe: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    let mut tick = interval(Duration::from_millis(10));
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while Instant::now() < deadline {
        tick.tick().await;
        if let Ok(Some(found)) = timeout(PATIENCE, probe()).await {
            return found;
        }
    }
    panic!("not within {PATIENCE:?}: {what}");
}

/// Waits until `probe` is true.
pub(crate) async fn holds(what: &str, mut probe: impl AsyncFnMut() -> bool) {
    eventually(what, async || probe().await.then_some(())).await;
}

/// What `future` gives, or a failed test if it takes longer than [`PATIENCE`].
pub(crate) async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("not within {PATIENCE:?}: {what}"))
}
