//! Reading a body: its content-encoding is taken off, it is parsed, and while the request waits nothing is kept that
//! can be read again.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::names::MODEL_REWRITE;
use super::{BodyBudget, BodySeen, Director, NoRoom, Reason, Refusal, Segments, Share};
use crate::request::{self, ContentEncoding, DecodeError, Encoded, Headers, Inference, ParserKind, Unread};

/// Bodies up to this many bytes are decoded where they are; larger ones on a thread for such work.
const DECODED_IN_PLACE: usize = 16 << 10;
/// Longest wait for a decoder.
const DECODER_WAIT: Duration = Duration::from_secs(10);
/// Most bytes that a body is decoded to where bodies have no bound.
const DEFAULT_DECODED: usize = 64 << 20;
/// Assumed ratio of the decoded length to the encoded one, until the body is decoded.
const LIKELY_RATIO: usize = 4;
/// While a request waits, what was read of it is kept if it takes no more than this and an eighth of the body.
const KEPT_WHILE_WAITING: usize = 1024;

/// A body before it is read.
#[derive(Clone, Copy)]
pub(super) struct Unparsed<'a> {
    pub(super) path: &'a str,
    pub(super) headers: &'a Headers,
    pub(super) body: &'a Bytes,
    pub(super) seen: BodySeen,
}

/// A body as it was read.
pub(super) struct RequestBody {
    pub(super) kind: Option<ParserKind>,
    pub(super) inference: Inference,
    /// The body without its content-encoding: what `inference` was read from.
    pub(super) plain: Bytes,
    /// Counts the plain body, if an encoding was taken off.
    pub(super) decoded: Option<Share>,
    /// Only the beginning was seen.
    pub(super) cut: bool,
}

impl RequestBody {
    fn unread(kind: Option<ParserKind>, body: &Bytes, unread: Option<Unread>) -> Self {
        let inference = Inference { unread, ..Inference::opaque() };
        Self { kind, inference, plain: body.clone(), decoded: None, cut: false }
    }

    /// The request begins to wait. True if what was read was let go of, so that the body that came has to be read
    /// again.
    pub(super) fn let_go(&mut self, came: &Bytes) -> bool {
        let heavy = self.inference.held_bytes() > KEPT_WHILE_WAITING + came.len() / 8;
        let goes = heavy || self.decoded.is_some();
        if goes {
            *self = Self::unread(self.kind, &Bytes::new(), None);
        }
        goes
    }
}

/// A body without its content-encoding.
struct Plain {
    body: Bytes,
    /// Counts it, if an encoding was taken off.
    decoded: Option<Share>,
    /// Only the beginning could be decoded.
    cut: bool,
}

impl Director {
    /// Reads what the body asks for. A body that is not there whole cannot be at fault.
    pub(super) async fn read(&self, call: Unparsed<'_>) -> Result<RequestBody, Refusal> {
        let Unparsed { path, headers, body, seen } = call;
        let kind = self.paths.resolve(path);
        if matches!(seen, BodySeen::None | BodySeen::Unseen) {
            return Ok(RequestBody::unread(kind, body, None));
        }
        let Some(known) = kind else {
            let text = format!("no parser registered matching path suffix for: {}", request::cut(path, 512));
            return Err(Refusal::new(Reason::NoParser, text));
        };
        let plain = match request::content_encoding(headers) {
            Encoded::Plain => Ok(Plain { body: body.clone(), decoded: None, cut: false }),
            Encoded::By(encoding) => match self.decode(encoding, body, seen == BodySeen::Part).await {
                Ok(plain) => Ok(plain),
                Err(Undecoded::Window) => {
                    return Ok(RequestBody::unread(kind, body, Some(Unread::Window)));
                }
                // Nothing can ask for another model, so nothing has to be read.
                Err(Undecoded::Busy) if !self.may_rewrite(headers) => {
                    return Ok(RequestBody::unread(kind, body, Some(Unread::Busy)));
                }
                Err(Undecoded::Busy) => {
                    Err(Refusal::new(Reason::DecodersBusy, "too many compressed request bodies at once"))
                }
                Err(Undecoded::Refused(refusal)) => Err(refusal),
            },
            Encoded::Unknown(_) => return Ok(RequestBody::unread(kind, body, Some(Unread::Encoding))),
        };
        let Plain { body: plain, decoded, cut } = plain?;
        let content_type = headers.get("content-type").map(Bytes::as_ref).unwrap_or_default();
        let read = self.timed_read(known, path, content_type, &plain);
        // A part of a body that cannot be read is no fault of the client's.
        if seen == BodySeen::Part {
            let (mut inference, mut is_cut) = request::beginning(read, content_type, &plain);
            if cut {
                is_cut = true;
                // What follows is compressed, and cannot follow a part that is not.
                inference = Inference { insert_at: None, ..inference };
            }
            return Ok(RequestBody { kind, inference, plain, decoded, cut: is_cut });
        }
        let inference = read.map_err(|error| Refusal::new(Reason::InvalidBody, error.to_string()))?;
        Ok(RequestBody { kind, inference, plain, decoded, cut: false })
    }

