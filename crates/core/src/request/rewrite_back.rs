//! Giving the client back the model name it asked for.

use bytes::Bytes;
use smallvec::SmallVec;

use super::escapes;
use super::member_rewrite::{MemberRewrite, Pieces, Replace};
use super::skim::Shape;
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
    rewrite: MemberRewrite,
    names: Names,
}

/// The two names, and how much putting one back has cost so far.
#[derive(Debug)]
struct Names {
    target: String,
    /// The client's name as a JSON string.
    replacement: Bytes,
    /// Bytes of the response in earlier chunks.
    passed: u64,
    /// Bytes that the client's name has added so far, where it is longer than the target's.
    added: u64,
    /// The document of the last name, and the names put back in it.
    document: u32,
    put_back: u32,
    limited: bool,
}

impl ModelRestorer {
    /// A restorer for one response to `api` from a server that knows the model as `from_target`. It passes everything
    /// through if one of the names is empty or both are the same.
    pub fn new(api: Api, event_stream: bool, from_target: &str, to_incoming: &str) -> Self {
        Self {
            active: !from_target.is_empty() && !to_incoming.is_empty() && from_target != to_incoming,
            rewrite: MemberRewrite::new(&[("model", Shape::String)], api, event_stream),
            names: Names {
                target: from_target.to_owned(),
                replacement: Bytes::from(escapes::encode(to_incoming)),
                passed: 0,
                added: 0,
                document: 0,
                put_back: 0,
                limited: false,
            },
        }
    }

    /// True if a name was left as it is because putting it back would have made the response too long.
    pub fn limited(&self) -> bool {
        self.names.limited
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
        let pieces = self.rewrite.feed(&chunk, &mut self.names);
        self.names.passed += chunk.len() as u64;
        pieces
    }

    /// The response has ended: returns what was still held back.
    pub fn finish(&mut self) -> Option<Bytes> {
        self.rewrite.finish()
    }
}

impl Replace for Names {
    /// A longer value cannot be the target.
    fn longest(&self) -> usize {
        self.target.len() * LONGEST_ESCAPE + 2
    }

    fn replace(&mut self, quoted: &[u8], document: u32, end: usize, pieces: &mut Pieces) -> bool {
        let replaces = self.is_target(quoted) && self.may_replace(quoted.len(), document, end);
        if replaces {
            pieces.push(self.replacement.clone());
        }
        replaces
    }
}

impl Names {
    /// Takes the room that a name of `length` bytes, which ends at `end`, needs to be replaced; false if there is none.
    fn may_replace(&mut self, length: usize, document: u32, end: usize) -> bool {
        if std::mem::replace(&mut self.document, document) != document {
            self.put_back = 0;
        }
        let added = self.added + self.replacement.len().saturating_sub(length) as u64;
        let passed = self.passed + end as u64;
        if self.put_back >= MAX_NAMES || added > FREE_GROWTH + MAX_GROWTH * passed {
            self.limited = true;
            return false;
        }
        self.put_back += 1;
        self.added = added;
        true
    }

    /// Compares a JSON string with its quotes to the target.
    fn is_target(&self, quoted: &[u8]) -> bool {
        let raw = quoted.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\""));
        raw.is_some_and(|raw| escapes::decode(raw).as_ref() == self.target.as_bytes())
    }
}

#[cfg(test)]
mod tests;
