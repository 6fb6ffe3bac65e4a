//! What this replica writes to the server: a log of messages that begins with a snapshot.
//!
//! Whoever follows reads the log from its beginning. When the changes since the last snapshot have become more than it,
//! a new snapshot is written between the changes, and what stands before it is cut off. A follower that is up to date
//! passes over the snapshot; one that reads it passes over the changes in between, since the last message of a snapshot
//! holds all that was known when it was written.

use std::time::Duration;

use prost::Message as _;

use crate::peers::own::Cursor;
use crate::peers::shared::Shared;
use crate::peers::wire::Update;

/// Field of an entry that holds a change.
pub(super) const CHANGE: &str = "c";
/// Field of an entry that holds a part of a snapshot.
pub(super) const PART: &str = "s";
/// Bytes of assignments in a snapshot, about.
const ASSIGNMENTS: usize = 8 << 20;
/// Bytes of changes that a log takes before the next snapshot, at least.
const CHANGES: usize = 4 << 20;
/// Bytes that are written at once, about.
const BATCH: usize = 512 << 10;
/// Silence after which this replica says that it lives.
pub(super) const SIGN_OF_LIFE: Duration = Duration::from_millis(500);

/// An entry that is to be written.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Entry {
    /// Number of the entry in the log; it only grows.
    pub(super) position: u64,
    /// [`CHANGE`] or [`PART`].
    pub(super) field: &'static str,
    pub(super) bytes: Vec<u8>,
    pub(super) is_snapshot: bool,
}

/// What is to be written next.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) entries: Vec<Entry>,
    /// Once they are written, the log keeps so many entries, from the beginning of a snapshot on.
    pub(super) keep: Option<u64>,
}

/// How far the log has come.
#[derive(Debug, Default)]
pub(super) struct Log {
    position: u64,
    /// What changes tell.
    changes: Option<Cursor>,
    /// The snapshot under way: its cursor, the position of its first entry, and its bytes so far.
    copy: Option<(Cursor, u64, usize)>,
    /// Bytes of the last snapshot.
    copied: usize,
    /// Bytes of the changes that were written since it began.
    since: usize,
    /// Position of the first entry that the log holds.
    first: u64,
}

impl Log {
    /// A log that is empty on the server. Positions go on, so that nobody takes new entries for old ones, and one is left
    /// out: what has changed since the last entry stands in the snapshot alone, so that everybody has to read it.
    pub(super) fn begin(&mut self, shared: &Shared) {
        let position = self.position + 1;
        let first = position + 1;
        *self = Self { position, first, ..Self::default() };
        self.copy = Some((shared.cursor(ASSIGNMENTS), first, 0));
    }

    /// Entries that the server has, if it has kept all of them.
    pub(super) fn len(&self) -> u64 {
        (self.position + 1).saturating_sub(self.first)
    }

    /// What is new since the last call. At least a sign of life with `at_least_a_sign`.
    pub(super) fn next(&mut self, shared: &Shared, at_least_a_sign: bool) -> Batch {
        let mut batch = Batch::default();
        let mut room = BATCH;
        if let Some(mut cursor) = self.changes.take() {
            while room > 0
                && let Some(update) = shared.update(&mut cursor)
            {
                self.write(&mut batch, &mut room, CHANGE, &update);
            }
            if at_least_a_sign && batch.entries.is_empty() {
                let sign = shared.sign_of_life(&mut cursor);
                self.write(&mut batch, &mut room, CHANGE, &sign);
            }
            self.changes = Some(cursor);
        }
        if self.copy.is_none() && self.since > CHANGES.max(self.copied) {
            self.copy = Some((shared.cursor(ASSIGNMENTS), self.position + 1, 0));
            self.since = 0;
        }
        self.go_on_copying(shared, &mut batch);
        batch
    }

    fn go_on_copying(&mut self, shared: &Shared, batch: &mut Batch) {
        let Some((mut cursor, first, mut bytes)) = self.copy.take() else { return };
        let mut room = BATCH;
        while room > 0 {
            // What was left may have gone meanwhile.
            let update = shared.update(&mut cursor).unwrap_or_else(|| shared.sign_of_life(&mut cursor));
            let before = room;
            self.write(batch, &mut room, PART, &update);
            bytes += before - room;
            if !update.more {
                self.copied = bytes;
                self.changes.get_or_insert(cursor);
                self.first = first;
                batch.keep = Some(self.len());
                return;
            }
        }
        self.copy = Some((cursor, first, bytes));
    }

    /// The last entry.
    pub(super) fn farewell(&mut self, shared: &Shared) -> Batch {
        let mut batch = Batch::default();
        let update = shared.farewell(&mut self.changes.unwrap_or_default());
        self.write(&mut batch, &mut 0, CHANGE, &update);
        batch
    }

