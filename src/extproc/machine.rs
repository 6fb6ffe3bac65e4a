//! One ext_proc stream as a pure state machine: a message in, effects out. No I/O, no clock, no await.
//!
//! The proxy's body mode says when a request can be decided and in which message the decision goes back:
//!
//! | mode | decided at | decision goes into |
//! |---|---|---|
//! | headers only, `NONE` | headers | answer to the headers |
//! | `FULL_DUPLEX_STREAMED` | end of body, or trailers | answer to the headers, then the body in pieces |
//! | `STREAMED`, body sent early | end of body, or trailers | answer to the headers, then one answer a piece |
//! | `STREAMED` | headers | answer to the headers |
//! | `BUFFERED`, `BUFFERED_PARTIAL` | the body message | answer to the body |

use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use smallvec::SmallVec;

use super::answer::{self, Side};
use super::body::{BodyBudget, BodyBuffer, BodyOverflow};
use super::metadata;
use super::mode::{BodyMode, DecideAt, Modes};
use super::refusal::{self, Caller};
use super::wire::{HttpBody, HttpHeaders, Metadata, ProcessingRequest, ProcessingResponse, Request};
use crate::director::{Ask, BodySeen, Pieces, Reason, Refusal, ResponseSide, Routed, SubsetHint};
use crate::request::Headers;
use crate::scheduling::HeaderEdits;

/// What the shell must do, in order.
#[derive(Debug)]
pub enum Effect {
    /// Send this.
    Send(ProcessingResponse),
    /// The request was refused; the answer follows.
    Refused(Reason),
    /// Decide this request and come back with [`Machine::decided`]; until then feed no message.
    Decide(Box<Ask>),
    /// End the stream; nothing follows.
    Finish,
    /// End the stream with a gRPC error: the proxy broke the protocol.
    Fail(&'static str),
}

/// Effects of one step.
pub type Effects = SmallVec<[Effect; 3]>;

/// Bounds and modes of a stream.
#[derive(Clone, Debug)]
pub struct MachineSettings {
    /// Modes where the proxy names none.
    pub modes: Modes,
    /// Bytes of one request body, 0 = no bound.
    pub body_limit: u64,
    /// Bound of all bodies.
    pub budget: Arc<BodyBudget>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Nothing of the request was seen.
    Start,
    /// Headers seen, more to come before the decision. `answered`: the headers were.
    Collecting { answered: bool },
    /// The shell decides; `Form` says how the answer looks.
    Deciding(Form),
    /// Decided and answered.
    Forwarded,
    /// Refused, skipped or failed: nothing more is said.
    Closed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// Into the answer to the headers, no body with it.
    Headers,
    /// Into the answer to the headers; the body follows in pieces.
    FullDuplex { trailers: bool },
    /// Into the answer to the headers; `pieces` body messages wait for an answer each.
    Early { pieces: usize, trailers: bool },
    /// Into the answer to the body message.
    Body,
}

/// The state of one stream. `X` is the response side of a decided request.
#[derive(Debug)]
pub struct Machine<X> {
    settings: MachineSettings,
    modes: Modes,
    phase: Phase,
    headers: Headers,
    hint: SubsetHint,
    body: BodyBuffer,
    pieces: usize,
    caller: Caller,
    exchange: Option<X>,
    response_ended: bool,
}

impl<X: ResponseSide> Machine<X> {
    /// A stream on which nothing has happened.
    pub fn new(settings: MachineSettings) -> Self {
        let body = BodyBuffer::new(Arc::clone(&settings.budget), settings.body_limit);
        Self {
            modes: settings.modes,
            settings,
            phase: Phase::Start,
            headers: Headers::new(),
            hint: SubsetHint::Absent,
            body,
            pieces: 0,
            caller: Caller::default(),
            exchange: None,
            response_ended: false,
        }
    }

