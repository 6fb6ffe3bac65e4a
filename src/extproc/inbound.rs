//! Messages of the proxy, read from the body of its gRPC request.
//!
//! The library's own reader holds an unfinished message in a buffer that nobody counts. This one counts every byte of
//! it against the bound of all bodies, waits for its end only so long, and leaves no buffer behind.

use std::io::Read as _;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures_util::Stream;
use http_body::Body;
use prost::Message as _;
use prost::encoding::{WireType, decode_key, decode_varint};
use smallvec::SmallVec;
use tokio::time::Instant;
use tonic::Status;

use super::wire::ProcessingRequest;
use crate::director::{BodyBudget, Segments, Share};
use crate::request::ContentEncoding;
use crate::transport::LazyTimer;

/// Bytes before each gRPC message: a flag for compression, and the length.
const PREFIX: usize = 5;
/// Time from the first byte of a message to its last.
const UNFINISHED: Duration = Duration::from_secs(30);
/// Most bytes of a message beside the body that it carries.
const BESIDE_BODY: u64 = 1 << 20;
/// Most headers of a message. In memory each takes about 100 bytes beside its own, and on the wire two.
const MOST_HEADERS: u64 = 16_384;
/// Largest unfinished message of a request that is already being served for which there always is room: to refuse it
/// would break an answer.
const SERVED: usize = 1 << 20;

/// Why no further message can be read.
#[derive(Debug)]
pub(super) enum Broken {
    /// The bound of all bodies has no room for the unfinished message.
    Full,
    /// A message was not finished in time.
    Stalled,
    /// The proxy broke off, or what it sent cannot be read.
    Status(Status),
}

/// The messages of one stream.
pub(super) struct Messages<B> {
    body: B,
    gzip: bool,
    limit: usize,
    /// Bytes that came and that nobody has looked at yet.
    frame: Bytes,
    /// Beginning of the prefix of a message.
    prefix: SmallVec<[u8; 8]>,
    message: Option<Unfinished>,
    budget: Arc<BodyBudget>,
    serving: bool,
    timer: LazyTimer,
}

/// A message whose end has not come.
struct Unfinished {
    compressed: bool,
    length: usize,
    bytes: Segments,
    deadline: Instant,
}

impl<B> Messages<B> {
    /// Reads `body`, whose messages have at most `limit` bytes. With `gzip` they may be compressed.
    pub(super) fn new(body: B, gzip: bool, limit: usize, budget: Arc<BodyBudget>) -> Self {
        Self {
            body,
            gzip,
            limit,
            frame: Bytes::new(),
            prefix: SmallVec::new(),
            message: None,
            budget,
            serving: false,
            timer: LazyTimer::default(),
        }
    }

    /// From now on the request is being served.
    pub(super) fn serving(&mut self) {
        self.serving = true;
    }

    /// The next message out of what has come; `None` if its end has not.
    fn next_message(&mut self) -> Result<Option<ProcessingRequest>, Broken> {
        if self.message.is_none() {
            let Some((compressed, length)) = self.read_prefix()? else { return Ok(None) };
            if self.frame.len() >= length {
                let bytes = self.frame.split_to(length);
                // What waits for the rest of a body must not hold on to the buffer of the connection.
                let bytes = if self.serving || compressed { bytes } else { Bytes::copy_from_slice(&bytes) };
                return self.decode(bytes, compressed).map(Some);
            }
            let mut bytes = Segments::new(Share::new(Arc::clone(&self.budget)));
            bytes.expect(length as u64);
            if self.serving && length <= SERVED {
                bytes.share().grow_beyond(length as u64);
                bytes.counted();
            }
            self.message =
                Some(Unfinished { compressed, length, bytes, deadline: Instant::now() + UNFINISHED });
        }
        let Some(message) = &mut self.message else { return Ok(None) };
        let missing = message.length - message.bytes.length();
        let now = self.frame.split_to(missing.min(self.frame.len()));
        message.bytes.push_copy(&now).map_err(|_| Broken::Full)?;
        if message.bytes.length() < message.length {
            return Ok(None);
        }
        let compressed = message.compressed;
        // From here on the body buffer counts it.
        let bytes = message.bytes.take();
        self.message = None;
        self.decode(bytes, compressed).map(Some)
    }

    /// Says whether the next message is compressed, and its length, once the prefix is complete.
    fn read_prefix(&mut self) -> Result<Option<(bool, usize)>, Broken> {
        let missing = PREFIX - self.prefix.len();
        let now = self.frame.split_to(missing.min(self.frame.len()));
        self.prefix.extend_from_slice(&now);
        let &[flag, a, b, c, d] = self.prefix.as_slice() else { return Ok(None) };
        self.prefix.clear();
        let length = u32::from_be_bytes([a, b, c, d]) as usize;
        if length > self.limit {
            let text = format!("a message has {length} bytes, the limit is {} bytes", self.limit);
            return Err(Broken::Status(Status::out_of_range(text)));
        }
        match flag {
            0 => Ok(Some((false, length))),
            1 if self.gzip => Ok(Some((true, length))),
            1 => {
                let text = "a message is compressed, but grpc-encoding names no compression";
                Err(Broken::Status(Status::internal(text)))
            }
            _ => {
                let text = format!("a message has the compression flag {flag}, expected 0 or 1");
                Err(Broken::Status(Status::internal(text)))
            }
        }
    }

