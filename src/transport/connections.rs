//! The open connections of a port: how many there are, whether each is being answered, and which are closed to make
//! room.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Instant;

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use super::roster::{Admission, ConnectionBounds, Guest, Roster};
use crate::metrics::{ConnectionEnd, PortMetrics};

/// The connections of one port. Clones share them.
#[derive(Clone)]
pub struct Connections {
    shared: Arc<Shared>,
}

struct Shared {
    roster: Mutex<Roster<Arc<Standing>>>,
    open: AtomicUsize,
    start: Instant,
    metrics: PortMetrics,
}

/// The state of one connection.
#[derive(Debug, Default)]
struct Standing {
    number: AtomicU64,
    /// True once the client has sent a whole request.
    known: AtomicBool,
    /// The number of requests that are being answered.
    answering: AtomicUsize,
    /// The time at which the last answer ended, in milliseconds since the port was opened.
    idle_since: AtomicU64,
    /// Cancelled when the connection has to end at once.
    give_up: CancellationToken,
}

impl Guest for Arc<Standing> {
    fn idle_since(&self) -> Option<u64> {
        (self.answering.load(Relaxed) == 0).then(|| self.idle_since.load(Relaxed))
    }
}

impl Connections {
    /// Makes an empty list of connections.
    pub fn new(bounds: ConnectionBounds, metrics: PortMetrics) -> Self {
        let roster = Mutex::new(Roster::new(bounds));
        Self {
            shared: Arc::new(Shared { roster, open: AtomicUsize::new(0), start: Instant::now(), metrics }),
        }
    }

    /// The number of open connections.
    pub fn open(&self) -> usize {
        self.shared.open.load(Relaxed)
    }

    /// Adds a new connection. If the port is full, another connection is closed. Returns `None` if the port is full and
    /// every connection is being answered.
    pub(super) fn admit(&self) -> Option<Admitted> {
        let standing = Arc::new(Standing::default());
        standing.idle_since.store(self.shared.now(), Relaxed);
        let admission = self.shared.roster.lock().admit(Arc::clone(&standing));
        let Admission::Admitted(number, instead_of) = admission else {
            self.shared.metrics.ended(ConnectionEnd::Refused);
            return None;
        };
        standing.number.store(number, Relaxed);
        if let Some(other) = instead_of {
            self.shared.give_up(&other);
        }
        self.shared.open.fetch_add(1, Relaxed);
        self.shared.metrics.opened();
        Some(Admitted { peer: Peer { standing, shared: Arc::clone(&self.shared) } })
    }

    /// Closes the connection that can be spared most. Returns false if there is none.
    pub(super) fn make_room(&self) -> bool {
        let other = self.shared.roster.lock().give_up();
        other.inspect(|other| self.shared.give_up(other)).is_some()
    }
}

impl std::fmt::Debug for Connections {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connections").field("open", &self.shared.open).finish_non_exhaustive()
    }
}

impl Shared {
    fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn give_up(&self, other: &Standing) {
        self.metrics.ended(ConnectionEnd::GivenUp);
        other.give_up.cancel();
    }
}

/// A connection that counts as open until this value is dropped.
pub(super) struct Admitted {
    peer: Peer,
}

impl Admitted {
    pub(super) fn peer(&self) -> &Peer {
        &self.peer
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        let Peer { standing, shared } = &self.peer;
        shared.roster.lock().leave(standing.number.load(Relaxed));
        shared.open.fetch_sub(1, Relaxed);
        shared.metrics.closed();
    }
}

/// The client of a connection, for the code that answers it.
#[derive(Clone)]
pub(super) struct Peer {
    standing: Arc<Standing>,
    shared: Arc<Shared>,
}

impl Peer {
    /// Notes that a whole request has come. The request counts as being answered until the returned guard is dropped.
    /// The call costs two atomic additions, and a lock for the first request of a connection.
    pub(super) fn answering(&self) -> Answering {
        let Self { standing, shared } = self;
        if !standing.known.swap(true, Relaxed) {
            shared.roster.lock().promote(standing.number.load(Relaxed));
        }
        standing.answering.fetch_add(1, Relaxed);
        Answering { peer: self.clone() }
    }

    /// True once the client has sent a whole request.
    pub(super) fn is_known(&self) -> bool {
        self.standing.known.load(Relaxed)
    }

    /// Resolves when the connection has to end at once.
    pub(super) async fn given_up(&self) {
        self.standing.give_up.cancelled().await;
    }

    /// Ends the connection for the reason `end`.
    pub(super) fn give_up(&self, end: ConnectionEnd) {
        self.ended(end);
        self.standing.give_up.cancel();
    }

    /// Counts the reason for which the connection ended.
    pub(super) fn ended(&self, end: ConnectionEnd) {
        self.shared.metrics.ended(end);
    }
}

/// A request that is being answered.
pub(super) struct Answering {
    peer: Peer,
}

impl Drop for Answering {
    fn drop(&mut self) {
        let Peer { standing, shared } = &self.peer;
        standing.idle_since.store(shared.now(), Relaxed);
        standing.answering.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Metrics;

    #[tokio::test]
    async fn a_stranger_is_given_up_for_a_newcomer_and_one_that_is_answered_is_not() {
        let bounds = ConnectionBounds { open: 2, strangers: 2 };
        let connections = Connections::new(bounds, Metrics::new().port("grpc"));
        let (first, second) = (connections.admit().unwrap(), connections.admit().unwrap());
        let answer = first.peer().answering();
        let third = connections.admit().unwrap();
        second.peer().given_up().await;
        assert_eq!(connections.open(), 3, "the second still has to go");
        drop(second);
        assert_eq!(connections.open(), 2);
        let _answer = third.peer().answering();
        assert!(connections.admit().is_none(), "both are being answered");
        drop(answer);
        assert!(connections.admit().is_some());
        first.peer().given_up().await;
    }

    #[test]
    fn room_is_made_by_whoever_can_be_spared() {
        let bounds = ConnectionBounds { open: 9, strangers: 9 };
        let connections = Connections::new(bounds, Metrics::new().port("grpc"));
        assert!(!connections.make_room());
        let known = connections.admit().unwrap();
        drop(known.peer().answering());
        let stranger = connections.admit().unwrap();
        assert!(connections.make_room());
        assert!(
            stranger.peer().standing.give_up.is_cancelled() && !known.peer().standing.give_up.is_cancelled()
        );
        assert!(connections.make_room());
        assert!(known.peer().standing.give_up.is_cancelled());
    }
}
