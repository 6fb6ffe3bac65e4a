//! Parameters of `precise-prefix-cache-producer`.

use std::net::SocketAddr;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use crate::document::scalar::go_duration_ns;
use crate::kvevents::EventSettings;
use crate::plugins::{BuildCx, BuildError};
use crate::prefix::precise::TierWeights;

const DEFAULT_BLOCK_SIZE: u32 = 16;
const DEFAULT_SPECULATION: Duration = Duration::from_secs(2);
const DEFAULT_RETRY: Duration = Duration::from_secs(30);

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Params {
    /// How tokens become blocks.
    pub(super) token_processor_config: TokenProcessor,
    /// Where blocks are kept.
    pub(super) indexer_config: Indexer,
    /// How events are heard.
    pub(super) kv_events_config: Events,
    /// Blocks that were sent count at once, until the engine tells of them or the time is up.
    pub(super) speculative_indexing: bool,
    /// How long they count, as a Go duration; 2s unless set.
    #[serde(rename = "speculativeTTL")]
    pub(super) speculative_ttl: String,
    /// Whether answers are compared with what was predicted, and what follows.
    pub(super) proof: Proof,
    /// Of the bundle with a scorer: without effect, it reads its own matches.
    pub(super) prefix_match_info_producer_name: String,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct TokenProcessor {
    /// Tokens per block of engines that have told nothing yet; 16 unless set.
    pub(super) block_size_tokens: u32,
    /// Old name of `blockSizeTokens`.
    pub(super) block_size: u32,
    /// What keys start from. Keys never leave the process.
    pub(super) hash_seed: String,
    /// `cbor-fnv` or `xxh64`; without effect, for keys never leave the process.
    pub(super) hash_algorithm: String,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Indexer {
    /// Size and place of the index: without effect. All indexes share the bound `--prefix-index-memory`.
    pub(super) kv_block_index_config: Option<Value>,
    /// What a block counts, by the tier that holds it.
    pub(super) kv_cache_backend_configs: Option<Vec<Backend>>,
    /// Tokenizers of earlier releases: without effect, list a `token-producer`.
    pub(super) tokenizers_pool_config: Option<Value>,
    /// Of earlier releases: as above.
    pub(super) token_processor_config: Option<TokenProcessor>,
    /// Of earlier releases: without effect.
    pub(super) prefix_store_config: Option<Value>,
    /// Of earlier releases: without effect.
    pub(super) kv_block_scorer_config: Option<Value>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Backend {
    /// `gpu` or `cpu`; others share one weight.
    pub(super) name: String,
    /// What a block counts there.
    pub(super) weight: f64,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Events {
    /// Start of the topics that are asked for.
    pub(super) topic_filter: String,
    /// Without effect: each engine has a task of its own.
    pub(super) concurrency: i64,
    /// `vllm` or `sglang`; the events of both are read in any case.
    pub(super) engine_type: String,
    /// Address on which engines connect to this process, as `tcp://*:5557`.
    pub(super) zmq_endpoint: String,
    /// Connect to the publisher of each endpoint.
    pub(super) discover_pods: bool,
    /// Ports of the engines.
    pub(super) pod_discovery_config: PodDiscovery,
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
pub(super) struct PodDiscovery {
    /// Port on which engines publish; a pod's further ranks have the ports behind it.
    pub(super) socket_port: u16,
    /// Port on which engines repeat what was missed; 0 if they do not.
    pub(super) replay_socket_port: i64,
    /// Without effect: endpoints are those of the pool.
    pub(super) pod_label_selector: String,
    /// Without effect: endpoints are those of the pool.
    pub(super) pod_namespace: String,
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

/// Whether answers are compared with what was predicted.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Proof {
    /// Compare token counts, cached tokens and cache events with what was predicted.
    pub(super) enabled: bool,
    /// The approximate index decides where there are no exact tokens, or where they have turned out to be wrong.
    pub(super) approximate_fallback: bool,
    /// Shortest time for which exact tokens that were wrong are not used, as a Go duration; 30s unless set. It doubles
    /// each time, up to an hour.
    pub(super) retry_after: String,
}

impl Default for Proof {
    fn default() -> Self {
        Self { enabled: true, approximate_fallback: true, retry_after: String::new() }
    }
}

impl Params {
    /// Tokens per block of engines that have told nothing yet.
    pub(super) fn block_size(&self) -> u32 {
        let older = self.indexer_config.token_processor_config.as_ref();
        let sizes = |tokens: &TokenProcessor| [tokens.block_size_tokens, tokens.block_size];
        let all = sizes(&self.token_processor_config).into_iter().chain(older.into_iter().flat_map(sizes));
        all.into_iter().find(|size| *size > 0).unwrap_or(DEFAULT_BLOCK_SIZE)
    }

    /// What keys start from.
    pub(super) fn hash_seed(&self) -> Result<&str, BuildError> {
        let older = self.indexer_config.token_processor_config.as_ref();
        let tokens = &self.token_processor_config;
        for algorithm in
            [Some(tokens), older].into_iter().flatten().map(|tokens| tokens.hash_algorithm.as_str())
        {
            if !matches!(algorithm, "" | "cbor-fnv" | "xxh64") {
                let text = format!("got {algorithm:?}, expected \"cbor-fnv\" or \"xxh64\"");
                return Err(BuildError::at("tokenProcessorConfig.hashAlgorithm", text));
            }
        }
        let older = older.map(|older| older.hash_seed.as_str()).unwrap_or_default();
        Ok(if tokens.hash_seed.is_empty() { older } else { &tokens.hash_seed })
    }

    /// How long blocks count that were sent, if they do.
    pub(super) fn speculation(&self) -> Result<Option<Duration>, BuildError> {
        let time = duration("speculativeTTL", &self.speculative_ttl, DEFAULT_SPECULATION)?;
        Ok(self.speculative_indexing.then_some(time))
    }

    /// Shortest stay of exact tokens that were wrong out of use.
    pub(super) fn retry_after(&self) -> Result<Duration, BuildError> {
        duration("proof.retryAfter", &self.proof.retry_after, DEFAULT_RETRY)
    }
}

fn duration(parameter: &str, text: &str, default: Duration) -> Result<Duration, BuildError> {
    match text {
        "" => Ok(default),
        text => match go_duration_ns(text).map_err(|problem| BuildError::at(parameter, problem))? {
            ..=0 => Ok(default),
            nanoseconds => Ok(Duration::from_nanos(nanoseconds.unsigned_abs())),
        },
    }
}

pub(super) fn weights(cx: &mut BuildCx<'_>, indexer: &Indexer) -> Result<TierWeights, BuildError> {
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

pub(super) fn event_settings(cx: &mut BuildCx<'_>, events: &Events) -> Result<EventSettings, BuildError> {
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
