//! Connectors that ask the prefill server first and the decode server after it.

use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;

use super::request::Machine;
use super::state::{Phase, PrefillFailed};
use super::types::{Call, Event, Leg, LegFailure, Note, Peek, Rewrite};
use crate::metrics::PrefillRetry;
use crate::request::{JsonObject, json_elements};
use crate::sidecar::api::Api;
use crate::sidecar::connector::{Connector, Stage};
use crate::sidecar::outcome::{FailReason, LocalReason, Outcome, RecomputeReason};
use crate::sidecar::settings::OnPrefillFailure;

/// The members of a prefill server's answer that are read.
const ANSWER: &[&str] =
    &["kv_transfer_params", "usage", "remote_block_ids", "remote_engine_id", "remote_host", "remote_port"];

impl Machine {
    /// Sends the prefill call.
    pub(super) fn prefill(&mut self) {
        let Some(target) = self.target() else { return };
        let body = match self.settings().connector {
            Connector::NixlV2 if self.settings().moriio.write_mode => self.write_mode_body(),
            Connector::NixlV2 => {
                let source = self.kv_source();
                self.body().nixl_v2_prefill(source.as_ref())
            }
            Connector::NixlV1 => self.body().nixl_v1_prefill(),
            Connector::LmCache => self.body().lmcache_prefill(),
            _ => self.body().shared_storage_prefill(),
        };
        let mut request = self.to_prefill(&target, body);
        request.headers.extend(self.moriio_rank());
        self.attempt += 1;
        self.call(Call::Send(Leg::Prefill, Box::new(request)));
        self.phase = Phase::Prefill;
    }

    pub(super) fn on_prefill(&mut self, event: Event) {
        self.phase = Phase::Prefill;
        match event {
            Event::Head(Leg::Prefill, status) if status.is_success() => {
                let read = matches!(self.settings().connector, Connector::NixlV2 | Connector::NixlV1);
                self.call(if read { Call::Collect(Leg::Prefill) } else { Call::Drain(Leg::Prefill) });
            }
            Event::Head(Leg::Prefill, status) => {
                let again = matches!(status.as_u16(), 502..=504);
                self.attempt_failed(again, failed_with(status));
            }
            Event::Failed(Leg::Prefill, failure) => {
                let again = matches!(failure, LegFailure::Refused | LegFailure::ConnectTimeout);
                self.attempt_failed(again, failed_by(failure));
            }
            Event::Body(Leg::Prefill, body) => self.prefilled(body),
            _ => {}
        }
    }

    /// Tries the same server again after a pause if `again` allows and attempts are left. Otherwise the server has
    /// failed.
    fn attempt_failed(&mut self, again: bool, failed: PrefillFailed) {
        if again && self.attempt <= self.settings().retries {
            self.note_failure(failed, PrefillRetry::Same);
            self.call(Call::Cancel(Leg::Prefill));
            self.call(Call::Wake(self.settings().backoff));
            self.phase = Phase::Backoff;
            return;
        }
        self.prefill_failed(failed);
    }

    pub(super) fn on_backoff(&mut self, event: &Event) {
        if *event == Event::Timer {
            self.prefill();
        } else {
            self.phase = Phase::Backoff;
        }
    }

