//! When requests wait for a preparer, and when they do not. Pure: the time comes in.
//!
//! Requests have one patience together. Each wait that comes to nothing takes from it, each answer in time gives a
//! tenth back. Where none is left, nobody is asked any more; after a pause a probe, for which no request waits, shows
//! whether answers come again. A preparer that answers, but slowly, is asked for requests that wait for other reasons.

use std::time::{Duration, Instant};

/// Failures in a row after which nobody is asked for a while.
const MOST_FAILURES: u32 = 5;
/// The first pause.
const SHORTEST_PAUSE: Duration = Duration::from_secs(1);
/// The longest pause; each one is twice as long as the one before.
const LONGEST_PAUSE: Duration = Duration::from_mins(1);
/// Answers in time, in a row, after which a pause is a short one again.
const TRUSTED_AFTER: u32 = 10;
/// Share of the patience below which none is left.
const LEAST_SHARE: u32 = 50;
/// Share of the patience that an answer gives back.
const SHARE_OF_AN_ANSWER: u32 = 10;
/// Share of the patience that there is after a probe was answered.
const SHARE_OF_A_PROBE: u32 = 5;

/// How a request treats the preparer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// Begin; the request may wait.
    Run,
    /// Begin only if the request waits for another reason.
    WhileHeld,
    /// Do nothing.
    Skip,
    /// Do nothing for the request, but begin a probe.
    Probe,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Closed,
    /// It answers, but too slowly to wait for.
    Slow {
        probe_at: Option<Instant>,
    },
    Open {
        /// Time of the next probe; `None` while a probe runs.
        probe_at: Option<Instant>,
    },
}

/// The state of one preparer.
#[derive(Debug)]
pub(super) struct Breaker {
    limit: Duration,
    state: State,
    /// The rest of the patience.
    left: Duration,
    failures: u32,
    /// Answers in time, in a row.
    answers: u32,
    pause: Duration,
}

impl Breaker {
    /// A breaker that lets requests wait for `limit` together without getting anything.
    pub(super) fn new(limit: Duration) -> Self {
        Self { limit, state: State::Closed, left: limit, failures: 0, answers: 0, pause: SHORTEST_PAUSE }
    }

    /// How a request that comes now treats the preparer. After [`Mode::Probe`] call [`Breaker::probed`].
    pub(super) fn mode(&mut self, now: Instant) -> Mode {
        match &mut self.state {
            State::Closed => Mode::Run,
            State::Slow { probe_at } | State::Open { probe_at } if probe_at.is_some_and(|at| at <= now) => {
                *probe_at = None;
                Mode::Probe
            }
            State::Slow { .. } => Mode::WhileHeld,
            State::Open { .. } => Mode::Skip,
        }
    }

    /// The longest time that a request may wait for this preparer alone.
    pub(super) fn patience(&self) -> Duration {
        if self.state == State::Closed { self.left } else { Duration::ZERO }
    }

    /// True while no request waits for this.
    pub(super) fn is_suspended(&self) -> bool {
        self.state != State::Closed
    }

    /// An answer came after `took`.
    pub(super) fn answered(&mut self, took: Duration) {
        self.failures = 0;
        if took > self.limit {
            return;
        }
        self.left = self.limit.min(self.left + self.limit / SHARE_OF_AN_ANSWER);
        self.answers = self.answers.saturating_add(1);
        if self.answers >= TRUSTED_AFTER {
            self.pause = SHORTEST_PAUSE;
        }
        if matches!(self.state, State::Slow { .. }) && self.left >= self.limit / SHARE_OF_A_PROBE {
            self.state = State::Closed;
        }
    }

    /// A request waited for `waited` and got nothing.
    pub(super) fn lost(&mut self, waited: Duration, now: Instant) {
        self.left = self.left.saturating_sub(waited);
        self.answers = 0;
        if self.state == State::Closed && self.left < self.limit / LEAST_SHARE {
            self.open(now);
        }
    }

    /// The preparer that was asked has failed.
    pub(super) fn failed(&mut self, now: Instant) {
        self.failures += 1;
        self.answers = 0;
        if self.failures >= MOST_FAILURES && !matches!(self.state, State::Open { .. }) {
            self.open(now);
        }
    }

    /// A probe was answered after this time, or not at all.
    pub(super) fn probed(&mut self, took: Option<Duration>, now: Instant) {
        match took {
            None => self.open(now),
            Some(took) if took <= self.limit => {
                (self.state, self.failures) = (State::Closed, 0);
                self.left = self.left.max(self.limit / SHARE_OF_A_PROBE);
            }
            Some(_) => {
                self.failures = 0;
                self.state = State::Slow { probe_at: Some(self.next(now)) };
            }
        }
    }

    fn open(&mut self, now: Instant) {
        (self.left, self.failures) = (Duration::ZERO, 0);
        self.state = State::Open { probe_at: Some(self.next(now)) };
    }

