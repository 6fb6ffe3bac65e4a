//! The turn of each session, for fairness by turns.
//!
//! A session is the sequence of all requests with one fairness id. Its turn is the number of requests that were
//! released for it, plus one. A session without a request in flight begins at turn one again once it has been idle for
//! too long, because its prefix is probably no longer cached.

use std::sync::Arc;

use super::accounts::{Accounts, Forgotten, Idleness};
use super::ordering::{Nanos, later};
use super::settings::TurnPriority;

/// The turn of each session.
#[derive(Debug)]
pub(super) struct Sessions {
    parameters: TurnPriority,
    accounts: Accounts<Session>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Session {
    /// The number of requests that were released since the session began.
    released: u64,
    in_flight: u64,
    /// The time at which the last request was released or ended.
    latest: Nanos,
}

impl Sessions {
    pub(super) fn new(parameters: TurnPriority) -> Self {
        let idleness = Idleness { ttl: parameters.eviction_ttl, sweep: parameters.eviction_sweep };
        Self { parameters, accounts: Accounts::new(idleness) }
    }

    pub(super) fn parameters(&self) -> &TurnPriority {
        &self.parameters
    }

    /// The number of the session's next request, from 1.
    pub(super) fn turn(&self, id: &str, now: Nanos) -> f64 {
        let session = self.accounts.get(id).filter(|session| !self.is_over(session, now));
        session.map_or(1.0, |session| session.released as f64 + 1.0)
    }

    fn is_over(&self, session: &Session, now: Nanos) -> bool {
        let idle = |inactivity| now > later(session.latest, inactivity);
        session.in_flight == 0 && self.parameters.inactivity.is_some_and(idle)
    }

    /// Notes that a request was released that waited at `turn`.
    pub(super) fn released(&mut self, id: &Arc<str>, turn: f64, now: Nanos) {
        let mut forgotten = Forgotten::new();
        self.accounts.sweep(now, &mut forgotten);
        self.accounts.touch(id, now, &mut forgotten, |session| {
            session.released = turn as u64;
            session.in_flight += 1;
            session.latest = now;
        });
    }

    /// Another replica has released so many requests of the session.
    pub(super) fn released_elsewhere(&mut self, id: &Arc<str>, count: u64, now: Nanos) {
        let before = self.turn(id, now) as u64 - 1;
        let mut forgotten = Forgotten::new();
        self.accounts.sweep(now, &mut forgotten);
        self.accounts.touch(id, now, &mut forgotten, |session| {
            session.released = before.saturating_add(count);
            session.latest = now;
        });
    }

    /// Notes that a released request has ended.
    pub(super) fn ended(&mut self, id: &str, now: Nanos) {
        self.accounts.change(id, |session| {
            session.in_flight = session.in_flight.saturating_sub(1);
            session.latest = now;
        });
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const SECOND: Nanos = 1_000_000_000;

    fn turn(sessions: &Sessions, id: &str, now: Nanos) -> u64 {
        sessions.turn(id, now) as u64
    }

    fn ask(sessions: &mut Sessions, id: &str, now: Nanos) -> u64 {
        let turn = turn(sessions, id, now);
        sessions.released(&id.into(), turn as f64, now);
        turn
    }

    #[test]
    fn a_session_grows_deeper_with_each_request_that_is_released() {
        let mut sessions = Sessions::new(TurnPriority::default());
        let turns: Vec<u64> = (0..4).map(|_| ask(&mut sessions, "a", 0)).collect();
        assert_eq!(turns, [1, 2, 3, 4]);
        assert_eq!(ask(&mut sessions, "b", 0), 1);
    }

    #[test]
    fn a_session_begins_anew_when_it_was_idle_for_too_long_and_not_while_something_runs() {
        let mut sessions = Sessions::new(TurnPriority::default());
        ask(&mut sessions, "a", 0);
        ask(&mut sessions, "a", 0);
        assert_eq!(turn(&sessions, "a", 1000 * SECOND), 3, "two requests run");
        sessions.ended("a", 1000 * SECOND);
        sessions.ended("a", 1000 * SECOND);
        assert_eq!(turn(&sessions, "a", 1120 * SECOND), 3);
        assert_eq!(ask(&mut sessions, "a", 1121 * SECOND), 1);
        assert_eq!(turn(&sessions, "a", 1121 * SECOND), 2, "depth is earned anew");
    }

    #[test]
    fn without_a_bound_on_idleness_only_a_forgotten_session_begins_anew() {
        let mut sessions = Sessions::new(TurnPriority { inactivity: None, ..TurnPriority::default() });
        ask(&mut sessions, "a", 0);
        sessions.ended("a", 0);
        assert_eq!(turn(&sessions, "a", 3000 * SECOND), 2);
        ask(&mut sessions, "b", 4000 * SECOND);
        assert_eq!(turn(&sessions, "a", 4000 * SECOND), 1);
        let never = TurnPriority { inactivity: None, eviction_ttl: None, ..TurnPriority::default() };
        let mut sessions = Sessions::new(never);
        ask(&mut sessions, "a", 0);
        ask(&mut sessions, "b", Duration::from_hours(1000).as_nanos() as Nanos);
        assert_eq!(turn(&sessions, "a", Nanos::MAX), 2);
    }

    #[test]
    fn an_end_of_a_session_that_nobody_knows_changes_nothing() {
        let mut sessions = Sessions::new(TurnPriority::default());
        sessions.ended("a", 5);
        assert_eq!(turn(&sessions, "a", 5), 1);
    }
}