    fn write(&mut self, batch: &mut Batch, room: &mut usize, field: &'static str, update: &Update) {
        let bytes = update.encode_to_vec();
        *room = room.saturating_sub(bytes.len().max(1));
        if field == CHANGE {
            self.since += bytes.len();
        }
        self.position += 1;
        let is_snapshot = update.snapshot;
        batch.entries.push(Entry { position: self.position, field, bytes, is_snapshot });
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Instant;

    use parking_lot::Mutex;

    use super::super::followed::{Followed, Step};
    use super::*;
    use crate::metrics::Metrics;
    use crate::peers::fleet::{Effects, Fleet};
    use crate::peers::settings::PeersSettings;
    use crate::pool::{Endpoint, EndpointId, EndpointSpec, Lease, Pool, Snapshot};
    use crate::prefix::{BlockHashes, Journal, SharedIndex};

    /// Gives the journal away.
    #[derive(Debug, Default)]
    struct Index(Mutex<Option<Arc<Journal>>>);

    impl SharedIndex for Index {
        fn name(&self) -> &'static str {
            "index"
        }

        fn share(&self, journal: &Arc<Journal>, _: u16) {
            *self.0.lock() = Some(Arc::clone(journal));
        }

        fn follow(&self, _: &Snapshot) {}

        fn heard(&self, _: &Endpoint, _: &BlockHashes) {}
    }

    /// A server's stream, and a reader of it.
    #[derive(Default)]
    struct World {
        log: Log,
        kept: Vec<Entry>,
        most: usize,
    }

    impl World {
        /// Writes all there is. What a reader hears that reads after each batch: the first blocks.
        fn write(&mut self, shared: &Shared, followed: &mut Followed, fleet: &mut Fleet) -> Vec<u64> {
            let mut heard = Vec::new();
            loop {
                let batch = self.log.next(shared, false);
                if batch.entries.is_empty() {
                    return heard;
                }
                self.kept.extend(batch.entries);
                heard.extend(self.read(followed, fleet).1);
                if let Some(count) = batch.keep {
                    self.kept.drain(..self.kept.len() - count as usize);
                }
                self.most = self.most.max(self.kept.iter().map(|entry| entry.bytes.len()).sum());
            }
        }

        /// Reads on. Requests at the peer, and the first blocks of what was heard.
        fn read(&self, followed: &mut Followed, fleet: &mut Fleet) -> (u64, Vec<u64>) {
            let mut effects = Effects::default();
            let from = followed.position;
            for entry in self.kept.iter().filter(|entry| entry.position > from) {
                let update = prost::Message::decode(entry.bytes.as_slice()).unwrap();
                match followed.take(entry.position, entry.field.as_bytes(), update) {
                    Step::Pass => {}
                    Step::Begin(update) => {
                        fleet.end(1, &mut effects);
                        fleet.apply(1, update, &mut effects).unwrap();
                    }
                    Step::GoOn(update) => fleet.apply(1, update, &mut effects).unwrap(),
                    step @ (Step::Leave | Step::Lost) => panic!("{step:?}"),
                }
            }
            let firsts = effects.heard.iter().map(|heard| heard.blocks.hashes()[0]).collect();
            (fleet.links()[&1].requests(), firsts)
        }
    }

    #[test]
    fn a_log_is_cut_and_tells_late_and_early_readers_the_same() {
        let pool = Arc::new(Pool::new("ns", "pool", Instant::now()));
        let address = std::net::SocketAddr::from(([10, 0, 0, 1], 80));
        pool.replace_endpoints(vec![EndpointSpec::new(EndpointId::new("ns", "a"), address)]);
        let endpoint = Arc::clone(&pool.snapshot().endpoints()[0]);
        let settings = PeersSettings { pool: "ns/pool".to_owned(), name: "a".to_owned(), tls: None };
        let index = Arc::new(Index::default());
        let metrics = Metrics::new();
        let indexes = [Arc::clone(&index) as Arc<dyn SharedIndex>];
        let shared = Shared::new(settings, &pool, &indexes, metrics.peers(), None);
        let journal = index.0.lock().clone().unwrap();
        let mut world = World::default();
        world.log.begin(&shared);
        let (mut early, mut fleet) = (Followed::new(Instant::now()), Fleet::new(1));
        let (mut leases, mut heard) = (Vec::new(), Vec::new());
        for number in 0..3000_u64 {
            if number % 100 == 0 {
                leases.push(Lease::take(&endpoint, 1));
            }
            // 8 KB, so that 24 MB are told in all.
            let chain: Vec<u64> = (0..1000).map(|block| number * 1000 + block).collect();
            journal.add(0, &endpoint, &BlockHashes::from_chains(64, &[&chain]));
            if number % 7 == 0 {
                shared.followed();
                heard.extend(world.write(&shared, &mut early, &mut fleet));
                assert_eq!(fleet.links()[&1].requests(), leases.len() as u64);
            }
        }
        shared.followed();
        heard.extend(world.write(&shared, &mut early, &mut fleet));
        assert!(heard.iter().copied().eq((0..3000).map(|number| number * 1000)), "each once, in order");
        assert!(world.kept[0].position > 100, "the log was cut");
        assert!(world.kept[0].is_snapshot && world.log.len() == world.kept.len() as u64);
        assert!(world.most < 32 << 20, "{} bytes", world.most);
        let (requests, told) = world.read(&mut Followed::new(Instant::now()), &mut Fleet::new(1));
        assert_eq!((requests, told.last()), (30, Some(&2_999_000)));
        assert!(told.len() > 500, "{}", told.len());
        // The server has lost everything, and meanwhile requests have ended: the early reader has to know that.
        leases.clear();
        shared.followed();
        world.kept.clear();
        world.log.begin(&shared);
        world.write(&shared, &mut early, &mut fleet);
        assert_eq!(fleet.links()[&1].requests(), 0);
    }
}
