//! `prefix-cache-affinity-filter`: keeps the endpoints that hold nearly all of the prompt, unless they are too busy.
//!
//! An endpoint is sticky if `m / n` of the prompt's `n` blocks are matched there and `m / n ≥ affinityThreshold`.
//! Without a sticky endpoint all stay. Else the sticky ones stay alone, with two ways out: with the probability
//! `explorationProbability` all stay; and all stay if the least busy sticky endpoint would answer later than the least
//! busy other one by more than `maxTTFTPenaltyMs`. The time to the first token is taken to be the tokens in flight at
//! an endpoint, divided by `peakPrefillThroughput` (tokens a second). With `ttftSource: latencyPredictor` it is what
//! predicted-latency-producer says, and the estimate while that says nothing.
//!
//! Use it where prefixes are long and a miss costs more than a wait. It costs two passes over the candidates, and keeps
//! a prefix index.

use std::sync::Arc;

use schemars::JsonSchema;

use serde::Deserialize;

use crate::latency::LatencyPrediction;
use crate::plugins::drawn::drawn;
use crate::plugins::producers::{approx_prefix_cache, predicted_latency};
use crate::plugins::{BuildCx, BuildError, PluginType, Roles, Stability};
use crate::pool::Endpoint;
use crate::prefix::PrefixMatch;
use crate::scheduling::{Call, Column, Filter, Mask};

/// Registry row.
pub static TYPE: PluginType = PluginType::new("prefix-cache-affinity-filter", Stability::Beta, build).about(
    "Keeps the endpoints that hold nearly all of the prompt, unless they are too busy.",
    "Use it where prefixes are long and a miss costs more than a wait. It costs two passes over the \
         candidates, and it keeps a prefix index.",
);

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Params {
    /// Share of the prompt from which an endpoint is sticky, at most 1; 0 and less switch the filter off.
    affinity_threshold: f64,
    /// Probability with which all endpoints stay, 0..=1.
    exploration_probability: f64,
    /// Longest delay in milliseconds for which a sticky endpoint is still worth it; 0 is no bound.
    #[serde(rename = "maxTTFTPenaltyMs")]
    max_ttft_penalty_ms: f64,
    /// `prefillThroughput` or `latencyPredictor`.
    ttft_source: String,
    /// Tokens a second that an endpoint prefills at most.
    peak_prefill_throughput: f64,
    /// Instance that produces the matches.
    prefix_match_info_producer_name: String,
    /// Instance that predicts latencies.
    latency_prediction_info_producer_name: String,
    /// Without effect: requests in flight are always counted.
    in_flight_load_producer_name: Option<String>,
}

impl Default for Params {
    fn default() -> Self {
        Self {
            affinity_threshold: 0.8,
            exploration_probability: 0.0,
            max_ttft_penalty_ms: 18_000.0,
            ttft_source: "prefillThroughput".to_owned(),
            peak_prefill_throughput: 15_928.0,
            prefix_match_info_producer_name: approx_prefix_cache::TYPE.name.to_owned(),
            latency_prediction_info_producer_name: predicted_latency::TYPE.name.to_owned(),
            in_flight_load_producer_name: None,
        }
    }
}

fn build(cx: &mut BuildCx<'_>) -> Result<Roles, BuildError> {
    let params: Params = cx.params()?;
    if params.affinity_threshold > 1.0 {
        return Err(BuildError::at("affinityThreshold", "must be at most 1"));
    }
    if !(0.0..=1.0).contains(&params.exploration_probability) {
        return Err(BuildError::at("explorationProbability", "must lie in 0..=1"));
    }
    if params.max_ttft_penalty_ms < 0.0 {
        return Err(BuildError::at("maxTTFTPenaltyMs", "must not be negative"));
    }
    let predictions = match params.ttft_source.as_str() {
        "prefillThroughput" | "" => None,
        "latencyPredictor" => {
            let name = &params.latency_prediction_info_producer_name;
            Some(cx.consumes(name, Some(predicted_latency::TYPE.name)))
        }
        other => {
            let message = format!("is {other:?}; expected `prefillThroughput` or `latencyPredictor`");
            return Err(BuildError::at("ttftSource", message));
        }
    };
    let estimates = predictions.is_none() && params.max_ttft_penalty_ms > 0.0;
    if params.peak_prefill_throughput < if estimates { f64::MIN_POSITIVE } else { 0.0 } {
        return Err(BuildError::at("peakPrefillThroughput", "must be above 0 where maxTTFTPenaltyMs is"));
    }
    let producer = params.prefix_match_info_producer_name;
    Ok(Roles::default().filter(Arc::new(PrefixCacheAffinity {
        matches: cx.consumes(&producer, Some(approx_prefix_cache::TYPE.name)),
        predictions,
        threshold: params.affinity_threshold,
        exploration: params.exploration_probability,
        penalty: params.max_ttft_penalty_ms,
        tokens_per_ms: params.peak_prefill_throughput / 1000.0,
        seed: cx.seed(),
    })))
}

