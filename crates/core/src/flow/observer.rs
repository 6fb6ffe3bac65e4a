//! The interface of those who count the work of the queues.

use std::time::Duration;

/// Is told of the work of the queues, for metrics.
pub trait Observer: Send + Sync {
    /// One operation on the queues took this long. The task of the operation calls this after it has released the lock.
    fn cycle(&self, took: Duration);

    /// A running request was told to stop for a request of priority `demand`. Called under the lock.
    fn revocation_issued(&self, demand: i32);

    /// A request that was told to stop has ended, or did not end in time. The call holds the lock.
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
