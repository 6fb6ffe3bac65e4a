//! The approximate index: what was sent where, and should still be cached there.
//!
//! An entry says that an endpoint holds a block. Each endpoint has a capacity, and forgets the entry that was longest
//! not added again; looking up changes nothing. A lookup goes along the prompt until nobody holds a block, and counts
//! for each endpoint the blocks it holds up to there: also those behind a gap of its own, as the reference does.
//!
//! # Layout
//! Two structures that are changed together: blocks with their holders ([`Shard`]), for lookups; and the entries of
//! each endpoint in the order they were added, for forgetting. 64 consecutive blocks of a prompt live in one shard,
//! named by the first of them, so a lookup takes one lock for 64 probes. An entry takes about 22 bytes, a block about
//! 24 more; a prompt that was sent to one endpoint takes about 46 bytes a block.
//!
//! Hashes come from clients, who may choose their prompts; so they are mixed with a secret before they decide where
//! anything lies.
//!
//! # Endpoints
//! Entries belong to one incarnation of an endpoint. A new pool snapshot is noticed by the first request that comes
//! with it: from then on entries of endpoints that are gone do not count, and requests clear them away, some thousand
//! each. An index serves one pool.
//!
//! Lock order: the endpoints before a cache before a shard, and one of each at a time.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

use arc_swap::ArcSwap;
use parking_lot::{Mutex, RwLock};
use smallvec::SmallVec;

use super::caches::{Cache, CacheState, Caches, View};
use super::holders::Holders;
use super::secret::Secret;
use super::shard::{BlockKey, SHARDS, Shard};
use super::tally::Tally;
use super::{BlockHashes, PrefixMemory};
use crate::pool::{Endpoint, Snapshot};

/// Blocks of a prompt that live in one shard.
const SEGMENT: usize = 64;
/// Entries of departed endpoints that one request clears away.
const SWEEP: usize = 4096;
/// Entries that are forgotten at least when memory runs out.
const SMALLEST_TRIM: usize = 64;

/// Who holds which blocks, as far as this process knows.
#[derive(Debug)]
pub struct ApproxIndex {
    shards: Box<[RwLock<Shard>]>,
    caches: RwLock<Caches>,
    view: ArcSwap<View>,
    /// Endpoints that are gone and still have entries.
    departed: Mutex<VecDeque<Arc<Cache>>>,
    departed_len: AtomicUsize,
    entries: AtomicU64,
    memory: Arc<PrefixMemory>,
    /// Hashes are mixed with these: a mask, and an odd factor.
    secret: Secret,
}

/// Blocks that each endpoint of a snapshot holds.
#[derive(Debug)]
pub struct HeldBlocks {
    view: Arc<View>,
    /// By slot; empty if nobody holds any.
    counts: Vec<u32>,
}

impl HeldBlocks {
    /// Blocks held by the endpoint at this place in the snapshot.
    pub fn at(&self, place: usize) -> u32 {
        let slot = self.view.slots.get(place).copied().flatten();
        slot.and_then(|slot| self.counts.get(usize::from(slot))).copied().unwrap_or(0)
    }

    /// True if nobody holds any.
    pub fn is_empty(&self) -> bool {
        self.counts.is_empty()
    }
}

impl ApproxIndex {
    /// An empty index that counts against `memory`. `seed` should be secret.
    pub fn new(memory: Arc<PrefixMemory>, seed: u64) -> Self {
        Self {
            shards: (0..SHARDS).map(|_| RwLock::default()).collect(),
            caches: RwLock::default(),
            view: ArcSwap::default(),
            departed: Mutex::default(),
            departed_len: AtomicUsize::new(0),
            entries: AtomicU64::new(0),
            memory,
            secret: Secret::new(seed),
        }
    }

    /// Number of (block, endpoint) entries.
    pub fn entries(&self) -> u64 {
        self.entries.load(Relaxed)
    }

    /// The bound it shares.
    pub fn memory(&self) -> &PrefixMemory {
        &self.memory
    }