#[derive(Debug)]
struct PrefixCacheAffinity {
    matches: Column<PrefixMatch>,
    /// Where the time to the first token is predicted.
    predictions: Option<Column<LatencyPrediction>>,
    threshold: f64,
    exploration: f64,
    /// Milliseconds.
    penalty: f64,
    tokens_per_ms: f64,
    seed: u64,
}

impl PrefixCacheAffinity {
    /// Milliseconds to the first token of an endpoint: as predicted, or until it has prefilled what is in flight there.
    fn delay(&self, endpoint: &Endpoint, predicted: Option<&LatencyPrediction>) -> f64 {
        match predicted {
            Some(predicted) => predicted.first,
            None if self.tokens_per_ms > 0.0 => {
                endpoint.load().in_flight_tokens() as f64 / self.tokens_per_ms
            }
            None => 0.0,
        }
    }
}

impl Filter for PrefixCacheAffinity {
    fn narrow(&self, call: &Call<'_>, keep: &mut Mask) {
        if call.len() < 2 || self.threshold <= 0.0 || drawn(call.request.id, self.seed) < self.exploration {
            return;
        }
        let Some(matches) = call.column(self.matches) else { return };
        let mut predictions = self.predictions.and_then(|column| call.column(column));
        let mut sticky = Mask::full(call.len());
        let (mut best_sticky, mut best_other) = (f64::INFINITY, f64::INFINITY);
        for (position, (endpoint, held)) in call.endpoints().zip(matches).enumerate() {
            let predicted = predictions.as_mut().and_then(Iterator::next);
            let delay = if self.penalty > 0.0 { self.delay(endpoint, predicted) } else { 0.0 };
            if held.fraction() >= self.threshold {
                best_sticky = best_sticky.min(delay);
            } else {
                best_other = best_other.min(delay);
                sticky.clear(position);
            }
        }
        if best_sticky.is_infinite() || self.penalty > 0.0 && best_sticky - best_other > self.penalty {
            return;
        }
        *keep = sticky;
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::plugins::fixture::{Fleet, pod, request};
    use crate::pool::Lease;
    use crate::scheduling::Columns;

    /// Names of the endpoints that stay of `a`, `b` and `c`, which hold this many of ten blocks and have this many
    /// tokens in flight.
    fn kept(params: Value, matched: [u32; 3], tokens: [u64; 3]) -> String {
        let mut fleet = Fleet::new([pod("a"), pod("b"), pod("c")]);
        let built = fleet.build(&TYPE, Some(params)).unwrap();
        let columns = fleet.matches(&matched, 10);
        let snapshot = fleet.snapshot();
        let endpoints = snapshot.endpoints().iter();
        let _leases: Vec<Lease> =
            endpoints.zip(tokens).map(|(endpoint, tokens)| Lease::take(endpoint, tokens)).collect();
        narrowed(&fleet, &built.roles, &columns)
    }

    fn narrowed(fleet: &Fleet, roles: &Roles, columns: &Columns) -> String {
        let request = request("m");
        fleet.call(&request, columns, |call| {
            let mut keep = Mask::full(call.len());
            roles.filter.as_ref().unwrap().narrow(call, &mut keep);
            let kept = call.endpoints().enumerate().filter(|(position, _)| keep.contains(*position));
            kept.map(|(_, endpoint)| endpoint.id().name().to_owned()).collect()
        })
    }

    #[test]
    fn endpoints_that_hold_nearly_all_of_the_prompt_stay_alone_unless_they_are_too_busy() {
        let idle = [0; 3];
        for (params, matched, tokens, expected) in [
            (json!({}), [9, 8, 7], idle, "ab"),
            (json!({}), [7, 7, 0], idle, "abc"),
            (json!({"affinityThreshold": 0}), [10, 0, 0], idle, "abc"),
            (json!({"affinityThreshold": 1}), [10, 9, 9], idle, "a"),
            (json!({"explorationProbability": 1}), [10, 0, 0], idle, "abc"),
            // 15,928 tokens are a second; the bound is 18.
            (json!({}), [10, 0, 0], [15_928 * 18, 0, 0], "a"),
            (json!({}), [10, 0, 0], [15_928 * 19, 0, 0], "abc"),
            (json!({}), [10, 0, 0], [15_928 * 19, 15_928 * 2, 15_928 * 2], "a"),
            (json!({"maxTTFTPenaltyMs": 0}), [10, 0, 0], [u64::MAX / 2, 0, 0], "a"),
            (json!({"peakPrefillThroughput": 1000, "maxTTFTPenaltyMs": 500}), [10, 0, 0], [501, 0, 0], "abc"),
            (json!({}), [10, 10, 10], [15_928 * 90, 0, 0], "abc"),
        ] {
            assert_eq!(kept(params.clone(), matched, tokens), expected, "{params} {matched:?} {tokens:?}");
        }
    }

    #[test]
    fn without_matches_or_a_choice_nothing_changes() {
        let mut fleet = Fleet::new([pod("a"), pod("b")]);
        let built = fleet.build(&TYPE, None).unwrap();
        assert_eq!(narrowed(&fleet, &built.roles, &Columns::new()), "ab");
        let mut one = Fleet::new([pod("a")]);
        let built = one.build(&TYPE, None).unwrap();
        let columns = one.matches(&[0], 10);
        assert_eq!(narrowed(&one, &built.roles, &columns), "a");
        let mut none = Fleet::new([]);
        let built = none.build(&TYPE, None).unwrap();
        assert_eq!(narrowed(&none, &built.roles, &Columns::new()), "");
    }

    #[test]
    fn predicted_times_to_the_first_token_decide_where_they_are_asked_for() {
        let mut fleet = Fleet::new([pod("a"), pod("b")]);
        let params =
            json!({"ttftSource": "latencyPredictor", "maxTTFTPenaltyMs": 500, "peakPrefillThroughput": 0});
        let built = fleet.build(&TYPE, Some(params)).unwrap();
        for (first, expected) in [(Some([900.0, 450.0]), "a"), (Some([900.0, 350.0]), "ab"), (None, "a")] {
            let mut columns = fleet.matches(&[10, 0], 10);
            if let Some(first) = first {
                let cells = first.map(|first| LatencyPrediction { first, ..LatencyPrediction::default() });
                let column = fleet.column("predicted-latency-producer");
                columns.insert(crate::scheduling::Produced::new(column, cells.to_vec()));
            }
            assert_eq!(narrowed(&fleet, &built.roles, &columns), expected, "{first:?}");
        }
    }

    #[test]
    fn parameters_out_of_range_are_refused_by_name() {
        let mut fleet = Fleet::new([]);
        for (params, path) in [
            (json!({"affinityThreshold": 1.1}), "affinityThreshold"),
            (json!({"explorationProbability": 2}), "explorationProbability"),
            (json!({"maxTTFTPenaltyMs": -1}), "maxTTFTPenaltyMs"),
            (json!({"peakPrefillThroughput": 0}), "peakPrefillThroughput"),
            (json!({"ttftSource": "guess"}), "ttftSource"),
        ] {
            assert_eq!(fleet.build(&TYPE, Some(params)).err().map(|error| error.path), Some(path.to_owned()));
        }
    }
}
