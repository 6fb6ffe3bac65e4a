//! The bodies of calls on their way to a server.

use std::collections::VecDeque;
use std::future::Future as _;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::sync::Notify;
use tokio::sync::futures::OwnedNotified;
use tokio::time::{Sleep, sleep};

use super::bodies::Pieces;
use crate::request::Blanker;

/// How long a body is held back for a server that was asked to confirm it with `100 Continue`.
const CONTINUE: Duration = Duration::from_secs(1);

/// Why a body broke off.
pub(super) type BodyError = Box<dyn std::error::Error + Send + Sync>;

/// The body of a call.
#[derive(Debug)]
pub(super) enum Outbound {
    /// A call without a body.
    Empty,
    /// A body that is complete in memory.
    Whole(Whole),
    /// The client's body, forwarded as it comes.
    Passing(Box<Passing>),
}

/// A body that is complete in memory.
#[derive(Debug)]
pub(super) struct Whole {
    pieces: VecDeque<Bytes>,
    left: u64,
    taken: Arc<AtomicBool>,
}

impl Outbound {
    /// Makes a body of these pieces. `taken` becomes true when the connection has accepted the last piece.
    pub(super) fn whole(pieces: Pieces, taken: Arc<AtomicBool>) -> Self {
        let left = pieces.iter().map(|piece| piece.len() as u64).sum();
        Self::Whole(Whole {
            pieces: pieces.into_iter().filter(|piece| !piece.is_empty()).collect(),
            left,
            taken,
        })
    }

    /// Makes a body that forwards the client's body. The blanker overwrites members that clients may not set. The gate
    /// holds the body back until the server asks for it.
    pub(super) fn passing(body: Incoming, blanker: Option<Blanker>, gate: Option<Gate>) -> Self {
        Self::Passing(Box::new(Passing { body, blanker, gate, ready: VecDeque::new(), ended: false }))
    }
}

/// The client's body while it is forwarded.
#[derive(Debug)]
pub(super) struct Passing {
    body: Incoming,
    blanker: Option<Blanker>,
    gate: Option<Gate>,
    ready: VecDeque<Bytes>,
    ended: bool,
}

/// Holds a body back until the server has asked for it, or has not answered for one second.
#[derive(Debug)]
pub(super) struct Gate {
    opened: Pin<Box<OwnedNotified>>,
    timer: Pin<Box<Sleep>>,
}

impl Gate {
    /// Makes a gate, and the notification that opens it.
    pub(super) fn new() -> (Self, Arc<Notify>) {
        let opener = Arc::new(Notify::new());
        let opened = Box::pin(Arc::clone(&opener).notified_owned());
        (Self { opened, timer: Box::pin(sleep(CONTINUE)) }, opener)
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.opened.as_mut().poll(cx).is_ready() || self.timer.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        Poll::Pending
    }
}

impl Passing {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(gate) = &mut self.gate {
            if gate.poll(cx).is_pending() {
                return Poll::Pending;
            }
            self.gate = None;
        }
        loop {
            if let Some(piece) = self.ready.pop_front() {
                return Poll::Ready(Some(Ok(Frame::data(piece))));
            }
            if self.ended {
                return Poll::Ready(None);
            }
            let frame = match Pin::new(&mut self.body).poll_frame(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Some(Err(error.into()))),
                Poll::Ready(Some(Ok(frame))) => frame,
                Poll::Ready(None) => {
                    self.ended = true;
                    self.ready.extend(self.blanker.as_mut().and_then(Blanker::finish));
                    continue;
                }
            };
            let Some(blanker) = &mut self.blanker else { return Poll::Ready(Some(Ok(frame))) };
            match frame.into_data() {
                Ok(data) => match blanker.feed(&data) {
                    Ok(pieces) => self.ready.extend(pieces),
                    Err(error) => return Poll::Ready(Some(Err(error.into()))),
                },
                // Bytes that the blanker holds back are lost before trailers. They belong to a body that ends in the
                // middle of a JSON value.
                Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
            }
        }
    }
}

impl Body for Outbound {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.get_mut() {
            Self::Empty => Poll::Ready(None),
            Self::Whole(whole) => {
                let piece = whole.pieces.pop_front();
                whole.left -= piece.as_ref().map_or(0, |piece| piece.len() as u64);
                if whole.pieces.is_empty() {
                    whole.taken.store(true, Relaxed);
                }
                Poll::Ready(piece.map(|piece| Ok(Frame::data(piece))))
            }
            Self::Passing(passing) => passing.poll(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Whole(whole) => whole.pieces.is_empty(),
            Self::Passing(passing) => {
                passing.gate.is_none()
                    && passing.ready.is_empty()
                    && passing.body.is_end_stream()
                    && passing.blanker.is_none()
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Whole(whole) => SizeHint::with_exact(whole.left),
            // Blanking keeps the length of the body.
            Self::Passing(passing) => passing.body.size_hint(),
        }
    }
}
