//! `precise-prefix-cache-producer`: says how much of the prompt each endpoint holds, by what the engines tell of their
//! caches. `precise-prefix-cache-scorer`: the same with a scorer of its own, as earlier releases have it.
//!
//! The engines publish each block that they store and remove; the index keeps them ([`crate::prefix::precise`]). The
//! request's exact tokens, which a `token-producer` finds out before or the prompt itself gives, are cut into blocks of
//! the engine's own size, so
//! that `blockSizeTokens` counts only for engines that have told nothing yet. Without exact tokens nothing is produced.
//!
//! Produces [`PrefixMatch`] for each candidate: the blocks it holds from the beginning of the prompt on, those outside
//! of the accelerator's memory by the weight of their tier. Cost: hashing the tokens, and a probe a block until none of
//! the candidates holds one.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;
use smallvec::SmallVec;

use super::prefix_metrics::{observe_chosen, show_size};
use crate::document::scalar::go_duration_ns;
use crate::kvevents::{EventListener, EventSettings};
use crate::metrics::PrefixIndexMetrics;
use crate::plugins::{BuildCx, BuildError, PluginType, Roles, Stability};
use crate::pool::Endpoint;
use crate::prefix::PrefixMatch;
use crate::prefix::precise::{PreciseIndex, PromptKeys, TierWeights};
use crate::request::{Piece, Tokenized, TokenizedPrompt, token_ids};
use crate::scheduling::{
    Call, Category, Column, DecidedCall, HeaderEdits, PluginState, PreRequest, PreRequestError, Produced,
    Producer, RequestView, Scorer,
};

/// Registry row.
pub static TYPE: PluginType = PluginType::new("precise-prefix-cache-producer", Stability::Beta, build).about(
    "Says how much of the prompt each endpoint holds, by the cache events that the engines publish.",
    "Use it, with prefix-cache-scorer and a token-producer that makes exact tokens, where engines publish \
     their cache events and caches turn over fast. It costs memory for every cached block of the pool, and a \
     probe a block of the prompt.",
);

/// Registry row of the bundle with a scorer.
pub static SCORER: PluginType = PluginType::new("precise-prefix-cache-scorer", Stability::Beta, build_scorer)
    .about(
        "Prefers endpoints that hold more of the prompt, by the cache events that the engines publish.",
        "Use precise-prefix-cache-producer and prefix-cache-scorer in new configurations; this is both in one. \
         It costs what they cost.",
    );

