//! Eviction: stops running requests when more important requests wait and the pool is full.
//!
//! Only requests below priority 0 are stopped: the least important first, and among those the latest. The decisions are
//! paced. After one, no further request is stopped until the stopped requests have ended, or have not ended within
//! [`CONFIRMATION`], and the load of the pool has had time to show it.
//! load had time to show it.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::time::Duration;

use hashbrown::HashMap;

use super::detector::DetectorKind;
use super::ordering::{Nanos, later};
use super::outcome::GateDecision;
use super::queue::Ticket;

/// The most requests that one decision stops.
const AT_ONCE: usize = 2;

/// The longest wait for a stopped request to end.
const CONFIRMATION: Duration = Duration::from_secs(10);

/// The time until the load shows the end of a request. The concurrency detector counts requests in this process; the
/// utilization detector needs the next reading.
const COUNTED_GRACE: Duration = Duration::from_millis(10);
const SCRAPED_GRACE: Duration = Duration::from_millis(2300);

type Victim = (i32, Reverse<Nanos>, Ticket);

/// The released requests, and those of them that were told to stop.
#[derive(Debug)]
pub(super) struct Evictor {
    grace: Duration,
    tracked: HashMap<Ticket, Option<Victim>>,
    victims: BTreeSet<Victim>,
    /// The requests that were told to stop and have not ended, with the time of the decision.
    outstanding: Vec<(Ticket, Nanos)>,
    cooling_until: Nanos,
    /// The saturation that the last decision wanted to free, and the saturation that one request was worth at that
    /// time.
    wanted: f64,
    share: f64,
}

fn grace(detector: &DetectorKind) -> Duration {
    match detector {
        DetectorKind::Concurrency(_) => COUNTED_GRACE,
        DetectorKind::Utilization(_) => SCRAPED_GRACE,
    }
}

impl Evictor {
    pub(super) fn new(detector: &DetectorKind) -> Self {
        Self {
            grace: grace(detector),
            tracked: HashMap::new(),
            victims: BTreeSet::new(),
            outstanding: Vec::new(),
            cooling_until: 0,
            wanted: 0.0,
            share: 0.0,
        }
    }

    /// Another detector says how full the pool is.
    pub(super) fn judged_by(&mut self, detector: &DetectorKind) {
        self.grace = grace(detector);
    }

    /// The saturation that the last decision wanted to free, and the part of it that the stopped requests which have
    /// not ended will free.
    pub(super) fn reclaim(&self) -> (f64, f64) {
        (self.wanted, self.outstanding.len() as f64 * self.share)
    }

    pub(super) fn track(&mut self, ticket: Ticket, priority: i32, at: Nanos) {
        let victim = (priority < 0).then_some((priority, Reverse(at), ticket));
        self.victims.extend(victim);
        self.tracked.insert(ticket, victim);
    }

    pub(super) fn untrack(&mut self, ticket: Ticket, at: Nanos, decisions: &mut Vec<GateDecision>) {
        if let Some(victim) = self.tracked.remove(&ticket).flatten() {
            self.victims.remove(&victim);
        }
        if let Some(position) = self.outstanding.iter().position(|(other, _)| *other == ticket) {
            let (_, since) = self.outstanding.swap_remove(position);
            self.end(true, since, at, decisions);
        }
    }

    fn end(&mut self, confirmed: bool, since: Nanos, at: Nanos, decisions: &mut Vec<GateDecision>) {
        self.cooling_until = self.cooling_until.max(later(at, self.grace));
        let took = Duration::from_nanos(at.saturating_sub(since));
        decisions.push(GateDecision::RevocationEnded { confirmed, took });
    }

    /// Stops waiting for stopped requests that did not end in time.
    pub(super) fn pace(&mut self, at: Nanos, decisions: &mut Vec<GateDecision>) {
        while let Some(position) =
            self.outstanding.iter().position(|(_, since)| later(*since, CONFIRMATION) <= at)
        {
            let (_, since) = self.outstanding.swap_remove(position);
            self.end(false, since, at, decisions);
            if self.outstanding.is_empty() {
                // No stopped request is left, so the decision will free nothing more.
                (self.wanted, self.share) = (0.0, 0.0);
            }
        }
    }

    /// The priority of the request that would be stopped first.
    pub(super) fn least_important(&self) -> Option<i32> {
        self.victims.first().map(|(priority, ..)| *priority)
    }

    /// Stops enough requests below priority `demand` to bring the saturation under `ceiling`. Each request is taken to
    /// cause the same share of the saturation.
    pub(super) fn revoke(
        &mut self,
        demand: i32,
        ceiling: f64,
        saturation: f64,
        at: Nanos,
        decisions: &mut Vec<GateDecision>,
    ) {
        if !self.outstanding.is_empty() || at < self.cooling_until {
            return;
        }
        let share = saturation / self.tracked.len().max(1) as f64;
        (self.wanted, self.share) = ((saturation - ceiling).max(0.0), share);
        // The difference of two sums of equal shares is rarely exact. A remainder below 1e-9 of a share does not stop
        // one more request.
        let needed = ((saturation - ceiling) / share - 1e-9).ceil();
        let count = if needed > 1.0 { (needed as usize).min(AT_ONCE) } else { 1 };
        for _ in 0..count {
            let Some(victim) = self.victims.first().copied().filter(|(priority, ..)| *priority < demand)
            else {
                return;
            };
            self.victims.remove(&victim);
            let ticket = victim.2;
            self.outstanding.push((ticket, at));
            decisions.push(GateDecision::Revoke { ticket, demand });
        }
    }

