//! Series of what replicas tell each other.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use prometheus::{GaugeVec, IntCounterVec, IntGaugeVec, Registry};

use super::family::{Definition, Family};

const PEERS: Definition<1> = Definition::new(
    "pointsman_peers",
    "Replicas by how this one stands to them: following (it hears what they do), missing (it is told of them and cannot \
     hear them), followers (they hear what it does).",
    ["state"],
);

const LAG: Definition<1> = Definition::new(
    "pointsman_peer_lag_seconds",
    "Age of what this replica knows of a peer: the time since its last word, and how long that word had waited for its \
     place. A peer that does nothing says so every second.",
    ["peer"],
);

const ELSEWHERE: Definition<1> = Definition::new(
    "pointsman_peer_in_flight_requests",
    "Requests that a peer is serving, as it says.",
    ["peer"],
);

const MESSAGES: Definition<1> = Definition::new(
    "pointsman_peer_messages_total",
    "Messages between replicas, by direction.",
    ["direction"],
);

const BYTES: Definition<1> =
    Definition::new("pointsman_peer_bytes_total", "Bytes of those messages, by direction.", ["direction"]);

const SNAPSHOTS: Definition<1> = Definition::new(
    "pointsman_peer_snapshots_total",
    "Messages that began anew with everything a replica does, by direction.",
    ["direction"],
);

const ENDS: Definition<1> = Definition::new(
    "pointsman_peer_ends_total",
    "Attempts to follow a peer that ended, by reason: unreachable, handshake (its certificate was not taken, or ours), \
     refused, closed, silent (no word for three seconds), lost (a message was missing), malformed, version (a version of \
     the protocol that is not spoken any more), itself, known (another address leads to the same peer).",
    ["reason"],
);

const REFUSALS: Definition<1> = Definition::new(
    "pointsman_peer_refusals_total",
    "Replicas that wanted to follow this one and were refused, by reason: pool (they serve another one), version, full.",
    ["reason"],
);

const ASSIGNMENTS: Definition<1> = Definition::new(
    "pointsman_peer_assignments_total",
    "Requests that peers have sent somewhere, by what became of that knowledge here: taken, unknown (this replica knows \
     no such endpoint or index), missed (this replica was too slow, or came too late).",
    ["outcome"],
);

const DIVERGENCE: Definition<0> = Definition::new(
    "pointsman_peer_divergence",
    "Share of a sample of prompts that peers have told of lately and that the prefix index of this replica does not \
     hold, 0 to 1. The index of each replica may be too small for the prompts of all.",
    [],
);

const SERVER: Definition<1> = Definition::new(
    "pointsman_peer_server_connected",
    "1 while the connection to the server that connects replicas is good, else 0, by connection: write, read. Absent where \
     replicas reach each other by streams.",
    ["connection"],
);

const SERVER_ENDS: Definition<1> = Definition::new(
    "pointsman_peer_server_ends_total",
    "Connections to the server that connects replicas that ended or could not begin, by reason: unreachable, handshake, \
     password, refused (it answered with an error), closed, silent (no reply for two seconds), malformed. What replicas \
     know of each other grows old meanwhile.",
    ["reason"],
);

const ROUND_TRIP: Definition<0> = Definition::new(
    "pointsman_peer_server_round_trip_seconds",
    "Time that the last write to the server that connects replicas took, its reply included.",
    [],
);

/// The families. Clones share them.
#[derive(Clone)]
pub struct PeerMetrics(Arc<Series>);

struct Series {
    peers: Family<IntGaugeVec, 1>,
    lag: Family<GaugeVec, 1>,
    elsewhere: Family<IntGaugeVec, 1>,
    messages: Family<IntCounterVec, 1>,
    bytes: Family<IntCounterVec, 1>,
    snapshots: Family<IntCounterVec, 1>,
    ends: Family<IntCounterVec, 1>,
    refusals: Family<IntCounterVec, 1>,
    assignments: Family<IntCounterVec, 1>,
    divergence: Family<GaugeVec, 0>,
    server: Family<IntGaugeVec, 1>,
    server_ends: Family<IntCounterVec, 1>,
    round_trip: Family<GaugeVec, 0>,
}

