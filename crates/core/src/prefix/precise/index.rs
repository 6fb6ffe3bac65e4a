//! The precise prefix index: which engine holds which blocks, as the engines' events say.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use parking_lot::{Mutex, RwLock};

use super::adapters::Adapters;
use super::blocks::{Block, Blocks};
use super::event::{KvEvent, StoredBlocks, Taken};
use super::keys::{BlockKeys, PromptKeys};
use super::tiers::{PLACES, SENT, Tier, TierWeights};
use super::watch::Watches;
use crate::pool::{Endpoint, Snapshot};
use crate::prefix::PrefixMemory;
use crate::prefix::holders::{HolderSlot, Holders};
use crate::prefix::secret::Secret;
use crate::prefix::shard::{BlockKey, SHARDS, Shard};
use crate::prefix::slots::Slots;

/// Largest block that an engine may have, in tokens.
const MAX_BLOCK_SIZE: u32 = 1 << 16;
/// Most prompts that were sent to an endpoint and that no event has confirmed; the next constant bounds their blocks.
const MAX_SENT: usize = 1024;
const MAX_SENT_KEYS: usize = 1 << 17;
/// Blocks that the index forgets at once when memory runs out.
const TRIM: usize = 4096;

/// What the engines of a pool hold.
#[derive(Debug)]
pub struct PreciseIndex {
    pub(super) keys: BlockKeys,
    pub(super) weights: TierWeights,
    /// The holders of each key, by place.
    pub(super) shards: Box<[RwLock<[Shard; PLACES]>]>,
    pub(super) engines: RwLock<Engines>,
    /// Names of adapters that events contain.
    adapters: Adapters,
    memory: Arc<PrefixMemory>,
    /// Number of entries (engine, block), and of those in each place.
    entries: AtomicU64,
    pub(super) by_place: [AtomicU64; PLACES],
    /// A secret that is mixed into the keys, because clients choose the prompts.
    secret: Secret,
}

#[derive(Debug, Default)]
pub(super) struct Engines {
    pub(super) by_incarnation: HashMap<u64, Arc<Engine>>,
    version: u64,
    pub(super) slots: Slots,
}

#[derive(Debug)]
pub(super) struct Engine {
    pub(super) slot: HolderSlot,
    /// Tokens of a block, as the engine's events say; 0 before the first event.
    pub(super) block_size: AtomicU32,
    /// Events with blocks that were applied, and those of them after which the engine may hold fewer blocks.
    pub(super) heard: AtomicU64,
    pub(super) lost: AtomicU64,
    pub(super) state: Mutex<EngineState>,
}

#[derive(Debug, Default)]
pub(super) struct EngineState {
    /// Blocks by the engine's hash, mixed with the secret.
    pub(super) blocks: Blocks,
    /// Keys of sent prompts, each with the time until which it counts.
    sent: VecDeque<(Instant, Vec<BlockKey>)>,
    /// Keys in `sent`.
    sent_keys: usize,
    departed: bool,
    /// Blocks that a check waits for.
    pub(super) watches: Watches,
}

impl PreciseIndex {
    /// An empty index that counts against `memory`. Keys start from `hash_seed`; `seed` should be secret.
    pub fn new(memory: Arc<PrefixMemory>, hash_seed: &str, weights: TierWeights, seed: u64) -> Self {
        Self {
            keys: BlockKeys::new(hash_seed),
            weights,
            shards: (0..SHARDS).map(|_| RwLock::default()).collect(),
            engines: RwLock::default(),
            adapters: Adapters::default(),
            memory,
            entries: AtomicU64::new(0),
            by_place: Default::default(),
            secret: Secret::new(seed),
        }
    }

    /// Number of (block, endpoint) entries.
    pub fn entries(&self) -> u64 {
        self.entries.load(Relaxed)
    }

    /// The memory bound that this index shares with the other prefix indexes.
    pub fn memory(&self) -> &PrefixMemory {
        &self.memory
    }

    /// The maker of this index's keys.
    pub fn keys(&self) -> BlockKeys {
        self.keys
    }

