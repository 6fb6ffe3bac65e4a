//! Events that repeat: one line now and then, with a count of what was left out.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Lets one event through in each period and counts the others. One for each message, kept beside what the message is
/// about.
///
/// ```text
/// if let Some(suppressed) = self.failures.due(Instant::now()) {
///     warn!(endpoint = %id, error = %error, suppressed, "scrape failed");
/// }
/// ```
#[derive(Debug)]
pub struct Repeat {
    period: Duration,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    last: Option<Instant>,
    suppressed: u64,
}

impl Repeat {
    /// Lets the first event through, and after that one in each `period`.
    pub const fn every(period: Duration) -> Self {
        Self { period, state: Mutex::new(State { last: None, suppressed: 0 }) }
    }

    /// If the event may be written now: how many were not since the last one that was.
    pub fn due(&self, now: Instant) -> Option<u64> {
        let mut state = self.state.lock();
        if state.last.is_some_and(|last| now.saturating_duration_since(last) < self.period) {
            state.suppressed += 1;
            return None;
        }
        state.last = Some(now);
        Some(std::mem::take(&mut state.suppressed))
    }

    /// The repetition is over; the next event is written at once.
    pub fn reset(&self) {
        *self.state.lock() = State { last: None, suppressed: 0 };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_event_a_period_passes_and_says_how_many_did_not() {
        let repeat = Repeat::every(Duration::from_secs(30));
        let start = Instant::now();
        let at = |seconds| repeat.due(start + Duration::from_secs(seconds));
        assert_eq!(
            [at(0), at(1), at(29), at(30), at(31), at(90)],
            [Some(0), None, None, Some(2), None, Some(1)]
        );
        repeat.reset();
        assert_eq!(at(91), Some(0));
    }
}
