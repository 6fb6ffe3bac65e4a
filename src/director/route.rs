//! The last step of a decision: everything that was found out becomes the answer to the proxy and the exchange that
//! follows the response.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;

use super::bindings::ServerBindings;
use super::claim::Claim;
use super::counted::Counted;
use super::exchange::{Exchange, ExchangeParts};
use super::request_body::RequestBody;
use super::shadow_follow::Following;
use super::understood::{LabelText, Understood};
use super::unseen::Unseen;
use super::{Director, Pieces, Routed, control_headers, names};
use crate::pool::{Endpoint, Lease};
use crate::request::{self, Api, Headers};
use crate::scheduling::{Candidates, Decision, HeaderEdits, PluginState};
use crate::telemetry::{Injected, PROPAGATED};

impl Director {
    /// Puts the answer together.
    pub(super) fn route(&self, routing: Routing<'_>) -> Routed<Exchange> {
        let Routing { headers, forwarded, mut request, decision, mut edits, labels, .. } = routing;
        if request.id_is_new {
            edits.set(names::REQUEST_ID, request.id.clone());
        }
        trace_headers(routing.trace, headers, &mut edits);
        if self.parts.settings.strip_control_headers {
            control_headers::strip(headers, &mut edits);
        } else if !self.parts.settings.model_rewrite_header {
            control_headers::strip_one(names::MODEL_REWRITE, headers, &mut edits);
        }
        let body_changed = request.rewrites;
        if body_changed && request.body.decoded.is_some() {
            edits.remove("content-encoding");
        }
        let new_path = request.new_path.take();
        let restores = body_changed || new_path.is_some();
        if let Some(path) = new_path {
            edits.set(":path", path);
        }
        let size: usize = forwarded.iter().map(Bytes::len).sum();
        let metrics = self.parts.metrics.request(labels.borrow());
        metrics.requested(size as u64);
        let destination = destination(&decision);
        let scores =
            if self.parts.settings.emit_scores { scores(&decision, routing.candidates) } else { Vec::new() };
        let kind = request.body.kind;
        let api = match kind.map_or(Api::Opaque, |kind| request::api_of(kind, routing.path)) {
            Api::Opaque => request.body.inference.api,
            api => api,
        };
        let parser = kind.and_then(|kind| self.parser(kind));
        let counted = routing.counted;
        let share = |endpoint: &Arc<Endpoint>, tokens: u64| {
            let inflight = self.parts.inflight.as_ref()?;
            Some(inflight.begin(endpoint, metrics.fairness_id(), request.priority, tokens))
        };
        let all = counted.prompt.saturating_add(counted.response);
        let inflight = decision.targets().first().and_then(|endpoint| share(endpoint, all));
        let stages = decision.stage_firsts().zip(&counted.stages);
        let stages =
            stages.map(|(endpoint, tokens)| (Lease::take(endpoint, *tokens), share(endpoint, *tokens)));
        let stages = stages.collect();
        let RequestBody { inference, plain, .. } = &request.body;
        let named = |bindings: &Arc<ServerBindings>| bindings.conversation(api, inference, plain);
        let bindings = self.bindings.clone().filter(|_| !decision.answers_for_a_stage());
        let conversation = bindings.as_ref().and_then(named);
        let exchange = Exchange::new(ExchangeParts {
            running: metrics.running_guard(),
            inflight,
            stages,
            until_end: counted.until_end,
            metrics,
            api,
            response_timer: parser.map(|parser| parser.response_timer.clone()),
            streaming: request.body.inference.stream,
            restore: restores.then_some((request.target_model, request.incoming_model)),
            decision,
            profile_names: Arc::clone(&self.profile_names),
            hooks: Arc::clone(&self.hooks),
            beside: self.parts.beside.clone(),
            number: routing.number,
            states: routing.states,
            following: routing.following,
            reporters: Arc::clone(&self.reporters),
            claim: routing.claim,
            received: routing.received,
            usage_limit: self.parts.settings.usage_limit,
            processing: self.processing.clone(),
            answers: self.answers.clone(),
            pace: Arc::clone(&self.pace),
            bindings,
            conversation,
            decision_header: routing.decision_header,
            unseen: routing.unseen,
        });
        let held = request.body.decoded.take().filter(|_| body_changed);
        Routed { destination, scores, edits, body: forwarded, body_changed, held, exchange }
    }
}

/// All that a decided request carries into its answer.
pub(super) struct Routing<'a> {
    /// Number of the request in the process.
    pub(super) number: u64,
    pub(super) headers: &'a Headers,
    pub(super) forwarded: Pieces,
    pub(super) path: &'a str,
    pub(super) request: Understood,
    pub(super) decision: Decision,
    pub(super) candidates: &'a Candidates,
    pub(super) edits: HeaderEdits,
    pub(super) states: Vec<PluginState>,
    /// Plugins of a shadow that follow the request.
    pub(super) following: Option<Box<Following>>,
    pub(super) claim: Claim,
    pub(super) counted: Counted,
    /// What the client is told of the decision.
    pub(super) decision_header: Option<Bytes>,
    pub(super) labels: &'a LabelText,
    pub(super) received: Instant,
    pub(super) trace: Injected,
    pub(super) unseen: Unseen,
}

/// Sets the trace context. Headers of the client's own context that are not replaced would contradict it, and go.
fn trace_headers(trace: Injected, headers: &Headers, edits: &mut HeaderEdits) {
    if trace.is_empty() {
        return;
    }
    for name in PROPAGATED {
        if headers.get(name).is_some() && !trace.iter().any(|(set, _)| set == name) {
            edits.remove(name);
        }
    }
    edits.set.extend(trace);
}

fn destination(decision: &Decision) -> Bytes {
    match decision.targets() {
        [only] => Bytes::copy_from_slice(decision.address(only).as_bytes()),
        several => {
            several.iter().map(|endpoint| decision.address(endpoint)).collect::<Vec<_>>().join(",").into()
        }
    }
}

fn scores(decision: &Decision, candidates: &Candidates) -> Vec<(String, f64)> {
    let scored = decision.primary_result().map(|result| result.scored.as_slice()).unwrap_or_default();
    scored.iter().map(|&(slot, total)| (candidates.at(slot).target().to_owned(), total)).collect()
}
