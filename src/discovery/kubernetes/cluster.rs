//! What the cluster says of one pool, and the endpoints, objectives and rewrites that follow from it. Pure: changes in,
//! a view out.
//!
//! The pods of a pool are those that one watch with the pool's selector lists. When the selector changes, a second
//! watch begins; until it has listed its pods, the pool goes on as it was, ports included. So a change of the selector
//! is one step, and never a moment without endpoints.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;

use super::resources::{ObjectiveFacts, PodFacts, PoolFacts, RewriteFacts};
use super::settle::Urgency;
use crate::pool::{EndpointId, EndpointSpec, ModelRewrite};

/// Something that a watch lists, by name.
pub(super) trait Named {
    /// Name within the namespace.
    fn name(&self) -> &str;
}

impl Named for PodFacts {
    fn name(&self) -> &str {
        &self.name
    }
}

impl Named for ObjectiveFacts {
    fn name(&self) -> &str {
        &self.name
    }
}

impl Named for RewriteFacts {
    fn name(&self) -> &str {
        &self.rewrite.name
    }
}

/// A step of a watch.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Delta<T> {
    /// A complete list: what is not in it is gone.
    Listed(Vec<T>),
    /// An object is new or has changed.
    Applied(T),
    /// The object of this name is gone, or does not concern the pool any more.
    Removed(String),
}

/// The API group of an object. Objects of the current group win over objects of the former group with the same name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Origin {
    /// The former group.
    Legacy,
    /// The present one.
    Current,
}

/// Watch of the pods that a selector selects. A later one has a larger number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PodWatch {
    /// Number of the watch.
    pub(super) number: u64,
    /// Label selector in the form of a query.
    pub(super) selector: String,
}

/// The cluster's objects of one pool.
#[derive(Debug, Default)]
pub(super) struct Cluster {
    namespace: String,
    /// The pool as its latest version has it.
    pool: Option<PoolFacts>,
    /// The latest watch of pods; its first list may still be under way.
    watch: Option<PodWatch>,
    next_watch: u64,
    serving: Option<Serving>,
    changes: u64,
    objectives: BTreeMap<(String, Origin), ObjectiveFacts>,
    rewrites: BTreeMap<(String, Origin), RewriteFacts>,
}

/// The pool as requests see it.
#[derive(Debug)]
struct Serving {
    pool: PoolFacts,
    watch: u64,
    /// Each pod, and the number of its last change: of two pods with one address the later is right.
    pods: BTreeMap<String, (u64, PodFacts)>,
}

/// The endpoints that follow.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct View {
    /// Endpoints, by pod name and rank.
    pub(super) endpoints: Vec<EndpointSpec>,
    /// Pods of which an address was left out because a pod that changed later has it too.
    pub(super) displaced: Vec<String>,
    /// Application protocol of the pool.
    pub(super) app_protocol: Option<String>,
}

impl Cluster {
    /// A cluster of which nothing is known yet, for this namespace.
    pub(super) fn new(namespace: &str) -> Self {
        Self { namespace: namespace.to_owned(), ..Self::default() }
    }

    /// The watch of pods that should run; older ones may end once [`Cluster::serves`] names it.
    pub(super) fn watch(&self) -> Option<&PodWatch> {
        self.watch.as_ref()
    }

    /// Number of the watch whose pods are the endpoints.
    pub(super) fn serves(&self) -> Option<u64> {
        self.serving.as_ref().map(|serving| serving.watch)
    }

    /// True if the pool exists.
    pub(super) fn has_pool(&self) -> bool {
        self.pool.is_some()
    }

