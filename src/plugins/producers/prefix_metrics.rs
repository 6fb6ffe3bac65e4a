//! The series that every prefix index shows.

use std::sync::Arc;

use crate::metrics::PrefixIndexMetrics;
use crate::prefix::{PrefixMatch, PrefixMemory};
use crate::scheduling::{Column, DecidedCall};

/// Characters taken to be a token where a match is reported in bytes.
const BYTES_PER_TOKEN: u64 = 4;

/// Shows the size of an index.
pub(super) fn show_size(metrics: &PrefixIndexMetrics, entries: u64, memory: &PrefixMemory) {
    metrics.set_size(entries);
    metrics.set_memory(memory.used(), memory.limit(), memory.forgotten());
}

/// Records how much of the prompt the chosen endpoint holds by these matches.
pub(super) fn observe_chosen(
    metrics: &PrefixIndexMetrics,
    decided: &DecidedCall<'_>,
    matches: Column<PrefixMatch>,
) {
    let matches = decided.call.columns().slice(matches).unwrap_or_default();
    let Some(target) = decided.decision.targets().first() else { return };
    let mut both = decided.call.candidates().iter().zip(matches);
    if let Some((_, prefix)) = both.find(|(endpoint, _)| Arc::ptr_eq(endpoint, target)) {
        let block_bytes = u64::from(prefix.block_size) * BYTES_PER_TOKEN;
        metrics.observe_hit(prefix.matched.into(), prefix.total.into(), block_bytes);
    }
}
