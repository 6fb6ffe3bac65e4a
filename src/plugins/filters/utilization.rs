//! `utilization-filter` (alpha): keeps endpoints whose load stays within bounds.
//!
//! Each of `conditions` names a figure and the most that it may be: `active-requests` are the requests of this process
//! in flight there; `waiting-queue`, `running-requests` and `kv-cache-utilization` (a fraction) are those of the last
//! scrape, however old, and 0 for an endpoint that was never scraped. All conditions must hold. If nobody is left,
//! `fallbackOnEmpty` keeps all.
//!
//! Use it where an endpoint beyond a bound must not get further requests. It costs one pass over the candidates.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::plugins::load_producer::note_load_producer;
use crate::plugins::{BuildCx, BuildError, PluginType, Roles, Stability};
use crate::pool::Load;
use crate::scheduling::{Call, Filter, Mask};

/// Registry row.
pub static TYPE: PluginType = PluginType::new("utilization-filter", Stability::Alpha, build)
    .about(
        "Keeps endpoints whose load stays within bounds.",
        "Use it where an endpoint beyond a bound must not get further requests. It costs one pass over the candidates.",
    )
    .with_example("conditions: [{metric: waiting-queue, maxValue: 10}]");

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Params {
    /// Conditions that must hold; at least one.
    conditions: Vec<Condition>,
    /// Keep all endpoints if none is left.
    fallback_on_empty: bool,
    /// Without effect: requests in flight are always counted.
    in_flight_load_producer_name: Option<String>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Condition {
    /// The figure; required.
    metric: Option<Metric>,
    /// The most that it may be; required. At least 0, and at most 1 for `kv-cache-utilization`.
    max_value: Option<f64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
enum Metric {
    ActiveRequests,
    RunningRequests,
    WaitingQueue,
    KvCacheUtilization,
}

impl Metric {
    fn of(self, load: &Load) -> f64 {
        match self {
            Self::ActiveRequests => load.in_flight() as f64,
            Self::RunningRequests => load.running() as f64,
            Self::WaitingQueue => load.waiting() as f64,
            Self::KvCacheUtilization => load.kv_usage(),
        }
    }
}

fn build(cx: &mut BuildCx<'_>) -> Result<Roles, BuildError> {
    let params: Params = cx.params()?;
    note_load_producer(cx, params.in_flight_load_producer_name.as_deref());
    if params.conditions.is_empty() {
        return Err(BuildError::at("conditions", "must have at least one `metric` with a `maxValue`"));
    }
    let mut bounds = Vec::with_capacity(params.conditions.len());
    for (index, Condition { metric, max_value }) in params.conditions.into_iter().enumerate() {
        let required = |field| BuildError::at(format!("conditions[{index}].{field}"), "is required");
        let metric = metric.ok_or_else(|| required("metric"))?;
        let most = max_value.ok_or_else(|| required("maxValue"))?;
        if most < 0.0 || metric == Metric::KvCacheUtilization && most > 1.0 {
            let range = if metric == Metric::KvCacheUtilization { "lie in 0..=1" } else { "be at least 0" };
            let path = format!("conditions[{index}].maxValue");
            return Err(BuildError::at(path, format!("is {most}; it must {range}")));
        }
        bounds.push((metric, most));
    }
    Ok(Roles::default().filter(Arc::new(Utilization { bounds, falls_back: params.fallback_on_empty })))
}

#[derive(Debug)]
struct Utilization {
    bounds: Vec<(Metric, f64)>,
    falls_back: bool,
}

impl Filter for Utilization {
    fn narrow(&self, call: &Call<'_>, keep: &mut Mask) {
        keep.retain(call.endpoints(), |endpoint| {
            self.bounds.iter().all(|(metric, most)| metric.of(endpoint.load()) <= *most)
        });
        if self.falls_back && keep.count() == 0 {
            keep.reset(call.len());
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::plugins::fixture::{Fleet, Pod, pod, request};

    fn kept(params: Value, pods: impl IntoIterator<Item = Pod>) -> String {
        let mut fleet = Fleet::new(pods);
        let built = fleet.build(&TYPE, Some(params)).unwrap();
        fleet.kept(&built.roles, &request("m")).concat()
    }

    #[test]
    fn endpoints_within_all_bounds_stay_and_those_never_read_look_idle() {
        let pods = || {
            [
                pod("a"),
                pod("b").waiting(5).running(2).kv(0.5),
                pod("c").waiting(6).running(1).kv(f64::NAN),
                pod("d").in_flight(3),
            ]
        };
        let one = |metric: &str, most: f64| json!({"conditions": [{"metric": metric, "maxValue": most}]});
        assert_eq!(kept(one("waiting-queue", 5.0), pods()), "abd");
        assert_eq!(kept(one("running-requests", 1.0), pods()), "acd");
        assert_eq!(kept(one("kv-cache-utilization", 0.4), pods()), "acd");
        assert_eq!(kept(one("active-requests", 2.0), pods()), "abc");
        let both = json!({"conditions": [
            {"metric": "waiting-queue", "maxValue": 5}, {"metric": "active-requests", "maxValue": 0},
        ]});
        assert_eq!(kept(both.clone(), pods()), "ab");
        assert_eq!(kept(both, []), "");
    }

    #[test]
    fn if_nobody_is_left_all_stay_on_request_only() {
        let params = |fallback: bool| json!({"Conditions": [{"metric": "waiting-queue", "maxValue": 1}], "fallbackOnEmpty": fallback});
        let full = || [pod("a").waiting(2), pod("b").waiting(3)];
        assert_eq!((kept(params(false), full()), kept(params(true), full())), (String::new(), "ab".into()));
    }

    #[test]
    fn wrong_parameters_are_refused_by_name() {
        let of = |condition: Value| json!({"conditions": [condition]});
        for (params, path) in [
            (json!({}), "conditions"),
            (of(json!({"maxValue": 1})), "conditions[0].metric"),
            (of(json!({"metric": "waiting-queue"})), "conditions[0].maxValue"),
            (of(json!({"metric": "queue", "maxValue": 1})), "conditions[0].metric"),
            (of(json!({"metric": "waiting-queue", "maxValue": -1})), "conditions[0].maxValue"),
            (of(json!({"metric": "kv-cache-utilization", "maxValue": 1.5})), "conditions[0].maxValue"),
        ] {
            assert_eq!(Fleet::new([]).build(&TYPE, Some(params.clone())).unwrap_err().path, path, "{params}");
        }
    }
}
