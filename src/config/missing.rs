//! Plugin types of the reference that this version does not have yet, although configurations that name them can be read and checked.
//!
//! `pointsman check` takes them and says what is not in force. `pointsman serve` refuses them, unless `--allow-missing-plugins` is given: then it
//! starts without them, with a warning, the gauge `pointsman_missing_plugins`, and a line in `/debug/plugins/state` for each.

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
    /// Names of its parameters at the top level.
    parameters: &'static [&'static str],
}

const TYPES: &[MissingType] = &[
    MissingType {
        name: "latency-scorer",
        role: "scorer",
        without: "endpoints get no score for their predicted latency",
        only_with: &[],
        parameters: &[
            "compositeKVWeight",
            "compositePrefixWeight",
            "compositeQueueWeight",
            "headroomSelectionStrategy",
            "latencyPredictionInfoProducerName",
            "prefixMatchInfoProducerName",
            "tpotWeight",
            "ttftWeight",
        ],
    },
    MissingType {
        name: "latency-slo-admitter",
        role: "admitter",
        without: "sheddable requests are not refused for their predicted latency",
        only_with: &[],
        parameters: &["latencyPredictionInfoProducerName"],
    },
    MissingType {
        name: "precise-prefix-cache-producer",
        role: "data producer",
        without: "the engines' cache events are not read, so nothing is known of their caches",
        only_with: &[],
        parameters: &[
            "indexerConfig",
            "kvEventsConfig",
            "speculativeIndexing",
            "speculativeTTL",
            "tokenProcessorConfig",
        ],
    },
    MissingType {
        name: "precise-prefix-cache-scorer",
        role: "scorer",
        without: "the engines' cache events are not read, and no endpoint is preferred for what it caches",
        only_with: &[],
        parameters: &[
            "indexerConfig",
            "kvEventsConfig",
            "prefixMatchInfoProducerName",
            "speculativeIndexing",
            "speculativeTTL",
            "tokenProcessorConfig",
        ],
    },
    MissingType {
        name: "predicted-latency-producer",
        role: "data producer",
        without: "no latency is predicted",
        only_with: &[],
        parameters: &[
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
        ],
    },
    MissingType {
        name: "slo-headroom-tier-filter",
        role: "filter",
        without: "endpoints are not sorted by their headroom to the latency objective",
        only_with: &[],
        parameters: &["epsilonExploreNeg", "latencyPredictionInfoProducerName"],
    },
    MissingType {
        name: "token-producer",
        role: "data producer",
        without: "no tokenizer is asked; the tokens of prompts are estimated, four bytes of text each",
        only_with: &["modelName", "udsTokenizerConfig", "vllm"],
        parameters: &["estimate", "modelName", "udsTokenizerConfig", "vllm"],
    },
    MissingType {
        name: "tokenizer",
        role: "data producer",
        without: "no tokenizer is asked; the tokens of prompts are estimated, four bytes of text each",
        only_with: &["modelName", "udsTokenizerConfig", "vllm"],
        parameters: &["estimate", "modelName", "udsTokenizerConfig", "vllm"],
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
        let known = |name: &&str| self.parameters.iter().any(|known| known.eq_ignore_ascii_case(name));
        let given = parameters.as_object().into_iter().flat_map(|object| object.keys().map(String::as_str));
        given.filter(|name| !known(name)).collect()
    }
}
