//! One shard of an index: blocks and their holders.

use super::holders::{HolderSlot, Holders, Rows};
use super::table::{Cell, LinearTable};

/// Number of shards of an index.
pub(super) const SHARDS: usize = 64;

/// Identity of a block within an index: its keyed hash, of which the lowest six bits name the shard instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BlockKey(pub(super) u64);

impl BlockKey {
    /// The shard it lives in.
    pub(super) fn shard(self) -> usize {
        self.0 as usize % SHARDS
    }
}

#[derive(Clone, Copy, Debug)]
struct Block {
    key: BlockKey,
    holders: Holders,
}

impl Cell for Block {
    const VACANT: Self = Self { key: BlockKey(0), holders: Holders::Nobody };
    fn is_vacant(&self) -> bool {
        self.holders == Holders::Nobody
    }
}

fn place(block: &Block) -> u64 {
    block.key.0
}

/// Blocks that somebody holds. 16 bytes each, in a table at least half full while it grows.
#[derive(Debug, Default)]
pub(super) struct Shard {
    blocks: LinearTable<Block>,
    rows: Rows,
}

impl Shard {
    /// Bytes allocated.
    pub(super) fn bytes(&self) -> usize {
        self.blocks.bytes() + self.rows.bytes()
    }

    /// Holders of a block; `Nobody` if it is not here.
    pub(super) fn holders(&self, key: BlockKey) -> Holders {
        match self.blocks.find(key.0, |block| block.key == key) {
            Some(at) => self.blocks.at(at).holders,
            None => Holders::Nobody,
        }
    }

    /// Bits of a row that [`Shard::holders`] named.
    pub(super) fn words(&self, row: u32) -> &[u64] {
        self.rows.words(row)
    }

    /// Makes `slot` a holder of the block.
    pub(super) fn hold(&mut self, key: BlockKey, slot: HolderSlot) {
        if let Some(at) = self.blocks.find(key.0, |block| block.key == key) {
            let block = self.blocks.at_mut(at);
            block.holders = self.rows.with(block.holders, slot);
        } else {
            self.blocks.insert(key.0, Block { key, holders: Holders::One(slot) }, place);
        }
    }

    /// Makes `slot` no holder of the block.
    pub(super) fn release(&mut self, key: BlockKey, slot: HolderSlot) {
        let Some(at) = self.blocks.find(key.0, |block| block.key == key) else { return };
        let left = self.rows.without(self.blocks.at(at).holders, slot);
        if left == Holders::Nobody {
            self.blocks.remove(at, place);
        } else {
            self.blocks.at_mut(at).holders = left;
        }
    }

    /// Gives memory back if most of it is unused.
    pub(super) fn shrink(&mut self) {
        self.blocks.shrink(place);
    }
}
