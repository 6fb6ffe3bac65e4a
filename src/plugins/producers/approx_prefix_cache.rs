//! `approx-prefix-cache-producer`: says which endpoint should still hold how much of the prompt, from what this process
//! sent where.
//!
//! The prompt is hashed in blocks (see [`crate::prefix`]); the decided request is recorded for the endpoint that gets
//! it, and for that of a profile named `prefill`. Nobody is asked, so eviction by the engine goes unseen, and a request
//! that fails later counts as cached.
//!
//! Block size: what the first candidate reports if `autoTune`, else `blockSizeTokens`; never below 64. When it changes,
//! older entries no longer match. Capacity of an endpoint: its KV-cache blocks if `autoTune` and known when it first
//! gets a request, else `lruCapacityPerServer`. It counts blocks of this index, which are larger than the engine's, so
//! it is generous, as it is in the reference. The memory of all instances has one bound besides
//! ([`crate::prefix::PrefixMemory`]).
//!
//! Produces [`PrefixMatch`] for each candidate (all 0 for requests without a prompt), and the [`BlockHashes`] of the
//! request. Cost: hashing the prompt, about 0.1 ms for 100k tokens, a probe a block until nobody holds one, and a pass
//! over the candidates.

use std::sync::{Arc, OnceLock};

use schemars::JsonSchema;

use serde::Deserialize;
use serde_json::json;
use smallvec::SmallVec;

use super::prefix_metrics::{observe_chosen, show_size};
use crate::metrics::PrefixIndexMetrics;
use crate::plugins::{BuildCx, BuildError, PluginType, Roles, Stability};
use crate::pool::{Endpoint, Snapshot};
use crate::prefix::{
    ApproxIndex, BlockHashes, BlockShape, HeldBlocks, Journal, PrefixMatch, SharedIndex, block_hashes,
    token_block_hashes,
};
use crate::scheduling::{
    Call, Column, DecidedCall, HeaderEdits, PluginState, PreRequest, PreRequestError, Produced, Producer,
    RequestView,
};

/// Registry row.
pub static TYPE: PluginType = PluginType::new("approx-prefix-cache-producer", Stability::Beta, build).about(
    "Estimates how much of the prompt each endpoint holds, from what this process sent where.",
    "Use it, with prefix-cache-scorer, where prompts share beginnings and the engines' own cache events \
         are not at hand. It costs hashing the prompt, about 0.1 ms for 100,000 tokens, and memory up to a \
         bound.",
);

/// Registry row of the producer where endpoints are clusters.
pub static MULTICLUSTER: PluginType = PluginType::new(
    "multicluster-approx-prefix-cache-producer",
    Stability::Alpha,
    build_multicluster,
)
.about(
    "Estimates how much of the prompt each cluster holds, from what this process sent where.",
    "Use it, with multicluster-prefix-cache-scorer, where endpoints are whole clusters. It costs hashing the \
         prompt, about 0.1 ms for 100,000 tokens, and memory up to a bound.",
);

const DEFAULT_BLOCK_SIZE: i64 = 16;
const SMALLEST_BLOCK_SIZE: u32 = 64;
const DEFAULT_CAPACITY: i64 = 31_250;
/// Most entries of an endpoint, whatever is configured.
const MAX_CAPACITY: i64 = 1 << 28;

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Params {
    /// Take block size and capacity from what endpoints report.
    auto_tune: bool,
    /// Tokens per block.
    block_size_tokens: i64,
    /// Old name of `blockSizeTokens`.
    block_size: i64,
    /// Most tokens of a prompt that are matched; 0 leaves the limit to `maxPrefixBlocksToMatch`.
    max_prefix_tokens_to_match: i64,
    /// Most blocks of a prompt that are matched; 0 is no limit.
    max_prefix_blocks_to_match: i64,
    /// Blocks that an endpoint is taken to cache, unless it says.
    lru_capacity_per_server: i64,
    /// Count a reported capacity in tokens: blocks of the endpoint that are smaller than those of the index hold less.
    capacity_in_tokens: bool,
}

impl Default for Params {
    fn default() -> Self {
        Self {
            auto_tune: true,
            block_size_tokens: DEFAULT_BLOCK_SIZE,
            block_size: 0,
            max_prefix_tokens_to_match: 131_072,
            max_prefix_blocks_to_match: 2048,
            lru_capacity_per_server: DEFAULT_CAPACITY,
            capacity_in_tokens: false,
        }
    }
}

fn build(cx: &mut BuildCx<'_>) -> Result<Roles, BuildError> {
    build_as(cx, TYPE.reports_as)
}

