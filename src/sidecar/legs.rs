//! The calls of one request that are running. Each is sent, and read as far as the machine asks. Dropping `Legs` ends
//! them.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::uri::Authority;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, Uri, response};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use smallvec::SmallVec;
use tokio::time::{Instant, timeout_at};

use super::buffer::{BodyMemory, Buffer};
use super::client::CallError;
use super::companion::Companion;
use super::headers::for_another_body;
use super::machine::{Destination, Event, Leg, LegFailure, LegRequest, Peek};
use super::outbound::Outbound;
use super::upstream::Upstream;
use crate::telemetry::{Injected, Span};

/// The longest answer, in bytes, that is read in full. A longer one counts as malformed.
const ANSWER: usize = 16 << 20;

/// The most bytes of a stream that are read to find its first two events.
const BEGINNING: usize = 64 << 10;

/// The result of one step of a call.
enum Step {
    Head(Result<Response<Incoming>, LegFailure>),
    Whole(Result<Bytes, LegFailure>, Option<BodyMemory>),
    Peeked(Read, Result<(Vec<Bytes>, bool), LegFailure>),
}

/// The rest of an answer's body, of which the beginning was read.
struct Read {
    body: Option<Incoming>,
}

type Running = Pin<Box<dyn Future<Output = Step> + Send>>;

/// One call to a server.
struct Call {
    leg: Leg,
    running: Option<Running>,
    head: Option<response::Parts>,
    body: Option<Incoming>,
    /// The pieces of the body that were read.
    read: Vec<Bytes>,
    /// The memory that `read` takes.
    held: Option<BodyMemory>,
    began: Instant,
    deadline: Option<Instant>,
    taken: Arc<AtomicBool>,
    span: Span,
}

/// The running calls of one request.
pub(super) struct Legs {
    calls: SmallVec<[Call; 2]>,
    upstream: Arc<Upstream>,
    /// The head of the client's request, from which the heads of the calls are made.
    head: Arc<ClientHead>,
    buffer: Buffer,
}

/// The parts of the client's request head that the calls use.
#[derive(Debug)]
pub(super) struct ClientHead {
    /// The client's headers, without the headers of the connection and the routing headers.
    pub headers: HeaderMap,
    /// The path and the query of the client's request.
    pub uri: Uri,
    /// The id of the request.
    pub id: http::HeaderValue,
}

impl Legs {
    /// Makes an empty set of calls. Answers that are read in full take memory of `buffer`.
    pub(super) fn new(upstream: Arc<Upstream>, head: Arc<ClientHead>, buffer: Buffer) -> Self {
        Self { calls: SmallVec::new(), upstream, head, buffer }
    }

    /// Starts a call. A running call of the same `leg` is ended first.
    pub(super) fn send(&mut self, leg: Leg, request: LegRequest, trace: Injected, span: Span) {
        self.cancel(leg);
        let began = Instant::now();
        let deadline = request.limit.and_then(|limit| began.checked_add(limit));
        let taken = Arc::new(AtomicBool::new(false));
        let sending = send(
            Arc::clone(&self.upstream),
            Arc::clone(&self.head),
            (leg, request),
            trace,
            Arc::clone(&taken),
        );
        let running: Running = Box::pin(async move {
            Step::Head(match within(deadline, sending).await {
                Some(Ok(response)) => Ok(response),
                Some(Err(error)) => {
                    tracing::debug!(stage = leg.stage().name(), error = error.text, "call failed");
                    Err(error.failure)
                }
                None => Err(LegFailure::Timeout),
            })
        });
        let (head, body, read) = (None, None, Vec::new());
        let held = None;
        self.calls.push(Call {
            leg,
            running: Some(running),
            head,
            body,
            read,
            held,
            began,
            deadline,
            taken,
            span,
        });
    }

    /// Ends a call and closes its connection.
    pub(super) fn cancel(&mut self, leg: Leg) {
        self.calls.retain(|call| call.leg != leg);
    }

    /// Reads the answer of a call to its end. With `keep` the bytes are kept for the event, otherwise they are dropped
    /// as they come.
    pub(super) fn read(&mut self, leg: Leg, keep: bool) {
        let Some(call) = self.calls.iter_mut().find(|call| call.leg == leg) else { return };
        let (body, deadline) = (call.body.take(), call.deadline);
        let mut held = keep.then(|| self.buffer.hold());
        call.running = Some(Box::pin(async move {
            let Some(mut body) = body else { return Step::Whole(Ok(Bytes::new()), None) };
            let read = within(deadline, whole(&mut body, held.as_mut())).await;
            Step::Whole(read.unwrap_or(Err(LegFailure::Timeout)), held)
        }));
    }

