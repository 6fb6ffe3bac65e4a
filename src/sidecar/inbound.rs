//! The bodies of answers on their way to the client.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::sync::mpsc::Receiver;

use super::companion::Companions;
use super::outbound::BodyError;
use super::outcome::Verdict;
use crate::metrics::{Direction, SidecarInFlight, SidecarMetrics};
use crate::request::CachedTokens;
use crate::telemetry::Span;

/// The body of an answer to the client.
#[derive(Debug)]
pub(super) struct Answer {
    /// Pieces that the client gets before `rest`.
    ready: VecDeque<Bytes>,
    rest: Rest,
    /// Bytes that follow the last ones of the rest.
    tail: Bytes,
    rewrite: Option<Box<CachedTokens>>,
    companions: Companions,
    verdict: Option<Verdict>,
    counted: Option<Counted>,
    /// The span of the request, which ends when this body is dropped.
    span: Span,
}

#[derive(Debug)]
enum Rest {
    Nothing,
    Server(Incoming),
    Pieces { pieces: Receiver<Bytes>, _task: AbortOnDrop },
}

/// Counts the bytes of an answer and the request as in flight.
#[derive(Debug)]
struct Counted {
    metrics: SidecarMetrics,
    _in_flight: Option<SidecarInFlight>,
}

/// Aborts a task when this value is dropped.
#[derive(Debug)]
pub(super) struct AbortOnDrop(pub tokio::task::AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Answer {
    /// Makes a body from bytes that are complete.
    pub(super) fn whole(body: Bytes) -> Self {
        let ready = (!body.is_empty()).then_some(body).into_iter().collect();
        Self {
            ready,
            rest: Rest::Nothing,
            tail: Bytes::new(),
            rewrite: None,
            companions: Companions::default(),
            verdict: None,
            counted: None,
            span: Span::off(),
        }
    }

    /// Makes a body from a server's answer: the pieces that were read already, then the rest of the server's body.
    pub(super) fn relayed(read: Vec<Bytes>, rest: Option<Incoming>) -> Self {
        let ready = read.into_iter().filter(|piece| !piece.is_empty()).collect();
        let rest = rest.map_or(Rest::Nothing, Rest::Server);
        Self {
            ready,
            rest,
            tail: Bytes::new(),
            rewrite: None,
            companions: Companions::default(),
            verdict: None,
            counted: None,
            span: Span::off(),
        }
    }

    /// Makes a body from the pieces that a task sends.
    pub(super) fn pieces(pieces: Receiver<Bytes>, task: AbortOnDrop) -> Self {
        Self {
            ready: VecDeque::new(),
            rest: Rest::Pieces { pieces, _task: task },
            tail: Bytes::new(),
            rewrite: None,
            companions: Companions::default(),
            verdict: None,
            counted: None,
            span: Span::off(),
        }
    }

    /// Replaces the count of cached tokens in the body with that of `rewrite`. The pieces that were read before are
    /// rewritten too.
    #[must_use]
    pub(super) fn rewritten(mut self, mut rewrite: CachedTokens) -> Self {
        let read = std::mem::take(&mut self.ready);
        self.ready = read.iter().flat_map(|piece| rewrite.feed(piece)).collect();
        self.rewrite = Some(Box::new(rewrite));
        self
    }

    /// The same answer with `tail` behind its last byte.
    #[must_use]
    pub(super) fn followed_by(mut self, tail: Bytes) -> Self {
        self.tail = tail;
        self
    }

    /// Lets `companions` run on while the body is sent.
    #[must_use]
    pub(super) fn with_companions(mut self, companions: Companions) -> Self {
        self.companions = companions;
        self
    }

    /// Ends `span` when the body is dropped.
    #[must_use]
    pub(super) fn traced(mut self, span: Span) -> Self {
        drop(std::mem::replace(&mut self.span, span));
        self
    }

    /// Gives `verdict` the outcome of the request when the body has ended.
    #[must_use]
    pub(super) fn judged(mut self, verdict: Verdict) -> Self {
        self.verdict = Some(verdict);
        self
    }

    /// Marks the answer as complete.
    fn ended(&mut self) {
        self.companions.go_on();
        if let Some(verdict) = &mut self.verdict {
            verdict.ended();
        }
    }

    /// Returns true if the client has got the whole answer.
    fn is_complete(&self) -> bool {
        let rest = match &self.rest {
            Rest::Nothing => true,
            Rest::Server(body) => body.is_end_stream(),
            Rest::Pieces { .. } => false,
        };
        self.ready.is_empty() && self.tail.is_empty() && self.rewrite.is_none() && rest
    }

    /// Counts the bytes of the body, and the request as in flight until the body is dropped.
    #[must_use]
    pub(super) fn counted(mut self, metrics: &SidecarMetrics, in_flight: Option<SidecarInFlight>) -> Self {
        self.counted = Some(Counted { metrics: metrics.clone(), _in_flight: in_flight });
        self
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        loop {
            if let Some(piece) = self.ready.pop_front() {
                return Poll::Ready(Some(Ok(Frame::data(piece))));
            }
            let frame = match &mut self.rest {
                Rest::Nothing => None,
                Rest::Server(body) => match Pin::new(body).poll_frame(cx) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(Some(Err(error))) => {
                        self.companions.give_up();
                        if let Some(verdict) = &mut self.verdict {
                            verdict.broken();
                        }
                        return Poll::Ready(Some(Err(error.into())));
                    }
                    Poll::Ready(Some(Ok(frame))) => Some(frame),
                    Poll::Ready(None) => None,
                },
                Rest::Pieces { pieces, .. } => match pieces.poll_recv(cx) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(piece) => piece.map(Frame::data),
                },
            };
            let Some(frame) = frame else {
                self.rest = Rest::Nothing;
                if let Some(mut rewrite) = self.rewrite.take() {
                    self.ready.extend(rewrite.finish());
                    continue;
                }
                if !self.tail.is_empty() {
                    return Poll::Ready(Some(Ok(Frame::data(std::mem::take(&mut self.tail)))));
                }
                self.ended();
                return Poll::Ready(None);
            };
            let Some(rewrite) = &mut self.rewrite else { return Poll::Ready(Some(Ok(frame))) };
            match frame.into_data() {
                Ok(data) => self.ready.extend(rewrite.feed(&data)),
                Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
            }
        }
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        // hyper does not poll a body of known length again after its last byte, so the end is noticed here.
        if self.is_complete() {
            self.ended();
        }
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        this.companions.poll(cx);
        let polled = this.poll(cx);
        if let (Some(counted), Poll::Ready(Some(Ok(frame)))) = (&this.counted, &polled) {
            let bytes = frame.data_ref().map_or(0, Bytes::len);
            counted.metrics.bytes(Direction::Response, bytes);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.companions.is_empty() && self.is_complete()
    }

    fn size_hint(&self) -> SizeHint {
        let ready: u64 = self.ready.iter().chain([&self.tail]).map(|piece| piece.len() as u64).sum();
        match &self.rest {
            _ if self.rewrite.is_some() => SizeHint::default(),
            Rest::Nothing => SizeHint::with_exact(ready),
            Rest::Server(body) => {
                let mut hint = body.size_hint();
                if let Some(upper) = hint.upper() {
                    hint.set_upper(upper + ready);
                }
                hint.set_lower(hint.lower() + ready);
                hint
            }
            Rest::Pieces { .. } => SizeHint::default(),
        }
    }
}