fn build_multicluster(cx: &mut BuildCx<'_>) -> Result<Roles, BuildError> {
    build_as(cx, MULTICLUSTER.reports_as)
}

fn build_as(cx: &mut BuildCx<'_>, kind: &'static str) -> Result<Roles, BuildError> {
    let rules = rules(cx)?;
    let plugin = Arc::new(ApproxPrefixCache {
        rules,
        matches: cx.produces(),
        blocks: cx.produces(),
        index: ApproxIndex::new(cx.prefix_memory(), cx.seed()),
        metrics: cx.metrics().prefix_index(kind, cx.name()),
        name: cx.name().into(),
        journal: OnceLock::new(),
    });
    plugin.report();
    let shared = Some(Arc::clone(&plugin) as Arc<dyn SharedIndex>);
    let roles = Roles { follows_endpoints: true, shared_index: shared, ..Roles::default() };
    let kept = Arc::clone(&plugin);
    let roles = roles.state(move || {
        let memory = kept.index.memory();
        json!({
            "entries": kept.index.entries(),
            "memory_bytes": memory.used(),
            "memory_limit_bytes": memory.limit(),
            "forgotten_for_memory": memory.forgotten(),
        })
    });
    Ok(roles.producer(Arc::clone(&plugin) as _).pre_request(plugin))
}

/// The rules that the parameters make.
fn rules(cx: &mut BuildCx<'_>) -> Result<Rules, BuildError> {
    let mut params: Params = cx.params()?;
    if params.block_size != 0 {
        cx.warn("blockSize is deprecated, use blockSizeTokens");
        if params.block_size_tokens == DEFAULT_BLOCK_SIZE {
            params.block_size_tokens = params.block_size;
        }
    }
    if params.block_size_tokens < 1 && !params.auto_tune {
        return Err(BuildError::at("blockSizeTokens", "must be at least 1 where autoTune is false"));
    }
    if params.max_prefix_tokens_to_match < 0 {
        return Err(BuildError::at("maxPrefixTokensToMatch", "must not be negative"));
    }
    let block_size = u32::try_from(params.block_size_tokens.max(0)).unwrap_or(u32::MAX / 4);
    if (1..SMALLEST_BLOCK_SIZE).contains(&block_size) && params.block_size_tokens != DEFAULT_BLOCK_SIZE {
        cx.warn(format!(
            "blockSizeTokens: {block_size} is below {SMALLEST_BLOCK_SIZE}, using {SMALLEST_BLOCK_SIZE}"
        ));
    }
    let limit = match (params.max_prefix_tokens_to_match, params.max_prefix_blocks_to_match) {
        (0, 0) => Limit::None,
        (0, blocks) => Limit::Blocks(usize::try_from(blocks).unwrap_or(0)),
        (tokens, _) => Limit::Tokens(tokens as usize),
    };
    let capacity = match params.lru_capacity_per_server {
        given @ ..1 => {
            cx.warn(format!("lruCapacityPerServer: {given} is below 1, using {DEFAULT_CAPACITY}"));
            DEFAULT_CAPACITY
        }
        capacity => capacity.min(MAX_CAPACITY),
    };
    Ok(Rules {
        auto_tune: params.auto_tune,
        block_size,
        limit,
        capacity: capacity as usize,
        capacity_in_tokens: params.capacity_in_tokens,
    })
}

/// How requests are cut and what endpoints are taken to hold.
#[derive(Debug)]
struct Rules {
    auto_tune: bool,
    /// Tokens per block as configured.
    block_size: u32,
    limit: Limit,
    /// Entries of an endpoint that does not say how many it has.
    capacity: usize,
    /// A reported capacity is counted in tokens.
    capacity_in_tokens: bool,
}

/// How much of a prompt is matched.
#[derive(Debug)]
enum Limit {
    None,
    Blocks(usize),
    Tokens(usize),
}

impl Rules {
    /// Shape of the blocks of a request for these candidates.
    fn shape(&self, call: &Call<'_>) -> BlockShape {
        let reported = call.endpoint(0).map(|endpoint| endpoint.load().block_size());
        let reported = reported.filter(|&size| self.auto_tune && size > 0);
        // Sizes beyond any prompt are cut so that their bytes can still be counted.
        let block_size = reported.unwrap_or(self.block_size).clamp(SMALLEST_BLOCK_SIZE, u32::MAX / 4);
        let max_blocks = match self.limit {
            Limit::None => usize::MAX,
            Limit::Blocks(blocks) => blocks,
            Limit::Tokens(tokens) => tokens / block_size as usize,
        };
        BlockShape { block_size, max_blocks }
    }

