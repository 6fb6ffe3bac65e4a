//! Turns a record into what a page shows of it.

use super::facts::Verdict;
use super::record::{Figures, KEPT, Record, Run};
use super::view::{
    CandidateView, DecisionView, EditView, OutcomeView, ProfileView, PromptView, RefusalView, RemovedView,
    RowView, ScorerView, SummaryView, UsageView, WaitView,
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
            profiles: self.runs.iter().map(|run| self.profile(run)).collect(),
            primary,
            endpoint: self.winner().map(|endpoint| endpoint.id().to_string()),
            targets,
            bound: self.bound(),
            edits,
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
        let winner = self.winner()?;
        let run = self.runs.iter().rev().find(|run| usize::from(run.profile) == *primary)?;
        let is_winner = |position: usize| {
            let endpoint = self.survivor(run, position);
            endpoint.is_some_and(|endpoint| endpoint.incarnation() == winner.incarnation())
        };
        let at = (0..run.totals.len()).find(|position| is_winner(*position))?;
        let others = run.totals.iter().enumerate().filter(|(position, _)| *position != at);
        let best = others.map(|(_, total)| *total).max_by(f64::total_cmp);
        Some((run.totals[at], best.map(|best| run.totals[at] - best)))
    }

    /// True if another endpoint serves than the picker chose.
    fn bound(&self) -> bool {
        let Verdict::Routed { primary, .. } = &self.verdict else { return false };
        let run = self.runs.iter().rev().find(|run| usize::from(run.profile) == *primary);
        let picked = run.and_then(|run| run.picked.first()).and_then(|slot| self.endpoint(*slot));
        picked.zip(self.winner()).is_some_and(|(picked, winner)| picked.incarnation() != winner.incarnation())
    }

    fn survivor(&self, run: &Run, position: usize) -> Option<&Endpoint> {
        let slot = match run.survivors.as_slice() {
            [] => u32::try_from(position).ok()?,
            survivors => *survivors.get(position)?,
        };
        self.endpoint(slot).map(|endpoint| &**endpoint)
    }

    fn name(&self, slot: u32) -> String {
        self.endpoint(slot).map(|endpoint| endpoint.id().to_string()).unwrap_or_default()
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

    fn profile(&self, run: &Run) -> ProfileView {
        let Some(names) = self.names.0.get(usize::from(run.profile)) else { return ProfileView::default() };
        let removed = names.filters.iter().enumerate().map(|(index, filter)| {
            let slots =
                (0u32..).zip(&run.removed).filter(|(_, by)| usize::from(**by) == index && **by != KEPT);
            RemovedView {
                filter: filter.name.to_string(),
                r#type: filter.kind.to_owned(),
                endpoints: slots.map(|(slot, _)| self.name(slot)).collect(),
            }
        });
        let scorers = names.scorers.iter().map(|scorer| ScorerView {
            name: scorer.name.to_string(),
            r#type: scorer.kind.to_owned(),
            weight: scorer.weight,
        });
        let survivors = run.totals.len();
        let rows = run.totals.iter().enumerate().map(|(position, total)| {
            let raw: Vec<f32> = run.scores.iter().skip(position).step_by(survivors.max(1)).copied().collect();
            let scores: Vec<f32> =
                raw.iter().map(|raw| if raw.is_nan() { 0.0 } else { raw.clamp(0.0, 1.0) }).collect();
            let endpoint = self.survivor(run, position);
            RowView {
                endpoint: endpoint.map(|endpoint| endpoint.id().to_string()).unwrap_or_default(),
                raw_scores: (raw != scores).then_some(raw),
                scores,
                total: *total,
            }
        });
        ProfileView {
            name: names.name.to_string(),
            removed: removed.filter(|removed| !removed.endpoints.is_empty()).collect(),
            scorers: scorers.collect(),
            rows: rows.collect(),
            picker: names.picker.name.to_string(),
            picker_type: names.picker.kind.to_owned(),
            draw: run.draw.to_string(),
            picked: run.picked.iter().map(|slot| self.name(*slot)).collect(),
        }
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
