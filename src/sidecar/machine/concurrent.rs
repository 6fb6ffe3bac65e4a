//! Connectors that ask the prefill and the decode server at the same time. The body of the prefill server's answer is
//! dropped, but its success is watched: once it has failed, the decode server waits for a cache that never comes.

use std::time::Duration;

use http::StatusCode;
use smallvec::SmallVec;

use super::prefill::{failed_by, failed_with};
use super::request::{Machine, rank_header};
use super::state::{Both, Phase, PrefillFailed};
use super::types::{Call, Destination, Event, Leg, LegRequest, Peek};
use crate::sidecar::bodies::{mooncake_decode, mooncake_prefill, offloading_decode, offloading_prefill};
use crate::sidecar::connector::{Connector, Stage};
use crate::sidecar::engines::read_engines;
use crate::sidecar::outcome::{FailReason, Outcome};

/// How long a decode server may still send its first byte after the prefill server has failed. A decode server that
/// already has the cache sends it at once.
const GRACE: Duration = Duration::from_millis(100);

/// The longest wait for the ids of Mooncake's engines.
const QUERY: Duration = Duration::from_secs(5);

impl Machine {
    /// Asks Mooncake's bootstrap server for the ids of the prefill server's engines, unless they are known.
    pub(super) fn query(&mut self) {
        let Some(target) = self.target() else { return };
        if let Some(engines) = self.shared.engines.of(&target, self.now) {
            return self.with_engines(&engines);
        }
        let to = target.with_port(self.settings().mooncake_port);
        let request = LegRequest {
            to: Destination::Server(to),
            path: Some("/query"),
            headers: SmallVec::new(),
            client_headers: false,
            body: None,
            limit: Some(QUERY),
        };
        self.call(Call::Send(Leg::Query, Box::new(request)));
        self.phase = Phase::Query;
    }

    pub(super) fn on_query(&mut self, event: Event) {
        self.phase = Phase::Query;
        match event {
            Event::Head(Leg::Query, status) if status.is_success() => self.call(Call::Collect(Leg::Query)),
            Event::Head(Leg::Query, _) => {
                self.call(Call::Cancel(Leg::Query));
                self.no_engines("its bootstrap server answered with an error");
            }
            Event::Failed(Leg::Query, failure) => {
                let failed = PrefillFailed { instead: StatusCode::BAD_GATEWAY, ..failed_by(failure) };
                self.prefill_failed(failed);
            }
            Event::Body(Leg::Query, body) => {
                let engines = read_engines(&body);
                if engines.is_empty() {
                    return self.no_engines("its bootstrap server named no engine");
                }
                if let Some(target) = self.target() {
                    self.shared.engines.learn(&target, engines.clone(), self.now);
                }
                self.with_engines(&engines);
            }
            _ => {}
        }
    }

    fn no_engines(&mut self, text: &'static str) {
        self.prefill_failed(PrefillFailed {
            reason: FailReason::Garbage(Stage::Prefill),
            status: None,
            instead: StatusCode::BAD_GATEWAY,
            text,
        });
    }

    fn with_engines(&mut self, engines: &[crate::sidecar::engines::Engine]) {
        let index = self.ids.index(engines.len());
        self.transfer.engine = engines.get(index).map(|engine| (engine.rank, engine.id.clone()));
        self.both();
    }

