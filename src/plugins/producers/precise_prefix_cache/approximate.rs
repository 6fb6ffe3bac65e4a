//! What decides where exact tokens cannot: the blocks that were sent where, as the approximate index keeps them.
//!
//! It learns from every request, so that it knows the engines at the moment when it has to decide.

use std::sync::Arc;

use crate::pool::Endpoint;
use crate::prefix::{
    ApproxIndex, BlockHashes, BlockShape, PrefixMatch, PrefixMemory, block_hashes, token_block_hashes,
};
use crate::request::Tokenized;
use crate::scheduling::{Call, Column, DecidedCall, Produced};

/// Tokens of a block, and blocks of a prompt that are looked at: those of the approximate producer.
const SHAPE: BlockShape = BlockShape { block_size: 64, max_blocks: 2048 };
/// Blocks of an endpoint that does not say how many it has.
const CAPACITY: usize = 31_250;
/// Most blocks of an endpoint, whatever it says.
const MAX_CAPACITY: usize = 1 << 28;

#[derive(Debug)]
pub(super) struct Approximate {
    index: ApproxIndex,
    blocks: Column<BlockHashes>,
}

impl Approximate {
    pub(super) fn new(blocks: Column<BlockHashes>, memory: Arc<PrefixMemory>, seed: u64) -> Self {
        Self { index: ApproxIndex::new(memory, seed), blocks }
    }

    /// How many of these blocks each candidate should hold.
    pub(super) fn matches(&self, call: &Call<'_>, blocks: &BlockHashes) -> Vec<PrefixMatch> {
        let held = self.index.lookup(call.candidates().snapshot(), blocks);
        let (total, block_size) = (blocks.len() as u32, blocks.block_size());
        let candidates = call.candidates();
        let at = |slot| {
            let matched = if held.is_empty() { 0 } else { held.at(candidates.place(slot) as usize) };
            PrefixMatch { matched, total, block_size, cached: matched }
        };
        (0..candidates.len() as u32).map(at).collect()
    }

    /// Keeps the blocks for [`Approximate::record`].
    pub(super) fn column(&self, blocks: BlockHashes) -> Produced {
        Produced::new(self.blocks, vec![blocks])
    }

    /// The request was decided.
    pub(super) fn record(&self, decided: &DecidedCall<'_>) {
        let Some([blocks]) = decided.call.columns().slice(self.blocks) else { return };
        if blocks.is_empty() {
            return;
        }
        for endpoint in super::super::caching_targets(decided) {
            self.index.record(endpoint, capacity(endpoint), blocks);
        }
    }
}

/// The blocks of a request, of its exact tokens where there are any.
pub(super) fn blocks(call: &Call<'_>, tokens: Option<&Tokenized>) -> BlockHashes {
    let request = &call.request;
    if let Some(told) = super::super::told_blocks(request, SHAPE) {
        return told;
    }
    if let Some(tokens) = tokens {
        return token_block_hashes(request.target_model, request.inference, request.body, tokens, SHAPE);
    }
    let media = request.media_rules();
    block_hashes(request.target_model, request.inference, request.body, media, SHAPE)
}

fn capacity(endpoint: &Endpoint) -> usize {
    match endpoint.load().num_blocks() as usize {
        0 => CAPACITY,
        blocks => blocks.min(MAX_CAPACITY),
    }
}
