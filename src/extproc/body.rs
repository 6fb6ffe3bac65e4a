//! Request bodies while they arrive, under two bounds: one for each stream, one for all streams together.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use bytes::{Bytes, BytesMut};

use crate::metrics::ExtProcMetrics;

/// Most bytes allocated ahead because `content-length` promises them.
const MAX_AHEAD: usize = 1 << 20;

/// The bound that all streams share.
#[derive(Debug)]
pub struct BodyBudget {
    used: AtomicU64,
    limit: u64,
    metrics: Option<ExtProcMetrics>,
}

impl BodyBudget {
    /// A budget of `limit` bytes; 0 means no bound.
    pub fn new(limit: u64) -> Self {
        Self { used: AtomicU64::new(0), limit, metrics: None }
    }

    /// The same budget, which shows its use and its bound.
    #[must_use]
    pub fn with_metrics(mut self, metrics: ExtProcMetrics) -> Self {
        metrics.set_buffered_bytes_limit(self.limit);
        self.metrics = Some(metrics);
        self
    }

    /// Bytes buffered now.
    pub fn used(&self) -> u64 {
        self.used.load(Relaxed)
    }

    /// The bound in bytes; 0 = none.
    pub fn limit(&self) -> u64 {
        self.limit
    }

    fn reserve(&self, bytes: u64) -> bool {
        let fits = |used: u64| {
            let after = used.saturating_add(bytes);
            (self.limit == 0 || after <= self.limit).then_some(after)
        };
        if self.used.fetch_update(Relaxed, Relaxed, fits).is_err() {
            return false;
        }
        if let Some(metrics) = &self.metrics {
            metrics.add_buffered_bytes(bytes.cast_signed());
        }
        true
    }

    fn release(&self, bytes: u64) {
        self.used.fetch_sub(bytes, Relaxed);
        if let Some(metrics) = &self.metrics {
            metrics.add_buffered_bytes(-bytes.cast_signed());
        }
    }
}

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
    budget: Arc<BodyBudget>,
    reserved: u64,
    limit: u64,
    /// The first piece, kept as it came: most bodies are one piece.
    first: Bytes,
    joined: BytesMut,
    expected: usize,
}

impl BodyBuffer {
    /// An empty buffer. `limit` bounds this body in bytes, 0 = no bound.
    pub(super) fn new(budget: Arc<BodyBudget>, limit: u64) -> Self {
        Self { budget, reserved: 0, limit, first: Bytes::new(), joined: BytesMut::new(), expected: 0 }
    }

    /// Tells how long the body is said to become. True if it fits the bound.
    pub(super) fn expect(&mut self, length: u64) -> bool {
        self.expected = usize::try_from(length).unwrap_or(usize::MAX).min(MAX_AHEAD);
        self.limit == 0 || length <= self.limit
    }

    /// Adds a piece.
    pub(super) fn push(&mut self, piece: Bytes) -> Result<(), BodyOverflow> {
        let bytes = piece.len() as u64;
        if self.limit != 0 && self.reserved.saturating_add(bytes) > self.limit {
            return Err(BodyOverflow::Request);
        }
        if !self.budget.reserve(bytes) {
            return Err(BodyOverflow::Total);
        }
        self.reserved += bytes;
        if self.first.is_empty() && self.joined.is_empty() {
            self.first = piece;
            return Ok(());
        }
        if self.joined.is_empty() {
            self.joined.reserve(self.expected.max(self.first.len() + piece.len()));
            self.joined.extend_from_slice(&std::mem::take(&mut self.first));
        }
        self.joined.extend_from_slice(&piece);
        Ok(())
    }

    /// The body, in one piece. The share of the budget stays until the buffer is dropped.
    pub(super) fn take(&mut self) -> Bytes {
        if self.joined.is_empty() { std::mem::take(&mut self.first) } else { self.joined.split().freeze() }
    }
}

impl Drop for BodyBuffer {
    fn drop(&mut self) {
        self.budget.release(self.reserved);
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
        assert!(buffer.expect(6));
        for piece in ["ab", "", "cd", "ef"] {
            buffer.push(Bytes::from_static(piece.as_bytes())).unwrap();
        }
        assert_eq!(buffer.take(), "abcdef");
    }

    #[test]
    fn both_bounds_hold_and_the_share_is_given_back() {
        let budget = Arc::new(BodyBudget::new(10));
        let mut one = BodyBuffer::new(Arc::clone(&budget), 8);
        assert!(!one.expect(9));
        assert_eq!(one.push(Bytes::from(vec![0; 9])), Err(BodyOverflow::Request));
        one.push(Bytes::from(vec![0; 8])).unwrap();
        let mut two = BodyBuffer::new(Arc::clone(&budget), 8);
        assert_eq!(two.push(Bytes::from(vec![0; 3])), Err(BodyOverflow::Total));
        two.push(Bytes::from(vec![0; 2])).unwrap();
        assert_eq!(budget.used(), 10);
        drop((one, two));
        assert_eq!(budget.used(), 0);
    }
}
