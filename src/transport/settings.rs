//! The time limits and the numbers of a port's connections.

use std::time::Duration;

use super::ConnectionBounds;

/// The longest time for the TLS handshake. Also the longest wait after it for the preface of HTTP/2, or for a whole
/// request of HTTP/1.
pub(super) const GREETING: Duration = Duration::from_secs(10);

/// The longest time for which a write may make no progress if keep-alive is off.
const WRITE_PATIENCE: Duration = Duration::from_secs(30);

/// The keep-alive probes of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keepalive {
    /// The time without traffic after which the other side is probed, by TCP and by an HTTP/2 ping. Zero turns the
    /// probes off.
    pub interval: Duration,
    /// The time that the other side has to answer a probe. Then the connection is closed.
    pub timeout: Duration,
}

impl Keepalive {
    /// The interval; `None` if keep-alive is off.
    pub(super) fn interval(self) -> Option<Duration> {
        (!self.interval.is_zero()).then_some(self.interval)
    }

    /// The longest time for which a write may make no progress.
    pub(super) fn write_patience(self) -> Duration {
        self.interval().map_or(WRITE_PATIENCE, |interval| interval.saturating_add(self.timeout))
    }
}

impl Default for Keepalive {
    fn default() -> Self {
        Self { interval: Duration::from_secs(20), timeout: Duration::from_secs(10) }
    }
}

/// The probes between replicas. They notice within three seconds that a replica is gone.
pub const AMONG_PEERS: Keepalive =
    Keepalive { interval: Duration::from_secs(1), timeout: Duration::from_secs(2) };

/// The bounds of a port that few clients use, such as probes, scrapers and an autoscaler.
pub const FEW_CLIENTS: ConnectionBounds = ConnectionBounds { open: 512, strangers: 256 };

/// The most connections of the ext_proc port without a whole request.
pub const UNKNOWN_PROXIES: usize = 1024;

/// The most connections of the ext_proc port, unless a flag sets another number.
pub const PROXIES: usize = 8192;
