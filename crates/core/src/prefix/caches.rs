//! The endpoints an index knows: what each is believed to hold, in the order it was last sent.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use parking_lot::Mutex;

use super::holders::HolderSlot;
use super::recency::Recency;
use super::slots::Slots;
use crate::pool::Snapshot;

/// The blocks that one incarnation of an endpoint is believed to hold.
#[derive(Debug)]
pub(super) struct Cache {
    /// Its number within the index.
    pub(super) slot: HolderSlot,
    /// Number of entries, to be read without the lock.
    pub(super) len: AtomicUsize,
    /// Keys of blocks, oldest first.
    pub(super) state: Mutex<CacheState>,
}

/// See [`Cache`].
#[derive(Debug, Default)]
pub(super) struct CacheState {
    /// Blocks by key.
    pub(super) blocks: Recency<u64, ()>,
    /// Most blocks; fixed when the first one comes.
    pub(super) capacity: Option<usize>,
    /// The endpoint is gone: nothing may be added.
    pub(super) departed: bool,
}

/// Endpoints by incarnation.
#[derive(Debug, Default)]
pub(super) struct Caches {
    by_incarnation: HashMap<u64, Arc<Cache>>,
    slots: Slots,
}

impl Caches {
    /// The cache of an incarnation.
    pub(super) fn get(&self, incarnation: u64) -> Option<&Arc<Cache>> {
        self.by_incarnation.get(&incarnation)
    }

    /// All caches.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Arc<Cache>> {
        self.by_incarnation.values()
    }

    /// Adds the endpoints of the snapshot that are new, and takes out and returns those that are gone. An index full of
    /// endpoints admits no more; those left over never match.
    pub(super) fn follow(&mut self, snapshot: &Snapshot) -> Vec<Arc<Cache>> {
        let mut before = std::mem::take(&mut self.by_incarnation);
        for endpoint in snapshot.endpoints() {
            let incarnation = endpoint.incarnation();
            if let Some(cache) = before.remove(&incarnation).or_else(|| self.admit()) {
                self.by_incarnation.insert(incarnation, cache);
            }
        }
        before.into_values().collect()
    }

    /// Makes the slot of an empty cache available again.
    pub(super) fn recycle(&mut self, slot: HolderSlot) {
        self.slots.give_back(slot);
    }

    fn admit(&mut self) -> Option<Arc<Cache>> {
        let slot = self.slots.take()?;
        Some(Arc::new(Cache { slot, len: AtomicUsize::new(0), state: Mutex::default() }))
    }

    /// The facts that lookups over this snapshot need.
    pub(super) fn view(&self, snapshot: &Snapshot) -> View {
        let mut live = vec![0u64; self.slots.words()];
        let slots = snapshot
            .endpoints()
            .iter()
            .map(|endpoint| self.get(endpoint.incarnation()).map(|cache| cache.slot))
            .collect();
        for cache in self.iter() {
            live[usize::from(cache.slot / 64)] |= 1 << (cache.slot % 64);
        }
        View { version: snapshot.version(), slots, live: live.into() }
    }

    /// The cache with most entries.
    pub(super) fn largest(&self) -> Option<&Arc<Cache>> {
        self.iter().max_by_key(|cache| (cache.len.load(Relaxed), cache.slot))
    }
}

/// The endpoints of one snapshot, as an index numbers them.
#[derive(Debug, Default)]
pub(super) struct View {
    /// Version of the snapshot.
    pub(super) version: u64,
    /// Slot by place in the snapshot.
    pub(super) slots: Box<[Option<HolderSlot>]>,
    /// One bit per slot: set if its endpoint is there.
    pub(super) live: Box<[u64]>,
}
