//! KV-cache blocks with a prefix cache.
//!
//! A block is referenced by the running requests that use it. A full block has the hash of everything up to its end, so
//! that a later prompt with the same beginning finds it. A block without references keeps its content until its space
//! is needed. The block that was released longest ago is reused first.

use std::collections::BTreeMap;

use hashbrown::HashMap;
use xxhash_rust::xxh64::{Xxh64, xxh64};

/// The index of a block in the pool.
pub(crate) type BlockId = u32;

#[derive(Debug, Clone, Default)]
struct Block {
    /// The number of requests that use the block.
    references: u32,
    /// The hash of the content and of everything before it; `None` while the block is not full.
    hash: Option<u64>,
    /// The key in `released` while no request uses the block.
    released_at: u64,
}

/// All blocks of one engine.
#[derive(Debug)]
pub(crate) struct BlockPool {
    /// The blocks that were ever used. The rest of the capacity exists only as a number, so an idle pool costs nothing.
    blocks: Vec<Block>,
    capacity: usize,
    /// The unreferenced blocks that were used before, with the oldest release first.
    released: BTreeMap<u64, BlockId>,
    by_hash: HashMap<u64, BlockId>,
    releases: u64,
}

impl BlockPool {
    /// Makes a pool of `capacity` blocks; at least one.
    pub(crate) fn new(capacity: usize) -> Self {
        Self {
            blocks: Vec::new(),
            capacity: capacity.clamp(1, u32::MAX as usize),
            released: BTreeMap::new(),
            by_hash: HashMap::new(),
            releases: 0,
        }
    }

    /// The number of all blocks.
    pub(crate) fn capacity(&self) -> usize {
        self.capacity
    }

    /// The number of blocks that no request uses, cached or not.
    pub(crate) fn free(&self) -> usize {
        self.capacity - self.blocks.len() + self.released.len()
    }

    /// The number of blocks that a request uses.
    pub(crate) fn used(&self) -> usize {
        self.capacity - self.free()
    }

    /// Takes `wanted` blocks for a prompt: first the longest run of `hashes` that is cached, but at most `reusable`
    /// blocks, then fresh blocks. Returns the blocks and the number of cached ones. Returns `None` and leaves the pool
    /// unchanged if there is no room.
    pub(crate) fn take(
        &mut self,
        hashes: &[u64],
        reusable: usize,
        wanted: usize,
    ) -> Option<(Vec<BlockId>, usize)> {
        let cached: Vec<BlockId> = hashes
            .iter()
            .take(reusable.min(wanted))
            .map_while(|hash| self.by_hash.get(hash).copied())
            .collect();
        let idle =
            cached.iter().filter(|id| self.block(**id).is_some_and(|block| block.references == 0)).count();
        if wanted - cached.len() > self.free() - idle {
            return None;
        }
        for id in &cached {
            self.reference(*id);
        }
        let hits = cached.len();
        let mut taken = cached;
        while taken.len() < wanted {
            taken.push(self.take_one()?);
        }
        Some((taken, hits))
    }

    /// The number of these blocks, from the first on, that are cached. If a block is cached, the blocks before it are
    /// taken to be cached too. The order of eviction nearly always keeps that true.
    pub(crate) fn cached(&self, hashes: &[u64]) -> usize {
        hashes.partition_point(|hash| self.by_hash.contains_key(hash))
    }

    /// Takes one block without content. Returns `None` if every block is in use.
    pub(crate) fn take_one(&mut self) -> Option<BlockId> {
        if self.blocks.len() < self.capacity {
            self.blocks.push(Block { references: 1, ..Block::default() });
            return Some((self.blocks.len() - 1) as BlockId);
        }
        let (_, id) = self.released.pop_first()?;
        let block = self.blocks.get_mut(id as usize)?;
        block.references = 1;
        if let Some(hash) = block.hash.take() {
            self.by_hash.remove(&hash);
        }
        Some(id)
    }

    /// Gives a full block its hash. If another block already has this hash, that block stays the cached one.
    pub(crate) fn seal(&mut self, id: BlockId, hash: u64) {
        if self.by_hash.contains_key(&hash) {
            return;
        }
        if let Some(block) = self.blocks.get_mut(id as usize)
            && block.hash.is_none()
        {
            block.hash = Some(hash);
            self.by_hash.insert(hash, id);
        }
    }

    /// Releases the blocks of one request. The last blocks are reused first, because a prefix is worth more than what
    /// follows it.
    pub(crate) fn release(&mut self, ids: &[BlockId]) {
        for id in ids.iter().rev() {
            let Some(block) = self.blocks.get_mut(*id as usize) else { continue };
            block.references = block.references.saturating_sub(1);
            if block.references == 0 {
                self.releases += 1;
                block.released_at = self.releases;
                self.released.insert(self.releases, *id);
            }
        }
    }

