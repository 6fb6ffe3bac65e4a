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
}
