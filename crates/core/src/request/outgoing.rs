//! The bytes that go out for one chunk of a body.

use bytes::Bytes;
use smallvec::SmallVec;

/// What has been decided of a chunk so far: pieces of it, shared and not copied, and what stands in place of others.
pub(super) struct Outgoing<'c> {
    pub(super) chunk: &'c Bytes,
    pub(super) pieces: SmallVec<[Bytes; 3]>,
    /// Everything before this offset is settled.
    pub(super) settled: usize,
}

impl<'c> Outgoing<'c> {
    /// Nothing of `chunk` is decided yet.
    pub(super) fn of(chunk: &'c Bytes) -> Self {
        Self { chunk, pieces: SmallVec::new(), settled: 0 }
    }

    /// Lets the chunk through up to `to`.
    pub(super) fn through(&mut self, to: usize) {
        if self.settled < to {
            self.pieces.push(self.chunk.slice(self.settled..to));
            self.settled = to;
        }
    }

    /// The state that [`Outgoing::back_to`] goes back to.
    pub(super) fn mark(&self) -> (usize, usize) {
        (self.pieces.len(), self.settled)
    }

    /// Takes back what was decided since the mark.
    pub(super) fn back_to(&mut self, (pieces, settled): (usize, usize)) {
        self.pieces.truncate(pieces);
        self.settled = settled;
    }

    /// Puts spaces in place of the chunk up to `to`.
    pub(super) fn blank(&mut self, to: usize) {
        if self.settled < to {
            self.pieces.push(Bytes::from(vec![b' '; to - self.settled]));
            self.settled = to;
        }
    }
}