    /// The pool has changed, or is gone.
    pub(super) fn set_pool(&mut self, pool: Option<PoolFacts>) -> Option<Urgency> {
        if pool == self.pool {
            return None;
        }
        self.pool = pool;
        let Some(pool) = &self.pool else {
            self.watch = None;
            return self.serving.take().map(|_| Urgency::Loss);
        };
        let Some(selector) = &pool.selector else {
            // It selects no pod: there is nothing to watch, and the pool is complete without.
            self.next_watch += 1;
            self.watch = None;
            self.serving =
                Some(Serving { pool: pool.clone(), watch: self.next_watch, pods: BTreeMap::new() });
            return Some(Urgency::Loss);
        };
        if self.watch.as_ref().is_none_or(|watch| watch.selector != *selector) {
            self.next_watch += 1;
            self.watch = Some(PodWatch { number: self.next_watch, selector: selector.clone() });
            return None;
        }
        // The selector stays: new ports hold at once. While another selector's pods are awaited, they come with these.
        let current = self.watch.as_ref().map(|watch| watch.number);
        let serving = self.serving.as_mut().filter(|serving| Some(serving.watch) == current)?;
        serving.pool = pool.clone();
        Some(Urgency::Loss)
    }

    /// A step of the watch with this number.
    pub(super) fn pods(&mut self, watch: u64, delta: Delta<PodFacts>) -> Option<Urgency> {
        self.changes += 1;
        if self.serves() == Some(watch) {
            let change = self.changes;
            let serving = self.serving.as_mut()?;
            return match delta {
                Delta::Listed(pods) => {
                    let before = std::mem::take(&mut serving.pods);
                    // A pod that is as it was keeps the number of its change.
                    serving.pods = numbered(pods, change, &before);
                    (serving.pods != before).then_some(Urgency::Loss)
                }
                Delta::Applied(pod) => serving.apply(pod, change),
                Delta::Removed(name) => {
                    let (_, gone) = serving.pods.remove(&name)?;
                    gone.ready.then_some(Urgency::Loss)
                }
            };
        }
        if self.watch.as_ref().map(|watch| watch.number) != Some(watch) {
            return None;
        }
        // The first list of the awaited watch: now the pool is as its latest version says.
        let (Delta::Listed(pods), Some(pool)) = (delta, &self.pool) else { return None };
        let pods = numbered(pods, self.changes, &BTreeMap::new());
        self.serving = Some(Serving { pool: pool.clone(), watch, pods });
        Some(Urgency::Loss)
    }

    /// A step of a watch of objectives.
    pub(super) fn objectives(&mut self, origin: Origin, delta: Delta<ObjectiveFacts>) -> Option<Urgency> {
        step(&mut self.objectives, origin, delta)
    }

    /// A step of a watch of rewrites.
    pub(super) fn rewrites(&mut self, origin: Origin, delta: Delta<RewriteFacts>) -> Option<Urgency> {
        step(&mut self.rewrites, origin, delta)
    }

    /// The endpoints now; `None` while there is no pool, or its pods are not known.
    pub(super) fn view(&self) -> Option<View> {
        let serving = self.serving.as_ref()?;
        let mut view = View { app_protocol: serving.pool.app_protocol.clone(), ..View::default() };
        let mut latest: HashMap<SocketAddr, u64> = HashMap::new();
        let all: Vec<(u64, EndpointSpec)> = serving
            .pods
            .values()
            .flat_map(|(change, pod)| {
                endpoints(&self.namespace, pod, &serving.pool.ports).map(|endpoint| (*change, endpoint))
            })
            .collect();
        for (change, endpoint) in &all {
            let known = latest.entry(endpoint.address).or_insert(*change);
            *known = (*known).max(*change);
        }
        for (change, endpoint) in all {
            // Of two that changed in one step, the first by name keeps the address.
            if latest.get(&endpoint.address) == Some(&change) {
                latest.remove(&endpoint.address);
                view.endpoints.push(endpoint);
            } else {
                view.displaced.push(endpoint.pod.to_string());
            }
        }
        Some(view)
    }

    /// The objectives that count: of two with one name, that of the current group.
    pub(super) fn effective_objectives(&self) -> impl Iterator<Item = &ObjectiveFacts> {
        self.objectives_with_twins().filter(|(_, _, counts)| *counts).map(|(_, one, _)| one)
    }

    /// The rewrites that count, as the pool wants them.
    pub(super) fn model_rewrites(&self) -> Vec<ModelRewrite> {
        let counting = self.rewrites_with_twins().filter(|(_, _, counts)| *counts);
        counting.map(|(_, facts, _)| facts.rewrite.clone()).collect()
    }

