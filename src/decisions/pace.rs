//! How many requests are noted. A note costs as much as a third of a small request, so that a flood of requests must not
//! make as many notes.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// Lets through a burst, and then so many in a second. It is the generic cell rate algorithm: one number holds the time
/// at which all that were let through would be due at the even rate.
#[derive(Debug)]
pub(super) struct Pace {
    start: Instant,
    /// Nanoseconds between two at the even rate.
    gap: u64,
    /// Nanoseconds by which the due time may be ahead of the clock.
    ahead: u64,
    due: AtomicU64,
}

impl Pace {
    /// A pace of `per_second`, after a burst of `burst`. Both are at least 1.
    pub(super) fn new(per_second: u32, burst: u32, start: Instant) -> Self {
        let gap = Duration::from_secs(1).as_nanos() as u64 / u64::from(per_second.max(1));
        Self { start, gap, ahead: gap * u64::from(burst.max(1)), due: AtomicU64::new(0) }
    }

    /// True if the one that comes at `now` is within the pace.
    pub(super) fn lets(&self, now: Instant) -> bool {
        let now = u64::try_from(now.saturating_duration_since(self.start).as_nanos()).unwrap_or(u64::MAX);
        let next = |due: u64| {
            let next = due.max(now).checked_add(self.gap)?;
            (next - now <= self.ahead).then_some(next)
        };
        self.due.fetch_update(Relaxed, Relaxed, next).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_let_through_and_then_as_many_as_the_rate_says() {
        let start = Instant::now();
        let pace = Pace::new(1000, 50, start);
        let mut at = start + Duration::from_secs(5);
        assert_eq!((0..200).filter(|_| pace.lets(at)).count(), 50);
        // 20,000 in a second.
        let let_through = (0..20_000).filter(|_| {
            at += Duration::from_micros(50);
            pace.lets(at)
        });
        assert_eq!(let_through.count(), 1000);
        // The pause earns a burst and no more.
        at += Duration::from_hours(1);
        assert_eq!((0..200).filter(|_| pace.lets(at)).count(), 50);
    }

    #[test]
    fn whoever_comes_at_the_rate_is_always_let_through() {
        let start = Instant::now();
        let pace = Pace::new(1000, 1, start);
        assert!((1..5000).all(|number| pace.lets(start + Duration::from_millis(number))));
    }
}
