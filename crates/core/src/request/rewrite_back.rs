//! Giving the client back the model name it asked for.

use bytes::Bytes;
use smallvec::SmallVec;

use super::escapes;
use super::skim::{Edge, Shape, Skim, WantedMembers};
use super::sse::{Lines, Part};
use super::types::Api;

/// Bytes of the longest way to write a character of one byte in JSON (`\u0061`).
const LONGEST_ESCAPE: usize = 6;

/// Bytes that putting names back may add to any response. Beyond that it may add [`MAX_GROWTH`] times what has passed.
const FREE_GROWTH: u64 = 64 << 10;

/// How many bytes each byte of a response may add. A name of 128 bytes in events of 80 bytes stays below it.
const MAX_GROWTH: u64 = 2;

/// Most names that are put back in one JSON document. A well-formed one holds one or two.
const MAX_NAMES: u32 = 4;

/// Replaces the served model's name by the one that the client asked for, in a response that passes by in chunks.
///
/// Only the value of the response's own `model` member is looked at: at the top of a JSON body, in an event stream at
/// the top of each event and in the `response` or `message` that some events carry. Text that a model wrote is never
/// touched. All other bytes are passed on as they came, shared and not copied; held back is at most a model name that
/// a chunk's end has cut. Where the chunks end makes no difference to the joined output.
///
/// A client chooses its name's length, and a server how often the name stands in a response. Putting back therefore
/// adds at most 64 KiB and twice what has passed, and at most 4 names to a document; what is beyond keeps the server's
/// name.
#[derive(Debug)]
pub struct ModelRestorer {
    active: bool,
    target: String,
    /// The client's name as a JSON string.
    replacement: Bytes,
    skim: Skim,
    /// The lines of an event stream.
    lines: Option<Lines>,
    name: Pending,
    /// Bytes of the response in earlier chunks.
    passed: u64,
    /// Bytes that the client's name has added so far, where it is longer than the target's.
    added: u64,
    /// The document of the last name, and the names put back in it.
    document: u32,
    names: u32,
    limited: bool,
}

/// A model value whose end has not come yet.
#[derive(Debug, PartialEq, Eq)]
enum Pending {
    Nothing,
    /// It began at this offset of the chunk.
    Here(usize),
    /// It began in an earlier chunk; these bytes of it are held back.
    Held(Vec<u8>),
    /// It is too long to be the target and was let through.
    TooLong,
}

/// The bytes that go out for one chunk.
struct Output<'c> {
    chunk: &'c Bytes,
    pieces: SmallVec<[Bytes; 3]>,
    /// Everything before this offset is settled.
    settled: usize,
}

impl Output<'_> {
    /// Lets the chunk through up to `to`.
    fn through(&mut self, to: usize) {
        if self.settled < to {
            self.pieces.push(self.chunk.slice(self.settled..to));
            self.settled = to;
        }
    }
}

impl ModelRestorer {
    /// A restorer for one response to `api` from a server that knows the model as `from_target`. It passes everything
    /// through if one of the names is empty or both are the same.
    pub fn new(api: Api, event_stream: bool, from_target: &str, to_incoming: &str) -> Self {
        let within = match api {
            Api::Responses if event_stream => Some("response"),
            Api::Messages if event_stream => Some("message"),
            _ => None,
        };
        Self {
            active: !from_target.is_empty() && !to_incoming.is_empty() && from_target != to_incoming,
            target: from_target.to_owned(),
            replacement: Bytes::from(escapes::encode(to_incoming)),
            skim: Skim::new(WantedMembers { members: &[("model", Shape::String)], within }),
            lines: event_stream.then(Lines::new),
            name: Pending::Nothing,
            passed: 0,
            added: 0,
            document: 0,
            names: 0,
            limited: false,
        }
    }

    /// True if a name was left as it is because putting it back would have made the response too long.
    pub fn limited(&self) -> bool {
        self.limited
    }

    /// False if the restorer changes nothing.
    pub fn is_active(&self) -> bool {
        self.active
    }

