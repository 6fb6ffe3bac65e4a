//! `slo-headroom-tier-filter`: keeps the endpoints that are predicted to keep the request's latency objective.
//!
//! An endpoint is in the upper tier if both its headrooms are at least 0, and in the lower tier otherwise. Where both
//! tiers have endpoints, the lower one stays with the probability `epsilonExploreNeg`, so that its predictions go on
//! being tried, and the upper one otherwise. Where one is empty, the other stays. Without predictions all stay, and
//! without an objective all are in the lower tier.
//!
//! Use it in front of scorers that should not outvote an objective. It costs one pass over the candidates.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::latency::LatencyPrediction;
use crate::plugins::drawn::drawn;
use crate::plugins::producers::predicted_latency;
use crate::plugins::{BuildCx, BuildError, PluginType, Roles, Stability};
use crate::scheduling::{Call, Column, Filter, Mask};

/// Registry row.
pub static TYPE: PluginType = PluginType::new("slo-headroom-tier-filter", Stability::Beta, build).about(
    "Keeps the endpoints that are predicted to keep the request's latency objective.",
    "Use it, with predicted-latency-producer, in front of scorers that should not outvote an objective. It costs one \
     pass over the candidates.",
);

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Params {
    /// Probability with which the endpoints that miss the objective stay instead, 0..=1.
    epsilon_explore_neg: f64,
    /// Instance that predicts.
    latency_prediction_info_producer_name: String,
}

impl Default for Params {
    fn default() -> Self {
        Self {
            epsilon_explore_neg: 0.01,
            latency_prediction_info_producer_name: predicted_latency::TYPE.name.to_owned(),
        }
    }
}

fn build(cx: &mut BuildCx<'_>) -> Result<Roles, BuildError> {
    let params: Params = cx.params()?;
    if !(0.0..=1.0).contains(&params.epsilon_explore_neg) {
        return Err(BuildError::at("epsilonExploreNeg", "must lie in 0..=1"));
    }
    let name = &params.latency_prediction_info_producer_name;
    Ok(Roles::default().filter(Arc::new(SloHeadroomTier {
        predictions: cx.consumes(name, Some(predicted_latency::TYPE.name)),
        exploration: params.epsilon_explore_neg,
        seed: cx.seed(),
    })))
}

#[derive(Debug)]
struct SloHeadroomTier {
    predictions: Column<LatencyPrediction>,
    exploration: f64,
    seed: u64,
}

impl Filter for SloHeadroomTier {
    fn narrow(&self, call: &Call<'_>, keep: &mut Mask) {
        if call.len() < 2 {
            return;
        }
        let Some(predictions) = call.column(self.predictions) else { return };
        let (mut upper, mut lower) = (Mask::full(call.len()), Mask::full(call.len()));
        let mut above = 0;
        for (position, cell) in predictions.enumerate() {
            if cell.first_headroom >= 0.0 && cell.between_headroom >= 0.0 {
                above += 1;
                lower.clear(position);
            } else {
                upper.clear(position);
            }
        }
        if above == 0 || above == call.len() {
            return;
        }
        *keep = if drawn(call.request.id, self.seed) < self.exploration { lower } else { upper };
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::plugins::fixture::{Fleet, pod, request};
    use crate::scheduling::{Columns, Produced};

    fn kept(params: Value, headrooms: &[(f64, f64)]) -> String {
        let names = ["a", "b", "c"];
        let mut fleet = Fleet::new(names[..headrooms.len()].iter().map(|name| pod(name)));
        let built = fleet.build(&TYPE, Some(params)).unwrap();
        let cells = headrooms.iter().map(|&(first, between)| LatencyPrediction {
            first_headroom: first,
            between_headroom: between,
            ..LatencyPrediction::default()
        });
        let mut columns = Columns::new();
        columns.insert(Produced::new(fleet.column("predicted-latency-producer"), cells.collect()));
        narrowed(&fleet, &built.roles, &columns)
    }

    fn narrowed(fleet: &Fleet, roles: &Roles, columns: &Columns) -> String {
        fleet.call(&request("m"), columns, |call| {
            let mut keep = Mask::full(call.len());
            roles.filter.as_ref().unwrap().narrow(call, &mut keep);
            let kept = call.endpoints().enumerate().filter(|(position, _)| keep.contains(*position));
            kept.map(|(_, endpoint)| endpoint.id().name().to_owned()).collect()
        })
    }

    #[test]
    fn endpoints_that_keep_the_objective_stay_alone_but_for_an_exploration() {
        for (params, headrooms, expected) in [
            (json!({"epsilonExploreNeg": 0}), vec![(1.0, 0.0), (-1.0, 0.0), (1.0, -1.0)], "a"),
            (json!({"epsilonExploreNeg": 1}), vec![(1.0, 0.0), (-1.0, 0.0), (1.0, -1.0)], "bc"),
            (json!({"epsilonExploreNeg": 0}), vec![(0.0, 0.0), (0.0, 0.0)], "ab"),
            (json!({"epsilonExploreNeg": 1}), vec![(2.0, 0.0), (3.0, 0.0)], "ab"),
            (json!({"epsilonExploreNeg": 1}), vec![(-2.0, 0.0), (-3.0, 0.0)], "ab"),
            (json!({}), vec![(f64::NAN, 0.0), (3.0, 0.0)], "b"),
            (json!({}), vec![(-3.0, 0.0)], "a"),
            (json!({}), vec![], ""),
        ] {
            assert_eq!(kept(params.clone(), &headrooms), expected, "{params} {headrooms:?}");
        }
    }

    #[test]
    fn without_predictions_all_stay_and_a_share_out_of_range_is_refused() {
        let mut fleet = Fleet::new([pod("a"), pod("b")]);
        let built = fleet.build(&TYPE, None).unwrap();
        assert_eq!(narrowed(&fleet, &built.roles, &Columns::new()), "ab");
        let error = fleet.build(&TYPE, Some(json!({"epsilonExploreNeg": 1.5}))).unwrap_err();
        assert_eq!(error.path, "epsilonExploreNeg");
    }
}
