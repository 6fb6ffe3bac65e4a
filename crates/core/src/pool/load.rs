//! Load of one endpoint: the last scrape with its age, the requests that this process sent, and those of its peers.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;

use super::AttributeKey;
use super::attributes::Attributes;

pub(super) mod state;
#[cfg(test)]
mod tests;

/// How old the last scrape is. Never seen, fresh and stale are different states; each consumer states its own policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Age {
    /// No scrape has succeeded in this incarnation.
    Never,
    /// Time since the last scrape that carried at least one known series.
    Since(Duration),
}

impl Age {
    /// True if a scrape succeeded at most `threshold` ago.
    pub fn is_fresh(self, threshold: Duration) -> bool {
        matches!(self, Self::Since(age) if age <= threshold)
    }
}

/// Figures that each have an age of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoadFigure {
    /// Waiting requests.
    Waiting,
    /// Running requests.
    Running,
    /// KV-cache usage.
    KvUsage,
}

/// LoRA adapters as a model server reports them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LoraReading {
    /// Adapters that running requests use.
    pub active: BTreeSet<String>,
    /// Adapters that waiting requests use.
    pub waiting: BTreeSet<String>,
    /// Adapters that may be loaded at once; 0 if the server has no LoRA.
    pub max_active: u64,
}

/// What one scrape found. A field is `None` if the page lacked the figure; the load then keeps its previous value.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reading {
    /// Requests waiting in the server's queue.
    pub waiting: Option<u64>,
    /// Requests in the running batch.
    pub running: Option<u64>,
    /// KV-cache usage, clamped to 0..=1.
    pub kv_usage: Option<f64>,
    /// Tokens per KV-cache block.
    pub block_size: Option<u32>,
    /// KV-cache blocks of the server.
    pub num_blocks: Option<u32>,
    /// LoRA adapters.
    pub lora: Option<LoraReading>,
    /// Further figures with their names.
    pub attributes: Vec<(AttributeKey, f64)>,
}

impl Reading {
    /// True if the page carried none of the series looked for.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Most waiting or running requests that a server may claim. A larger number counts as this one, so that no page can
/// make a sum or a mean useless.
pub const MOST_REQUESTS: u64 = 1_000_000_000;

/// Largest KV-cache block that a server may claim, in tokens.
const LARGEST_BLOCK: u32 = 1 << 20;

/// Consecutive scrapes without any answer after which a server counts as unreachable. A single one may be an accident.
const UNREACHABLE_AFTER: u32 = 2;

/// The requests of one replica on an endpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Share {
    /// Requests that are being served now.
    pub requests: u64,
    /// Estimated tokens of those requests.
    pub tokens: u64,
    /// Requests ever sent.
    pub dispatched: u64,
}

/// Load of one endpoint. All methods are lock-free. A reader reads the fields one by one, so two fields may come from
/// two successive scrapes.
#[derive(Debug)]
pub struct Load {
    epoch: Instant,
    in_flight: AtomicU64,
    in_flight_tokens: AtomicU64,
    /// Own requests whose tokens count: no byte of their answers has come.
    unanswered_prompts: AtomicU64,
    /// Tokens of all requests that this process ever sent, and of those sent before the last reading.
    tokens_sent: [AtomicU64; 2],
    dispatched: AtomicU64,
    /// Requests, tokens and dispatched requests of all peers, in this order.
    elsewhere: [AtomicU64; 3],
    waiting: AtomicU64,
    running: AtomicU64,
    kv_usage: AtomicU64,
    block_size: AtomicU32,
    num_blocks: AtomicU32,
    /// Nanoseconds since `epoch` plus one; 0 = never.
    updated: AtomicU64,
    /// The times at which waiting requests, running requests and KV-cache usage were read, in the same form. A page may
    /// stop showing one of them.
    read: [AtomicU64; 3],
    dispatched_at_reading: AtomicU64,
    /// Requests that were in flight at the last reading, which the reading therefore counts.
    in_flight_at_reading: AtomicU64,
    /// Those of them without a byte of an answer, of this process alone.
    prompts_at_reading: AtomicU64,
    /// Consecutive scrapes that got no answer at all.
    unanswered: AtomicU32,
    lora: ArcSwap<LoraReading>,
    attributes: Attributes,
}

