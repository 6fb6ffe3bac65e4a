//! `probabilistic-admitter`: refuses sheddable requests by chance, the more of them the fuller the endpoints are.
//!
//! A request is sheddable if its priority is below 0. With `s`, the mean over the candidates of `max(waiting /
//! queueDepthThreshold, usage / kvCacheUtilThreshold)`, it is refused with the probability `min(k · s^power, 1)`. An
//! endpoint that was never read counts as full, 1; one whose reading is old counts as it was read last.
//!
//! Use it where sheddable work should fade out as load grows, and not stop at once. It costs one pass over the
//! candidates for each sheddable request, and nothing for others.

use std::sync::Arc;

use fastrand::Rng;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::plugins::{BuildCx, BuildError, PluginType, Roles, Stability};
use crate::pool::{Age, Endpoint};
use crate::scheduling::{Admitter, Call};

/// Registry row.
pub static TYPE: PluginType = PluginType::new("probabilistic-admitter", Stability::Beta, build).about(
    "Refuses requests of negative priority by chance, the more of them the fuller the endpoints are.",
    "Use it where sheddable work should fade out as load grows, and not stop at once. It costs one pass over the \
     candidates for each sheddable request.",
);

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Params {
    /// Waiting requests of a full endpoint; above 0.
    queue_depth_threshold: f64,
    /// Cache usage of a full endpoint, as a fraction; above 0.
    kv_cache_util_threshold: f64,
    /// Exponent; the higher, the later and the more suddenly refusals begin. Above 0.
    power: f64,
    /// Factor: the probability with which a request is refused when endpoints are full, if it is below 1. Above 0.
    k: f64,
}

impl Default for Params {
    fn default() -> Self {
        Self { queue_depth_threshold: 5.0, kv_cache_util_threshold: 0.8, power: 5.0, k: 300.0 }
    }
}

fn build(cx: &mut BuildCx<'_>) -> Result<Roles, BuildError> {
    let params: Params = cx.params()?;
    for (name, value) in [
        ("queueDepthThreshold", params.queue_depth_threshold),
        ("kvCacheUtilThreshold", params.kv_cache_util_threshold),
        ("power", params.power),
        ("k", params.k),
    ] {
        if value <= 0.0 {
            return Err(BuildError::at(name, format!("is {value}; it must be above 0")));
        }
    }
    Ok(Roles { admitter: Some(Arc::new(Probabilistic { params })), ..Roles::default() })
}

#[derive(Debug)]
struct Probabilistic {
    params: Params,
}

impl Probabilistic {
    /// How full an endpoint is; 1 is full.
    fn fill(&self, call: &Call<'_>, endpoint: &Endpoint) -> f64 {
        let load = endpoint.load();
        if load.age(call.now) == Age::Never {
            return 1.0;
        }
        let queue = load.waiting() as f64 / self.params.queue_depth_threshold;
        queue.max(load.kv_usage() / self.params.kv_cache_util_threshold)
    }

    /// Probability with which a sheddable request is refused.
    fn refuses(&self, call: &Call<'_>) -> f64 {
        let sum: f64 = call.endpoints().map(|endpoint| self.fill(call, endpoint)).sum();
        let mean = if call.is_empty() { 1.0 } else { sum / call.len() as f64 };
        (mean.powf(self.params.power) * self.params.k).min(1.0)
    }
}

impl Admitter for Probabilistic {
    fn admit(&self, call: &Call<'_>, rng: &mut Rng) -> Result<(), String> {
        if call.request.priority >= 0 {
            return Ok(());
        }
        let probability = self.refuses(call);
        if rng.f64() < probability {
            return Err(format!("sheddable request refused with a probability of {probability:.3}"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::{Value, json};

    use super::*;
    use crate::plugins::fixture::{Fleet, Pod, pod, request};
    use crate::scheduling::Columns;

    /// How many of 1,000 requests of this priority are refused.
    fn refused(params: Value, pods: impl IntoIterator<Item = Pod>, priority: i32) -> usize {
        let mut fleet = Fleet::new(pods);
        let built = fleet.build(&TYPE, Some(params)).unwrap();
        let (request, mut rng) = (request("m").priority(priority), Rng::with_seed(3));
        let admitter = built.roles.admitter.as_ref().unwrap();
        fleet.call(&request, &Columns::new(), |call| {
            (0..1000).filter(|_| admitter.admit(call, &mut rng).is_err()).count()
        })
    }

    #[test]
    fn sheddable_requests_are_refused_in_proportion_to_the_fill_and_others_never() {
        let pods = |waiting: u64, kv: f64| [pod("a").waiting(waiting).kv(kv), pod("b").waiting(0).kv(0.0)];
        let linear = || json!({"power": 1, "k": 1});
        for (params, pods, priority, least, most) in [
            (json!({}), pods(0, 0.0), -1, 0, 0),
            (json!({}), pods(50, 0.9), 0, 0, 0),
            (json!({}), pods(50, 0.9), 7, 0, 0),
            (json!({}), pods(50, 0.9), -1, 1000, 1000),
            // A mean of 0.2: 300 · 0.2⁵ = 0.096.
            (json!({}), pods(2, 0.0), -1, 70, 120),
            // The larger of queue and cache counts: (4/5 + 0) / 2 = 0.4, and 0.6/0.8/2 = 0.375.
            (linear(), pods(4, 0.1), -1, 360, 440),
            (linear(), pods(0, 0.6), -1, 335, 415),
            (json!({"power": 1, "k": 1, "queueDepthThreshold": 10}), pods(10, 0.0), -1, 460, 540),
            (json!({"power": 1, "k": 1, "kvCacheUtilThreshold": 0.5}), pods(0, 0.5), -1, 460, 540),
            (json!({"POWER": 1, "K": 0.1}), pods(10, 0.0), -1, 80, 120),
        ] {
            let count = refused(params.clone(), pods, priority);
            assert!((least..=most).contains(&count), "{params} {priority}: {count}");
        }
    }

    #[test]
    fn an_endpoint_that_was_never_read_counts_as_full_and_an_old_reading_as_it_was() {
        let linear = || json!({"power": 1, "k": 1});
        assert_eq!(refused(linear(), [pod("a")], -1), 1000);
        let half = refused(linear(), [pod("a"), pod("b").waiting(0)], -1);
        assert!((460..=540).contains(&half), "{half}");
        let mut fleet = Fleet::new([pod("a").waiting(0)]);
        let built = fleet.build(&TYPE, None).unwrap();
        fleet.now += Duration::from_hours(1);
        let verdict = fleet.call(&request("m").priority(-1), &Columns::new(), |call| {
            built.roles.admitter.as_ref().unwrap().admit(call, &mut Rng::with_seed(1))
        });
        assert_eq!(verdict, Ok(()));
    }

    #[test]
    fn without_candidates_nothing_divides_by_zero_and_a_usage_that_is_no_number_is_never_read() {
        assert_eq!(refused(json!({}), [], -1), 1000);
        assert_eq!(refused(json!({}), [pod("a").waiting(0).kv(f64::NAN)], -1), 0);
    }

    #[test]
    fn parameters_that_are_not_above_0_are_refused_by_name() {
        for name in ["queueDepthThreshold", "kvCacheUtilThreshold", "power", "k"] {
            for value in [0.0, -1.0] {
                let error = Fleet::new([]).build(&TYPE, Some(json!({name: value}))).unwrap_err();
                assert_eq!(error.path, name);
            }
        }
    }
}
