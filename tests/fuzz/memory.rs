//! How much memory a piece of work held at its highest.

use peakmem_alloc::{INSTRUMENTED_SYSTEM, PeakMemAlloc, PeakMemAllocTrait};

#[global_allocator]
static ALLOCATOR: &PeakMemAlloc<std::alloc::System> = &INSTRUMENTED_SYSTEM;

/// Begins to measure. One piece of work at a time: the count is the process's.
pub(crate) fn begin() {
    ALLOCATOR.reset_peak_memory();
}

/// Bytes held at the highest since the beginning, beyond what was held then.
pub(crate) fn peak() -> usize {
    ALLOCATOR.get_peak_memory()
}
