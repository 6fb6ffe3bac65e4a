//! The bound in bytes that all bodies and unfinished messages share.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::{Reason, Refusal};
use crate::metrics::ExtProcMetrics;

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

    /// Bytes held now.
    pub fn used(&self) -> u64 {
        self.used.load(Relaxed)
    }

    /// The bound in bytes; 0 = none.
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// The refusal of a request that this budget has no room for.
    pub fn refusal(&self) -> Refusal {
        let text = format!("request bodies being buffered exceed the limit of {} bytes", self.limit);
        Refusal::new(Reason::BuffersFull, text)
    }

    fn reserve(&self, bytes: u64) -> bool {
        let fits = |used: u64| {
            let after = used.saturating_add(bytes);
            (self.limit == 0 || after <= self.limit).then_some(after)
        };
        let reserved = self.used.fetch_update(Relaxed, Relaxed, fits).is_ok();
        if reserved {
            self.show(bytes.cast_signed());
        }
        reserved
    }

    fn reserve_beyond(&self, bytes: u64) {
        self.used.fetch_add(bytes, Relaxed);
        self.show(bytes.cast_signed());
    }

    fn release(&self, bytes: u64) {
        self.used.fetch_sub(bytes, Relaxed);
        self.show(-bytes.cast_signed());
    }

    fn show(&self, change: i64) {
        if let Some(metrics) = &self.metrics {
            metrics.add_buffered_bytes(change);
        }
    }
}

/// Bytes of a budget that one holder uses. They are given back when it is dropped.
#[derive(Debug)]
pub struct Share {
    budget: Arc<BodyBudget>,
    bytes: u64,
}

impl Share {
    /// A share of nothing yet.
    pub fn new(budget: Arc<BodyBudget>) -> Self {
        Self { budget, bytes: 0 }
    }

    /// Takes more bytes. False, and nothing taken, if the budget has no room for them.
    pub fn grow(&mut self, bytes: u64) -> bool {
        let fits = bytes == 0 || self.budget.reserve(bytes);
        if fits {
            self.bytes += bytes;
        }
        fits
    }

    /// Takes more bytes even if the budget has no room for them: for what must not fail.
    pub fn grow_beyond(&mut self, bytes: u64) {
        self.budget.reserve_beyond(bytes);
        self.bytes += bytes;
    }

    /// Gives bytes back, at most all of them.
    pub fn shrink(&mut self, bytes: u64) {
        let bytes = bytes.min(self.bytes);
        if bytes > 0 {
            self.bytes -= bytes;
            self.budget.release(bytes);
        }
    }

    /// Takes over what another share of the same budget holds.
    pub fn absorb(&mut self, mut other: Self) {
        self.bytes += std::mem::take(&mut other.bytes);
    }

    /// Everything that this share holds, as a share of its own.
    #[must_use]
    pub fn take(&mut self) -> Self {
        Self { budget: Arc::clone(&self.budget), bytes: std::mem::take(&mut self.bytes) }
    }

    /// The budget's bound in bytes; 0 = none.
    pub fn limit(&self) -> u64 {
        self.budget.limit
    }

    /// The refusal of a request that the budget has no room for.
    pub fn refusal(&self) -> Refusal {
        self.budget.refusal()
    }

    /// Bytes held.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.shrink(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_keep_within_the_budget_and_give_back_what_they_hold() {
        let budget = Arc::new(BodyBudget::new(10));
        let mut one = Share::new(Arc::clone(&budget));
        assert!(one.grow(8));
        let mut two = Share::new(Arc::clone(&budget));
        assert!(!two.grow(3));
        assert!(two.grow(2));
        one.shrink(100);
        assert_eq!((one.bytes(), budget.used()), (0, 2));
        let taken = two.take();
        assert_eq!((two.bytes(), taken.bytes()), (0, 2));
        drop(one);
        assert_eq!(budget.used(), 2);
        two.absorb(taken);
        assert_eq!((two.bytes(), budget.used()), (2, 2));
        drop(two);
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn what_must_not_fail_is_counted_beyond_the_bound() {
        let budget = Arc::new(BodyBudget::new(10));
        let mut share = Share::new(Arc::clone(&budget));
        share.grow_beyond(15);
        assert_eq!(budget.used(), 15);
        assert!(!share.grow(1));
        drop(share);
        assert_eq!(budget.used(), 0);
    }
}
