//! A record as a page shows it: the schema is in `docs/decisions.md`.

use serde::{Deserialize, Serialize};

use super::facts::Verdict;
use super::record::{Figures, KEPT, Record, Run};
use crate::pool::Endpoint;
use crate::telemetry::rfc3339;

/// One decision.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct DecisionView {
    /// Request id.
    pub id: String,
    /// Number of the request in this process, from 0.
    pub sequence: u64,
    /// Seed of the request's generator, as a decimal number.
    pub seed: String,
    /// When its decision began, RFC 3339.
    pub time: String,
    /// Model as asked for.
    pub model: String,
    /// Model after rewriting.
    pub target_model: String,
    /// Priority of its objective.
    pub priority: i32,
    /// Fairness id.
    pub fairness_id: String,
    /// Size of its prompt.
    pub prompt: PromptView,
    /// What it waited for.
    pub wait: WaitView,
    /// Milliseconds from the arrival of the request headers to the decision.
    pub decided_ms: f64,
    /// Version of the pool; absent if there were no candidates yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool_version: Option<u64>,
    /// The candidates with their figures, in slot order.
    pub candidates: Vec<CandidateView>,
    /// Endpoints of the pool that were no candidates: outside the subset hint, unreachable, or screened out.
    pub left_out: Vec<String>,
    /// The runs of profiles, in order.
    pub profiles: Vec<ProfileView>,
    /// Name of the profile whose choice answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub primary: Option<String>,
    /// The endpoint that was picked: the first target.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// Endpoints in the order in which the proxy tries them.
    pub targets: Vec<String>,
    /// The conversation that the request belongs to overruled the picker.
    pub bound: bool,
    /// Header changes of plugins; an empty value removes the header.
    pub edits: Vec<EditView>,
    /// Why it was refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refusal: Option<RefusalView>,
    /// What became of it.
    pub outcome: OutcomeView,
}

/// Size of a prompt.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct PromptView {
    /// Tokens.
    pub tokens: u64,
    /// They were counted; otherwise they are estimated.
    pub exact: bool,
    /// Whole blocks of the prefix index.
    pub blocks: u32,
    /// Tokens in a block.
    pub block_size: u32,
}

/// What a request waited for.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct WaitView {
    /// Milliseconds in the queues of flow control.
    pub queue_ms: f64,
    /// Priority of the band it waited in.
    pub band: i32,
    /// Milliseconds for what plugins find out before scheduling.
    pub preparation_ms: f64,
    /// What it waited for: `nothing`, `capacity`, `preparation`, or both with a comma.
    pub waited_for: String,
}

/// A candidate and the figures it was judged by.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct CandidateView {
    /// `namespace/name`.
    pub endpoint: String,
    /// `ip:port`.
    pub address: String,
    /// Milliseconds since its figures were read; absent if they never were.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub age_ms: Option<u32>,
    /// Waiting requests.
    pub waiting: u32,
    /// Running requests.
    pub running: u32,
    /// KV-cache usage, 0 to 1.
    pub kv_usage: f32,
    /// Requests of this process that it is serving.
    pub in_flight: u32,
    /// Tokens of those.
    pub in_flight_tokens: u32,
    /// Requests sent to it since its figures were read.
    pub sent_since_reading: u32,
    /// Blocks of the prompt that it is believed to hold; absent where nobody counts them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub matched_blocks: Option<u32>,
}

/// One run of a profile.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct ProfileView {
    /// Name of the profile.
    pub name: String,
    /// What each filter removed, in the order they ran; filters that removed nobody are left out.
    pub removed: Vec<RemovedView>,
    /// The scorers.
    pub scorers: Vec<ScorerView>,
    /// A row for each survivor.
    pub rows: Vec<RowView>,
    /// Name of the picker.
    pub picker: String,
    /// Type of the picker.
    pub picker_type: String,
    /// Seed of the picker's draw, as a decimal number.
    pub draw: String,
    /// Endpoints that it picked, best first.
    pub picked: Vec<String>,
}

/// What one filter removed.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct RemovedView {
    /// Name of the filter.
    pub filter: String,
    /// Its type.
    pub r#type: String,
    /// Endpoints that it removed.
    pub endpoints: Vec<String>,
}

/// A scorer.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct ScorerView {
    /// Name.
    pub name: String,
    /// Type.
    pub r#type: String,
    /// Factor of its scores.
    pub weight: f64,
}

/// The scores of one survivor.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct RowView {
    /// `namespace/name`.
    pub endpoint: String,
    /// One score for each scorer, as it counted: 0 to 1.
    pub scores: Vec<f32>,
    /// One score for each scorer, as it was given; absent if none was outside 0 to 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub raw_scores: Option<Vec<f32>>,
    /// The sum of weight times score.
    pub total: f64,
}

/// A change of a header.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct EditView {
    /// Name of the header.
    pub name: String,
    /// Its new value.
    pub value: String,
}

/// A refusal.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct RefusalView {
    /// Label of the reason.
    pub reason: String,
    /// HTTP status.
    pub status: u16,
    /// Text; empty where it may quote the client.
    pub message: String,
}

/// What became of a request.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct OutcomeView {
    /// `refused`, `abandoned`, `running`, or how its response ended.
    pub state: String,
    /// HTTP status that the model server answered with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// Milliseconds from the arrival of the request headers to the first byte of the response body.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttft_ms: Option<f64>,
    /// Milliseconds from the arrival of the request headers to the end of the response.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration_ms: Option<f64>,
    /// Bytes of the response body.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response_bytes: Option<u64>,
    /// Endpoint that served.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub served_by: Option<String>,
    /// Tokens as the model server counts them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<UsageView>,
    /// Tokens of the prompt that the picked endpoint was believed to hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub predicted_cached_tokens: Option<u64>,
}

/// Tokens of a response.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct UsageView {
    /// Tokens of the prompt.
    pub prompt_tokens: u64,
    /// Generated tokens.
    pub completion_tokens: u64,
    /// Tokens of the prompt that came from the cache; absent if the model server does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cached_tokens: Option<u64>,
}

/// A list of decisions.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct ListView {
    /// Records that are kept in all.
    pub kept: usize,
    /// One request in this many is kept, beside refused and slow ones.
    pub one_in: u64,
    /// Those that were asked for.
    pub decisions: Vec<SummaryView>,
}

/// One decision in a list.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct SummaryView {
    /// Request id.
    pub id: String,
    /// Number of the request in this process.
    pub sequence: u64,
    /// When its decision began.
    pub time: String,
    /// Model as asked for.
    pub model: String,
    /// Model after rewriting.
    pub target_model: String,
    /// Fairness id.
    pub fairness_id: String,
    /// Priority.
    pub priority: i32,
    /// Tokens of its prompt.
    pub prompt_tokens: u64,
    /// The endpoint that was picked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// Its total.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub score: Option<f64>,
    /// How far it was ahead of the best other one; negative if another one had more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub margin: Option<f64>,
    /// Number of candidates.
    pub candidates: usize,
    /// Milliseconds in the queues.
    pub queue_ms: f64,
    /// Reason of a refusal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// What became of it.
    pub outcome: OutcomeView,
}

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
