//! Series of split serving as the sidecars of decode servers report it to the endpoint picker.

use std::sync::Arc;

use prometheus::{IntCounterVec, IntGaugeVec, Registry};

use super::family::{Definition, Family};

const PROMPTS: Definition<1> = Definition::new(
    "pointsman_split_prompts_total",
    "Answered requests that named a prefill server, by what their decode server's sidecar says of the prompt.",
    ["result"],
);

const SERVERS: Definition<1> = Definition::new(
    "pointsman_split_servers",
    "Decode servers by what their sidecars' counts show. Without counts from any sidecar, all states are 0.",
    ["state"],
);

/// What the counts of a decode server's sidecar show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SplitState {
    /// Fewer than ten prompts were counted so far.
    Unknown,
    /// More than half of the prompts were taken over from prefill servers.
    Transferring,
    /// At least half of the prompts were processed again, most of them because no transfer parameters came.
    NoTransfer,
    /// At least half of the prompts were processed by the decode server, most of them because prefill servers failed.
    PrefillFails,
    /// The server shows no counts, but others do.
    Silent,
}

impl SplitState {
    /// All states.
    pub const ALL: [Self; 5] =
        [Self::Unknown, Self::Transferring, Self::NoTransfer, Self::PrefillFails, Self::Silent];

    /// Value of the label `state`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Transferring => "transferring",
            Self::NoTransfer => "no_transfer",
            Self::PrefillFails => "prefill_fails",
            Self::Silent => "silent",
        }
    }
}

/// Handles of these series. Clones share them.
#[derive(Clone)]
pub struct SplitMetrics {
    prompts: Arc<Family<IntCounterVec, 1>>,
    servers: Arc<Family<IntGaugeVec, 1>>,
}

impl SplitMetrics {
    pub(super) fn register(registry: &Registry) -> Self {
        Self {
            prompts: Arc::new(Family::register(PROMPTS, registry)),
            servers: Arc::new(Family::register(SERVERS, registry)),
        }
    }

    /// Adds `counts` prompts with these `results`.
    pub fn prompts<const N: usize>(&self, results: [&str; N], counts: [u64; N]) {
        for (result, count) in results.into_iter().zip(counts) {
            self.prompts.child([result]).into_current().inc_by(count);
        }
    }

    /// How many prompts with this result were counted.
    pub fn counted(&self, result: &str) -> u64 {
        self.prompts.child([result]).into_current().get()
    }

    /// Sets the number of servers in each state; `states` has one entry for each server.
    pub fn states(&self, states: &[SplitState]) {
        for state in SplitState::ALL {
            let count = states.iter().filter(|other| **other == state).count();
            self.servers.child([state.name()]).into_current().set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }

    /// How many servers are in this state.
    pub fn servers(&self, state: SplitState) -> i64 {
        self.servers.child([state.name()]).into_current().get()
    }
}

impl std::fmt::Debug for SplitMetrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SplitMetrics").finish_non_exhaustive()
    }
}
