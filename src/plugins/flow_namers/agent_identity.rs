//! `agent-identity` (alpha): takes the session of an agent for the fairness id of requests that name none.
//!
//! The headers of `additionalSessionHeaders` are looked at first, in their order, then `x-claude-code-session-id`,
//! `x-session-affinity`, `session-id` and `session_id`. The first that is not empty names the flow. A request that
//! sends a fairness id of its own keeps it.
//!
//! Use it with flow control, so that one agent's many requests do not keep those of others waiting. It costs a few
//! look-ups of headers for each request.

use std::borrow::Cow;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::plugins::{BuildCx, BuildError, PluginType, Roles, Stability};
use crate::request::Headers;
use crate::scheduling::FlowNamer;

/// Registry row.
pub static TYPE: PluginType = PluginType::new("agent-identity", Stability::Alpha, build).about(
    "Takes the session of an agent for the fairness id of requests that name none.",
    "Use it with flow control, so that one agent's many requests do not keep those of others waiting. It costs a few \
     look-ups of headers for each request.",
);

/// Headers in which agents name their session.
const SESSION_HEADERS: [&str; 4] =
    ["x-claude-code-session-id", "x-session-affinity", "session-id", "session_id"];

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Params {
    /// Headers that name a session, looked at before the usual ones.
    additional_session_headers: Vec<String>,
}

fn build(cx: &mut BuildCx<'_>) -> Result<Roles, BuildError> {
    let params: Params = cx.params()?;
    let given = params.additional_session_headers.iter().map(|name| name.trim().to_ascii_lowercase());
    let mut headers: Vec<String> = given.filter(|name| !name.is_empty()).collect();
    headers.extend(SESSION_HEADERS.map(str::to_owned));
    Ok(Roles { flow_namer: Some(Arc::new(AgentIdentity { headers })), ..Roles::default() })
}

#[derive(Debug)]
struct AgentIdentity {
    /// Lower case, in order of preference.
    headers: Vec<String>,
}

impl FlowNamer for AgentIdentity {
    fn flow<'h>(&self, headers: &'h Headers) -> Option<Cow<'h, str>> {
        let mut values = self.headers.iter().filter_map(|name| headers.get(name));
        let session = values.find(|value| !value.trim_ascii().is_empty())?;
        Some(String::from_utf8_lossy(session.trim_ascii()))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::plugins::fixture::Fleet;

    fn headers(list: &[(&str, &str)]) -> Headers {
        let mut headers = Headers::new();
        for (name, value) in list {
            headers.push(name.as_bytes().to_vec().into(), value.as_bytes().to_vec().into());
        }
        headers
    }

    fn flow(params: Value, headers: &Headers) -> Option<String> {
        let built = Fleet::new([]).build(&TYPE, Some(params)).unwrap();
        built.roles.flow_namer.unwrap().flow(headers).map(Cow::into_owned)
    }

    #[test]
    fn the_first_session_header_that_is_not_empty_names_the_flow() {
        for (list, expected) in [
            (&[][..], None),
            (&[("session_id", "d"), ("session-id", "c")], Some("c")),
            (&[("x-session-affinity", "b"), ("x-claude-code-session-id", "a")], Some("a")),
            (&[("x-claude-code-session-id", " "), ("session_id", " d ")], Some("d")),
            (&[("x-claude-code-session-id", "")], None),
        ] {
            assert_eq!(flow(Value::Null, &headers(list)).as_deref(), expected, "{list:?}");
        }
    }

    #[test]
    fn headers_of_the_configuration_come_first_whatever_their_letter_case() {
        let params = json!({"additionalSessionHeaders": ["X-My-Agent", "", " other "]});
        let both = headers(&[("session-id", "usual"), ("other", "second"), ("x-my-agent", "first")]);
        assert_eq!(flow(params.clone(), &both).as_deref(), Some("first"));
        let second = headers(&[("x-claude-code-session-id", "usual"), ("other", "second")]);
        assert_eq!(flow(params, &second).as_deref(), Some("second"));
    }

    #[test]
    fn any_bytes_are_a_session() {
        let mut headers = Headers::new();
        headers.push("session-id".into(), vec![0xff, 0xfe].into());
        assert_eq!(flow(Value::Null, &headers).as_deref(), Some("\u{fffd}\u{fffd}"));
    }
}
