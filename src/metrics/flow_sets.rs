//! Label sets of waiting requests: bounded, pinned for bands, and dropped when they have been idle for long.

use std::hash::{Hash, Hasher};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use hashbrown::{Equivalent, HashMap};
use parking_lot::Mutex;
use prometheus::{Histogram, IntCounter, IntGauge};

use super::cardinality::OTHER;
use super::family::Twin;
use super::flow_families::{FlowFamilies, OUTCOMES};
use super::labels::RequestLabels;
use crate::flow::{DEFAULT_FLOW, Outcome};

/// Further sets, whose fairness id is folded, as a share of those that have their own.
const FOLDED_SHARE: usize = 4;

/// Sets with histograms of their own. The others share those of their priority.
const OWN_HISTOGRAMS: usize = 12;

/// Sets that only tell priorities apart, and those that bands pin.
const PRIORITIES: usize = 64;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    model: Box<str>,
    target_model: Box<str>,
    fairness_id: Box<str>,
    priority: i32,
}

impl Key {
    fn new(labels: RequestLabels<'_>) -> Self {
        Self {
            model: labels.model.into(),
            target_model: labels.target_model.into(),
            fairness_id: labels.fairness_id.into(),
            priority: labels.priority,
        }
    }
}

/// Labels as a key of the map, hashed as [`Key`] is.
struct Lookup<'l>(RequestLabels<'l>);

impl Hash for Lookup<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let RequestLabels { model, target_model, fairness_id, priority } = self.0;
        (model, target_model, fairness_id, priority).hash(state);
    }
}

impl Equivalent<Key> for Lookup<'_> {
    fn equivalent(&self, key: &Key) -> bool {
        let RequestLabels { model, target_model, fairness_id, priority } = self.0;
        *key.model == *model
            && *key.target_model == *target_model
            && *key.fairness_id == *fairness_id
            && key.priority == priority
    }
}

/// One label set and its series.
struct FlowSet {
    key: Key,
    priority: Box<str>,
    /// Its histograms have its labels.
    own: bool,
    size: Twin<IntGauge>,
    bytes: Twin<IntGauge>,
    waits: [OnceLock<Twin<Histogram>>; OUTCOMES.len()],
    enqueues: [OnceLock<Twin<Histogram>>; OUTCOMES.len()],
    counts: [OnceLock<Twin<IntCounter>>; OUTCOMES.len()],
    /// Guards that hold it. Grows under the lock of the map only.
    held: AtomicU64,
}

/// One set in the map.
struct Entry {
    set: Arc<FlowSet>,
    /// Time at which a look first found the set unused.
    idle_since: Option<Instant>,
    pinned: bool,
}

/// The label sets of one pool.
pub(super) struct FlowSets {
    families: Arc<FlowFamilies>,
    pool: Box<str>,
    sets: Mutex<HashMap<Key, Entry>>,
    cap: usize,
    /// Sets with histograms of their own.
    own: AtomicUsize,
}

impl FlowSets {
    pub(super) fn new(families: Arc<FlowFamilies>, pool: &str) -> Self {
        let cap = families.cap;
        Self { families, pool: pool.into(), sets: Mutex::default(), cap, own: AtomicUsize::new(0) }
    }