impl PeerMetrics {
    pub(super) fn register(registry: &Registry) -> Self {
        Self(Arc::new(Series {
            peers: Family::register(PEERS, registry),
            lag: Family::register(LAG, registry),
            elsewhere: Family::register(ELSEWHERE, registry),
            messages: Family::register(MESSAGES, registry),
            bytes: Family::register(BYTES, registry),
            snapshots: Family::register(SNAPSHOTS, registry),
            ends: Family::register(ENDS, registry),
            refusals: Family::register(REFUSALS, registry),
            assignments: Family::register(ASSIGNMENTS, registry),
            divergence: Family::register(DIVERGENCE, registry),
            server: Family::register(SERVER, registry),
            server_ends: Family::register(SERVER_ENDS, registry),
            round_trip: Family::register(ROUND_TRIP, registry),
        }))
    }

    /// Shows how many peers are followed, how many cannot be, and how many follow.
    pub fn show(&self, following: usize, missing: usize, followers: usize) {
        for (state, count) in [("following", following), ("missing", missing), ("followers", followers)] {
            self.0.peers.child([state]).set(count as u64);
        }
    }

    /// Shows how old the knowledge of a peer is, and what it has under way.
    pub fn peer(&self, peer: &str, lag: Duration, requests: u64) {
        self.0.lag.child([peer]).set(lag.as_secs_f64());
        self.0.elsewhere.child([peer]).set(requests);
    }

    /// Removes the series of all peers but these.
    pub fn retain(&self, peers: &BTreeSet<String>) {
        let gone = |labels: &[(String, String)]| {
            let peer = labels.iter().find(|(name, _)| name == "peer").map(|(_, value)| value.clone());
            peer.filter(|peer| !peers.contains(peer))
        };
        for labels in self.0.lag.children() {
            if let Some(peer) = gone(&labels) {
                self.0.lag.remove([peer.as_str()]);
                self.0.elsewhere.remove([peer.as_str()]);
            }
        }
    }

    /// Shows which share of a sample of the peers' prompts this replica does not know.
    pub fn divergence(&self, share: f64) {
        self.0.divergence.child([]).set(share);
    }

    /// Shows whether a connection to the server that connects replicas is good.
    pub fn server(&self, connection: &str, connected: bool) {
        self.0.server.child([connection]).set(u64::from(connected));
    }

    /// Counts a connection to it that ended.
    pub fn server_ended(&self, reason: &'static str) {
        self.0.server_ends.child([reason]).inc();
    }

    /// Shows how long the last write to it took.
    pub fn round_trip(&self, took: Duration) {
        self.0.round_trip.child([]).set(took.as_secs_f64());
    }

    /// Counts a message to a peer.
    pub fn sent(&self, bytes: usize, snapshot: bool) {
        self.message("sent", bytes, snapshot);
    }

    /// Counts a message of a peer.
    pub fn received(&self, bytes: usize, snapshot: bool) {
        self.message("received", bytes, snapshot);
    }

    fn message(&self, direction: &str, bytes: usize, snapshot: bool) {
        self.0.messages.child([direction]).inc();
        self.0.bytes.child([direction]).inc_by(bytes as u64);
        if snapshot {
            self.0.snapshots.child([direction]).inc();
        }
    }

    /// Counts an attempt to follow that ended.
    pub fn ended(&self, reason: &'static str) {
        self.0.ends.child([reason]).inc();
    }

    /// Counts a follower that was refused.
    pub fn refused(&self, reason: &'static str) {
        self.0.refusals.child([reason]).inc();
    }

    /// Counts assignments with this outcome.
    pub fn assignments(&self, outcome: &'static str, count: u64) {
        if count > 0 {
            self.0.assignments.child([outcome]).inc_by(count);
        }
    }
}

impl std::fmt::Debug for PeerMetrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PeerMetrics").finish_non_exhaustive()
    }
}
