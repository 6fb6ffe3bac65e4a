//! Whether a pool has work, or had some not long ago.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

/// Different activation values remembered, at most. A pool has one to three triggers; one without a place knows the
/// present only.
pub const MAX_REMEMBERED: usize = 64;

/// The figures of one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Look {
    /// Requests that wait.
    pub waiting: u64,
    /// Requests that run.
    pub running: u64,
    /// When.
    pub at: Instant,
}

/// The judgement of one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DemandVerdict {
    /// There is work.
    Busy,
    /// There was, and the cool-down ends then.
    CoolingUntil(Instant),
    /// There is none.
    Idle,
}

impl DemandVerdict {
    /// True if the pool must have at least one server.
    pub(super) fn is_active(self) -> bool {
        self != Self::Idle
    }
}

/// When a pool last had work, for each number of waiting requests that counts as such.
///
/// A pool has work while a request runs, or more requests wait than the activation value. It is active while it has
/// work and for the cool-down after.
#[derive(Debug, Default)]
pub struct Activity {
    last: BTreeMap<u64, Option<Instant>>,
}

impl Activity {
    /// Takes in what was seen, for every activation value asked for so far.
    pub fn note(&mut self, look: Look) {
        for (activation, last) in &mut self.last {
            if busy(*activation, look) {
                *last = Some(look.at);
            }
        }
    }

    /// Judges by what was seen now and before.
    pub(super) fn judge(&mut self, activation: u64, cool_down: Duration, look: Look) -> DemandVerdict {
        if self.last.len() < MAX_REMEMBERED {
            self.last.entry(activation).or_default();
        }
        self.note(look);
        if busy(activation, look) {
            return DemandVerdict::Busy;
        }
        let last = self.last.get(&activation).copied().flatten();
        match last.and_then(|last| last.checked_add(cool_down)) {
            Some(end) if look.at < end => DemandVerdict::CoolingUntil(end),
            _ => DemandVerdict::Idle,
        }
    }
}

fn busy(activation: u64, look: Look) -> bool {
    look.running > 0 || look.waiting > activation
}

#[cfg(test)]
mod tests {
    use super::*;

    const COOL_DOWN: Duration = Duration::from_secs(30);

    fn look(waiting: u64, running: u64, at: Instant) -> Look {
        Look { waiting, running, at }
    }

    #[test]
    fn a_pool_is_active_while_it_has_work_and_for_the_cool_down_after() {
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let mut activity = Activity::default();
        assert_eq!(activity.judge(0, COOL_DOWN, look(0, 0, start)), DemandVerdict::Idle);
        assert_eq!(activity.judge(0, COOL_DOWN, look(1, 0, after(1))), DemandVerdict::Busy);
        assert_eq!(activity.judge(0, COOL_DOWN, look(0, 3, after(2))), DemandVerdict::Busy);
        let cooling = DemandVerdict::CoolingUntil(after(32));
        assert_eq!(activity.judge(0, COOL_DOWN, look(0, 0, after(3))), cooling);
        assert_eq!(activity.judge(0, COOL_DOWN, look(0, 0, after(31))), cooling);
        assert_eq!(activity.judge(0, COOL_DOWN, look(0, 0, after(32))), DemandVerdict::Idle);
    }

    #[test]
    fn few_waiting_requests_do_not_wake_a_pool_but_a_running_one_keeps_it() {
        let start = Instant::now();
        let mut activity = Activity::default();
        assert_eq!(activity.judge(5, COOL_DOWN, look(5, 0, start)), DemandVerdict::Idle);
        assert_eq!(activity.judge(5, COOL_DOWN, look(0, 1, start)), DemandVerdict::Busy);
        assert_eq!(activity.judge(0, COOL_DOWN, look(1, 0, start)), DemandVerdict::Busy);
        assert_eq!(activity.judge(5, COOL_DOWN, look(6, 0, start)), DemandVerdict::Busy);
    }

    #[test]
    fn work_seen_between_questions_counts() {
        let start = Instant::now();
        let mut activity = Activity::default();
        activity.judge(0, COOL_DOWN, look(0, 0, start));
        activity.note(look(1, 0, start + Duration::from_secs(1)));
        let verdict = activity.judge(0, COOL_DOWN, look(0, 0, start + Duration::from_secs(2)));
        assert_eq!(verdict, DemandVerdict::CoolingUntil(start + Duration::from_secs(31)));
    }

    #[test]
    fn what_is_remembered_has_a_bound() {
        let start = Instant::now();
        let mut activity = Activity::default();
        for activation in 0..10_000 {
            activity.judge(activation, COOL_DOWN, look(0, 0, start));
        }
        assert_eq!(activity.last.len(), MAX_REMEMBERED);
        assert_eq!(activity.judge(9_999, COOL_DOWN, look(0, 1, start)), DemandVerdict::Busy);
    }

    #[test]
    fn a_cool_down_of_nothing_ends_with_the_work() {
        let start = Instant::now();
        let mut activity = Activity::default();
        assert_eq!(activity.judge(0, Duration::ZERO, look(1, 0, start)), DemandVerdict::Busy);
        assert_eq!(activity.judge(0, Duration::ZERO, look(0, 0, start)), DemandVerdict::Idle);
    }
}
