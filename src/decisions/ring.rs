//! The bounded store of records.
//!
//! Three lanes share the bytes. `sampled` has the records of all requests, or of one in N once they come faster than
//! the bytes hold a minute of them. `pending` has the others while it is not known how slow they are. `first` has those
//! that are worth more: refused and slow ones.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use smallvec::SmallVec;

use super::pace::Pace;
use super::record::{Outcome, Record};
use super::slow::SlowBar;
use super::view::SummaryView;
use crate::metrics::RecordMetrics;

/// Time that the ring shall hold at least, by sampling.
const HOLDS: Duration = Duration::from_mins(1);
/// Records that are read under the lock at once.
const STEP: usize = 512;
/// Requests in a second that are noted, once a burst of `BURST` has passed.
const PER_SECOND: u32 = 1000;
/// Requests that are noted at once.
const BURST: u32 = 10_000;
/// Refusals in a second that get a record beyond that pace, once a burst of `REFUSED_BURST` has passed.
const REFUSED_PER_SECOND: u32 = 100;
/// Refusals that get a record at once.
const REFUSED_BURST: u32 = 1000;
/// Thinnest sampling: one request in this many.
const THINNEST: u64 = 1 << 20;

/// The ring of finished records. Clones share it.
#[derive(Clone, Debug)]
pub struct Decisions(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    lanes: Mutex<Lanes>,
    pace: Pace,
    refused: Pace,
    metrics: RecordMetrics,
}

/// Lets the end of a request find its record, if the ring still has it.
#[derive(Clone, Debug)]
pub struct Ticket {
    record: Weak<Record>,
    ring: Decisions,
}

impl Ticket {
    /// The response has ended.
    pub fn conclude(&self, outcome: Outcome) {
        let slowness = outcome.first_byte.unwrap_or(outcome.duration);
        if let Some(record) = self.record.upgrade()
            && record.outcome.set(outcome).is_ok()
        {
            self.ring.0.lanes.lock().bar.note(slowness);
        }
    }
}

impl Decisions {
    /// A ring of at most `bytes` bytes of records.
    pub fn new(bytes: u64, metrics: RecordMetrics) -> Self {
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
        metrics.bound(bytes);
        let (lanes, now) = (Mutex::new(Lanes::new(bytes)), Instant::now());
        let pace = Pace::new(PER_SECOND, BURST, now);
        let refused = Pace::new(REFUSED_PER_SECOND, REFUSED_BURST, now);
        Self(Arc::new(Shared { lanes, pace, refused, metrics }))
    }

    /// True if the request that came at `now` is to be noted. Where many more come than the ring holds anyway, most are
    /// not.
    pub fn notes(&self, now: Instant) -> bool {
        let notes = self.0.pace.lets(now);
        if !notes {
            self.0.metrics.passed_over();
        }
        notes
    }

    /// True if a request that was not noted is to have a record all the same, since it was refused at `now`.
    pub fn notes_refusal(&self, now: Instant) -> bool {
        self.0.refused.lets(now)
    }

    /// Puts a record in. What has to go for it goes.
    pub fn push(&self, record: Record) -> Ticket {
        let record = Arc::new(record);
        let ticket = Ticket { record: Arc::downgrade(&record), ring: self.clone() };
        // What goes is dropped when the lock is free again.
        let (count, bytes, one_in, _gone) = {
            let mut lanes = self.0.lanes.lock();
            lanes.push(record, Instant::now());
            (lanes.count(), lanes.used(), lanes.one_in, std::mem::take(&mut lanes.gone))
        };
        self.0.metrics.holds(count, bytes, one_in);
        ticket
    }

    /// One request in this many is kept, beside refused and slow ones.
    pub fn one_in(&self) -> u64 {
        self.0.lanes.lock().one_in
    }

    /// Number of records.
    pub fn count(&self) -> usize {
        self.0.lanes.lock().count()
    }

    /// What a list shows of the newest records, newest first.
    pub fn newest(&self, count: usize) -> Vec<SummaryView> {
        let mut found: Vec<Arc<Record>> = Vec::with_capacity(3 * count);
        {
            let lanes = self.0.lanes.lock();
            for lane in [Lane::First, Lane::Pending, Lane::Sampled] {
                let newest = lanes.lane(lane).held.iter().rev().take(count);
                found.extend(newest.map(|held| Arc::clone(&held.record)));
            }
        }
        found.sort_by_key(|record| std::cmp::Reverse(record.sequence));
        found.truncate(count);
        found.iter().map(|record| record.summary()).collect()
    }

    /// All records, newest first. The lock is held for a few hundred of them at a time.
    pub fn all(&self) -> Vec<Arc<Record>> {
        let mut found: Vec<Arc<Record>> = Vec::new();
        for lane in [Lane::First, Lane::Pending, Lane::Sampled] {
            let mut next = 0;
            loop {
                let lanes = self.0.lanes.lock();
                let queue = lanes.lane(lane);
                let before = found.len();
                let (start, records) = queue.from(next);
                found.extend(records.take(STEP).map(|held| Arc::clone(&held.record)));
                next = start + (found.len() - before) as u64;
                if found.len() == before {
                    break;
                }
            }
        }
        found.sort_by_key(|record| std::cmp::Reverse(record.sequence));
        found.dedup_by_key(|record| record.sequence);
        found
    }
}