impl Load {
    /// A load without requests that was never scraped. Ages count from `epoch`, which must not be later than any
    /// scrape.
    pub fn new(epoch: Instant) -> Self {
        Self {
            epoch,
            in_flight: AtomicU64::new(0),
            in_flight_tokens: AtomicU64::new(0),
            unanswered_prompts: AtomicU64::new(0),
            tokens_sent: Default::default(),
            dispatched: AtomicU64::new(0),
            elsewhere: Default::default(),
            waiting: AtomicU64::new(0),
            running: AtomicU64::new(0),
            kv_usage: AtomicU64::new(0),
            block_size: AtomicU32::new(0),
            num_blocks: AtomicU32::new(0),
            updated: AtomicU64::new(0),
            read: Default::default(),
            dispatched_at_reading: AtomicU64::new(0),
            in_flight_at_reading: AtomicU64::new(0),
            prompts_at_reading: AtomicU64::new(0),
            unanswered: AtomicU32::new(0),
            lora: ArcSwap::default(),
            attributes: Attributes::default(),
        }
    }

    /// Requests of this process and of its peers that are being served now.
    pub fn in_flight(&self) -> u64 {
        self.own_in_flight().saturating_add(self.elsewhere[0].load(Relaxed))
    }

    /// Estimated tokens of the requests of [`Load::in_flight`].
    pub fn in_flight_tokens(&self) -> u64 {
        self.in_flight_tokens.load(Relaxed).saturating_add(self.elsewhere[1].load(Relaxed))
    }

    /// Requests of this process, without its peers, that are being served now.
    pub fn own_in_flight(&self) -> u64 {
        self.in_flight.load(Relaxed)
    }

    /// The requests of this process here.
    pub fn own(&self) -> Share {
        Share {
            requests: self.own_in_flight(),
            tokens: self.in_flight_tokens.load(Relaxed),
            dispatched: self.dispatched.load(Relaxed),
        }
    }

    /// Replaces the requests that all peers together have here. `sent` is the number of requests that they sent since
    /// the last call. The method ignores the `dispatched` of `share`, because this number falls when a peer goes.
    pub fn set_elsewhere(&self, share: Share, sent: u64) {
        let [requests, tokens, dispatched] = &self.elsewhere;
        requests.store(share.requests, Relaxed);
        tokens.store(share.tokens, Relaxed);
        dispatched.fetch_add(sent, Relaxed);
    }

    /// Requests that this process and its peers ever sent here. Read this number before a scrape is sent, and pass it
    /// to [`Load::record`].
    pub fn dispatched(&self) -> u64 {
        self.dispatched.load(Relaxed).saturating_add(self.elsewhere[2].load(Relaxed))
    }

    /// Requests sent since the last scrape was sent. The reading of that scrape may not count them.
    pub fn dispatched_since_reading(&self) -> u64 {
        self.dispatched().saturating_sub(self.dispatched_at_reading.load(Relaxed))
    }

    /// Waiting and running requests now. The number is that of the last reading, plus the requests that this process
    /// and its peers sent since, minus their requests that ended since. Without a reading it is their requests in
    /// flight.
    pub fn outstanding(&self) -> u64 {
        self.carried_on(self.waiting().saturating_add(self.running()))
    }

    /// Waiting requests now, computed from the last reading in the same way.
    pub fn waiting_by_now(&self) -> u64 {
        match self.updated.load(Relaxed) {
            0 => 0,
            _ => self.carried_on(self.waiting()),
        }
    }

    /// Running requests now, computed from the last reading in the same way.
    pub fn running_by_now(&self) -> u64 {
        match self.updated.load(Relaxed) {
            0 => 0,
            _ => self.carried_on(self.running()),
        }
    }