    /// Reads the beginning of the answer of a call.
    pub(super) fn peek(&mut self, leg: Leg, peek: Peek) {
        let Some(call) = self.calls.iter_mut().find(|call| call.leg == leg) else { return };
        let (body, deadline) = (call.body.take(), call.deadline);
        call.running = Some(Box::pin(async move {
            let Some(mut body) = body else {
                return Step::Peeked(Read { body: None }, Ok((Vec::new(), true)));
            };
            let read = within(deadline, beginning(&mut body, peek)).await.unwrap_or(Err(LegFailure::Timeout));
            Step::Peeked(Read { body: Some(body) }, read)
        }));
    }

    /// Returns true if a connection has accepted the whole body of a call, so that the server may have read it.
    pub(super) fn is_taken(&self, leg: Leg) -> bool {
        self.calls.iter().any(|call| call.leg == leg && call.taken.load(Relaxed))
    }

    /// Returns the next event of any of the calls.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Event> {
        for call in &mut self.calls {
            let Some(running) = &mut call.running else { continue };
            let Poll::Ready(step) = running.as_mut().poll(cx) else { continue };
            call.running = None;
            let (event, failed) = call.took(step);
            self.upstream.note(call.leg.stage(), &event, call.began.elapsed());
            if failed {
                let leg = call.leg;
                self.cancel(leg);
            }
            return Poll::Ready(event);
        }
        Poll::Pending
    }

    /// Takes the answer of a call: its head, the pieces that were read, and the rest of the body.
    pub(super) fn take(&mut self, leg: Leg) -> Option<(response::Parts, Vec<Bytes>, Option<Incoming>)> {
        let index = self.calls.iter().position(|call| call.leg == leg)?;
        let call = self.calls.remove(index);
        Some((call.head?, call.read, call.body))
    }

    /// Returns the calls that are still running. They go on beside the answer, and are only watched.
    pub(super) fn into_companions(self) -> Vec<Companion> {
        let upstream = self.upstream;
        let going = self.calls.into_iter().filter(|call| call.running.is_some());
        going.map(|call| Box::pin(watch(call, Arc::clone(&upstream))) as Companion).collect()
    }
}

impl Call {
    /// Turns the result of a step into an event. The second value is true if the call is over.
    fn took(&mut self, step: Step) -> (Event, bool) {
        let leg = self.leg;
        match step {
            Step::Head(Ok(response)) => {
                let (head, body) = response.into_parts();
                let status = head.status;
                self.span.attribute("llm_d.pd_proxy.status_code", i64::from(status.as_u16()));
                (self.head, self.body) = (Some(head), Some(body));
                (Event::Head(leg, status), false)
            }
            Step::Whole(Ok(bytes), held) => {
                (self.read, self.held) = (vec![bytes.clone()], held);
                (Event::Body(leg, bytes), false)
            }
            Step::Peeked(read, Ok((pieces, ended))) => {
                self.body = read.body.filter(|_| !ended);
                self.read = pieces;
                (Event::Peeked(leg, Bytes::from(self.read.concat()), ended), false)
            }
            Step::Head(Err(failure)) | Step::Whole(Err(failure), _) | Step::Peeked(_, Err(failure)) => {
                self.span.error(failure.text());
                (Event::Failed(leg, failure), true)
            }
        }
    }
}

async fn within<F: Future>(deadline: Option<Instant>, work: F) -> Option<F::Output> {
    match deadline {
        Some(deadline) => timeout_at(deadline, work).await.ok(),
        None => Some(work.await),
    }
}

async fn send(
    upstream: Arc<Upstream>,
    client: Arc<ClientHead>,
    (leg, call): (Leg, LegRequest),
    trace: Injected,
    taken: Arc<AtomicBool>,
) -> Result<Response<Incoming>, CallError> {
    let unusable =
        |error: &dyn std::fmt::Display| CallError { failure: LegFailure::Garbage, text: error.to_string() };
    let mut request = Request::new(match call.body {
        Some(pieces) => Outbound::whole(pieces, taken),
        None => Outbound::Empty,
    });
    *request.method_mut() =
        if matches!(request.body(), Outbound::Empty) { Method::GET } else { Method::POST };
    *request.uri_mut() = match call.path {
        Some(path) => Uri::from_static(path),
        None => client.uri.clone(),
    };
    let headers = request.headers_mut();
    if call.client_headers {
        *headers = for_another_body(&client.headers);
    } else if let Some(authorization) = client.headers.get(http::header::AUTHORIZATION) {
        headers.insert(http::header::AUTHORIZATION, authorization.clone());
    }
    if leg == Leg::Query {
        headers.clear();
    } else if !call.headers.iter().any(|(name, _)| *name == REQUEST_ID) {
        headers.insert(REQUEST_ID, client.id.clone());
    }
    if call.client_headers && leg != Leg::Decode {
        // The sidecar reads this answer itself, so the server must not compress it.
        headers.remove(http::header::ACCEPT_ENCODING);
    }
    for (name, value) in trace {
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(&name), HeaderValue::from_maybe_shared(value))
        {
            headers.insert(name, value);
        }
    }
    for (name, value) in call.headers {
        headers.insert(name, value);
    }
    let authority = match &call.to {
        Destination::Engine(rank) => upstream.engine(*rank),
        Destination::Server(target) => {
            Authority::try_from(target.to_string()).map_err(|error| unusable(&error))?
        }
    };
    upstream.call(leg, authority, request).await
}

