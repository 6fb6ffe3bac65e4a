//! Series of the Kubernetes side: watches, leadership, status writes, who asks for metrics.

use prometheus::{GaugeVec, IntCounterVec, IntGaugeVec, Registry};

use super::family::{Definition, Family};

const SYNCED: Definition<2> = Definition::new(
    "pointsman_discovery_synced",
    "1 while the watch of a resource is live and what it lists is known.",
    ["resource", "group"],
);

const AGE: Definition<2> = Definition::new(
    "pointsman_discovery_age_seconds",
    "Time since the watch of a resource was last live, whose last state goes on being used; 0 while it is live.",
    ["resource", "group"],
);

const ERRORS: Definition<3> = Definition::new(
    "pointsman_discovery_errors_total",
    "Failures of watches, by what they mean: absent (kind not installed), forbidden, expired, refused, unavailable.",
    ["resource", "group", "reason"],
);

const SNAPSHOTS: Definition<0> = Definition::new(
    "pointsman_discovery_snapshots_total",
    "Times that the endpoints of the pool were replaced; many events close together make one.",
    [],
);

const LEADER: Definition<0> = Definition::new(
    "pointsman_leader",
    "1 while this replica leads, also where there is no election; 0 while it stands by.",
    [],
);

const TRANSITIONS: Definition<0> = Definition::new(
    "pointsman_leader_transitions_total",
    "Times that this replica began or ceased to lead.",
    [],
);

const STATUS_WRITES: Definition<2> = Definition::new(
    "pointsman_status_writes_total",
    "Conditions written to the status of objectives and rewrites, by outcome.",
    ["resource", "outcome"],
);

const LABEL_WRITES: Definition<1> = Definition::new(
    "pointsman_leader_label_writes_total",
    "Changes of the label that marks the leader's pod, by outcome; more than a few failures leave a Service without the leader.",
    ["outcome"],
);

const ACCESS: Definition<1> = Definition::new(
    "pointsman_metrics_auth_total",
    "Requests to the metrics port whose caller was checked, by outcome.",
    ["outcome"],
);

/// The kinds of failures of the API.
const FAILURES: [&str; 5] = ["absent", "forbidden", "expired", "refused", "unavailable"];

/// Handles of the Kubernetes side. Clones share the series.
#[derive(Clone)]
pub struct KubernetesMetrics {
    synced: Family<IntGaugeVec, 2>,
    age: Family<GaugeVec, 2>,
    errors: Family<IntCounterVec, 3>,
    snapshots: Family<IntCounterVec, 0>,
    leader: Family<IntGaugeVec, 0>,
    transitions: Family<IntCounterVec, 0>,
    status_writes: Family<IntCounterVec, 2>,
    label_writes: Family<IntCounterVec, 1>,
    access: Family<IntCounterVec, 1>,
}

/// Handles of one watch.
#[derive(Clone)]
pub struct WatchMetrics {
    families: KubernetesMetrics,
    resource: String,
    group: String,
}

impl KubernetesMetrics {
    pub(super) fn register(registry: &Registry) -> Self {
        Self {
            synced: Family::register(SYNCED, registry),
            age: Family::register(AGE, registry),
            errors: Family::register(ERRORS, registry),
            snapshots: Family::register(SNAPSHOTS, registry),
            leader: Family::register(LEADER, registry),
            transitions: Family::register(TRANSITIONS, registry),
            status_writes: Family::register(STATUS_WRITES, registry),
            label_writes: Family::register(LABEL_WRITES, registry),
            access: Family::register(ACCESS, registry),
        }
    }

    /// Handles of the watch of `resource` (plural) in `group`; the group of pods is empty.
    pub fn watch(&self, resource: &str, group: &str) -> WatchMetrics {
        for reason in FAILURES {
            self.errors.child([resource, group, reason]);
        }
        WatchMetrics { families: self.clone(), resource: resource.to_owned(), group: group.to_owned() }
    }

    /// The watch of `resource` in `group` has ended: its state is nobody's any more.
    pub fn forget_watch(&self, resource: &str, group: &str) {
        self.synced.remove([resource, group]);
        self.age.remove([resource, group]);
    }

    /// The endpoints were replaced.
    pub fn snapshot(&self) {
        self.snapshots.child([]).inc();
    }

    /// Whether this replica leads. A change is counted by [`KubernetesMetrics::leader_changed`].
    pub fn set_leader(&self, leads: bool) {
        self.transitions.child([]);
        self.leader.child([]).set(u64::from(leads));
    }

    /// Leadership came or went.
    pub fn leader_changed(&self, leads: bool) {
        self.set_leader(leads);
        self.transitions.child([]).inc();
    }

    /// Statuses of `resource` are written from now on: the counts of all outcomes show 0.
    pub fn writes_status(&self, resource: &str) {
        for outcome in std::iter::once("success").chain(FAILURES) {
            self.status_writes.child([resource, outcome]);
        }
    }

    /// Callers are checked from now on: the counts of all outcomes show 0.
    pub fn checks_access(&self, outcomes: impl IntoIterator<Item = &'static str>) {
        outcomes.into_iter().for_each(|outcome| drop(self.access.child([outcome])));
    }

    /// A status was written, or could not be.
    pub fn status_write(&self, resource: &str, outcome: &str) {
        self.status_writes.child([resource, outcome]).inc();
    }

    /// The label of the leader's pod will be written: failures are counted from 0 on, so that the first one is an
    /// increase.
    pub fn expect_label_writes(&self, outcomes: impl IntoIterator<Item = &'static str>) {
        for outcome in outcomes {
            self.label_writes.child([outcome]);
        }
    }

    /// The label of a pod was written, or could not be.
    pub fn label_write(&self, outcome: &str) {
        self.label_writes.child([outcome]).inc();
    }

    /// The caller of a page was checked.
    pub fn access(&self, outcome: &str) {
        self.access.child([outcome]).inc();
    }
}

impl WatchMetrics {
    /// The watch is live, or has not been for this long.
    pub fn show(&self, silent_seconds: Option<f64>) {
        // Looked up each time: series that were forgotten come back.
        let labels = [self.resource.as_str(), self.group.as_str()];
        self.families.synced.child(labels).set(u64::from(silent_seconds.is_none()));
        self.families.age.child(labels).set(silent_seconds.unwrap_or(0.0));
    }

    /// The watch failed.
    pub fn failed(&self, reason: &str) {
        self.families.errors.child([&self.resource, &self.group, reason]).inc();
    }
}

impl std::fmt::Debug for KubernetesMetrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KubernetesMetrics").finish_non_exhaustive()
    }
}

impl std::fmt::Debug for WatchMetrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WatchMetrics").field("resource", &self.resource).finish_non_exhaustive()
    }
}