    /// Counts what was not understood.
    pub(super) fn note_unread(&self, read: &RequestBody, path: &str) {
        let Some(unread) = read.inference.unread else { return };
        let api = read.kind.map_or(request::Api::Opaque, |kind| request::api_of(kind, path));
        self.extproc.unread_body(api.label(), unread.label());
        tracing::debug!(api = api.label(), %unread, "a body was not understood and goes on as it came");
    }

    fn timed_read(
        &self,
        kind: ParserKind,
        path: &str,
        content_type: &[u8],
        body: &Bytes,
    ) -> Result<Inference, request::ParseError> {
        let read = || request::read(kind, path, content_type, body);
        match self.parser(kind) {
            Some(parser) => parser.request_timer.time(read),
            None => read(),
        }
    }

    /// True if the pool has rules for models, or the client asks for one.
    fn may_rewrite(&self, headers: &Headers) -> bool {
        let asked = self.parts.settings.model_rewrite_header
            && MODEL_REWRITE.value(headers).is_some_and(|model| !model.is_empty());
        asked || !self.parts.pool.rewrites().is_empty()
    }

    /// Takes an encoding off; of a `part` as far as it goes.
    async fn decode(&self, encoding: ContentEncoding, body: &Bytes, part: bool) -> Result<Plain, Undecoded> {
        let limit = match usize::try_from(self.parts.settings.body_limit) {
            Ok(0) => DEFAULT_DECODED,
            Ok(limit) => limit,
            Err(_) => usize::MAX,
        };
        let budget = Arc::clone(&self.parts.budget);
        if body.len() <= DECODED_IN_PLACE {
            return Plain::decode(encoding, body, limit, part, &budget);
        }
        let free = tokio::time::timeout(DECODER_WAIT, Arc::clone(&self.decoders).acquire_owned());
        let decoder = free.await.map_err(|_| Undecoded::Busy)?.map_err(|_| Undecoded::Busy)?;
        let body = body.clone();
        let decoded = tokio::task::spawn_blocking(move || {
            let decoded = Plain::decode(encoding, &body, limit, part, &budget);
            // The decoder is free, whatever becomes of the body.
            drop(decoder);
            decoded
        });
        decoded.await.map_err(|_| {
            let text = format!("content-encoding {}: the body cannot be decoded", encoding.name());
            Undecoded::Refused(Refusal::new(Reason::InvalidBody, text))
        })?
    }
}

impl Plain {
    /// Takes an encoding off a body. The budget counts the result as it grows, and beside it what the decoder holds.
    fn decode(
        encoding: ContentEncoding,
        body: &[u8],
        limit: usize,
        part: bool,
        budget: &Arc<BodyBudget>,
    ) -> Result<Self, Undecoded> {
        let mut plain = Segments::new(Share::new(Arc::clone(budget)));
        let likely = body.len().saturating_mul(LIKELY_RATIO);
        plain.expect(likely.min(ContentEncoding::most(body.len(), limit)) as u64);
        let mut window = Share::new(Arc::clone(budget));
        let done = encoding.decode(body, limit, &mut |piece| {
            let missing = encoding.window().saturating_sub(window.bytes());
            window.grow(missing.min(piece.len() as u64)) && plain.push_copy(piece) != Err(NoRoom)
        });
        match done {
            Ok(()) => Ok(Self { body: plain.take(), decoded: Some(plain.share().take()), cut: false }),
            Err(DecodeError::Corrupt(_)) if part => {
                Ok(Self { body: plain.take(), decoded: Some(plain.share().take()), cut: true })
            }
            Err(DecodeError::NoRoom) => Err(Undecoded::Refused(budget.refusal())),
            Err(error) => Err(error.into()),
        }
    }
}

/// Why a body was not decoded.
enum Undecoded {
    /// The body needs more memory than a decoder is given.
    Window,
    /// No decoder was free in time.
    Busy,
    Refused(Refusal),
}

impl From<DecodeError> for Undecoded {
    fn from(error: DecodeError) -> Self {
        let reason = match error {
            DecodeError::Window => return Self::Window,
            DecodeError::Corrupt(_) | DecodeError::Frames(_) => Reason::InvalidBody,
            DecodeError::NoRoom => Reason::BuffersFull,
            DecodeError::TooLarge(_) | DecodeError::Ratio => Reason::DecodedTooLarge,
        };
        Self::Refused(Refusal::new(reason, error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(body: &Bytes) -> RequestBody {
        let inference = request::read(ParserKind::OpenAi, "/v1/completions", b"", body).unwrap();
        let kind = Some(ParserKind::OpenAi);
        RequestBody { kind, inference, plain: body.clone(), decoded: None, cut: false }
    }

    #[test]
    fn a_body_of_tiny_strings_is_not_held_taken_apart_while_it_waits() {
        let tiny = Bytes::from(format!(r#"{{"model":"m","prompt":[{}]}}"#, vec![r#""a""#; 32_000].join(",")));
        let mut many = reading(&tiny);
        assert!(many.inference.held_bytes() > 4 * tiny.len());
        assert!(many.let_go(&tiny));
        assert_eq!((many.inference.held_bytes(), many.plain.len()), (0, 0));
        let long = Bytes::from(format!(r#"{{"model":"m","prompt":["a","{}"]}}"#, "b".repeat(9000)));
        let mut few = reading(&long);
        assert!(!few.let_go(&long) && few.inference.model.is_some());
    }
}