    fn band(priority: i32) -> RequestLabels<'static> {
        RequestLabels { model: "", target_model: "", fairness_id: DEFAULT_FLOW, priority }
    }

    /// Shows the set of a band with nothing waiting, for good. True if it was not pinned before.
    pub(super) fn pin(&self, priority: i32) -> bool {
        let mut sets = self.sets.lock();
        let labels = Self::band(priority);
        self.insert(&mut sets, labels, usize::MAX);
        sets.get_mut(&Lookup(labels)).is_some_and(|entry| !std::mem::replace(&mut entry.pinned, true))
    }

    /// Lets the set of a band go once it is idle.
    pub(super) fn unpin(&self, priority: i32) {
        if let Some(entry) = self.sets.lock().get_mut(&Lookup(Self::band(priority))) {
            entry.pinned = false;
        }
    }

    pub(super) fn enter(
        self: &Arc<Self>,
        labels: RequestLabels<'_>,
        bytes: u64,
        now: Instant,
    ) -> QueuedGuard {
        let set = self.hold(labels);
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        set.size.add(1);
        set.bytes.add(bytes);
        QueuedGuard { sets: Arc::clone(self), set, bytes, since: now, finished: false }
    }

    /// The set for `labels`, folded as far as bounds ask for, and kept until [`FlowSets::release`].
    fn hold(&self, labels: RequestLabels<'_>) -> Arc<FlowSet> {
        let admitted = RequestLabels {
            model: self.families.models.admit(labels.model),
            target_model: self.families.models.admit(labels.target_model),
            fairness_id: self.families.fairness.admit(labels.fairness_id),
            priority: labels.priority,
        };
        let mut sets = self.sets.lock();
        let found = self.insert(&mut sets, admitted, self.cap).or_else(|| {
            self.families.folded.inc();
            let without_fairness = RequestLabels { fairness_id: OTHER, ..admitted };
            self.insert(&mut sets, without_fairness, self.cap + self.cap / FOLDED_SHARE)
        });
        let last_resort = RequestLabels { model: OTHER, target_model: OTHER, fairness_id: OTHER, ..labels };
        let set = found
            .or_else(|| self.insert(&mut sets, last_resort, self.cap + self.cap / FOLDED_SHARE + PRIORITIES))
            // Beyond that even the priority is folded.
            .or_else(|| self.insert(&mut sets, RequestLabels { priority: 0, ..last_resort }, usize::MAX))
            .unwrap_or_else(|| Arc::new(self.make(last_resort)));
        set.held.fetch_add(1, Relaxed);
        set
    }

    /// The set with exactly these labels; made if there are fewer than `cap`.
    fn insert(
        &self,
        sets: &mut HashMap<Key, Entry>,
        labels: RequestLabels<'_>,
        cap: usize,
    ) -> Option<Arc<FlowSet>> {
        if let Some(entry) = sets.get_mut(&Lookup(labels)) {
            entry.idle_since = None;
            return Some(Arc::clone(&entry.set));
        }
        if sets.len() >= cap {
            return None;
        }
        let set = Arc::new(self.make(labels));
        let entry = Entry { set: Arc::clone(&set), idle_since: None, pinned: false };
        sets.insert(set.key.clone(), entry);
        Some(set)
    }

    fn make(&self, labels: RequestLabels<'_>) -> FlowSet {
        let priority = labels.priority.to_string();
        let values = [labels.fairness_id, &priority, &*self.pool, labels.model, labels.target_model];
        let own = self.own.load(Relaxed) < OWN_HISTOGRAMS;
        if own {
            self.own.fetch_add(1, Relaxed);
        }
        FlowSet {
            own,
            key: Key::new(labels),
            size: self.families.size.child(values),
            bytes: self.families.bytes.child(values),
            priority: priority.into(),
            waits: Default::default(),
            enqueues: Default::default(),
            counts: Default::default(),
            held: AtomicU64::new(0),
        }
    }

    /// Drops sets that nobody has held for `idle`, as far as looks at them can tell.
    pub(super) fn prune(&self, now: Instant, idle: Duration) {
        let mut sets = self.sets.lock();
        let gone: Vec<Key> = sets
            .iter_mut()
            .filter_map(|(key, entry)| {
                if entry.pinned || entry.set.held.load(Relaxed) > 0 {
                    entry.idle_since = None;
                    return None;
                }
                let since = *entry.idle_since.get_or_insert(now);
                (now.saturating_duration_since(since) >= idle).then(|| key.clone())
            })
            .collect();
        for key in gone {
            let Some(entry) = sets.remove(&key) else { continue };
            let FlowSet { priority, .. } = &*entry.set;
            let Key { model, target_model, fairness_id, .. } = &key;
            let values = [&**fairness_id, &**priority, &*self.pool, &**model, &**target_model];
            self.families.size.remove(values);
            self.families.bytes.remove(values);
            if entry.set.own {
                self.own.fetch_sub(1, Relaxed);
                for outcome in OUTCOMES {
                    let values =
                        [&**fairness_id, &**priority, outcome, &*self.pool, &**model, &**target_model];
                    self.families.wait.remove(values);
                }
            }
            let is_last =
                !sets.keys().any(|other| other.fairness_id == *fairness_id && other.priority == key.priority);
            if is_last && entry.set.own {
                for outcome in OUTCOMES {
                    self.families.enqueue.remove([&**fairness_id, &**priority, outcome]);
                }
            }
            if !sets.keys().any(|other| other.priority == key.priority) {
                self.families.forget_priority(priority, &self.pool);
                for outcome in OUTCOMES {
                    self.families.wait.remove([OTHER, &**priority, outcome, &*self.pool, OTHER, OTHER]);
                    self.families.enqueue.remove([OTHER, &**priority, outcome]);
                }
            }
        }
    }
}

