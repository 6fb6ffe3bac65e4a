//! What this replica does, as it says it to its peers. Pure: the pool's figures and `now` come in, messages go out.
//!
//! Nothing is kept for a single follower but a [`Cursor`]: how far it has come. A message holds whatever has changed
//! since, so a follower that is slow gets fewer messages and never a longer queue.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::services::Services;
use super::wire::{AssignmentRow, BandRow, EndpointRow, ShareRow, Update, VERSION, Waiting};
use crate::pool::{EndpointId, Load, Pool, Share, Snapshot};
use crate::prefix::{Assignment, Journal};

/// One life of an endpoint, as all replicas name it.
pub(super) type EndpointKey = (EndpointId, SocketAddr);

/// Endpoints in one message, at most.
const ROWS: usize = 4096;
/// Bytes of assignments in one message, about.
const ASSIGNMENT_BYTES: usize = 256 << 10;
/// Endpoints that are remembered to be gone. A follower that has missed more gets a snapshot.
const GONE: usize = 1024;
/// Changes whose time is remembered.
const TIMES: usize = 256;

/// One endpoint and what is under way there.
#[derive(Debug)]
struct Row {
    number: u32,
    key: EndpointKey,
    load: Arc<Load>,
    share: Share,
    /// False once the pool does not have it any more.
    listed: bool,
    /// Version that it began with.
    since: u64,
    /// Version of the last change.
    changed: u64,
}

/// What this replica does.
#[derive(Debug)]
pub(super) struct Own {
    epoch: u64,
    name: String,
    indexes: Vec<String>,
    /// Grows with each change.
    version: u64,
    /// Version of the pool's snapshot that the rows were made of.
    seen: Option<u64>,
    rows: Vec<Row>,
    numbers: HashMap<EndpointKey, u32>,
    next_number: u32,
    /// Numbers that are gone, with the version of that.
    gone: VecDeque<(u64, u32)>,
    /// Followers that have not come beyond this version have missed that something is gone.
    forgotten: u64,
    times: VecDeque<(u64, Instant)>,
    /// What waits, and the version of its last change.
    waiting: (Vec<BandRow>, u64),
    services: Services,
}

/// How far a follower has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Cursor {
    begun: bool,
    sequence: u64,
    /// Version and number of the last row that was sent.
    row: (u64, u32),
    /// Endpoints that began up to this version have told their names.
    named: u64,
    /// Version up to which it knows who is gone.
    gone: u64,
    /// Version up to which it knows what waits.
    waiting: u64,
    /// Version up to which it knows what programs were served.
    services: u64,
    journal: u64,
}

impl Own {
    /// Nothing under way. `indexes` are the names of the shared indexes, by number.
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
        }
    }

    /// Number of this life.
    pub(super) fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Version of what there is to say.
    pub(super) fn version(&self) -> u64 {
        self.version
    }

    /// Requests under way on all endpoints.
    pub(super) fn requests(&self) -> u64 {
        self.rows.iter().map(|row| row.share.requests).fold(0, u64::saturating_add)
    }

    /// Requests that were ever sent to the endpoints there are.
    pub(super) fn dispatched(&self) -> u64 {
        self.rows.iter().map(|row| row.share.dispatched).fold(0, u64::saturating_add)
    }

    /// This waits in the queues now. True if that is new.
    pub(super) fn note_waiting(&mut self, bands: Vec<BandRow>, now: Instant) -> bool {
        if bands == self.waiting.0 {
            return false;
        }
        self.step(now);
        self.waiting = (bands, self.version);
        true
    }

    /// These programs were served as many tokens more. True if there are any.
    pub(super) fn note_services(&mut self, served: Vec<(Arc<str>, u64)>, now: Instant) -> bool {
        if served.is_empty() {
            return false;
        }
        self.step(now);
        self.services.add(served, self.version);
        true
    }

    fn step(&mut self, now: Instant) {
        self.version += 1;
        if self.times.len() >= TIMES {
            self.times.pop_front();
        }
        self.times.push_back((self.version, now));
    }

    /// Looks at the pool. True if there is something new to say.
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

    /// Takes over the endpoints of a snapshot. An endpoint that has left it stays for as long as requests run there.
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

    /// The next message for a follower; `None` if it knows everything. It counts as sent.
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
        // In a snapshot nothing waits unless it says so.
        if self.waiting.1 > cursor.waiting {
            update.waiting = Some(Waiting { bands: self.waiting.0.clone() });
        }
        cursor.waiting = self.version;
        let (services, reached, more_services) = self.services.since(cursor.services, self.version);
        (update.services, cursor.services) = (services, reached);
        // Assignments name endpoints by their numbers, so they come behind these.
        let mut more = more_rows || more_services;
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
            || more;
        if !says {
            return None;
        }
        update.more = more;
        update.waited_micros = u64::try_from(waited.as_micros()).unwrap_or(u64::MAX);
        Some(self.numbered(cursor, update))
    }

    /// A message that says nothing but that this replica lives, and how many messages there were.
    pub(super) fn sign_of_life(&self, cursor: &mut Cursor) -> Update {
        self.numbered(cursor, Update::default())
    }

    fn numbered(&self, cursor: &mut Cursor, mut update: Update) -> Update {
        cursor.sequence += 1;
        update.version = VERSION;
        update.epoch = self.epoch;
        update.sequence = cursor.sequence;
        update
    }

    /// Adds the rows that the follower does not know. True if there are more of them than one message takes.
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

    /// Time since the first change that the follower does not know.
    fn waited(&self, cursor: &Cursor, now: Instant) -> Duration {
        let first = self.times.iter().find(|(version, _)| *version > cursor.row.0);
        first.map_or(Duration::ZERO, |(_, at)| now.saturating_duration_since(*at))
    }
}