    /// Takes a message of the proxy.
    pub fn on_message(&mut self, message: ProcessingRequest) -> Effects {
        if let Some(config) = message.protocol_config {
            self.modes = config.into();
        }
        // In observability mode the proxy waits for nothing and heeds nothing.
        if message.observability_mode || self.phase == Phase::Closed {
            return Effects::new();
        }
        if let Some(context) = &message.metadata_context {
            self.note_hint(context);
        }
        let context = message.metadata_context.as_ref();
        match message.request {
            Some(Request::RequestHeaders(headers)) => self.on_request_headers(headers),
            Some(Request::RequestBody(body)) => self.on_request_body(body),
            Some(Request::RequestTrailers(_)) => self.on_request_trailers(),
            Some(Request::ResponseHeaders(headers)) => self.on_response_headers(headers, context),
            Some(Request::ResponseBody(body)) => self.on_response_body(body),
            Some(Request::ResponseTrailers(_)) => self.on_response_trailers(),
            None => Effects::new(),
        }
    }

    /// Takes the answer to [`Effect::Decide`].
    pub fn decided(&mut self, result: Result<Routed<X>, Refusal>) -> Effects {
        let Phase::Deciding(form) = self.phase else { return Effects::new() };
        match result {
            Ok(routed) => self.forward(form, routed),
            Err(refusal) => self.refuse(&refusal),
        }
    }

    /// Refuses the request from outside: a deadline passed, a plugin panicked. Once the request was forwarded there is nothing to refuse, and the
    /// stream just ends.
    pub fn refuse(&mut self, refusal: &Refusal) -> Effects {
        let answer = self.phase != Phase::Forwarded && self.phase != Phase::Closed;
        self.close();
        let mut effects = Effects::new();
        if answer {
            effects.push(Effect::Refused(refusal.reason));
            effects.push(Effect::Send(refusal::immediate(refusal, self.caller)));
        }
        effects.push(Effect::Finish);
        effects
    }

    /// Ready if the request that is being served should be stopped.
    pub fn poll_revoked(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.exchange {
            Some(exchange) if !self.response_ended => exchange.poll_revoked(cx),
            _ => Poll::Pending,
        }
    }

    /// Stops a request that is being served. The proxy resets the model server's stream; a client that has seen nothing of the response yet
    /// gets the answer.
    pub fn evict(&mut self) -> Effects {
        if self.phase != Phase::Forwarded || self.response_ended {
            return Effects::new();
        }
        let refusal = Refusal::new(Reason::Evicted, "request evicted by flow control");
        let answer = refusal::immediate(&refusal, self.caller);
        self.close();
        [Effect::Refused(refusal.reason), Effect::Send(answer), Effect::Finish].into_iter().collect()
    }

    /// True if nothing more is to come: the request was refused, or the response has ended.
    pub fn is_done(&self) -> bool {
        self.phase == Phase::Closed || self.response_ended
    }

    fn close(&mut self) {
        self.phase = Phase::Closed;
        self.exchange = None;
        self.reset_body();
    }

    fn reset_body(&mut self) {
        self.body = BodyBuffer::new(Arc::clone(&self.settings.budget), self.settings.body_limit);
    }

    /// A hint on the headers holds until a later message of the request brings another.
    fn note_hint(&mut self, context: &Metadata) {
        let hint = metadata::subset_hint(context);
        if hint != SubsetHint::Absent {
            self.hint = hint;
        }
    }

    fn on_request_headers(&mut self, message: HttpHeaders) -> Effects {
        if self.phase != Phase::Start {
            self.close();
            return [Effect::Fail("request headers came twice on one stream")].into_iter().collect();
        }
        self.headers = to_headers(message.headers.unwrap_or_default());
        self.caller = Caller::of(&self.headers);
        if message.end_of_stream {
            return self.decide(Form::Headers, BodySeen::None);
        }
        match self.modes.decide_at() {
            DecideAt::Headers => self.decide(Form::Headers, BodySeen::Unseen),
            DecideAt::BodyEnd => self.collect(),
        }
    }

    fn collect(&mut self) -> Effects {
        let length = self.headers.text("content-length").and_then(|text| text.parse().ok());
        if let Some(length) = length
            && !self.body.expect(length)
        {
            return self.overflow(BodyOverflow::Request);
        }
        let answered = matches!(self.modes.request, BodyMode::Buffered | BodyMode::BufferedPartial);
        self.phase = Phase::Collecting { answered };
        answered.then(|| Effect::Send(answer::request_headers_go_on())).into_iter().collect()
    }