const DEFAULT_BLOCK_SIZE: u32 = 16;
const DEFAULT_SPECULATION: Duration = Duration::from_secs(2);
/// Different block sizes among the candidates that are looked at.
const MAX_SIZES: usize = 4;
/// Prompts of a request that are looked at, and tokens of those that the client sends as ids.
const MAX_PROMPTS: usize = 1024;
const MAX_TOKENS: usize = 1 << 20;

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Params {
    /// How tokens become blocks.
    token_processor_config: TokenProcessor,
    /// Where blocks are kept.
    indexer_config: Indexer,
    /// How events are heard.
    kv_events_config: Events,
    /// Blocks that were sent count at once, until the engine tells of them or the time is up.
    speculative_indexing: bool,
    /// How long they count, as a Go duration; 2s unless set.
    #[serde(rename = "speculativeTTL")]
    speculative_ttl: String,
    /// Of the bundle with a scorer: without effect, it reads its own matches.
    prefix_match_info_producer_name: String,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct TokenProcessor {
    /// Tokens per block of engines that have told nothing yet; 16 unless set.
    block_size_tokens: u32,
    /// Old name of `blockSizeTokens`.
    block_size: u32,
    /// What keys start from. Keys never leave the process.
    hash_seed: String,
    /// `cbor-fnv` or `xxh64`; without effect, for keys never leave the process.
    hash_algorithm: String,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Indexer {
    /// Size and place of the index: without effect. All indexes share the bound `--prefix-index-memory`.
    kv_block_index_config: Option<Value>,
    /// What a block counts, by the tier that holds it.
    kv_cache_backend_configs: Option<Vec<Backend>>,
    /// Tokenizers of earlier releases: without effect, list a `token-producer`.
    tokenizers_pool_config: Option<Value>,
    /// Of earlier releases: as above.
    token_processor_config: Option<TokenProcessor>,
    /// Of earlier releases: without effect.
    prefix_store_config: Option<Value>,
    /// Of earlier releases: without effect.
    kv_block_scorer_config: Option<Value>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Backend {
    /// `gpu` or `cpu`; others share one weight.
    name: String,
    /// What a block counts there.
    weight: f64,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Events {
    /// Start of the topics that are asked for.
    topic_filter: String,
    /// Without effect: each engine has a task of its own.
    concurrency: i64,
    /// `vllm` or `sglang`; the events of both are read in any case.
    engine_type: String,
    /// Address on which engines connect to this process, as `tcp://*:5557`.
    zmq_endpoint: String,
    /// Connect to the publisher of each endpoint.
    discover_pods: bool,
    /// Ports of the engines.
    pod_discovery_config: PodDiscovery,
}

impl Default for Events {
    fn default() -> Self {
        Self {
            topic_filter: "kv@".to_owned(),
            concurrency: 4,
            engine_type: String::new(),
            zmq_endpoint: String::new(),
            discover_pods: true,
            pod_discovery_config: PodDiscovery::default(),
        }
    }
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct PodDiscovery {
    /// Port on which engines publish; a pod's further ranks have the ports behind it.
    socket_port: u16,
    /// Port on which engines repeat what was missed; 0 if they do not.
    replay_socket_port: i64,
    /// Without effect: endpoints are those of the pool.
    pod_label_selector: String,
    /// Without effect: endpoints are those of the pool.
    pod_namespace: String,
}

impl Default for PodDiscovery {
    fn default() -> Self {
        Self {
            socket_port: 5557,
            replay_socket_port: 0,
            pod_label_selector: String::new(),
            pod_namespace: String::new(),
        }
    }
}

fn build(cx: &mut BuildCx<'_>) -> Result<Roles, BuildError> {
    Ok(roles(cx, TYPE.reports_as)?.0)
}

fn build_scorer(cx: &mut BuildCx<'_>) -> Result<Roles, BuildError> {
    let (roles, matches) = roles(cx, SCORER.reports_as)?;
    Ok(roles.scorer(Arc::new(ByMatch(matches))))
}

fn roles(cx: &mut BuildCx<'_>, kind: &'static str) -> Result<(Roles, Column<PrefixMatch>), BuildError> {
    let params: Params = cx.params()?;
    let events = event_settings(cx, &params.kv_events_config)?;
    let weights = weights(cx, &params.indexer_config)?;
    let older = params.indexer_config.token_processor_config.unwrap_or_default();
    let tokens = &params.token_processor_config;
    let algorithm = [&tokens.hash_algorithm, &older.hash_algorithm];
    if let Some(wrong) =
        algorithm.into_iter().find(|name| !matches!(name.as_str(), "" | "cbor-fnv" | "xxh64"))
    {
        let text = format!("got {wrong:?}, expected \"cbor-fnv\" or \"xxh64\"");
        return Err(BuildError::at("tokenProcessorConfig.hashAlgorithm", text));
    }
    let sizes = [tokens.block_size_tokens, tokens.block_size, older.block_size_tokens, older.block_size];
    let block_size = sizes.into_iter().find(|size| *size > 0).unwrap_or(DEFAULT_BLOCK_SIZE);
    let seed = if tokens.hash_seed.is_empty() { &older.hash_seed } else { &tokens.hash_seed };
    let speculation = match params.speculative_ttl.as_str() {
        "" => DEFAULT_SPECULATION,
        text => match go_duration_ns(text).map_err(|problem| BuildError::at("speculativeTTL", problem))? {
            ..=0 => DEFAULT_SPECULATION,
            nanoseconds => Duration::from_nanos(nanoseconds.unsigned_abs()),
        },
    };
    let index = Arc::new(PreciseIndex::new(cx.prefix_memory(), seed, weights, cx.seed()));
    let listener = EventListener::new(events, Arc::clone(&index), cx.metrics().kv_events());
    let matches = cx.produces();
    let plugin = Arc::new(PrecisePrefixCache {
        matches,
        index,
        block_size,
        speculation: params.speculative_indexing.then_some(speculation),
        metrics: cx.metrics().prefix_index(kind, cx.name()),
    });
    plugin.report();
    let roles = Roles { follows_endpoints: true, kv_events: Some(Arc::new(listener)), ..Roles::default() };
    Ok((roles.producer(Arc::clone(&plugin) as _).pre_request(plugin), matches))
}

fn weights(cx: &mut BuildCx<'_>, indexer: &Indexer) -> Result<TierWeights, BuildError> {
    if indexer.kv_block_index_config.is_some() {
        cx.warn("indexerConfig.kvBlockIndexConfig has no effect: the index is in this process, within --prefix-index-memory");
    }
    if indexer.tokenizers_pool_config.is_some() {
        cx.warn(
            "indexerConfig.tokenizersPoolConfig has no effect: list a token-producer that makes exact tokens",
        );
    }
    let mut weights = TierWeights::default();
    for (at, backend) in indexer.kv_cache_backend_configs.iter().flatten().enumerate() {
        if !(0.0..=1000.0).contains(&backend.weight) {
            let path = format!("indexerConfig.kvCacheBackendConfigs[{at}].weight");
            return Err(BuildError::at(path, format!("got {}, expected 0 to 1000", backend.weight)));
        }
        match backend.name.to_ascii_lowercase().as_str() {
            "gpu" => weights.gpu = backend.weight,
            "cpu" => weights.cpu = backend.weight,
            _ => weights.other = backend.weight,
        }
    }
    Ok(weights)
}

fn event_settings(cx: &mut BuildCx<'_>, events: &Events) -> Result<EventSettings, BuildError> {
    if !matches!(events.engine_type.as_str(), "" | "vllm" | "sglang") {
        let text = format!("got {:?}, expected \"vllm\" or \"sglang\"", events.engine_type);
        return Err(BuildError::at("kvEventsConfig.engineType", text));
    }
    let listen = match events.zmq_endpoint.as_str() {
        "" => None,
        text => Some(listen_address(text).ok_or_else(|| {
            let text = format!("got {text:?}, expected an address to listen on such as tcp://*:5557");
            BuildError::at("kvEventsConfig.zmqEndpoint", text)
        })?),
    };
    let pods = &events.pod_discovery_config;
    if events.discover_pods && pods.socket_port == 0 {
        let text = "got 0, expected a port from 1 to 65535";
        return Err(BuildError::at("kvEventsConfig.podDiscoveryConfig.socketPort", text));
    }
    if !events.discover_pods && listen.is_none() {
        cx.warn(
            "kvEventsConfig: discoverPods is false and zmqEndpoint is not set, so that no events are heard",
        );
    }
    let replay_port = match pods.replay_socket_port {
        ..=0 => None,
        port => Some(u16::try_from(port).map_err(|_| {
            let text = format!("got {port}, expected a port from 1 to 65535, or 0 for none");
            BuildError::at("kvEventsConfig.podDiscoveryConfig.replaySocketPort", text)
        })?),
    };
    Ok(EventSettings {
        topic: events.topic_filter.clone(),
        publisher_port: events.discover_pods.then_some(pods.socket_port),
        replay_port,
        listen,
    })
}

/// `tcp://HOST:PORT`, where `*` is every address of the machine.
fn listen_address(text: &str) -> Option<SocketAddr> {
    let address = text.strip_prefix("tcp://")?;
    match address.strip_prefix("*:") {
        Some(port) => Some((std::net::Ipv6Addr::UNSPECIFIED, port.parse().ok()?).into()),
        None => address.parse().ok(),
    }
}

#[derive(Debug)]
struct PrecisePrefixCache {
    matches: Column<PrefixMatch>,
    index: Arc<PreciseIndex>,
    /// Of engines that have told nothing yet.
    block_size: u32,
    /// How long what was sent counts, if it does.
    speculation: Option<Duration>,
    metrics: PrefixIndexMetrics,
}

impl PrecisePrefixCache {
    fn report(&self) {
        show_size(&self.metrics, self.index.entries(), self.index.memory());
    }

    /// Keys of the request's prompts in blocks of this size.
    fn keys(&self, request: &RequestView<'_>, tokens: &Tokenized, block_size: u32) -> Vec<PromptKeys> {
        let salt = request.inference.cache_salt.as_ref().map(|salt| salt.text(request.body));
        let name = self.index.adapter(request.target_model);
        let salt = salt.unwrap_or_default();
        let keys = self.index.keys();
        let prompts = tokens.prompts.iter().take(MAX_PROMPTS);
        prompts.map(|prompt| keys.of_prompt(name, prompt, &salt, block_size)).collect()
    }

    /// Tokens of a block of each of these endpoints.
    fn sizes(&self, endpoints: &[&Endpoint]) -> Vec<u32> {
        let told = self.index.block_sizes(endpoints).into_iter();
        told.map(|size| size.unwrap_or(self.block_size)).collect()
    }

    /// The request was decided: its blocks will soon be on the endpoints that process it.
    fn expect(&self, decided: &DecidedCall<'_>, until: Instant) {
        let request = &decided.call.request;
        let Some(tokens) = exact_tokens(request) else { return };
        let endpoints: SmallVec<[&Endpoint; 2]> =
            super::caching_targets(decided).map(AsRef::as_ref).collect();
        for (endpoint, size) in endpoints.iter().zip(self.sizes(&endpoints)) {
            self.index.sent(endpoint, &self.keys(request, &tokens, size), until);
        }
    }
}

impl Producer for PrecisePrefixCache {
    fn produce(&self, call: &Call<'_>) -> Result<SmallVec<[Produced; 1]>, String> {
        let mut produced = SmallVec::new();
        let Some(tokens) = exact_tokens(&call.request) else { return Ok(produced) };
        let candidates: Vec<&Endpoint> = call.candidates().iter().map(AsRef::as_ref).collect();
        let sizes = self.sizes(&candidates);
        let mut distinct: SmallVec<[u32; MAX_SIZES]> = SmallVec::new();
        for size in &sizes {
            if !distinct.contains(size) && distinct.len() < MAX_SIZES {
                distinct.push(*size);
            }
        }
        let mut matches = vec![PrefixMatch::default(); candidates.len()];
        for size in distinct {
            let keys = self.keys(&call.request, &tokens, size);
            let total = keys.iter().map(|prompt| prompt.0.len() as u32).sum();
            let places: Vec<usize> = (0..candidates.len()).filter(|at| sizes[*at] == size).collect();
            let endpoints: Vec<&Endpoint> = places.iter().map(|at| candidates[*at]).collect();
            let held = self.index.lookup(&endpoints, &keys);
            for (at, held) in places.into_iter().zip(held) {
                // Of a block that counts in part, the part is lost, as in the reference.
                let matched = held.weight.clamp(0.0, f64::from(total)) as u32;
                matches[at] = PrefixMatch { matched, total, block_size: size, cached: held.blocks };
            }
        }
        produced.push(Produced::new(self.matches, matches));
        Ok(produced)
    }
}

impl PreRequest for PrecisePrefixCache {
    fn before_forward(
        &self,
        decided: &DecidedCall<'_>,
        _headers: &mut HeaderEdits,
    ) -> Result<PluginState, PreRequestError> {
        if let Some(until) = self.speculation.and_then(|time| Instant::now().checked_add(time)) {
            self.expect(decided, until);
        }
        self.report();
        observe_chosen(&self.metrics, decided, self.matches);
        Ok(None)
    }
}

/// The exact tokens of a request: those that somebody found out, or the prompt itself if it is token ids.
fn exact_tokens<'c>(request: &RequestView<'c>) -> Option<Cow<'c, Tokenized>> {
    if let Some(tokens) = request.tokens {
        return Some(Cow::Borrowed(tokens));
    }
    let pieces = &request.inference.prompt.pieces;
    if pieces.is_empty() {
        return None;
    }
    let mut prompts = vec![TokenizedPrompt::default()];
    let mut room = MAX_TOKENS;
    for piece in pieces {
        match piece {
            Piece::Tokens(range) => {
                let prompt = &mut prompts.last_mut()?.ids;
                let before = prompt.len();
                prompt.extend(token_ids(request.body, range.clone()).take(room));
                room -= prompt.len() - before;
            }
            Piece::NextPrompt if prompts.len() == MAX_PROMPTS => break,
            Piece::NextPrompt => prompts.push(TokenizedPrompt::default()),
            _ => return None,
        }
    }
    Some(Cow::Owned(Tokenized { prompts }))
}

/// Prefers endpoints by their share of the prompt.
#[derive(Debug)]
struct ByMatch(Column<PrefixMatch>);

impl Scorer for ByMatch {
    fn category(&self) -> Category {
        Category::Affinity
    }

    fn score(&self, call: &Call<'_>, out: &mut [f64]) {
        let Some(matches) = call.column(self.0) else { return };
        for (score, prefix) in out.iter_mut().zip(matches) {
            *score = prefix.fraction();
        }
    }
}
