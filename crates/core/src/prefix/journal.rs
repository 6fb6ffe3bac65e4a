//! What was lately sent where, for replicas that tell each other.
//!
//! A plugin that remembers where requests went is a [`SharedIndex`]. It writes each request into the [`Journal`] as an
//! [`Assignment`], and takes in what peers wrote into theirs. A journal has a bound in bytes: the oldest assignments
//! make room for new ones, and a reader that comes too late is told how many it missed.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;

use parking_lot::Mutex;

use super::BlockHashes;
use crate::pool::{Endpoint, EndpointId, Snapshot};

/// Bytes that an assignment takes beside its hashes, about.
const OVERHEAD: usize = 160;

/// A request that one of the indexes of this process has sent somewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assignment {
    /// Number of the index, as [`SharedIndex::share`] was told it.
    pub index: u16,
    /// The endpoint that got the request.
    pub endpoint: EndpointId,
    /// Its address. With the name it stands for one life of the endpoint.
    pub address: SocketAddr,
    /// Hashes of the request's blocks, or whatever keys the index has.
    pub blocks: BlockHashes,
}

impl Assignment {
    /// Bytes that it takes in memory, about.
    pub fn bytes(&self) -> usize {
        OVERHEAD + self.blocks.len() * size_of::<u64>()
    }
}

/// An index of where requests went that replicas fill together.
pub trait SharedIndex: std::fmt::Debug + Send + Sync {
    /// Name of the plugin instance. Replicas know the same index by it.
    fn name(&self) -> &str;

    /// From now on each assignment is written into `journal`, under this number.
    fn share(&self, journal: &Arc<Journal>, number: u16);

    /// The pool has these endpoints now. Called before anything is heard of them.
    fn follow(&self, snapshot: &Snapshot);

    /// A peer has sent these blocks to `endpoint`. They may be anything.
    fn heard(&self, endpoint: &Endpoint, blocks: &BlockHashes);

    /// True if the index knows that the first of these blocks went to `endpoint`, which is in `snapshot`; `None` if it
    /// keeps nothing that could be looked for.
    fn holds(&self, endpoint: &Endpoint, snapshot: &Snapshot, blocks: &BlockHashes) -> Option<bool> {
        let _ = (endpoint, snapshot, blocks);
        None
    }
}

/// The last assignments, numbered from 0.
#[derive(Debug)]
pub struct Journal {
    limit: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    kept: VecDeque<Arc<Assignment>>,
    bytes: usize,
    /// Number of the next assignment.
    next: u64,
}

/// What a reader gets of a journal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JournalPart {
    /// Assignments in order.
    pub assignments: Vec<Arc<Assignment>>,
    /// Number from which to read on.
    pub next: u64,
    /// Assignments that were forgotten before this reader came.
    pub missed: u64,
}

impl Journal {
    /// An empty journal that keeps about `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self { limit, state: Mutex::default() }
    }

    /// Adds an assignment. One that is larger than the whole journal counts as missed by every reader.
    pub fn add(&self, index: u16, endpoint: &Endpoint, blocks: &BlockHashes) {
        let spec = endpoint.spec();
        let assignment =
            Assignment { index, endpoint: spec.id.clone(), address: spec.address, blocks: blocks.clone() };
        let mut state = self.state.lock();
        state.bytes += assignment.bytes();
        state.next += 1;
        state.kept.push_back(Arc::new(assignment));
        while state.bytes > self.limit
            && let Some(oldest) = state.kept.pop_front()
        {
            state.bytes -= oldest.bytes();
        }
    }

    /// Number of the next assignment: as many as there ever were.
    pub fn end(&self) -> u64 {
        self.state.lock().next
    }

    /// Number from which on the assignments take at most about `bytes`.
    pub fn last(&self, bytes: usize) -> u64 {
        let state = self.state.lock();
        let mut room = bytes;
        let fits = |assignment: &&Arc<Assignment>| {
            let left = room.checked_sub(assignment.bytes());
            room = left.unwrap_or(0);
            left.is_some()
        };
        state.next - state.kept.iter().rev().take_while(fits).count() as u64
    }

    /// Bytes that it keeps now, about.
    pub fn bytes(&self) -> usize {
        self.state.lock().bytes
    }

    /// The assignments from number `from` on, at most about `bytes` of them and at least one if there is any.
    pub fn since(&self, from: u64, bytes: usize) -> JournalPart {
        let state = self.state.lock();
        let oldest = state.next - state.kept.len() as u64;
        let start = from.clamp(oldest, state.next);
        let mut room = bytes;
        let skipped = usize::try_from(start - oldest).unwrap_or(usize::MAX);
        let fits = |assignment: &&Arc<Assignment>| {
            let fits = room > 0;
            room = room.saturating_sub(assignment.bytes());
            fits
        };
        let assignments: Vec<_> = state.kept.iter().skip(skipped).take_while(fits).cloned().collect();
        let next = start + assignments.len() as u64;
        JournalPart { assignments, next, missed: oldest.saturating_sub(from) }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::pool::{EndpointSpec, Pool};

    fn endpoint() -> Arc<Endpoint> {
        let pool = Pool::new("ns", "pool", Instant::now());
        let address = SocketAddr::from(([10, 0, 0, 1], 8000));
        pool.replace_endpoints(vec![EndpointSpec::new(EndpointId::new("ns", "a"), address)]);
        Arc::clone(&pool.snapshot().endpoints()[0])
    }

    fn blocks(count: u64) -> BlockHashes {
        BlockHashes::from_chains(64, &[&(0..count).collect::<Vec<_>>()])
    }

    #[test]
    fn a_reader_gets_everything_in_order_and_in_parts() {
        let (journal, endpoint) = (Journal::new(1 << 20), endpoint());
        for count in 1..=5 {
            journal.add(3, &endpoint, &blocks(count));
        }
        let mut read = Vec::new();
        let mut from = 0;
        loop {
            let part = journal.since(from, 300);
            assert_eq!(part.missed, 0);
            if part.assignments.is_empty() {
                break;
            }
            assert!(part.assignments.len() <= 2);
            read.extend(part.assignments.iter().map(|assignment| assignment.blocks.len()));
            from = part.next;
        }
        assert_eq!((read, from), (vec![1, 2, 3, 4, 5], journal.end()));
    }

    #[test]
    fn the_oldest_make_room_and_a_late_reader_is_told_what_it_missed() {
        let (journal, endpoint) = (Journal::new(1000), endpoint());
        for _ in 0..10 {
            journal.add(0, &endpoint, &blocks(5));
        }
        let part = journal.since(2, usize::MAX);
        assert_eq!((part.assignments.len(), part.missed, part.next), (5, 3, 10));
        assert!(journal.bytes() <= 1000);
        journal.add(0, &endpoint, &blocks(5000));
        let part = journal.since(10, usize::MAX);
        assert_eq!((part.assignments.len(), part.missed, journal.bytes()), (0, 1, 0));
        assert_eq!(journal.since(u64::MAX, 1).next, 11, "a number from another life is no harm");
    }
}