    /// The name that stands for `model` in keys: the name itself if it is an adapter's, and "" otherwise. An engine has
    /// one base model, which may have several names.
    pub fn adapter<'m>(&self, model: &'m str) -> &'m str {
        if self.adapters.contains(model) { model } else { "" }
    }

    /// Block size of the engine of each of these endpoints; `None` if the engine has sent no event yet.
    pub fn block_sizes(&self, endpoints: &[&Endpoint]) -> Vec<Option<u32>> {
        let engines = self.engines.read();
        let told = |endpoint: &&Endpoint| {
            let size = engines.by_incarnation.get(&endpoint.incarnation())?.block_size.load(Relaxed);
            (size > 0).then_some(size)
        };
        endpoints.iter().map(told).collect()
    }

    pub(super) fn engine(&self, incarnation: u64) -> Option<Arc<Engine>> {
        self.engines.read().by_incarnation.get(&incarnation).map(Arc::clone)
    }

    /// Starts to track the endpoints of this snapshot, and forgets all others.
    pub fn follow(&self, snapshot: &Snapshot) {
        let mut engines = self.engines.write();
        if engines.version >= snapshot.version() && engines.version != 0 {
            return;
        }
        engines.version = snapshot.version();
        let mut before = std::mem::take(&mut engines.by_incarnation);
        for endpoint in snapshot.endpoints() {
            let incarnation = endpoint.incarnation();
            if let Some(engine) = before.remove(&incarnation).or_else(|| engines.admit()) {
                engines.by_incarnation.insert(incarnation, engine);
            }
        }
        drop(engines);
        for engine in before.into_values() {
            let mut state = engine.state.lock();
            state.departed = true;
            self.clear(&engine, &mut state);
            drop(state);
            self.engines.write().slots.give_back(engine.slot);
        }
    }

    /// Forgets what this endpoint holds, because its events have a gap or the engine restarted.
    pub fn forget(&self, incarnation: u64) {
        if let Some(engine) = self.engine(incarnation) {
            self.clear(&engine, &mut engine.state.lock());
        }
    }

    /// Applies an event of this endpoint.
    pub fn apply(&self, incarnation: u64, event: &KvEvent) -> Taken {
        let Some(engine) = self.engine(incarnation) else { return Taken::UnknownEndpoint };
        let mut state = engine.state.lock();
        if state.departed {
            return Taken::UnknownEndpoint;
        }
        let before = state.blocks.bytes();
        let taken = match event {
            KvEvent::Stored(stored) => self.store(&engine, &mut state, stored),
            KvEvent::Removed { hashes, tier } => {
                engine.lost.fetch_add(1, Relaxed);
                for hash in hashes {
                    self.remove(&engine, &mut state, *hash, *tier);
                }
                Taken::Whole
            }
            KvEvent::Cleared => {
                self.clear(&engine, &mut state);
                return Taken::Whole;
            }
        };
        self.memory.resized(before, state.blocks.bytes());
        drop(state);
        self.trim();
        taken
    }

    fn store(&self, engine: &Engine, state: &mut EngineState, stored: &StoredBlocks) -> Taken {
        if stored.tokens.is_empty() {
            // Blocks that are known came into another tier.
            for hash in &stored.hashes {
                if let Some(at) = state.blocks.position(self.mix(*hash)) {
                    self.hold(engine, state, at, stored.tier);
                }
            }
            return Taken::Whole;
        }
        let size = stored.block_size as usize;
        let fits = (1..=MAX_BLOCK_SIZE).contains(&stored.block_size)
            && stored.tokens.len() == stored.hashes.len() * size
            && (stored.extras.is_empty() || stored.extras.len() == stored.hashes.len());
        if !fits {
            return Taken::Malformed;
        }
        let adapter = stored.adapter.as_deref().unwrap_or_default();
        self.adapters.note(adapter, engine.slot);
        let mut parent = match stored.parent {
            None => self.keys.root(adapter),
            Some(hash) => match state.blocks.position(self.mix(hash)).and_then(|at| state.blocks.at(at)) {
                Some(block) => block.key(),
                None => return Taken::UnknownParent,
            },
        };
        engine.block_size.store(stored.block_size, Relaxed);
        engine.heard.fetch_add(1, Relaxed);
        state.watches.see(parent, &stored.tokens);
        for (index, (hash, tokens)) in stored.hashes.iter().zip(stored.tokens.chunks_exact(size)).enumerate()
        {
            let extras = stored.extras.get(index).map(Vec::as_slice).unwrap_or_default();
            let extras =
                extras.iter().map(AsRef::as_ref).filter(|extra: &&[u8]| *extra != adapter.as_bytes());
            parent = BlockKeys::next(parent, tokens, extras);
            let hash = self.mix(*hash);
            let at = match state.blocks.position(hash) {
                Some(at) if state.blocks.at(at).is_some_and(|block| block.key() == parent) => at,
                known => {
                    // The engine's hash stands for something else than before: that is gone.
                    if let Some(at) = known {
                        self.drop_block(engine, state, at);
                    }
                    self.entries.fetch_add(1, Relaxed);
                    state.blocks.insert(hash, parent)
                }
            };
            self.hold(engine, state, at, stored.tier);
        }
        Taken::Whole
    }

    /// Counts the block at this index once more in `tier`.
    fn hold(&self, engine: &Engine, state: &mut EngineState, at: u32, tier: Tier) {
        let Some(block) = state.blocks.stored(at) else { return };
        let place = tier as usize;
        block.held[place] = block.held[place].saturating_add(1);
        if block.held[place] == 1 {
            self.put(BlockKey(self.mix(block.key())), place, engine.slot);
        }
    }

    fn remove(&self, engine: &Engine, state: &mut EngineState, hash: u64, tier: Tier) {
        let Some(at) = state.blocks.position(self.mix(hash)) else { return };
        let Some(block) = state.blocks.at_mut(at) else { return };
        let place = tier as usize;
        if block.held[place] == 0 {
            return;
        }
        block.held[place] -= 1;
        if block.held[place] > 0 {
            return;
        }
        let left = block.held != [0; SENT];
        self.take_out(BlockKey(self.mix(block.key())), place, engine.slot);
        if !left {
            state.blocks.remove(at);
            self.entries.fetch_sub(1, Relaxed);
        }
    }

    /// Forgets the block at this index, in every tier.
    fn drop_block(&self, engine: &Engine, state: &mut EngineState, at: u32) {
        if let Some(block) = state.blocks.remove(at) {
            self.let_go(engine, block);
        }
    }

    /// Removes a block from the shards, because the engine's state no longer contains it.
    fn let_go(&self, engine: &Engine, block: Block) {
        self.entries.fetch_sub(1, Relaxed);
        for place in (0..SENT).filter(|place| block.held[*place] > 0) {
            self.take_out(BlockKey(self.mix(block.key())), place, engine.slot);
        }
    }

    fn clear(&self, engine: &Engine, state: &mut EngineState) {
        engine.lost.fetch_add(1, Relaxed);
        self.adapters.forget(engine.slot);
        let before = state.blocks.bytes();
        while !state.blocks.is_empty() {
            let last = state.blocks.len() as u32 - 1;
            self.drop_block(engine, state, last);
        }
        state.blocks.shrink();
        self.memory.resized(before, state.blocks.bytes());
        self.forget_sent(engine, state, |_| true);
    }

    /// Forgets the oldest sent keys whose time is `over`.
    fn forget_sent(&self, engine: &Engine, state: &mut EngineState, over: impl Fn(Instant) -> bool) {
        while state.sent.front().is_some_and(|(until, _)| over(*until)) {
            let keys = state.sent.pop_front().map(|(_, keys)| keys).unwrap_or_default();
            state.sent_keys -= keys.len();
            for key in keys {
                self.take_out(key, SENT, engine.slot);
            }
        }
    }

    fn put(&self, key: BlockKey, place: usize, slot: HolderSlot) {
        self.change(key, place, |shard| shard.hold(key, slot));
        if let Some(blocks) = self.by_place.get(place) {
            blocks.fetch_add(1, Relaxed);
        }
    }

    fn take_out(&self, key: BlockKey, place: usize, slot: HolderSlot) {
        self.change(key, place, |shard| {
            shard.release(key, slot);
            shard.shrink();
        });
        if let Some(blocks) = self.by_place.get(place) {
            blocks.fetch_sub(1, Relaxed);
        }
    }

    fn change(&self, key: BlockKey, place: usize, change: impl FnOnce(&mut Shard)) {
        let mut places = self.shards[key.shard()].write();
        let shard = &mut places[place];
        let before = shard.bytes();
        change(shard);
        self.memory.resized(before, shard.bytes());
    }

    /// Notes that these blocks were sent to `endpoint`, which will soon hold them. They count until `until`, or until
    /// an event of the engine confirms them.
    pub fn sent(&self, endpoint: &Endpoint, prompts: &[PromptKeys], until: Instant) {
        let Some(engine) = self.engine(endpoint.incarnation()) else { return };
        let mut state = engine.state.lock();
        if state.departed || state.sent.len() >= MAX_SENT {
            return;
        }
        let keys: Vec<BlockKey> = prompts
            .iter()
            .flat_map(|prompt| &prompt.0)
            .map(|key| BlockKey(self.mix(*key)))
            .filter(|key| !self.is_held(*key, SENT, engine.slot))
            .take(MAX_SENT_KEYS.saturating_sub(state.sent_keys))
            .collect();
        for key in &keys {
            self.put(*key, SENT, engine.slot);
        }
        state.sent_keys += keys.len();
        state.sent.push_back((until, keys));
    }

    pub(super) fn is_held(&self, key: BlockKey, place: usize, slot: HolderSlot) -> bool {
        let places = self.shards[key.shard()].read();
        match places[place].holders(key) {
            Holders::Nobody => false,
            Holders::One(a) => a == slot,
            Holders::Two(all) => all.contains(&slot),
            Holders::Three(all) => all.contains(&slot),
            Holders::Many(row) => {
                let word = places[place].words(row).get(usize::from(slot / 64)).copied().unwrap_or_default();
                word & (1 << (slot % 64)) != 0
            }
        }
    }

    /// Forgets the sent blocks that should have been confirmed by now.
    pub fn expire(&self, now: Instant) {
        let engines: Vec<_> = self.engines.read().by_incarnation.values().map(Arc::clone).collect();
        for engine in engines {
            self.forget_sent(&engine, &mut engine.state.lock(), |until| until <= now);
        }
    }

    /// While memory is above its bound, forgets the blocks that were not stored for longest, roughly, of the engine with most
    /// blocks.
    fn trim(&self) {
        while self.memory.is_exceeded() {
            let engines: Vec<_> = self.engines.read().by_incarnation.values().map(Arc::clone).collect();
            let Some(engine) = engines.into_iter().max_by_key(|engine| engine.state.lock().blocks.len())
            else {
                return;
            };
            let mut state = engine.state.lock();
            if state.blocks.is_empty() {
                return;
            }
            engine.lost.fetch_add(1, Relaxed);
            let before = state.blocks.bytes();
            let mut forgotten = 0;
            while forgotten < TRIM
                && let Some(block) = state.blocks.pop()
            {
                forgotten += 1;
                self.let_go(&engine, block);
            }
            state.blocks.shrink();
            self.memory.resized(before, state.blocks.bytes());
            self.memory.forgot(forgotten as u64);
        }
    }

    pub(super) fn mix(&self, hash: u64) -> u64 {
        self.secret.mix(hash)
    }
}

impl Engines {
    fn admit(&mut self) -> Option<Arc<Engine>> {
        let slot = self.slots.take()?;
        Some(Arc::new(Engine {
            slot,
            block_size: AtomicU32::new(0),
            heard: AtomicU64::new(0),
            lost: AtomicU64::new(0),
            state: Mutex::default(),
        }))
    }
}

impl Drop for PreciseIndex {
    fn drop(&mut self) {
        let shards = self.shards.iter_mut().flat_map(|places| places.get_mut().iter().map(Shard::bytes));
        let shards: usize = shards.sum();
        let engines = self.engines.get_mut().by_incarnation.values();
        let engines: usize = engines.map(|engine| engine.state.lock().blocks.bytes()).sum();
        self.memory.resized(shards + engines, 0);
    }
}
