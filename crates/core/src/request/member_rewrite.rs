//! Replacing the value of one member in a response that passes by in chunks.
//!
//! The member stands at the top of a JSON body, in an event stream at the top of each event and in the `response` or
//! `message` that some events carry. All other bytes are passed on as they came, shared and not copied. A value that a
//! chunk's end cuts is held back, up to a length. Where the chunks end makes no difference to the joined output.

use bytes::Bytes;
use smallvec::SmallVec;

use super::outgoing::Outgoing;
use super::skim::{Edge, Shape, Skim, WantedMembers};
use super::sse::{Lines, Part};
use super::types::Api;

/// Pieces of a body in their order.
pub(super) type Pieces = SmallVec<[Bytes; 3]>;

/// Says what a value becomes.
pub(super) trait Replace {
    /// Bytes of the longest value that may be replaced; a longer one is let through.
    fn longest(&self) -> usize;

    /// Appends to `pieces` what stands in place of `value`, which is written as it came. False leaves the value; then
    /// nothing is appended. `document` is the number of the JSON document, and the value ends at offset `end` of the
    /// chunk.
    fn replace(&mut self, value: &[u8], document: u32, end: usize, pieces: &mut Pieces) -> bool;
}

/// Follows a response and finds the member.
#[derive(Debug)]
pub(super) struct MemberRewrite {
    skim: Skim,
    /// The lines of an event stream.
    lines: Option<Lines>,
    pending: Pending,
}

/// A value whose end has not come yet.
#[derive(Debug, PartialEq, Eq)]
enum Pending {
    Nothing,
    /// It began at this offset of the chunk.
    Here(usize),
    /// It began in an earlier chunk; these bytes of it are held back.
    Held(Vec<u8>),
    /// It is too long to be replaced and was let through.
    TooLong,
}

impl MemberRewrite {
    /// Looks for `member`, a name with the shape of its value, in a response to `api`.
    pub(super) fn new(member: &'static [(&'static str, Shape)], api: Api, event_stream: bool) -> Self {
        let within = match api {
            Api::Responses if event_stream => Some("response"),
            Api::Messages if event_stream => Some("message"),
            _ => None,
        };
        Self {
            skim: Skim::new(WantedMembers { members: member, within }),
            lines: event_stream.then(Lines::new),
            pending: Pending::Nothing,
        }
    }

    /// Takes the next chunk and returns what can go out now.
    pub(super) fn feed(&mut self, chunk: &Bytes, by: &mut impl Replace) -> Pieces {
        let mut out = Outgoing::of(chunk);
        if let Some(lines) = self.lines.take() {
            self.lines = Some(self.feed_lines(lines, &mut out, by));
        } else {
            self.feed_json(&mut out, 0, chunk.len(), by);
        }
        match std::mem::replace(&mut self.pending, Pending::Nothing) {
            Pending::Nothing => out.through(chunk.len()),
            Pending::Here(start) => {
                out.through(start);
                self.hold(chunk.get(start..).unwrap_or_default().to_vec(), &mut out, by);
            }
            Pending::Held(mut held) => {
                held.extend_from_slice(chunk);
                self.hold(held, &mut out, by);
            }
            Pending::TooLong => {
                self.pending = Pending::TooLong;
                out.through(chunk.len());
            }
        }
        out.pieces
    }

    /// The response has ended: returns what was still held back.
    pub(super) fn finish(&mut self) -> Option<Bytes> {
        match std::mem::replace(&mut self.pending, Pending::Nothing) {
            Pending::Held(held) => Some(Bytes::from(held)),
            _ => None,
        }
    }

    /// Keeps the beginning of a value that reaches to the chunk's end, unless it is too long already.
    fn hold(&mut self, held: Vec<u8>, out: &mut Outgoing<'_>, by: &impl Replace) {
        out.settled = out.chunk.len();
        if held.len() > by.longest() {
            out.pieces.push(Bytes::from(held));
            self.pending = Pending::TooLong;
        } else {
            self.pending = Pending::Held(held);
        }
    }

    fn feed_lines(&mut self, mut lines: Lines, out: &mut Outgoing<'_>, by: &mut impl Replace) -> Lines {
        let chunk = out.chunk;
        let mut at = 0;
        while let Some(part) = lines.next(chunk, &mut at) {
            match part {
                Part::Data(range) => self.feed_json(out, range.start, range.end, by),
                Part::Event(_) => {}
                // A value that a line's end cuts stays as it is. The document may go on in the next line.
                Part::LineEnd => self.give_up(out),
                Part::EventEnd => {
                    self.give_up(out);
                    self.skim.reset();
                }
            }
        }
        lines
    }

    /// Reads the chunk's bytes from `from` to `to` as a piece of one JSON document.
    fn feed_json(&mut self, out: &mut Outgoing<'_>, from: usize, to: usize, by: &mut impl Replace) {
        let chunk = out.chunk.get(..to).unwrap_or_default();
        let mut at = from;
        while let Some(edge) = self.skim.next(chunk, &mut at) {
            match edge {
                Edge::Start(start) => self.pending = Pending::Here(start),
                Edge::End(end) => self.settle(end, out, by),
            }
        }
    }

    /// A value ends at `end`.
    fn settle(&mut self, end: usize, out: &mut Outgoing<'_>, by: &mut impl Replace) {
        let document = self.skim.documents();
        match std::mem::replace(&mut self.pending, Pending::Nothing) {
            Pending::Here(start) => {
                let value = out.chunk.get(start..end).unwrap_or_default();
                let before = out.mark();
                out.through(start);
                if by.replace(value, document, end, &mut out.pieces) {
                    out.settled = end;
                } else {
                    out.back_to(before);
                }
            }
            Pending::Held(mut held) => {
                held.extend_from_slice(out.chunk.get(..end).unwrap_or_default());
                if !by.replace(&held, document, end, &mut out.pieces) {
                    out.pieces.push(Bytes::from(held));
                }
                out.settled = end;
            }
            Pending::Nothing | Pending::TooLong => {}
        }
    }

    fn give_up(&mut self, out: &mut Outgoing<'_>) {
        if let Pending::Held(held) = std::mem::replace(&mut self.pending, Pending::Nothing) {
            out.pieces.push(Bytes::from(held));
        }
    }
}
