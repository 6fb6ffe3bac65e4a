//! Turns a decision into messages to the proxy, and puts the body into them.

use bytes::Bytes;
use smallvec::SmallVec;

use super::answer::{self, Side};
use super::metadata;
use super::mode::Modes;
use super::wire::ProcessingResponse;
use crate::director::{Pieces, Routed};

/// Header that carries the decision.
const DESTINATION: &[u8] = b"x-gateway-destination-endpoint";
const CONTENT_LENGTH: &[u8] = b"content-length";

/// The form of the answer to a decided request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// Into the answer to the headers, no body with it. `ask_for`: modes in which the proxy shall send what follows.
    Headers { ask_for: Option<Modes> },
    /// Into the answer to the headers; the body follows in pieces.
    FullDuplex { trailers: bool },
    /// Into the answer to the headers; `pieces` body messages wait for an answer each.
    Early { pieces: usize, trailers: bool },
    /// Into the answer to the body message. `whole`: nothing of the body follows.
    Body { whole: bool },
}

/// Answers of one decision.
pub(super) type Answers = SmallVec<[ProcessingResponse; 3]>;

/// The messages that tell the proxy of this decision, and the response side.
pub(super) fn answers<X>(form: Form, routed: Routed<X>) -> (Answers, X) {
    let Routed { destination, scores, mut edits, body, body_changed, exchange, held: _ } = routed;
    let metadata = metadata::destination(&destination, &scores);
    edits.set.insert(0, (Bytes::from_static(DESTINATION), destination));
    let length: usize = body.iter().map(Bytes::len).sum();
    let states_length = match form {
        Form::Headers { .. } => false,
        // The proxy drops the length of a body it streams through here.
        Form::FullDuplex { .. } => length > 0,
        Form::Early { .. } => body_changed && length > 0,
        // A proxy that buffers compares the length to the body it gets, and refuses the answer if they differ.
        Form::Body { whole } => body_changed && whole,
    };
    if states_length {
        edits.set.insert(1, (Bytes::from_static(CONTENT_LENGTH), length.to_string().into()));
    }
    let mut sends = Answers::new();
    match form {
        Form::Headers { ask_for } => sends.push(answer::request_headers(edits, metadata, ask_for)),
        Form::FullDuplex { trailers } => {
            sends.push(answer::request_headers(edits, metadata, None));
            answer::streamed(Side::Request, body, !trailers, &mut sends);
            if trailers {
                sends.push(answer::trailers(Side::Request));
            }
        }
        Form::Early { pieces, trailers } => {
            sends.push(answer::request_headers(edits, metadata, None));
            if body_changed {
                sends.extend(spread(body, length, pieces));
            } else {
                sends.extend((0..pieces).map(|_| answer::piece(Side::Request, None)));
            }
            if trailers {
                sends.push(answer::trailers(Side::Request));
            }
        }
        Form::Body { .. } => {
            let changed = body_changed.then(|| concat(body));
            sends.push(answer::buffered_request(edits, metadata, changed));
        }
    }
    (sends, exchange)
}

/// The new body in as many answers as pieces came, each with its share: no answer is much larger than the piece it
/// answers.
fn spread(body: Pieces, length: usize, pieces: usize) -> impl Iterator<Item = ProcessingResponse> {
    let share = length.div_ceil(pieces.max(1));
    let mut rest = body.into_iter();
    let mut current = Bytes::new();
    (0..pieces).map(move |_| {
        let mut parts = Pieces::new();
        let mut missing = share;
        while missing > 0 {
            if current.is_empty() {
                let Some(next) = rest.next() else { break };
                current = next;
            }
            let part = current.split_to(missing.min(current.len()));
            missing -= part.len();
            if !part.is_empty() {
                parts.push(part);
            }
        }
        answer::piece(Side::Request, Some(concat(parts)))
    })
}

/// The pieces in one.
pub(super) fn concat(pieces: Pieces) -> Bytes {
    if pieces.len() <= 1 {
        return pieces.into_iter().next().unwrap_or_default();
    }
    pieces.concat().into()
}