    /// Sends the prefill and the decode call at the same time.
    pub(super) fn both(&mut self) {
        let Some(target) = self.target() else { return };
        let settings = &self.shared.clone().settings;
        let (mut to_prefill, mut to_engine) = match settings.connector {
            Connector::SgLang => {
                let room = self.ids.room();
                let body = self.body().sglang(&target, settings.sglang_port, room);
                (self.to_prefill(&target, body.clone()), self.to_engine(body))
            }
            Connector::Mooncake => {
                let id = format!("xfer-{}", self.ids.uuid());
                let (rank, engine) = self.transfer.engine.clone().unwrap_or_default();
                let prefill = self.body().concurrent_prefill(&mooncake_prefill(&id));
                let parameters = mooncake_decode(&id, &target, settings.mooncake_port, &engine);
                let decode = self.body().with_parameters(parameters.to_string().into());
                let mut request = self.to_prefill(&target, prefill);
                request.headers.push(rank_header(rank));
                (request, self.to_engine(decode))
            }
            Connector::Offloading => {
                let id = self.ids.uuid();
                let source = self.kv_source();
                let prefill = self.body().concurrent_prefill(&offloading_prefill(&id, source.as_ref()));
                let parameters = offloading_decode(&id, target.host(), self.p2p_port(&target));
                let decode = self.body().with_parameters(parameters.to_string().into());
                (self.to_prefill(&target, prefill), self.to_engine(decode))
            }
            _ => self.parallel_write(&target),
        };
        // Each server may wait for the other, so both calls get the full limits of their stages.
        to_prefill.limit = settings.limits.prefill;
        to_engine.limit = settings.limits.decode;
        self.outcome = Outcome::Remote;
        let hold = settings.moriio.parallel && settings.connector == Connector::NixlV2;
        self.call(Call::Send(Leg::Prefill, Box::new(to_prefill)));
        self.call(Call::Send(Leg::Decode, Box::new(to_engine)));
        if hold {
            self.call(Call::Wake(settings.moriio.wait));
        }
        self.phase = Phase::Both(Both { hold, ..Both::default() });
    }

    pub(super) fn on_both(&mut self, mut both: Both, event: &Event) {
        match event {
            Event::Head(Leg::Decode, status) if status.as_u16() >= 400 => {
                if let Some(failed) = both.failed {
                    return self.give_up_decode(failed);
                }
                self.call(Call::Cancel(Leg::Prefill));
                return self.relay(*status);
            }
            Event::Head(Leg::Decode, _) => self.call(Call::Peek(Leg::Decode, Peek::FirstByte)),
            Event::Peeked(Leg::Decode, ..) => {
                both.answers = true;
                if !both.hold || both.prefilled {
                    return self.relay(StatusCode::OK);
                }
            }
            Event::Failed(Leg::Decode, failure) => {
                if let Some(failed) = both.failed {
                    return self.give_up_decode(failed);
                }
                self.call(Call::Cancel(Leg::Prefill));
                return self.decode_failed(*failure);
            }
            Event::Head(Leg::Prefill, status) if status.is_success() => self.call(Call::Drain(Leg::Prefill)),
            Event::Head(Leg::Prefill, status) => return self.prefill_lost(both, failed_with(*status)),
            Event::Failed(Leg::Prefill, failure) => return self.prefill_lost(both, failed_by(*failure)),
            Event::Body(Leg::Prefill, _) => {
                both.prefilled = true;
                if both.answers {
                    return self.relay(StatusCode::OK);
                }
            }
            Event::Timer => {
                if let Some(failed) = both.failed {
                    return self.give_up_decode(failed);
                }
                if both.hold && !both.prefilled {
                    self.call(Call::Cancel(Leg::Prefill));
                    self.call(Call::Cancel(Leg::Decode));
                    return self.refuse(
                        FailReason::Timeout(Stage::Prefill),
                        StatusCode::GATEWAY_TIMEOUT,
                        "the prefill server did not answer in time",
                    );
                }
            }
            _ => {}
        }
        self.phase = Phase::Both(both);
    }

    fn prefill_lost(&mut self, mut both: Both, failed: PrefillFailed) {
        if both.hold {
            return self.give_up_decode(failed);
        }
        both.failed = Some(failed);
        self.call(Call::Wake(GRACE));
        self.phase = Phase::Both(both);
    }

    /// Ends the decode call, which waits for a cache that never comes, and handles the failure of the prefill server.
    fn give_up_decode(&mut self, failed: PrefillFailed) {
        self.call(Call::Cancel(Leg::Decode));
        self.prefill_failed(failed);
    }
}