    /// KV-cache usage now, 0..=1: that of the last reading, and the tokens of the requests that this process sent
    /// since. What ended since is in the next reading alone.
    pub fn kv_usage_by_now(&self) -> f64 {
        let room = u64::from(self.block_size()) * u64::from(self.num_blocks());
        if room == 0 || self.updated.load(Relaxed) == 0 {
            return self.kv_usage();
        }
        (self.kv_usage() + self.tokens_since_reading() as f64 / room as f64).min(1.0)
    }

    fn tokens_since_reading(&self) -> u64 {
        let [sent, before] = &self.tokens_sent;
        sent.load(Relaxed).saturating_sub(before.load(Relaxed))
    }

    /// Waiting requests of the last reading that this process did not send: all but those of its requests that had no
    /// byte of an answer at that time.
    pub fn waiting_of_others(&self) -> u64 {
        self.waiting().saturating_sub(self.prompts_at_reading.load(Relaxed))
    }

    /// Estimated tokens of the prompts of peers whose answers have not begun.
    pub fn tokens_elsewhere(&self) -> u64 {
        self.elsewhere[1].load(Relaxed)
    }

    fn carried_on(&self, read: u64) -> u64 {
        read.saturating_add(self.in_flight()).saturating_sub(self.in_flight_at_reading.load(Relaxed))
    }

    /// Waiting requests at the last reading; 0 if never read.
    pub fn waiting(&self) -> u64 {
        self.waiting.load(Relaxed)
    }

    /// Running requests at the last reading; 0 if never read.
    pub fn running(&self) -> u64 {
        self.running.load(Relaxed)
    }

    /// KV-cache usage at the last reading, 0..=1; 0 if never read.
    pub fn kv_usage(&self) -> f64 {
        f64::from_bits(self.kv_usage.load(Relaxed))
    }

    /// Tokens per KV-cache block; 0 if unknown.
    pub fn block_size(&self) -> u32 {
        self.block_size.load(Relaxed)
    }

    /// KV-cache blocks of the server; 0 if unknown.
    pub fn num_blocks(&self) -> u32 {
        self.num_blocks.load(Relaxed)
    }

    /// LoRA adapters at the last reading; empty if never read.
    pub fn lora(&self) -> arc_swap::Guard<Arc<LoraReading>> {
        self.lora.load()
    }

    /// Last value of an attribute; `None` if nobody wrote it.
    pub fn attribute(&self, key: &AttributeKey) -> Option<f64> {
        self.attributes.get(key)
    }

    /// Writes an attribute. A value that is not a finite number changes nothing.
    pub fn set_attribute(&self, key: &AttributeKey, value: f64) {
        self.attributes.set(key, value);
    }

    /// Notes that a scrape got an answer, whether a page or anything else.
    pub fn note_answer(&self) {
        self.unanswered.store(0, Relaxed);
    }

    /// Notes that a scrape got no answer at all. `gone` says that nothing listens there, so that no second scrape is
    /// needed.
    pub fn note_silence(&self, gone: bool) {
        self.unanswered.fetch_add(if gone { UNREACHABLE_AFTER } else { 1 }, Relaxed);
    }

    /// False if the last two scrapes got no answer, or if nothing listens there. A server that was never scraped counts
    /// as reachable.
    pub fn is_reachable(&self) -> bool {
        self.unanswered.load(Relaxed) < UNREACHABLE_AFTER
    }

    /// Age of the last reading with any figure.
    pub fn age(&self, now: Instant) -> Age {
        self.since(self.updated.load(Relaxed), now)
    }

    /// Age of one figure: the time since a page last contained it.
    pub fn figure_age(&self, figure: LoadFigure, now: Instant) -> Age {
        let [waiting, running, kv_usage] = &self.read;
        let read = match figure {
            LoadFigure::Waiting => waiting,
            LoadFigure::Running => running,
            LoadFigure::KvUsage => kv_usage,
        };
        self.since(read.load(Relaxed), now)
    }

    /// Age of the figures that show how full the server is: the older age of waiting requests and KV-cache usage. A
    /// figure that no page ever contained does not count.
    pub fn fullness_age(&self, now: Instant) -> Age {
        let ages = [LoadFigure::Waiting, LoadFigure::KvUsage].map(|figure| self.figure_age(figure, now));
        match ages {
            [Age::Never, Age::Never] => self.age(now),
            [Age::Never, age] | [age, Age::Never] => age,
            [Age::Since(waiting), Age::Since(kv_usage)] => Age::Since(waiting.max(kv_usage)),
        }
    }