    fn capacity(&self, endpoint: &Endpoint) -> usize {
        let load = endpoint.load();
        match load.num_blocks() {
            blocks @ 1.. if self.auto_tune && self.capacity_in_tokens && load.block_size() > 0 => {
                let own = load.block_size().max(SMALLEST_BLOCK_SIZE);
                let tokens = i64::from(blocks) * i64::from(load.block_size());
                (tokens / i64::from(own)).clamp(1, MAX_CAPACITY) as usize
            }
            blocks @ 1.. if self.auto_tune => i64::from(blocks).min(MAX_CAPACITY) as usize,
            _ => self.capacity,
        }
    }
}

#[derive(Debug)]
struct ApproxPrefixCache {
    rules: Rules,
    matches: Column<PrefixMatch>,
    blocks: Column<BlockHashes>,
    index: ApproxIndex,
    metrics: PrefixIndexMetrics,
    name: Box<str>,
    /// Where peers read what was assigned; empty without peers.
    journal: OnceLock<(Arc<Journal>, u16)>,
}

impl ApproxPrefixCache {
    fn report(&self) {
        show_size(&self.metrics, self.index.entries(), self.index.memory());
    }
}

impl Producer for ApproxPrefixCache {
    fn produce(&self, call: &Call<'_>) -> Result<SmallVec<[Produced; 1]>, String> {
        let request = &call.request;
        let shape = self.rules.shape(call);
        let RequestView { target_model: model, inference, body, .. } = *request;
        let blocks = match (super::told_blocks(request, shape), request.tokens) {
            (Some(told), _) => told,
            (None, Some(tokens)) => token_block_hashes(model, inference, body, tokens, shape),
            (None, None) => block_hashes(model, inference, body, request.media_rules(), shape),
        };
        let snapshot = call.candidates().snapshot();
        let held = self.index.lookup(snapshot, &blocks);
        let matches = matches(call, &held, &blocks);
        let mut produced = SmallVec::new();
        produced.push(Produced::new(self.matches, matches));
        produced.push(Produced::new(self.blocks, vec![blocks]));
        Ok(produced)
    }
}

fn matches(call: &Call<'_>, held: &HeldBlocks, blocks: &BlockHashes) -> Vec<PrefixMatch> {
    let nothing =
        PrefixMatch { matched: 0, total: blocks.len() as u32, block_size: blocks.block_size(), cached: 0 };
    let candidates = call.candidates();
    if held.is_empty() {
        return vec![nothing; candidates.len()];
    }
    let at = |slot| {
        let matched = held.at(candidates.place(slot) as usize);
        PrefixMatch { matched, cached: matched, ..nothing }
    };
    (0..candidates.len() as u32).map(at).collect()
}

impl PreRequest for ApproxPrefixCache {
    fn before_forward(
        &self,
        decided: &DecidedCall<'_>,
        _headers: &mut HeaderEdits,
    ) -> Result<PluginState, PreRequestError> {
        let columns = decided.call.columns();
        let Some([blocks]) = columns.slice(self.blocks) else { return Ok(None) };
        if blocks.is_empty() {
            if !decided.call.request.inference.prompt.pieces.is_empty() {
                self.metrics.observe_hit(0, 0, 0);
            }
            return Ok(None);
        }
        for endpoint in super::caching_targets(decided) {
            self.index.record(endpoint, self.rules.capacity(endpoint), blocks);
            if let Some((journal, number)) = self.journal.get() {
                journal.add(*number, endpoint, blocks);
            }
        }
        self.report();
        observe_chosen(&self.metrics, decided, self.matches);
        Ok(None)
    }
}

impl SharedIndex for ApproxPrefixCache {
    fn name(&self) -> &str {
        &self.name
    }

    fn share(&self, journal: &Arc<Journal>, number: u16) {
        let _ = self.journal.set((Arc::clone(journal), number));
    }

    fn follow(&self, snapshot: &Snapshot) {
        self.index.set_endpoints(snapshot);
    }

    fn heard(&self, endpoint: &Endpoint, blocks: &BlockHashes) {
        self.index.record(endpoint, self.rules.capacity(endpoint), blocks);
        self.report();
    }

    fn holds(&self, endpoint: &Endpoint, snapshot: &Snapshot, blocks: &BlockHashes) -> Option<bool> {
        let place = snapshot.endpoints().iter().position(|other| other.id() == endpoint.id())?;
        Some(self.index.lookup(snapshot, blocks).at(place) > 0)
    }
}

#[cfg(test)]
mod tests;
