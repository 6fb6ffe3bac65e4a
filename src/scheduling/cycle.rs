//! The cycle: the handler picks profiles; each filters, scores and picks; the handler names the one that answers.

use std::sync::Arc;
use std::time::Instant;

use fastrand::Rng;
use smallvec::SmallVec;

use super::{
    Call, Candidates, Columns, Decision, Filter, Mask, Picker, ProfileHandler, ProfileResult, RequestView,
    Results, Scorer,
};
use crate::metrics::PluginTimer;
use crate::telemetry::Span;

/// Most rounds a profile handler may ask for. A handler that names a profile again and again is stopped here.
const MAX_ROUNDS: usize = 16;

/// Why no endpoint was chosen.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScheduleError {
    /// The filters of a profile left no endpoint.
    #[error("no endpoints available for the given request")]
    NothingLeft,
    /// The handler ran no profile at all.
    #[error("failed to run any scheduler profile for request {0}")]
    NoProfile(String),
    /// The profile that should answer has no result.
    #[error("{message}")]
    Failed {
        /// What failed.
        message: String,
        /// True if a profile's filters left nothing, which is the cause.
        nothing_left: bool,
    },
}

impl ScheduleError {
    /// True if the cause is that filters ruled out every endpoint.
    pub fn is_nothing_left(&self) -> bool {
        matches!(self, Self::NothingLeft | Self::Failed { nothing_left: true, .. })
    }
}

/// A plugin in a slot, with the names it goes by.
pub struct ProfilePlugin<T: ?Sized> {
    /// Instance name.
    pub name: Arc<str>,
    /// Type string.
    pub kind: &'static str,
    /// Measures its calls.
    pub timer: PluginTimer,
    /// The plugin.
    pub plugin: Arc<T>,
}

impl<T: ?Sized> std::fmt::Debug for ProfilePlugin<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}({})", self.kind, self.name)
    }
}

impl<T: ?Sized> Clone for ProfilePlugin<T> {
    fn clone(&self) -> Self {
        Self {
            name: Arc::clone(&self.name),
            kind: self.kind,
            timer: self.timer.clone(),
            plugin: Arc::clone(&self.plugin),
        }
    }
}

/// A scorer with its weight: any finite number; a negative one makes a penalty.
#[derive(Clone, Debug)]
pub struct WeightedScorer {
    /// The scorer.
    pub scorer: ProfilePlugin<dyn Scorer>,
    /// Factor of its clamped score.
    pub weight: f64,
}

/// Filters, scorers and a picker that run together.
#[derive(Debug)]
pub struct Profile {
    /// Unique name.
    pub name: Arc<str>,
    /// In the order they run.
    pub filters: Vec<ProfilePlugin<dyn Filter>>,
    /// In document order; the order has no influence.
    pub scorers: Vec<WeightedScorer>,
    /// Makes the choice.
    pub picker: ProfilePlugin<dyn Picker>,
}

/// All profiles and the handler that runs them.
#[derive(Debug)]
pub struct Scheduler {
    names: Vec<Arc<str>>,
    profiles: Vec<Profile>,
    handler: ProfilePlugin<dyn ProfileHandler>,
    conclude_timer: PluginTimer,
}

impl Scheduler {
    /// A scheduler over these profiles. `conclude_timer` measures the handler's second call.
    pub fn new(
        profiles: Vec<Profile>,
        handler: ProfilePlugin<dyn ProfileHandler>,
        conclude_timer: PluginTimer,
    ) -> Self {
        let names = profiles.iter().map(|profile| Arc::clone(&profile.name)).collect();
        Self { names, profiles, handler, conclude_timer }
    }

    /// Names of the profiles, in document order.
    pub fn profile_names(&self) -> &[Arc<str>] {
        &self.names
    }

    /// The profiles, in document order.
    pub fn profiles(&self) -> &[Profile] {
        &self.profiles
    }

    /// Chooses among `candidates`, which must not be empty.
    pub fn schedule(
        &self,
        request: RequestView<'_>,
        now: Instant,
        candidates: &Candidates,
        columns: &Columns,
        rng: &mut Rng,
        span: &Span,
    ) -> Result<Decision, ScheduleError> {
        let everyone: Vec<u32> = (0..candidates.len() as u32).collect();
        let call = Call::new(request, now, candidates, &everyone, columns);
        let mut results: Results = self.profiles.iter().map(|_| None).collect();
        let mut errors: SmallVec<[(usize, ScheduleError); 1]> = SmallVec::new();
        for _ in 0..MAX_ROUNDS {
            let picked =
                self.handler.timer.time(|| self.handler.plugin.pick(&call, &self.names, &mut results));
            if picked.is_empty() {
                break;
            }
            for index in picked {
                let Some(profile) = self.profiles.get(index) else { continue };
                errors.retain(|(failed, _)| *failed != index);
                let result = match profile.run(&call, rng, span) {
                    Ok(result) => Some(result),
                    Err(error) => {
                        errors.push((index, error));
                        None
                    }
                };
                results[index] = Some(result);
            }
        }
        if results.iter().all(Option::is_none) {
            return Err(ScheduleError::NoProfile(request.id.to_owned()));
        }
        let primary =
            self.conclude_timer.time(|| self.handler.plugin.conclude(&self.names, &results, &mut errors))?;
        let profiles = results.into_iter().map(Option::flatten).collect();
        Ok(Decision { profiles, primary })
    }
}

