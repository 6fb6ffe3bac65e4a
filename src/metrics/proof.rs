//! Series of whether exact tokens and the index of the engines' caches equal what the servers say.

use std::sync::Arc;

use prometheus::{GaugeVec, IntCounterVec, Registry};

use super::cardinality::Limiter;
use super::family::{Definition, Family};

const STATE: Definition<3> = Definition::new(
    "pointsman_prefix_proof_state",
    "1 for the state in which the exact tokens of a model are, on servers of one version, else 0: `unknown`, `exact`, \
     `suspect`, `off` (the approximate index decides).",
    ["model_name", "server_version", "state"],
);

const CHECKS: Definition<3> = Definition::new(
    "pointsman_prefix_proof_checks_total",
    "Comparisons with what servers say, by what was compared and what came of it.",
    ["model_name", "check", "result"],
);

const CACHED: Definition<2> = Definition::new(
    "pointsman_prefix_cached_tokens_total",
    "Prompt tokens that were cached, of answers that report them: as the index predicted, and as the server says.",
    ["model_name", "source"],
);

const FALLBACKS: Definition<2> = Definition::new(
    "pointsman_prefix_fallbacks_total",
    "Requests for which the approximate index decided instead of the engines' events, by why: `no_tokens` (there are \
     no exact tokens), `off` (the proof failed).",
    ["plugin_name", "reason"],
);

const TIERS: Definition<2> = Definition::new(
    "pointsman_prefix_index_blocks",
    "Blocks that engines hold, each counted for every engine, by where they are: `gpu`, `cpu`, `other`, or `sent` (sent \
     and not confirmed yet).",
    ["plugin_name", "tier"],
);

/// The families.
pub(super) struct ProofFamilies {
    state: Family<GaugeVec, 3>,
    checks: Family<IntCounterVec, 3>,
    cached: Family<IntCounterVec, 2>,
    fallbacks: Family<IntCounterVec, 2>,
    tiers: Family<GaugeVec, 2>,
    models: Arc<Limiter>,
}

impl ProofFamilies {
    pub(super) fn register(registry: &Registry, models: Arc<Limiter>) -> Self {
        Self {
            state: Family::register(STATE, registry),
            checks: Family::register(CHECKS, registry),
            cached: Family::register(CACHED, registry),
            fallbacks: Family::register(FALLBACKS, registry),
            tiers: Family::register(TIERS, registry),
            models,
        }
    }
}

/// Handles of the plugin of one name. Clones share them.
#[derive(Clone)]
pub struct ProofMetrics {
    families: Arc<ProofFamilies>,
    plugin: Arc<str>,
}

impl ProofMetrics {
    pub(super) fn new(families: Arc<ProofFamilies>, plugin: &str) -> Self {
        for reason in ["no_tokens", "off"] {
            families.fallbacks.child([plugin, reason]);
        }
        Self { families, plugin: plugin.into() }
    }

    /// Shows that the tokens of `model` on servers of `version` are in the state `now`, of all `states`.
    pub fn state<'s>(
        &self,
        model: &str,
        version: &str,
        now: &str,
        states: impl IntoIterator<Item = &'s str>,
    ) {
        let model = self.families.models.admit(model);
        for state in states {
            self.families.state.child([model, version, state]).set(f64::from(u8::from(state == now)));
        }
    }

    /// Removes the states of servers of a version that there are no more.
    pub fn forget_version<'s>(&self, model: &str, version: &str, states: impl IntoIterator<Item = &'s str>) {
        let model = self.families.models.admit(model);
        for state in states {
            self.families.state.remove([model, version, state]);
        }
    }

    /// Counts a comparison.
    pub fn checked(&self, model: &str, check: &'static str, result: &'static str) {
        self.families.checks.child([self.families.models.admit(model), check, result]).inc();
    }

    /// Counts cached tokens of an answer, as predicted and as the server says.
    pub fn cached(&self, model: &str, predicted: u64, observed: u64) {
        let model = self.families.models.admit(model);
        self.families.cached.child([model, "predicted"]).inc_by(predicted);
        self.families.cached.child([model, "observed"]).inc_by(observed);
    }

    /// Counts a request for which the approximate index decided.
    pub fn fell_back(&self, reason: &'static str) {
        self.families.fallbacks.child([&self.plugin, reason]).inc();
    }

    /// Sets how many blocks are in `tier`.
    pub fn blocks(&self, tier: &'static str, blocks: u64) {
        self.families.tiers.child([&self.plugin, tier]).set(blocks as f64);
    }
}

impl std::fmt::Debug for ProofMetrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ProofMetrics").field("plugin", &self.plugin).finish_non_exhaustive()
    }
}
