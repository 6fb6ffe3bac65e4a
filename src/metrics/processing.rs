//! Series of the two phases of a stream, of model rewrites, and of the build.

use std::time::Duration;

use prometheus::{Histogram, HistogramVec, IntCounterVec, IntGaugeVec, Registry};

use super::buckets::{REQUEST_PHASE_SECONDS, RESPONSE_PHASE_SECONDS};
use super::family::{Definition, Family, Twin};

const REQUEST_PHASE: Definition<0> = Definition::new(
    "llm_d_epp_request_processing_duration_seconds",
    "Time from the request headers until the request was answered or refused, waiting included, in seconds.",
    [],
)
.buckets(REQUEST_PHASE_SECONDS);

const RESPONSE_PHASE: Definition<0> = Definition::new(
    "llm_d_epp_response_processing_duration_seconds",
    "Time spent on the response of one request, in seconds.",
    [],
)
.buckets(RESPONSE_PHASE_SECONDS);

const REWRITES: Definition<3> = Definition::new(
    "llm_d_epp_model_rewrite_decisions_total",
    "Requests that a model rewrite rule matched.",
    ["model_rewrite_name", "model_name", "target_model"],
)
.unannounced_legacy(
    "inference_extension_model_rewrite_decisions_total",
    &[
        ("model_rewrite_name", "model_rewrite_name"),
        ("model_name", "model_name"),
        ("target_model", "target_model"),
    ],
);

const INFO: Definition<2> =
    Definition::new("llm_d_epp_info", "Build of this program; always 1.", ["commit", "build_ref"])
        .unannounced_legacy("inference_extension_info", &[("commit", "commit"), ("build_ref", "build_ref")]);

/// Durations of the two phases of a stream.
#[derive(Clone, Debug)]
pub struct ProcessingMetrics {
    request: Twin<Histogram>,
    response: Twin<Histogram>,
}

impl ProcessingMetrics {
    pub(super) fn register(registry: &Registry) -> Self {
        Self {
            request: Family::<HistogramVec, 0>::register(REQUEST_PHASE, registry).child([]),
            response: Family::<HistogramVec, 0>::register(RESPONSE_PHASE, registry).child([]),
        }
    }

    /// Records the request phase of a stream, also of one that failed; once for each stream.
    pub fn request(&self, duration: Duration) {
        self.request.observe(duration.as_secs_f64());
    }

    /// Records the time spent on the response of a stream, at its end. Zero counts as no response.
    pub fn response(&self, duration: Duration) {
        if !duration.is_zero() {
            self.response.observe(duration.as_secs_f64());
        }
    }
}

/// Families that have no handle of their own.
pub(super) struct DirectFamilies {
    pub(super) rewrites: Family<IntCounterVec, 3>,
    pub(super) info: Family<IntGaugeVec, 2>,
    pub(super) missing: Family<IntGaugeVec, 2>,
}

const MISSING: Definition<2> = Definition::new(
    "pointsman_missing_plugins",
    "Plugins of the configuration that are not in force, because this version does not have their type; always 1.",
    ["plugin_type", "plugin_name"],
);

impl DirectFamilies {
    pub(super) fn register(registry: &Registry) -> Self {
        Self {
            rewrites: Family::register(REWRITES, registry),
            info: Family::register(INFO, registry),
            missing: Family::register(MISSING, registry),
        }
    }
}
