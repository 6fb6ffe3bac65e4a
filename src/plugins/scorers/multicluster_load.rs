//! `multicluster-queue-scorer` and `multicluster-kv-cache-utilization-scorer` (alpha): prefer clusters with less load.
//!
//! Endpoints are whole clusters, whose mean queue and cache usage are the attributes
//! `llm-d.ai/multicluster-queue-size` and `llm-d.ai/multicluster-kv-cache-utilization` of no plugin.
//! `multicluster-metrics-extractor` writes them. A queue `q` scores `(max − q) / (max − min)`, 1 if all are equal; a
//! usage `u` scores `1 − u`. A cluster without the attribute scores 0 and counts for neither end of the range.
//!
//! Use them where endpoints are whole clusters. They take no parameters, and cost two passes over the candidates.

use std::sync::Arc;

use crate::plugins::{PluginType, Roles, Stability};
use crate::pool::AttributeKey;
use crate::scheduling::{Call, Category, Scorer};

/// Attribute with the mean queue of a cluster.
pub const QUEUE_SIZE: &str = "llm-d.ai/multicluster-queue-size";
/// Attribute with the mean cache usage of a cluster, a fraction.
pub const KV_CACHE_UTILIZATION: &str = "llm-d.ai/multicluster-kv-cache-utilization";

/// Registry row.
pub static QUEUE: PluginType = PluginType::new("multicluster-queue-scorer", Stability::Alpha, |cx| {
    cx.no_params();
    let key = AttributeKey::new(QUEUE_SIZE, "");
    cx.reads_attribute(&key);
    Ok(Roles::default().scorer(Arc::new(Queue(key))))
})
.about(
    "Prefers clusters whose servers have shorter queues.",
    "Use it where endpoints are whole clusters. It costs two passes over the candidates.",
);

/// Registry row.
pub static KV_CACHE: PluginType =
    PluginType::new("multicluster-kv-cache-utilization-scorer", Stability::Alpha, |cx| {
        cx.no_params();
        let key = AttributeKey::new(KV_CACHE_UTILIZATION, "");
        cx.reads_attribute(&key);
        Ok(Roles::default().scorer(Arc::new(KvCache(key))))
    })
    .about(
        "Prefers clusters whose servers have more room in their caches.",
        "Use it where endpoints are whole clusters. It costs one pass over the candidates.",
    );

#[derive(Debug)]
struct Queue(AttributeKey);

impl Scorer for Queue {
    fn category(&self) -> Category {
        Category::Distribution
    }

    fn score(&self, call: &Call<'_>, out: &mut [f64]) {
        // NaN stands for a cluster without the attribute, whose values are finite.
        let (mut least, mut most) = (f64::INFINITY, f64::NEG_INFINITY);
        for (score, endpoint) in out.iter_mut().zip(call.endpoints()) {
            *score = endpoint.load().attribute(&self.0).unwrap_or(f64::NAN);
            (least, most) = (least.min(*score), most.max(*score));
        }
        for score in out {
            *score = match (score.is_nan(), most > least) {
                (true, _) => 0.0,
                (false, false) => 1.0,
                (false, true) => (most - *score) / (most - least),
            };
        }
    }
}

#[derive(Debug)]
struct KvCache(AttributeKey);

impl Scorer for KvCache {
    fn category(&self) -> Category {
        Category::Distribution
    }

    fn score(&self, call: &Call<'_>, out: &mut [f64]) {
        for (score, endpoint) in out.iter_mut().zip(call.endpoints()) {
            *score = endpoint.load().attribute(&self.0).map_or(0.0, |usage| 1.0 - usage);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugins::fixture::{Fleet, Pod, pod, request};
    use crate::scheduling::Columns;

    fn scores(plugin: &PluginType, pods: impl IntoIterator<Item = Pod>) -> Vec<f64> {
        let mut fleet = Fleet::new(pods);
        let built = fleet.build(plugin, None).unwrap();
        fleet.scores(&built.roles, &request("m"), &Columns::new())
    }

    #[test]
    fn clusters_with_shorter_queues_score_more_and_those_that_say_nothing_0() {
        let queue = |name, size| pod(name).attribute(QUEUE_SIZE, "", size);
        let four = [queue("a", 0.0), queue("b", 5.0), pod("c").waiting(0), queue("d", 10.0)];
        assert_eq!(scores(&QUEUE, four), [1.0, 0.5, 0.0, 0.0]);
        assert_eq!(scores(&QUEUE, [queue("a", 3.0), pod("b"), queue("c", 3.0)]), [1.0, 0.0, 1.0]);
        assert_eq!(scores(&QUEUE, [queue("a", f64::NAN)]), [0.0]);
        assert!(scores(&QUEUE, []).is_empty());
    }

    #[test]
    fn clusters_with_room_in_their_caches_score_what_is_free() {
        let kv = |name, usage| pod(name).attribute(KV_CACHE_UTILIZATION, "", usage);
        assert_eq!(scores(&KV_CACHE, [kv("a", 0.0), kv("b", 0.75), pod("c").kv(0.0)]), [1.0, 0.25, 0.0]);
        assert_eq!(scores(&KV_CACHE, [kv("a", f64::INFINITY)]), [0.0]);
        assert!(scores(&KV_CACHE, []).is_empty());
    }
}
