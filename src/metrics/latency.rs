//! Series of a producer of latency predictions.

use std::sync::Arc;
use std::time::Duration;

use prometheus::{GaugeVec, HistogramVec, IntCounterVec, Registry};

use super::buckets::{PREDICTED_TPOT_SECONDS, PREDICTION_SECONDS, REQUEST_SECONDS};
use super::cardinality::{Gate, Limiter, OTHER};
use super::family::{Definition, Family, LegacyLabels};
use crate::latency::{LatencyKind, Standing};

const LABELS: [&str; 4] = ["plugin_name", "plugin_type", "model_name", "target_model_name"];
const TYPED: [&str; 5] = ["plugin_name", "plugin_type", "model_name", "target_model_name", "type"];
const MODELS: LegacyLabels = &[("model_name", "model_name"), ("target_model_name", "target_model_name")];
const TYPED_MODELS: LegacyLabels =
    &[("model_name", "model_name"), ("target_model_name", "target_model_name"), ("type", "type")];
const OWN: [&str; 3] = ["plugin_name", "plugin_type", "latency"];

const LAST: Definition<5> = Definition::new(
    "llm_d_epp_inference_request_metric",
    "Figures of the last request: measured and predicted latencies in seconds, and 1 where an objective was missed.",
    TYPED,
)
.legacy("inference_objective_inference_request_metric", TYPED_MODELS);

const PREDICTED_TTFT: Definition<4> = Definition::new(
    "llm_d_epp_request_predicted_ttft_seconds",
    "Time to the first token that was predicted for the chosen endpoint.",
    LABELS,
)
.legacy("inference_objective_request_predicted_ttft_seconds", MODELS)
.buckets(REQUEST_SECONDS);

const TTFT_DURATION: Definition<4> = Definition::new(
    "llm_d_epp_request_ttft_prediction_duration_seconds",
    "Time that it took to predict a request's times to the first token for all endpoints.",
    LABELS,
)
.legacy("inference_objective_request_ttft_prediction_duration_seconds", MODELS)
.buckets(PREDICTION_SECONDS);

const PREDICTED_TPOT: Definition<4> = Definition::new(
    "llm_d_epp_request_predicted_tpot_seconds",
    "Time between two tokens that was predicted for the chosen endpoint.",
    LABELS,
)
.legacy("inference_objective_request_predicted_tpot_seconds", MODELS)
.buckets(PREDICTED_TPOT_SECONDS);

const TPOT_DURATION: Definition<4> = Definition::new(
    "llm_d_epp_request_tpot_prediction_duration_seconds",
    "Time that it took to predict a request's times between two tokens for all endpoints.",
    LABELS,
)
.legacy("inference_objective_request_tpot_prediction_duration_seconds", MODELS)
.buckets(PREDICTION_SECONDS);

const VIOLATIONS: Definition<5> = Definition::new(
    "llm_d_epp_request_slo_violation_total",
    "Requests whose latency was above the objective that they named, by kind of latency.",
    TYPED,
)
.legacy("inference_objective_request_slo_violation_total", TYPED_MODELS);

const TTFT: Definition<2> = Definition::new(
    "inference_objective_request_ttft_seconds",
    "[Deprecated: Use llm_d_epp_request_ttft_seconds] Time to the first token; exists where latencies are predicted.",
    ["model_name", "target_model_name"],
)
.buckets(REQUEST_SECONDS);

const TPOT: Definition<2> = Definition::new(
    "inference_objective_request_tpot_seconds",
    "[Deprecated: Use llm_d_epp_request_streaming_tpot_seconds] Time between tokens; exists where latencies are predicted.",
    ["model_name", "target_model_name"],
)
.buckets(PREDICTED_TPOT_SECONDS);

const ERROR: Definition<3> = Definition::new(
    "pointsman_latency_prediction_error_ratio",
    "Mean absolute error of the predictions of the last 100 requests, as a share of the mean latency.",
    OWN,
);

const IN_FORCE: Definition<3> = Definition::new(
    "pointsman_latency_prediction_in_force",
    "1 while predictions are given out; 0 before there are enough requests and while the plain mean is better.",
    OWN,
);

const WITHIN: Definition<2> = Definition::new(
    "pointsman_latency_predicted_within_slo_ratio",
    "Share of the last 100 requests with a latency objective for which the chosen endpoint was predicted to keep it.",
    ["plugin_name", "plugin_type"],
);

/// The families, shared by all producers.
pub(super) struct LatencyFamilies {
    series: Arc<Series>,
}

struct Series {
    last: Family<GaugeVec, 5>,
    predicted: [Family<HistogramVec, 4>; 2],
    duration: [Family<HistogramVec, 4>; 2],
    violations: Family<IntCounterVec, 5>,
    measured: [Family<HistogramVec, 2>; 2],
    error: Family<GaugeVec, 3>,
    in_force: Family<GaugeVec, 3>,
    within: Family<GaugeVec, 2>,
    models: Arc<Limiter>,
    gate: Gate,
}

