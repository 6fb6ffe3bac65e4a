//! `destination-endpoint-served-verifier`: tells in a response header which endpoint really served.
//!
//! The proxy reports that endpoint, after its own retries, in the metadata `envoy.lb`, key
//! `x-gateway-destination-endpoint-served`. The header is `x-conformance-test-served-endpoint`; without a report it
//! says `fail: missing destination endpoint served metadata`. It takes no parameters.
//!
//! Use it in conformance tests of gateways. It costs one header of each response.

use std::sync::Arc;

use crate::plugins::{PluginType, Roles, Stability};
use crate::scheduling::{HeaderEdits, PluginState, ResponseCall, ResponseHeaderHook};

/// Registry row.
pub static TYPE: PluginType =
    PluginType::new("destination-endpoint-served-verifier", Stability::Beta, |cx| {
        cx.no_params();
        Ok(Roles::default().response_headers(Arc::new(ServedVerifier)))
    })
    .about(
        "Tells in a response header which endpoint really served.",
        "Use it in conformance tests of gateways. It costs one header of each response.",
    );

const HEADER: &str = "x-conformance-test-served-endpoint";
const MISSING: &str = "fail: missing destination endpoint served metadata";

#[derive(Debug)]
struct ServedVerifier;

impl ResponseHeaderHook for ServedVerifier {
    fn on_response_headers(
        &self,
        call: &ResponseCall<'_>,
        _state: &mut PluginState,
        headers: &mut HeaderEdits,
    ) {
        headers.set(HEADER, call.served.unwrap_or(MISSING).to_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugins::fixture::{Fleet, pod};
    use crate::request::Headers;

    #[test]
    fn the_header_names_the_endpoint_that_served_or_says_that_nobody_told() {
        let mut fleet = Fleet::new([pod("a")]);
        let built = fleet.build(&TYPE, None).unwrap();
        let decision = fleet.decision(&[Some(0)], &[]);
        for (served, expected) in [(Some("10.0.0.9:8000"), "10.0.0.9:8000"), (None, MISSING)] {
            let call = ResponseCall {
                headers: &Headers::new(),
                served,
                endpoint: &decision.targets()[0],
                decision: &decision,
                profiles: &["default".into()],
            };
            let mut edits = HeaderEdits::default();
            let hook = built.roles.response_headers.as_ref().unwrap();
            hook.on_response_headers(&call, &mut None, &mut edits);
            assert_eq!(edits.set[0], (HEADER.into(), expected.into()));
        }
    }
}
