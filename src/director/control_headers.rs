//! Headers that steer this program or a routing sidecar. A client may send them; model servers must not get them from a
//! client.

use bytes::Bytes;

use super::names::ControlHeader;
use crate::request::Headers;
use crate::scheduling::HeaderEdits;

/// Every control header, lower case.
const CONTROL_HEADERS: [&str; 21] = [
    "x-llm-d-inference-fairness-id",
    "x-gateway-inference-fairness-id",
    "x-llm-d-inference-objective",
    "x-gateway-inference-objective",
    "x-llm-d-model-name-rewrite",
    "x-gateway-model-name-rewrite",
    "x-llm-d-slo-ttft-ms",
    "x-slo-ttft-ms",
    "x-llm-d-slo-tpot-ms",
    "x-slo-tpot-ms",
    "x-gateway-destination-endpoint-subset",
    "x-gateway-destination-endpoint-served",
    "x-llm-d-video-fps",
    "x-llm-d-video-duration-seconds",
    "x-llm-d-video-resolution",
    "x-llm-d-request-dropped-reason",
    "x-prefiller-host-port",
    "x-prefiller-url",
    "x-encoder-hosts-ports",
    "x-kv-cache-source-host-port",
    "x-data-parallel-host-port",
];

/// Removes the control headers that the client sent, except those that `edits` sets.
pub(super) fn strip(headers: &Headers, edits: &mut HeaderEdits) {
    strip_of(&CONTROL_HEADERS, headers, edits);
}

/// Removes both names of one control header if the client sent them.
pub(super) fn strip_one(header: ControlHeader, headers: &Headers, edits: &mut HeaderEdits) {
    strip_of(&[header.current, header.deprecated], headers, edits);
}

fn strip_of(list: &[&'static str], headers: &Headers, edits: &mut HeaderEdits) {
    for (name, _) in headers.iter() {
        let Some(control) = list.iter().find(|control| *name == **control) else { continue };
        let taken = edits.set.iter().any(|(set, _)| set == control)
            || edits.remove.iter().any(|gone| gone == control);
        if !taken {
            edits.remove.push(Bytes::from_static(control.as_bytes()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_control_headers_that_were_sent_are_removed_and_each_once() {
        let headers = Headers::from([
            ("x-llm-d-inference-objective", "gold"),
            ("accept", "*/*"),
            ("x-prefiller-host-port", "10.0.0.9:1"),
            ("x-prefiller-host-port", "10.0.0.9:2"),
            ("x-prefiller-url", "http://10.0.0.9:3"),
        ]);
        let mut edits = HeaderEdits::default();
        strip(&headers, &mut edits);
        let gone = ["x-llm-d-inference-objective", "x-prefiller-host-port", "x-prefiller-url"];
        assert_eq!(edits.remove.as_slice(), gone);
    }

    #[test]
    fn a_control_header_that_a_plugin_sets_is_not_removed() {
        let headers = Headers::from([("x-prefiller-host-port", "10.0.0.9:1")]);
        let mut edits = HeaderEdits::default();
        edits.set("x-prefiller-host-port", "10.0.0.1:8000");
        strip(&headers, &mut edits);
        assert!(edits.remove.is_empty());
    }
}