    /// Handles a prefill server that has failed after all attempts. The settings choose whether the next server is
    /// asked, the engine processes the prompt, or the client gets the failure.
    pub(super) fn prefill_failed(&mut self, failed: PrefillFailed) {
        let policy = self.settings().on_prefill_failure;
        // A request that is at fault itself fails on every server.
        let of_client = failed.status.is_some_and(|status| {
            status.is_client_error() && !matches!(status.as_u16(), 404 | 408 | 425 | 429)
        });
        if policy != OnPrefillFailure::Error && !of_client {
            if self.candidate + 1 < self.ask.route.prefill.len() {
                self.note_failure(failed, PrefillRetry::Next);
                self.call(Call::Cancel(Leg::Prefill));
                (self.candidate, self.attempt) = (self.candidate + 1, 0);
                return self.connect_again();
            }
            if policy == OnPrefillFailure::Local && self.may_step_in() {
                self.note_failure(failed, PrefillRetry::Local);
                self.call(Call::Cancel(Leg::Prefill));
                self.outcome = Outcome::Recompute(RecomputeReason::PrefillFailed);
                self.rewrite = Rewrite::Nothing;
                return self.decode(self.whole());
            }
        }
        if failed.status.is_some() {
            self.call(Call::Outcome(Outcome::Failed(failed.reason)));
            self.call(Call::Relay(Leg::Prefill, Rewrite::Nothing));
            self.phase = Phase::Done;
            return;
        }
        self.refuse(failed.reason, failed.instead, format!("the prefill server failed: {}", failed.text));
    }

    fn note_failure(&mut self, failed: PrefillFailed, retry: PrefillRetry) {
        if let Some(target) = self.target() {
            self.call(Call::Note(Note::PrefillFailed(target, failed.reason, failed.text, retry)));
        }
    }

    fn connect_again(&mut self) {
        match self.settings().connector {
            Connector::SharedStorage => self.prefill(),
            _ => self.connect(),
        }
    }

    /// Returns true if the engine may process the prompt itself. SGLang's decode servers cannot, and the settings bound
    /// the size and the rate of such prompts.
    fn may_step_in(&self) -> bool {
        self.settings().connector != Connector::SgLang
            && self.ask.object.body().len() as u64 <= self.settings().local_body_bytes
            && self.shared.spare.take(self.now)
    }

    /// Calls the decode server after the prefill server has answered with success.
    fn prefilled(&mut self, body: Bytes) {
        match self.settings().connector {
            Connector::LmCache => {
                self.outcome = Outcome::Remote;
                self.decode(self.whole());
            }
            Connector::SharedStorage => {
                self.outcome = Outcome::Remote;
                self.decode(self.body().shared_storage_decode());
            }
            _ => match JsonObject::read(body, ANSWER) {
                Ok(answer) => self.hand_over(&answer),
                Err(_) => self.prefill_failed(PrefillFailed {
                    reason: FailReason::Garbage(Stage::Prefill),
                    status: None,
                    // The reference answers with 400 here.
                    instead: StatusCode::BAD_REQUEST,
                    text: "its answer is no JSON object",
                }),
            },
        }
    }

    /// Copies the transfer parameters from the prefill server's answer into the decode call.
    fn hand_over(&mut self, answer: &JsonObject) {
        let parameters = answer.get("kv_transfer_params").filter(|value| value.as_ref() != b"null");
        self.outcome = Outcome::Remote;
        self.rewrite = Rewrite::CachedTokens(cached_tokens(self.ask.api, answer));
        if self.settings().connector == Connector::NixlV1 {
            self.rewrite = Rewrite::Nothing;
            if !answer.has("remote_block_ids") {
                self.without_parameters();
            }
            let body = self.body().nixl_v1_decode(answer);
            return self.decode(body);
        }
        let Some(parameters) = parameters else {
            self.without_parameters();
            return self.decode_with(Bytes::from_static(b"null"));
        };
        let parameters = self.write_mode_answer(parameters);
        let mut release = self.to_engine(self.body().release(parameters.clone()));
        release.limit = Some(RELEASE);
        self.call(Call::OnGone(Box::new(release)));
        self.decode_with(parameters);
    }

    fn without_parameters(&mut self) {
        self.outcome = Outcome::Recompute(RecomputeReason::NoParameters);
        if let Some(target) = self.target() {
            self.call(Call::Note(Note::NoParameters(target)));
        }
    }

    /// Asks the engine to answer if it has enough of the prompt in its cache.
    pub(super) fn probe(&mut self) {
        let request = self.to_engine(self.whole());
        self.call(Call::Send(Leg::Probe, Box::new(request)));
        self.phase = Phase::Probe;
    }

