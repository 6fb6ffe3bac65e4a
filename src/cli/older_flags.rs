//! Flags of released versions of the reference that exist no more: one table of flags, and one of names.

/// The way in which a flag takes its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Takes {
    /// The next word, whatever it is.
    Text,
    /// True when it stands alone; else `=true`, `=false`, or such a word behind it.
    Switch,
}

/// The effect that a flag still has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Does {
    /// The effect that it always had. The text says where to write it today.
    Same(&'static str),
    /// None. With one of these values nothing is lost, and no warning is due. The text says what is not in force.
    Nothing(&'static [&'static str], &'static str),
}

/// A flag that a released version of the reference had, or one of its branches, and that is no flag of
/// [`super::ServeFlags`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct OlderFlag {
    /// Its name, without dashes in front.
    pub(super) name: &'static str,
    /// Its kind of value.
    pub(super) takes: Takes,
    /// Its effect.
    pub(super) does: Does,
}

impl OlderFlag {
    /// The flag of this name.
    pub(super) fn named(name: &str) -> Option<&'static Self> {
        OLDER_FLAGS.iter().find(|flag| flag.name == name)
    }

    /// The warning for the flag as `spelled` with `value`; `None` if nothing is lost.
    pub(super) fn warning(&self, spelled: &str, value: &str) -> Option<String> {
        match self.does {
            Does::Same(today) => Some(format!("flag --{spelled} is deprecated; use {today}")),
            Does::Nothing(harmless, _) if harmless.contains(&value) => None,
            Does::Nothing(_, lost) => Some(format!("flag --{spelled} has no effect: {lost}")),
        }
    }
}

const fn same(name: &'static str, takes: Takes, today: &'static str) -> OlderFlag {
    OlderFlag { name, takes, does: Does::Same(today) }
}

const fn nothing(
    name: &'static str,
    takes: Takes,
    harmless: &'static [&'static str],
    lost: &'static str,
) -> OlderFlag {
    OlderFlag { name, takes, does: Does::Nothing(harmless, lost) }
}

const NO_SHARED_STATE: &str =
    "replicas share no state here; each counts its own requests, and --epp-mode classic is what runs";

/// The flags. The values of those that still do something are applied by `overrides`.
pub(super) const OLDER_FLAGS: &[OlderFlag] = &[
    // Model-server metrics, up to 1.5 and 0.8.
    same(
        "total-queued-requests-metric",
        Takes::Text,
        "engineConfigs[].queuedRequestsSpec of core-metrics-extractor",
    ),
    same(
        "total-running-requests-metric",
        Takes::Text,
        "engineConfigs[].runningRequestsSpec of core-metrics-extractor",
    ),
    same(
        "kv-cache-usage-percentage-metric",
        Takes::Text,
        "engineConfigs[].kvUsageSpec of core-metrics-extractor",
    ),
    same("lora-info-metric", Takes::Text, "engineConfigs[].loraSpec of core-metrics-extractor"),
    same("cache-info-metric", Takes::Text, "engineConfigs[].cacheInfoSpec of core-metrics-extractor"),
    same("model-server-metrics-port", Takes::Text, "port of metrics-data-source"),
    same("model-server-metrics-path", Takes::Text, "path of metrics-data-source"),
    same("model-server-metrics-scheme", Takes::Text, "scheme of metrics-data-source"),
    same(
        "model-server-metrics-https-insecure-skip-verify",
        Takes::Switch,
        "insecureSkipVerify of metrics-data-source",
    ),
    same("engine-label-key", Takes::Text, "engineLabelKey of core-metrics-extractor"),
    nothing(
        "enable-multi-engine",
        Takes::Switch,
        &["true"],
        "engines are always told apart, by the label that engineLabelKey of core-metrics-extractor names",
    ),
    // Where the choice is written, up to 1.0.
    nothing(
        "destination-endpoint-hint-key",
        Takes::Text,
        &["x-gateway-destination-endpoint"],
        "the key is always x-gateway-destination-endpoint",
    ),
    nothing(
        "destination-endpoint-hint-metadata-namespace",
        Takes::Text,
        &["envoy.lb"],
        "the namespace is always envoy.lb",
    ),
    nothing(
        "fairness-id-header-key",
        Takes::Text,
        &["x-gateway-inference-fairness-id", "x-llm-d-inference-fairness-id"],
        "the fairness id is read from x-llm-d-inference-fairness-id and x-gateway-inference-fairness-id",
    ),
    // Branches and newer versions, of features that do not exist here.
    nothing(
        "enable-latency-predictor",
        Takes::Switch,
        &["false"],
        "latencies are predicted where the configuration lists predicted-latency-producer and latency-scorer",
    ),
    nothing(
        "plugin-state-staleness-threshold",
        Takes::Text,
        &[],
        "what a request holds is given back when its stream ends, however long that takes; --stream-idle-timeout ends silent streams",
    ),
    nothing("epp-mode", Takes::Text, &["", "classic"], NO_SHARED_STATE),
    nothing("state-api-port", Takes::Text, &[], NO_SHARED_STATE),
    nothing("stateful-epp-address", Takes::Text, &[""], NO_SHARED_STATE),
    nothing("state-api-remote-timeout", Takes::Text, &[], NO_SHARED_STATE),
    nothing("state-api-artificial-delay", Takes::Text, &["0s", "0"], NO_SHARED_STATE),
    nothing("state-access-mode-inflight", Takes::Text, &["Local"], NO_SHARED_STATE),
    nothing("state-access-mode-prefix", Takes::Text, &["Local"], NO_SHARED_STATE),
    nothing("state-access-mode-flowcontrol", Takes::Text, &["Local"], NO_SHARED_STATE),
    nothing(
        "flow-control-global-max-concurrency",
        Takes::Text,
        &["0"],
        "replicas share no state here; flowControl.saturationDetector bounds the requests of each",
    ),
    nothing(
        "flow-control-local-max-concurrency",
        Takes::Text,
        &["0"],
        "flowControl.saturationDetector bounds the requests of a replica",
    ),
    // The first versions.
    nothing("service-name", Takes::Text, &[], "pods are found through the InferencePool of --pool-name"),
    nothing("zone", Takes::Text, &[""], "all zones of the pool are served"),
    nothing("refresh-pods-interval", Takes::Text, &[], "changes of pods are watched and seen at once"),
    nothing(
        "all-requests-metric",
        Takes::Text,
        &[],
        "waiting requests are no difference of two series; name theirs by engineConfigs[].queuedRequestsSpec of core-metrics-extractor",
    ),
    nothing(
        "used-kv-cache-blocks-metric",
        Takes::Text,
        &[],
        "the usage is no quotient of two series; name one from 0 to 1 by engineConfigs[].kvUsageSpec of core-metrics-extractor",
    ),
    nothing(
        "max-kv-cache-blocks-metric",
        Takes::Text,
        &[],
        "the usage is no quotient of two series; name one from 0 to 1 by engineConfigs[].kvUsageSpec of core-metrics-extractor",
    ),
];

