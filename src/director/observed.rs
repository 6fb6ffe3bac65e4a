//! Turns the events of the scheduling cycle into spans.

use std::borrow::Cow;

use crate::scheduling::{CycleObserver, Decision, Outcome, RequestView, Stages, Step};
use crate::telemetry::Span;

/// The observer of a cycle below `span`; `None` if the span does not record.
pub(super) fn observer(span: &Span) -> Option<&dyn CycleObserver> {
    span.is_recording().then_some(span)
}

/// Each step is a span below the span of the step around it.
impl CycleObserver for Span {
    fn enter(&self, request: &RequestView<'_>, step: Step<'_>) -> Box<dyn CycleObserver> {
        let mut span = self.child(|| span_name(&step));
        describe(&mut span, request, &step);
        Box::new(span)
    }

    fn tell(&mut self, outcome: Outcome<'_>) {
        match outcome {
            Outcome::Filtered { survivors } => {
                self.attribute("llm_d.epp.filter.filtered_endpoints", count(survivors));
            }
            Outcome::Scored { scores } => {
                let max = scores.iter().copied().fold(f64::MIN, f64::max);
                let average = scores.iter().sum::<f64>() / scores.len() as f64;
                self.attribute("llm_d.epp.scorer.score.max", max);
                self.attribute("llm_d.epp.scorer.score.avg", average);
                self.attribute("llm_d.epp.scorer.endpoints_scored", count(scores.len()));
            }
        }
    }
}

fn span_name(step: &Step<'_>) -> Cow<'static, str> {
    match step {
        Step::Profile { .. } => "run_scheduler_profile".into(),
        Step::Deciding { step, .. } => (*step).into(),
        Step::Filtering { .. } => "filter_endpoints".into(),
        Step::Scoring { .. } => "llm_d.epp.scoring".into(),
        Step::Scorer { kind, .. } => format!("llm_d.epp.scorer.{kind}").into(),
        Step::Picking { .. } => "pick_endpoints".into(),
    }
}

fn describe(span: &mut Span, request: &RequestView<'_>, step: &Step<'_>) {
    match *step {
        Step::Profile { name } => {
            span.attribute("llm_d.epp.scheduling.profile.name", name.to_owned());
        }
        Step::Deciding { decision, failed, .. } => {
            identify(span, request);
            span.attribute("llm_d.epp.profile_handler.decision", decision.to_owned());
            span.attribute("llm_d.epp.profile_handler.decode_failed", failed);
        }
        Step::Filtering { candidates } => {
            identify(span, request);
            span.attribute("llm_d.epp.filter.candidate_endpoints", count(candidates));
        }
        Step::Scoring { scorers, candidates } => {
            identify(span, request);
            span.attribute("llm_d.epp.scorer.count", count(scorers));
            span.attribute("llm_d.epp.scoring.candidate_endpoints", count(candidates));
        }
        Step::Scorer { kind, name, weight, candidates } => {
            span.attribute("llm_d.epp.scorer.type", kind.to_owned());
            span.attribute("llm_d.epp.scorer.name", name.to_owned());
            span.attribute("llm_d.epp.scorer.weight", weight);
            span.attribute("llm_d.epp.scorer.candidate_endpoints", count(candidates));
        }
        Step::Picking { candidates, best } => {
            identify(span, request);
            span.attribute("llm_d.epp.picker.candidate_endpoints", count(candidates));
            span.texts("llm_d.epp.picker.top_endpoints", best.iter().map(|(name, _)| name.clone()));
            span.numbers("llm_d.epp.picker.top_scores", best.iter().map(|(_, total)| *total));
        }
    }
}

/// The span of the servers that were chosen beside the one that answers.
pub(super) fn describe_stages(span: &Span, request: &RequestView<'_>, decision: &Decision) {
    let Stages { prefill, encode } = decision.stages;
    if !span.is_recording() || (prefill.is_none() && encode.is_none()) {
        return;
    }
    let mut span = span.child(|| "prepare_disaggregation");
    identify(&mut span, request);
    span.attribute("llm_d.epp.pd.disaggregation_used", decision.prefill_target().is_some());
    if let Some(target) = decision.prefill_target() {
        let address = target.spec().address;
        span.attribute("llm_d.epp.pd.prefill_pod_address", address.ip().to_string());
        span.attribute("llm_d.epp.pd.prefill_pod_port", address.port().to_string());
    }
    let encoders = decision.encode_targets();
    span.attribute("llm_d.epp.encode.disaggregation_used", !encoders.is_empty());
    if !encoders.is_empty() {
        span.texts("llm_d.epp.encode.endpoints", encoders.iter().map(|target| target.target().to_owned()));
    }
}

fn identify(span: &mut Span, request: &RequestView<'_>) {
    if !request.target_model.is_empty() {
        span.attribute("gen_ai.request.model", request.target_model.to_owned());
    }
    span.attribute("gen_ai.request.id", request.id.to_owned());
}

/// A number of things as a span attribute.
fn count(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
