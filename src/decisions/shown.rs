//! Turns a record into what a page shows of it.

use super::facts::Verdict;
use super::record::{Figures, Record};
use super::view::{
    CandidateView, DecisionView, EditView, OutcomeView, PromptView, RefusalView, SummaryView, UsageView,
    WaitView,
};
use crate::pool::Endpoint;
use crate::telemetry::rfc3339;

fn ms(duration: std::time::Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}

impl Record {
    /// The record as the page of one shows it.
    pub fn view(&self) -> DecisionView {
        let (targets, primary, edits) = match &self.verdict {
            Verdict::Routed { targets, primary, edits } => (
                targets.iter().map(|target| target.id().to_string()).collect(),
                self.names.0.get(*primary).map(|profile| profile.name.to_string()),
                edits
                    .iter()
                    .map(|(name, value)| EditView { name: name.clone(), value: value.clone() })
                    .collect(),
            ),
            Verdict::Refused { .. } | Verdict::Abandoned => (Vec::new(), None, Vec::new()),
        };
        let known = &self.known;
        DecisionView {
            id: known.id.clone(),
            sequence: self.sequence,
            seed: self.seed.to_string(),
            time: rfc3339(self.time),
            model: known.model.clone(),
            target_model: known.target_model.clone(),
            priority: known.priority,
            fairness_id: known.fairness_id.clone(),
            prompt: PromptView {
                tokens: known.tokens,
                exact: known.exact,
                blocks: self.blocks,
                block_size: self.block_size,
            },
            wait: self.wait(),
            decided_ms: ms(self.decided.saturating_duration_since(self.received)),
            pool_version: self.snapshot.as_ref().map(|snapshot| snapshot.version()),
            candidates: self.candidates(),
            left_out: self.left_out(),
            profiles: self.runs.iter().map(|run| self.cast().profile(run)).collect(),
            primary,
            endpoint: self.winner().map(|endpoint| endpoint.id().to_string()),
            targets,
            bound: self.bound(),
            edits,
            shadow: self.shadow.as_ref().map(|shadow| shadow.view(self.snapshot.as_ref())),
            refusal: self.refusal(),
            outcome: self.outcome_view(),
        }
    }

    /// The record as a list shows it.
    pub fn summary(&self) -> SummaryView {
        let known = &self.known;
        let (score, margin) = self.score_and_margin().unzip();
        SummaryView {
            id: known.id.clone(),
            sequence: self.sequence,
            time: rfc3339(self.time),
            model: known.model.clone(),
            target_model: known.target_model.clone(),
            fairness_id: known.fairness_id.clone(),
            priority: known.priority,
            prompt_tokens: known.tokens,
            endpoint: self.winner().map(|endpoint| endpoint.id().to_string()),
            score,
            margin: margin.flatten(),
            candidates: self.figures.len(),
            queue_ms: ms(self.waited.queue),
            reason: self.refusal().map(|refusal| refusal.reason),
            outcome: self.outcome_view(),
        }
    }

    /// The endpoint that was picked.
    pub(super) fn winner(&self) -> Option<&Endpoint> {
        match &self.verdict {
            Verdict::Routed { targets, .. } => targets.first().map(|target| &**target),
            Verdict::Refused { .. } | Verdict::Abandoned => None,
        }
    }

    /// Total of the winner in the profile that answers, and how far it is ahead of the best other one.
    pub(super) fn score_and_margin(&self) -> Option<(f64, Option<f64>)> {
        let Verdict::Routed { primary, .. } = &self.verdict else { return None };
        self.cast().score_and_margin(&self.runs, *primary, self.winner()?)
    }

    /// True if another endpoint serves than the picker chose.
    fn bound(&self) -> bool {
        let Verdict::Routed { primary, .. } = &self.verdict else { return false };
        let run = self.runs.iter().rev().find(|run| usize::from(run.profile) == *primary);
        let picked = run.and_then(|run| run.picked.first()).and_then(|slot| self.endpoint(*slot));
        picked.zip(self.winner()).is_some_and(|(picked, winner)| picked.incarnation() != winner.incarnation())
    }

