//! The settings of saturation detectors, as plain values. `saturation` has the arithmetic.

use std::sync::Arc;
use std::time::Duration;

/// Requests in flight at which an endpoint without a recent reading counts as full. It is also the default limit of the
/// concurrency detector.
pub const STALE_MAX_CONCURRENCY: u64 = 100;

/// A saturation detector.
#[derive(Clone, Debug, PartialEq)]
pub struct Detector {
    /// Name of the instance, for the metric of stale endpoints.
    pub name: Arc<str>,
    /// The figures that it looks at.
    pub kind: DetectorKind,
}

impl Default for Detector {
    fn default() -> Self {
        Self { name: "utilization-detector".into(), kind: DetectorKind::default() }
    }
}

/// The figures that a detector looks at.
#[derive(Clone, Debug, PartialEq)]
pub enum DetectorKind {
    /// Figures that the model servers report.
    Utilization(Utilization),
    /// Requests that this process has in flight.
    Concurrency(Concurrency),
}

impl Default for DetectorKind {
    fn default() -> Self {
        Self::Utilization(Utilization::default())
    }
}

/// Judges by the queue and the cache of the last reading, and by the requests that were sent since.
#[derive(Clone, Debug, PartialEq)]
pub struct Utilization {
    /// Waiting requests at which an endpoint is full; at least 1.
    pub queue_depth_threshold: u64,
    /// Cache usage at which an endpoint is full, in (0, 1].
    pub kv_cache_util_threshold: f64,
    /// Age from which a reading counts as stale; more than 0.
    pub staleness_threshold: Duration,
    /// Share by which the filter lets an endpoint exceed the thresholds; at least 0.
    pub headroom: f64,
    /// The fill that an endpoint without a recent reading counts as.
    pub staleness_policy: StalenessPolicy,
}

impl Default for Utilization {
    fn default() -> Self {
        Self {
            queue_depth_threshold: 5,
            kv_cache_util_threshold: 0.8,
            staleness_threshold: Duration::from_millis(200),
            headroom: 0.0,
            staleness_policy: StalenessPolicy::default(),
        }
    }
}

/// Judges by the requests of this process.
#[derive(Clone, Debug, PartialEq)]
pub struct Concurrency {
    /// Requests at which an endpoint is full; at least 1.
    pub max_concurrency: u64,
    /// Estimated tokens in flight at which an endpoint is full; at least 1.
    pub max_token_concurrency: u64,
    /// The figure that counts: requests or tokens.
    pub mode: ConcurrencyMode,
    /// Share by which the filter lets an endpoint exceed the limits; at least 0.
    pub headroom: f64,
}

impl Default for Concurrency {
    fn default() -> Self {
        Self {
            max_concurrency: 100,
            max_token_concurrency: 1_000_000,
            mode: ConcurrencyMode::default(),
            headroom: 0.0,
        }
    }
}

/// The figure that the concurrency detector counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ConcurrencyMode {
    /// Requests.
    #[default]
    Requests,
    /// Tokens.
    Tokens,
    /// The one of the two that is closer to its limit, for each endpoint.
    Hybrid,
}

/// What an endpoint without a recent reading counts as.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StalenessPolicy {
    /// Full. A pool whose scrapes fail is held; this is what the reference does.
    Saturated,
    /// Absent. A pool whose scrapes all fail is open.
    Ignore,
    /// As full as its requests in flight from this process make it. [`STALE_MAX_CONCURRENCY`] requests mean full.
    #[default]
    InFlight,
}