impl FlowSet {
    fn labels(&self) -> RequestLabels<'_> {
        RequestLabels {
            model: &self.key.model,
            target_model: &self.key.target_model,
            fairness_id: &self.key.fairness_id,
            priority: self.key.priority,
        }
    }

    fn histogram_labels(&self) -> RequestLabels<'_> {
        let shared = RequestLabels {
            model: OTHER,
            target_model: OTHER,
            fairness_id: OTHER,
            priority: self.key.priority,
        };
        if self.own { self.labels() } else { shared }
    }

    fn wait(&self, sets: &FlowSets, outcome: usize) -> &Twin<Histogram> {
        self.waits[outcome].get_or_init(|| {
            let RequestLabels { model, target_model, fairness_id, .. } = self.histogram_labels();
            let values = [fairness_id, &*self.priority, OUTCOMES[outcome], &*sets.pool, model, target_model];
            sets.families.wait.child(values)
        })
    }

    fn enqueue(&self, sets: &FlowSets, outcome: usize) -> &Twin<Histogram> {
        self.enqueues[outcome].get_or_init(|| {
            sets.families.enqueue.child([
                self.histogram_labels().fairness_id,
                &*self.priority,
                OUTCOMES[outcome],
            ])
        })
    }

    fn count(&self, sets: &FlowSets, outcome: usize) -> &Twin<IntCounter> {
        self.counts[outcome]
            .get_or_init(|| sets.families.requests.child([OUTCOMES[outcome], &*self.priority, &*sets.pool]))
    }
}

/// Place of an outcome in [`OUTCOMES`]; `None` is a request that is still waiting.
fn place(outcome: Option<Outcome>) -> usize {
    outcome.map_or(OUTCOMES.len() - 1, |outcome| outcome as usize)
}

/// A request that flow control holds. Dropped unfinished, it counts as cancelled.
#[must_use = "dropping the guard ends the wait as cancelled"]
pub struct QueuedGuard {
    sets: Arc<FlowSets>,
    set: Arc<FlowSet>,
    bytes: i64,
    since: Instant,
    finished: bool,
}

impl QueuedGuard {
    /// Putting the request into the queue of the band `priority` took this long. `outcome` is that of the rejection if
    /// it did not get there.
    pub fn queueing_took(&self, priority: i32, outcome: Option<Outcome>, took: Duration) {
        let outcome = place(outcome);
        self.in_band(priority, |set| set.enqueue(&self.sets, outcome).observe(took.as_secs_f64()));
    }

    /// The request leaves the band `priority` after this wait.
    pub fn finish(mut self, priority: i32, outcome: Outcome, waited: Duration) {
        self.end(priority, place(Some(outcome)), waited);
    }

    fn end(&mut self, priority: i32, outcome: usize, waited: Duration) {
        self.finished = true;
        self.set.count(&self.sets, outcome).inc();
        self.in_band(priority, |set| set.wait(&self.sets, outcome).observe(waited.as_secs_f64()));
    }

    /// The set of the band that the request waits in, which may not be the one it asked for.
    fn in_band(&self, priority: i32, act: impl FnOnce(&FlowSet)) {
        if priority == self.set.key.priority {
            act(&self.set);
        } else {
            let set = self.sets.hold(RequestLabels { priority, ..self.set.labels() });
            act(&set);
            set.held.fetch_sub(1, Relaxed);
        }
    }
}

impl Drop for QueuedGuard {
    fn drop(&mut self) {
        if !self.finished {
            let waited = self.since.elapsed();
            self.end(self.set.key.priority, place(Some(Outcome::EvictedContextCancelled)), waited);
        }
        self.set.size.add(-1);
        self.set.bytes.add(-self.bytes);
        self.set.held.fetch_sub(1, Relaxed);
    }
}

impl std::fmt::Debug for QueuedGuard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("QueuedGuard").field(&self.set.key).finish()
    }
}

#[cfg(test)]
#[path = "flow_tests.rs"]
mod tests;
