//! `inflight-load-producer`, and `inFlightLoadProducerName` of plugins that read this process's own load ledger.
//!
//! Requests and tokens in flight are always counted here, by a lease for each request; the type is accepted so that
//! configurations of the reference load, and its parameters are checked.

use serde::Deserialize;

use super::{BuildCx, BuildError, PluginType, Roles, Stability};

/// The type. It is no row of the registry, for it does nothing.
pub static INFLIGHT: PluginType = PluginType::new(NAME, Stability::Beta, build);

const NAME: &str = "inflight-load-producer";

#[derive(Debug, Default, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Params {
    /// Without effect: tokens that a response may have are not estimated.
    add_estimated_output_tokens: bool,
    /// Tokens of a response for each token of the prompt; at least 0.
    output_ratio: Option<f64>,
    /// Most tokens that a response is taken to have; at least 0.
    max_estimated_output_tokens: Option<i64>,
    /// Without effect: the leases count what was sent.
    prefix_match_info_producer_name: String,
    /// Without effect: replicas tell each other nothing.
    sync_cross_replica_state: Option<bool>,
}

fn build(cx: &mut BuildCx<'_>) -> Result<Roles, BuildError> {
    let params: Params = cx.params()?;
    if params.output_ratio.is_some_and(|ratio| ratio.is_nan() || ratio < 0.0) {
        return Err(BuildError::at("outputRatio", "is below 0, expected a number of at least 0"));
    }
    if params.max_estimated_output_tokens.is_some_and(|most| most < 0) {
        return Err(BuildError::at("maxEstimatedOutputTokens", "is below 0, expected at least 0"));
    }
    if params.add_estimated_output_tokens {
        cx.warn("addEstimatedOutputTokens has no effect, tokens of prompts alone are counted");
    }
    if !params.prefix_match_info_producer_name.is_empty() {
        cx.warn(
            "prefixMatchInfoProducerName has no effect, plugins that count tokens name their own producer",
        );
    }
    if params.sync_cross_replica_state == Some(true) {
        cx.warn("syncCrossReplicaState has no effect, replicas tell each other nothing");
    }
    Ok(Roles::default())
}

/// Warns of the parameter where it names anything but the producer that is always there.
pub(super) fn note_load_producer(cx: &mut BuildCx<'_>, producer: Option<&str>) {
    if let Some(producer) = producer.filter(|producer| *producer != NAME && !producer.is_empty()) {
        cx.warn(format!(
            "inFlightLoadProducerName: {producer:?} has no effect, requests in flight are always counted"
        ));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::plugins::fixture::Fleet;

    #[test]
    fn parameters_of_the_counter_are_checked_and_those_without_effect_told() {
        let build = |params| Fleet::new([]).build(&INFLIGHT, Some(params)).map(|built| built.warnings);
        assert_eq!(build(json!({"outputRatio": 1.5, "ADDESTIMATEDOUTPUTTOKENS": false})).unwrap(), [""; 0]);
        for (name, value) in [
            ("outputRatio", json!(-1)),
            ("maxEstimatedOutputTokens", json!(-1)),
            ("outputRation", json!(1)),
            ("syncCrossReplicaState", json!(3)),
        ] {
            assert_eq!(build(json!({name: value})).unwrap_err().path, name);
        }
        let all = json!({"addEstimatedOutputTokens": true, "prefixMatchInfoProducerName": "p", "syncCrossReplicaState": true});
        assert_eq!(build(all).unwrap().len(), 3);
    }
}
