//! Parameters that had another name or are gone.

use std::time::Duration;

use super::tree::{self, Map};
use crate::document::scalar::format_go_duration;
use crate::document::{Node, NodeValue, Problems};

/// The present form of a parameter.
enum Today {
    /// The parameter has this name.
    Named(&'static str),
    /// The parameter has no effect. The text says why.
    Gone(&'static str),
}

/// Plugin type by today's name, the parameter as it was, and what became of it.
const FORMER: &[(&str, &str, Today)] = &[
    (
        "approx-prefix-cache-producer",
        "multiModalTokenEstimator",
        Today::Gone("`estimate` of a `token-producer` says how media are counted"),
    ),
    (
        "core-metrics-extractor",
        "enableMultiEngine",
        Today::Gone("`engineConfigs` may always list several engines"),
    ),
    ("data-parallel-profile-handler", "targetPort", Today::Named("primaryPort")),
    // The first scorer by latency predicted, kept to cached prompts and chose between tiers by itself.
    ("latency-scorer", "affinityGateTau", Today::Gone(WHOSE_AFFINITY)),
    ("latency-scorer", "affinityGateTauGlobal", Today::Gone(WHOSE_AFFINITY)),
    ("latency-scorer", "affinityMaxTTFTPenaltyMs", Today::Gone(WHOSE_AFFINITY)),
    ("latency-scorer", "contextTTL", Today::Gone(WHOSE_PREDICTIONS)),
    ("latency-scorer", "endpointRoleLabel", Today::Gone(WHOSE_PREDICTIONS)),
    ("latency-scorer", "epsilonExploreNeg", Today::Gone(WHOSE_TIERS)),
    ("latency-scorer", "epsilonExploreSticky", Today::Gone(WHOSE_AFFINITY)),
    ("latency-scorer", "headroomTPOTWeight", Today::Named("tpotWeight")),
    ("latency-scorer", "headroomTTFTWeight", Today::Named("ttftWeight")),
    ("latency-scorer", "maxSampledTokens", Today::Gone(WHOSE_PREDICTIONS)),
    ("latency-scorer", "negHeadroomTPOTWeight", Today::Gone(ONE_WEIGHT)),
    ("latency-scorer", "negHeadroomTTFTWeight", Today::Gone(ONE_WEIGHT)),
    ("latency-scorer", "samplingMean", Today::Gone(WHOSE_PREDICTIONS)),
    (
        "latency-scorer",
        "selectionMode",
        Today::Gone("the picker chooses, at random with `weighted-random-picker`"),
    ),
    ("latency-scorer", "sloBufferFactor", Today::Gone(WHOSE_PREDICTIONS)),
    ("latency-scorer", "streamingMode", Today::Gone(WHOSE_PREDICTIONS)),
    ("max-score-picker", "maxEndpoints", Today::Named("maxNumOfEndpoints")),
    ("mm-embeddings-cache-producer", "cacheSizeInMB", Today::Named("cacheSizeInMBPerServer")),
    ("precise-prefix-cache-producer", "kvCacheRedisAddr", Today::Gone(WHOSE_INDEX)),
    ("precise-prefix-cache-scorer", "kvCacheRedisAddr", Today::Gone(WHOSE_INDEX)),
    // Its type is of today when it follows cache events, and changes only behind this.
    ("prefix-cache-scorer", "kvCacheRedisAddr", Today::Gone(WHOSE_INDEX)),
    (
        "prefix-cache-scorer",
        "lruIndexerCapacity",
        Today::Gone("`lruCapacityPerServer` of `approx-prefix-cache-producer` counts for each server"),
    ),
    (
        "predicted-latency-producer",
        "maxSampledTokens",
        Today::Gone("the times between all tokens are learnt from"),
    ),
    ("program-aware-fairness", "lasDecayFactor", Today::Gone(WHOSE_DECAY)),
    ("program-aware-fairness", "serviceDecayFactor", Today::Gone(WHOSE_DECAY)),
    ("random-picker", "maxEndpoints", Today::Named("maxNumOfEndpoints")),
    (
        "session-affinity-scorer",
        "maxAge",
        Today::Gone(
            "the token of a session has no age, and `sessionIdConfig.evictionTtlSeconds` ends the others",
        ),
    ),
    ("token-producer", "backend", Today::Gone(WHOSE_TOKENS)),
    ("token-producer", "vllmHTTP", Today::Named("vllm")),
    ("tokenizer", "backend", Today::Gone(WHOSE_TOKENS)),
    ("tokenizer", "vllmHTTP", Today::Named("vllm")),
    ("weighted-random-picker", "maxEndpoints", Today::Named("maxNumOfEndpoints")),
];

const WHOSE_PREDICTIONS: &str = "it belongs to `predicted-latency-producer`, which predicts";

const WHOSE_AFFINITY: &str = "`prefix-cache-affinity-filter` keeps to endpoints that hold the prompt";

const WHOSE_TIERS: &str = "`slo-headroom-tier-filter` chooses between the tiers";

const ONE_WEIGHT: &str = "`ttftWeight` and `tpotWeight` count in both tiers";

const WHOSE_DECAY: &str = "`lasHalfLifeSeconds` says how soon service is forgotten";

const WHOSE_INDEX: &str = "the index is in this process, within --prefix-index-memory";

const WHOSE_TOKENS: &str = "the section that is given says who makes the tokens";

/// Plugin type by today's name, a section of its parameters, a field that stood there, and today's path.
const MOVED: &[(&str, &str, &str, &[&str])] = &[
    ("precise-prefix-cache-producer", "indexerConfig", "speculativeIndexing", &["speculativeIndexing"]),
    ("precise-prefix-cache-scorer", "indexerConfig", "speculativeIndexing", &["speculativeIndexing"]),
    ("token-producer", "vllm", "http", &["vllm", "url"]),
    ("tokenizer", "vllm", "http", &["vllm", "url"]),
];

/// Translates the parameters of a row of `plugins` whose type has today's name.
pub(super) fn translate(row: &mut Map, path: &str, problems: &mut Problems) {
    let Some(kind) = tree::text_of(row, "type").map(str::to_owned) else { return };
    let Some(NodeValue::Map(parameters)) = tree::get_mut(row, "parameters").map(|node| &mut node.value)
    else {
        return;
    };
    for (_, former, today) in FORMER.iter().filter(|(owner, ..)| *owner == kind) {
        let Some((key, node)) = tree::take_any_case(parameters, former) else { continue };
        let at = format!("{path}.parameters.{}", key.text);
        match today {
            Today::Named(name) if tree::get(parameters, name).is_some() => {
                problems.warning(key.line, at, format!("has no effect beside `{name}`, its name today"));
            }
            Today::Named(name) => {
                tree::put(parameters, key.line, name, node);
                problems.warning(key.line, at, format!("is the former name of `{name}`; write that"));
            }
            Today::Gone(why) => {
                problems.warning(key.line, at, format!("has no effect any more: {why}; leave it out"));
            }
        }
    }
    nanoseconds(parameters, &kind, path, problems);
    for (_, section, former, today) in MOVED.iter().filter(|(owner, ..)| *owner == kind) {
        move_field(parameters, section, former, today, path, problems);
    }
}

/// Durations that were numbers of nanoseconds, and are texts today.
const NANOSECONDS: &[(&str, &str)] =
    &[("precise-prefix-cache-producer", "speculativeTTL"), ("precise-prefix-cache-scorer", "speculativeTTL")];

/// Writes such a number as the text of the same duration.
fn nanoseconds(parameters: &mut Map, kind: &str, path: &str, problems: &mut Problems) {
    for (_, name) in NANOSECONDS.iter().filter(|(owner, _)| *owner == kind) {
        let found = parameters.iter_mut().rev().find(|(key, _)| key.text.eq_ignore_ascii_case(name));
        let Some((key, node)) = found else { continue };
        let NodeValue::Number(number) = &node.value else { continue };
        let Some(text) = number.as_u64().map(|count| format_go_duration(Duration::from_nanos(count))) else {
            continue;
        };
        let message = format!("is a number of nanoseconds, the former form; write \"{text}\"");
        problems.warning(key.line, format!("{path}.parameters.{}", key.text), message);
        node.value = NodeValue::Text(text);
    }
}

/// Puts the field `former` of a section of parameters to its path of today, unless something is there.
fn move_field(
    parameters: &mut Map,
    section: &str,
    former: &str,
    today: &[&str],
    path: &str,
    problems: &mut Problems,
) {
    let given = parameters.iter_mut().rev().find(|(key, _)| key.text.eq_ignore_ascii_case(section));
    let Some((name, Node { value: NodeValue::Map(fields), .. })) = given else { return };
    let Some((key, node)) = tree::take_any_case(fields, former) else { return };
    let at = format!("{path}.parameters.{}.{}", name.text, key.text);
    let shown = today.join(".");
    // The section keeps the letter case in which it was written.
    let inside = today.len() > 1;
    let place = if inside { fields } else { parameters };
    let Some(last) = today.last() else { return };
    if tree::has_any_case(place, last) {
        problems.warning(key.line, at, format!("has no effect beside `{shown}`, its name today"));
    } else {
        tree::put(place, key.line, last, node);
        problems.warning(key.line, at, format!("is `{shown}` today; write that"));
    }
}