    pub(super) fn on_probe(&mut self, event: Event) {
        self.phase = Phase::Probe;
        match event {
            Event::Head(Leg::Probe, status) if !status.is_success() => {
                self.call(Call::Outcome(Outcome::Failed(FailReason::Status(Stage::Decode))));
                self.call(Call::Relay(Leg::Probe, Rewrite::Nothing));
                self.phase = Phase::Done;
            }
            Event::Head(Leg::Probe, _) if self.ask.streams() => {
                self.call(Call::Peek(Leg::Probe, Peek::TwoEvents));
            }
            Event::Head(Leg::Probe, _) => self.call(Call::Collect(Leg::Probe)),
            Event::Body(Leg::Probe, body) => match finish_reason(&body) {
                None => self.refuse(
                    FailReason::Garbage(Stage::Decode),
                    StatusCode::INTERNAL_SERVER_ERROR,
                    "the model server's answer is no JSON object",
                ),
                Some(reason) => self.probed(reason == TOO_LITTLE),
            },
            Event::Peeked(Leg::Probe, beginning, _) => {
                let too_little = String::from_utf8_lossy(&beginning)
                    .lines()
                    .filter_map(|line| line.strip_prefix("data:"))
                    .any(|data| {
                        let data = Bytes::copy_from_slice(data.trim().as_bytes());
                        finish_reason(&data).is_some_and(|reason| reason == TOO_LITTLE)
                    });
                self.probed(too_little);
            }
            Event::Failed(Leg::Probe, failure) => self.decode_failed(failure),
            _ => {}
        }
    }

    fn probed(&mut self, too_little: bool) {
        if too_little {
            self.call(Call::Cancel(Leg::Probe));
            return self.prefill();
        }
        self.call(Call::Outcome(Outcome::Local(LocalReason::CacheHit)));
        self.call(Call::Relay(Leg::Probe, Rewrite::Nothing));
        self.phase = Phase::Done;
    }
}

/// The time limit of the call by which a prefill server's unused cache is freed.
const RELEASE: Duration = Duration::from_secs(10);

/// The finish reason of an engine that has too little of the prompt in its cache.
const TOO_LITTLE: &str = "cache_threshold";

/// The finish reason of the first choice, empty if there is none. `None` if the answer is not a JSON object.
fn finish_reason(answer: &Bytes) -> Option<String> {
    let answer = JsonObject::read(answer.clone(), &["choices"]).ok()?;
    let choices = answer.get("choices").as_ref().and_then(json_elements).unwrap_or_default();
    let first = choices.first().and_then(|first| JsonObject::read(first.clone(), &["finish_reason"]).ok());
    Some(first.and_then(|first| first.text("finish_reason")).unwrap_or_default())
}

/// The number of prompt tokens that the prefill server had in its cache.
fn cached_tokens(api: Api, answer: &JsonObject) -> u64 {
    let names: &[&'static str] = match api {
        Api::Messages => &["cache_read_input_tokens"],
        Api::Responses => &["input_tokens_details", "cached_tokens"],
        _ => &["prompt_tokens_details", "cached_tokens"],
    };
    let mut value = answer.get("usage");
    for name in names {
        value = value.and_then(|value| JsonObject::read(value, &[name]).ok()?.get(name));
    }
    value.and_then(|value| std::str::from_utf8(&value).ok()?.parse().ok()).unwrap_or(0)
}

/// The failure of a prefill server that answered with an error status.
pub(super) fn failed_with(status: StatusCode) -> PrefillFailed {
    PrefillFailed {
        reason: FailReason::Status(Stage::Prefill),
        status: Some(status),
        instead: status,
        text: "it answered with an error",
    }
}

/// The failure of a prefill server that gave no answer.
pub(super) fn failed_by(failure: LegFailure) -> PrefillFailed {
    PrefillFailed {
        reason: failure.reason(Stage::Prefill),
        status: None,
        instead: failure.status(),
        text: failure.text(),
    }
}
