//! The interface for everybody who wants to know what happens to waiting requests.

use std::time::Duration;

use super::gate::Arrival;
use super::outcome::Outcome;

/// Hears what happens to requests, for metrics. The task of the request calls the methods, outside of the lock, unless
/// a method says otherwise.
pub trait Observer: Send + Sync {
    /// A request asks to be released. Followed by exactly one [`Observer::finalised`].
    fn entered(&self, arrival: &Arrival);

    /// The queueing step took this long; `outcome` if it was also the last one.
    fn enqueued(&self, arrival: &Arrival, outcome: Option<Outcome>, took: Duration);

    /// A request was released or not, after this wait.
    fn finalised(&self, arrival: &Arrival, outcome: Outcome, waited: Duration);

    /// One look at the queues took this long. Called by whoever caused it.
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
    fn entered(&self, _: &Arrival) {}
    fn enqueued(&self, _: &Arrival, _: Option<Outcome>, _: Duration) {}
    fn finalised(&self, _: &Arrival, _: Outcome, _: Duration) {}
    fn cycle(&self, _: Duration) {}
    fn revocation_issued(&self, _: i32) {}
    fn revocation_ended(&self, _: bool, _: Duration) {}
}
