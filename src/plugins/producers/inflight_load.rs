//! `inflight-load-producer`: says how the requests and tokens in flight are counted.
//!
//! A lease counts each request at the servers that work on it, whether or not the plugin is listed. Without it the tokens
//! are those of the whole prompt, until the response begins. With it:
//!
//! * blocks that the server is believed to hold do not count: `max(0, (total − matched) · size) + max(0, tokens − total ·
//!   size)`;
//! * with `addEstimatedOutputTokens` the response counts too, `min(round(tokens · outputRatio), what the client asks for,
//!   maxEstimatedOutputTokens)`, and all of it counts until the response ends. A prefill server is done when the response
//!   begins;
//! * the series of requests in flight are on the page.
//!
//! Use it where plugins go by tokens in flight, or where the page shall show requests in flight. It costs two look-ups a
//! request.

use schemars::JsonSchema;
use serde::Deserialize;

use super::approx_prefix_cache;
use crate::plugins::{BuildCx, BuildError, PluginType, Roles, Stability};
use crate::scheduling::{InFlightRule, ResponseEstimate};

/// Registry row.
pub static TYPE: PluginType = PluginType::new("inflight-load-producer", Stability::Beta, build)
    .about(
        "Says how the requests and tokens in flight are counted.",
        "Use it where plugins go by tokens in flight, or where the page shall show requests in flight. It costs two \
         look-ups a request.",
    )
    .with_example("addEstimatedOutputTokens: true\noutputRatio: 1.5\nmaxEstimatedOutputTokens: 4096");

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Params {
    /// Count tokens that the response may have, until it ends.
    add_estimated_output_tokens: bool,
    /// Tokens of a response for each token of the prompt; at least 0.
    output_ratio: f64,
    /// Most tokens that a response is taken to have; at least 0.
    max_estimated_output_tokens: Option<i64>,
    /// Plugin instance whose matches say what a server need not process.
    prefix_match_info_producer_name: String,
    /// Without effect: replicas tell each other their load where --peers or --peer-service names them.
    sync_cross_replica_state: bool,
}

impl Default for Params {
    fn default() -> Self {
        Self {
            add_estimated_output_tokens: false,
            output_ratio: 1.5,
            max_estimated_output_tokens: None,
            prefix_match_info_producer_name: approx_prefix_cache::TYPE.name.to_owned(),
            sync_cross_replica_state: true,
        }
    }
}

fn build(cx: &mut BuildCx<'_>) -> Result<Roles, BuildError> {
    let params: Params = cx.params()?;
    let ratio = params.output_ratio;
    if !ratio.is_finite() || ratio < 0.0 {
        return Err(BuildError::at("outputRatio", format!("got {ratio}, expected a number of at least 0")));
    }
    let most = params.max_estimated_output_tokens.map(u64::try_from).transpose();
    let below = |_| BuildError::at("maxEstimatedOutputTokens", "is below 0, expected at least 0");
    let most = most.map_err(below)?;
    if !params.sync_cross_replica_state {
        cx.warn("syncCrossReplicaState: false has no effect, replicas that know each other tell each other their load");
    }
    let response = params.add_estimated_output_tokens.then_some(ResponseEstimate { ratio, most });
    let matches = cx.may_consume(&params.prefix_match_info_producer_name);
    Ok(Roles {
        in_flight: Some(InFlightRule { response }),
        in_flight_matches: Some(matches),
        follows_endpoints: true,
        ..Roles::default()
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::plugins::fixture::Fleet;

    #[test]
    fn the_rule_is_that_of_the_parameters() {
        let mut fleet = Fleet::new([]);
        let mut rule = |params| fleet.build(&TYPE, Some(params)).unwrap().roles.in_flight.unwrap();
        assert_eq!(rule(json!({})), InFlightRule::default());
        assert_eq!(rule(json!({"outputRatio": 3})), InFlightRule::default(), "only if responses count");
        assert_eq!(
            rule(json!({"ADDESTIMATEDOUTPUTTOKENS": true})).response,
            Some(ResponseEstimate { ratio: 1.5, most: None })
        );
        assert_eq!(
            rule(json!({"addEstimatedOutputTokens": true, "outputRatio": 0, "maxEstimatedOutputTokens": 0}))
                .response,
            Some(ResponseEstimate { ratio: 0.0, most: Some(0) })
        );
    }

    #[test]
    fn parameters_are_checked_and_those_without_effect_told() {
        let build = |params| Fleet::new([]).build(&TYPE, Some(params));
        for (name, value) in [
            ("outputRatio", json!(-1)),
            ("maxEstimatedOutputTokens", json!(-1)),
            ("outputRation", json!(1)),
            ("syncCrossReplicaState", json!(3)),
        ] {
            assert_eq!(build(json!({name: value})).unwrap_err().path, name);
        }
        assert_eq!(build(json!({"syncCrossReplicaState": true})).unwrap().warnings, [""; 0]);
        assert_eq!(build(json!({"syncCrossReplicaState": false})).unwrap().warnings.len(), 1);
    }

    #[test]
    fn the_matches_that_are_read_are_those_of_the_named_producer() {
        for (params, producer) in [
            (json!({}), "approx-prefix-cache-producer"),
            (json!({"prefixMatchInfoProducerName": ""}), "approx-prefix-cache-producer"),
            (json!({"prefixMatchInfoProducerName": "precise"}), "precise"),
        ] {
            let built = Fleet::new([]).build(&TYPE, Some(params)).unwrap();
            assert_eq!(
                built.consumed.iter().map(|used| used.key.producer.as_str()).collect::<Vec<_>>(),
                [producer]
            );
            assert!(!built.consumed[0].required);
        }
    }
}