#[derive(Clone, Copy)]
enum Lane {
    Sampled,
    Pending,
    First,
}

#[derive(Debug)]
struct Held {
    record: Arc<Record>,
    bytes: usize,
}

/// Records in the order in which they came, with their bytes.
#[derive(Debug, Default)]
struct Queue {
    held: VecDeque<Held>,
    bytes: usize,
    /// Records that have left at the front, which makes places last.
    gone: u64,
}

impl Queue {
    fn push(&mut self, held: Held) {
        self.bytes += held.bytes;
        self.held.push_back(held);
    }

    fn pop(&mut self) -> Option<Held> {
        let held = self.held.pop_front()?;
        self.bytes -= held.bytes;
        self.gone += 1;
        Some(held)
    }

    /// The records from the one that came as number `next`, and the number of the first of them.
    fn from(&self, next: u64) -> (u64, impl Iterator<Item = &Held>) {
        let skip = usize::try_from(next.saturating_sub(self.gone)).unwrap_or(usize::MAX);
        (next.max(self.gone), self.held.iter().skip(skip))
    }
}

#[derive(Debug)]
struct Lanes {
    bytes: usize,
    sampled: Queue,
    pending: Queue,
    first: Queue,
    /// One request in this many goes into `sampled`; a power of two.
    one_in: u64,
    bar: SlowBar,
    /// Version of the snapshot that the last record holds.
    version: u64,
    /// Records that have left since the last one came.
    gone: SmallVec<[Held; 4]>,
}

impl Lanes {
    fn new(bytes: usize) -> Self {
        Self {
            bytes,
            sampled: Queue::default(),
            pending: Queue::default(),
            first: Queue::default(),
            one_in: 1,
            bar: SlowBar::default(),
            version: u64::MAX,
            gone: SmallVec::new(),
        }
    }

    fn lane(&self, lane: Lane) -> &Queue {
        match lane {
            Lane::Sampled => &self.sampled,
            Lane::Pending => &self.pending,
            Lane::First => &self.first,
        }
    }

    fn count(&self) -> usize {
        self.sampled.held.len() + self.pending.held.len() + self.first.held.len()
    }

    fn used(&self) -> usize {
        self.sampled.bytes + self.pending.bytes + self.first.bytes
    }

    /// Bytes of a record, and of the list of endpoints if it is the first one that holds it.
    fn weigh(&mut self, record: &Record) -> usize {
        let list = match &record.snapshot {
            Some(snapshot) if snapshot.version() != self.version => {
                self.version = snapshot.version();
                snapshot.len() * size_of::<usize>()
            }
            _ => 0,
        };
        record.bytes() + list + size_of::<Held>()
    }

    fn push(&mut self, record: Arc<Record>, now: Instant) {
        let held = Held { bytes: self.weigh(&record), record };
        if held.bytes > self.bytes {
            return self.gone.push(held);
        }
        if held.record.sequence.is_multiple_of(self.one_in) {
            self.sampled.push(held);
        } else if held.record.refused() {
            self.first.push(held);
        } else {
            self.pending.push(held);
        }
        while self.pending.bytes > self.bytes / 8 {
            let Some(held) = self.pending.pop() else { break };
            self.keep_if_worth(held);
        }
        self.bound_first();
        self.make_room(now);
    }

    /// The lane of those that are worth more takes a quarter of the bytes.
    fn bound_first(&mut self) {
        while self.first.bytes > self.bytes / 4 {
            let Some(held) = self.first.pop() else { return };
            self.gone.push(held);
        }
    }

    /// Refused and slow ones stay longer.
    fn keep_if_worth(&mut self, held: Held) {
        let slow = held.record.slowness().is_some_and(|took| self.bar.is_slow(took));
        if slow || held.record.refused() {
            self.first.push(held);
            self.bound_first();
        } else {
            self.gone.push(held);
        }
    }

    fn make_room(&mut self, now: Instant) {
        let oldest = |lanes: &Self| {
            lanes.sampled.held.front().map(|held| now.saturating_duration_since(held.record.decided))
        };
        while self.used() > self.bytes {
            match oldest(self) {
                Some(age) if age < HOLDS && self.one_in < THINNEST && self.sampled.held.len() > 1 => {
                    self.thin();
                }
                Some(_) => {
                    if let Some(held) = self.sampled.pop() {
                        self.keep_if_worth(held);
                    }
                }
                None => match self.pending.pop().or_else(|| self.first.pop()) {
                    Some(held) => self.gone.push(held),
                    None => return,
                },
            }
        }
        // Sampling gets denser again once the ring holds much more than it has to.
        if self.one_in > 1 && oldest(self).is_some_and(|age| age > HOLDS * 3) {
            self.one_in /= 2;
        }
    }

    /// Keeps every second record, over all of the time that the ring holds.
    fn thin(&mut self) {
        self.one_in *= 2;
        for held in std::mem::take(&mut self.sampled.held) {
            if held.record.sequence.is_multiple_of(self.one_in) {
                self.sampled.held.push_back(held);
            } else {
                self.sampled.bytes -= held.bytes;
                self.sampled.gone += 1;
                self.keep_if_worth(held);
            }
        }
    }
}

#[cfg(test)]
#[path = "ring_tests.rs"]
mod tests;
