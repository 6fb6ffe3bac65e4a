//! What the requests of one producer share.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use hashbrown::HashMap;
use parking_lot::{Mutex, MutexGuard, RwLock, RwLockReadGuard};

use crate::latency::{Latencies, LatencyKind, LatencyPrediction, Objective, Place, Situation, Standing};
use crate::metrics::{LatencyLabels, LatencyMetrics};

/// Decisions over which the share within the objective is taken.
const WINDOW: f64 = 100.0;

/// What was known when the request was decided.
#[derive(Clone, Debug)]
pub(super) struct Ahead {
    pub(super) place: Place,
    pub(super) situation: Situation,
    /// Milliseconds; what the model said, whether or not it was given out.
    pub(super) guess: Option<f64>,
}

/// Objectives of the time between tokens that are running at an endpoint, by incarnation: each with its number. Values
/// are the bits of a positive float, whose order is that of the numbers.
#[derive(Default)]
pub(super) struct RunningObjectives(HashMap<u64, BTreeMap<u64, u32>>);

impl RunningObjectives {
    /// The strictest one at an endpoint.
    pub(super) fn strictest(&self, endpoint: u64) -> Option<f64> {
        self.0.get(&endpoint)?.keys().next().map(|bits| f64::from_bits(*bits))
    }
}

/// Most endpoints whose queues are known beyond those that have one.
const SPARE: usize = 4096;

/// Uncached tokens that are not computed yet, by incarnation.
type Queues = HashMap<u64, Arc<AtomicU64>>;

/// The models, and the objectives that are running.
pub(super) struct Shared {
    models: RwLock<Latencies>,
    queues: RwLock<Queues>,
    running: Mutex<RunningObjectives>,
    within: Mutex<(f64, f64)>,
    /// Nanoseconds that the last prediction took.
    took: AtomicU64,
    pub(super) metrics: LatencyMetrics,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

impl Shared {
    pub(super) fn new(metrics: LatencyMetrics) -> Self {
        let shared = Self {
            models: RwLock::default(),
            queues: RwLock::default(),
            running: Mutex::default(),
            within: Mutex::new((0.0, 1.0)),
            took: AtomicU64::new(0),
            metrics,
        };
        for kind in [LatencyKind::FirstToken, LatencyKind::BetweenTokens] {
            shared.metrics.standing(kind, shared.standing(kind));
        }
        shared
    }

    pub(super) fn models(&self) -> RwLockReadGuard<'_, Latencies> {
        self.models.read()
    }

    /// The queues of all endpoints.
    pub(super) fn queues(&self) -> RwLockReadGuard<'_, Queues> {
        self.queues.read()
    }

    /// Counts tokens that an endpoint has to compute, until what is returned is dropped.
    pub(super) fn queue(&self, endpoint: u64, tokens: u64) -> Queued {
        let known = self.queues.read().get(&endpoint).map(Arc::clone);
        let of = known.unwrap_or_else(|| {
            let mut queues = self.queues.write();
            if queues.len() >= SPARE {
                queues.retain(|_, queue| Arc::strong_count(queue) > 1);
            }
            Arc::clone(queues.entry(endpoint).or_default())
        });
        of.fetch_add(tokens, Relaxed);
        Queued { of, tokens }
    }

    pub(super) fn standing(&self, kind: LatencyKind) -> Standing {
        self.models.read().standing(kind)
    }

    pub(super) fn took(&self, took: Duration) {
        self.took.store(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX), Relaxed);
    }

    pub(super) fn running(&self) -> MutexGuard<'_, RunningObjectives> {
        self.running.lock()
    }

    /// Notes an objective for as long as the request runs; `None` without one.
    pub(super) fn begin(self: &Arc<Self>, endpoint: u64, objective: f64) -> Option<RunningObjective> {
        if objective <= 0.0 {
            return None;
        }
        let bits = objective.to_bits();
        *self.running.lock().0.entry(endpoint).or_default().entry(bits).or_default() += 1;
        Some(RunningObjective { shared: Arc::clone(self), endpoint, bits })
    }

    /// Records what was predicted for the chosen endpoint.
    pub(super) fn note_decision(
        &self,
        labels: &LatencyLabels,
        predicted: &LatencyPrediction,
        wanted: Objective,
    ) {
        let took = Duration::from_nanos(self.took.load(Relaxed));
        self.metrics.predicted(labels, LatencyKind::FirstToken, predicted.first, took);
        if predicted.between > 0.0 {
            self.metrics.predicted(labels, LatencyKind::BetweenTokens, predicted.between, took);
        }
        if wanted.first <= 0.0 && wanted.between <= 0.0 {
            return;
        }
        let first = wanted.first <= 0.0 || predicted.first_valid;
        let between = wanted.between <= 0.0 || predicted.between_valid;
        let share = {
            let mut within = self.within.lock();
            let (decisions, share) = &mut *within;
            *decisions += 1.0;
            *share += (f64::from(u8::from(first && between)) - *share) / decisions.min(WINDOW);
            *share
        };
        self.metrics.within(share);
    }

    /// Learns a latency in milliseconds.
    pub(super) fn learn(&self, kind: LatencyKind, ahead: &Ahead, milliseconds: f64, now: Instant) {
        let standing = {
            let mut models = self.models.write();
            models.learn(kind, &ahead.place, &ahead.situation, milliseconds, ahead.guess, now);
            models.standing(kind)
        };
        self.metrics.standing(kind, standing);
    }
}

/// Tokens in the queue of an endpoint, until they are dropped.
pub(super) struct Queued {
    of: Arc<AtomicU64>,
    tokens: u64,
}

impl Drop for Queued {
    fn drop(&mut self) {
        self.of.fetch_sub(self.tokens, Relaxed);
    }
}

/// An objective that is running at an endpoint, until it is dropped.
pub(super) struct RunningObjective {
    shared: Arc<Shared>,
    endpoint: u64,
    bits: u64,
}

impl Drop for RunningObjective {
    fn drop(&mut self) {
        let mut running = self.shared.running.lock();
        let Some(objectives) = running.0.get_mut(&self.endpoint) else { return };
        if let Some(count) = objectives.get_mut(&self.bits) {
            *count -= 1;
            if *count == 0 {
                objectives.remove(&self.bits);
            }
        }
        if objectives.is_empty() {
            running.0.remove(&self.endpoint);
        }
    }
}
