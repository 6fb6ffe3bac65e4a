//! Runs the machine of one request: it makes the calls that the machine asks for, and reports the results as events.

use std::future::{Future as _, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderValue, Response, StatusCode};
use tokio::sync::mpsc::{Sender, channel};
use tokio::time::{Instant, Sleep, sleep_until};

use super::answer::Refusal;
use super::api::Api;
use super::buffer::{BodyMemory, Buffer};
use super::companion::Companions;
use super::headers::strip_hop_by_hop;
use super::ids::Ids;
use super::inbound::{AbortOnDrop, Answer};
use super::legs::{ClientHead, Legs};
use super::machine::{Ask, Call, Calls, Destination, Event, Leg, LegRequest, Machine, Note, Rewrite, Shared};
use super::notices::Notices;
use super::outcome::{FailReason, Outcome, Verdict};
use super::upstream::Upstream;
use crate::metrics::SidecarMetrics;
use crate::request::CachedTokens;
use crate::telemetry::{Injected, Span, Tracing};

/// The most pieces of a streamed answer that wait for the client.
const PIECES: usize = 4;

/// What all requests of the process use.
#[derive(Clone, Debug)]
pub(super) struct ProxyContext {
    /// The settings and the state that the machines share.
    pub shared: Arc<Shared>,
    /// The clients for the other servers.
    pub upstream: Arc<Upstream>,
    /// The memory for bodies of requests and for answers that are read before they are acted on.
    pub(super) buffer: Buffer,
    /// The counters of the sidecar.
    pub metrics: SidecarMetrics,
    /// The rate-limited warnings of the log.
    pub notices: Arc<Notices>,
    /// Makes the spans, or none if tracing is off.
    pub(super) tracing: Tracing,
}

/// One request while it is processed.
struct Drive {
    context: ProxyContext,
    api: Api,
    machine: Machine,
    legs: Option<Legs>,
    head: Arc<ClientHead>,
    timer: Option<Pin<Box<Sleep>>>,
    /// The call to make if the client leaves before the answer.
    on_gone: Option<Box<LegRequest>>,
    /// The outcome that the machine named. It is counted when the answer has ended.
    outcome: Option<Outcome>,
    verdict: Option<Verdict>,
    over: bool,
    span: Span,
    /// The memory that the body takes while calls are made of it.
    _held: BodyMemory,
}

/// One step of the answer to the client.
enum Word {
    Response(Box<Response<Answer>>),
    Begin(&'static str),
    Piece(Bytes),
    End,
}

/// Processes a request that is split, and returns its answer. The body of the answer may go on after that.
pub(super) async fn drive(
    context: ProxyContext,
    ask: Ask,
    head: ClientHead,
    held: BodyMemory,
    span: Span,
) -> Response<Answer> {
    let head = Arc::new(head);
    let legs = Legs::new(Arc::clone(&context.upstream), Arc::clone(&head), context.buffer.clone());
    let api = ask.api;
    let now = std::time::Instant::now();
    let verdict = Some(Verdict::open(&context.metrics));
    let (machine, calls) = Machine::start(Arc::clone(&context.shared), ask, Ids::new(), now);
    let mut drive = Drive {
        context,
        api,
        machine,
        legs: Some(legs),
        head,
        timer: None,
        on_gone: None,
        outcome: None,
        verdict,
        over: false,
        span,
        _held: held,
    };
    let mut words = drive.carry_out(calls).into_iter();
    loop {
        match words.next() {
            Some(Word::Response(response)) => return *response,
            Some(Word::Begin(kind)) => return drive.in_pieces(kind, words.collect()),
            Some(Word::Piece(_) | Word::End) => {}
            None => words = drive.next().await.into_iter(),
        }
    }
}

impl Drive {
    /// Waits for the next event, gives it to the machine, and does what the machine asks for.
    async fn next(&mut self) -> Vec<Word> {
        let event = poll_fn(|cx| {
            if let Some(legs) = &mut self.legs
                && let Poll::Ready(event) = legs.poll(cx)
            {
                return Poll::Ready(event);
            }
            if let Some(timer) = &mut self.timer
                && timer.as_mut().poll(cx).is_ready()
            {
                self.timer = None;
                return Poll::Ready(Event::Timer);
            }
            Poll::Pending
        })
        .await;
        let calls = self.machine.on(event, std::time::Instant::now());
        self.carry_out(calls)
    }

    /// Returns an answer whose body a task sends piece by piece. The task makes the further calls while the client
    /// already reads.
    fn in_pieces(mut self, kind: &'static str, begun: Vec<Word>) -> Response<Answer> {
        let (sender, receiver) = channel(PIECES);
        let task = tokio::spawn(async move { self.send_pieces(&sender, begun).await });
        let mut response = Response::new(Answer::pieces(receiver, AbortOnDrop(task.abort_handle())));
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        response
    }

    async fn send_pieces(&mut self, sender: &Sender<Bytes>, mut words: Vec<Word>) {
        loop {
            for word in words {
                match word {
                    Word::Piece(piece) => {
                        if sender.send(piece).await.is_err() {
                            return;
                        }
                    }
                    Word::End | Word::Response(_) => return,
                    Word::Begin(_) => {}
                }
            }
            words = self.next().await;
        }
    }

    fn carry_out(&mut self, calls: Calls) -> Vec<Word> {
        calls.into_iter().filter_map(|call| self.carry_out_one(call)).collect()
    }

