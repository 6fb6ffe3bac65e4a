//! `kv-block-cost-scorer`: Dynamo's cost of blocks to prefill and blocks to decode.
//!
//! `cost = overlapWeight · prefill blocks + decode blocks`. Prefill blocks are the prompt tokens that are in flight at
//! the endpoint without a first token, and those of this request that are not cached there, in blocks. Decode blocks
//! are the blocks that requests hold there, and those of this prompt. With `temperature` 0 the score is
//! `(max − cost) / (max − min)`, 1 if all are equal. Above 0 the costs are brought to 0..=1 the same way, and the score
//! is `exp(−cost / temperature)` divided by the sum over all endpoints: the probability by which
//! `weighted-random-picker` then picks. The source is the cost function of the KV router of NVIDIA Dynamo
//! (`kv-overlap-score-weight`, `router-temperature`).
//!
//! For it: users of Dynamo keep their settings. Against it: blocks in use are as old as the last scrape, and say
//! little of time. Credits for slower tiers of a cache do not exist here, because no index knows tiers. Cost: two passes
//! over the candidates.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::Deserialize;

use super::{lowest_is_best, uncached_tokens};
use crate::plugins::producers::approx_prefix_cache;
use crate::plugins::{BuildCx, BuildError, PluginType, Roles, Stability};
use crate::prefix::PrefixMatch;
use crate::scheduling::{Call, Category, Column, Scorer};

/// Registry row.
pub static TYPE: PluginType = PluginType::new("kv-block-cost-scorer", Stability::Alpha, build).about(
    "Prefers endpoints with few blocks to prefill and few blocks in use, as NVIDIA Dynamo's router does.",
    "Use it when coming from Dynamo. It costs two passes over the candidates and keeps a prefix index.",
);

/// Tokens in a block, unless a server says otherwise.
const USUAL_BLOCK: u32 = 16;

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Params {
    /// Weight of a block to prefill beside one in use, at least 0.
    overlap_weight: f64,
    /// 0 prefers the cheapest endpoint; more makes dearer ones likelier, for `weighted-random-picker`.
    temperature: f64,
    /// Instance that produces the matches.
    prefix_match_info_producer_name: String,
}

impl Default for Params {
    fn default() -> Self {
        Self {
            overlap_weight: 1.0,
            temperature: 0.0,
            prefix_match_info_producer_name: approx_prefix_cache::TYPE.name.to_owned(),
        }
    }
}

fn build(cx: &mut BuildCx<'_>) -> Result<Roles, BuildError> {
    let params: Params = cx.params()?;
    for (name, value) in [("overlapWeight", params.overlap_weight), ("temperature", params.temperature)] {
        if !value.is_finite() || value < 0.0 {
            return Err(BuildError::at(name, format!("is {value}, expected a number of at least 0")));
        }
    }
    let matches = cx.consumes(&params.prefix_match_info_producer_name, Some(approx_prefix_cache::TYPE.name));
    let Params { overlap_weight, temperature, .. } = params;
    Ok(Roles::default().scorer(Arc::new(KvBlockCost { matches, overlap_weight, temperature })))
}

#[derive(Debug)]
struct KvBlockCost {
    matches: Column<PrefixMatch>,
    overlap_weight: f64,
    temperature: f64,
}

impl Scorer for KvBlockCost {
    fn category(&self) -> Category {
        Category::Balance
    }

    fn score(&self, call: &Call<'_>, out: &mut [f64]) {
        uncached_tokens(call, self.matches, out);
        for (cost, endpoint) in out.iter_mut().zip(call.endpoints()) {
            let load = endpoint.load();
            let block = f64::from(match load.block_size() {
                0 => USUAL_BLOCK,
                size => size,
            });
            let prefill = (*cost + load.in_flight_tokens() as f64) / block;
            let decode = load.kv_usage() * f64::from(load.num_blocks()) + *cost / block;
            *cost = self.overlap_weight * prefill + decode;
        }
        lowest_is_best(out);
        if self.temperature > 0.0 {
            // The best stands at 1, so that no exponent is above 0.
            for score in out.iter_mut() {
                *score = ((*score - 1.0) / self.temperature).exp();
            }
            let sum: f64 = out.iter().sum();
            for score in out {
                *score /= sum.max(f64::MIN_POSITIVE);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::plugins::fixture::{Fleet, pod, request};

    #[test]
    fn the_cheapest_endpoint_is_best_and_a_temperature_makes_the_others_likelier() {
        let mut fleet = Fleet::new([pod("a"), pod("b")]);
        let mut score = |params| {
            let built = fleet.build(&TYPE, Some(params)).unwrap();
            let columns = fleet.matches(&[8, 0], 10);
            fleet.scores(&built.roles, &request("m"), &columns)
        };
        assert_eq!(score(json!({})), [1.0, 0.0]);
        let warm = score(json!({"temperature": 1}));
        assert!((warm[0] + warm[1] - 1.0).abs() < 1e-12 && warm[0] > warm[1] && warm[1] > 0.2, "{warm:?}");
        let hot = score(json!({"temperature": 100}));
        assert!((hot[0] - hot[1]).abs() < 0.01, "{hot:?}");
    }

    #[test]
    fn senseless_weights_are_refused() {
        let mut fleet = Fleet::new([pod("a")]);
        for params in [json!({"overlapWeight": -1}), json!({"temperature": -0.1})] {
            assert!(fleet.build(&TYPE, Some(params)).is_err());
        }
    }
}
