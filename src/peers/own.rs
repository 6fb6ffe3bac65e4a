//! The state of this replica, as it reports it to its peers. The code is pure: the figures of the pool and the time
//! come in, and messages come out.
//!
//! The only state of a single follower is a [`Cursor`], which says how much the follower knows. A message contains
//! everything that has changed since. A slow follower therefore gets fewer messages and never has a longer queue.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::services::Services;
use super::wire::{AssignmentRow, BandRow, EndpointRow, ShareRow, Update, VERSION, Waiting};
use crate::pool::{EndpointId, Load, Pool, Share, Snapshot};
use crate::prefix::{Assignment, Journal};

/// Names one life of an endpoint in the same way on all replicas.
pub(super) type EndpointKey = (EndpointId, SocketAddr);

/// The most endpoints in one message.
const ROWS: usize = 4096;
/// The approximate bytes of assignments in one message.
const ASSIGNMENT_BYTES: usize = 256 << 10;
/// The most endpoints that are remembered as removed. A follower that has missed more of them gets a snapshot.
const GONE: usize = 1024;
/// The most changes whose times are remembered.
const TIMES: usize = 256;

/// One endpoint, and the requests in flight there.
#[derive(Debug)]
struct Row {
    number: u32,
    key: EndpointKey,
    load: Arc<Load>,
    share: Share,
    /// False once the pool does not have the endpoint any more.
    listed: bool,
    /// The version in which the endpoint was added.
    since: u64,
    /// The version of its last change.
    changed: u64,
}

/// The state of this replica.
#[derive(Debug)]
pub(super) struct Own {
    epoch: u64,
    name: String,
    indexes: Vec<String>,
    /// The version of the state, which grows with each change.
    version: u64,
    /// The version of the pool's snapshot from which the rows were made.
    seen: Option<u64>,
    rows: Vec<Row>,
    numbers: HashMap<EndpointKey, u32>,
    next_number: u32,
    /// The numbers of removed endpoints, each with the version in which it was removed.
    gone: VecDeque<(u64, u32)>,
    /// A follower that knows only versions up to this one has missed a removed endpoint that is forgotten now.
    forgotten: u64,
    times: VecDeque<(u64, Instant)>,
    /// The waiting requests, and the version of their last change.
    waiting: (Vec<BandRow>, u64),
    services: Services,
    turns: Services,
}

/// What a follower knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Cursor {
    begun: bool,
    sequence: u64,
    /// The version and the number of the last row that was sent.
    row: (u64, u32),
    /// The follower knows the names of the endpoints that were added up to this version.
    named: u64,
    /// The follower knows the endpoints that were removed up to this version.
    gone: u64,
    /// The follower knows the waiting requests of this version.
    waiting: u64,
    /// The follower knows the service of programs up to this version.
    services: u64,
    /// Version up to which it knows whose turns there were.
    turns: u64,
    journal: u64,
}

impl Cursor {
    /// A follower that knows nothing, and is told no assignment before number `journal`.
    pub(super) fn from_journal(journal: u64) -> Self {
        Self { journal, ..Self::default() }
    }
}

impl Own {
    /// Makes a state without requests in flight. `indexes` are the names of the shared indexes, by number.
    pub(super) fn new(epoch: u64, name: &str, indexes: Vec<String>) -> Self {
        Self {
            epoch,
            name: name.to_owned(),
            indexes,
            version: 0,
            seen: None,
            rows: Vec::new(),
            numbers: HashMap::new(),
            next_number: 0,
            gone: VecDeque::new(),
            forgotten: 0,
            times: VecDeque::new(),
            waiting: (Vec::new(), 0),
            services: Services::default(),
            turns: Services::default(),
        }
    }

    /// The number of this process's life.
    pub(super) fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The version of the state.
    pub(super) fn version(&self) -> u64 {
        self.version
    }

    /// The number of requests in flight at all endpoints.
    pub(super) fn requests(&self) -> u64 {
        self.rows.iter().map(|row| row.share.requests).fold(0, u64::saturating_add)
    }

    /// The number of requests that were ever sent to the present endpoints.
    pub(super) fn dispatched(&self) -> u64 {
        self.rows.iter().map(|row| row.share.dispatched).fold(0, u64::saturating_add)
    }

