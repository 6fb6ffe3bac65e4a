//! `latency-slo-admitter`: refuses sheddable requests whose latency objective no endpoint is predicted to keep.
//!
//! A request is refused if its priority is below 0, it names an objective, latencies are predicted, no endpoint is valid,
//! none has no request in flight, and none uses less than 2 % of its cache.
//!
//! Use it where sheddable work that comes too late is worth nothing. It costs one pass over the candidates for each
//! sheddable request with an objective.

use std::sync::Arc;

use fastrand::Rng;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::latency::{LatencyPrediction, Objective};
use crate::plugins::latency_objective::objective;
use crate::plugins::producers::predicted_latency;
use crate::plugins::{BuildCx, BuildError, PluginType, Roles, Stability};
use crate::scheduling::{Admitter, Call, Column};

/// Registry row.
pub static TYPE: PluginType = PluginType::new("latency-slo-admitter", Stability::Beta, build).about(
    "Refuses sheddable requests whose latency objective no endpoint is predicted to keep.",
    "Use it, with predicted-latency-producer, where sheddable work that comes too late is worth nothing. It costs one \
     pass over the candidates for each sheddable request with an objective.",
);

/// Cache usage below which an endpoint counts as idle.
const IDLE_USAGE: f64 = 0.02;

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Params {
    /// Instance that predicts.
    latency_prediction_info_producer_name: String,
}

impl Default for Params {
    fn default() -> Self {
        Self { latency_prediction_info_producer_name: predicted_latency::TYPE.name.to_owned() }
    }
}

fn build(cx: &mut BuildCx<'_>) -> Result<Roles, BuildError> {
    let params: Params = cx.params()?;
    let name = &params.latency_prediction_info_producer_name;
    let predictions = cx.consumes(name, Some(predicted_latency::TYPE.name));
    Ok(Roles { admitter: Some(Arc::new(LatencySlo { predictions })), ..Roles::default() })
}

#[derive(Debug)]
struct LatencySlo {
    predictions: Column<LatencyPrediction>,
}

impl Admitter for LatencySlo {
    fn admit(&self, call: &Call<'_>, _rng: &mut Rng) -> Result<(), String> {
        let request = &call.request;
        if request.priority >= 0 || objective(request.headers) == Objective::default() {
            return Ok(());
        }
        let Some(mut predictions) = call.column(self.predictions) else { return Ok(()) };
        let mut endpoints = call.endpoints();
        if predictions.any(LatencyPrediction::is_valid)
            || endpoints.any(|endpoint| {
                let load = endpoint.load();
                (load.in_flight() == 0 && load.running() == 0) || load.kv_usage() < IDLE_USAGE
            })
        {
            return Ok(());
        }
        Err("no endpoint is predicted to keep the latency objective of this sheddable request".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugins::fixture::{Fleet, Pod, Request, pod, request};
    use crate::scheduling::{Columns, Produced};

    fn admits(pods: impl IntoIterator<Item = Pod>, request: &Request, valid: Option<bool>) -> bool {
        let mut fleet = Fleet::new(pods);
        let built = fleet.build(&TYPE, None).unwrap();
        let mut columns = Columns::new();
        if let Some(valid) = valid {
            let cell = LatencyPrediction { first_valid: valid, between_valid: true, ..Default::default() };
            let cells = vec![cell; fleet.snapshot().len()];
            columns.insert(Produced::new(fleet.column("predicted-latency-producer"), cells));
        }
        let admitter = built.roles.admitter.as_ref().unwrap();
        fleet.call(request, &columns, |call| admitter.admit(call, &mut Rng::with_seed(1)).is_ok())
    }

    #[test]
    fn sheddable_requests_are_refused_where_every_busy_endpoint_misses_the_objective() {
        let busy = || [pod("a").running(3).kv(0.5), pod("b").running(1).kv(0.9)];
        let asks = |priority| request("m").priority(priority).header("x-slo-ttft-ms", "100");
        for (pods, request, valid, expected) in [
            (busy(), asks(-1), Some(false), false),
            (busy(), asks(-1), Some(true), true),
            (busy(), asks(-1), None, true),
            (busy(), asks(0), Some(false), true),
            (busy(), request("m").priority(-1), Some(false), true),
            (busy(), request("m").priority(-1).header("x-slo-tpot-ms", "20"), Some(false), false),
            (busy(), request("m").priority(-1).header("x-slo-ttft-ms", "soon"), Some(false), true),
            ([pod("a").running(3).kv(0.5), pod("b").running(0).kv(0.9)], asks(-1), Some(false), true),
            ([pod("a").running(3).kv(0.5), pod("b").running(9).kv(0.01)], asks(-1), Some(false), true),
            (
                [pod("a").running(3).kv(0.5), pod("b").running(0).kv(0.9).in_flight(1)],
                asks(-1),
                Some(false),
                false,
            ),
        ] {
            assert_eq!(admits(pods.clone(), &request, valid), expected, "{pods:?} {request:?} {valid:?}");
        }
    }

    #[test]
    fn an_endpoint_that_was_never_read_counts_as_idle_and_nobody_at_all_refuses() {
        let asks = request("m").priority(-1).header("x-slo-ttft-ms", "100");
        assert!(admits([pod("a")], &asks, Some(false)));
        assert!(!admits([], &asks, Some(false)));
    }
}
