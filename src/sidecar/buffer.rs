//! Bodies of requests that are split are read before anything is sent, in bounded memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use bytes::{Bytes, BytesMut};
use http::StatusCode;
use http_body::Body as _;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;

use super::outcome::FailReason;
use crate::metrics::{Direction, SidecarMetrics};

/// Memory for bodies. Clones share it.
#[derive(Clone, Debug)]
pub(super) struct Buffer {
    bytes: usize,
    used: Arc<AtomicUsize>,
    metrics: SidecarMetrics,
}

/// Why a body is not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum NotRead {
    /// It is too long.
    #[error("the body is longer than {0} bytes")]
    TooLong(usize),
    /// Others fill the memory.
    #[error("too many bodies are being read at once")]
    Full,
    /// The client broke off.
    #[error("the body broke off")]
    Broken,
}

impl NotRead {
    /// What counters tell.
    pub(super) fn reason(self) -> FailReason {
        match self {
            Self::TooLong(_) | Self::Full => FailReason::TooLarge,
            Self::Broken => FailReason::ClientGone,
        }
    }

    /// What the client is told.
    pub(super) fn status(self) -> StatusCode {
        match self {
            Self::TooLong(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Full => StatusCode::SERVICE_UNAVAILABLE,
            Self::Broken => StatusCode::BAD_REQUEST,
        }
    }
}

/// Memory that a body holds.
#[derive(Debug)]
pub(super) struct Held {
    buffer: Buffer,
    bytes: usize,
}

impl Buffer {
    /// Memory of this many bytes.
    pub(super) fn new(bytes: usize, metrics: &SidecarMetrics) -> Self {
        Self { bytes, used: Arc::default(), metrics: metrics.clone() }
    }

    /// Reads a body of at most `longest` bytes into one piece.
    pub(super) async fn read(&self, mut body: Incoming, longest: usize) -> Result<(Bytes, Held), NotRead> {
        let announced =
            body.size_hint().exact().map_or(0, |bytes| usize::try_from(bytes).unwrap_or(usize::MAX));
        if announced > longest {
            return Err(NotRead::TooLong(longest));
        }
        let mut held = Held { buffer: self.clone(), bytes: 0 };
        let mut first: Option<Bytes> = None;
        let mut all: Option<BytesMut> = None;
        while let Some(frame) = body.frame().await {
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

impl Held {
    fn take(&mut self, bytes: usize) -> Result<(), NotRead> {
        self.bytes += bytes;
        self.buffer.metrics.buffered(i64::try_from(bytes).unwrap_or(0));
        let used = self.buffer.used.fetch_add(bytes, Relaxed) + bytes;
        if used > self.buffer.bytes { Err(NotRead::Full) } else { Ok(()) }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.buffer.used.fetch_sub(self.bytes, Relaxed);
        self.buffer.metrics.buffered(-i64::try_from(self.bytes).unwrap_or(0));
    }
}
