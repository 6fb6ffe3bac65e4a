//! Series of an in-flight load producer.

use std::collections::HashSet;
use std::sync::Arc;

use prometheus::{IntGauge, IntGaugeVec, Registry};

use super::cardinality::{Gate, OTHER};
use super::family::{Definition, Family, Twin};
use crate::flow::DEFAULT_FLOW;
use crate::pool::{Endpoint, Snapshot};

const LABELS: [&str; 5] = ["endpoint_name", "namespace", "producer_name", "fairness_id", "priority"];

const REQUESTS: Definition<5> = Definition::new(
    "llm_d_epp_inflight_requests",
    "Requests that were sent to an endpoint and are not finished.",
    LABELS,
);

const TOKENS: Definition<5> = Definition::new(
    "llm_d_epp_inflight_tokens",
    "Estimated tokens of the requests in flight on an endpoint.",
    LABELS,
);

/// The families, shared by all producers.
#[derive(Clone)]
pub(super) struct InflightFamilies {
    requests: Family<IntGaugeVec, 5>,
    tokens: Family<IntGaugeVec, 5>,
    gate: Arc<Gate>,
}

impl InflightFamilies {
    /// `gate` bounds the series of each family.
    pub(super) fn register(registry: &Registry, gate: Gate) -> Self {
        Self {
            requests: Family::register(REQUESTS, registry),
            tokens: Family::register(TOKENS, registry),
            gate: Arc::new(gate),
        }
    }
}

/// Handles of one producer.
#[derive(Clone)]
pub struct InflightMetrics {
    families: InflightFamilies,
    producer: Box<str>,
}

impl InflightMetrics {
    pub(super) fn new(families: InflightFamilies, producer: &str) -> Self {
        Self { families, producer: producer.into() }
    }

    /// Counts a request of about `tokens` tokens on `endpoint` until the share is dropped. The labels of a request
    /// bound its fairness id: pass [`super::RequestMetrics::fairness_id`].
    pub fn begin(&self, endpoint: &Endpoint, fairness_id: &str, priority: i32, tokens: u64) -> InflightShare {
        let priority = priority.to_string();
        let id = endpoint.id();
        let labels = [id.name(), id.namespace(), &*self.producer, fairness_id, &*priority];
        // Beyond the bound all tenants and priorities of an endpoint share one series.
        let folded = [id.name(), id.namespace(), &*self.producer, OTHER, OTHER];
        let labels = if self.families.gate.admits(&labels) { labels } else { folded };
        let share = InflightShare {
            requests: self.families.requests.child(labels),
            tokens: self.families.tokens.child(labels),
            count: i64::try_from(tokens).unwrap_or(i64::MAX),
        };
        share.requests.add(1);
        share.tokens.add(share.count);
        share
    }

    /// Drops the series of endpoints that are not in `snapshot`, and those of tenants and priorities other than the
    /// usual ones, once they have no request in flight any more: a series that comes back would begin at 0 while
    /// requests run. Call it now and then.
    pub fn prune_endpoints(&self, snapshot: &Snapshot) {
        let live: HashSet<[&str; 2]> = snapshot
            .endpoints()
            .iter()
            .map(|endpoint| [endpoint.id().name(), endpoint.id().namespace()])
            .collect();
        for (labels, requests) in self.families.requests.gauges() {
            if requests != 0.0 {
                continue;
            }
            let values = LABELS.map(|label| {
                labels.iter().find(|(name, _)| name == label).map_or("", |(_, value)| value.as_str())
            });
            let usual = values[3] == DEFAULT_FLOW && values[4] == "0" || values[3] == OTHER;
            if values[2] == &*self.producer && !(usual && live.contains(&[values[0], values[1]])) {
                self.families.gate.forget(&values);
                self.families.requests.remove(values);
                self.families.tokens.remove(values);
            }
        }
    }
}

impl std::fmt::Debug for InflightMetrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("InflightMetrics").field("producer", &self.producer).finish_non_exhaustive()
    }
}

/// A request's share of the gauges. Dropping it gives the share back, once.
#[derive(Debug)]
#[must_use = "dropping the share gives it back"]
pub struct InflightShare {
    requests: Twin<IntGauge>,
    tokens: Twin<IntGauge>,
    count: i64,
}

impl InflightShare {
    /// Gives the tokens back early; the request still counts.
    pub fn release_tokens(&mut self) {
        self.tokens.add(-std::mem::take(&mut self.count));
    }
}

impl Drop for InflightShare {
    fn drop(&mut self) {
        self.release_tokens();
        self.requests.add(-1);
    }
}