/// The header with the id of a request.
pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

fn broken(error: &hyper::Error) -> LegFailure {
    if error.is_parse() { LegFailure::Garbage } else { LegFailure::Broken }
}

/// Reads a body to its end. Its bytes are kept in `held`; without it they are dropped as they come.
async fn whole(body: &mut Incoming, mut held: Option<&mut BodyMemory>) -> Result<Bytes, LegFailure> {
    let mut first: Option<Bytes> = None;
    let mut more: Option<BytesMut> = None;
    let mut length = 0;
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|error| broken(&error))?.into_data() else { continue };
        let Some(held) = &mut held else { continue };
        length += data.len();
        if length > ANSWER || held.take(data.len()).is_err() {
            return Err(LegFailure::Garbage);
        }
        match (&mut first, &mut more) {
            (None, _) => first = Some(data),
            (Some(_), Some(more)) => more.extend_from_slice(&data),
            (Some(first), None) => {
                let mut all = BytesMut::with_capacity(2 * length);
                all.extend_from_slice(first);
                all.extend_from_slice(&data);
                more = Some(all);
            }
        }
    }
    Ok(more.map(BytesMut::freeze).or(first).unwrap_or_default())
}

async fn beginning(body: &mut Incoming, peek: Peek) -> Result<(Vec<Bytes>, bool), LegFailure> {
    let (mut pieces, mut text) = (Vec::new(), Vec::new());
    let (mut events, mut looked) = (0, 0);
    loop {
        let Some(frame) = body.frame().await else { return Ok((pieces, true)) };
        let Ok(data) = frame.map_err(|error| broken(&error))?.into_data() else { continue };
        if data.is_empty() {
            continue;
        }
        text.extend_from_slice(&data);
        pieces.push(data);
        let enough = match peek {
            Peek::FirstByte => true,
            Peek::TwoEvents => {
                events += ends(&text, &mut looked);
                text.len() > BEGINNING || events >= 2
            }
        };
        if enough {
            return Ok((pieces, false));
        }
    }
}

/// Counts the events that ended in `text` after the position `looked`, and moves `looked` to the end of `text`.
fn ends(text: &[u8], looked: &mut usize) -> usize {
    let from = std::mem::replace(looked, text.len());
    let end_at = |end: usize| {
        let before = text.get(..end).unwrap_or_default();
        before.ends_with(b"\n\n") || before.ends_with(b"\r\n\r\n")
    };
    (from + 1..=text.len()).filter(|end| end_at(*end)).count()
}

/// The longest time for which a call is watched beside an answer.
const WATCHED: Duration = Duration::from_hours(1);

/// Reads a prefill call to its end beside the answer, and counts how it ended.
async fn watch(mut call: Call, upstream: Arc<Upstream>) {
    let deadline = call.deadline.or_else(|| call.began.checked_add(WATCHED));
    while let Some(running) = call.running.take() {
        let step = within(deadline, running).await.unwrap_or(Step::Head(Err(LegFailure::Timeout)));
        let (event, failed) = call.took(step);
        upstream.note(call.leg.stage(), &event, call.began.elapsed());
        match event {
            Event::Head(_, status) if status.is_success() => {
                if let Some(mut body) = call.body.take() {
                    call.running = Some(Box::pin(async move {
                        let read = whole(&mut body, None).await;
                        Step::Whole(read, None)
                    }));
                }
            }
            Event::Head(..) => upstream.late_failure(),
            _ if failed => upstream.late_failure(),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ends_of_events_are_found_once_wherever_pieces_end() {
        for (text, count) in [
            (&b"data: 1\n\ndata: 2\r\n\r\ndata: 3\n\n"[..], 3),
            (b"data: 1\n\n\n", 2),
            (b"\r\n", 0),
            (b"", 0),
        ] {
            for size in [1, 2, 3, 100] {
                let (mut held, mut looked, mut found) = (Vec::new(), 0, 0);
                for piece in text.chunks(size) {
                    held.extend_from_slice(piece);
                    found += ends(&held, &mut looked);
                }
                assert_eq!(found, count, "{text:?} by {size}");
            }
        }
    }
}
