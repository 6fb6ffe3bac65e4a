//! Plugin types that had another name.

use super::tree::{self, Map};
use crate::document::Problems;

/// The former name, and today's.
const RENAMED: &[(&str, &str)] = &[
    ("always-disagg-encode-decider", "always-disagg-multimodal-decider"),
    ("always-encode-decider", "always-disagg-multimodal-decider"),
    ("cost-reporter", "request-attribute-reporter"),
    ("encode-header-handler", "disagg-headers-handler"),
    ("encoder-header-handler", "disagg-headers-handler"),
    ("kv-cache", "kv-cache-utilization-scorer"),
    ("kv-cache-scorer", "kv-cache-utilization-scorer"),
    ("kvcache-aware-scorer", "precise-prefix-cache-scorer"),
    ("max-score", "max-score-picker"),
    ("model-server-protocol-metrics", "core-metrics-extractor"),
    ("model-server-protocol-models", "models-data-extractor"),
    ("predicted-latency-scorer", "latency-scorer"),
    ("prefill-header", "prefill-header-handler"),
    ("prefix-cache", "prefix-cache-scorer"),
    ("queue", "queue-scorer"),
    ("random", "random-picker"),
    ("single-profile", "single-profile-handler"),
    ("slo-aware-routing", "latency-scorer"),
    ("slo-request-tracker", "predicted-latency-producer"),
    ("slo-scorer", "latency-scorer"),
    ("weighted-random", "weighted-random-picker"),
];

/// Gives a row of `plugins` today's name of its type. References keep working: a row without a name keeps the one that
/// the type gave it.
pub(super) fn translate(row: &mut Map, path: &str, problems: &mut Problems) {
    let Some(former) = tree::text_of(row, "type") else { return };
    let Some((former, today)) = RENAMED.iter().find(|(name, _)| *name == former) else { return };
    let Some((key, _)) = tree::take(row, "type") else { return };
    if tree::text_of(row, "name").is_none() {
        tree::take(row, "name");
        tree::put(row, key.line, "name", tree::text(key.line, former));
    }
    tree::put(row, key.line, "type", tree::text(key.line, today));
    let message = format!("\"{former}\" is the former name of \"{today}\"; write `type: {today}`");
    problems.warning(key.line, format!("{path}.type"), message);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_and_leads_to_no_former_name() {
        assert!(RENAMED.is_sorted_by(|a, b| a.0 < b.0));
        assert!(RENAMED.iter().all(|(_, today)| RENAMED.iter().all(|(former, _)| former != today)));
    }
}
