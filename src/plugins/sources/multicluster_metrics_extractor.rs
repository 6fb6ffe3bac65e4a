//! `multicluster-metrics-extractor` (alpha): the load of a cluster, from its metrics page.
//!
//! The figures become the attributes `llm-d.ai/multicluster-kv-cache-utilization` and `llm-d.ai/multicluster-queue-size`,
//! which the scorers of clusters read. A figure that the page lacks keeps its last value.
//!
//! Use it where the endpoints are the gateways of other clusters. It costs a look at each row of the page.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::datalayer::PageExtractor;
use crate::datalayer::exposition::each_row;
use crate::plugins::{BuildCx, BuildError, PluginType, Roles, Stability};
use crate::pool::{AttributeKey, Endpoint};

/// The row.
pub static TYPE: PluginType = PluginType::new(NAME, Stability::Alpha, build).about(
    "Reads the cache use and the queue of a cluster from its metrics page.",
    "Use it, with multicluster-queue-scorer and multicluster-kv-cache-utilization-scorer, where the endpoints are \
     gateways of other clusters. It costs a look at each row of the page.",
);

const NAME: &str = "multicluster-metrics-extractor";
const KV_METRIC: &str = "llm_d_epp_average_kv_cache_utilization";
const QUEUE_METRIC: &str = "llm_d_epp_average_queue_size";
const KV_ATTRIBUTE: &str = "llm-d.ai/multicluster-kv-cache-utilization";
const QUEUE_ATTRIBUTE: &str = "llm-d.ai/multicluster-queue-size";

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Params {
    /// Series of the cache use, 0..=1; empty means `llm_d_epp_average_kv_cache_utilization`.
    kv_cache_utilization_metric: String,
    /// Series of the queue; empty means `llm_d_epp_average_queue_size`.
    queue_size_metric: String,
}

fn build(cx: &mut BuildCx<'_>) -> Result<Roles, BuildError> {
    let params: Params = cx.params()?;
    let or = |given: String, usual: &str| if given.is_empty() { usual.to_owned() } else { given };
    let figures = [
        (or(params.kv_cache_utilization_metric, KV_METRIC), AttributeKey::new(KV_ATTRIBUTE, "")),
        (or(params.queue_size_metric, QUEUE_METRIC), AttributeKey::new(QUEUE_ATTRIBUTE, "")),
    ];
    for (_, key) in &figures {
        cx.writes_attribute(key);
    }
    Ok(Roles { page_extractor: Some(Arc::new(Extractor { figures })), ..Roles::default() })
}

#[derive(Debug)]
struct Extractor {
    /// A series and the attribute that it becomes.
    figures: [(String, AttributeKey); 2],
}

impl PageExtractor for Extractor {
    fn kind(&self) -> &'static str {
        NAME
    }

    fn reads(&self) -> &'static str {
        "multicluster-metrics-data-source"
    }

    fn extract(&self, endpoint: &Endpoint, page: &[u8]) -> Result<(), String> {
        let mut missing = Vec::new();
        for (series, key) in &self.figures {
            let mut first = None;
            each_row(page, series, |_, value| {
                first = first.or(Some(value).filter(|value| value.is_finite()));
            });
            match first {
                Some(value) => endpoint.load().set_attribute(key, value),
                None => missing.push(series.as_str()),
            }
        }
        if missing.is_empty() { Ok(()) } else { Err(format!("the page lacks {}", missing.join(" and "))) }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::plugins::fixture::{Fleet, pod};

    #[test]
    fn the_figures_of_a_cluster_become_attributes_and_missing_ones_stay_as_they_were() {
        let mut fleet = Fleet::new([pod("a")]);
        let roles = fleet.build(&TYPE, Some(json!({"queueSizeMetric": "q"}))).unwrap().roles;
        let extractor = roles.page_extractor.as_ref().unwrap();
        let snapshot = fleet.snapshot();
        let endpoint = &snapshot.endpoints()[0];
        let read = || {
            [KV_ATTRIBUTE, QUEUE_ATTRIBUTE]
                .map(|name| endpoint.load().attribute(&AttributeKey::new(name, "")))
        };
        let page = "# HELP q x\nllm_d_epp_average_kv_cache_utilization{name=\"p\"} 0.25\nq 7\nq 9\n";
        assert_eq!(extractor.extract(endpoint, page.as_bytes()), Ok(()));
        assert_eq!(read(), [Some(0.25), Some(7.0)]);
        let error = extractor.extract(endpoint, b"q 8\n").unwrap_err();
        assert!(error.contains(KV_METRIC), "{error}");
        assert!(extractor.extract(endpoint, b"q NaN\n").is_err());
        assert_eq!(read(), [Some(0.25), Some(8.0)]);
    }
}
