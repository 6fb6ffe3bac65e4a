//! The interface of every way to find endpoints.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::pool::Pool;

/// Why discovery could not begin.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct DiscoveryError(pub String);

/// Keeps a pool up to date.
pub trait Discovery: Send {
    /// Fills `pool` and keeps it current until `shutdown` is cancelled. The first complete state marks the pool as
    /// synced. `Err` if there is no first state; whatever fails later is logged, and the last good state stays in
    /// force.
    fn run(
        self,
        pool: Arc<Pool>,
        shutdown: CancellationToken,
    ) -> impl Future<Output = Result<(), DiscoveryError>> + Send;
}