    fn on_request_body(&mut self, message: HttpBody) -> Effects {
        match self.phase {
            // A proxy that sends no request headers. While it buffers, they can still be changed; otherwise they are long gone.
            Phase::Start if matches!(self.modes.request, BodyMode::Buffered | BodyMode::BufferedPartial) => {
                self.phase = Phase::Collecting { answered: true };
                self.take_body(message)
            }
            Phase::Start => {
                let text = "the proxy must send request headers (request_header_mode: SEND)";
                self.refuse(&Refusal::new(Reason::NoHeaders, text))
            }
            Phase::Collecting { .. } => self.take_body(message),
            Phase::Deciding(_) | Phase::Closed => Effects::new(),
            Phase::Forwarded => self.pass_on(Side::Request, message),
        }
    }

    fn take_body(&mut self, message: HttpBody) -> Effects {
        if let Err(overflow) = self.body.push(message.body) {
            return self.overflow(overflow);
        }
        self.pieces += 1;
        match self.modes.request {
            BodyMode::Buffered => self.decide(Form::Body, BodySeen::Whole),
            BodyMode::BufferedPartial => {
                let seen = if message.end_of_stream { BodySeen::Whole } else { BodySeen::Part };
                self.decide(Form::Body, seen)
            }
            _ if !message.end_of_stream => Effects::new(),
            BodyMode::Streamed => {
                self.decide(Form::Early { pieces: self.pieces, trailers: false }, BodySeen::Whole)
            }
            BodyMode::FullDuplex | BodyMode::None => {
                self.decide(Form::FullDuplex { trailers: false }, BodySeen::Whole)
            }
        }
    }

    fn on_request_trailers(&mut self) -> Effects {
        match self.phase {
            Phase::Collecting { answered: false } if self.modes.request == BodyMode::Streamed => {
                self.decide(Form::Early { pieces: self.pieces, trailers: true }, BodySeen::Whole)
            }
            Phase::Collecting { answered: false } => {
                self.decide(Form::FullDuplex { trailers: true }, BodySeen::Whole)
            }
            // Buffered modes answer in the body message; without one there is no place for the decision.
            Phase::Collecting { answered: true } => {
                let text = "request ended by trailers without a body, which this body mode cannot route";
                self.refuse(&Refusal::new(Reason::MissingBody, text))
            }
            Phase::Start | Phase::Forwarded => {
                [Effect::Send(answer::trailers(Side::Request))].into_iter().collect()
            }
            Phase::Deciding(_) | Phase::Closed => Effects::new(),
        }
    }

    fn overflow(&mut self, overflow: BodyOverflow) -> Effects {
        let refusal = match overflow {
            BodyOverflow::Request => Refusal::new(
                Reason::BodyTooLarge,
                format!("request body exceeds the limit of {} bytes", self.settings.body_limit),
            ),
            BodyOverflow::Total => Refusal::new(
                Reason::BuffersFull,
                format!(
                    "request bodies being buffered exceed the limit of {} bytes",
                    self.settings.budget.limit()
                ),
            ),
        };
        self.refuse(&refusal)
    }

    fn decide(&mut self, form: Form, body_seen: BodySeen) -> Effects {
        self.phase = Phase::Deciding(form);
        let ask = Ask {
            headers: std::mem::take(&mut self.headers),
            body: self.body.take(),
            body_seen,
            hint: std::mem::replace(&mut self.hint, SubsetHint::Absent),
        };
        [Effect::Decide(Box::new(ask))].into_iter().collect()
    }

    fn forward(&mut self, form: Form, routed: Routed<X>) -> Effects {
        let Routed { destination, scores, mut edits, body, body_changed, skip_response, exchange } = routed;
        let metadata = metadata::destination(&destination, &scores);
        edits.set.insert(0, (Bytes::from_static(DESTINATION), destination));
        let length: usize = body.iter().map(Bytes::len).sum();
        // The proxy drops the length of a body it streams through here.
        let states_length =
            matches!(form, Form::FullDuplex { .. }) || (body_changed && matches!(form, Form::Early { .. }));
        if states_length && length > 0 {
            edits.set.insert(1, (Bytes::from_static(b"content-length"), length.to_string().into()));
        }
        let mut sends: SmallVec<[ProcessingResponse; 3]> = SmallVec::new();
        match form {
            Form::Headers => sends.push(answer::request_headers(edits, metadata)),
            Form::FullDuplex { trailers } => {
                sends.push(answer::request_headers(edits, metadata));
                answer::streamed(Side::Request, body, !trailers, &mut sends);
                if trailers {
                    sends.push(answer::trailers(Side::Request));
                }
            }
            Form::Early { pieces, trailers } => {
                sends.push(answer::request_headers(edits, metadata));
                // The first piece takes the whole new body, the others are emptied.
                let whole = body_changed.then(|| concat(body));
                for index in 0..pieces {
                    let bytes =
                        whole.as_ref().map(|whole| if index == 0 { whole.clone() } else { Bytes::new() });
                    sends.push(answer::piece(Side::Request, bytes));
                }
                if trailers {
                    sends.push(answer::trailers(Side::Request));
                }
            }
            Form::Body => {
                let changed = body_changed.then(|| concat(body));
                sends.push(answer::buffered_request(edits, metadata, changed));
            }
        }
        self.phase = Phase::Forwarded;
        self.exchange = Some(exchange);
        self.reset_body();
        let mut effects: Effects = sends.into_iter().map(Effect::Send).collect();
        if skip_response {
            self.close();
            effects.push(Effect::Finish);
        }
        effects
    }