    /// All objectives, with their origin and whether they count.
    pub(super) fn objectives_with_twins(&self) -> impl Iterator<Item = (Origin, &ObjectiveFacts, bool)> {
        with_twins(&self.objectives)
    }

    /// All rewrites in the same way.
    pub(super) fn rewrites_with_twins(&self) -> impl Iterator<Item = (Origin, &RewriteFacts, bool)> {
        with_twins(&self.rewrites)
    }
}

impl Serving {
    fn apply(&mut self, pod: PodFacts, change: u64) -> Option<Urgency> {
        let before = self.pods.get(&pod.name).map(|(_, pod)| pod);
        if before == Some(&pod) {
            return None;
        }
        let urgency = match (before.is_some_and(|before| before.ready), pod.ready) {
            (true, _) => Some(Urgency::Loss),
            (false, true) => Some(Urgency::Gain),
            // A pod that is not ready makes no endpoint, however it changes.
            (false, false) => None,
        };
        self.pods.insert(pod.name.clone(), (change, pod));
        urgency
    }
}

fn numbered(
    pods: Vec<PodFacts>,
    change: u64,
    before: &BTreeMap<String, (u64, PodFacts)>,
) -> BTreeMap<String, (u64, PodFacts)> {
    let number = |pod: PodFacts| {
        let same = before.get(&pod.name).filter(|(_, known)| *known == pod);
        (pod.name.clone(), (same.map_or(change, |(change, _)| *change), pod))
    };
    pods.into_iter().map(number).collect()
}

fn step<T: Named + PartialEq>(
    known: &mut BTreeMap<(String, Origin), T>,
    origin: Origin,
    delta: Delta<T>,
) -> Option<Urgency> {
    match delta {
        Delta::Listed(list) => {
            let mut fresh: BTreeMap<_, T> =
                list.into_iter().map(|one| ((one.name().to_owned(), origin), one)).collect();
            let mine = known.iter().filter(|((_, from), _)| *from == origin);
            if mine.eq(fresh.iter()) {
                return None;
            }
            known.retain(|(_, from), _| *from != origin);
            known.append(&mut fresh);
        }
        Delta::Applied(one) => {
            let key = (one.name().to_owned(), origin);
            if known.get(&key) == Some(&one) {
                return None;
            }
            known.insert(key, one);
        }
        Delta::Removed(name) => {
            known.remove(&(name, origin))?;
        }
    }
    // Wrong rules are no reason to hurry as a lost endpoint is, and they come in files of many.
    Some(Urgency::Gain)
}

fn with_twins<T>(known: &BTreeMap<(String, Origin), T>) -> impl Iterator<Item = (Origin, &T, bool)> {
    known.iter().map(|((name, origin), one)| {
        let counts = *origin == Origin::Current || !known.contains_key(&(name.clone(), Origin::Current));
        (*origin, one, counts)
    })
}

/// Endpoints of a pod: one for each target port on which something listens.
fn endpoints<'p>(
    namespace: &'p str,
    pod: &'p PodFacts,
    ports: &'p [u16],
) -> impl Iterator<Item = EndpointSpec> + 'p {
    let address = pod.address.filter(|_| pod.ready);
    let name: Arc<str> = pod.name.as_str().into();
    address.into_iter().flat_map(move |address| {
        let name = Arc::clone(&name);
        let active = |port: &u16| pod.active_ports.as_ref().is_none_or(|active| active.contains(port));
        ports.iter().enumerate().filter(move |(_, port)| active(port)).map(move |(rank, port)| EndpointSpec {
            pod: Arc::clone(&name),
            node_address: pod.node_address,
            labels: Arc::clone(&pod.labels),
            rank: rank as u32,
            ..EndpointSpec::new(
                EndpointId::new(namespace, &format!("{name}-rank-{rank}")),
                SocketAddr::new(address, *port),
            )
        })
    })
}

#[cfg(test)]
#[path = "cluster_tests.rs"]
mod tests;
