//! The cycle: the handler picks profiles; each filters, scores and picks; the handler names the one that answers.

use std::sync::Arc;

use fastrand::Rng;
use smallvec::SmallVec;

use super::observer::{Recording, Watching, enter};
use super::{
    Call, CycleObserver, CycleRecorder, Decision, Explained, Filter, Mask, Outcome, Picker, ProfileHandler,
    ProfileResult, ProfileRun, Results, ScheduleError, Scorer, Stages, Step, Stopwatch,
};

/// Most rounds a profile handler may ask for. A handler that names a profile again and again is stopped here.
const MAX_ROUNDS: usize = 16;

/// A plugin in a slot, with the names it goes by.
pub struct ProfilePlugin<T: ?Sized> {
    /// Instance name.
    pub name: Arc<str>,
    /// Type string.
    pub kind: &'static str,
    /// Measures its calls; `None` if nobody wants to know.
    pub timer: Option<Arc<dyn Stopwatch>>,
    /// The plugin.
    pub plugin: Arc<T>,
}

impl<T: ?Sized> ProfilePlugin<T> {
    /// An instance of type `kind` under the name `name`, whose calls nobody measures.
    pub fn new(name: &str, kind: &'static str, plugin: Arc<T>) -> Self {
        Self { name: name.into(), kind, timer: None, plugin }
    }

    /// Calls the plugin and measures the call.
    pub fn call<R>(&self, call: impl FnOnce(&T) -> R) -> R {
        timed(self.timer.as_deref(), || call(&self.plugin))
    }
}

/// Runs `call` and measures it.
fn timed<R>(timer: Option<&dyn Stopwatch>, call: impl FnOnce() -> R) -> R {
    let Some(timer) = timer else { return call() };
    let started = timer.start();
    let result = call();
    timer.stop(started);
    result
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
    conclude_timer: Option<Arc<dyn Stopwatch>>,
    stages: Stages,
    proxy_port: Option<u16>,
}

impl Scheduler {
    /// A scheduler over these profiles. `conclude_timer` measures the second call of the handler, `conclude`.
    pub fn new(
        profiles: Vec<Profile>,
        handler: ProfilePlugin<dyn ProfileHandler>,
        conclude_timer: Option<Arc<dyn Stopwatch>>,
    ) -> Self {
        let names: Vec<_> = profiles.iter().map(|profile| Arc::clone(&profile.name)).collect();
        let (stages, proxy_port) = (handler.plugin.stages(&names), handler.plugin.proxy_port());
        Self { names, profiles, handler, conclude_timer, stages, proxy_port }
    }

    /// Names of the profiles, in document order.
    pub fn profile_names(&self) -> &[Arc<str>] {
        &self.names
    }

    /// The profiles, in document order.
    pub fn profiles(&self) -> &[Profile] {
        &self.profiles
    }

    /// Which profile stands for which stage.
    pub fn stages(&self) -> Stages {
        self.stages
    }

    /// The port of a proxy on each endpoint to which requests go instead of the endpoint's own.
    pub fn proxy_port(&self) -> Option<u16> {
        self.proxy_port
    }

    /// Chooses among what is in the running of `call`, which must not be empty. `observer` hears each step of the
    /// cycle.
    pub fn schedule(
        &self,
        call: &Call<'_>,
        rng: &mut Rng,
        observer: Option<&dyn CycleObserver>,
    ) -> Result<Decision, ScheduleError> {
        self.schedule_recorded(call, rng, observer, None)
    }

    /// The same, with somebody who takes down the numbers of the choice.
    pub fn schedule_recorded(
        &self,
        call: &Call<'_>,
        rng: &mut Rng,
        observer: Option<&dyn CycleObserver>,
        mut recorder: Option<&mut dyn CycleRecorder>,
    ) -> Result<Decision, ScheduleError> {
        let mut results: Results = self.profiles.iter().map(|_| ProfileRun::NotRun).collect();
        let mut errors: SmallVec<[(usize, ScheduleError); 1]> = SmallVec::new();
        for _ in 0..MAX_ROUNDS {
            let picked = self.handler.call(|handler| handler.pick(call, &self.names, &mut results));
            self.explain(call, &results, &picked, observer);
            if picked.is_empty() {
                break;
            }
            let peer = self.handler.plugin.peer(&self.names, &results, &picked);
            let call = call.beside(peer.as_ref());
            for index in picked {
                let Some(profile) = self.profiles.get(index) else { continue };
                errors.retain(|(failed, _)| *failed != index);
                if let Some(recorder) = &mut recorder {
                    recorder.begin(index, call.slots());
                }
                results[index] = match profile.run(&call, rng, observer, recorder.as_deref_mut()) {
                    Ok(result) => ProfileRun::Chose(result),
                    Err(error) => {
                        errors.push((index, error));
                        ProfileRun::Empty
                    }
                };
            }
        }
        if !results.iter().any(ProfileRun::is_over) {
            return Err(ScheduleError::NoProfile(call.request.id.to_owned()));
        }
        let primary = timed(self.conclude_timer.as_deref(), || {
            self.handler.plugin.conclude(&self.names, &results, &mut errors)
        })?;
        let profiles = results.into_iter().map(ProfileRun::into_result).collect();
        Ok(Decision { profiles, primary, stages: self.stages, proxy_port: self.proxy_port })
    }
}

