//! The end of the process, in order: not ready, no new work, no open work, gone.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::transport::Connections;

/// Time between two looks of the drain at whether any work is left.
const LOOK: Duration = Duration::from_millis(50);

/// The work that a drain waits for.
#[derive(Clone, Debug)]
pub(super) struct Work {
    /// Streams open now.
    pub(super) streams: Arc<AtomicU64>,
    /// Connections open now.
    pub(super) connections: Connections,
}

impl Work {
    /// Resolves after `timeout`, or as soon as neither a stream nor a connection is open: without a connection nobody
    /// can send a request.
    pub(super) async fn until_gone(&self, timeout: Duration) {
        let looking = async {
            while self.streams.load(Relaxed) > 0 || self.connections.open() > 0 {
                tokio::time::sleep(LOOK).await;
            }
        };
        // Either way the drain is over.
        let _: Result<(), _> = tokio::time::timeout(timeout, looking).await;
    }

    /// Resolves when no stream is open, or after `timeout`. True if none is.
    pub(super) async fn until_idle(&self, timeout: Duration) -> bool {
        let looking = async {
            while self.streams.load(Relaxed) > 0 {
                tokio::time::sleep(LOOK).await;
            }
        };
        tokio::time::timeout(timeout, looking).await.is_ok()
    }
}
