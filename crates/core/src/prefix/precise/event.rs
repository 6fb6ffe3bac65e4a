//! Events in which an engine reports its cache.

use super::Tier;

/// A part of a block's identity beside its tokens, as an event states it: a salt, a media item, an adapter.
pub type Extra = Box<[u8]>;

/// One event of an engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KvEvent {
    /// The engine now holds these blocks.
    Stored(StoredBlocks),
    /// The engine no longer holds these blocks in this tier.
    Removed {
        /// The engine's hashes.
        hashes: Vec<u64>,
        /// Tier from which they were removed.
        tier: Tier,
    },
    /// The engine no longer holds any block, in any tier.
    Cleared,
}

/// Consecutive blocks of a prompt that an engine holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoredBlocks {
    /// The engine's hashes, in the order of the prompt.
    pub hashes: Vec<u64>,
    /// The engine's hash of the block before; `None` at the beginning of a prompt.
    pub parent: Option<u64>,
    /// Tokens of all blocks. The list is empty if known blocks come into another tier.
    pub tokens: Vec<u32>,
    /// Tokens of one block.
    pub block_size: u32,
    /// Tier that holds them.
    pub tier: Tier,
    /// Name of the LoRA adapter that computed the blocks.
    pub adapter: Option<Box<str>>,
    /// Further parts of the identity of each block: empty, or one list for each block.
    pub extras: Vec<Vec<Extra>>,
}

/// What the index did with an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// It applied the event.
    Whole,
    /// The event follows a block that the index does not know. An event was missed, or it came before the index began.
    UnknownParent,
    /// The numbers of tokens, hashes and extras do not fit together, or the block size is not valid.
    Malformed,
    /// The pool does not have the endpoint.
    UnknownEndpoint,
}
