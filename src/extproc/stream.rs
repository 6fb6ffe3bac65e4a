//! One gRPC stream: messages in, machine, director, messages out. No task is spawned and no channel lies between; the
//! stream of answers does the work when it is polled, and dropping it ends the request.

use std::collections::VecDeque;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use futures_util::Stream;
use tonic::body::Body;
use tonic::{Code as GrpcCode, Status};

use super::inbound::{Broken, Messages};
use super::machine::{Effect, Effects, Machine};
use super::settings::ExtProcSettings;
use super::stream_count::StreamCount;
use super::wire::{HttpHeaders, ProcessingRequest, ProcessingResponse, Request};
use crate::director::{Ask, Director, Exchange, Reason, Refusal, Routed, Share};
use crate::metrics::{ExtProcMetrics, RequestMetrics};
use crate::request::Headers;
use crate::telemetry::{Span, Tracing};
use crate::transport::{LazyTimer, must_be_taken_by};

type RoutingResult = Result<Routed<Exchange>, Refusal>;
type Deciding = Pin<Box<dyn Future<Output = (RoutingResult, Span)> + Send>>;

/// The state that all streams share.
pub(super) struct Shared {
    /// The director of requests that begin now.
    pub(super) director: Arc<ArcSwap<Director>>,
    pub(super) metrics: ExtProcMetrics,
    /// Series of requests that were refused before anything was known of them.
    pub(super) unknown: RequestMetrics,
    pub(super) tracing: Tracing,
    pub(super) settings: ExtProcSettings,
}

impl Shared {
    /// Counts a refusal, and the bound that caused it.
    pub(super) fn count_refusal(&self, reason: Reason) {
        let extproc = &self.metrics;
        extproc.refusal(reason.label(), reason.code().status());
        if reason.is_of_the_stream() {
            self.unknown.error(reason.code().name());
        }
        match reason {
            Reason::BodyTooLarge | Reason::RewrittenTooLarge | Reason::DecodedTooLarge => {
                extproc.bound_hit("request_body");
            }
            Reason::DecodersBusy => extproc.bound_hit("decoders"),
            Reason::BuffersFull => extproc.bound_hit("buffered_bodies"),
            Reason::TooManyStreams => extproc.bound_hit("streams"),
            _ => {}
        }
    }
}

/// The answers to one stream of messages.
pub(super) struct Conversation {
    shared: Arc<Shared>,
    inbound: Messages<Body>,
    machine: Machine<Exchange>,
    deciding: Option<Deciding>,
    outbox: VecDeque<Result<ProcessingResponse, Status>>,
    /// Counts the body that is in the outbox.
    held: Option<Share>,
    /// Time at which the request headers came.
    received: Instant,
    /// Time at which the last message came, the last answer went, or the request was decided.
    active: Instant,
    /// By when the proxy must ask for the next answer; `None` if there is none.
    taken_by: Option<tokio::time::Instant>,
    idle: LazyTimer,
    inbound_ended: bool,
    finished: bool,
    /// Trace context in the metadata of the call.
    carried: Headers,
    span: Span,
    /// The status with which the stream ends.
    ended: GrpcCode,
    guard: Option<StreamCount>,
}

impl Conversation {
    pub(super) fn new(
        shared: Arc<Shared>,
        inbound: Messages<Body>,
        carried: Headers,
        guard: StreamCount,
    ) -> Self {
        let now = Instant::now();
        let machine = Machine::new(shared.settings.machine.clone());
        Self {
            shared,
            inbound,
            machine,
            deciding: None,
            outbox: VecDeque::new(),
            held: None,
            received: now,
            active: now,
            taken_by: None,
            idle: LazyTimer::default(),
            inbound_ended: false,
            finished: false,
            carried,
            span: Span::off(),
            ended: GrpcCode::Ok,
            guard: Some(guard),
        }
    }

    /// Runs a step of the machine. A panic in it ends this stream with a 500 and harms no other.
    fn step(&mut self, step: impl FnOnce(&mut Machine<Exchange>) -> Effects) {
        let machine = &mut self.machine;
        match catch_unwind(AssertUnwindSafe(|| step(machine))) {
            Ok(effects) => self.perform(effects),
            Err(_) => self.panicked(),
        }
    }