    fn on_response_headers(&mut self, message: HttpHeaders, context: Option<&Metadata>) -> Effects {
        let headers = to_headers(message.headers.unwrap_or_default());
        let served = context.and_then(metadata::served);
        let end = message.end_of_stream || self.modes.response == BodyMode::None;
        self.response_ended |= end;
        let edits = match &mut self.exchange {
            Some(exchange) => exchange.on_headers(&headers, served.as_deref(), end),
            None => HeaderEdits::default(),
        };
        [Effect::Send(answer::response_headers(edits))].into_iter().collect()
    }

    fn on_response_body(&mut self, message: HttpBody) -> Effects {
        self.response_ended |= message.end_of_stream;
        let Some(exchange) = &mut self.exchange else { return self.pass_on(Side::Response, message) };
        let HttpBody { body: chunk, end_of_stream: end } = message;
        let pieces = exchange.on_chunk(chunk.clone(), end);
        if self.modes.response == BodyMode::FullDuplex {
            let mut sends: SmallVec<[ProcessingResponse; 3]> = SmallVec::new();
            answer::streamed(Side::Response, pieces, end, &mut sends);
            return sends.into_iter().map(Effect::Send).collect();
        }
        let unchanged = match pieces.as_slice() {
            [piece] => piece.as_ptr() == chunk.as_ptr() && piece.len() == chunk.len(),
            [] => chunk.is_empty(),
            _ => false,
        };
        let changed = (!unchanged).then(|| concat(pieces));
        [Effect::Send(answer::piece(Side::Response, changed))].into_iter().collect()
    }

    fn on_response_trailers(&mut self) -> Effects {
        self.response_ended = true;
        let mut sends: SmallVec<[ProcessingResponse; 3]> = SmallVec::new();
        if let Some(exchange) = &mut self.exchange {
            let rest = exchange.on_end();
            if self.modes.response == BodyMode::FullDuplex {
                answer::streamed(Side::Response, rest, false, &mut sends);
            }
        }
        sends.push(answer::trailers(Side::Response));
        sends.into_iter().map(Effect::Send).collect()
    }

    /// A piece that concerns nobody: it goes on as it is.
    fn pass_on(&self, side: Side, message: HttpBody) -> Effects {
        let mode = if side == Side::Request { self.modes.request } else { self.modes.response };
        let mut sends: SmallVec<[ProcessingResponse; 3]> = SmallVec::new();
        if mode == BodyMode::FullDuplex {
            answer::streamed(side, [message.body], message.end_of_stream, &mut sends);
        } else {
            sends.push(answer::piece(side, None));
        }
        sends.into_iter().map(Effect::Send).collect()
    }
}

/// Header that carries the decision.
const DESTINATION: &[u8] = b"x-gateway-destination-endpoint";

pub(super) fn to_headers(map: super::wire::HeaderMap) -> Headers {
    let mut headers = Headers::new();
    for header in map.headers {
        let value = if header.raw_value.is_empty() { header.value } else { header.raw_value };
        headers.push(header.key, value);
    }
    headers
}

fn concat(pieces: Pieces) -> Bytes {
    if pieces.len() <= 1 {
        return pieces.into_iter().next().unwrap_or_default();
    }
    pieces.concat().into()
}

#[cfg(test)]
#[path = "machine_tests.rs"]
mod tests;