    /// Sets the waiting requests. Returns true if they changed.
    pub(super) fn note_waiting(&mut self, bands: Vec<BandRow>, now: Instant) -> bool {
        if bands == self.waiting.0 {
            return false;
        }
        self.step(now);
        self.waiting = (bands, self.version);
        true
    }

    /// Adds tokens to the service of programs. Returns true if there are any.
    pub(super) fn note_services(&mut self, served: Vec<(Arc<str>, u64)>, now: Instant) -> bool {
        if served.is_empty() {
            return false;
        }
        self.step(now);
        self.services.add(served, self.version);
        true
    }

    /// So many requests of these flows were released. True if there are any.
    pub(super) fn note_turns(&mut self, turns: Vec<(Arc<str>, u64)>, now: Instant) -> bool {
        if turns.is_empty() {
            return false;
        }
        self.step(now);
        self.turns.add(turns, self.version);
        true
    }

    fn step(&mut self, now: Instant) {
        self.version += 1;
        if self.times.len() >= TIMES {
            self.times.pop_front();
        }
        self.times.push_back((self.version, now));
    }

    /// Reads the figures of the pool. Returns true if any of them changed.
    pub(super) fn observe(&mut self, pool: &Pool, now: Instant) -> bool {
        let snapshot = pool.snapshot();
        let next = self.version + 1;
        let mut changed = false;
        if self.seen != Some(snapshot.version()) {
            changed |= self.follow(&snapshot, next);
            self.seen = Some(snapshot.version());
        }
        let mut ended = false;
        for row in &mut self.rows {
            let share = row.load.own();
            if share != row.share {
                row.share = share;
                row.changed = next;
                changed = true;
            }
            ended |= !row.listed && share.requests == 0;
        }
        if ended {
            changed = true;
            self.drop_ended(next);
        }
        if changed {
            self.step(now);
        }
        changed
    }

    /// Takes over the endpoints of a snapshot. An endpoint that is not in the snapshot is kept while requests are in
    /// flight there.
    fn follow(&mut self, snapshot: &Snapshot, next: u64) -> bool {
        let mut by_key: HashMap<EndpointKey, usize> =
            self.rows.iter().enumerate().map(|(index, row)| (row.key.clone(), index)).collect();
        self.rows.iter_mut().for_each(|row| row.listed = false);
        let mut changed = false;
        for endpoint in snapshot.endpoints() {
            let key = (endpoint.id().clone(), endpoint.spec().address);
            if let Some(row) = by_key.get(&key).and_then(|index| self.rows.get_mut(*index)) {
                row.listed = true;
                row.load = Arc::clone(endpoint.load());
                continue;
            }
            changed = true;
            let number = self.next_number;
            self.next_number = self.next_number.wrapping_add(1);
            self.numbers.insert(key.clone(), number);
            by_key.insert(key.clone(), self.rows.len());
            self.rows.push(Row {
                number,
                key,
                load: Arc::clone(endpoint.load()),
                share: Share::default(),
                listed: true,
                since: next,
                changed: next,
            });
        }
        changed
    }

    fn drop_ended(&mut self, next: u64) {
        let (numbers, gone) = (&mut self.numbers, &mut self.gone);
        self.rows.retain(|row| {
            let stays = row.listed || row.share.requests > 0;
            if !stays {
                numbers.remove(&row.key);
                gone.push_back((next, row.number));
            }
            stays
        });
        while self.gone.len() > GONE {
            self.forgotten = self.gone.pop_front().map_or(self.forgotten, |(version, _)| version);
        }
    }

