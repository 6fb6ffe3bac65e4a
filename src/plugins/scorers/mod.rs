//! Scorers: one file a plugin.
//!
//! Those that read scraped figures see what the last scrape of each endpoint found, however old, and 0 for an endpoint
//! that was never scraped, which therefore looks idle and empty, as it does to the reference. Keeping such endpoints
//! out is the saturation detector's affair.

pub mod active_request;
pub mod context_length_aware;
pub mod endpoint_attribute;
pub mod header_label_affinity;
pub mod kv_block_cost;
pub mod kv_cache_utilization;
pub mod latency;
pub mod lmetric;
pub mod load_aware;
pub mod lora_affinity;
pub mod mm_embeddings_cache;
pub mod multicluster_load;
pub mod no_hit_lru;
pub mod outstanding_requests;
pub mod prefill_wait;
pub mod prefix_cache;
pub mod prefix_home;
pub mod queue;
pub mod running_requests_size;
pub mod session_affinity;
pub mod token_load;

use std::sync::Arc;

use crate::plugins::prompt_size::prompt_size;
use crate::pool::Endpoint;
use crate::prefix::PrefixMatch;
use crate::scheduling::{Call, Column};

/// Scores `(max − x) / (max − min)` for a figure of which less is better; 1 for all if all are equal.
fn least_is_best(call: &Call<'_>, out: &mut [f64], figure: impl Fn(&Arc<Endpoint>) -> u64) {
    let (mut least, mut most) = (u64::MAX, 0);
    for (score, endpoint) in out.iter_mut().zip(call.endpoints()) {
        let value = figure(endpoint);
        (least, most) = (least.min(value), most.max(value));
        // Kept for the second pass: a scrape may change the figure in between.
        *score = value as f64;
    }
    if most <= least {
        out.fill(1.0);
        return;
    }
    let range = (most - least) as f64;
    for score in out {
        *score = (most as f64 - *score) / range;
    }
}

/// Turns figures of which less is better into scores: `(max − x) / (max − min)`, or 1 for all if all are equal.
fn lowest_is_best(figures: &mut [f64]) {
    let least = figures.iter().copied().fold(f64::INFINITY, f64::min);
    let most = figures.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    for figure in figures {
        *figure = if most > least { (most - *figure) / (most - least) } else { 1.0 };
    }
}

/// Tokens of the prompt that each endpoint would have to compute: those of blocks that are not matched there, or the
/// whole prompt where nothing produces matches.
fn uncached_tokens(call: &Call<'_>, matches: Column<PrefixMatch>, out: &mut [f64]) {
    if let Some(matches) = call.column(matches) {
        for (tokens, held) in out.iter_mut().zip(matches) {
            *tokens = f64::from(held.total.saturating_sub(held.matched)) * f64::from(held.block_size);
        }
    } else {
        out.fill(prompt_size(&call.request) as f64);
    }
}
