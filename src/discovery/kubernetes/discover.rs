//! Runs the watches and fills the pool with what they say.

use std::collections::HashMap;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kube::core::DynamicResourceScope;
use kube::runtime::watcher;
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use super::cluster::{Cluster, Delta, Origin};
use super::conditions;
use super::resources::{
    CURRENT_GROUP, GroupVersion, InferenceModelRewrite, InferenceObjective, InferencePool, LEGACY_GROUP,
    ObjectiveFacts, Pod, PodFacts, PoolFacts, PoolName, RewriteFacts,
};
use super::settle::{Settle, Urgency};
use super::status::{DesiredStatus, Kind, StatusWriter};
use super::watch::{Sink, Watched};
use crate::discovery::{Discovery, DiscoveryError};
use crate::kubernetes::{Connection, Leadership};
use crate::metrics::Metrics;
use crate::pool::{ModelRewrite, Objectives, Pool, Rewrites};
use crate::telemetry::Repeat;

/// Steps on their way from the watches; a full channel makes these wait, and the API server with them.
const STEPS: usize = 1024;
/// Longest delay of the first endpoints for the sake of objectives and rewrites, whose watches begin at the same time.
const RULES_WAIT: Duration = Duration::from_secs(3);

/// Resource of pods, in plural.
const PODS: &str = "pods";

/// Selects the pods that are the endpoints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Those of the InferencePool that has the pool's name, in this API group.
    Pool {
        /// Group of the InferencePool.
        group: String,
    },
    /// Those that a label selector selects; no definition of a resource has to be installed.
    Selector {
        /// Selector in the form of a query.
        selector: String,
        /// Ports of each pod, each once.
        ports: Vec<u16>,
    },
}

/// Keeps a pool as the Kubernetes API says.
#[derive(Debug)]
pub struct KubernetesDiscovery {
    /// The API server.
    pub connection: Connection,
    /// Selects the pods that are the endpoints.
    pub scope: Scope,
    /// Says whether this replica may write, which only the leader may.
    pub leadership: Leadership,
    /// Series.
    pub metrics: Arc<Metrics>,
}

/// A step of one of the watches.
enum Step {
    Pool(Delta<PoolFacts>),
    Pods(u64, Delta<PodFacts>),
    Objectives(Origin, Delta<ObjectiveFacts>),
    Rewrites(Origin, Delta<RewriteFacts>),
    /// A watch of rules has said its first word, if only that it can't.
    Heard,
}

impl Discovery for KubernetesDiscovery {
    async fn run(self, pool: Arc<Pool>, shutdown: CancellationToken) -> Result<(), DiscoveryError> {
        let client = self.connection.client().map_err(|error| DiscoveryError(error.to_string()))?;
        tracing::info!(server = self.connection.server(), scope = ?self.scope, "discovery by the Kubernetes API");
        let (wanted, writes) = watch::channel(Vec::new());
        let (steps, received) = mpsc::channel(STEPS);
        let mut run = Run {
            cluster: Cluster::new(pool.namespace()),
            tasks: JoinSet::new(),
            pod_watches: HashMap::new(),
            endpoints: Settle::default(),
            rules: Settle::default(),
            unheard: 0,
            pool_heard: false,
            watched: Vec::new(),
            displaced: Repeat::every(Duration::from_mins(1)),
            wanted,
            rewrites: None,
            steps,
            client: client.clone(),
            metrics: Arc::clone(&self.metrics),
            pool,
        };
        match &self.scope {
            Scope::Pool { group } => {
                run.watch_pool(group);
                run.watch_rules(group);
                let writer = StatusWriter {
                    client,
                    namespace: run.pool.namespace().to_owned(),
                    metrics: self.metrics.kubernetes(),
                    leadership: self.leadership,
                };
                run.tasks.spawn(writer.run(writes));
            }
            Scope::Selector { selector, ports } => {
                let pool =
                    PoolFacts { selector: Some(selector.clone()), ports: ports.clone(), app_protocol: None };
                run.cluster.set_pool(Some(pool));
                run.watch_pods();
            }
        }
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = run.until_stopped(received) => {}
        }
        // Dropping the tasks ends the watches.
        Ok(())
    }
}

