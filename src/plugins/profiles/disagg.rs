//! `disagg-profile-handler`: serves a request by up to three servers: one decodes, another one may process the prompt,
//! others may encode its media.
//!
//! The profiles `decode`, `prefill` and `encode` choose them (see `stages.rs` for the order and what happens when a
//! stage finds nobody). The decode server gets the request, with the others in the headers `x-prefiller-host-port` and
//! `x-encoder-hosts-ports` for its routing sidecar; what a client sends under these names is removed.
//!
//! Use it in pools that have prefill or encode servers beside decode servers. It costs one more run of a profile for
//! each stage that a request gets.

use std::sync::Arc;

use schemars::JsonSchema;

use serde::Deserialize;

use super::stages::{SideStage, StageHandler, StageOrder};
use crate::plugins::routing_headers;
use crate::plugins::{BuildCx, BuildError, PluginType, Roles, Stability};
use crate::scheduling::{DecidedCall, HeaderEdits, PluginState, PreRequest, PreRequestError};

/// Registry row.
pub static TYPE: PluginType = PluginType::new("disagg-profile-handler", Stability::Beta, build).about(
    "Serves a request by up to three servers: one decodes, another one may process the prompt, others \
         may encode its media.",
    "Use it in pools that have prefill or encode servers beside decode servers. It costs one more run \
         of a profile for each stage that a request gets.",
);

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Params {
    /// `decode-first` or `prefill-first`.
    stage_order: String,
    /// Names of the profiles.
    profiles: Option<Profiles>,
    /// Names of the plugins that decide whether a stage runs.
    deciders: Option<Deciders>,
    /// Prefill servers that the header names, the best first; 1 to 16, 1 unless given. The sidecar asks the further ones
    /// where the first fails and it runs with `--on-prefill-failure=next`.
    max_prefill_candidates: Option<i64>,
    /// Older form of `profiles.decode`.
    decode_profile: Option<String>,
    /// Older form of `profiles.prefill`.
    prefill_profile: Option<String>,
    /// Older form of `profiles.encode`.
    encode_profile: Option<String>,
    /// Older form of `deciders.prefill`.
    prefill_decider_plugin_name: Option<String>,
    /// Older form of `deciders.encode`.
    encode_decider_plugin_name: Option<String>,
    /// Oldest form of `deciders.prefill`.
    decider_plugin_name: Option<String>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Profiles {
    /// Profile that chooses the server that answers.
    decode: String,
    /// Profile that chooses the server that processes the prompt.
    prefill: String,
    /// Profile that chooses the servers that encode media.
    encode: String,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Deciders {
    /// Decider for prefill.
    prefill: String,
    /// Decider for encode.
    encode: String,
}

impl Params {
    /// Names and today's spelling of the older parameters that were given.
    fn older(&self) -> Vec<(&'static str, &'static str)> {
        [
            (&self.decode_profile, "decodeProfile", "profiles.decode"),
            (&self.prefill_profile, "prefillProfile", "profiles.prefill"),
            (&self.encode_profile, "encodeProfile", "profiles.encode"),
            (&self.prefill_decider_plugin_name, "prefillDeciderPluginName", "deciders.prefill"),
            (&self.encode_decider_plugin_name, "encodeDeciderPluginName", "deciders.encode"),
            (&self.decider_plugin_name, "deciderPluginName", "deciders.prefill"),
        ]
        .into_iter()
        .filter_map(|(value, older, today)| value.is_some().then_some((older, today)))
        .collect()
    }
}

/// A name that was given, or the default; and whether it was given.
fn name_or(given: Option<&str>, default: &str) -> (String, bool) {
    match given.filter(|name| !name.is_empty()) {
        Some(name) => (name.to_owned(), true),
        None => (default.to_owned(), false),
    }
}

/// Most prefill servers that the header names: each one that fails costs the client a wait.
const MOST_CANDIDATES: usize = 16;

fn build(cx: &mut BuildCx<'_>) -> Result<Roles, BuildError> {
    let params: Params = cx.params()?;
    let older = params.older();
    if let Some((first, today)) = older.first() {
        if params.profiles.is_some() || params.deciders.is_some() {
            let message =
                format!("is the older form of `{today}`, and both forms are given; write `{today}`");
            return Err(BuildError::at(*first, message));
        }
        let pairs: Vec<String> =
            older.iter().map(|(older, today)| format!("`{older}` as `{today}`")).collect();
        cx.warn(format!("has parameters of an older form; write {}", pairs.join(", ")));
    }
    let Some(order) = StageOrder::parse(&params.stage_order) else {
        let message = format!("is \"{}\"; expected `decode-first` or `prefill-first`", params.stage_order);
        return Err(BuildError::at("stageOrder", message));
    };
    let candidates = params.max_prefill_candidates.unwrap_or(1);
    let Some(candidates) =
        usize::try_from(candidates).ok().filter(|count| (1..=MOST_CANDIDATES).contains(count))
    else {
        let message = format!("is {candidates}; expected 1 to {MOST_CANDIDATES} prefill servers");
        return Err(BuildError::at("maxPrefillCandidates", message));
    };
    let profiles = params.profiles.unwrap_or_default();
    let deciders = params.deciders.unwrap_or_default();
    let first = |today: &str, older: &[&Option<String>]| {
        let given = std::iter::once(Some(today)).chain(older.iter().map(|older| older.as_deref()));
        given.flatten().find(|name| !name.is_empty()).map(str::to_owned)
    };
    let parameter = |today: &'static str| {
        older.iter().find(|(_, same)| *same == today).map_or(today, |(older, _)| *older)
    };
    let asked = |name: Option<String>, today, cx: &mut BuildCx<'_>| {
        name.map(|name| cx.decider(parameter(today), &name))
    };
    let prefill_decider =
        first(&deciders.prefill, &[&params.prefill_decider_plugin_name, &params.decider_plugin_name]);
    if order == StageOrder::PrefillFirst
        && let Some(name) = &prefill_decider
    {
        let message =
            format!("is \"{name}\"; with stageOrder `prefill-first` prefill always runs, without a decider");
        return Err(BuildError::at(parameter("deciders.prefill"), message));
    }
    let encode_decider = first(&deciders.encode, &[&params.encode_decider_plugin_name]);
    let (decode, _) = name_or(first(&profiles.decode, &[&params.decode_profile]).as_deref(), "decode");
    let side = |given: Option<String>, default: &str, decider| {
        let (profile, named) = name_or(given.as_deref(), default);
        SideStage { profile, named, decider }
    };
    let prefill_decider = asked(prefill_decider, "deciders.prefill", cx);
    let encode_decider = asked(encode_decider, "deciders.encode", cx);
    let handler = Arc::new(StageHandler {
        order,
        decode,
        prefill: side(first(&profiles.prefill, &[&params.prefill_profile]), "prefill", prefill_decider),
        encode: Some(side(first(&profiles.encode, &[&params.encode_profile]), "encode", encode_decider)),
        metrics: cx.metrics().disaggregation(TYPE.reports_as, cx.name()),
        proxy_port: None,
        step: "pick_disagg_profile",
    });
    Ok(Roles::default().profile_handler(handler).pre_request(Arc::new(StageHeaders { candidates })))
}

/// Writes the routing headers.
#[derive(Debug)]
struct StageHeaders {
    /// Prefill servers that are named at most.
    candidates: usize,
}

impl PreRequest for StageHeaders {
    fn before_forward(
        &self,
        decided: &DecidedCall<'_>,
        headers: &mut HeaderEdits,
    ) -> Result<PluginState, PreRequestError> {
        let stages = decided.decision.stages;
        routing_headers::write_stages(decided, stages.prefill, stages.encode, self.candidates, headers);
        Ok(None)
    }

    fn names_prefill_servers(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests;
