//! The settings of the saturation detectors as plain values. `saturation` computes the saturation from them.

use std::sync::Arc;
use std::time::Duration;

/// The number of requests in flight at which an endpoint without a recent reading counts as full. It is also the
/// default limit of the concurrency detector.
pub const STALE_MAX_CONCURRENCY: u64 = 100;

/// The settings of a saturation detector.
#[derive(Clone, Debug, PartialEq)]
pub struct Detector {
    /// The name of the instance, which labels the metric of stale endpoints.
    pub name: Arc<str>,
    /// The figures that the detector compares with its thresholds.
    pub kind: DetectorKind,
}

impl Default for Detector {
    fn default() -> Self {
        Self { name: "utilization-detector".into(), kind: DetectorKind::default() }
    }
}

/// The figures that a detector compares with its thresholds.
#[derive(Clone, Debug, PartialEq)]
pub enum DetectorKind {
    /// The queue and the cache usage that the model servers report.
    Utilization(Utilization),
    /// The requests that this process has in flight.
    Concurrency(Concurrency),
}

impl Default for DetectorKind {
    fn default() -> Self {
        Self::Utilization(Utilization::default())
    }
}

/// The settings of the utilization detector. It uses the queue and the cache usage of the last reading, and the
/// requests that were sent since.
#[derive(Clone, Debug, PartialEq)]
pub struct Utilization {
    /// The number of waiting requests at which an endpoint is full; at least 1.
    pub queue_depth_threshold: u64,
    /// The share of the cache in use at which an endpoint is full, in (0, 1].
    pub kv_cache_util_threshold: f64,
    /// The age at which a reading is stale; more than 0.
    pub staleness_threshold: Duration,
    /// The share by which the filter lets an endpoint exceed the thresholds; at least 0.
    pub headroom: f64,
    /// How full an endpoint without a recent reading counts.
    pub staleness_policy: StalenessPolicy,
    /// Waiting requests are counted on from the last reading by what ended since, too.
    pub by_age: bool,
}

impl Default for Utilization {
    fn default() -> Self {
        Self {
            queue_depth_threshold: 5,
            kv_cache_util_threshold: 0.8,
            staleness_threshold: Duration::from_millis(200),
            headroom: 0.0,
            staleness_policy: StalenessPolicy::default(),
            by_age: false,
        }
    }
}

/// The settings of the concurrency detector, which counts the requests that this process has in flight.
#[derive(Clone, Debug, PartialEq)]
pub struct Concurrency {
    /// The number of requests at which an endpoint is full; at least 1.
    pub max_concurrency: u64,
    /// The number of estimated tokens in flight at which an endpoint is full; at least 1.
    pub max_token_concurrency: u64,
    /// The figure that counts: requests, tokens or both.
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
    /// Requests count.
    #[default]
    Requests,
    /// Tokens count.
    Tokens,
    /// For each endpoint, the figure counts that is closer to its limit.
    Hybrid,
}

/// How full an endpoint without a recent reading counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StalenessPolicy {
    /// It counts as full. If all scrapes fail, no request is released. The reference does this.
    Saturated,
    /// It does not count. If all scrapes fail, every request is released.
    Ignore,
    /// It is as full as its requests in flight from this process make it. [`STALE_MAX_CONCURRENCY`] requests make it
    /// full.
    #[default]
    InFlight,
}