/// Everything while it runs.
struct Run {
    cluster: Cluster,
    tasks: JoinSet<()>,
    pod_watches: HashMap<u64, AbortHandle>,
    /// Decides when changed endpoints are applied.
    endpoints: Settle,
    /// Decides when changed objectives and rewrites are applied.
    rules: Settle,
    /// Watches of rules that have not said anything yet.
    unheard: usize,
    /// The watch of the pool has said whether it exists.
    pool_heard: bool,
    /// Resource and group of every watch that was begun.
    watched: Vec<(&'static str, String)>,
    displaced: Repeat,
    wanted: watch::Sender<Vec<DesiredStatus>>,
    /// The rewrites as they are in force; `None` before any were applied: the pool may have some of an earlier run.
    rewrites: Option<Vec<ModelRewrite>>,
    steps: mpsc::Sender<Step>,
    client: Client,
    metrics: Arc<Metrics>,
    pool: Arc<Pool>,
}

impl Run {
    async fn until_stopped(&mut self, mut received: mpsc::Receiver<Step>) {
        let rules_by = Instant::now() + RULES_WAIT;
        loop {
            // The first endpoints come with the rules that hold for their requests, and the first rules all together.
            let may_begin = self.unheard == 0 || self.rewrites.is_some() || Instant::now() >= rules_by;
            let gated = |due: Instant| if may_begin { due } else { due.max(rules_by) };
            let (endpoints, rules) = (self.endpoints.due().map(gated), self.rules.due().map(gated));
            let due = [endpoints, rules].into_iter().flatten().min();
            let alarm = async {
                match due {
                    Some(due) => tokio::time::sleep_until(due.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                // What has arrived belongs to the batch that is due.
                biased;
                step = received.recv() => match step {
                    Some(step) => self.take(step, Instant::now()),
                    None => return,
                },
                () = alarm => {}
                Some(ended) = self.tasks.join_next() => {
                    // Watches of pods are ended on purpose. Anything else has broken, and with it what it kept up to
                    // date.
                    if let Err(error) = ended.as_ref() && error.is_panic() {
                        tracing::error!(%error, "a watch broke; all of them begin anew");
                        return;
                    }
                }
            }
            let now = Instant::now();
            if rules.is_some_and(|due| due <= now) {
                self.apply_rules();
            }
            if endpoints.is_some_and(|due| due <= now) {
                self.apply_endpoints();
            }
        }
    }

    fn take(&mut self, step: Step, now: Instant) {
        match step {
            Step::Pool(delta) => {
                let pool = match delta {
                    Delta::Listed(pools) => pools.into_iter().next(),
                    Delta::Applied(pool) => Some(pool),
                    Delta::Removed(_) => None,
                };
                if pool.is_none() {
                    let (namespace, name) = (self.pool.namespace(), self.pool.name());
                    tracing::warn!(
                        namespace,
                        name,
                        "the InferencePool does not exist; nothing is served until it does"
                    );
                }
                let had = self.cluster.has_pool();
                self.note_endpoints(now, |cluster| cluster.set_pool(pool));
                let first = !std::mem::replace(&mut self.pool_heard, true);
                if first || had != self.cluster.has_pool() {
                    self.want_statuses();
                }
                self.watch_pods();
            }
            Step::Pods(watch, delta) => {
                self.note_endpoints(now, |cluster| cluster.pods(watch, delta));
                self.watch_pods();
            }
            Step::Objectives(origin, delta) => {
                if let Some(urgency) = self.cluster.objectives(origin, delta) {
                    self.rules.note(urgency, now);
                }
            }
            Step::Rewrites(origin, delta) => {
                if let Some(urgency) = self.cluster.rewrites(origin, delta) {
                    self.rules.note(urgency, now);
                }
            }
            Step::Heard => self.unheard = self.unheard.saturating_sub(1),
        }
    }

    fn note_endpoints(&mut self, now: Instant, change: impl FnOnce(&mut Cluster) -> Option<Urgency>) {
        if let Some(urgency) = change(&mut self.cluster) {
            self.endpoints.note(urgency, now);
        }
    }

    fn apply_endpoints(&mut self) {
        self.endpoints.clear();
        // A pool that begins has its rules from the start.
        if self.rules.due().is_some() || self.rewrites.is_none() {
            self.apply_rules();
        }
        let Some(view) = self.cluster.view() else {
            self.pool.forget_endpoints();
            tracing::warn!(pool = self.pool.name(), "the pool is gone, and its endpoints with it");
            return;
        };
        if let Some(suppressed) =
            (!view.displaced.is_empty()).then(|| self.displaced.due(Instant::now())).flatten()
        {
            tracing::warn!(pods = ?view.displaced, suppressed, "left out: another pod that changed later has the same address");
        }
        self.pool.set_app_protocol(view.app_protocol);
        let change = self.pool.replace_endpoints(view.endpoints);
        self.metrics.kubernetes().snapshot();
        tracing::info!(
            added = change.added,
            removed = change.removed,
            kept = change.kept,
            "endpoints changed"
        );
    }

    fn apply_rules(&mut self) {
        self.rules.clear();
        let objectives: Objectives =
            self.cluster.effective_objectives().map(|one| (one.name.clone(), one.priority)).collect();
        if **self.pool.objectives() != objectives {
            tracing::info!(objectives = self.cluster.effective_objectives().count(), "objectives changed");
            self.pool.set_objectives(objectives);
        }
        let rewrites = self.cluster.model_rewrites();
        if self.rewrites.as_ref() != Some(&rewrites) {
            if self.rewrites.is_some() || !rewrites.is_empty() {
                tracing::info!(rewrites = rewrites.len(), "model rewrites changed");
            }
            let indexed = Rewrites::new(rewrites.clone());
            self.metrics.pin_models(indexed.models());
            self.pool.set_rewrites(indexed);
            self.rewrites = Some(rewrites);
        }
        self.want_statuses();
    }

    /// Says what every status should be, once it is known whether the pool exists.
    fn want_statuses(&self) {
        if !self.pool_heard {
            return;
        }
        let (pool, has_pool) = (self.pool.name(), self.cluster.has_pool());
        let rewrites = Rewrites::new(self.cluster.model_rewrites());
        let objectives = self.cluster.objectives_with_twins().map(|(origin, one, counts)| DesiredStatus {
            kind: Kind::Objective,
            at: at(origin),
            name: one.name.clone(),
            written: one.written.clone(),
            findings: if counts { conditions::objective(one, pool, has_pool) } else { conditions::twin() },
        });
        let rules = self.cluster.rewrites_with_twins().map(|(origin, one, counts)| DesiredStatus {
            kind: Kind::Rewrite,
            at: at(origin),
            name: one.rewrite.name.clone(),
            written: one.written.clone(),
            findings: if counts {
                conditions::rewrite(one, &rewrites, pool, has_pool)
            } else {
                conditions::twin()
            },
        });
        let wanted: Vec<DesiredStatus> = objectives.chain(rules).collect();
        self.wanted.send_if_modified(|present| {
            let changed = *present != wanted;
            *present = wanted;
            changed
        });
    }

    fn watch_pool(&mut self, group: &str) {
        let at = GroupVersion::of_pool(group);
        let api: Api<InferencePool> = Api::namespaced_with(self.client.clone(), self.pool.namespace(), &at);
        let config = watcher::Config::default().fields(&format!("metadata.name={}", self.pool.name()));
        let watched = self.watched("inferencepools", group, "there is no pool to serve");
        let sink = Sink { to: self.steps.clone(), step: Step::Pool, heard: None };
        self.tasks.spawn(watched.follow(api, config, InferencePool::facts, sink));
    }

    fn watch_rules(&mut self, pool_group: &str) {
        let pool = PoolName { group: pool_group.to_owned(), name: self.pool.name().to_owned() };
        for origin in [Origin::Current, Origin::Legacy] {
            let (at, of) = (at(origin), pool.clone());
            let watched =
                self.watched("inferenceobjectives", &at.group, "objectives of this group have no effect");
            let step = move |delta| Step::Objectives(origin, delta);
            self.watch_rule(watched, &at, move |one: InferenceObjective| one.facts(&of), step);

            let of = pool.clone();
            let watched =
                self.watched("inferencemodelrewrites", &at.group, "rewrites of this group have no effect");
            let step = move |delta| Step::Rewrites(origin, delta);
            self.watch_rule(watched, &at, move |one: InferenceModelRewrite| one.facts(&of), step);
        }
    }

    fn watch_rule<K, T: Send + 'static>(
        &mut self,
        watched: Watched,
        at: &GroupVersion,
        read: impl Fn(K) -> Option<T> + Send + Sync + 'static,
        step: impl Fn(Delta<T>) -> Step + Send + Sync + 'static,
    ) where
        K: Resource<DynamicType = GroupVersion, Scope = DynamicResourceScope>
            + Clone
            + DeserializeOwned
            + Debug
            + Send
            + 'static,
    {
        self.unheard += 1;
        let api: Api<K> = Api::namespaced_with(self.client.clone(), self.pool.namespace(), at);
        let sink = Sink { to: self.steps.clone(), step, heard: Some(Step::Heard) };
        self.tasks.spawn(watched.follow(api, watcher::Config::default(), read, sink));
    }

    /// Starts the watch of pods that is wanted, and ends those that are not.
    fn watch_pods(&mut self) {
        let wanted = self.cluster.watch().cloned();
        let serves = self.cluster.serves();
        self.pod_watches.retain(|number, task| {
            let stays =
                serves == Some(*number) || wanted.as_ref().is_some_and(|watch| watch.number == *number);
            if !stays {
                task.abort();
            }
            stays
        });
        if self.pod_watches.is_empty() && wanted.is_none() {
            self.metrics.kubernetes().forget_watch(PODS, "");
        }
        let Some(watch) = wanted.filter(|watch| !self.pod_watches.contains_key(&watch.number)) else {
            return;
        };
        let api: Api<Pod> = Api::namespaced_with(self.client.clone(), self.pool.namespace(), &Pod::AT);
        let config = watcher::Config::default().labels(&watch.selector);
        let watched = self.watched(PODS, "", "there are no endpoints");
        let number = watch.number;
        let step = move |delta| Step::Pods(number, delta);
        let sink = Sink { to: self.steps.clone(), step, heard: None };
        let read = |pod: Pod| Some(PodFacts::from(pod));
        let task = self.tasks.spawn(watched.follow(api, config, read, sink));
        self.pod_watches.insert(number, task);
    }

    fn watched(&mut self, resource: &'static str, group: &str, without: &'static str) -> Watched {
        self.watched.retain(|(known, of)| *known != resource || of != group);
        self.watched.push((resource, group.to_owned()));
        let metrics = self.metrics.kubernetes().watch(resource, group);
        Watched { resource: resource.to_owned(), group: group.to_owned(), without, metrics }
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        for (resource, group) in &self.watched {
            self.metrics.kubernetes().forget_watch(resource, group);
        }
    }
}

/// The group that objects of this origin are in.
fn at(origin: Origin) -> GroupVersion {
    let group = match origin {
        Origin::Current => CURRENT_GROUP,
        Origin::Legacy => LEGACY_GROUP,
    };
    GroupVersion::new(group, "v1alpha2")
}
