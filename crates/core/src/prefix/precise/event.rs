//! What an engine tells of its cache.

use super::Tier;

/// A part of a block's identity beside its tokens, as an event states it: a salt, a media item, an adapter.
pub type Extra = Box<[u8]>;

/// One event of an engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KvEvent {
    /// Blocks are held from now on.
    Stored(StoredBlocks),
    /// Blocks are not held any more in this tier.
    Removed {
        /// The engine's hashes.
        hashes: Vec<u64>,
        /// Where they were.
        tier: Tier,
    },
    /// Nothing is held any more, in any tier.
    Cleared,
}

/// Consecutive blocks of a prompt that an engine holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoredBlocks {
    /// The engine's hashes, in the order of the prompt.
    pub hashes: Vec<u64>,
    /// The engine's hash of the block before; `None` at the beginning of a prompt.
    pub parent: Option<u64>,
    /// Tokens of all blocks; empty where blocks that are known come into another tier.
    pub tokens: Vec<u32>,
    /// Tokens of one block.
    pub block_size: u32,
    /// Where they are.
    pub tier: Tier,
    /// Name of the LoRA adapter they were made with.
    pub adapter: Option<Box<str>>,
    /// Further parts of the identity of each block; empty, or one list a block.
    pub extras: Vec<Vec<Extra>>,
}

/// What became of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// It was taken in.
    Whole,
    /// It follows a block that the index does not know: an event was missed, or came before the index began.
    UnknownParent,
    /// Its numbers of tokens, hashes and extras do not fit together, or its block size is none.
    Malformed,
    /// The endpoint is not one of the pool's.
    UnknownEndpoint,
}