    fn panicked(&mut self) {
        self.shared.metrics.stream_panicked();
        tracing::error!("a bug: handling a request panicked; its stream ends with an error");
        let refusal = Refusal::new(Reason::Panic, "internal error while handling the request");
        let effects = self.machine.refuse(&refusal);
        self.perform(effects);
    }

    fn perform(&mut self, effects: Effects) {
        for effect in effects {
            match effect {
                Effect::Send(message) => self.outbox.push_back(Ok(message)),
                Effect::Refused(reason) => self.shared.count_refusal(reason),
                Effect::Decide(ask) => self.decide(*ask),
                Effect::Hold(share) => self.held = Some(share),
                Effect::Finish => self.finished = true,
                Effect::Fail(text) => {
                    self.ended = GrpcCode::InvalidArgument;
                    self.outbox.push_back(Err(Status::invalid_argument(text)));
                    self.finished = true;
                }
            }
        }
    }

    fn decide(&mut self, ask: Ask) {
        let director = self.shared.director.load_full();
        let received = self.received;
        let mut span = self.shared.tracing.request_span(&ask.headers, &self.carried, received.elapsed());
        self.deciding = Some(Box::pin(async move {
            let decision = director.handle(ask, received, &mut span).await;
            (decision, span)
        }));
    }

    fn poll_deciding(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(deciding) = &mut self.deciding else { return Poll::Ready(()) };
        match catch_unwind(AssertUnwindSafe(|| deciding.as_mut().poll(cx))) {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready((decision, span))) => {
                self.deciding = None;
                self.span = span;
                // The wait for the decision was no idleness.
                self.active = Instant::now();
                self.step(|machine| machine.decided(decision));
                if self.machine.is_forwarded() {
                    self.inbound.serving();
                }
                Poll::Ready(())
            }
            Err(_) => {
                self.deciding = None;
                self.panicked();
                Poll::Ready(())
            }
        }
    }

    /// Longest time in which nothing may come; `None` without a bound.
    fn patience(&self) -> Option<Duration> {
        let timeout = self.shared.settings.stream_idle_timeout;
        patience((!timeout.is_zero()).then_some(timeout), self.machine.has_begun())
    }

    /// True if the stream has been idle for too long.
    fn poll_idle(&mut self, cx: &mut Context<'_>) -> bool {
        let active = tokio::time::Instant::from_std(self.active);
        let deadline = self.patience().and_then(|patience| active.checked_add(patience));
        deadline.is_some_and(|deadline| self.idle.poll(deadline, cx).is_ready())
    }

    fn on_idle(&mut self) {
        let text = format!("no message for {:?}", self.patience().unwrap_or_default());
        self.shared.metrics.bound_hit("idle");
        let effects = self.machine.refuse(&Refusal::new(Reason::StreamIdle, text));
        self.perform(effects);
    }

    fn on_message(&mut self, message: ProcessingRequest) {
        self.active = Instant::now();
        if matches!(message.request, Some(Request::RequestHeaders(_))) {
            self.received = self.active;
        }
        if let Some(Request::ResponseHeaders(headers)) = &message.request
            && self.span.is_recording()
            && is_error(headers)
        {
            self.span.error("ModelServerError");
        }
        self.step(|machine| machine.on_message(message));
    }
}

impl Stream for Conversation {
    type Item = Result<ProcessingResponse, Status>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        loop {
            if let Some(message) = this.outbox.pop_front() {
                if this.outbox.is_empty() {
                    this.held = None;
                    this.active = Instant::now();
                }
                this.expect_reader();
                return Poll::Ready(Some(message));
            }
            if this.finished || (this.inbound_ended && this.deciding.is_none()) {
                return Poll::Ready(None);
            }
            if this.deciding.is_some() {
                if this.poll_deciding(cx).is_pending()
                    && (this.inbound_ended || this.poll_inbound(cx).is_pending())
                {
                    return Poll::Pending;
                }
                continue;
            }
            if this.machine.poll_revoked(cx).is_ready() {
                this.step(Machine::evict);
                continue;
            }
            if this.poll_inbound(cx).is_pending() {
                if !this.poll_idle(cx) {
                    return Poll::Pending;
                }
                this.on_idle();
            }
        }
    }
}