    fn since(&self, at: u64, now: Instant) -> Age {
        match at {
            0 => Age::Never,
            at => Age::Since(
                now.saturating_duration_since(self.epoch).saturating_sub(Duration::from_nanos(at - 1)),
            ),
        }
    }

    /// Records a scrape. An empty reading changes nothing. `dispatched_before` is the value that [`Load::dispatched`]
    /// had before the scrape was sent.
    pub fn record(&self, reading: Reading, dispatched_before: u64, now: Instant) {
        if reading.is_empty() {
            return;
        }
        let nanos = now.saturating_duration_since(self.epoch).as_nanos() as u64;
        let at = nanos.saturating_add(1);
        let [waiting_read, running_read, kv_usage_read] = &self.read;
        if let Some(waiting) = reading.waiting {
            self.waiting.store(waiting.min(MOST_REQUESTS), Relaxed);
            waiting_read.store(at, Relaxed);
        }
        if let Some(running) = reading.running {
            self.running.store(running.min(MOST_REQUESTS), Relaxed);
            running_read.store(at, Relaxed);
        }
        if let Some(usage) = reading.kv_usage.filter(|usage| usage.is_finite()) {
            self.kv_usage.store(usage.clamp(0.0, 1.0).to_bits(), Relaxed);
            kv_usage_read.store(at, Relaxed);
        }
        if let Some(size) = reading.block_size.filter(|size| *size <= LARGEST_BLOCK) {
            self.block_size.store(size, Relaxed);
        }
        if let Some(blocks) = reading.num_blocks {
            self.num_blocks.store(blocks, Relaxed);
        }
        if let Some(lora) = reading.lora.filter(|lora| **self.lora.load() != *lora) {
            self.lora.store(Arc::new(lora));
        }
        for (key, value) in &reading.attributes {
            self.attributes.set(key, *value);
        }
        let unread = self.dispatched().saturating_sub(dispatched_before);
        let prompts = self.unanswered_prompts.load(Relaxed).saturating_sub(unread);
        self.prompts_at_reading.store(prompts, Relaxed);
        // What was sent while the page was on its way is little, and counts as read.
        self.tokens_sent[1].store(self.tokens_sent[0].load(Relaxed), Relaxed);
        self.in_flight_at_reading.store(self.in_flight().saturating_sub(unread), Relaxed);
        self.dispatched_at_reading.store(dispatched_before, Relaxed);
        self.updated.store(at, Relaxed);
    }

    /// Forgets the readings, because the server is a new incarnation. The requests of this process still count.
    pub(super) fn forget_reading(&self) {
        self.updated.store(0, Relaxed);
        self.in_flight_at_reading.store(0, Relaxed);
        self.prompts_at_reading.store(0, Relaxed);
        self.read.iter().for_each(|read| read.store(0, Relaxed));
        self.waiting.store(0, Relaxed);
        self.running.store(0, Relaxed);
        self.kv_usage.store(0, Relaxed);
        self.block_size.store(0, Relaxed);
        self.num_blocks.store(0, Relaxed);
        self.lora.store(Arc::default());
        self.attributes.clear();
        self.note_answer();
    }

    pub(super) fn begin(&self, tokens: u64) {
        self.in_flight.fetch_add(1, Relaxed);
        self.in_flight_tokens.fetch_add(tokens, Relaxed);
        self.unanswered_prompts.fetch_add(u64::from(tokens > 0), Relaxed);
        self.tokens_sent[0].fetch_add(tokens, Relaxed);
        self.dispatched.fetch_add(1, Relaxed);
    }

    pub(super) fn end(&self) {
        self.in_flight.fetch_sub(1, Relaxed);
    }

    pub(super) fn end_tokens(&self, tokens: u64) {
        self.in_flight_tokens.fetch_sub(tokens, Relaxed);
        self.unanswered_prompts.fetch_sub(u64::from(tokens > 0), Relaxed);
    }
}