    fn name(&self, slot: u32) -> String {
        self.cast().name(slot)
    }

    fn wait(&self) -> WaitView {
        let mut reasons = Vec::new();
        if self.waited.held.is_some() {
            reasons.push("capacity");
        }
        if self.waited.preparation >= std::time::Duration::from_micros(100) {
            reasons.push("preparation");
        }
        WaitView {
            queue_ms: ms(self.waited.queue),
            band: self.known.priority,
            preparation_ms: ms(self.waited.preparation),
            waited_for: if reasons.is_empty() { "nothing".to_owned() } else { reasons.join(",") },
        }
    }

    fn candidates(&self) -> Vec<CandidateView> {
        let candidate = |(slot, figures): (u32, &Figures)| {
            let endpoint = self.endpoint(slot);
            CandidateView {
                endpoint: self.name(slot),
                address: endpoint.map(|endpoint| endpoint.target().to_owned()).unwrap_or_default(),
                age_ms: (figures.age_ms != u32::MAX).then_some(figures.age_ms),
                waiting: figures.waiting,
                running: figures.running,
                kv_usage: figures.kv_usage,
                in_flight: figures.in_flight,
                in_flight_tokens: figures.in_flight_tokens,
                sent_since_reading: figures.sent_since_reading,
                matched_blocks: self.matches.then_some(figures.matched),
            }
        };
        (0u32..).zip(&self.figures).map(candidate).collect()
    }

    fn left_out(&self) -> Vec<String> {
        let (Some(snapshot), Some(places)) = (&self.snapshot, &self.places) else { return Vec::new() };
        let mut chosen = vec![false; snapshot.len()];
        for place in places {
            if let Some(chosen) = chosen.get_mut(*place as usize) {
                *chosen = true;
            }
        }
        let endpoints = snapshot.endpoints().iter().zip(chosen);
        endpoints.filter(|(_, chosen)| !chosen).map(|(endpoint, _)| endpoint.id().to_string()).collect()
    }

    fn refusal(&self) -> Option<RefusalView> {
        match &self.verdict {
            Verdict::Refused { reason, status, message } => {
                Some(RefusalView { reason: (*reason).to_owned(), status: *status, message: message.clone() })
            }
            Verdict::Routed { .. } | Verdict::Abandoned => None,
        }
    }

    /// Name of what became of the request.
    pub(super) fn state(&self) -> &'static str {
        match (&self.verdict, self.outcome.get()) {
            (Verdict::Refused { .. }, _) => "refused",
            (Verdict::Abandoned, _) => "abandoned",
            (Verdict::Routed { .. }, None) => "running",
            (Verdict::Routed { .. }, Some(outcome)) => outcome.ended.0,
        }
    }

    fn outcome_view(&self) -> OutcomeView {
        let predicted = self.winner().and_then(|winner| self.predicted(winner));
        let state = self.state().to_owned();
        let Some(outcome) = self.outcome.get() else {
            return OutcomeView { state, predicted_cached_tokens: predicted, ..OutcomeView::default() };
        };
        let served_by = match &self.verdict {
            Verdict::Routed { targets, .. } => targets.get(outcome.served_by),
            Verdict::Refused { .. } | Verdict::Abandoned => None,
        };
        OutcomeView {
            state,
            status: (outcome.status > 0).then_some(outcome.status),
            ttft_ms: outcome.first_byte.map(ms),
            duration_ms: Some(ms(outcome.duration)),
            response_bytes: Some(outcome.bytes),
            served_by: served_by.map(|endpoint| endpoint.id().to_string()),
            usage: outcome.usage.map(|usage| UsageView {
                prompt_tokens: usage.prompt_tokens,
                completion_tokens: usage.completion_tokens,
                cached_tokens: usage.cached_tokens,
            }),
            predicted_cached_tokens: predicted,
        }
    }
}