    /// The time at which the pause that begins now ends.
    fn next(&mut self, now: Instant) -> Instant {
        let pause = self.pause;
        self.pause = (pause * 2).min(LONGEST_PAUSE);
        now + pause
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MS: Duration = Duration::from_millis(1);
    const LIMIT: Duration = Duration::from_millis(50);

    #[test]
    fn requests_lose_the_patience_once_and_then_nothing() {
        let now = Instant::now();
        let mut breaker = Breaker::new(LIMIT);
        assert_eq!((breaker.mode(now), breaker.patience()), (Mode::Run, LIMIT));
        breaker.lost(30 * MS, now);
        assert_eq!((breaker.mode(now), breaker.patience()), (Mode::Run, 20 * MS));
        breaker.lost(20 * MS, now);
        assert_eq!((breaker.mode(now), breaker.patience()), (Mode::Skip, Duration::ZERO));
        // One probe after a pause, and nobody else beside it.
        assert_eq!(breaker.mode(now + SHORTEST_PAUSE), Mode::Probe);
        assert_eq!(breaker.mode(now + LONGEST_PAUSE), Mode::Skip);
    }

    #[test]
    fn pauses_grow_until_answers_come_again_in_a_row() {
        let mut now = Instant::now();
        let mut breaker = Breaker::new(LIMIT);
        breaker.lost(LIMIT, now);
        let mut pauses = Vec::new();
        for _ in 0..8 {
            let began = now;
            while breaker.mode(now) != Mode::Probe {
                now += SHORTEST_PAUSE;
            }
            pauses.push((now - began).as_secs());
            breaker.probed(None, now);
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60]);
        while breaker.mode(now) != Mode::Probe {
            now += SHORTEST_PAUSE;
        }
        breaker.probed(Some(MS), now);
        assert_eq!((breaker.mode(now), breaker.patience()), (Mode::Run, LIMIT / 5));
        (0..TRUSTED_AFTER).for_each(|_| breaker.answered(MS));
        assert_eq!(breaker.patience(), LIMIT);
        breaker.lost(LIMIT, now);
        assert_eq!(breaker.mode(now + SHORTEST_PAUSE), Mode::Probe);
    }

    #[test]
    fn who_answers_slowly_is_asked_only_for_requests_that_wait_anyway() {
        let now = Instant::now();
        let mut breaker = Breaker::new(LIMIT);
        breaker.lost(LIMIT, now);
        assert_eq!(breaker.mode(now + SHORTEST_PAUSE), Mode::Probe);
        breaker.probed(Some(300 * MS), now + SHORTEST_PAUSE);
        assert_eq!((breaker.mode(now), breaker.patience()), (Mode::WhileHeld, Duration::ZERO));
        // Slow answers change nothing, quick ones do.
        breaker.answered(300 * MS);
        assert_eq!(breaker.mode(now), Mode::WhileHeld);
        breaker.answered(2 * MS);
        breaker.answered(2 * MS);
        assert_eq!((breaker.mode(now), breaker.patience()), (Mode::Run, 10 * MS));
        assert!(!breaker.is_suspended());
    }

    #[test]
    fn failures_in_a_row_suspend_it_though_nobody_waited_long() {
        let now = Instant::now();
        let mut breaker = Breaker::new(LIMIT);
        (1..MOST_FAILURES).for_each(|_| breaker.failed(now));
        breaker.answered(MS);
        (1..MOST_FAILURES).for_each(|_| breaker.failed(now));
        assert_eq!(breaker.mode(now), Mode::Run);
        breaker.failed(now);
        assert_eq!(breaker.mode(now), Mode::Skip);
    }

    #[derive(Clone, Debug)]
    enum Event {
        Answered(u64),
        Lost,
        Failed,
        Probed(Option<u64>),
        Later(u64),
    }

    fn events() -> impl Strategy<Value = Vec<Event>> {
        let event = prop_oneof![
            (0u64..200).prop_map(Event::Answered),
            Just(Event::Lost),
            Just(Event::Failed),
            prop::option::of(0u64..200).prop_map(Event::Probed),
            (0u64..5000).prop_map(Event::Later),
        ];
        prop::collection::vec(event, 0..200)
    }

    proptest! {
        #[test]
        fn what_requests_lose_is_bounded_by_the_patience_and_what_answers_gave_back(events in events()) {
            let mut now = Instant::now();
            let mut breaker = Breaker::new(LIMIT);
            let (mut lost, mut given, mut probing) = (Duration::ZERO, LIMIT, false);
            for event in events {
                match event {
                    Event::Later(millis) => now += Duration::from_millis(millis),
                    Event::Probed(took) if probing => {
                        probing = false;
                        let took = took.map(Duration::from_millis);
                        given += if took.is_some() { LIMIT / SHARE_OF_A_PROBE } else { Duration::ZERO };
                        breaker.probed(took, now);
                    }
                    Event::Probed(_) => {}
                    event => match (breaker.mode(now), event) {
                        (Mode::Probe, _) => probing = true,
                        (Mode::Run, Event::Lost) => {
                            // Who begins now waits no longer than this.
                            let patience = breaker.patience();
                            prop_assert!(patience <= LIMIT);
                            lost += patience;
                            breaker.lost(patience, now);
                        }
                        (Mode::Run | Mode::WhileHeld, Event::Answered(millis)) => {
                            given += LIMIT / SHARE_OF_AN_ANSWER;
                            breaker.answered(Duration::from_millis(millis));
                        }
                        (Mode::Run | Mode::WhileHeld, Event::Failed) => breaker.failed(now),
                        _ => {}
                    },
                }
                prop_assert!(lost <= given, "{lost:?} of {given:?}");
            }
        }
    }
}