    fn carry_out_one(&mut self, call: Call) -> Option<Word> {
        if let Some(legs) = &mut self.legs {
            match call {
                Call::Send(leg, request) => {
                    let mut span = self.span.child(|| leg.stage().name());
                    if let (true, Destination::Server(target)) = (span.is_recording(), &request.to) {
                        span.attribute("llm_d.pd_proxy.target", target.to_string());
                    }
                    let parent = if span.is_recording() { &span } else { &self.span };
                    let injected = parent.inject();
                    legs.send(leg, *request, injected, span);
                }
                Call::Collect(leg) => legs.read(leg, true),
                Call::Drain(leg) => legs.read(leg, false),
                Call::Peek(leg, peek) => legs.peek(leg, peek),
                Call::Cancel(leg) => legs.cancel(leg),
                other => return self.tell(other),
            }
        }
        None
    }

    /// Carries out a `call` that is not a call to a server.
    fn tell(&mut self, call: Call) -> Option<Word> {
        match call {
            Call::Wake(after) => self.timer = Some(Box::pin(sleep_until(Instant::now() + after))),
            Call::OnGone(request) => self.on_gone = Some(request),
            Call::Note(note) => self.note(&note),
            Call::Outcome(outcome) => {
                self.outcome = Some(outcome);
                self.span.attribute("llm_d.pd_proxy.outcome", outcome.name());
                self.span.attribute("llm_d.pd_proxy.reason", outcome.reason());
            }
            Call::Relay(leg, rewrite) => return Some(self.last(|drive| drive.relay(leg, rewrite))),
            Call::Refuse(refusal) => {
                self.judge();
                return Some(self.last(|drive| refuse(&refusal, &drive.head.id)));
            }
            Call::Answer(body, kind) => {
                self.judge();
                return Some(self.last(|_| {
                    let mut response = Response::new(Answer::whole(body));
                    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
                    response
                }));
            }
            Call::Begin(kind) => return Some(Word::Begin(kind)),
            Call::Piece(piece) => return Some(Word::Piece(piece)),
            Call::End => {
                self.judge();
                self.over = true;
                return Some(Word::End);
            }
            Call::Send(..) | Call::Collect(_) | Call::Drain(_) | Call::Peek(..) | Call::Cancel(_) => {}
        }
        None
    }

    /// Counts the outcome now. The sidecar wrote this answer itself, so it cannot break off any more.
    fn judge(&mut self) {
        if let (Some(verdict), Some(outcome)) = (&mut self.verdict, self.outcome) {
            verdict.give(outcome);
        }
    }

    fn last(&mut self, make: impl FnOnce(&mut Self) -> Response<Answer>) -> Word {
        let response = make(self);
        self.over = true;
        Word::Response(Box::new(response))
    }

    /// Makes the answer of the call `leg` the client's answer. The other calls go on beside it.
    fn relay(&mut self, leg: Leg, rewrite: Rewrite) -> Response<Answer> {
        let taken = self.legs.take().and_then(|mut legs| Some((legs.take(leg)?, legs)));
        let Some(((mut head, read, rest), legs)) = taken else {
            let refusal = Refusal::new(StatusCode::BAD_GATEWAY, "the answer is gone");
            return refuse(&refusal, &self.head.id);
        };
        head.version = http::Version::HTTP_11;
        strip_hop_by_hop(&mut head.headers);
        let mut body = Answer::relayed(read, rest).with_companions(Companions::new(legs.into_companions()));
        if let Rewrite::CachedTokens(cached) = rewrite
            && !head.headers.contains_key(http::header::CONTENT_ENCODING)
        {
            let kind = head.headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
            if kind.starts_with(b"text/event-stream") || kind.starts_with(b"application/json") {
                let stream = kind.starts_with(b"text/");
                body = body.rewritten(CachedTokens::new(self.api.kind(), stream, cached));
                head.headers.remove(CONTENT_LENGTH);
            }
        }
        if let (Some(mut verdict), Some(outcome)) = (self.verdict.take(), self.outcome) {
            verdict.begun(leg.stage(), outcome);
            body = body.judged(verdict);
        }
        Response::from_parts(head, body.traced(std::mem::take(&mut self.span)))
    }

    fn note(&self, note: &Note) {
        let ProxyContext { metrics, notices, .. } = &self.context;
        match note {
            Note::PrefillFailed(.., retry) => metrics.retried(*retry),
            Note::NoParameters(_) => {}
        }
        notices.tell(note);
    }
}

impl Drop for Drive {
    fn drop(&mut self) {
        if self.over {
            return;
        }
        self.span.error(Outcome::Failed(FailReason::ClientGone).reason());
        let known = self.legs.as_ref().is_some_and(|legs| legs.is_taken(Leg::Decode));
        if let Some(request) = self.on_gone.take().filter(|_| !known) {
            release(&self.context, &self.head, *request);
        }
    }
}

/// Asks the engine for the shortest answer that uses the cache, after which the prefill server frees the cache.
fn release(context: &ProxyContext, head: &Arc<ClientHead>, request: LegRequest) {
    let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
    let upstream = Arc::clone(&context.upstream);
    let mut legs = Legs::new(upstream, Arc::clone(head), context.buffer.clone());
    legs.send(Leg::Decode, request, Injected::new(), Span::off());
    runtime.spawn(async move {
        while let Event::Head(leg, _) = poll_fn(|cx| legs.poll(cx)).await {
            legs.read(leg, false);
        }
    });
}

/// Makes the response that tells the client of an error.
pub(super) fn refuse(refusal: &Refusal, id: &HeaderValue) -> Response<Answer> {
    let mut response = Response::new(Answer::whole(refusal.body()));
    *response.status_mut() = refusal.status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if !id.is_empty() {
        headers.insert(super::legs::REQUEST_ID, id.clone());
    }
    response
}