impl Scheduler {
    /// Tells an observer what the handler decided.
    fn explain(&self, call: &Call<'_>, results: &Results, next: &[usize], observer: Watching<'_>) {
        let Some(observer) = observer else { return };
        if let Some(Explained { step, decision, failed }) =
            self.handler.plugin.explain(&self.names, results, next)
        {
            drop(observer.enter(&call.request, Step::Deciding { step, decision: &decision, failed }));
        }
    }
}

impl Profile {
    /// Filters, scores and picks over everything in the running of `call`.
    fn run(
        &self,
        call: &Call<'_>,
        rng: &mut Rng,
        observer: Watching<'_>,
        mut recorder: Recording<'_, '_>,
    ) -> Result<ProfileResult, ScheduleError> {
        let step = enter(observer, &call.request, || Step::Profile { name: &self.name });
        let observer = step.as_deref();
        let filtered = self.filter(call, observer, recorder.as_deref_mut());
        let survivors = filtered.as_deref().unwrap_or(call.slots());
        if survivors.is_empty() {
            return Err(self
                .missing_role(call)
                .map_or(ScheduleError::NothingLeft, |role| ScheduleError::NoneOfRole { role }));
        }
        let call = call.among(survivors);
        let totals = self.score(&call, observer, recorder.as_deref_mut());
        let targets = self.pick(&call, &totals, rng, observer, recorder);
        if targets.is_empty() {
            return Err(ScheduleError::NothingLeft);
        }
        let scored = survivors.iter().copied().zip(totals).collect();
        Ok(ProfileResult { targets, scored })
    }

    /// The role of a filter that rules out everything in the running of `call` by itself.
    #[cold]
    fn missing_role(&self, call: &Call<'_>) -> Option<&'static str> {
        self.filters.iter().find_map(|filter| {
            let role = filter.plugin.role()?;
            let mut keep = Mask::full(call.len());
            filter.plugin.narrow(call, &mut keep);
            (0..call.len()).all(|position| !keep.contains(position)).then_some(role)
        })
    }

    /// Slots that survive the filters; `None` if there are no filters.
    fn filter(
        &self,
        call: &Call<'_>,
        observer: Watching<'_>,
        recorder: Recording<'_, '_>,
    ) -> Option<Vec<u32>> {
        let mut step = enter(observer, &call.request, || Step::Filtering { candidates: call.len() });
        let filtered = (!self.filters.is_empty()).then(|| self.survivors(call, recorder));
        if let Some(step) = &mut step {
            let survivors = filtered.as_ref().map_or(call.len(), Vec::len);
            step.tell(Outcome::Filtered { survivors });
        }
        filtered
    }

    /// Slots that each filter in turn leaves. A filter sees what the ones before it left; none runs after the last
    /// endpoint is gone.
    fn survivors(&self, call: &Call<'_>, mut recorder: Recording<'_, '_>) -> Vec<u32> {
        let mut survivors = call.slots().to_vec();
        let mut keep = Mask::full(survivors.len());
        for (index, filter) in self.filters.iter().enumerate() {
            keep.reset(survivors.len());
            let narrowed = call.among(&survivors);
            filter.call(|filter| filter.narrow(&narrowed, &mut keep));
            if let Some(recorder) = &mut recorder {
                recorder.filtered(index, &survivors, &keep);
            }
            let mut position = 0;
            survivors.retain(|_| {
                position += 1;
                keep.contains(position - 1)
            });
            if survivors.is_empty() {
                break;
            }
        }
        survivors
    }

    /// Weighted totals by position: Σ clamp(score, 0, 1) · weight. They are not divided by the sum of weights. NaN
    /// counts as 0.
    fn score(&self, call: &Call<'_>, observer: Watching<'_>, mut recorder: Recording<'_, '_>) -> Vec<f64> {
        let candidates = call.len();
        let scoring =
            enter(observer, &call.request, || Step::Scoring { scorers: self.scorers.len(), candidates });
        let mut totals = vec![0.0; candidates];
        let mut scores = vec![0.0; candidates];
        for (index, WeightedScorer { scorer, weight }) in self.scorers.iter().enumerate() {
            scores.fill(0.0);
            scorer.call(|scorer| scorer.score(call, &mut scores));
            for (total, score) in totals.iter_mut().zip(&scores) {
                let score = if score.is_nan() { 0.0 } else { score.clamp(0.0, 1.0) };
                *total += score * weight;
            }
            if let Some(recorder) = &mut recorder {
                recorder.scored(index, &scores);
            }
            let step = enter(scoring.as_deref(), &call.request, || Step::Scorer {
                kind: scorer.kind,
                name: &scorer.name,
                weight: *weight,
                candidates,
            });
            if let Some(mut step) = step {
                step.tell(Outcome::Scored { scores: &scores });
            }
        }
        totals
    }

    fn pick(
        &self,
        call: &Call<'_>,
        totals: &[f64],
        rng: &mut Rng,
        observer: Watching<'_>,
        recorder: Recording<'_, '_>,
    ) -> SmallVec<[Arc<crate::pool::Endpoint>; 1]> {
        let _step = observer.map(|observer| {
            let best = best_five(call, totals);
            observer.enter(&call.request, Step::Picking { candidates: call.len(), best: &best })
        });
        let mut picked = SmallVec::new();
        let draw = rng.get_seed();
        self.picker.call(|picker| picker.pick(call, totals, rng, &mut picked));
        if let Some(recorder) = recorder {
            recorder.picked(draw, totals, &picked);
        }
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

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
