//! The `usage` objects of a JSON document that comes in chunks: none of the rest is kept.

use crate::request::skim::{Edge, Shape, Skim, Wanted};

/// Finds `usage` objects in one JSON document after the other.
#[derive(Debug)]
pub(super) struct UsageObjects {
    skim: Skim,
    /// In the middle of an object.
    open: bool,
    /// What of it has come in earlier chunks.
    held: Vec<u8>,
    limit: usize,
}

/// A `usage` object.
#[derive(Clone, Copy, Debug)]
pub(super) struct Object<'o> {
    pub(super) bytes: &'o [u8],
    /// It stands inside of the member that was looked into, and not at the top.
    pub(super) nested: bool,
}

impl UsageObjects {
    /// Objects at the top of the document, of at most `limit` bytes each.
    pub(super) fn at_the_top(limit: usize) -> Self {
        Self::find(limit, None)
    }

    /// Those and the ones inside of the top-level object `within`.
    pub(super) fn at_the_top_and_in(within: &'static str, limit: usize) -> Self {
        Self::find(limit, Some(within))
    }

    fn find(limit: usize, within: Option<&'static str>) -> Self {
        let skim = Skim::new(Wanted { members: &[("usage", Shape::Object)], within });
        Self { skim, open: false, held: Vec::new(), limit }
    }

    /// Takes the next bytes of the document and reports each object that ends in them; `None` stands for one that is too long.
    pub(super) fn feed(&mut self, chunk: &[u8], mut report: impl FnMut(Option<Object<'_>>)) {
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
                    let part = chunk.get(start..at).unwrap_or_default();
                    if self.held.len() + part.len() > self.limit {
                        report(None);
                    } else if self.held.is_empty() {
                        report(Some(Object { bytes: part, nested }));
                    } else {
                        self.held.extend_from_slice(part);
                        report(Some(Object { bytes: &self.held, nested }));
                    }
                    self.held = Vec::new();
                }
            }
        }
        if self.open {
            // One byte more than allowed marks an object as too long.
            let part = chunk.get(start..).unwrap_or_default();
            let room = self.limit.saturating_add(1).saturating_sub(self.held.len());
            self.held.extend_from_slice(part.get(..room).unwrap_or(part));
        }
    }
}