impl LatencyFamilies {
    /// `gate` bounds the pairs of models.
    pub(super) fn register(registry: &Registry, models: Arc<Limiter>, gate: Gate) -> Self {
        let series = Series {
            last: Family::register(LAST, registry),
            predicted: [PREDICTED_TTFT, PREDICTED_TPOT].map(|family| Family::register(family, registry)),
            duration: [TTFT_DURATION, TPOT_DURATION].map(|family| Family::register(family, registry)),
            violations: Family::register(VIOLATIONS, registry),
            measured: [TTFT, TPOT].map(|family| Family::register(family, registry)),
            error: Family::register(ERROR, registry),
            in_force: Family::register(IN_FORCE, registry),
            within: Family::register(WITHIN, registry),
            models,
            gate,
        };
        Self { series: Arc::new(series) }
    }

    pub(super) fn producer(&self, kind: &str, name: &str) -> LatencyMetrics {
        LatencyMetrics { series: Arc::clone(&self.series), kind: kind.into(), name: name.into() }
    }
}

/// Handles of one producer.
#[derive(Clone)]
pub struct LatencyMetrics {
    series: Arc<Series>,
    kind: Box<str>,
    name: Box<str>,
}

impl std::fmt::Debug for LatencyMetrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LatencyMetrics").field("name", &self.name).finish_non_exhaustive()
    }
}

/// The models of a request, bounded in number: what its series are labelled with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LatencyLabels {
    model: Box<str>,
    target: Box<str>,
}

/// Values of the label `type` for one kind of latency, and the place of its families.
struct KindNames {
    place: usize,
    measured: &'static str,
    predicted: &'static str,
    duration: &'static str,
    violation: &'static str,
}

fn names(kind: LatencyKind) -> KindNames {
    match kind {
        LatencyKind::FirstToken => KindNames {
            place: 0,
            measured: "ttft",
            predicted: "predicted_ttft",
            duration: "ttft_prediction_duration",
            violation: "ttft_slo_violation",
        },
        LatencyKind::BetweenTokens => KindNames {
            place: 1,
            measured: "tpot",
            predicted: "predicted_tpot",
            duration: "tpot_prediction_duration",
            violation: "tpot_slo_violation",
        },
    }
}

impl LatencyMetrics {
    /// Labels of a request for `model` that goes to `target`.
    pub fn labels(&self, model: &str, target: &str) -> LatencyLabels {
        let pair = [model, target]
            .map(|name: &str| if name.is_empty() { name } else { self.series.models.admit(name) });
        let [model, target] = if self.series.gate.admits(&pair) { pair } else { [OTHER; 2] };
        LatencyLabels { model: model.into(), target: target.into() }
    }

    fn values<'s>(&'s self, labels: &'s LatencyLabels) -> [&'s str; 4] {
        [&self.name, &self.kind, &labels.model, &labels.target]
    }

    fn show(&self, labels: &LatencyLabels, kind: &str, value: f64) {
        let [name, plugin, model, target] = self.values(labels);
        self.series.last.child([name, plugin, model, target, kind]).set(value);
    }

    /// Records a prediction for the chosen endpoint, in milliseconds, and how long predicting took.
    pub fn predicted(&self, labels: &LatencyLabels, kind: LatencyKind, milliseconds: f64, took: Duration) {
        let KindNames { place, predicted, duration, .. } = names(kind);
        let values = self.values(labels);
        self.series.predicted[place].child(values).observe(milliseconds / 1000.0);
        self.series.duration[place].child(values).observe(took.as_secs_f64());
        self.show(labels, predicted, milliseconds / 1000.0);
        self.show(labels, duration, took.as_secs_f64());
    }

    /// Records a measured latency beside the objective of the request, both in milliseconds; an objective of 0 is none.
    pub fn measured(&self, labels: &LatencyLabels, kind: LatencyKind, milliseconds: f64, objective: f64) {
        let KindNames { place, measured, violation, .. } = names(kind);
        let seconds = milliseconds / 1000.0;
        self.series.measured[place].child([&labels.model, &labels.target]).observe(seconds);
        self.show(labels, measured, seconds);
        if objective > 0.0 {
            let missed = milliseconds > objective;
            self.show(labels, violation, if missed { 1.0 } else { 0.0 });
            let [plugin_name, plugin, model, target] = self.values(labels);
            let counter = self.series.violations.child([plugin_name, plugin, model, target, measured]);
            if missed {
                counter.inc();
            }
        }
    }

    /// Shows how well a kind of latency is predicted.
    pub fn standing(&self, kind: LatencyKind, standing: Standing) {
        let labels = [&*self.name, &*self.kind, names(kind).measured];
        self.series.in_force.child(labels).set(if standing.in_force { 1.0 } else { 0.0 });
        if let Some(error) = standing.error {
            self.series.error.child(labels).set(error);
        }
    }

    /// Shows the share of requests that were predicted to keep their objective, 0..=1.
    pub fn within(&self, share: f64) {
        self.series.within.child([&*self.name, &*self.kind]).set(share);
    }
}
