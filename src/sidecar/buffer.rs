//! Reads the bodies of requests that are split, in bounded memory, before any call is sent.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::StatusCode;
use http_body::Body;
use http_body_util::BodyExt as _;
use tokio::time::{Instant, timeout_at};

use super::outcome::FailReason;
use crate::metrics::{Direction, SidecarMetrics};

/// The longest wait for the next piece of a body.
const SILENCE: Duration = Duration::from_secs(30);
/// The longest time that a whole body may take.
const WHOLE: Duration = Duration::from_mins(2);

/// The memory for bodies. Clones share the memory.
#[derive(Clone, Debug)]
pub(super) struct Buffer {
    bytes: usize,
    used: Arc<AtomicUsize>,
    metrics: SidecarMetrics,
}

/// Why a body was not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum NotRead {
    /// The body is longer than this many bytes.
    #[error("the body is longer than {0} bytes")]
    TooLong(usize),
    /// The bodies of other requests fill the memory.
    #[error("too many bodies are being read at once")]
    Full,
    /// The client's connection broke.
    #[error("the body broke off")]
    Broken,
    /// The client sends nothing more, or sends too slowly.
    #[error("the body did not come in time: {SILENCE:?} for a piece, {WHOLE:?} for all")]
    Late,
}

impl NotRead {
    /// The reason that the counters name.
    pub(super) fn reason(self) -> FailReason {
        match self {
            Self::TooLong(_) | Self::Full => FailReason::TooLarge,
            Self::Broken | Self::Late => FailReason::ClientGone,
        }
    }

    /// The HTTP status that the client gets.
    pub(super) fn status(self) -> StatusCode {
        match self {
            Self::TooLong(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Full => StatusCode::SERVICE_UNAVAILABLE,
            Self::Broken => StatusCode::BAD_REQUEST,
            Self::Late => StatusCode::REQUEST_TIMEOUT,
        }
    }
}

/// The part of the memory that one body uses. Dropping it gives the memory back.
#[derive(Debug)]
pub(super) struct BodyMemory {
    buffer: Buffer,
    bytes: usize,
}

impl Buffer {
    /// Makes a memory of `bytes` bytes.
    pub(super) fn new(bytes: usize, metrics: &SidecarMetrics) -> Self {
        Self { bytes, used: Arc::default(), metrics: metrics.clone() }
    }

    /// Memory of the buffer, of which nothing is taken yet.
    pub(super) fn hold(&self) -> BodyMemory {
        BodyMemory { buffer: self.clone(), bytes: 0 }
    }

    /// Reads a body of at most `longest` bytes into one piece. The second value must live as long as the bytes.
    ///
    /// # Errors
    ///
    /// Returns why the body was not read; see `NotRead`.
    pub(super) async fn read<B>(&self, mut body: B, longest: usize) -> Result<(Bytes, BodyMemory), NotRead>
    where
        B: Body<Data = Bytes> + Unpin,
    {
        let announced =
            body.size_hint().exact().map_or(0, |bytes| usize::try_from(bytes).unwrap_or(usize::MAX));
        if announced > longest {
            return Err(NotRead::TooLong(longest));
        }
        let mut held = self.hold();
        let mut first: Option<Bytes> = None;
        let mut all: Option<BytesMut> = None;
        let end = Instant::now() + WHOLE;
        loop {
            // Each wait is bounded, because all requests share the memory that this body fills.
            let next = end.min(Instant::now() + SILENCE);
            let frame = timeout_at(next, body.frame()).await.map_err(|_| NotRead::Late)?;
            let Some(frame) = frame else { break };
            let Ok(data) = frame.map_err(|_| NotRead::Broken)?.into_data() else { continue };
            held.take(data.len())?;
            self.metrics.bytes(Direction::Request, data.len());
            if held.bytes > longest {
                return Err(NotRead::TooLong(longest));
            }
            match (&mut first, &mut all) {
                (None, _) => first = Some(data),
                (Some(_), Some(all)) => all.extend_from_slice(&data),
                (Some(start), None) => {
                    let mut joined = BytesMut::with_capacity(announced.max(2 * held.bytes).min(longest));
                    joined.extend_from_slice(start);
                    joined.extend_from_slice(&data);
                    all = Some(joined);
                }
            }
        }
        Ok((all.map(BytesMut::freeze).or(first).unwrap_or_default(), held))
    }
}

impl BodyMemory {
    /// Takes `bytes` more of the memory until this value is dropped. Fails if the memory has no room for them.
    pub(super) fn take(&mut self, bytes: usize) -> Result<(), NotRead> {
        self.bytes += bytes;
        self.buffer.metrics.buffered(i64::try_from(bytes).unwrap_or(0));
        let used = self.buffer.used.fetch_add(bytes, Relaxed) + bytes;
        if used > self.buffer.bytes { Err(NotRead::Full) } else { Ok(()) }
    }
}

impl Drop for BodyMemory {
    fn drop(&mut self) {
        self.buffer.used.fetch_sub(self.bytes, Relaxed);
        self.buffer.metrics.buffered(-i64::try_from(self.bytes).unwrap_or(0));
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::future::Future as _;
    use std::pin::Pin;
    use std::task::{Context, Poll};

    use http_body::Frame;
    use tokio::time::{Sleep, sleep};

    use super::*;

    /// A body that sends `pieces` pieces of 1000 bytes, each after a pause, and then never ends.
    struct Slow {
        pieces: usize,
        pause: Duration,
        timer: Pin<Box<Sleep>>,
    }

    impl Body for Slow {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            if self.pieces == 0 || self.timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            self.pieces -= 1;
            let next = Instant::now() + self.pause;
            self.timer.as_mut().reset(next);
            Poll::Ready(Some(Ok(Frame::data(Bytes::from(vec![b' '; 1000])))))
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_stops_or_trickles_gives_its_memory_back() {
        let buffer = Buffer::new(1 << 20, &SidecarMetrics::new(&[], std::iter::empty()));
        for (pieces, pause, least) in [(3, 1, SILENCE), (100_000, 10, WHOLE)] {
            let pause = Duration::from_secs(pause);
            let begun = Instant::now();
            let body = Slow { pieces, pause, timer: Box::pin(sleep(pause)) };
            assert_eq!(buffer.read(body, 1 << 20).await.unwrap_err(), NotRead::Late);
            let taken = begun.elapsed();
            assert!(taken >= least && taken <= WHOLE, "{taken:?}");
            assert_eq!(buffer.used.load(Relaxed), 0);
        }
    }
}
