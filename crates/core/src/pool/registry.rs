//! The pool itself, which discovery writes and requests read.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, ArcSwapOption};
use parking_lot::Mutex;
use tokio::sync::watch;

use super::{Endpoint, EndpointId, EndpointSpec, Load, Objectives, Rewrites, Snapshot, UnknownObjectives};

/// What a change of the endpoint list did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PoolChange {
    /// Endpoints that are new, that came back, or that moved to another address.
    pub added: usize,
    /// Endpoints that are gone.
    pub removed: usize,
    /// Endpoints that stayed; their labels may have changed.
    pub kept: usize,
}

/// One inference pool. One process may have several pools, because nothing here is global.
#[derive(Debug)]
pub struct Pool {
    name: String,
    namespace: String,
    epoch: Instant,
    snapshot: ArcSwap<Snapshot>,
    objectives: ArcSwap<Objectives>,
    unknown_objectives: UnknownObjectives,
    rewrites: ArcSwap<Rewrites>,
    app_protocol: ArcSwapOption<String>,
    synced: AtomicBool,
    writer: Mutex<Writer>,
    version: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Writer {
    next_incarnation: u64,
    /// Loads of endpoints that are gone while their requests may still run. An endpoint that comes back gets its count
    /// back.
    departed: HashMap<(EndpointId, SocketAddr), Weak<Load>>,
    absence: Absence,
}

/// The times in which the pool had no endpoints.
#[derive(Debug, Default)]
struct Absence {
    since: Option<Instant>,
    /// Length of the last such time.
    last: Option<Duration>,
}

impl Absence {
    fn note(&mut self, is_empty: bool, now: Instant) {
        if is_empty {
            self.since.get_or_insert(now);
        } else if let Some(since) = self.since.take() {
            self.last = Some(now.saturating_duration_since(since));
        }
    }

    /// Time until the pool has endpoints again, if this takes as long as last time.
    fn rest(&self, now: Instant) -> Option<Duration> {
        let elapsed = self.since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
        self.last.map(|last| last.saturating_sub(elapsed))
    }
}

impl Pool {
    /// An empty pool that discovery has not filled yet.
    pub fn new(namespace: &str, name: &str, epoch: Instant) -> Self {
        Self {
            name: name.to_owned(),
            namespace: namespace.to_owned(),
            epoch,
            snapshot: ArcSwap::default(),
            objectives: ArcSwap::default(),
            unknown_objectives: UnknownObjectives::default(),
            rewrites: ArcSwap::default(),
            app_protocol: ArcSwapOption::empty(),
            synced: AtomicBool::new(false),
            writer: Mutex::default(),
            version: watch::Sender::new(0),
        }
    }

    /// Name of the pool, as metrics label it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The time from which ages of figures are counted.
    pub fn epoch(&self) -> Instant {
        self.epoch
    }

    /// Namespace of the pool.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The current endpoints. A request takes one snapshot and keeps it.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }

    /// How much longer an empty pool is expected to stay empty, if this takes as long as last time. The answer is zero
    /// if that time has passed, and `None` if the pool was never empty before.
    pub fn expected_absence(&self, now: Instant) -> Option<Duration> {
        self.writer.lock().absence.rest(now)
    }

    /// The objectives now.
    pub fn objectives(&self) -> arc_swap::Guard<Arc<Objectives>> {
        self.objectives.load()
    }

    /// Names that requests gave for objectives which do not exist.
    pub fn unknown_objectives(&self) -> &UnknownObjectives {
        &self.unknown_objectives
    }

    /// The rewrite rules now.
    pub fn rewrites(&self) -> arc_swap::Guard<Arc<Rewrites>> {
        self.rewrites.load()
    }

    /// True once discovery has delivered a first state, which may be empty.
    pub fn is_synced(&self) -> bool {
        self.synced.load(Ordering::Acquire)
    }

