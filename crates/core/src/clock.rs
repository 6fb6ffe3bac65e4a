//! The time: that of the machine, or on a thread that simulates, a virtual one.
//!
//! Pure code takes its `now` from its caller. Whoever is at the top of such calls asks here, so that the same code
//! decides requests in virtual time.

use std::cell::Cell;
use std::time::Instant;

thread_local! {
    static VIRTUAL: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// The time now.
pub fn now() -> Instant {
    simulated().unwrap_or_else(Instant::now)
}

/// The virtual time of this thread; `None` where the machine's counts.
pub fn simulated() -> Option<Instant> {
    VIRTUAL.get()
}

/// Sets the virtual time of this thread; `None` makes the machine's count again.
pub fn simulate(now: Option<Instant>) {
    VIRTUAL.set(now);
}

/// Lets the time of this thread stand still at `now` until what is returned is dropped. Then counts what counted before.
pub fn stand_still(now: Instant) -> Standstill {
    Standstill(VIRTUAL.replace(Some(now)))
}

/// The time of a thread stands still. Made by [`stand_still`], and to be dropped on the same thread.
#[derive(Debug)]
#[must_use = "the time goes on when this is dropped"]
pub struct Standstill(Option<Instant>);

impl Drop for Standstill {
    fn drop(&mut self) {
        simulate(self.0);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_virtual_time_of_a_thread_stands_still_until_it_is_set_and_is_no_other_threads() {
        let then = Instant::now() + Duration::from_hours(1);
        simulate(Some(then));
        assert_eq!((now(), now()), (then, then));
        let other = std::thread::spawn(simulated).join().unwrap();
        assert_eq!(other, None);
        simulate(None);
        assert!(now() < then);
    }

    #[test]
    fn the_time_that_counted_before_counts_again_after_a_standstill() {
        let hour = Duration::from_hours(1);
        let (first, second) = (Instant::now() + hour, Instant::now() + 2 * hour);
        let outer = stand_still(first);
        {
            let _inner = stand_still(second);
            assert_eq!(now(), second);
        }
        assert_eq!(now(), first);
        drop(outer);
        assert_eq!(simulated(), None);
    }
}