    fn block(&self, id: BlockId) -> Option<&Block> {
        self.blocks.get(id as usize)
    }

    fn reference(&mut self, id: BlockId) {
        if let Some(block) = self.blocks.get_mut(id as usize) {
            if block.references == 0 {
                self.released.remove(&block.released_at);
            }
            block.references += 1;
        }
    }

    /// Panics unless the bookkeeping is consistent with the blocks that running requests hold.
    #[cfg(test)]
    pub(crate) fn check(&self, held: &[&[BlockId]]) {
        let mut references = vec![0_u32; self.blocks.len()];
        for id in held.iter().flat_map(|ids| ids.iter()) {
            references[*id as usize] += 1;
        }
        for (id, block) in self.blocks.iter().enumerate() {
            assert_eq!(block.references, references[id], "block {id}");
            let released = self.released.get(&block.released_at) == Some(&(id as BlockId));
            assert_eq!(released, block.references == 0, "block {id}");
            if let Some(hash) = block.hash {
                assert_eq!(self.by_hash.get(&hash), Some(&(id as BlockId)));
            }
        }
        assert_eq!(self.by_hash.len(), self.blocks.iter().filter(|block| block.hash.is_some()).count());
        assert!(self.blocks.len() <= self.capacity);
        assert_eq!(self.used() + self.free(), self.capacity);
    }
}

/// The hash from which an adapter's first block continues. It is a constant for the base model.
pub(crate) fn chain_root(adapter: Option<&str>) -> u64 {
    adapter.map_or(0, |name| xxh64(name.as_bytes(), 1))
}

/// The hash of a full block that follows the block (or root) with the hash `parent`.
pub(crate) fn chain(parent: u64, tokens: &[u32]) -> u64 {
    let mut hasher = Xxh64::new(parent);
    for token in tokens {
        hasher.update(&token.to_le_bytes());
    }
    hasher.digest()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_released_prefix_is_found_again_until_its_space_is_needed() {
        let mut pool = BlockPool::new(4);
        let (first, hits) = pool.take(&[10, 20], 2, 2).unwrap();
        assert_eq!(hits, 0);
        pool.seal(first[0], 10);
        pool.seal(first[1], 20);
        pool.release(&first);
        assert_eq!(pool.used(), 0);

        let (again, hits) = pool.take(&[10, 20, 30], 2, 3).unwrap();
        assert_eq!((hits, &again[..2]), (2, &first[..]));
        pool.check(&[&again]);
        pool.release(&again);

        let (others, _) = pool.take(&[], 0, 4).unwrap();
        pool.check(&[&others]);
        pool.release(&others);
        assert_eq!(pool.take(&[10], 1, 1).unwrap().1, 0, "the prefix was evicted");
    }

    #[test]
    fn the_tail_of_a_request_is_evicted_before_its_head() {
        let mut pool = BlockPool::new(3);
        let (ids, _) = pool.take(&[1, 2, 3], 0, 3).unwrap();
        for (id, hash) in ids.iter().zip([1, 2, 3]) {
            pool.seal(*id, hash);
        }
        pool.release(&ids);
        let one = pool.take_one().unwrap();
        pool.release(&[one]);
        assert_eq!(pool.take(&[1, 2, 3], 3, 3).unwrap().1, 2);
    }

    #[test]
    fn cached_blocks_that_nobody_holds_do_not_count_as_room_twice() {
        let mut pool = BlockPool::new(2);
        let (ids, _) = pool.take(&[1], 0, 1).unwrap();
        pool.seal(ids[0], 1);
        pool.release(&ids);
        assert!(pool.take(&[1], 1, 3).is_none());
        pool.check(&[]);
        assert_eq!(pool.take(&[1], 1, 2).unwrap().1, 1);
    }

    #[test]
    fn a_shared_block_is_free_only_after_its_last_holder() {
        let mut pool = BlockPool::new(2);
        let (a, _) = pool.take(&[1], 0, 1).unwrap();
        pool.seal(a[0], 1);
        let (b, hits) = pool.take(&[1], 1, 1).unwrap();
        assert_eq!((hits, pool.used()), (1, 1));
        pool.release(&a);
        assert_eq!(pool.used(), 1);
        pool.release(&b);
        assert_eq!(pool.used(), 0);
    }

    #[test]
    fn the_chain_depends_on_what_comes_before() {
        assert_ne!(chain(chain_root(None), &[1, 2]), chain(chain_root(Some("a")), &[1, 2]));
        assert_ne!(chain(1, &[1, 2]), chain(1, &[2, 1]));
    }
}
