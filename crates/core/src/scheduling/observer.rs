//! The interface for observers of a cycle: how long calls of plugins take, and what each step did.
//!
//! The cycle itself has no clock and writes no trace. A program that wants measures gives each plugin a [`Stopwatch`];
//! a program that wants a trace passes a [`CycleObserver`] to [`Scheduler::schedule`](super::Scheduler::schedule). A
//! program that wants every number of the choice passes a [`CycleRecorder`] to
//! [`Scheduler::schedule_recorded`](super::Scheduler::schedule_recorded). Where nobody listens nothing is computed.

use std::time::Instant;

use super::{Mask, RequestView};

/// Measures the calls of one plugin at one extension point.
pub trait Stopwatch: Send + Sync + std::fmt::Debug {
    /// The time at which a call begins.
    fn start(&self) -> Instant;

    /// The call that began at `started` has returned.
    fn stop(&self, started: Instant);
}

/// A step of the cycle, at its begin. Steps nest: a profile holds filtering, scoring and picking; scoring holds each
/// scorer.
#[derive(Clone, Copy, Debug)]
pub enum Step<'a> {
    /// A profile runs.
    Profile {
        /// Its name.
        name: &'a str,
    },
    /// The profile handler has decided what runs next. The step is over at once.
    Deciding {
        /// The handler's name for this step.
        step: &'static str,
        /// Its decision.
        decision: &'a str,
        /// The profile that answers has found no endpoint.
        failed: bool,
    },
    /// The filters of a profile run, one after the other.
    Filtering {
        /// Number of endpoints before the first filter.
        candidates: usize,
    },
    /// The scorers of a profile run, one after the other.
    Scoring {
        /// Number of scorers.
        scorers: usize,
        /// Number of endpoints that get a score.
        candidates: usize,
    },
    /// One scorer runs.
    Scorer {
        /// Type string.
        kind: &'a str,
        /// Instance name.
        name: &'a str,
        /// Factor of its scores.
        weight: f64,
        /// Number of endpoints that get a score.
        candidates: usize,
    },
    /// The picker chooses.
    Picking {
        /// Number of endpoints to choose from.
        candidates: usize,
        /// The five highest totals with the names of their endpoints, highest first, ties by name.
        best: &'a [(String, f64)],
    },
}

/// The outcome of a step, told before it ends.
#[derive(Clone, Copy, Debug)]
pub enum Outcome<'a> {
    /// The filters left this many endpoints.
    Filtered {
        /// Number of survivors.
        survivors: usize,
    },
    /// A scorer gave these scores, by position of the endpoint, before clamping and weighting.
    Scored {
        /// One score for each endpoint.
        scores: &'a [f64],
    },
}

/// Hears the steps of one cycle while they happen. One observer stands for one step, or for the whole cycle.
pub trait CycleObserver {
    /// A step inside this one begins. It ends when the returned observer is dropped.
    fn enter(&self, request: &RequestView<'_>, step: Step<'_>) -> Box<dyn CycleObserver>;

    /// The outcome of this step.
    fn tell(&mut self, outcome: Outcome<'_>);
}

/// Takes down the numbers of one cycle: what each filter removed, what each scorer gave, from what the picker chose. It
/// gets borrowed slices, so that a listener may copy them without any allocation for a candidate.
pub trait CycleRecorder {
    /// The profile with this index begins over the candidates in `slots` (ascending). A profile may run several times.
    fn begin(&mut self, profile: usize, slots: &[u32]);

    /// The filter with this index among those of the profile saw the candidates in `slots`, and kept those whose bits
    /// are set.
    fn filtered(&mut self, filter: usize, slots: &[u32], keep: &Mask);

    /// The scorer with this index gave these scores, by position among the survivors, before clamping and weighting.
    fn scored(&mut self, scorer: usize, scores: &[f64]);

    /// The picker chose `picked`, best first, from these totals, all by position among the survivors. `draw` is the
    /// state of the random generator before the choice: a generator with this seed makes the same choice.
    fn picked(&mut self, draw: u64, totals: &[f64], picked: &[u32]);
}

/// Whoever takes down numbers, if anybody does.
pub(super) type Recording<'r, 't> = Option<&'r mut (dyn CycleRecorder + 't)>;

/// An observer, if anybody watches.
pub(super) type Watching<'a> = Option<&'a dyn CycleObserver>;

/// Begins a step inside `parent`. `step` is made only if somebody watches.
pub(super) fn enter<'s>(
    parent: Watching<'_>,
    request: &RequestView<'_>,
    step: impl FnOnce() -> Step<'s>,
) -> Option<Box<dyn CycleObserver>> {
    parent.map(|observer| observer.enter(request, step()))
}
