//! `disagg-headers-handler`, and its former name `prefill-header-handler`: writes the routing headers of prefill and
//! encode servers. Deprecated; `disagg-profile-handler` writes them itself.
//!
//! Use it only beside `pd-profile-handler`, or to keep an old configuration. It costs nothing, and beside
//! `disagg-profile-handler` it changes nothing.

use std::sync::Arc;

use schemars::JsonSchema;

use serde::Deserialize;

use crate::plugins::routing_headers;
use crate::plugins::{BuildCx, BuildError, PluginType, Roles, Stability};
use crate::scheduling::{DecidedCall, HeaderEdits, PluginState, PreRequest, PreRequestError};

/// Registry row.
pub static TYPE: PluginType = PluginType::new("disagg-headers-handler", Stability::Beta, build)
    .superseded_by("disagg-profile-handler", "v0.9.0")
    .about(
        "Writes the routing headers of prefill and encode servers.",
        "Use it only beside pd-profile-handler, or to keep an old configuration. It costs nothing, and \
         beside disagg-profile-handler it changes nothing.",
    );

/// Registry row of the former name.
pub static PREFILL_HEADER_HANDLER: PluginType = TYPE.renamed("prefill-header-handler");

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Params {
    /// Profile whose first target processes the prompt.
    prefill_profile: String,
    /// Profile whose targets encode media.
    encode_profile: String,
}

impl Default for Params {
    fn default() -> Self {
        Self { prefill_profile: "prefill".to_owned(), encode_profile: "encode".to_owned() }
    }
}

fn build(cx: &mut BuildCx<'_>) -> Result<Roles, BuildError> {
    let params: Params = cx.params()?;
    Ok(Roles::default().pre_request(Arc::new(HeaderWriter { params })))
}

#[derive(Debug)]
struct HeaderWriter {
    params: Params,
}

impl PreRequest for HeaderWriter {
    fn before_forward(
        &self,
        decided: &DecidedCall<'_>,
        headers: &mut HeaderEdits,
    ) -> Result<PluginState, PreRequestError> {
        let index = |wanted: &str| decided.profiles.iter().position(|name| **name == *wanted);
        let (prefill, encode) = (index(&self.params.prefill_profile), index(&self.params.encode_profile));
        routing_headers::write_stages(decided, prefill, encode, 1, headers);
        Ok(None)
    }

    fn names_prefill_servers(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::plugins::fixture::{Fleet, pod, request};
    use crate::scheduling::Columns;

    #[test]
    fn targets_of_the_named_profiles_are_written_and_forged_headers_are_removed() {
        let mut fleet = Fleet::new([pod("a"), pod("b").at("[fd00::2]:8000"), pod("c").at("10.0.0.3:1")]);
        let names: [Arc<str>; 3] = ["decode".into(), "p".into(), "e".into()];
        let params = json!({"prefillProfile": "p", "encodeProfile": "e"});
        let built = fleet.build(&PREFILL_HEADER_HANDLER, Some(params)).unwrap();
        let forged =
            request("m").header("x-prefiller-host-port", "6.6.6.6:1").header("x-encoder-hosts-ports", "6:1");
        let all = fleet.decision(&[Some(0), Some(1), Some(2)], &[]);
        let edits = fleet.edits(&built.roles, &forged, &all, &names);
        let expected = [("x-prefiller-host-port", "[fd00::2]:8000"), ("x-encoder-hosts-ports", "10.0.0.3:1")];
        assert_eq!(edits.set.as_slice(), expected.map(|(name, value)| (name.into(), value.into())));
        assert!(edits.remove.is_empty());
        let alone = fleet.decision(&[Some(0), None, None], &[]);
        let edits = fleet.edits(&built.roles, &forged, &alone, &names);
        assert_eq!(edits.remove.as_slice(), ["x-prefiller-host-port", "x-encoder-hosts-ports"]);
        assert!(edits.set.is_empty());
        assert!(fleet.edits(&built.roles, &request("m"), &alone, &names).remove.is_empty());
    }

    #[test]
    fn what_another_plugin_wrote_stays_where_the_named_profile_did_not_run() {
        let mut fleet = Fleet::new([pod("a"), pod("b")]);
        let built = fleet.build(&TYPE, None).unwrap();
        let decision = fleet.decision(&[Some(0), Some(1)], &[]);
        let mut headers = HeaderEdits::default();
        headers.set("x-prefiller-host-port", "10.0.0.9:8000");
        fleet.call(&request("m").header("x-prefiller-host-port", "6:1"), &Columns::default(), |call| {
            let profiles = ["decode".into(), "my-prefill".into()];
            let decided = DecidedCall { call: *call, decision: &decision, profiles: &profiles };
            built.roles.pre_request.as_ref().unwrap().before_forward(&decided, &mut headers).unwrap();
        });
        assert_eq!(headers.set.as_slice(), [("x-prefiller-host-port".into(), "10.0.0.9:8000".into())]);
        assert!(headers.remove.is_empty());
    }
}
