//! The one bound on the memory of all prefix indexes of the process.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Default bound: 256 MiB, which is about five million (block, endpoint) entries: 160 endpoints with full default
/// caches.
pub const DEFAULT_PREFIX_MEMORY_BYTES: u64 = 256 << 20;

/// The memory that prefix indexes may use together, and the memory that they use, in bytes.
///
/// It counts what their tables have allocated. An index that has passed the bound forgets entries until it is below it
/// again, before the request that made it grow goes on: the oldest entries of the endpoint that has most. The bound can
/// therefore be passed for a moment, by the blocks of the requests that are being recorded at that moment and the
/// growth of one table each.
#[derive(Debug)]
pub struct PrefixMemory {
    limit: u64,
    used: AtomicU64,
    forgotten: AtomicU64,
}

impl PrefixMemory {
    /// A bound of `limit` bytes, for the indexes that share it.
    pub fn new(limit: u64) -> Arc<Self> {
        Arc::new(Self { limit, used: AtomicU64::new(0), forgotten: AtomicU64::new(0) })
    }

    /// The bound, in bytes.
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// The memory in use, in bytes.
    pub fn used(&self) -> u64 {
        self.used.load(Relaxed)
    }

    /// Entries forgotten because of the bound, ever.
    pub fn forgotten(&self) -> u64 {
        self.forgotten.load(Relaxed)
    }

    /// True if more is used than may be.
    pub(super) fn is_exceeded(&self) -> bool {
        self.used() > self.limit()
    }

    /// Records that something that took `before` bytes takes `after` bytes now.
    pub(super) fn resized(&self, before: usize, after: usize) {
        if after >= before {
            self.used.fetch_add((after - before) as u64, Relaxed);
        } else {
            self.used.fetch_sub((before - after) as u64, Relaxed);
        }
    }

    /// Counts entries forgotten because of the bound. The first ones are told.
    pub(super) fn forgot(&self, entries: u64) {
        if self.forgotten.fetch_add(entries, Relaxed) == 0 {
            let (used, limit) = (self.used(), self.limit());
            tracing::warn!(used, limit, "prefix index memory is at its bound, forgetting the oldest entries");
        }
    }
}
