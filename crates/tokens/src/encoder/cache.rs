//! Caches the token ids of segments of text.
//!
//! A segment begins at the beginning of its text or at a special token, and ends before the next special token. Its ids
//! do not depend on the text before and after it; [`Cuts`](super::cuts::Cuts) proves that for each token. The earlier
//! messages of a conversation are therefore found one by one, whatever came before them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use indexmap::IndexMap;
use parking_lot::Mutex;
use xxhash_rust::xxh3::xxh3_128_with_seed;

/// The number of parts with a lock of their own.
const SHARDS: usize = 16;
/// The bytes of an entry besides its ids: key, pointer, counters, and the slack of the table.
const ENTRY_BYTES: usize = 96;

/// A cache whose size in bytes is bounded. Roughly the entries that were unused for the longest time are dropped first
/// (the CLOCK algorithm).
pub(crate) struct SegmentCache {
    shards: [Mutex<Shard>; SHARDS],
    seed: u64,
    most: usize,
    bytes: AtomicUsize,
}

#[derive(Default)]
struct Shard {
    entries: IndexMap<u128, Entry>,
    bytes: usize,
    /// The index at which the search for the next entry to drop begins.
    hand: usize,
}

struct Entry {
    ids: Arc<[u32]>,
    used: bool,
}

impl SegmentCache {
    /// Makes a cache of at most `most` bytes. With 0 there is no cache.
    pub(crate) fn new(most: usize) -> Self {
        let state = std::hash::RandomState::new();
        let seed = std::hash::BuildHasher::hash_one(&state, "segments");
        Self { shards: Default::default(), seed, most: most / SHARDS, bytes: AtomicUsize::new(0) }
    }

    /// The key of a segment. `first` distinguishes the first segment of a text from the others.
    pub(crate) fn key(&self, text: &str, first: bool) -> u128 {
        xxh3_128_with_seed(text.as_bytes(), self.seed ^ u64::from(first))
    }

    fn shard(&self, key: u128) -> Option<&Mutex<Shard>> {
        self.shards.get((key >> 64) as usize % SHARDS)
    }

    /// Appends the ids of a segment if the cache has them. Returns whether it has.
    pub(crate) fn append(&self, key: u128, ids: &mut Vec<u32>) -> bool {
        let known = self.shard(key).and_then(|shard| {
            let mut shard = shard.lock();
            let entry = shard.entries.get_mut(&key)?;
            entry.used = true;
            Some(Arc::clone(&entry.ids))
        });
        known.inspect(|known| ids.extend_from_slice(known)).is_some()
    }

    /// Keeps the ids of a segment, unless they are larger than an eighth of a shard.
    pub(crate) fn insert(&self, key: u128, ids: &[u32]) {
        let size = size_of_val(ids) + ENTRY_BYTES;
        if size > self.most / 8 {
            return;
        }
        let ids: Arc<[u32]> = Arc::from(ids);
        let Some(shard) = self.shard(key) else { return };
        let mut shard = shard.lock();
        let before = shard.bytes;
        if let Some(old) = shard.entries.insert(key, Entry { ids, used: false }) {
            shard.bytes -= size_of_val(&*old.ids) + ENTRY_BYTES;
        }
        shard.bytes += size;
        while shard.bytes > self.most && shard.drop_one() {}
        let after = shard.bytes;
        drop(shard);
        if after >= before {
            self.bytes.fetch_add(after - before, Ordering::Relaxed);
        } else {
            self.bytes.fetch_sub(before - after, Ordering::Relaxed);
        }
    }

    /// The memory that the cache takes, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }
}

impl Shard {
    /// Drops the next entry that was not used since the hand last passed it.
    fn drop_one(&mut self) -> bool {
        for _ in 0..=self.entries.len() {
            if self.hand >= self.entries.len() {
                self.hand = 0;
            }
            let Some((_, entry)) = self.entries.get_index_mut(self.hand) else { return false };
            if std::mem::take(&mut entry.used) {
                self.hand += 1;
                continue;
            }
            if let Some((_, old)) = self.entries.swap_remove_index(self.hand) {
                self.bytes -= size_of_val(&*old.ids) + ENTRY_BYTES;
            }
            return true;
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_asked_for_stays_and_the_rest_goes() {
        let cache = SegmentCache::new(SHARDS * 8 * 1024);
        let key = |number: u32| cache.key(&number.to_string(), false);
        cache.insert(key(0), &[7; 16]);
        for number in 1..10_000 {
            cache.insert(key(number), &[number; 16]);
            assert!(cache.append(key(0), &mut Vec::new()), "after {number}");
        }
        assert!(!cache.append(key(1), &mut Vec::new()));
        assert!(!cache.append(cache.key("0", true), &mut Vec::new()), "the first segment is another");
    }

    proptest! {
        #[test]
        fn bytes_stay_within_the_bound_and_ids_are_those_that_were_kept(
            steps in proptest::collection::vec((0_u32..200, 0_usize..300), 0..400),
        ) {
            let cache = SegmentCache::new(SHARDS * 4096);
            for (number, length) in steps {
                let key = cache.key(&number.to_string(), false);
                let mut found = vec![9];
                if cache.append(key, &mut found) {
                    prop_assert!(found.iter().skip(1).all(|id| *id == number));
                } else {
                    cache.insert(key, &vec![number; length]);
                }
                let sum: usize = cache.shards.iter().map(|shard| shard.lock().bytes).sum();
                prop_assert_eq!(sum, cache.bytes());
                prop_assert!(sum <= SHARDS * 4096);
            }
        }
    }
}