impl Profile {
    /// Filters, scores and picks over everything in the running of `call`.
    fn run(&self, call: &Call<'_>, rng: &mut Rng, span: &Span) -> Result<ProfileResult, ScheduleError> {
        let mut span = span.child(|| "run_scheduler_profile");
        if span.is_recording() {
            span.attribute("llm_d.epp.scheduling.profile.name", self.name.to_string());
        }
        let filtered = self.filter(call, &span);
        let survivors = filtered.as_deref().unwrap_or(call.slots());
        if survivors.is_empty() {
            return Err(ScheduleError::NothingLeft);
        }
        let call = Call::new(call.request, call.now, call.candidates(), survivors, call.columns());
        let totals = self.score(&call, &span);
        let targets = self.pick(&call, &totals, rng, &span);
        if targets.is_empty() {
            return Err(ScheduleError::NothingLeft);
        }
        let scored = survivors.iter().copied().zip(totals).collect();
        Ok(ProfileResult { targets, scored })
    }

    /// Slots that survive the filters; `None` if there are no filters.
    fn filter(&self, call: &Call<'_>, span: &Span) -> Option<Vec<u32>> {
        let mut span = span.child(|| "filter_endpoints");
        if self.filters.is_empty() {
            describe_filtering(&mut span, call, call.len());
            return None;
        }
        let mut survivors = call.slots().to_vec();
        let mut keep = Mask::full(survivors.len());
        for filter in &self.filters {
            keep.reset(survivors.len());
            let narrowed = Call::new(call.request, call.now, call.candidates(), &survivors, call.columns());
            filter.timer.time(|| filter.plugin.narrow(&narrowed, &mut keep));
            let mut position = 0;
            survivors.retain(|_| {
                position += 1;
                keep.contains(position - 1)
            });
            if survivors.is_empty() {
                break;
            }
        }
        describe_filtering(&mut span, call, survivors.len());
        Some(survivors)
    }

    /// Weighted totals by position: Σ clamp(score, 0, 1) · weight. They are not divided by the sum of weights. NaN counts as 0.
    fn score(&self, call: &Call<'_>, span: &Span) -> Vec<f64> {
        let mut span = span.child(|| "llm_d.epp.scoring");
        if span.is_recording() {
            identify(&mut span, call);
            span.attribute("llm_d.epp.scorer.count", count(self.scorers.len()));
            span.attribute("llm_d.epp.scoring.candidate_endpoints", count(call.len()));
        }
        let mut totals = vec![0.0; call.len()];
        let mut scores = vec![0.0; call.len()];
        for WeightedScorer { scorer, weight } in &self.scorers {
            scores.fill(0.0);
            scorer.timer.time(|| scorer.plugin.score(call, &mut scores));
            for (total, score) in totals.iter_mut().zip(&scores) {
                let score = if score.is_nan() { 0.0 } else { score.clamp(0.0, 1.0) };
                *total += score * weight;
            }
            if span.is_recording() {
                let mut span = span.child(|| format!("llm_d.epp.scorer.{}", scorer.kind));
                let max = scores.iter().copied().fold(f64::MIN, f64::max);
                span.attribute("llm_d.epp.scorer.type", scorer.kind);
                span.attribute("llm_d.epp.scorer.name", scorer.name.to_string());
                span.attribute("llm_d.epp.scorer.weight", *weight);
                span.attribute("llm_d.epp.scorer.candidate_endpoints", count(call.len()));
                span.attribute("llm_d.epp.scorer.score.max", max);
                span.attribute(
                    "llm_d.epp.scorer.score.avg",
                    scores.iter().sum::<f64>() / scores.len() as f64,
                );
                span.attribute("llm_d.epp.scorer.endpoints_scored", count(scores.len()));
            }
        }
        totals
    }

    fn pick(
        &self,
        call: &Call<'_>,
        totals: &[f64],
        rng: &mut Rng,
        span: &Span,
    ) -> SmallVec<[Arc<crate::pool::Endpoint>; 1]> {
        let mut span = span.child(|| "pick_endpoints");
        if span.is_recording() {
            identify(&mut span, call);
            span.attribute("llm_d.epp.picker.candidate_endpoints", count(call.len()));
            let best = best_five(call, totals);
            span.texts("llm_d.epp.picker.top_endpoints", best.iter().map(|(name, _)| name.clone()));
            span.numbers("llm_d.epp.picker.top_scores", best.iter().map(|(_, total)| *total));
        }
        let mut picked = SmallVec::new();
        self.picker.timer.time(|| self.picker.plugin.pick(call, totals, rng, &mut picked));
        picked.into_iter().filter_map(|position| call.endpoint(position as usize)).map(Arc::clone).collect()
    }
}

/// The five highest totals with their endpoints' names, ties by name.
fn best_five(call: &Call<'_>, totals: &[f64]) -> Vec<(String, f64)> {
    let mut best: Vec<_> =
        call.endpoints().zip(totals).map(|(endpoint, &total)| (endpoint.id().to_string(), total)).collect();
    best.sort_by(|a, b| b.1.total_cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    best.truncate(5);
    best
}

/// A number of things as a span attribute.
fn count(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn describe_filtering(span: &mut Span, call: &Call<'_>, survivors: usize) {
    if span.is_recording() {
        identify(span, call);
        span.attribute("llm_d.epp.filter.candidate_endpoints", count(call.len()));
        span.attribute("llm_d.epp.filter.filtered_endpoints", count(survivors));
    }
}

fn identify(span: &mut Span, call: &Call<'_>) {
    if !call.request.target_model.is_empty() {
        span.attribute("gen_ai.request.model", call.request.target_model.to_owned());
    }
    span.attribute("gen_ai.request.id", call.request.id.to_owned());
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
