//! What a JSON document that comes in chunks says of usage and of its end: none of the rest is kept.

use std::borrow::Cow;

use crate::request::escapes;
use crate::request::skim::{Edge, Shape, Skim, WantedMembers};

/// How many of the members hold usage; they stand first.
const OBJECTS: usize = 2;

/// The members that are read.
const MEMBERS: &[(&str, Shape)] = &[
    ("usage", Shape::Object),
    ("meta_info", Shape::Object),
    ("error", Shape::StringOrObject),
    ("type", Shape::String),
    ("object", Shape::String),
    ("status", Shape::String),
];

/// Bytes that are kept of the value of any member but `usage`.
const WORD: usize = 64;

/// Finds these members in one JSON document after the other.
#[derive(Debug)]
pub(super) struct Members {
    skim: Skim,
    /// In the middle of a value.
    open: bool,
    /// The part of it that came in earlier chunks.
    held: Vec<u8>,
    limit: usize,
}

/// The value of a member.
#[derive(Clone, Copy, Debug)]
pub(super) struct Member<'o> {
    pub(super) name: &'static str,
    /// The value; of others than `usage` at most the beginning.
    pub(super) bytes: &'o [u8],
    /// It stands inside of the member that was looked into, and not at the top.
    pub(super) nested: bool,
}

impl Members {
    /// Members at the top of the document; `usage` has at most `limit` bytes.
    pub(super) fn at_the_top(limit: usize) -> Self {
        Self::find(limit, None)
    }

    /// Those and the ones inside of the top-level object `within`.
    pub(super) fn at_the_top_and_in(within: &'static str, limit: usize) -> Self {
        Self::find(limit, Some(within))
    }

    fn find(limit: usize, within: Option<&'static str>) -> Self {
        let skim = Skim::new(WantedMembers { members: MEMBERS, within });
        Self { skim, open: false, held: Vec::new(), limit }
    }

    /// True if a document has come whole.
    pub(super) fn is_complete(&self) -> bool {
        self.skim.is_complete()
    }

    /// Takes the next bytes of the document and reports each value that ends in them; `None` stands for a `usage` that
    /// is too long.
    pub(super) fn feed(&mut self, chunk: &[u8], mut report: impl FnMut(Option<Member<'_>>)) {
        let mut from = 0;
        let mut start = 0;
        while let Some(edge) = self.skim.next(chunk, &mut from) {
            match edge {
                Edge::Start(at) => {
                    self.open = true;
                    start = at;
                }
                Edge::End(at) => {
                    self.open = false;
                    let nested = self.skim.is_within();
                    let name = MEMBERS.get(self.skim.found()).map_or("", |(name, _)| name);
                    let part = chunk.get(start..at).unwrap_or_default();
                    if self.skim.found() < OBJECTS && self.held.len() + part.len() > self.limit {
                        report(None);
                    } else if self.held.is_empty() {
                        report(Some(Member { name, bytes: part, nested }));
                    } else {
                        self.hold(part);
                        report(Some(Member { name, bytes: &self.held, nested }));
                    }
                    self.held = Vec::new();
                }
            }
        }
        if self.open {
            self.hold(chunk.get(start..).unwrap_or_default());
        }
    }

    /// Keeps more of a value that is not whole yet.
    fn hold(&mut self, part: &[u8]) {
        // One byte more than allowed marks a value as too long.
        let limit = if self.skim.found() < OBJECTS { self.limit } else { WORD };
        let room = limit.saturating_add(1).saturating_sub(self.held.len());
        self.held.extend_from_slice(part.get(..room).unwrap_or(part));
    }
}

impl Member<'_> {
    /// The value of a string.
    pub(super) fn text(&self) -> Option<Cow<'_, [u8]>> {
        let quoted = self.bytes.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
        Some(escapes::decode(quoted))
    }
}