    /// Counts for each endpoint of the snapshot the blocks it holds, up to the first that nobody holds; several prompts
    /// add up.
    pub fn lookup(&self, snapshot: &Snapshot, blocks: &BlockHashes) -> HeldBlocks {
        let view = self.follow(snapshot);
        let mut tally = None;
        for chain in blocks.chains() {
            self.count(chain, &view, &mut tally);
        }
        let counts = tally.map(Tally::into_counts).unwrap_or_default();
        HeldBlocks { view, counts }
    }

    fn count<'v>(&self, chain: &[u64], view: &'v View, tally: &mut Option<Tally<'v>>) {
        'prompt: for segment in chain.chunks(SEGMENT) {
            let keys = self.keys(segment);
            let shard = self.shards[keys.shard].read();
            for key in keys.of(segment) {
                let holders = shard.holders(key);
                if holders == Holders::Nobody {
                    break 'prompt;
                }
                let tally = tally.get_or_insert_with(|| Tally::new(&view.live));
                if !tally.block(holders, &shard) {
                    break 'prompt;
                }
            }
        }
        if let Some(tally) = tally {
            tally.end_prompt();
        }
    }

    /// Records that these blocks were sent to `endpoint`, and clears away what has to go. `capacity` is the most
    /// entries it may have (at least 1); that of the first call counts. Nothing is recorded for an endpoint that is not
    /// in the newest snapshot seen.
    pub fn record(&self, endpoint: &Endpoint, capacity: usize, blocks: &BlockHashes) {
        let cache = self.caches.read().get(endpoint.incarnation()).map(Arc::clone);
        if let Some(cache) = cache {
            let mut state = cache.state.lock();
            if !state.departed && !blocks.is_empty() {
                let before = state.blocks.bytes();
                let capacity = *state.capacity.get_or_insert(capacity.max(1));
                // The first blocks of a prompt are worth most: of one that is longer than the cache, those stay.
                let mut room = capacity;
                for chain in blocks.chains() {
                    let (kept, _) = chain.split_at(chain.len().min(room));
                    room -= kept.len();
                    for segment in kept.chunks(SEGMENT) {
                        self.add(&cache, &mut state, capacity, segment);
                    }
                }
                self.memory.resized(before, state.blocks.bytes());
                self.recount(&cache, &state);
            }
        }
        self.trim();
    }

    /// Adds one segment to what `cache` holds.
    fn add(&self, cache: &Cache, state: &mut CacheState, capacity: usize, segment: &[u64]) {
        let keys = self.keys(segment);
        let mut added: SmallVec<[BlockKey; SEGMENT]> = SmallVec::new();
        let mut forgotten: SmallVec<[BlockKey; SEGMENT]> = SmallVec::new();
        for key in keys.of(segment) {
            if let Some(index) = state.blocks.position(&key.0) {
                state.blocks.touch(index);
                continue;
            }
            if state.blocks.len() < capacity {
                state.blocks.insert(key.0, ());
            } else if let Some((oldest, ())) = state.blocks.replace_oldest(key.0, ()) {
                forgotten.push(BlockKey(oldest));
            }
            added.push(key);
        }
        if !added.is_empty() {
            self.change(keys.shard, |shard| {
                for key in &added {
                    shard.hold(*key, cache.slot);
                }
            });
        }
        // With a capacity below a segment, a block may have been forgotten and added again.
        forgotten.retain(|key| state.blocks.position(&key.0).is_none());
        self.release(cache, &forgotten);
    }

    /// Makes the endpoint of `cache` no holder of these blocks.
    fn release(&self, cache: &Cache, keys: &[BlockKey]) {
        for run in keys.chunk_by(|a, b| a.shard() == b.shard()) {
            let Some(first) = run.first() else { continue };
            self.change(first.shard(), |shard| {
                for key in run {
                    shard.release(*key, cache.slot);
                }
                shard.shrink();
            });
        }
    }

    fn change(&self, shard: usize, change: impl FnOnce(&mut Shard)) {
        let mut shard = self.shards[shard].write();
        let before = shard.bytes();
        change(&mut shard);
        self.memory.resized(before, shard.bytes());
    }

    /// Forgets old entries while the memory of all indexes is above its bound: a quarter of the largest endpoint's at a
    /// time, which evens out what endpoints have.
    fn trim(&self) {
        while self.memory.is_exceeded() {
            if self.departed_len.load(Relaxed) > 0 && self.sweep() {
                continue;
            }
            let largest = self.caches.read().largest().map(Arc::clone);
            let Some(cache) = largest.filter(|cache| cache.len.load(Relaxed) > 0) else { break };
            let mut state = cache.state.lock();
            let quarter = (state.blocks.len() / 4).max(SMALLEST_TRIM);
            let forgotten = self.forget(&cache, &mut state, quarter);
            self.memory.forgot(forgotten as u64);
        }
    }

    /// Forgets the oldest `count` entries of a cache. Returns how many there were.
    fn forget(&self, cache: &Cache, state: &mut CacheState, count: usize) -> usize {
        let before = state.blocks.bytes();
        let keys: Vec<BlockKey> = std::iter::from_fn(|| state.blocks.pop_oldest())
            .take(count)
            .map(|(key, ())| BlockKey(key))
            .collect();
        self.release(cache, &keys);
        state.blocks.shrink();
        self.memory.resized(before, state.blocks.bytes());
        self.recount(cache, state);
        keys.len()
    }

    /// Brings the counters up to date with a cache.
    fn recount(&self, cache: &Cache, state: &CacheState) {
        let before = cache.len.swap(state.blocks.len(), Relaxed) as u64;
        // Wraps around where the cache has shrunk.
        self.entries.fetch_add((state.blocks.len() as u64).wrapping_sub(before), Relaxed);
    }

    /// The pool has these endpoints now. Every lookup says so too.
    pub fn set_endpoints(&self, snapshot: &Snapshot) {
        self.follow(snapshot);
    }

    /// The slots of the snapshot's endpoints. The first call with a newer snapshot lets go of the endpoints that are
    /// gone.
    fn follow(&self, snapshot: &Snapshot) -> Arc<View> {
        if self.departed_len.load(Relaxed) > 0 {
            self.sweep();
        }
        let view = self.view.load_full();
        if view.version == snapshot.version() {
            return view;
        }
        let mut caches = self.caches.write();
        if snapshot.version() < self.view.load().version {
            // A request that took its snapshot before the last change.
            return Arc::new(caches.view(snapshot));
        }
        let gone = caches.follow(snapshot);
        let view = Arc::new(caches.view(snapshot));
        self.view.store(Arc::clone(&view));
        drop(caches);
        if !gone.is_empty() {
            let mut departed = self.departed.lock();
            self.departed_len.fetch_add(gone.len(), Relaxed);
            departed.extend(gone);
        }
        view
    }

    /// Clears away some entries of endpoints that are gone. False if another request is at it.
    fn sweep(&self) -> bool {
        let Some(mut departed) = self.departed.try_lock() else { return false };
        let mut left = SWEEP;
        while left > 0
            && let Some(cache) = departed.front().map(Arc::clone)
        {
            let mut state = cache.state.lock();
            state.departed = true;
            left -= self.forget(&cache, &mut state, left).clamp(1, left);
            if state.blocks.is_empty() {
                departed.pop_front();
                self.departed_len.fetch_sub(1, Relaxed);
                drop(state);
                self.caches.write().recycle(cache.slot);
            }
        }
        true
    }

    fn keys(&self, segment: &[u64]) -> Keys {
        let first = segment.first().copied().unwrap_or_default();
        Keys { shard: self.secret.mix(first) as usize % SHARDS, secret: self.secret }
    }
}

impl Drop for ApproxIndex {
    fn drop(&mut self) {
        let shards: usize = self.shards.iter_mut().map(|shard| shard.get_mut().bytes()).sum();
        let departed = self.departed.get_mut().iter();
        let caches: usize =
            self.caches.get_mut().iter().chain(departed).map(|cache| cache.state.lock().blocks.bytes()).sum();
        self.memory.resized(shards + caches, 0);
    }
}

/// How the hashes of one segment become keys.
#[derive(Clone, Copy, Debug)]
struct Keys {
    shard: usize,
    secret: Secret,
}

impl Keys {
    fn of(self, segment: &[u64]) -> impl Iterator<Item = BlockKey> {
        segment
            .iter()
            .map(move |&hash| BlockKey(self.secret.mix(hash) & !(SHARDS as u64 - 1) | self.shard as u64))
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
