//! Tells a client that was turned away when to come again.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// Longest time that a client is asked to wait before the spread, in seconds.
const LONGEST_BASE: u64 = 40;

/// Wait where nothing better is known.
pub(super) const DEFAULT_WAIT: Duration = Duration::from_secs(1);

/// Wait for a pool that has no endpoints, as long as no start was observed.
pub(super) const DEFAULT_START: Duration = Duration::from_secs(5);

/// The value of `Retry-After` for an expected wait: whole seconds from 1 to 60. `share` is any number; it spreads
/// clients over half as much again, so that they do not come back all at once.
pub fn retry_after_seconds(expected: Duration, share: u64) -> u64 {
    let whole = expected.as_secs() + u64::from(expected.subsec_nanos() > 0);
    let base = whole.clamp(1, LONGEST_BASE);
    base + share % (base.div_ceil(2) + 1)
}

/// The pace at which requests end: a moving mean of the time between two ends. The caller says what time it is.
#[derive(Debug)]
pub(super) struct Pace {
    epoch: Instant,
    /// Nanoseconds from the epoch to the last end; 0 before the first.
    last: AtomicU64,
    /// Mean nanoseconds between ends; 0 before the second.
    mean: AtomicU64,
}

impl Pace {
    pub(super) fn new(epoch: Instant) -> Self {
        Self { epoch, last: AtomicU64::new(0), mean: AtomicU64::new(0) }
    }

    /// A request ended. Ends that come at the same time on several threads may count as one gap, which the mean
    /// forgives.
    pub(super) fn note(&self, now: Instant) {
        let at = self.nanos(now);
        let last = self.last.swap(at, Relaxed);
        if last == 0 {
            return;
        }
        let gap = at.saturating_sub(last).max(1);
        let mean = self.mean.load(Relaxed);
        self.mean.store(if mean == 0 { gap } else { mean - mean / 8 + gap / 8 }, Relaxed);
    }

    /// Time in which `requests` end, if it goes on as before; `None` if that is not known yet. Ends that are overdue
    /// make the pace slower.
    pub(super) fn time_for(&self, requests: u64, now: Instant) -> Option<Duration> {
        let mean = self.mean.load(Relaxed);
        if mean == 0 {
            return None;
        }
        let overdue = self.nanos(now).saturating_sub(self.last.load(Relaxed));
        Some(Duration::from_nanos(mean.saturating_mul(requests).max(overdue.min(mean.saturating_mul(8)))))
    }

    fn nanos(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.epoch).as_nanos()).unwrap_or(u64::MAX).max(1)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_expected_wait_follows_the_pace_and_the_queue() {
        let epoch = Instant::now();
        let at = |millis| epoch + Duration::from_millis(millis);
        let pace = Pace::new(epoch);
        assert_eq!(pace.time_for(10, at(0)), None);
        pace.note(at(1000));
        assert_eq!(pace.time_for(10, at(1000)), None);
        for end in 2..50 {
            pace.note(at(1000 * end));
        }
        let wait = pace.time_for(10, at(49_000)).unwrap();
        assert!(wait.abs_diff(Duration::from_secs(10)) < Duration::from_millis(1), "{wait:?}");
        // Twice as fast, then stalled.
        for end in 1..100 {
            pace.note(at(49_000 + 500 * end));
        }
        assert!(pace.time_for(10, at(98_500)).unwrap() < Duration::from_millis(5100));
        assert!(pace.time_for(1, at(102_000)).unwrap() > Duration::from_millis(3400));
    }

    proptest! {
        #[test]
        fn a_client_waits_from_one_second_to_a_minute_and_at_most_half_as_long_again(
            millis in 0_u64..200_000,
            share in any::<u64>(),
        ) {
            let seconds = retry_after_seconds(Duration::from_millis(millis), share);
            let base = millis.div_ceil(1000).clamp(1, 40);
            prop_assert!((1..=60).contains(&seconds));
            prop_assert!(seconds >= base && seconds <= base + base.div_ceil(2));
        }
    }
}
