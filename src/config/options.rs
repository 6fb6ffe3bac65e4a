//! What the configuration does not say.

use std::sync::Arc;

use super::carry::Carried;
use crate::metrics::Metrics;
use crate::plugins::Registry;
use crate::prefix::{DEFAULT_PREFIX_MEMORY_BYTES, PrefixMemory};

/// What the configuration does not say.
#[derive(Clone, Debug)]
pub struct LoadOptions {
    /// Types that may still change are accepted.
    pub allow_experimental: bool,
    /// Types that are not built yet are accepted and do nothing; else they are errors.
    pub allow_missing: bool,
    /// Feature gates as `NAME`, `NAME=true` or `NAME=false`, which count over those of the document.
    pub feature_gates: Vec<String>,
    /// Feeds the random choices of plugins.
    pub seed: u64,
    /// Families that plugins take handles from.
    pub metrics: Arc<Metrics>,
    /// Bound of all prefix indexes together.
    pub prefix_memory: Arc<PrefixMemory>,
    /// Plugins of the configuration before, which live on where nothing of them changed.
    pub carried: Option<Arc<Carried>>,
    /// Plugin types there are.
    pub registry: Registry,
}

impl LoadOptions {
    /// Options over the built-in plugin types, without experimental ones.
    pub fn new(metrics: Arc<Metrics>) -> Self {
        Self {
            allow_experimental: false,
            allow_missing: false,
            feature_gates: Vec::new(),
            seed: 0,
            metrics,
            prefix_memory: PrefixMemory::new(DEFAULT_PREFIX_MEMORY_BYTES),
            carried: None,
            registry: crate::plugins::REGISTRY,
        }
    }
}
