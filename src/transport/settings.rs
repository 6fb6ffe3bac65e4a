//! How a port treats its connections.

use std::time::Duration;

use super::ConnectionBounds;

/// Longest wait for a TLS handshake, and for the first sign of a client after it: the preface of HTTP/2, or a whole
/// request of HTTP/1.
pub(super) const GREETING: Duration = Duration::from_secs(10);

/// Longest time for which a write may make no progress where keepalive is off.
const WRITE_PATIENCE: Duration = Duration::from_secs(30);

/// How the other end is asked whether it still lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keepalive {
    /// Silence after which it is asked, by TCP and by a ping of HTTP/2; zero means never.
    pub interval: Duration,
    /// How long its answer may take; then the connection is closed.
    pub timeout: Duration,
}

impl Keepalive {
    /// The interval, unless keepalive is off.
    pub(super) fn interval(self) -> Option<Duration> {
        (!self.interval.is_zero()).then_some(self.interval)
    }

    /// Longest time for which a write may make no progress.
    pub(super) fn write_patience(self) -> Duration {
        self.interval().map_or(WRITE_PATIENCE, |interval| interval.saturating_add(self.timeout))
    }
}

impl Default for Keepalive {
    fn default() -> Self {
        Self { interval: Duration::from_secs(20), timeout: Duration::from_secs(10) }
    }
}

/// How replicas ask whether the others still live: within three seconds a dead one is known.
pub const AMONG_PEERS: Keepalive =
    Keepalive { interval: Duration::from_secs(1), timeout: Duration::from_secs(2) };

/// Bounds of a port that few clients use: probes, scrapers, an autoscaler.
pub const FEW_CLIENTS: ConnectionBounds = ConnectionBounds { open: 512, strangers: 256 };

/// Connections of the ext_proc port that have not brought a request yet.
pub const UNKNOWN_PROXIES: usize = 1024;

/// Most connections of the ext_proc port where nothing else is said.
pub const PROXIES: usize = 8192;
