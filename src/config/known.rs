//! Plugin types of the reference that are not in the registry: some are accepted without effect, the others refused by
//! name.

/// What a type that is accepted without effect is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Counts requests in flight, which is done here in any case.
    InFlightCounter,
    /// Estimates the tokens of prompts, which is done here in any case.
    TokenEstimate,
}

impl Purpose {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::InFlightCounter | Self::TokenEstimate => "data producer",
        }
    }

    /// Why a plugin of this kind has no effect.
    pub(super) fn idle_because(self) -> &'static str {
        match self {
            Self::InFlightCounter => "requests in flight are always counted; listing it shows their series",
            Self::TokenEstimate => "the tokens of prompts are always estimated, four bytes of text each",
        }
    }
}

/// Types for what is done here without a plugin. Configurations that name them load.
const INACTIVE: &[(&str, Purpose)] = &[
    ("inflight-load-producer", Purpose::InFlightCounter),
    ("token-producer", Purpose::TokenEstimate),
    ("tokenizer", Purpose::TokenEstimate),
];

/// Every other type that the reference registers.
const ELSEWHERE: &[&str] = &[
    "active-request-scorer",
    "always-disagg-multimodal-decider",
    "always-disagg-pd-decider",
    "anthropic-parser",
    "approx-prefix-cache-producer",
    "by-label",
    "by-label-selector",
    "core-metrics-extractor",
    "data-parallel-profile-handler",
    "decode-filter",
    "disagg-headers-handler",
    "disagg-profile-handler",
    "encode-filter",
    "file-discovery",
    "header-based-testing-filter",
    "header-profile-handler",
    "kv-cache-utilization-scorer",
    "label-selector-filter",
    "load-aware-scorer",
    "lora-affinity-scorer",
    "max-score-picker",
    "metrics-data-source",
    "mm-embeddings-cache-producer",
    "mm-embeddings-cache-scorer",
    "no-hit-lru-scorer",
    "openai-parser",
    "p2p-source-producer",
    "passthrough-parser",
    "pd-profile-handler",
    "prefill-filter",
    "prefill-header-handler",
    "prefix-based-pd-decider",
    "prefix-cache-scorer",
    "priority-then-time-eviction-order-policy",
    "queue-scorer",
    "random-picker",
    "running-requests-size-scorer",
    "session-affinity-scorer",
    "sheddable-eviction-filter",
    "single-profile-handler",
    "vllmhttp-parser",
    "weighted-random-picker",
];

/// What the type `name` would be for, if it is accepted without effect; with the name as a constant.
pub(super) fn inactive(name: &str) -> Option<(&'static str, Purpose)> {
    INACTIVE.iter().find(|(known, _)| *known == name).copied()
}

/// True if the reference has the type `name`.
pub(super) fn in_reference(name: &str) -> bool {
    ELSEWHERE.contains(&name)
}

/// Names of the types that are accepted without effect.
pub(super) fn inactive_names() -> impl Iterator<Item = &'static str> {
    INACTIVE.iter().map(|(name, _)| *name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lists_are_sorted_and_share_no_name() {
        assert!(INACTIVE.is_sorted_by(|a, b| a.0 < b.0));
        assert!(ELSEWHERE.is_sorted_by(|a, b| a < b));
        assert_eq!(inactive_names().count(), INACTIVE.len());
        assert!(inactive_names().all(|name| !in_reference(name)));
    }
}
