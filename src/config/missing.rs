//! Plugin types of the reference that this version does not have yet, although configurations that name them can be
//! read and checked.
//!
//! `pointsman check` takes them and says what is not in force. `pointsman serve` refuses them, unless
//! `--allow-missing-plugins` is given: then it starts without them, with a warning, the gauge
//! `pointsman_missing_plugins`, and a line in `/debug/plugins/state` for each.

/// A plugin type that is not built yet.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct MissingType {
    /// Type string.
    pub(super) name: &'static str,
    /// Its role, as error texts name roles.
    pub(super) role: &'static str,
    /// What is not in force without it.
    pub(super) without: &'static str,
    /// Parameters that ask for what is missing; without one of them the type is not missing. Empty: it always is.
    only_with: &'static [&'static str],
    /// Names of its parameters at the top level; `None` if they are not looked at.
    parameters: Option<&'static [&'static str]>,
}

const TYPES: &[MissingType] = &[
    MissingType {
        name: "latency-scorer",
        role: "scorer",
        without: "endpoints get no score for their predicted latency",
        only_with: &[],
        parameters: Some(&[
            "compositeKVWeight",
            "compositePrefixWeight",
            "compositeQueueWeight",
            "headroomSelectionStrategy",
            "latencyPredictionInfoProducerName",
            "prefixMatchInfoProducerName",
            "tpotWeight",
            "ttftWeight",
        ]),
    },
    MissingType {
        name: "latency-slo-admitter",
        role: "admitter",
        without: "sheddable requests are not refused for their predicted latency",
        only_with: &[],
        parameters: Some(&["latencyPredictionInfoProducerName"]),
    },
    MissingType {
        name: "precise-prefix-cache-producer",
        role: "data producer",
        without: "the engines' cache events are not read, so nothing is known of their caches",
        only_with: &[],
        parameters: Some(&[
            "indexerConfig",
            "kvEventsConfig",
            "speculativeIndexing",
            "speculativeTTL",
            "tokenProcessorConfig",
        ]),
    },
    MissingType {
        name: "precise-prefix-cache-scorer",
        role: "scorer",
        without: "the engines' cache events are not read, and no endpoint is preferred for what it caches",
        only_with: &[],
        parameters: Some(&[
            "indexerConfig",
            "kvEventsConfig",
            "prefixMatchInfoProducerName",
            "speculativeIndexing",
            "speculativeTTL",
            "tokenProcessorConfig",
        ]),
    },
    MissingType {
        name: "predicted-latency-producer",
        role: "data producer",
        without: "no latency is predicted",
        only_with: &[],
        parameters: Some(&[
            "contextTTL",
            "encoderCacheMatchInfoProducerName",
            "endpointRoleLabel",
            "inFlightLoadProducerName",
            "maxDecodeTokenSamplesForPrediction",
            "predictInProduce",
            "prefixMatchInfoProducerName",
            "samplingMean",
            "sloBufferFactor",
            "streamingMode",
            "useEncoderCacheFeatures",
        ]),
    },
    MissingType {
        name: "slo-headroom-tier-filter",
        role: "filter",
        without: "endpoints are not sorted by their headroom to the latency objective",
        only_with: &[],
        parameters: Some(&["epsilonExploreNeg", "latencyPredictionInfoProducerName"]),
    },
    MissingType {
        name: "token-producer",
        role: "data producer",
        without: "no tokenizer is asked; the tokens of prompts are estimated, four bytes of text each",
        only_with: &["modelName", "udsTokenizerConfig", "vllm"],
        parameters: Some(&["estimate", "modelName", "udsTokenizerConfig", "vllm"]),
    },
    MissingType {
        name: "tokenizer",
        role: "data producer",
        without: "no tokenizer is asked; the tokens of prompts are estimated, four bytes of text each",
        only_with: &["modelName", "udsTokenizerConfig", "vllm"],
        parameters: Some(&["estimate", "modelName", "udsTokenizerConfig", "vllm"]),
    },
    MissingType {
        name: "burst-prefix-cache-producer",
        role: "data producer",
        without: "requests that come together are not placed by the prefixes they share",
        only_with: &[],
        parameters: Some(&[
            "windowDurationMs",
            "maxPerReplica",
            "blockSizeTokens",
            "maxPrefixTokensToMatch",
            "minColocateBlocks",
            "maxBatchSize",
            "balanceBy",
        ]),
    },
    MissingType {
        name: "dcgm-data-source",
        role: "data source",
        without: "the pages of the DCGM exporter are not read",
        only_with: &[],
        parameters: None,
    },
    MissingType {
        name: "dcgm-extractor",
        role: "extractor",
        without: "nothing is known of GPUs from the DCGM exporter",
        only_with: &[],
        parameters: None,
    },
    MissingType {
        name: "disaggregatedset-rollout-screener",
        role: "screener",
        without: "requests are not kept to one revision while a DisaggregatedSet rolls out",
        only_with: &[],
        parameters: Some(&["scope", "headerSelectors", "revisionGating"]),
    },
    MissingType {
        name: "k8s-notification-source",
        role: "data source",
        without: "objects of other kinds are not watched",
        only_with: &[],
        parameters: None,
    },
    MissingType {
        name: "models-data-extractor",
        role: "extractor",
        without: "the lists of models are not read",
        only_with: &[],
        parameters: None,
    },
    MissingType {
        name: "models-data-source",
        role: "data source",
        without: "the lists of models are not read",
        only_with: &[],
        parameters: None,
    },
    MissingType {
        name: "multicluster-approx-prefix-cache-producer",
        role: "data producer",
        without: "prefixes are not followed over clusters",
        only_with: &[],
        parameters: None,
    },
    MissingType {
        name: "multicluster-file-discovery",
        role: "endpoint discovery",
        without: "endpoints of other clusters are not found",
        only_with: &[],
        parameters: None,
    },
    MissingType {
        name: "multicluster-kv-cache-utilization-scorer",
        role: "scorer",
        without: "other clusters get no score for their caches",
        only_with: &[],
        parameters: None,
    },
    MissingType {
        name: "multicluster-metrics-data-source",
        role: "data source",
        without: "metrics of other clusters are not read",
        only_with: &[],
        parameters: None,
    },
    MissingType {
        name: "multicluster-metrics-extractor",
        role: "extractor",
        without: "metrics of other clusters are not read",
        only_with: &[],
        parameters: None,
    },
    MissingType {
        name: "multicluster-prefix-cache-scorer",
        role: "scorer",
        without: "other clusters get no score for prefixes",
        only_with: &[],
        parameters: None,
    },
    MissingType {
        name: "multicluster-queue-scorer",
        role: "scorer",
        without: "other clusters get no score for their queues",
        only_with: &[],
        parameters: None,
    },
    MissingType {
        name: "multicluster-session-affinity-filter",
        role: "filter",
        without: "sessions are not kept to a cluster",
        only_with: &[],
        parameters: None,
    },
    MissingType {
        name: "probabilistic-admitter",
        role: "admitter",
        without: "sheddable requests are not refused by chance as the pool fills; without flow control they are refused once it is full",
        only_with: &[],
        parameters: Some(&["queueDepthThreshold", "kvCacheUtilThreshold", "power", "k"]),
    },
    MissingType {
        name: "request-attribute-reporter",
        role: "response hook",
        without: "no attribute of a request is written into the metadata",
        only_with: &[],
        parameters: None,
    },
    MissingType {
        name: "topology-affinity-filter",
        role: "filter",
        without: "endpoints far from the other stage are not left out",
        only_with: &[],
        parameters: Some(&["minAffinity", "topologyProducerName"]),
    },
    MissingType {
        name: "topology-affinity-scorer",
        role: "scorer",
        without: "endpoints near the other stage are not preferred",
        only_with: &[],
        parameters: Some(&["topologyProducerName"]),
    },
    MissingType {
        name: "topology-extractor",
        role: "extractor",
        without: "the topology of endpoints is not read",
        only_with: &[],
        parameters: None,
    },
    MissingType {
        name: "vertexai-parser",
        role: "parser",
        without: "bodies of the Vertex AI API are not read; they go on as they are",
        only_with: &[],
        parameters: None,
    },
    MissingType {
        name: "vllmgrpc-parser",
        role: "parser",
        without: "gRPC bodies of vLLM are not read; they go on as they are",
        only_with: &[],
        parameters: None,
    },
    MissingType {
        name: "agent-identity",
        role: "request header hook",
        without: "no session header of an agent becomes the fairness id",
        only_with: &[],
        parameters: Some(&["additionalSessionHeaders"]),
    },
    MissingType {
        name: "context-length-aware",
        role: "filter and scorer",
        without: "endpoints are not chosen by the length of the context",
        only_with: &[],
        parameters: None,
    },
    MissingType {
        name: "destination-endpoint-served-verifier",
        role: "response header hook",
        without: "the endpoint that served is not reported back in a response header",
        only_with: &[],
        parameters: None,
    },
    MissingType {
        name: "endpoint-attribute-filter",
        role: "filter",
        without: "endpoints are not left out by their attributes",
        only_with: &[],
        parameters: None,
    },
    MissingType {
        name: "endpoint-attribute-scorer",
        role: "scorer",
        without: "endpoints get no score for their attributes",
        only_with: &[],
        parameters: None,
    },
    MissingType {
        name: "header-label-affinity-scorer",
        role: "scorer",
        without: "endpoints whose label has the value of a header are not preferred",
        only_with: &[],
        parameters: None,
    },
    MissingType {
        name: "session-affinity-filter",
        role: "filter",
        without: "sessions are not held to their server; session-affinity-scorer with a high weight comes near",
        only_with: &[],
        parameters: None,
    },
    MissingType {
        name: "session-id-producer",
        role: "data producer",
        without: "no session id is read from a header or cookie",
        only_with: &[],
        parameters: Some(&["headerName", "cookieName"]),
    },
    MissingType {
        name: "sglanghttp-parser",
        role: "parser",
        without: "bodies of SGLang's own API are not read; they go on as they are",
        only_with: &[],
        parameters: None,
    },
    MissingType {
        name: "utilization-filter",
        role: "filter",
        without: "endpoints are not left out by their utilization",
        only_with: &[],
        parameters: None,
    },
    MissingType {
        name: "decision-tree-filter",
        role: "filter",
        without: "its tree of filters is not walked; scorers and weights do that today",
        only_with: &[],
        parameters: None,
    },
    MissingType {
        name: "least-kv-cache-filter",
        role: "filter",
        without: "endpoints with fuller caches are not left out; use kv-cache-utilization-scorer",
        only_with: &[],
        parameters: None,
    },
    MissingType {
        name: "least-queue-filter",
        role: "filter",
        without: "endpoints with longer queues are not left out; use queue-scorer",
        only_with: &[],
        parameters: None,
    },
    MissingType {
        name: "lora-affinity-filter",
        role: "filter",
        without: "endpoints without the adapter are not left out; use lora-affinity-scorer",
        only_with: &[],
        parameters: None,
    },
    MissingType {
        name: "low-queue-filter",
        role: "filter",
        without: "endpoints with long queues are not left out; use queue-scorer",
        only_with: &[],
        parameters: None,
    },
];

/// The missing type of this name, as far as its parameters ask for what is missing.
pub(super) fn find(name: &str, parameters: Option<&serde_json::Value>) -> Option<&'static MissingType> {
    let given = |wanted: &&str| {
        let object = parameters.and_then(serde_json::Value::as_object);
        let mut fields = object.into_iter().flatten();
        fields.any(|(name, value)| name.eq_ignore_ascii_case(wanted) && !value.is_null())
    };
    let asks = |missing: &&MissingType| missing.only_with.is_empty() || missing.only_with.iter().any(given);
    TYPES.iter().filter(|missing| missing.name == name).find(asks)
}

/// Names of all missing types.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    TYPES.iter().map(|missing| missing.name)
}

impl MissingType {
    /// Parameters that the type does not have, in any letter case.
    pub(super) fn unknown<'p>(&self, parameters: &'p serde_json::Value) -> Vec<&'p str> {
        let known = |name: &&str| {
            self.parameters.is_none_or(|all| all.iter().any(|known| known.eq_ignore_ascii_case(name)))
        };
        let given = parameters.as_object().into_iter().flat_map(|object| object.keys().map(String::as_str));
        given.filter(|name| !known(name)).collect()
    }
}
