//! The state that all calls of the scaler share, and its bounds.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;

use super::{Activity, Look, Role, ScalerSource};

/// How often running requests are looked at: nothing announces them.
pub(super) const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// Least time between two looks, however often the number of waiting requests changes.
pub(super) const BREATH: Duration = Duration::from_millis(10);

/// Bounds of the service.
#[derive(Debug, Clone)]
pub struct ScalerSettings {
    /// Name of the pool, compared with the `pool` of a trigger.
    pub pool: String,
    /// Streams open at once, at most. KEDA opens one for each trigger of type external-push.
    pub max_streams: usize,
    /// Time after which a stream repeats its last word, so that both ends notice a dead connection.
    pub keepalive: Duration,
}

impl Default for ScalerSettings {
    fn default() -> Self {
        Self { pool: String::new(), max_streams: 64, keepalive: Duration::from_secs(30) }
    }
}

/// The state that all calls share.
pub(super) struct Shared {
    pub(super) source: Arc<dyn ScalerSource>,
    pub(super) settings: ScalerSettings,
    pub(super) activity: Mutex<Activity>,
    pub(super) streams: Arc<AtomicUsize>,
    pub(super) role: watch::Sender<Role>,
}

impl Shared {
    /// What is to be seen now. `stirred`: the number of waiting requests has changed, so somebody was there even if
    /// nobody is now.
    pub(super) fn look(&self, stirred: bool) -> Look {
        let waiting = self.source.queue_depth().max(u64::from(stirred));
        Look { waiting, running: self.source.running(), at: Instant::now() }
    }
}
