//! Series of a prefix index.

use prometheus::{Gauge, GaugeVec, Histogram, HistogramVec, Registry};

use super::buckets::{PREFIX_BYTES, RATIO};
use super::family::{Definition, Family, Twin};

const LABELS: [&str; 2] = ["plugin_name", "plugin_type"];

const SIZE: Definition<2> = Definition::new(
    "llm_d_epp_prefix_indexer_size",
    "Entries of a prefix index, over all endpoints.",
    LABELS,
)
.legacy("inference_extension_prefix_indexer_size", &[]);

const HIT_RATIO: Definition<2> = Definition::new(
    "llm_d_epp_prefix_indexer_hit_ratio",
    "Share of a prompt that the index attributes to the chosen endpoint.",
    LABELS,
)
.legacy("inference_extension_prefix_indexer_hit_ratio", &[])
.buckets(RATIO);

const HIT_BYTES: Definition<2> = Definition::new(
    "llm_d_epp_prefix_indexer_hit_bytes",
    "Bytes of a prompt that the index attributes to the chosen endpoint, an estimate.",
    LABELS,
)
.legacy("inference_extension_prefix_indexer_hit_bytes", &[])
.buckets(PREFIX_BYTES);

const MEMORY: Definition<0> = Definition::new(
    "pointsman_prefix_index_memory_bytes",
    "Memory of all prefix indexes together, in bytes.",
    [],
);

const MEMORY_LIMIT: Definition<0> = Definition::new(
    "pointsman_prefix_index_memory_limit_bytes",
    "Bound of the memory of all prefix indexes together, in bytes.",
    [],
);

const FORGOTTEN: Definition<0> = Definition::new(
    "pointsman_prefix_index_forgotten_entries",
    "Entries of prefix indexes that were forgotten because of the memory bound, since the start.",
    [],
);

/// The families, shared by all indexes.
pub(super) struct PrefixFamilies {
    size: Family<GaugeVec, 2>,
    hit_ratio: Family<HistogramVec, 2>,
    hit_bytes: Family<HistogramVec, 2>,
    memory: Family<GaugeVec, 0>,
    memory_limit: Family<GaugeVec, 0>,
    forgotten: Family<GaugeVec, 0>,
}

impl PrefixFamilies {
    pub(super) fn register(registry: &Registry) -> Self {
        Self {
            size: Family::register(SIZE, registry),
            hit_ratio: Family::register(HIT_RATIO, registry),
            hit_bytes: Family::register(HIT_BYTES, registry),
            memory: Family::register(MEMORY, registry),
            memory_limit: Family::register(MEMORY_LIMIT, registry),
            forgotten: Family::register(FORGOTTEN, registry),
        }
    }

    pub(super) fn index(&self, kind: &str, name: &str) -> PrefixIndexMetrics {
        let labels = [name, kind];
        PrefixIndexMetrics {
            size: self.size.child(labels),
            hit_ratio: self.hit_ratio.child(labels),
            hit_bytes: self.hit_bytes.child(labels),
            memory_bytes: self.memory.child([]),
            memory_limit_bytes: self.memory_limit.child([]),
            forgotten: self.forgotten.child([]),
        }
    }
}

/// Handles of one prefix index, under the current and the legacy names.
#[derive(Clone, Debug)]
pub struct PrefixIndexMetrics {
    size: Twin<Gauge>,
    hit_ratio: Twin<Histogram>,
    hit_bytes: Twin<Histogram>,
    memory_bytes: Twin<Gauge>,
    memory_limit_bytes: Twin<Gauge>,
    forgotten: Twin<Gauge>,
}

impl PrefixIndexMetrics {
    /// Sets the number of (block, endpoint) entries in the index. The legacy series has no labels, so of several
    /// indexes the last writer shows.
    pub fn set_size(&self, entries: u64) {
        self.size.set(entries as f64);
    }

    /// Sets the memory that all indexes use together, and its bound, in bytes; and how many entries were ever forgotten
    /// because of it.
    pub fn set_memory(&self, bytes: u64, limit: u64, forgotten: u64) {
        self.memory_bytes.set(bytes as f64);
        self.memory_limit_bytes.set(limit as f64);
        self.forgotten.set(forgotten as f64);
    }

    /// Records what the chosen endpoint held: `matched` of `total` blocks of `block_bytes` bytes each. Of a prompt
    /// without a whole block there is no share, only that nothing was held.
    pub fn observe_hit(&self, matched: u64, total: u64, block_bytes: u64) {
        if total > 0 {
            self.hit_ratio.observe(matched as f64 / total as f64);
        }
        self.hit_bytes.observe(matched.saturating_mul(block_bytes) as f64);
    }
}
