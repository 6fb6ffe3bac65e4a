//! Data producers: one file a plugin.

pub mod approx_prefix_cache;
pub mod burst_prefix_cache;
pub mod inflight_load;
pub mod mm_embeddings_cache;
pub mod p2p_source;
pub mod precise_prefix_cache;
pub mod predicted_latency;
mod prefix_metrics;
pub mod session_id;
pub mod token_producer;

use std::sync::Arc;

use crate::pool::Endpoint;
use crate::prefix::{BlockHashes, BlockShape, ToldPrompt};
use crate::scheduling::{DecidedCall, Finding, RequestView};

/// The endpoints that will have the prompt in their caches: the first target of the primary profile, and the one that
/// processes the prompt.
pub(super) fn caching_targets<'a>(decided: &DecidedCall<'a>) -> impl Iterator<Item = &'a Arc<Endpoint>> {
    decided.decision.targets().first().into_iter().chain(decided.decision.prefill_target())
}

/// The blocks of a prompt of which hashes are told instead of text; `None` for all that is really sent.
pub(super) fn told_blocks(request: &RequestView<'_>, shape: BlockShape) -> Option<BlockHashes> {
    let told = request.findings.iter().find_map(Finding::get::<ToldPrompt>)?;
    let hashes = told.hashes.get(..shape.max_blocks).unwrap_or(&told.hashes);
    Some(BlockHashes::from_chains(shape.block_size, &[hashes]))
}