impl Conversation {
    /// An answer was taken. The proxy must come back in time for the next one, if there is any: what waits holds memory
    /// that all share.
    fn expect_reader(&mut self) {
        if self.outbox.is_empty() && self.taken_by.is_none() {
            return;
        }
        let idle = self.shared.settings.stream_idle_timeout;
        let limit = if idle.is_zero() { UNREAD } else { idle.min(UNREAD) };
        self.taken_by = (!self.outbox.is_empty()).then(|| tokio::time::Instant::now() + limit);
        must_be_taken_by(self.taken_by);
    }

    /// Takes the next message, or the end of all.
    fn poll_inbound(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match std::task::ready!(Pin::new(&mut self.inbound).poll_next(cx)) {
            Some(Ok(message)) => self.on_message(message),
            // The proxy has said all. It may still read the decision, if one is under way; otherwise it is done with
            // the stream.
            None => self.inbound_ended = true,
            Some(Err(broken)) => self.on_broken(broken),
        }
        Poll::Ready(())
    }

    /// Nothing more can be read. A client that has no answer yet is told why, if this side broke off.
    fn on_broken(&mut self, broken: Broken) {
        self.inbound_ended = true;
        self.deciding = None;
        let (bound, reason, status) = match broken {
            Broken::Status(status) => return self.on_receive_error(status),
            Broken::Full => {
                let text = self.shared.settings.machine.budget.refusal().message;
                ("buffered_bodies", Reason::BuffersFull, Status::resource_exhausted(text))
            }
            Broken::Stalled => {
                let text = "a message of the proxy was not finished in time";
                ("unfinished_message", Reason::StreamIdle, Status::deadline_exceeded(text))
            }
        };
        if self.machine.awaits_answer() {
            if reason == Reason::StreamIdle {
                self.shared.metrics.bound_hit(bound);
            }
            let refusal = Refusal::new(reason, status.message());
            self.step(|machine| machine.refuse(&refusal));
        } else {
            self.shared.metrics.bound_hit(bound);
            self.on_receive_error(status);
        }
    }

    fn on_receive_error(&mut self, status: Status) {
        self.ended = status.code();
        if status.code() != GrpcCode::Cancelled {
            tracing::debug!(%status, "cannot receive from the proxy");
            self.outbox.push_back(Err(status));
        }
    }
}

impl Drop for Conversation {
    fn drop(&mut self) {
        // A proxy that has all it wants resets the stream: only one that was cut short is cancelled.
        if !self.inbound_ended && !self.finished && !self.machine.is_done() {
            self.ended = GrpcCode::Cancelled;
        }
        if self.taken_by.is_some_and(|time| tokio::time::Instant::now() >= time) {
            self.ended = GrpcCode::Cancelled;
            self.shared.metrics.bound_hit("unread_answers");
        }
        if let Some(guard) = self.guard.take() {
            guard.finish(self.ended);
        }
    }
}

/// True if the model server answered with anything but success.
fn is_error(response: &HttpHeaders) -> bool {
    let headers = response.headers.iter().flat_map(|map| &map.headers);
    let mut statuses = headers.filter(|header| header.key == ":status");
    statuses.any(|status| {
        let value = if status.raw_value.is_empty() { &status.value } else { &status.raw_value };
        !value.starts_with(b"2") && value != "101"
    })
}

/// Longest time in which the proxy takes no answer while some wait.
const UNREAD: Duration = Duration::from_mins(2);

/// Longest wait for the first message: a proxy opens a stream to say something.
const FIRST_MESSAGE: Duration = Duration::from_secs(10);

/// Longest silence of a stream, given that of one that has begun.
fn patience(idle: Option<Duration>, begun: bool) -> Option<Duration> {
    if begun { idle } else { Some(idle.map_or(FIRST_MESSAGE, |idle| idle.min(FIRST_MESSAGE))) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_without_a_first_message_is_not_kept_for_the_idle_time() {
        let (hour, second) = (Some(Duration::from_hours(1)), Some(Duration::from_secs(1)));
        for idle in [hour, second, None] {
            assert_eq!(patience(idle, true), idle);
        }
        assert_eq!(patience(hour, false), Some(FIRST_MESSAGE));
        assert_eq!(patience(None, false), Some(FIRST_MESSAGE));
        assert_eq!(patience(second, false), second);
    }
}
