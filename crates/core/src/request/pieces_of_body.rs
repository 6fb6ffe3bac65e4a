//! The pieces that an edited body consists of.

use bytes::Bytes;
use smallvec::SmallVec;

/// Pieces up to this many bytes are copied together: each piece becomes a message of its own.
pub(super) const SMALL_PIECE: usize = 4096;

/// Pieces of a body, of which short neighbours become one.
#[derive(Default)]
pub(super) struct Joined {
    pieces: SmallVec<[Bytes; 3]>,
    short: Vec<u8>,
}

impl Joined {
    pub(super) fn piece(&mut self, piece: Bytes) {
        if piece.len() <= SMALL_PIECE {
            self.copy(&piece);
        } else {
            self.flush();
            self.pieces.push(piece);
        }
    }

    pub(super) fn copy(&mut self, bytes: &[u8]) {
        self.short.extend_from_slice(bytes);
    }

    fn flush(&mut self) {
        if !self.short.is_empty() {
            self.pieces.push(Bytes::from(std::mem::take(&mut self.short)));
        }
    }

    pub(super) fn finish(mut self) -> SmallVec<[Bytes; 3]> {
        self.flush();
        self.pieces
    }
}
