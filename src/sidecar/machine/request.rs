//! The machine of a request: its first calls, and the call to the decode server.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, StatusCode};
use smallvec::SmallVec;

use super::state::{Phase, Transfer};
use super::types::{Ask, Call, Calls, Destination, Event, Leg, LegFailure, LegRequest, Rewrite, Shared};
use crate::sidecar::answer::Refusal;
use crate::sidecar::bodies::{Body, KvSource, Pieces, pull};
use crate::sidecar::connector::{Connector, Stage};
use crate::sidecar::ids::Ids;
use crate::sidecar::outcome::{FailReason, LocalReason, Outcome};
use crate::sidecar::settings::Settings;
use crate::sidecar::target::Target;

/// The header with the data-parallel rank that works on a request, for engines with one port for several ranks.
pub(super) const RANK: HeaderName = HeaderName::from_static("x-data-parallel-rank");

/// The machine of one request.
#[derive(Debug)]
pub(in crate::sidecar) struct Machine {
    pub(super) shared: Arc<Shared>,
    pub(super) ask: Ask,
    pub(super) ids: Ids,
    pub(super) now: Instant,
    pub(super) phase: Phase,
    /// The index of the prefill server that is asked now, in the list of the route.
    pub(super) candidate: usize,
    /// The number of attempts at this prefill server so far.
    pub(super) attempt: u32,
    pub(super) transfer: Transfer,
    /// The outcome that is counted if the decode server answers.
    pub(super) outcome: Outcome,
    pub(super) rewrite: Rewrite,
    pub(super) calls: Calls,
}

impl Machine {
    /// Makes the machine of a request, and returns it with its first calls.
    pub(in crate::sidecar) fn start(shared: Arc<Shared>, ask: Ask, ids: Ids, now: Instant) -> (Self, Calls) {
        let mut machine = Self {
            shared,
            ask,
            ids,
            now,
            phase: Phase::Done,
            candidate: 0,
            attempt: 0,
            transfer: Transfer::default(),
            outcome: Outcome::Local(LocalReason::NoPrefill),
            rewrite: Rewrite::Nothing,
            calls: Calls::new(),
        };
        if machine.settings().encode.is_some() && !machine.ask.route.encoders.is_empty() {
            machine.encode();
        } else {
            machine.connect();
        }
        let calls = std::mem::take(&mut machine.calls);
        (machine, calls)
    }

    /// Takes an event, and returns the calls to make. `now` is the time of the event.
    pub(in crate::sidecar) fn on(&mut self, event: Event, now: Instant) -> Calls {
        self.now = now;
        match std::mem::replace(&mut self.phase, Phase::Done) {
            Phase::Encode(encoding) => self.on_encode(encoding, event),
            Phase::Probe => self.on_probe(event),
            Phase::Query => self.on_query(event),
            Phase::Prefill => self.on_prefill(event),
            Phase::Backoff => self.on_backoff(&event),
            Phase::Both(both) => self.on_both(both, &event),
            Phase::Decode => self.on_decode(&event),
            Phase::Chunks(chunks) => self.on_chunks(chunks, event),
            Phase::Done => {}
        }
        std::mem::take(&mut self.calls)
    }

    pub(super) fn settings(&self) -> &Settings {
        &self.shared.settings
    }