/// Names that the first versions had for what was named otherwise later.
const RENAMED: &[(&str, &str)] = &[
    ("waiting-requests-metric", "total-queued-requests-metric"),
    ("running-requests-metric", "total-running-requests-metric"),
    ("kv-cache-usage-metric", "kv-cache-usage-percentage-metric"),
    ("lora-request-info-metric", "lora-info-metric"),
    ("target-endpoint-key", "destination-endpoint-hint-key"),
    ("server-pool-name", "pool-name"),
    ("server-pool-namespace", "pool-namespace"),
];

/// Today's name of a flag, if there is such a flag: `name` itself, or what became of it. Up to version 0.5 names were
/// written in camel case, as `poolName` or `kVCacheUsageMetric`. `known` are the flags that there are beside the older
/// ones.
pub(super) fn todays_name<'k>(name: &str, known: &[&'k str]) -> Option<&'k str> {
    if let Some(known) = known.iter().find(|known| **known == name) {
        return Some(known);
    }
    if let Some(flag) = OlderFlag::named(name) {
        return Some(flag.name);
    }
    let camel = name.contains(|letter: char| letter.is_ascii_uppercase()) && !name.contains(['-', '_']);
    let is = |flag: &str| flag == name || camel && flag.replace('-', "").eq_ignore_ascii_case(name);
    if let Some((_, today)) = RENAMED.iter().find(|(older, _)| is(older)) {
        return Some(today);
    }
    if !camel {
        return None;
    }
    known
        .iter()
        .copied()
        .find(|known| is(known))
        .or_else(|| OLDER_FLAGS.iter().map(|flag| flag.name).find(|flag| is(flag)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: [&str; 4] = ["pool-name", "grpc-port", "secure-serving", "v"];

    fn today(name: &str) -> Option<&'static str> {
        todays_name(name, &KNOWN)
    }

    #[test]
    fn names_in_camel_case_are_todays_names_without_dashes() {
        for (name, expected) in [
            ("poolName", "pool-name"),
            ("grpcPort", "grpc-port"),
            ("pool-name", "pool-name"),
            ("modelServerMetricsHttpsInsecureSkipVerify", "model-server-metrics-https-insecure-skip-verify"),
            ("kvCacheUsagePercentageMetric", "kv-cache-usage-percentage-metric"),
            ("kVCacheUsageMetric", "kv-cache-usage-percentage-metric"),
            ("DestinationEndpointHintMetadataNamespace", "destination-endpoint-hint-metadata-namespace"),
            ("maxKVCacheBlocksMetric", "max-kv-cache-blocks-metric"),
            ("waitingRequestsMetric", "total-queued-requests-metric"),
            ("targetEndpointKey", "destination-endpoint-hint-key"),
            ("serviceName", "service-name"),
            ("enable-latency-predictor", "enable-latency-predictor"),
        ] {
            assert_eq!(today(name), Some(expected), "{name}");
        }
    }

    #[test]
    fn other_names_are_unknown() {
        for name in ["poolname", "pool_name", "POOL-NAME", "poolNames", "V2", "", "pool"] {
            assert_eq!(today(name), None, "{name}");
        }
    }

    #[test]
    fn no_older_flag_stands_twice_and_renamed_ones_are_no_flags() {
        let mut names: Vec<&str> = OLDER_FLAGS.iter().map(|flag| flag.name).collect();
        names.extend(RENAMED.iter().map(|(older, _)| older));
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
    }

    #[test]
    fn a_value_that_asks_for_what_is_there_anyway_gives_no_warning() {
        let warning = |name: &str, value: &str| OlderFlag::named(name).unwrap().warning(name, value);
        assert_eq!(warning("epp-mode", "classic"), None);
        assert!(warning("epp-mode", "stateless").unwrap().contains("share no state"));
        assert_eq!(warning("enable-latency-predictor", "false"), None);
        assert!(
            warning("enable-latency-predictor", "true").unwrap().contains("lists predicted-latency-producer")
        );
        assert_eq!(warning("destination-endpoint-hint-key", "x-gateway-destination-endpoint"), None);
    }
}
