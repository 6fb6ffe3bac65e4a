//! Series of discovery and configuration.

use std::time::{SystemTime, UNIX_EPOCH};

use prometheus::{Gauge, GaugeVec, IntCounterVec, Registry};

use super::family::{Definition, Family, Twin};

const RELOADS: Definition<2> = Definition::new(
    "pointsman_reloads_total",
    "Times that a watched source was read again, by source and outcome.",
    ["source", "outcome"],
);

const LAST_SUCCESS: Definition<1> = Definition::new(
    "pointsman_reload_last_success_timestamp_seconds",
    "When a watched source was last read with success, in seconds since the Unix epoch.",
    ["source"],
);

/// Handles of one watched source: an endpoints file, a watch of a resource, a certificate.
#[derive(Clone)]
pub struct DiscoveryMetrics {
    reloads: Family<IntCounterVec, 2>,
    last_success: Family<GaugeVec, 1>,
}

impl DiscoveryMetrics {
    pub(super) fn register(registry: &Registry) -> Self {
        Self {
            reloads: Family::register(RELOADS, registry),
            last_success: Family::register(LAST_SUCCESS, registry),
        }
    }

    /// Counts a reading of `source` that was taken over. `now` is the wall clock.
    pub fn reloaded(&self, source: &'static str, now: SystemTime) {
        // So that the first failure is an increase.
        self.reloads.child([source, "failure"]);
        self.reloads.child([source, "success"]).inc();
        let seconds = now.duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64());
        let gauge: Twin<Gauge> = self.last_success.child([source]);
        gauge.set(seconds);
    }

    /// Counts a reading of `source` that was turned down; what was known before still holds.
    pub fn reload_failed(&self, source: &'static str) {
        self.reloads.child([source, "success"]);
        self.reloads.child([source, "failure"]).inc();
    }
}

impl std::fmt::Debug for DiscoveryMetrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DiscoveryMetrics").finish_non_exhaustive()
    }
}