    pub(super) fn body(&self) -> Body<'_> {
        Body { object: &self.ask.object, api: self.ask.api }
    }

    pub(super) fn call(&mut self, call: Call) {
        self.calls.push(call);
    }

    /// Starts the work on the prompt, as the encode calls are done or there are none.
    pub(super) fn connect(&mut self) {
        if self.ask.route.prefill.is_empty() {
            return self.decode_locally();
        }
        match self.settings().connector {
            Connector::NixlV2 if self.settings().moriio.parallel => self.both(),
            Connector::SharedStorage if self.ask.object.has("cache_hit_threshold") => self.probe(),
            Connector::NixlV2 | Connector::NixlV1 | Connector::LmCache | Connector::SharedStorage => {
                self.prefill();
            }
            Connector::Mooncake => self.query(),
            Connector::SgLang | Connector::Offloading => self.both(),
        }
    }

    /// Lets the engine answer without a prefill server.
    fn decode_locally(&mut self) {
        let parameters = self.kv_source().map(|source| {
            self.outcome = Outcome::Local(LocalReason::KvSource);
            Bytes::from(pull(&source).to_string())
        });
        match parameters {
            Some(parameters) => self.decode_with(parameters),
            None => self.decode(self.whole()),
        }
    }

    /// The body as the client sent it, with the parameters of encode servers.
    pub(super) fn whole(&self) -> Pieces {
        SmallVec::from_iter([self.ask.object.body().clone()])
    }

    /// Asks the engine to answer the client's body with these transfer parameters.
    pub(super) fn decode_with(&mut self, parameters: Bytes) {
        self.transfer.parameters = Some(parameters.clone());
        self.decode(self.body().with_parameters(parameters));
    }

    /// Asks the engine to answer this body, in one call or in several.
    pub(super) fn decode(&mut self, body: Pieces) {
        if self.answers_in_chunks() {
            return self.chunks(&body);
        }
        let request = self.to_engine(body);
        self.call(Call::Send(Leg::Decode, Box::new(request)));
        self.phase = Phase::Decode;
    }

    pub(super) fn to_engine(&self, body: Pieces) -> LegRequest {
        let rank = self.transfer.decides && self.settings().moriio.dp_size > 1;
        LegRequest {
            to: Destination::Engine(self.ask.rank),
            path: None,
            headers: rank.then(|| rank_header(self.transfer.rank)).into_iter().collect(),
            client_headers: true,
            body: Some(body),
            limit: self.settings().limits.decode,
        }
    }

    fn on_decode(&mut self, event: &Event) {
        match event {
            Event::Head(Leg::Decode, status) => self.relay(*status),
            Event::Failed(Leg::Decode, failure) => self.decode_failed(*failure),
            _ => self.phase = Phase::Decode,
        }
    }

    /// Gives the client the engine's answer.
    pub(super) fn relay(&mut self, status: StatusCode) {
        let (outcome, rewrite) = if status.as_u16() >= 400 {
            self.distrust_engine_ids();
            (Outcome::Failed(FailReason::Status(Stage::Decode)), Rewrite::Nothing)
        } else {
            (self.outcome, self.rewrite)
        };
        self.call(Call::Outcome(outcome));
        self.call(Call::Relay(Leg::Decode, rewrite));
        self.phase = Phase::Done;
    }

    /// Forgets the ids of Mooncake's engines if the transfer used them, because they may be out of date.
    fn distrust_engine_ids(&self) {
        if let Some(target) = self.ask.route.prefill.get(self.candidate)
            && self.transfer.engine.is_some()
        {
            self.shared.engines.forget(target);
        }
    }

    pub(super) fn decode_failed(&mut self, failure: LegFailure) {
        self.distrust_engine_ids();
        let status = match failure {
            LegFailure::Refused => StatusCode::SERVICE_UNAVAILABLE,
            other => other.status(),
        };
        let message = match failure {
            LegFailure::Refused => {
                "the decode node is not ready: its model server refuses connections".to_owned()
            }
            other => format!("the model server of the decode node failed: {}", other.text()),
        };
        self.refuse(failure.reason(Stage::Decode), status, message);
    }

    /// Gives the client an error.
    pub(super) fn refuse(&mut self, reason: FailReason, status: StatusCode, message: impl Into<String>) {
        self.call(Call::Outcome(Outcome::Failed(reason)));
        self.call(Call::Refuse(Refusal::new(status, message)));
        self.phase = Phase::Done;
    }

    /// The prefill server that is asked now.
    pub(super) fn target(&self) -> Option<Target> {
        self.ask.route.prefill.get(self.candidate).cloned()
    }

    /// Makes a call to the prefill server.
    pub(super) fn to_prefill(&self, target: &Target, body: Pieces) -> LegRequest {
        LegRequest {
            to: Destination::Server(target.clone()),
            path: None,
            headers: SmallVec::new(),
            client_headers: true,
            body: Some(body),
            limit: self.settings().limits.prefill,
        }
    }

    /// The server to pull a part of the cache from. It is never the prefill server or this pod.
    pub(super) fn kv_source(&mut self) -> Option<KvSource> {
        let source = self.ask.route.kv_source.clone()?;
        let own = self.settings().port + self.ask.rank;
        let ours = source.port() == Some(own)
            && self.settings().pod_ip.is_some()
            && source.address() == self.settings().pod_ip;
        if ours || self.target().is_some_and(|target| target == source) {
            return None;
        }
        Some(KvSource { id: self.ids.uuid(), host: source.host().to_owned(), port: self.p2p_port(&source) })
    }

    /// The peer-to-peer port of the rank that a server's port belongs to. All pods must have the same layout of ports.
    pub(super) fn p2p_port(&self, target: &Target) -> u16 {
        let settings = self.settings();
        let rank = target.port().and_then(|port| port.checked_sub(settings.port));
        let rank = rank.filter(|rank| *rank < settings.ranks).unwrap_or(0);
        settings.p2p_port.saturating_add(rank)
    }
}

/// The header that names a rank.
pub(super) fn rank_header(rank: u32) -> (HeaderName, HeaderValue) {
    (RANK, HeaderValue::from(rank))
}
