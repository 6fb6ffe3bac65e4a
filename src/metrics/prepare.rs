//! Series of what is found out about requests before they are scheduled.

use prometheus::{Gauge, GaugeVec, Histogram, HistogramVec, IntCounter, IntCounterVec, Registry};

use super::buckets::SCHEDULING_SECONDS;
use super::family::{Definition, Family};

const PREPARATIONS: Definition<3> = Definition::new(
    "pointsman_preparations_total",
    "Requests for which a plugin had something to find out before they are scheduled, by what came of it: `done`, \
     `refused` (the request is at fault), `failed`, `timeout`, `late` (the request went on without), `busy` (too many \
     at once), `skipped` (the plugin is suspended), `no_room` (in memory), `cancelled` (the client left).",
    ["plugin_type", "plugin_name", "outcome"],
);

const DURATION: Definition<2> = Definition::new(
    "pointsman_preparation_duration_seconds",
    "Time of a preparation that gave something, in seconds.",
    ["plugin_type", "plugin_name"],
)
.buckets(SCHEDULING_SECONDS);

const WAIT: Definition<2> = Definition::new(
    "pointsman_preparation_wait_seconds",
    "Time that a request waited for its preparation alone, in seconds.",
    ["plugin_type", "plugin_name"],
)
.buckets(SCHEDULING_SECONDS);

const SUSPENDED: Definition<2> = Definition::new(
    "pointsman_preparation_suspended",
    "1 while no request waits for this plugin, because it was too slow or failed; else 0.",
    ["plugin_type", "plugin_name"],
);

/// The outcome of a preparation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preparation {
    /// It gave something in time.
    Done,
    /// The request itself was at fault.
    Refused,
    /// The service that was asked failed.
    Failed,
    /// It ran into its time limit.
    TimedOut,
    /// The request went on without it.
    Late,
    /// Too many ran at once.
    Busy,
    /// The service that would be asked is suspended.
    Skipped,
    /// The result had no room in memory.
    NoRoom,
    /// The client left.
    Cancelled,
}

/// Values of the label `outcome`, in the order of [`Preparation`].
const OUTCOMES: [&str; 9] =
    ["done", "refused", "failed", "timeout", "late", "busy", "skipped", "no_room", "cancelled"];

/// The families, shared by all plugins.
pub(super) struct PrepareFamilies {
    preparations: Family<IntCounterVec, 3>,
    duration: Family<HistogramVec, 2>,
    wait: Family<HistogramVec, 2>,
    suspended: Family<GaugeVec, 2>,
}

impl PrepareFamilies {
    pub(super) fn register(registry: &Registry) -> Self {
        Self {
            preparations: Family::register(PREPARATIONS, registry),
            duration: Family::register(DURATION, registry),
            wait: Family::register(WAIT, registry),
            suspended: Family::register(SUSPENDED, registry),
        }
    }

    pub(super) fn preparer(&self, kind: &str, name: &str) -> PrepareMetrics {
        PrepareMetrics {
            outcomes: OUTCOMES.map(|outcome| self.preparations.child([kind, name, outcome]).into_current()),
            duration: self.duration.child([kind, name]).into_current(),
            wait: self.wait.child([kind, name]).into_current(),
            suspended: self.suspended.child([kind, name]).into_current(),
        }
    }
}

/// Handles of one plugin.
#[derive(Clone, Debug)]
pub struct PrepareMetrics {
    outcomes: [IntCounter; OUTCOMES.len()],
    duration: Histogram,
    wait: Histogram,
    suspended: Gauge,
}

impl PrepareMetrics {
    /// Counts a preparation.
    pub fn outcome(&self, outcome: Preparation) {
        if let Some(counter) = self.outcomes.get(outcome as usize) {
            counter.inc();
        }
    }

    /// Records how long a preparation took that gave something, in seconds.
    pub fn took(&self, seconds: f64) {
        self.duration.observe(seconds);
    }

    /// Records how long a request waited for its preparation alone, in seconds.
    pub fn waited(&self, seconds: f64) {
        self.wait.observe(seconds);
    }

    /// Says whether requests wait for the plugin.
    pub fn suspend(&self, suspended: bool) {
        self.suspended.set(f64::from(suspended));
    }
}
