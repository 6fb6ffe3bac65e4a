//! What the metrics page of an engine shows of its cache. Counters that fall belong to a new process with an empty
//! cache. An engine that sleeps has dropped its cache.

use std::collections::HashMap;

use crate::pool::{AttributeKey, AttributeSeries, Endpoint};

/// The producer in the keys of the attributes.
const PRODUCER: &str = "cache-events";
/// The attribute with the number of prompt tokens since the process began.
const TOKENS: &str = "prompt-tokens";
/// The attribute that is 1 while the engine is awake, and 0 otherwise.
const AWAKE: &str = "awake";

/// The series that show whether the cache of an engine of this kind still exists. Empty for a kind without such series.
pub fn series_of_life(engine: &str) -> Vec<AttributeSeries> {
    let row = |attribute, metric, label| AttributeSeries {
        attribute: AttributeKey::new(attribute, PRODUCER),
        metric,
        label,
    };
    match engine {
        "vllm" => vec![
            row(TOKENS, "vllm:prompt_tokens_total", None),
            row(AWAKE, "vllm:engine_sleep_state", Some(("sleep_state", "awake"))),
        ],
        "sglang" => vec![row(TOKENS, "sglang:prompt_tokens_total", None)],
        _ => Vec::new(),
    }
}

/// What the metrics pages of the engines last showed.
#[derive(Debug)]
pub(super) struct Lives {
    tokens: AttributeKey,
    awake: AttributeKey,
    seen: HashMap<u64, Shown>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Shown {
    tokens: Option<f64>,
    asleep: bool,
}

impl Default for Lives {
    fn default() -> Self {
        let key = |attribute| AttributeKey::new(attribute, PRODUCER);
        Self { tokens: key(TOKENS), awake: key(AWAKE), seen: HashMap::new() }
    }
}

impl Lives {
    /// Compares the page with that of the last call. Returns the reason why the cache of this endpoint must be
    /// forgotten, if there is one. `renewed` is true if the cache events have already shown that the engine restarted.
    pub(super) fn look(&mut self, endpoint: &Endpoint, renewed: bool) -> Option<&'static str> {
        let load = endpoint.load();
        let tokens = load.attribute(&self.tokens);
        let asleep = load.attribute(&self.awake).map(|awake| awake < 0.5);
        if tokens.is_none() && asleep.is_none() {
            return None;
        }
        let shown = self.seen.entry(endpoint.incarnation()).or_default();
        let before = *shown;
        shown.tokens = tokens.or(before.tokens);
        shown.asleep = asleep.unwrap_or(before.asleep);
        if shown.tokens < before.tokens && !renewed {
            return Some("counters");
        }
        (shown.asleep && !before.asleep).then_some("asleep")
    }

    /// Forgets the endpoints for which `is_there` is false.
    pub(super) fn retain(&mut self, is_there: impl Fn(u64) -> bool) {
        self.seen.retain(|incarnation, _| is_there(*incarnation));
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::sync::Arc;
    use std::time::Instant;

    use super::*;
    use crate::pool::{EndpointId, EndpointSpec, Pool};

    fn endpoint() -> Arc<Endpoint> {
        let pool = Pool::new("ns", "pool", Instant::now());
        let address = SocketAddr::from(([10, 0, 0, 1], 8000));
        pool.replace_endpoints(vec![EndpointSpec::new(EndpointId::new("ns", "pod"), address)]);
        Arc::clone(&pool.snapshot().endpoints()[0])
    }

    fn shows(endpoint: &Endpoint, attribute: &str, value: f64) {
        endpoint.load().set_attribute(&AttributeKey::new(attribute, PRODUCER), value);
    }

    #[test]
    fn counters_that_fall_are_those_of_another_process() {
        let (endpoint, mut lives) = (endpoint(), Lives::default());
        assert_eq!(lives.look(&endpoint, false), None);
        for (tokens, renewed, expected) in [
            (1000.0, false, None),
            (1000.0, false, None),
            (1200.0, false, None),
            (0.0, false, Some("counters")),
            (0.0, false, None),
            (50.0, false, None),
            (10.0, true, None),
            (10.0, false, None),
            (9.0, false, Some("counters")),
        ] {
            shows(&endpoint, TOKENS, tokens);
            assert_eq!(lives.look(&endpoint, renewed), expected, "{tokens}");
        }
    }

    #[test]
    fn an_engine_that_falls_asleep_is_forgotten_once() {
        let (endpoint, mut lives) = (endpoint(), Lives::default());
        for (awake, expected) in
            [(1.0, None), (0.0, Some("asleep")), (0.0, None), (1.0, None), (0.0, Some("asleep"))]
        {
            shows(&endpoint, AWAKE, awake);
            assert_eq!(lives.look(&endpoint, false), expected, "{awake}");
        }
        lives.retain(|_| false);
        assert_eq!(lives.look(&endpoint, false), Some("asleep"), "whoever is gone is not remembered");
    }

    #[test]
    fn engines_without_such_series_are_asked_for_none() {
        assert_eq!(series_of_life("tgi"), []);
        assert!(series_of_life("vllm").iter().any(|series| series.metric == "vllm:engine_sleep_state"));
    }
}
