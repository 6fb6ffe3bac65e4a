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
//! | any, of a tunnel (an upgrade or `CONNECT`) | headers | answer to the headers, then one answer a piece |

use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use smallvec::SmallVec;

use super::answer::{self, Side};
use super::body::{ANSWERED_PIECE, BodyBuffer, BodyOverflow};
use super::early::Early;
use super::form::{self, Form};
use super::mode::{BodyMode, DecideAt, Modes};
use super::refusal::{self, Caller};
use super::wire::{HttpBody, HttpHeaders, Metadata, ProcessingRequest, ProcessingResponse, Request};
use super::{metadata, tunnel};
use crate::director::{Ask, BodyBudget, BodySeen, Reason, Refusal, ResponseSide, Routed, Share, SubsetHint};
use crate::request::Headers;
use crate::scheduling::HeaderEdits;

/// Bytes of request headers that do not count as memory: almost every request has fewer.
const ORDINARY_HEADERS: u64 = 4 << 10;

/// Headers of a request that do not count as memory, and memory that each further one takes beside its bytes.
const ORDINARY_COUNT: usize = 64;
const HEADER: usize = size_of::<(Bytes, Bytes)>();

/// An action that the shell must take. Actions are taken in order.
#[derive(Debug)]
pub enum Effect {
    /// Send this.
    Send(ProcessingResponse),
    /// The request was refused; the answer follows.
    Refused(Reason),
    /// Decide this request and come back with [`Machine::decided`].
    Decide(Box<Ask>),
    /// Keep this until everything sent so far is gone: it counts the body in it.
    Hold(Share),
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
    /// The proxy has sent nothing of the request yet.
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
    /// Messages that came while the shell decides.
    early: Early,
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
            early: Early::new(Arc::clone(&settings.budget)),
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
        if matches!(self.phase, Phase::Deciding(_)) {
            return self.keep(message);
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
        let mut effects = match result {
            Ok(routed) => self.forward(form, routed),
            Err(refusal) => self.refuse(&refusal),
        };
        for message in self.early.take() {
            effects.extend(self.on_message(message));
        }
        effects
    }

    /// A message came while the shell decides: it is dealt with afterwards.
    fn keep(&mut self, message: ProcessingRequest) -> Effects {
        if self.early.push(message) { Effects::new() } else { self.overflow(BodyOverflow::Total) }
    }

    /// Refuses the request from outside: a deadline passed, a plugin panicked. Once the request was forwarded there is
    /// nothing to refuse, and the stream just ends.
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

    /// Stops a request that is being served. The proxy resets the model server's stream; a client that has seen nothing
    /// of the response yet gets the answer.
    pub fn evict(&mut self) -> Effects {
        if self.phase != Phase::Forwarded || self.response_ended {
            return Effects::new();
        }
        self.stop(&Refusal::new(Reason::Evicted, "request evicted by flow control"))
    }

    /// Answers the client although the request was forwarded; the proxy resets the model server's stream.
    fn stop(&mut self, refusal: &Refusal) -> Effects {
        let answer = refusal::immediate(refusal, self.caller);
        self.close();
        [Effect::Refused(refusal.reason), Effect::Send(answer), Effect::Finish].into_iter().collect()
    }

    /// True while the client can still be told why its request is refused.
    pub fn awaits_answer(&self) -> bool {
        matches!(self.phase, Phase::Collecting { .. } | Phase::Deciding(_))
    }

    /// True once the proxy has sent something of the request.
    pub fn has_begun(&self) -> bool {
        self.phase != Phase::Start
    }

    /// True once the request was forwarded.
    pub fn is_forwarded(&self) -> bool {
        self.phase == Phase::Forwarded
    }

    /// True if nothing more is to come: the request was refused, or the response has ended.
    pub fn is_done(&self) -> bool {
        self.phase == Phase::Closed || self.response_ended
    }

    fn close(&mut self) {
        self.phase = Phase::Closed;
        self.exchange = None;
        self.early.take();
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
        let further = self.headers.count().saturating_sub(ORDINARY_COUNT) * HEADER;
        let length = (self.headers.bytes() + further) as u64;
        if length > ORDINARY_HEADERS
            && let Err(overflow) = self.body.charge(length)
        {
            // The caller is told, as with a body.
            self.phase = Phase::Collecting { answered: false };
            return self.overflow(overflow);
        }
        if tunnel::is_asked_for(&self.headers) {
            // What follows is no body and may never end. Modes that wait for its end would wait for ever.
            let ask_for = self.modes.for_tunnel();
            return self.decide(Form::Headers { ask_for }, BodySeen::None);
        }
        if message.end_of_stream {
            return self.decide(Form::Headers { ask_for: None }, BodySeen::None);
        }
        match self.modes.decide_at() {
            DecideAt::Headers => self.decide(Form::Headers { ask_for: None }, BodySeen::Unseen),
            DecideAt::BodyEnd => self.collect(),
        }
    }