    /// Returns the next message for a follower, and `None` if the follower knows everything. The message counts as
    /// sent.
    pub(super) fn update(&self, cursor: &mut Cursor, journal: &Journal, now: Instant) -> Option<Update> {
        if cursor.begun && cursor.gone < self.forgotten {
            *cursor = Cursor { sequence: cursor.sequence, journal: cursor.journal, ..Cursor::default() };
        }
        let mut update = Update::default();
        if !cursor.begun {
            cursor.begun = true;
            cursor.gone = self.version;
            update.snapshot = true;
            update.name.clone_from(&self.name);
            update.indexes.clone_from(&self.indexes);
        }
        let waited = self.waited(cursor, now);
        let more_rows = self.rows_since(cursor, &mut update);
        let gone = self.gone.iter().filter(|(version, _)| *version > cursor.gone);
        update.gone.extend(gone.map(|(_, number)| *number));
        cursor.gone = self.version;
        // A snapshot without a list of waiting requests means that none wait.
        if self.waiting.1 > cursor.waiting {
            update.waiting = Some(Waiting { bands: self.waiting.0.clone() });
        }
        cursor.waiting = self.version;
        let (services, reached, more_services) = self.services.since(cursor.services, self.version);
        (update.services, cursor.services) = (services, reached);
        let (turns, reached, more_turns) = self.turns.since(cursor.turns, self.version);
        (update.turns, cursor.turns) = (turns, reached);
        // Assignments name endpoints by their numbers, so they come behind these.
        let mut more = more_rows || more_services || more_turns;
        if !more {
            let part = journal.since(cursor.journal, ASSIGNMENT_BYTES);
            cursor.journal = part.next;
            update.missed = part.missed;
            update.assignments =
                part.assignments.iter().filter_map(|assignment| self.assignment(assignment)).collect();
            more = part.next < journal.end();
        }
        let says = update.snapshot
            || !update.endpoints.is_empty()
            || !update.shares.is_empty()
            || !update.gone.is_empty()
            || !update.assignments.is_empty()
            || update.missed > 0
            || update.waiting.is_some()
            || !update.services.is_empty()
            || !update.turns.is_empty()
            || more;
        if !says {
            return None;
        }
        update.more = more;
        update.waited_micros = u64::try_from(waited.as_micros()).unwrap_or(u64::MAX);
        Some(self.numbered(cursor, update))
    }

    /// Returns a message that only says that this replica is alive, and how many messages there were.
    pub(super) fn sign_of_life(&self, cursor: &mut Cursor) -> Update {
        self.numbered(cursor, Update::default())
    }

    /// The last message: this replica ends, and has nothing under way.
    pub(super) fn farewell(&self, cursor: &mut Cursor) -> Update {
        self.numbered(cursor, Update { leaves: true, ..Update::default() })
    }

    fn numbered(&self, cursor: &mut Cursor, mut update: Update) -> Update {
        cursor.sequence += 1;
        update.version = VERSION;
        update.epoch = self.epoch;
        update.sequence = cursor.sequence;
        update
    }

    /// Adds the rows that the follower does not know. Returns true if there are more of them than fit into one message.
    fn rows_since(&self, cursor: &mut Cursor, update: &mut Update) -> bool {
        let mut rows: Vec<&Row> =
            self.rows.iter().filter(|row| (row.changed, row.number) > cursor.row).collect();
        let more = rows.len() > ROWS;
        if more {
            rows.sort_unstable_by_key(|row| (row.changed, row.number));
            rows.truncate(ROWS);
        }
        for row in &rows {
            if row.since > cursor.named {
                update.endpoints.push(EndpointRow {
                    number: row.number,
                    namespace: row.key.0.namespace().to_owned(),
                    name: row.key.0.name().to_owned(),
                    address: row.key.1.to_string(),
                });
            }
            let Share { requests, tokens, dispatched } = row.share;
            update.shares.push(ShareRow { endpoint: row.number, requests, tokens, dispatched });
        }
        cursor.row = match rows.last() {
            Some(last) if more => (last.changed, last.number),
            _ => (self.version, u32::MAX),
        };
        if !more {
            cursor.named = self.version;
        }
        more
    }

    fn assignment(&self, assignment: &Assignment) -> Option<AssignmentRow> {
        let key = (assignment.endpoint.clone(), assignment.address);
        let blocks = &assignment.blocks;
        let ends = if blocks.ends().len() == 1 { Vec::new() } else { blocks.ends().to_vec() };
        Some(AssignmentRow {
            index: u32::from(assignment.index),
            endpoint: *self.numbers.get(&key)?,
            blocks: blocks.hashes().to_vec(),
            ends,
            block_size: blocks.block_size(),
        })
    }

    /// The time since the first change that the follower does not know.
    fn waited(&self, cursor: &Cursor, now: Instant) -> Duration {
        let first = self.times.iter().find(|(version, _)| *version > cursor.row.0);
        first.map_or(Duration::ZERO, |(_, at)| now.saturating_duration_since(*at))
    }
}
