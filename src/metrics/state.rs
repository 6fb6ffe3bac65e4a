//! Series of requests that refer to what a server made before.

use prometheus::{IntCounter, IntCounterVec, Registry};

use super::family::{Definition, Family};

const REQUESTS: Definition<1> = Definition::new(
    "pointsman_stateful_requests_total",
    "Requests that refer to a response or a conversation, by whether they went to the server that made it.",
    ["outcome"],
);

const FORGOTTEN: Definition<0> = Definition::new(
    "pointsman_response_bindings_forgotten_total",
    "Responses and conversations whose server was forgotten because too many are remembered.",
    [],
);

const UNKNOWN_OBJECTIVES: Definition<0> = Definition::new(
    "pointsman_unknown_objectives_total",
    "Requests that name an objective which does not exist, so that their priority is 0.",
    [],
);

/// The outcome for a request that refers to state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BoundHit {
    /// It went to the server that made the state.
    Kept,
    /// That server is no candidate; another was chosen.
    Gone,
    /// It is not known who made the state.
    Unknown,
}

/// Handles of these series. Cheap to clone.
#[derive(Clone, Debug)]
pub struct StateMetrics {
    requests: [IntCounter; 3],
    forgotten: IntCounter,
    unknown_objectives: IntCounter,
}

impl StateMetrics {
    pub(super) fn register(registry: &Registry) -> Self {
        let requests = Family::<IntCounterVec, 1>::register(REQUESTS, registry);
        Self {
            requests: ["kept", "gone", "unknown"].map(|outcome| requests.child([outcome]).into_current()),
            unknown_objectives: Family::<IntCounterVec, 0>::register(UNKNOWN_OBJECTIVES, registry)
                .child([])
                .into_current(),
            forgotten: Family::<IntCounterVec, 0>::register(FORGOTTEN, registry).child([]).into_current(),
        }
    }

    /// Counts a request.
    pub fn request(&self, outcome: BoundHit) {
        if let Some(counter) = self.requests.get(outcome as usize) {
            counter.inc();
        }
    }

    /// Counts a request that names an objective which does not exist.
    pub fn unknown_objective(&self) {
        self.unknown_objectives.inc();
    }

    /// Counts a binding that was forgotten.
    pub fn forgotten(&self) {
        self.forgotten.inc();
    }
}