    /// Application protocol of the model servers, as `appProtocol` spells it; `None` if the pool names none.
    pub fn app_protocol(&self) -> Option<Arc<String>> {
        self.app_protocol.load_full()
    }

    /// Replaces the application protocol.
    pub fn set_app_protocol(&self, protocol: Option<String>) {
        self.app_protocol.store(protocol.map(Arc::new));
    }

    /// A receiver that wakes at each change of the endpoint list or the objectives; its value is the snapshot's
    /// version.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }

    /// Replaces the objectives.
    pub fn set_objectives(&self, objectives: Objectives) {
        self.objectives.store(Arc::new(objectives));
        self.version.send_modify(|_| {});
    }

    /// Replaces the rewrite rules.
    pub fn set_rewrites(&self, rewrites: Rewrites) {
        self.rewrites.store(Arc::new(rewrites));
    }

    /// Removes all endpoints, and marks the pool as not synced. Objectives and rewrites stay.
    pub fn forget_endpoints(&self) {
        self.synced.store(false, Ordering::Release);
        self.replace(Vec::new());
    }

    /// Replaces the whole endpoint list in one step, and marks the pool as synced. If several specs have one id, the
    /// last one counts. An endpoint whose id and address stay the same keeps its incarnation and load. An endpoint that
    /// comes back while its requests still run gets their count back.
    pub fn replace_endpoints(&self, specs: Vec<EndpointSpec>) -> PoolChange {
        let change = self.replace(specs);
        self.synced.store(true, Ordering::Release);
        change
    }

    fn replace(&self, specs: Vec<EndpointSpec>) -> PoolChange {
        let mut writer = self.writer.lock();
        let old = self.snapshot.load_full();
        let mut before: HashMap<&EndpointId, &Arc<Endpoint>> =
            old.endpoints().iter().map(|endpoint| (endpoint.id(), endpoint)).collect();
        let mut last: HashMap<EndpointId, usize> = HashMap::with_capacity(specs.len());
        for (index, spec) in specs.iter().enumerate() {
            last.insert(spec.id.clone(), index);
        }
        let mut change = PoolChange::default();
        let mut endpoints = Vec::with_capacity(last.len());
        for (index, spec) in specs.into_iter().enumerate() {
            if last.get(&spec.id) != Some(&index) {
                continue;
            }
            let previous = before.get(&spec.id).copied();
            if let Some(same) = previous.filter(|endpoint| endpoint.spec().address == spec.address) {
                before.remove(&spec.id);
                change.kept += 1;
                if *same.spec() == spec {
                    endpoints.push(Arc::clone(same));
                } else {
                    let kept = Endpoint::new(spec, same.incarnation(), Arc::clone(same.load()));
                    endpoints.push(Arc::new(kept));
                }
                continue;
            }
            change.added += 1;
            endpoints.push(Arc::new(writer.admit(spec, self.epoch)));
        }
        for gone in before.into_values() {
            change.removed += 1;
            writer.dismiss(gone);
        }
        writer.departed.retain(|_, load| load.strong_count() > 0);
        writer.absence.note(endpoints.is_empty(), crate::clock::now());
        let version = old.version() + 1;
        self.snapshot.store(Arc::new(Snapshot::new(version, endpoints)));
        drop(writer);
        self.version.send_replace(version);
        change
    }
}

impl Writer {
    fn admit(&mut self, spec: EndpointSpec, epoch: Instant) -> Endpoint {
        self.next_incarnation += 1;
        let key = (spec.id.clone(), spec.address);
        let running = self.departed.remove(&key).and_then(|load| load.upgrade());
        if let Some(load) = &running {
            load.forget_reading();
        }
        let load = running.unwrap_or_else(|| Arc::new(Load::new(epoch)));
        Endpoint::new(spec, self.next_incarnation, load)
    }

    fn dismiss(&mut self, endpoint: &Endpoint) {
        let key = (endpoint.id().clone(), endpoint.spec().address);
        self.departed.insert(key, Arc::downgrade(endpoint.load()));
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
