//! Decides when changes are applied: many events close together become one snapshot, and bad news does not wait long.

use std::time::{Duration, Instant};

/// Changes this close together belong together: the two halves of a swap, the pods of a scale-up.
pub(super) const QUIET: Duration = Duration::from_millis(25);
/// Longest delay of a change that takes an endpoint away or moves it.
pub(super) const LOSS_WAIT: Duration = Duration::from_millis(100);
/// Longest delay of a change that only adds.
pub(super) const GAIN_WAIT: Duration = Duration::from_secs(1);

/// The effect of a change on requests that the present snapshot would send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Urgency {
    /// An endpoint may be gone, or be somewhere else.
    Loss,
    /// There may be more endpoints, or other rules; the present snapshot stays usable.
    Gain,
}

/// The time at which the changes so far are due.
#[derive(Debug, Default)]
pub(super) struct Settle {
    last: Option<Instant>,
    limit: Option<Instant>,
}

impl Settle {
    /// A change happened.
    pub(super) fn note(&mut self, urgency: Urgency, now: Instant) {
        let wait = match urgency {
            Urgency::Loss => LOSS_WAIT,
            Urgency::Gain => GAIN_WAIT,
        };
        let limit = now + wait;
        self.limit = Some(self.limit.map_or(limit, |present| present.min(limit)));
        self.last = Some(now);
    }

    /// Time at which the changes are to be applied; `None` without changes.
    pub(super) fn due(&self) -> Option<Instant> {
        let (last, limit) = (self.last?, self.limit?);
        Some((last + QUIET).min(limit))
    }

    /// They have been.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Times at which a snapshot is made of these events (milliseconds).
    fn applied(events: &[(u64, Urgency)]) -> Vec<u64> {
        let start = Instant::now();
        let mut settle = Settle::default();
        let mut applied = Vec::new();
        for (at, urgency) in events {
            let now = start + Duration::from_millis(*at);
            while let Some(due) = settle.due().filter(|due| *due <= now) {
                applied.push((due - start).as_millis() as u64);
                settle.clear();
            }
            settle.note(*urgency, now);
        }
        applied.extend(settle.due().map(|due| (due - start).as_millis() as u64));
        applied
    }

    #[test]
    fn five_hundred_pods_in_a_second_make_one_snapshot() {
        let events: Vec<_> = (0..500).map(|number| (number * 2, Urgency::Gain)).collect();
        assert_eq!(applied(&events), [1000]);
    }

    #[test]
    fn two_halves_of_a_swap_make_one_snapshot() {
        assert_eq!(applied(&[(0, Urgency::Loss), (20, Urgency::Loss)]), [45]);
    }

    #[test]
    fn a_loss_amid_a_long_run_of_gains_is_applied_within_a_tenth_of_a_second() {
        let mut events: Vec<_> = (0..40).map(|number| (number * 10, Urgency::Gain)).collect();
        events[10].1 = Urgency::Loss;
        assert_eq!(applied(&events)[0], 200);
    }

    #[test]
    fn a_lone_change_is_applied_at_once_but_for_the_quiet_time() {
        assert_eq!(applied(&[(5, Urgency::Gain), (500, Urgency::Loss)]), [30, 525]);
    }
}