    /// Takes the next chunk and returns what can go out now.
    pub fn feed(&mut self, chunk: Bytes) -> SmallVec<[Bytes; 3]> {
        if !self.active {
            return SmallVec::from_iter((!chunk.is_empty()).then_some(chunk));
        }
        let mut output = Output { chunk: &chunk, pieces: SmallVec::new(), settled: 0 };
        if let Some(lines) = self.lines.take() {
            self.lines = Some(self.feed_lines(lines, &mut output));
        } else {
            self.feed_json(&mut output, 0, chunk.len());
        }
        match std::mem::replace(&mut self.name, Pending::Nothing) {
            Pending::Nothing => output.through(chunk.len()),
            Pending::Here(start) => {
                output.through(start);
                self.hold(chunk.get(start..).unwrap_or_default().to_vec(), &mut output);
            }
            Pending::Held(mut held) => {
                held.extend_from_slice(&chunk);
                self.hold(held, &mut output);
            }
            Pending::TooLong => {
                self.name = Pending::TooLong;
                output.through(chunk.len());
            }
        }
        self.passed += chunk.len() as u64;
        output.pieces
    }

    /// The response has ended: returns what was still held back.
    pub fn finish(&mut self) -> Option<Bytes> {
        match std::mem::replace(&mut self.name, Pending::Nothing) {
            Pending::Held(held) => Some(Bytes::from(held)),
            _ => None,
        }
    }

    /// Keeps the beginning of a model value that reaches to the chunk's end, unless it can't be the target any more.
    fn hold(&mut self, held: Vec<u8>, output: &mut Output<'_>) {
        output.settled = output.chunk.len();
        if held.len() > self.target.len() * LONGEST_ESCAPE + 2 {
            output.pieces.push(Bytes::from(held));
            self.name = Pending::TooLong;
        } else {
            self.name = Pending::Held(held);
        }
    }

    fn feed_lines(&mut self, mut lines: Lines, output: &mut Output<'_>) -> Lines {
        let chunk = output.chunk;
        let mut at = 0;
        while let Some(part) = lines.next(chunk, &mut at) {
            match part {
                Part::Data(range) => self.feed_json(output, range.start, range.end),
                Part::Event(_) => {}
                // A line ends outside of strings, or it is no JSON. The document may go on in the next line.
                Part::LineEnd => self.give_up(output),
                Part::EventEnd => {
                    self.give_up(output);
                    self.skim.reset();
                }
            }
        }
        lines
    }

    /// Reads the chunk's bytes from `from` to `to` as a piece of one JSON document.
    fn feed_json(&mut self, output: &mut Output<'_>, from: usize, to: usize) {
        let chunk = output.chunk.get(..to).unwrap_or_default();
        let mut at = from;
        while let Some(edge) = self.skim.next(chunk, &mut at) {
            match edge {
                Edge::Start(start) => self.name = Pending::Here(start),
                Edge::End(end) => {
                    let name = std::mem::replace(&mut self.name, Pending::Nothing);
                    self.settle(name, end, output);
                }
            }
        }
    }

    /// A model value ends at `end`: it is replaced if it is the target's.
    fn settle(&mut self, name: Pending, end: usize, output: &mut Output<'_>) {
        match name {
            Pending::Here(start) => {
                let name = output.chunk.get(start..end).unwrap_or_default();
                if self.is_target(name) && self.may_replace(name.len(), end) {
                    output.through(start);
                    output.pieces.push(self.replacement.clone());
                    output.settled = end;
                }
            }
            Pending::Held(mut held) => {
                held.extend_from_slice(output.chunk.get(..end).unwrap_or_default());
                let replace = self.is_target(&held) && self.may_replace(held.len(), end);
                output.pieces.push(if replace { self.replacement.clone() } else { Bytes::from(held) });
                output.settled = end;
            }
            Pending::Nothing | Pending::TooLong => {}
        }
    }

    /// Takes the room that a name of `length` bytes, which ends at `end`, needs to be replaced; false if there is none.
    fn may_replace(&mut self, length: usize, end: usize) -> bool {
        let document = self.skim.documents();
        if std::mem::replace(&mut self.document, document) != document {
            self.names = 0;
        }
        let added = self.added + self.replacement.len().saturating_sub(length) as u64;
        let passed = self.passed + end as u64;
        if self.names >= MAX_NAMES || added > FREE_GROWTH + MAX_GROWTH * passed {
            self.limited = true;
            return false;
        }
        self.names += 1;
        self.added = added;
        true
    }

    /// The line has ended in the middle of a model value.
    fn give_up(&mut self, output: &mut Output<'_>) {
        if let Pending::Held(held) = std::mem::replace(&mut self.name, Pending::Nothing) {
            output.pieces.push(Bytes::from(held));
        }
    }

    /// Compares a JSON string with its quotes to the target.
    fn is_target(&self, quoted: &[u8]) -> bool {
        let raw = quoted.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\""));
        raw.is_some_and(|raw| escapes::decode(raw).as_ref() == self.target.as_bytes())
    }
}

#[cfg(test)]
mod tests;
