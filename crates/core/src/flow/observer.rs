//! The interface for everybody who wants to know how the queues are doing.

use std::time::Duration;

/// Hears what the queues do, for metrics.
pub trait Observer: Send + Sync {
    /// One look at the queues took this long. Called by the task that looked, outside of the lock.
    fn cycle(&self, took: Duration);

    /// A running request was told to stop for a request of priority `demand`. Called under the lock.
    fn revocation_issued(&self, demand: i32);

    /// A request that was told to stop has ended, or did not in time. Called under the lock.
    fn revocation_ended(&self, confirmed: bool, took: Duration);
}

/// An observer that does nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Observer for Silent {
    fn cycle(&self, _: Duration) {}
    fn revocation_issued(&self, _: i32) {}
    fn revocation_ended(&self, _: bool, _: Duration) {}
}