    /// The time at which the wait for a stopped request ends.
    pub(super) fn gives_up(&self) -> Option<Nanos> {
        self.outstanding.iter().map(|(_, since)| later(*since, CONFIRMATION)).min()
    }

    /// The earliest time after `at` at which a new decision may be made.
    pub(super) fn next(&self, at: Nanos) -> Option<Nanos> {
        let cooled = || Some(self.cooling_until).filter(|until| *until > at && !self.victims.is_empty());
        self.gives_up().or_else(cooled)
    }
}

#[cfg(test)]
mod tests {
    use super::super::detector::Concurrency;
    use super::*;

    const MILLISECOND: Nanos = 1_000_000;

    fn evictor(running: &[i32]) -> Evictor {
        let mut evictor = Evictor::new(&DetectorKind::Concurrency(Concurrency::default()));
        for (index, priority) in running.iter().enumerate() {
            evictor.track(Ticket { index: index as u32, generation: 0 }, *priority, index as Nanos);
        }
        evictor
    }

    fn revoked(decisions: &[GateDecision]) -> Vec<usize> {
        let index = |decision: &GateDecision| match decision {
            GateDecision::Revoke { ticket, .. } => Some(ticket.index()),
            _ => None,
        };
        decisions.iter().filter_map(index).collect()
    }

    fn revoke(evictor: &mut Evictor, saturation: f64, at: Nanos) -> Vec<usize> {
        let mut decisions = Vec::new();
        evictor.pace(at, &mut decisions);
        evictor.revoke(0, 1.0, saturation, at, &mut decisions);
        revoked(&decisions)
    }

    #[test]
    fn the_least_important_and_latest_goes_first() {
        assert_eq!(revoke(&mut evictor(&[-1, -5, -5, 0, 3]), 1.0, 9), [2]);
        assert!(revoke(&mut evictor(&[0, 3]), 2.0, 9).is_empty());
    }

    #[test]
    fn what_is_wanted_back_and_what_is_under_way_can_be_told() {
        let mut evictor = evictor(&[-1, -1, 0, 0]);
        assert_eq!(evictor.reclaim(), (0.0, 0.0));
        evictor.revoke(0, 1.0, 1.25, MILLISECOND, &mut Vec::new());
        assert_eq!(evictor.reclaim(), (0.25, 0.3125));
    }

    #[test]
    fn as_many_go_as_the_excess_takes_and_never_more_than_two() {
        assert_eq!(revoke(&mut evictor(&[-1; 21]), 1.05, 99).len(), 1);
        assert_eq!(revoke(&mut evictor(&[-1; 26]), 1.30, 99).len(), 2);
        assert_eq!(revoke(&mut evictor(&[-1; 10]), 1.0, 99).len(), 1);
    }

    #[test]
    fn nothing_more_goes_until_the_stopped_ones_ended_and_the_load_could_show_it() {
        let mut evictor = evictor(&[-1, -1, -1, -1]);
        assert_eq!(revoke(&mut evictor, 1.0, 0), [3]);
        assert!(revoke(&mut evictor, 1.0, MILLISECOND).is_empty());
        let mut decisions = Vec::new();
        evictor.untrack(Ticket { index: 3, generation: 0 }, 2 * MILLISECOND, &mut decisions);
        let took = Duration::from_millis(2);
        assert_eq!(decisions, [GateDecision::RevocationEnded { confirmed: true, took }]);
        assert!(revoke(&mut evictor, 1.0, 11 * MILLISECOND).is_empty());
        assert_eq!(evictor.next(11 * MILLISECOND), Some(12 * MILLISECOND));
        assert_eq!(revoke(&mut evictor, 1.0, 12 * MILLISECOND), [2]);
    }

    #[test]
    fn a_stopped_request_is_given_up_even_if_nobody_else_could_be_stopped() {
        let mut evictor = evictor(&[-1]);
        assert_eq!(revoke(&mut evictor, 1.0, 0), [0]);
        let end = 10_000 * MILLISECOND;
        assert_eq!((evictor.least_important(), evictor.next(0)), (None, Some(end)));
        let mut decisions = Vec::new();
        evictor.pace(end, &mut decisions);
        let took = Duration::from_secs(10);
        assert_eq!(decisions, [GateDecision::RevocationEnded { confirmed: false, took }]);
        assert_eq!(evictor.next(end), None, "there is nobody to wait for");
        assert_eq!(evictor.reclaim(), (0.0, 0.0), "nothing is wanted back from it any more");
    }

    #[test]
    fn a_request_that_does_not_end_is_given_up_after_ten_seconds() {
        let mut evictor = evictor(&[-1, -1]);
        assert_eq!(revoke(&mut evictor, 1.0, 0), [1]);
        let end = 10_000 * MILLISECOND;
        assert_eq!(evictor.next(0), Some(end));
        assert!(revoke(&mut evictor, 1.0, end).is_empty());
        assert_eq!(revoke(&mut evictor, 1.0, end + 10 * MILLISECOND), [0]);
    }
}
