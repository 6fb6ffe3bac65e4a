//! Request bodies while they arrive, under two bounds: one for each stream, one for all streams together.

use std::sync::Arc;

use bytes::Bytes;

use crate::director::{BodyBudget, Segments, Share};

/// Bytes that each piece of a body counts beside its own bytes, where a message of its own answers every piece.
pub(super) const ANSWERED_PIECE: u64 = 256;

/// Why a body is not taken in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BodyOverflow {
    /// The request itself is too large.
    Request,
    /// All buffered bodies together are.
    Total,
}

/// A request body that is being collected. Its share of the budget is given back when it is dropped.
#[derive(Debug)]
pub(super) struct BodyBuffer {
    segments: Segments,
    limit: u64,
}

impl BodyBuffer {
    /// An empty buffer. `limit` bounds this body in bytes, 0 = no bound.
    pub(super) fn new(budget: Arc<BodyBudget>, limit: u64) -> Self {
        Self { segments: Segments::new(Share::new(budget)), limit }
    }

    /// Tells how long the body is said to become. An error if that passes a bound whatever else is held.
    pub(super) fn expect(&mut self, length: u64) -> Result<(), BodyOverflow> {
        if self.limit != 0 && length > self.limit {
            return Err(BodyOverflow::Request);
        }
        let total = self.segments.share().limit();
        if total != 0 && length > total {
            return Err(BodyOverflow::Total);
        }
        self.segments.expect(length);
        Ok(())
    }

    /// Adds a piece.
    pub(super) fn push(&mut self, piece: Bytes) -> Result<(), BodyOverflow> {
        let length = (self.segments.length() as u64).saturating_add(piece.len() as u64);
        if self.limit != 0 && length > self.limit {
            return Err(BodyOverflow::Request);
        }
        self.segments.push(piece).map_err(|_| BodyOverflow::Total)
    }

    /// Counts bytes that are held for this body beside it.
    pub(super) fn charge(&mut self, bytes: u64) -> Result<(), BodyOverflow> {
        if self.segments.share().grow(bytes) { Ok(()) } else { Err(BodyOverflow::Total) }
    }

    /// The body, in one piece. The share of the budget stays until it is released or the buffer is dropped.
    pub(super) fn take(&mut self) -> Bytes {
        self.segments.take()
    }

    /// The share of the budget, for whoever holds the body from now on.
    pub(super) fn release(&mut self) -> Share {
        self.segments.share().take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_of_one_piece_is_not_copied() {
        let mut buffer = BodyBuffer::new(Arc::new(BodyBudget::new(0)), 0);
        let piece = Bytes::from_static(b"whole");
        buffer.push(piece.clone()).unwrap();
        assert_eq!(buffer.take().as_ptr(), piece.as_ptr());
    }

    #[test]
    fn pieces_are_joined_in_order() {
        let mut buffer = BodyBuffer::new(Arc::new(BodyBudget::new(0)), 0);
        buffer.expect(6).unwrap();
        for piece in ["ab", "", "cd", "ef"] {
            buffer.push(Bytes::from_static(piece.as_bytes())).unwrap();
        }
        assert_eq!(buffer.take(), "abcdef");
    }

    #[test]
    fn both_bounds_hold_and_the_share_is_given_back() {
        let budget = Arc::new(BodyBudget::new(10));
        let mut one = BodyBuffer::new(Arc::clone(&budget), 8);
        assert_eq!(one.expect(9), Err(BodyOverflow::Request));
        assert_eq!(one.push(Bytes::from(vec![0; 9])), Err(BodyOverflow::Request));
        one.push(Bytes::from(vec![0; 8])).unwrap();
        let mut two = BodyBuffer::new(Arc::clone(&budget), 8);
        assert_eq!(two.push(Bytes::from(vec![0; 3])), Err(BodyOverflow::Total));
        two.push(Bytes::from(vec![0; 2])).unwrap();
        assert_eq!(budget.used(), 10);
        drop((one, two));
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn a_promise_that_no_budget_can_keep_is_refused_before_a_byte_comes() {
        let mut body = BodyBuffer::new(Arc::new(BodyBudget::new(10)), 0);
        assert_eq!(body.expect(11), Err(BodyOverflow::Total));
        assert_eq!(body.expect(10), Ok(()));
    }

    #[test]
    fn the_share_outlives_the_buffer_in_the_hands_of_who_holds_the_body() {
        let budget = Arc::new(BodyBudget::new(10));
        let mut body = BodyBuffer::new(Arc::clone(&budget), 0);
        body.push(Bytes::from_static(b"abcd")).unwrap();
        let bytes = body.take();
        let share = body.release();
        drop(body);
        assert_eq!((bytes.len(), budget.used()), (4, 4));
        drop(share);
        assert_eq!(budget.used(), 0);
    }
}
