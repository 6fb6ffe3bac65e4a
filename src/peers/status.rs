//! The state of the connection to each peer that this replica is told of, for people and metrics.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::fleet::LinkId;

/// The state of the connection to one peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// No attempt has ended yet.
    Begins,
    /// The peer is followed over this link.
    Following(LinkId),
    /// The peer cannot be followed, for this reason.
    Missing(&'static str),
    /// The address belongs to this process, or to a peer that is followed over another address.
    Alias(&'static str),
}

/// One peer.
#[derive(Clone, Debug)]
pub(super) struct PeerStatus {
    pub(super) standing: Standing,
    pub(super) since: Instant,
    /// The error that ended the last attempt.
    pub(super) error: Option<String>,
    pub(super) heard: Option<Instant>,
    /// The time for which the oldest change in the last message had waited.
    pub(super) waited: Duration,
    pub(super) messages: u64,
    pub(super) bytes: u64,
}

impl PeerStatus {
    fn new(now: Instant) -> Self {
        Self {
            standing: Standing::Begins,
            since: now,
            error: None,
            heard: None,
            waited: Duration::ZERO,
            messages: 0,
            bytes: 0,
        }
    }

    /// The age of the newest facts about the peer; `None` if there are none.
    pub(super) fn lag(&self, now: Instant) -> Option<Duration> {
        let Standing::Following(_) = self.standing else { return None };
        self.heard.map(|heard| now.saturating_duration_since(heard) + self.waited)
    }
}

/// One of the two connections to the server that connects replicas.
#[derive(Clone, Debug, Default)]
pub(super) struct ConnectionStatus {
    pub(super) connected: bool,
    /// The error that ended the last attempt.
    pub(super) error: Option<String>,
}

/// The server that connects replicas.
#[derive(Clone, Debug)]
pub(super) struct ServerStatus {
    /// `HOST:PORT`.
    pub(super) address: String,
    pub(super) tls: bool,
    /// On which this replica writes, and on which it reads.
    pub(super) connections: [ConnectionStatus; 2],
    /// Time that the last write took.
    pub(super) round_trip: Duration,
}

/// All peers that this replica is told of, by address, or by name and life where a server connects them.
#[derive(Debug, Default)]
pub(super) struct Statuses {
    pub(super) by_peer: BTreeMap<String, PeerStatus>,
    /// True once it is known who the peers are.
    pub(super) told: bool,
}

impl Statuses {
    pub(super) fn begin(&mut self, peer: &str, now: Instant) {
        if !self.by_peer.contains_key(peer) {
            self.by_peer.insert(peer.to_owned(), PeerStatus::new(now));
        }
    }

    pub(super) fn stands(&mut self, peer: &str, standing: Standing, error: Option<String>, now: Instant) {
        let Some(status) = self.by_peer.get_mut(peer) else { return };
        if status.standing != standing {
            status.since = now;
        }
        status.standing = standing;
        if error.is_some() {
            status.error = error;
        }
    }

    pub(super) fn heard(&mut self, peer: &str, bytes: usize, waited: Duration, now: Instant) {
        let Some(status) = self.by_peer.get_mut(peer) else { return };
        status.heard = Some(now);
        status.waited = waited;
        status.messages += 1;
        status.bytes += bytes as u64;
    }
}