    fn collect(&mut self) -> Effects {
        let length = self.headers.text("content-length").and_then(|text| text.parse().ok());
        if let Some(length) = length
            && let Err(overflow) = self.body.expect(length)
        {
            return self.overflow(overflow);
        }
        let answered = matches!(self.modes.request, BodyMode::Buffered | BodyMode::BufferedPartial);
        self.phase = Phase::Collecting { answered };
        answered.then(|| Effect::Send(answer::request_headers_go_on())).into_iter().collect()
    }

    fn on_request_body(&mut self, message: HttpBody) -> Effects {
        match self.phase {
            // A proxy that sends no request headers. While it buffers, they can still be changed; otherwise they are
            // long gone.
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
            Phase::Forwarded => match self.passes(&message.body, message.end_of_stream) {
                Ok(()) => self.pass_on(Side::Request, message),
                Err(refusal) => self.stop(&refusal),
            },
        }
    }

    /// A piece of a body that comes after the decision. An error if the request must not be served.
    fn passes(&mut self, chunk: &Bytes, end: bool) -> Result<(), Refusal> {
        match &mut self.exchange {
            Some(exchange) if !self.response_ended => exchange.on_request_chunk(chunk, end),
            _ => Ok(()),
        }
    }

    fn take_body(&mut self, message: HttpBody) -> Effects {
        if let Err(overflow) = self.body.push(message.body) {
            return self.overflow(overflow);
        }
        self.pieces += 1;
        if self.modes.request == BodyMode::Streamed
            && let Err(overflow) = self.body.charge(ANSWERED_PIECE)
        {
            return self.overflow(overflow);
        }
        match self.modes.request {
            BodyMode::Buffered => self.decide(Form::Body { whole: true }, BodySeen::Whole),
            BodyMode::BufferedPartial => {
                let whole = message.end_of_stream;
                self.decide(Form::Body { whole }, if whole { BodySeen::Whole } else { BodySeen::Part })
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
            Phase::Start | Phase::Forwarded => match self.passes(&Bytes::new(), true) {
                Ok(()) => [Effect::Send(answer::trailers(Side::Request))].into_iter().collect(),
                Err(refusal) => self.stop(&refusal),
            },
            Phase::Deciding(_) | Phase::Closed => Effects::new(),
        }
    }

    fn overflow(&mut self, overflow: BodyOverflow) -> Effects {
        let refusal = match overflow {
            BodyOverflow::Request => Refusal::new(
                Reason::BodyTooLarge,
                format!("request body exceeds the limit of {} bytes", self.settings.body_limit),
            ),
            BodyOverflow::Total => self.settings.budget.refusal(),
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

    fn forward(&mut self, form: Form, mut routed: Routed<X>) -> Effects {
        let mut share = self.body.release();
        if let Some(held) = routed.held.take() {
            share.absorb(held);
        }
        let (sends, exchange) = form::answers(form, routed);
        self.phase = Phase::Forwarded;
        self.exchange = Some(exchange);
        let mut effects: Effects = sends.into_iter().map(Effect::Send).collect();
        effects.push(Effect::Hold(share));
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
        let mut pieces = exchange.on_chunk(chunk.clone(), end);
        let report = end.then(|| metadata::reported(exchange.reported())).flatten();
        if self.modes.response == BodyMode::FullDuplex {
            let mut sends: SmallVec<[ProcessingResponse; 3]> = SmallVec::new();
            answer::streamed(Side::Response, pieces, end, &mut sends);
            if let Some(last) = sends.last_mut() {
                last.dynamic_metadata = report;
            }
            return sends.into_iter().map(Effect::Send).collect();
        }
        // Every piece is answered by itself, and an answer to trailers carries no body: what is held back now may be
        // lost.
        pieces.extend(exchange.flush());
        let unchanged = match pieces.as_slice() {
            [piece] => piece.as_ptr() == chunk.as_ptr() && piece.len() == chunk.len(),
            [] => chunk.is_empty(),
            _ => false,
        };
        let changed = (!unchanged).then(|| form::concat(pieces));
        let states_length = self.modes.response == BodyMode::Buffered;
        let mut send = answer::response_piece(changed, states_length);
        send.dynamic_metadata = report;
        [Effect::Send(send)].into_iter().collect()
    }

    fn on_response_trailers(&mut self) -> Effects {
        self.response_ended = true;
        let mut sends: SmallVec<[ProcessingResponse; 3]> = SmallVec::new();
        let mut last = answer::trailers(Side::Response);
        if let Some(exchange) = &mut self.exchange {
            let rest = exchange.on_end();
            last.dynamic_metadata = metadata::reported(exchange.reported());
            if self.modes.response == BodyMode::FullDuplex {
                answer::streamed(Side::Response, rest, false, &mut sends);
            }
        }
        sends.push(last);
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

pub(super) fn to_headers(map: super::wire::HeaderMap) -> Headers {
    let mut headers = Headers::new();
    for header in map.headers {
        let value = if header.raw_value.is_empty() { header.value } else { header.raw_value };
        headers.push(header.key, value);
    }
    headers
}

#[cfg(test)]
#[path = "machine_tests.rs"]
mod tests;
