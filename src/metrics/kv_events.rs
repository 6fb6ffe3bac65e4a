//! Series of what engines tell of their caches.

use std::collections::HashSet;
use std::sync::Arc;

use prometheus::{Gauge, GaugeVec, IntCounterVec, Registry};

use super::family::{Definition, Family, Twin};
use crate::pool::Snapshot;

const SUBSCRIBERS: Definition<0> = Definition::new(
    "llm_d_epp_kv_cache_events_active_subscribers",
    "Connections to engines whose cache events are being heard.",
    [],
);

const RECONNECTIONS: Definition<1> = Definition::new(
    "llm_d_epp_kv_cache_events_subscriber_reconnections_total",
    "Connections to an engine's cache events that were made after an earlier one had ended.",
    ["pod_identifier"],
);

const MESSAGES: Definition<1> = Definition::new(
    "llm_d_epp_kv_cache_events_messages_received_total",
    "Messages with cache events that an engine has sent.",
    ["pod_identifier"],
);

const ERRORS: Definition<2> = Definition::new(
    "llm_d_epp_kv_cache_events_zmq_errors_total",
    "Failures to hear an engine's cache events, by what was tried.",
    ["pod_identifier", "operation"],
);

const EVENTS: Definition<1> = Definition::new(
    "pointsman_kv_events_total",
    "Cache events of engines, by what became of them: taken in (stored, removed, cleared) or not (unknown_parent, \
     malformed, unreadable, other_layers, unknown_endpoint).",
    ["outcome"],
);

const GAPS: Definition<1> = Definition::new(
    "pointsman_kv_event_gaps_total",
    "Interruptions of an engine's cache events, by what followed: replayed (the engine repeated what was missed), \
     forgotten (what it holds is learned anew), restarted (the engine began anew).",
    ["outcome"],
);

const AGE: Definition<1> = Definition::new(
    "pointsman_kv_event_age_seconds",
    "Time since the last message with cache events of an engine, in seconds.",
    ["pod_identifier"],
);

const REBUILDS: Definition<1> = Definition::new(
    "pointsman_prefix_index_rebuilds_total",
    "Times that what an engine holds was forgotten and is learned anew, by why: `gap` (events were missed), `restarted` \
     (their numbers begin anew), `silent` (no connection), `counters` (counters on the metrics page fell), `asleep` \
     (the engine went to sleep), `replaced` (another pod of the name).",
    ["reason"],
);

/// The families.
pub(super) struct KvEventFamilies(KvEventMetrics);

impl KvEventFamilies {
    pub(super) fn register(registry: &Registry) -> Self {
        Self(KvEventMetrics(Arc::new(Series {
            subscribers: Family::<GaugeVec, 0>::register(SUBSCRIBERS, registry),
            reconnections: Family::register(RECONNECTIONS, registry),
            messages: Family::register(MESSAGES, registry),
            errors: Family::register(ERRORS, registry),
            events: Family::register(EVENTS, registry),
            gaps: Family::register(GAPS, registry),
            age: Family::register(AGE, registry),
            rebuilds: Family::register(REBUILDS, registry),
        })))
    }

    pub(super) fn metrics(&self) -> KvEventMetrics {
        self.0.clone()
    }
}

struct Series {
    subscribers: Family<GaugeVec, 0>,
    reconnections: Family<IntCounterVec, 1>,
    messages: Family<IntCounterVec, 1>,
    errors: Family<IntCounterVec, 2>,
    events: Family<IntCounterVec, 1>,
    gaps: Family<IntCounterVec, 1>,
    age: Family<GaugeVec, 1>,
    rebuilds: Family<IntCounterVec, 1>,
}

/// Handles of the series. Clones share them.
#[derive(Clone)]
pub struct KvEventMetrics(Arc<Series>);

impl KvEventMetrics {
    /// Makes the series exist that tell of events which are listened for.
    pub fn listens(&self) {
        let _: Twin<Gauge> = self.0.subscribers.child([]);
        for outcome in ["stored", "removed", "cleared", "unknown_parent"] {
            self.0.events.child([outcome]);
        }
        for outcome in ["replayed", "forgotten", "restarted"] {
            self.0.gaps.child([outcome]);
        }
        for reason in ["gap", "restarted", "silent", "counters", "asleep", "replaced"] {
            self.0.rebuilds.child([reason]);
        }
    }

    /// Sets how many connections are heard.
    pub fn set_subscribers(&self, count: usize) {
        self.0.subscribers.child([]).set(count as f64);
    }

    /// Counts a connection to `pod` that follows an earlier one.
    pub fn reconnected(&self, pod: &str) {
        self.0.reconnections.child([pod]).inc();
    }

    /// Counts a message of `pod`.
    pub fn message(&self, pod: &str) {
        self.0.messages.child([pod]).inc();
    }

    /// Counts a failure of `operation` (`connect`, `receive`, `decode`, `replay`).
    pub fn error(&self, pod: &str, operation: &str) {
        self.0.errors.child([pod, operation]).inc();
    }

    /// Counts events with this outcome.
    pub fn events(&self, outcome: &'static str, count: u64) {
        if count > 0 {
            self.0.events.child([outcome]).inc_by(count);
        }
    }

    /// Counts an interruption.
    pub fn gap(&self, outcome: &'static str) {
        self.0.gaps.child([outcome]).inc();
    }

    /// Shows how long ago `pod` sent a message, in seconds.
    pub fn age(&self, pod: &str, seconds: f64) {
        self.0.age.child([pod]).set(seconds);
    }

    /// Counts that what an engine holds was forgotten.
    pub fn rebuilt(&self, reason: &'static str) {
        self.0.rebuilds.child([reason]).inc();
    }

    /// Removes the series of endpoints that are not in the snapshot.
    pub fn prune(&self, snapshot: &Snapshot) {
        let live: HashSet<&str> = snapshot.endpoints().iter().map(|endpoint| endpoint.target()).collect();
        let gone = |labels: &[(String, String)]| {
            let pod =
                labels.iter().find(|(name, _)| name == "pod_identifier").map(|(_, value)| value.clone());
            pod.filter(|pod| !live.contains(pod.as_str()))
        };
        for family in [&self.0.reconnections, &self.0.messages] {
            for labels in family.children() {
                if let Some(pod) = gone(&labels) {
                    family.remove([pod.as_str()]);
                }
            }
        }
        for labels in self.0.age.children() {
            if let Some(pod) = gone(&labels) {
                self.0.age.remove([pod.as_str()]);
            }
        }
        for labels in self.0.errors.children() {
            if let Some(pod) = gone(&labels) {
                let operation = labels.iter().find(|(name, _)| name == "operation");
                self.0.errors.remove([pod.as_str(), operation.map_or("", |(_, value)| value.as_str())]);
            }
        }
    }
}

impl std::fmt::Debug for KvEventMetrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KvEventMetrics").finish_non_exhaustive()
    }
}
