//! `pd-profile-handler`: decode, and prefill where a decider says so. Deprecated; `disagg-profile-handler` does the
//! same and more.
//!
//! With `primaryPort`, the proxy reaches every decode server on that port, and the header `x-data-parallel-host-port`
//! names the engine rank that was chosen. The prefill server is written by `disagg-headers-handler`, which must be
//! listed as well.
//!
//! Use it only to keep an old configuration. It costs one more run of a profile for each request that is prefilled
//! apart.

use std::sync::Arc;

use schemars::JsonSchema;

use serde::Deserialize;

use super::data_parallel::{RankHeader, port};
use super::stages::{SideStage, StageHandler, StageOrder};
use crate::plugins::{BuildCx, BuildError, PluginType, Roles, Stability};

/// Registry row.
pub static TYPE: PluginType = PluginType::new("pd-profile-handler", Stability::Beta, build)
    .superseded_by("disagg-profile-handler", "v0.7.0")
    .about(
        "Runs the decode profile, and the prefill profile where a decider says so.",
        "Use it only to keep an old configuration; disagg-profile-handler does the same and more. It costs \
         one more run of a profile for each request whose prompt another server processes.",
    );

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Params {
    /// Profile that chooses the server that answers.
    decode_profile: String,
    /// Profile that chooses the server that processes the prompt.
    prefill_profile: String,
    /// Plugin that decides whether prefill runs.
    decider_plugin_name: String,
    /// Port on which the proxy reaches all decode servers, 1 to 65535; 0 is each server's own.
    primary_port: i64,
    /// Has no effect: the decider knows its producer.
    prefix_plugin_type: String,
    /// Has no effect: the decider knows its producer.
    prefix_plugin_name: String,
    /// Has no effect: the decider knows its producer.
    prefix_match_info_producer_name: String,
}

impl Default for Params {
    fn default() -> Self {
        Self {
            decode_profile: "decode".to_owned(),
            prefill_profile: "prefill".to_owned(),
            decider_plugin_name: "prefix-based-pd-decider".to_owned(),
            primary_port: 0,
            prefix_plugin_type: String::new(),
            prefix_plugin_name: String::new(),
            prefix_match_info_producer_name: String::new(),
        }
    }
}

fn build(cx: &mut BuildCx<'_>) -> Result<Roles, BuildError> {
    let params: Params = cx.params()?;
    for (name, value) in [
        ("prefixPluginType", &params.prefix_plugin_type),
        ("prefixPluginName", &params.prefix_plugin_name),
        ("prefixMatchInfoProducerName", &params.prefix_match_info_producer_name),
    ] {
        if !value.is_empty() {
            cx.warn(format!(
                "{name}: {value:?} has no effect, the decider reads the matches it was made for"
            ));
        }
    }
    let proxy_port = match params.primary_port {
        0 => None,
        given => Some(port("primaryPort", given)?),
    };
    let prefill = SideStage {
        named: params.prefill_profile != "prefill",
        profile: params.prefill_profile,
        decider: Some(cx.decider("deciderPluginName", &params.decider_plugin_name)),
    };
    let handler = Arc::new(StageHandler {
        order: StageOrder::DecodeFirst,
        decode: params.decode_profile,
        prefill,
        encode: None,
        metrics: cx.metrics().prefill_decode(TYPE.reports_as, cx.name()),
        proxy_port,
        step: "pick_pd_profile",
    });
    let roles = Roles::default().profile_handler(handler);
    Ok(if proxy_port.is_some() { roles.pre_request(Arc::new(RankHeader)) } else { roles })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::plugins::fixture::{Fleet, pod, request};

    #[test]
    fn the_decider_has_a_default_and_the_profiles_too() {
        let mut fleet = Fleet::new([pod("a")]);
        let built = fleet.build(&TYPE, None).unwrap();
        assert_eq!(Fleet::answer_deciders(&built, |_| true), ["prefix-based-pd-decider"]);
        assert!(built.roles.pre_request.is_none());
        let handler = built.roles.profile_handler.unwrap();
        assert_eq!(handler.review(&["prefill".into(), "decode".into()]), []);
        assert_eq!(handler.proxy_port(), None);
    }

    #[test]
    fn a_primary_port_replaces_the_target_s_and_the_header_names_the_rank() {
        let mut fleet = Fleet::new([pod("a").at("10.0.0.1:8002"), pod("b").at("[fd00::2]:8001")]);
        let built = fleet.build(&TYPE, Some(json!({"primaryPort": 8000}))).unwrap();
        let port = built.roles.profile_handler.as_ref().unwrap().proxy_port();
        for (place, reached, rank) in
            [(0, "10.0.0.1:8000", "10.0.0.1:8002"), (1, "[fd00::2]:8000", "[fd00::2]:8001")]
        {
            let mut decision = fleet.decision(&[Some(place)], &[]);
            decision.proxy_port = port;
            assert_eq!(decision.address(&decision.targets()[0]), reached);
            let forged = request("m").header("x-data-parallel-host-port", "6.6.6.6:1");
            let edits = fleet.edits(&built.roles, &forged, &decision, &["decode".into()]);
            assert_eq!(edits.set.as_slice(), [("x-data-parallel-host-port".into(), rank.into())]);
        }
        for wrong in [-1, 65_536] {
            let error = fleet.build(&TYPE, Some(json!({"primaryPort": wrong}))).unwrap_err();
            assert_eq!(error.path, "primaryPort");
        }
    }

    #[test]
    fn parameters_of_the_prefix_plugin_are_taken_with_a_warning() {
        let params =
            json!({"prefixPluginName": "p", "prefixPluginType": "t", "prefixMatchInfoProducerName": "q"});
        assert_eq!(Fleet::new([]).build(&TYPE, Some(params)).unwrap().warnings.len(), 3);
    }
}