    fn decode(&self, bytes: Bytes, compressed: bool) -> Result<ProcessingRequest, Broken> {
        let bytes = if compressed { self.inflate(&bytes)? } else { bytes };
        let beside = beside_body(&bytes).unwrap_or(u64::MAX);
        if beside > BESIDE_BODY {
            let text = format!("a message has more than {BESIDE_BODY} bytes beside the body that it carries");
            return Err(Broken::Status(Status::out_of_range(text)));
        }
        // Fewer bytes cannot hold so many.
        if beside > 2 * MOST_HEADERS && headers(&bytes) > MOST_HEADERS {
            let text = format!("a message has more than {MOST_HEADERS} headers");
            return Err(Broken::Status(Status::out_of_range(text)));
        }
        ProcessingRequest::decode(bytes)
            .map_err(|error| Broken::Status(Status::internal(format!("a message cannot be read: {error}"))))
    }

    fn inflate(&self, bytes: &[u8]) -> Result<Bytes, Broken> {
        let mut plain = Vec::new();
        // A bomb would take a thread's time, and memory that is not counted yet.
        let most = ContentEncoding::most(bytes.len(), self.limit);
        let limit = (most as u64).saturating_add(1);
        let read = flate2::read::GzDecoder::new(bytes).take(limit).read_to_end(&mut plain);
        if let Err(error) = read {
            return Err(Broken::Status(Status::internal(format!(
                "a message cannot be decompressed: {error}"
            ))));
        }
        if plain.len() > most {
            let text = format!("a compressed message has more than {most} bytes");
            return Err(Broken::Status(Status::resource_exhausted(text)));
        }
        plain.shrink_to_fit();
        Ok(plain.into())
    }

    /// True if the message that is being received takes too long.
    fn poll_stalled(&mut self, cx: &mut Context<'_>) -> bool {
        self.message.as_ref().is_some_and(|message| self.timer.poll(message.deadline, cx).is_ready())
    }
}

/// Calls `each` with the number and the bytes of every field of a message. `None` if it is no message.
fn fields<'m>(mut bytes: &'m [u8], mut each: impl FnMut(u32, &'m [u8])) -> Option<()> {
    while !bytes.is_empty() {
        let (field, kind) = decode_key(&mut bytes).ok()?;
        let length = match kind {
            WireType::Varint => decode_varint(&mut bytes).map(|_| 0).ok()?,
            WireType::ThirtyTwoBit => 4,
            WireType::SixtyFourBit => 8,
            WireType::LengthDelimited => decode_varint(&mut bytes).ok()?,
            WireType::StartGroup | WireType::EndGroup => return None,
        };
        let (value, rest) = bytes.split_at_checked(usize::try_from(length).ok()?)?;
        each(field, value);
        bytes = rest;
    }
    Some(())
}

/// Bytes of a message that do not belong to the body it carries. `None` if it is no message.
fn beside_body(bytes: &[u8]) -> Option<u64> {
    /// Fields with a piece of the request's or the response's body.
    const BODIES: [u32; 2] = [4, 5];
    let mut bodies = 0;
    fields(bytes, |field, value| {
        if BODIES.contains(&field) {
            bodies += value.len() as u64;
        }
    })?;
    Some(bytes.len() as u64 - bodies)
}

/// Number of headers and trailers in a message.
fn headers(bytes: &[u8]) -> u64 {
    /// Fields with headers or trailers of the request or the response: their field 1 is a map, whose field 1 are the
    /// headers.
    const HEADERS: [u32; 4] = [2, 3, 6, 7];
    let mut count = 0;
    let mut in_map = |field, _: &[u8]| count += u64::from(field == 1);
    let mut in_list = |field, map| {
        if field == 1 {
            // What is no message is told when it is decoded.
            let _ = fields(map, &mut in_map);
        }
    };
    let _ = fields(bytes, |field, list| {
        if HEADERS.contains(&field) {
            let _ = fields(list, &mut in_list);
        }
    });
    count
}

impl<B> Stream for Messages<B>
where
    B: Body<Data = Bytes, Error = Status> + Unpin,
{
    type Item = Result<ProcessingRequest, Broken>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        loop {
            match this.next_message() {
                Ok(Some(message)) => return Poll::Ready(Some(Ok(message))),
                Ok(None) => {}
                Err(broken) => return Poll::Ready(Some(Err(broken))),
            }
            let frame = match Pin::new(&mut this.body).poll_frame(cx) {
                Poll::Pending if this.poll_stalled(cx) => return Poll::Ready(Some(Err(Broken::Stalled))),
                polled => ready!(polled),
            };
            match frame {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => this.frame = data,
                    // Trailers end the messages.
                    Err(_) => return Poll::Ready(this.end()),
                },
                Some(Err(status)) if status.code() == tonic::Code::Cancelled => return Poll::Ready(None),
                Some(Err(status)) => return Poll::Ready(Some(Err(Broken::Status(status)))),
                None => return Poll::Ready(this.end()),
            }
        }
    }
}

impl<B> Messages<B> {
    fn end(&mut self) -> Option<Result<ProcessingRequest, Broken>> {
        let cut = self.message.take().is_some() || !self.prefix.is_empty();
        cut.then(|| Err(Broken::Status(Status::internal("the stream ended within a message"))))
    }
}

#[cfg(test)]
#[path = "inbound_tests.rs"]
mod tests;
