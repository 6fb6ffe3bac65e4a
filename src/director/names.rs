//! Request headers with a meaning, each with the older name that counts when the current one is absent.

use std::borrow::Cow;

use crate::request::Headers;

/// A header under its current name and an older one.
#[derive(Clone, Copy, Debug)]
pub(super) struct ControlHeader {
    pub(super) current: &'static str,
    pub(super) deprecated: &'static str,
}

/// Names the client against whose share the request counts.
pub(super) const FAIRNESS_ID: ControlHeader =
    ControlHeader { current: "x-llm-d-inference-fairness-id", deprecated: "x-gateway-inference-fairness-id" };
/// Name of the InferenceObjective.
pub(super) const OBJECTIVE: ControlHeader =
    ControlHeader { current: "x-llm-d-inference-objective", deprecated: "x-gateway-inference-objective" };
/// Model to use in place of the body's.
pub(super) const MODEL_REWRITE: ControlHeader =
    ControlHeader { current: "x-llm-d-model-name-rewrite", deprecated: "x-gateway-model-name-rewrite" };

/// Objective for the time to the first token, in milliseconds.
pub(super) const SLO_TTFT: ControlHeader =
    ControlHeader { current: "x-llm-d-slo-ttft-ms", deprecated: "x-slo-ttft-ms" };

/// Request id.
pub(super) const REQUEST_ID: &str = "x-request-id";

impl ControlHeader {
    /// The header's value as text. The older name counts only if the current one is absent: an empty current value
    /// hides it. Bytes that are no UTF-8 become U+FFFD, so that two ids which differ only there may coincide, but none
    /// is lost.
    pub(super) fn value<'h>(&self, headers: &'h Headers) -> Option<Cow<'h, str>> {
        headers
            .get(self.current)
            .or_else(|| headers.get(self.deprecated))
            .map(|value| String::from_utf8_lossy(value))
    }
}
