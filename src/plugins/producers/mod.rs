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
use crate::scheduling::DecidedCall;

/// The endpoints that will have the prompt in their caches: the first target of the primary profile, and the one that
/// processes the prompt.
pub(super) fn caching_targets<'a>(decided: &DecidedCall<'a>) -> impl Iterator<Item = &'a Arc<Endpoint>> {
    decided.decision.targets().first().into_iter().chain(decided.decision.prefill_target())
}
