//! Series of an index of media embeddings.

use std::collections::HashSet;
use std::sync::Arc;

use prometheus::{Histogram, HistogramVec, IntCounterVec, Registry};

use super::buckets::RATIO;
use super::family::{Definition, Family, Twin};
use crate::pool::{Endpoint, Snapshot};
use crate::request::MediaKind;

const QUERIES: Definition<3> = Definition::new(
    "llm_d_epp_encoder_cache_queries_total",
    "Media items of requests that were looked up.",
    ["plugin_type", "plugin_name", "modality"],
);

const HIT_LABELS: [&str; 4] = ["plugin_type", "plugin_name", "pod", "modality"];

const HITS: Definition<4> = Definition::new(
    "llm_d_epp_encoder_cache_hits_total",
    "Media items of requests whose embeddings the index attributes to an endpoint.",
    HIT_LABELS,
);

const HIT_RATIO: Definition<2> = Definition::new(
    "llm_d_epp_encoder_cache_hit_ratio",
    "Share of a request's media items that the index attributes to an endpoint, for each endpoint.",
    ["plugin_type", "plugin_name"],
)
.buckets(RATIO);

/// The families, shared by all indexes.
pub(super) struct EncoderCacheFamilies {
    queries: Arc<Family<IntCounterVec, 3>>,
    hits: Arc<Family<IntCounterVec, 4>>,
    hit_ratio: Family<HistogramVec, 2>,
}

impl EncoderCacheFamilies {
    pub(super) fn register(registry: &Registry) -> Self {
        Self {
            queries: Arc::new(Family::register(QUERIES, registry)),
            hits: Arc::new(Family::register(HITS, registry)),
            hit_ratio: Family::register(HIT_RATIO, registry),
        }
    }

    pub(super) fn index(&self, kind: &str, name: &str) -> EncoderCacheMetrics {
        EncoderCacheMetrics {
            kind: kind.into(),
            name: name.into(),
            queries: Arc::clone(&self.queries),
            hits: Arc::clone(&self.hits),
            hit_ratio: self.hit_ratio.child([kind, name]),
        }
    }

    pub(super) fn prune_endpoints(&self, snapshot: &Snapshot) {
        let live: HashSet<&str> = snapshot.endpoints().iter().map(|endpoint| &*endpoint.spec().pod).collect();
        for labels in self.hits.children() {
            let values = HIT_LABELS.map(|label| {
                labels.iter().find(|(name, _)| name == label).map_or("", |(_, value)| value.as_str())
            });
            if !live.contains(values[2]) {
                self.hits.remove(values);
            }
        }
    }
}

/// Handles of one index.
#[derive(Clone)]
pub struct EncoderCacheMetrics {
    kind: Box<str>,
    name: Box<str>,
    queries: Arc<Family<IntCounterVec, 3>>,
    hits: Arc<Family<IntCounterVec, 4>>,
    hit_ratio: Twin<Histogram>,
}

impl EncoderCacheMetrics {
    /// Counts an item of a request.
    pub fn query(&self, kind: MediaKind) {
        self.queries.child([&self.kind, &self.name, kind.label()]).inc();
    }

    /// Counts items that `endpoint` should hold.
    pub fn hits(&self, endpoint: &Endpoint, kind: MediaKind, count: u64) {
        self.hits.child([&self.kind, &self.name, &endpoint.spec().pod, kind.label()]).inc_by(count);
    }

    /// Records the share of a request's items that an endpoint should hold, 0..=1.
    pub fn ratio(&self, share: f64) {
        self.hit_ratio.observe(share);
    }
}

impl std::fmt::Debug for EncoderCacheMetrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EncoderCacheMetrics").field("name", &self.name).finish_non_exhaustive()
    }
}
