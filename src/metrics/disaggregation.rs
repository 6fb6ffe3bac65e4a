//! Series of what profile handlers decided about stages of a request.

use std::sync::Arc;

use prometheus::{IntCounterVec, Registry};

use super::cardinality::{Gate, Limiter, OTHER};
use super::family::{Definition, Family};

const LABELS: [&str; 4] = ["plugin_name", "plugin_type", "model_name", "decision_type"];
const LEGACY: &[(&str, &str)] = &[("model_name", "model_name"), ("decision_type", "decision_type")];

const ALL_STAGES: Definition<4> = Definition::new(
    "llm_d_epp_disagg_decision_total",
    "Requests by the stages that got servers of their own.",
    LABELS,
)
.legacy("llm_d_inference_scheduler_disagg_decision_total", LEGACY);

const TWO_STAGES: Definition<4> = Definition::new(
    "llm_d_epp_pd_decision_total",
    "Requests by the stages that got servers of their own, as pd-profile-handler decides.",
    LABELS,
)
.legacy("llm_d_inference_scheduler_pd_decision_total", LEGACY);

/// Label of requests whose model is not known.
const UNKNOWN_MODEL: &str = "unknown";

/// Stages that a request got a server of its own for, beside decode.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StagesRun {
    /// The prompt is processed elsewhere.
    pub prefill: bool,
    /// Images, videos and sounds are encoded elsewhere.
    pub encode: bool,
}

impl StagesRun {
    /// Value of the label `decision_type`.
    pub fn label(self) -> &'static str {
        match (self.encode, self.prefill) {
            (false, false) => "decode-only",
            (false, true) => "prefill-decode",
            (true, false) => "encode-decode",
            (true, true) => "encode-prefill-decode",
        }
    }
}

/// The families, shared by all handlers.
pub(super) struct DecisionFamilies {
    all_stages: Arc<Family<IntCounterVec, 4>>,
    two_stages: Arc<Family<IntCounterVec, 4>>,
    models: Arc<Limiter>,
    gate: Arc<Gate>,
}

impl DecisionFamilies {
    /// `gate` bounds the series of both.
    pub(super) fn register(registry: &Registry, models: Arc<Limiter>, gate: Gate) -> Self {
        let family = |definition| Arc::new(Family::register(definition, registry));
        Self { all_stages: family(ALL_STAGES), two_stages: family(TWO_STAGES), models, gate: Arc::new(gate) }
    }

    pub(super) fn all_stages(&self, kind: &str, name: &str) -> DecisionMetrics {
        self.counter(&self.all_stages, kind, name)
    }

    pub(super) fn two_stages(&self, kind: &str, name: &str) -> DecisionMetrics {
        self.counter(&self.two_stages, kind, name)
    }

    fn counter(&self, family: &Arc<Family<IntCounterVec, 4>>, kind: &str, name: &str) -> DecisionMetrics {
        DecisionMetrics {
            name: name.into(),
            kind: kind.into(),
            family: Arc::clone(family),
            models: Arc::clone(&self.models),
            gate: Arc::clone(&self.gate),
        }
    }
}

/// Counts what one handler decided.
#[derive(Clone)]
pub struct DecisionMetrics {
    name: Box<str>,
    kind: Box<str>,
    family: Arc<Family<IntCounterVec, 4>>,
    models: Arc<Limiter>,
    gate: Arc<Gate>,
}

impl DecisionMetrics {
    /// Counts a request for the target model `model`, which may be empty. Beyond the bound of series the models share
    /// one.
    pub fn count(&self, model: &str, stages: StagesRun) {
        let model = if model.is_empty() { UNKNOWN_MODEL } else { self.models.admit(model) };
        let labels = |model| [&*self.name, &*self.kind, model, stages.label()];
        let admitted = model == OTHER || self.gate.admits(&labels(model));
        self.family.child(labels(if admitted { model } else { OTHER })).inc();
    }
}

impl std::fmt::Debug for DecisionMetrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DecisionMetrics").field("name", &self.name).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::{Format, Metrics};

    #[test]
    fn decisions_count_by_model_and_stages_under_both_names() {
        let metrics = Metrics::new();
        let handler = metrics.disaggregation("disagg-profile-handler", "pd");
        handler.count("m", StagesRun { prefill: true, encode: false });
        handler.count("m", StagesRun { prefill: true, encode: false });
        handler.count("", StagesRun::default());
        metrics.prefill_decode("pd-profile-handler", "old").count("m", StagesRun::default());
        let page = metrics.encode(Format::Text);
        for line in [
            "llm_d_epp_disagg_decision_total{decision_type=\"prefill-decode\",model_name=\"m\",plugin_name=\"pd\",plugin_type=\"disagg-profile-handler\"} 2",
            "llm_d_epp_disagg_decision_total{decision_type=\"decode-only\",model_name=\"unknown\",plugin_name=\"pd\",plugin_type=\"disagg-profile-handler\"} 1",
            "llm_d_inference_scheduler_disagg_decision_total{decision_type=\"prefill-decode\",model_name=\"m\"} 2",
            "llm_d_epp_pd_decision_total{decision_type=\"decode-only\",model_name=\"m\",plugin_name=\"old\",plugin_type=\"pd-profile-handler\"} 1",
            "llm_d_inference_scheduler_pd_decision_total{decision_type=\"decode-only\",model_name=\"m\"} 1",
        ] {
            assert!(page.lines().any(|other| other == line), "{line} is missing in {page}");
        }
    }

    #[test]
    fn invented_models_make_a_bounded_number_of_series() {
        let metrics = Metrics::new();
        let handler = metrics.disaggregation("disagg-profile-handler", "pd");
        for number in 0..20_000 {
            handler.count(&format!("model-{number}"), StagesRun::default());
        }
        let page = metrics.encode(Format::Text);
        let series = page.lines().filter(|line| line.starts_with("llm_d_epp_disagg_decision_total{")).count();
        assert!((1..=5_000).contains(&series), "{series}");
        assert!(page.contains("model_name=\"other\""));
    }
}
