//! How the gate releases requests, and how it ends waits that are too long.
//!
//! A release goes through three choices.
//!
//! 1. The band. The search goes from the highest priority to the lowest and takes the first band that has requests. It
//!    ends at the first band whose ceiling the pool has reached, even if nothing waits in that band: a less important
//!    request must not take the room that is kept for a more important one.
//! 2. The flow. The band's fairness policy chooses among the tenants that wait in it.
//! 3. The request. The band's ordering policy says which request of the flow comes first.
//!
//! Where other replicas release into the same pool, the replicas take the last places one after the other (`rivals`).
//!
//! After a release the gate computes the fill of the pool again, with the released request counted, and searches for
//! the next one. Example: band 0 has a ceiling of 1.0 and band −1 a ceiling of 0.8. At a saturation of 0.9 requests of
//! band 0 are released. When band 0 is empty the search ends at band −1, because 0.9 is above its ceiling.

use std::time::{Duration, Instant};

use super::{Gate, Load};
use crate::flow::ledger::waited;
use crate::flow::ordering::{Nanos, later};
use crate::flow::outcome::{GateDecision, Rejection};
use crate::flow::queue::Item;
use crate::flow::saturation::Fill;

/// The time until the gate looks again at a band that is held at some calls only.
const NEXT_TURN: Duration = Duration::from_millis(1);

/// The result of the search for a request to release.
enum Found {
    /// This request, of the band of this rank, may be released.
    Request(u32, u32),
    /// The pool is too full for the band of this rank.
    Held(usize),
    /// All bands are open and empty.
    Nothing,
}

impl Gate {
    /// Notes the time and the state of the pool, and rejects the requests whose wait has ended.
    pub(super) fn look(&mut self, now: Instant, load: &dyn Load, decisions: &mut Vec<GateDecision>) -> Nanos {
        let at = self.at(now);
        if let Some(evictor) = &mut self.evictor {
            evictor.pace(at, decisions);
        }
        self.ledger.observe_pool(load.is_empty(), at);
        while let Some((index, outcome)) = self.ledger.expired(at) {
            let rejection = Rejection::new(outcome, self.ledger.is_pool_empty());
            self.reject(index, rejection, at, decisions);
        }
        at
    }

    /// Releases every request that may go.
    pub(super) fn release(&mut self, now: Instant, load: &dyn Load, decisions: &mut Vec<GateDecision>) {
        let at = self.at(now);
        self.retry = None;
        while self.ledger.queued().requests > 0 && !self.ledger.is_pool_empty() {
            let fill = load.fill(self.unplaced, now);
            self.ceilings.write(fill.gating, self.ledger.priorities(), &mut self.written);
            match self.search(fill.gating) {
                Found::Request(index, _) if !self.reserve.has_rivals() => {
                    self.release_one(index, at, decisions);
                }
                Found::Request(index, rank) => {
                    if let Some(due) = self.leaves_to_others(index, rank, at, now, load) {
                        self.retry = Some(due);
                        return;
                    }
                    self.release_one(index, at, decisions);
                    self.reserve.released(at);
                }
                Found::Held(rank) => {
                    self.reserve.held();
                    if self.ceilings.alternates(fill.gating) {
                        self.retry = Some(later(at, NEXT_TURN));
                    }
                    self.revoke(rank, fill, at, decisions);
                    return;
                }
                Found::Nothing => return,
            }
        }
    }

    fn search(&self, saturation: f64) -> Found {
        for (rank, ceiling) in self.written.iter().enumerate() {
            // A band is also held if the saturation is not a number.
            if !matches!(saturation.partial_cmp(ceiling), Some(std::cmp::Ordering::Less)) {
                return Found::Held(rank);
            }
            if let Some(index) = self.ledger.next_in(rank) {
                return Found::Request(index, rank as u32);
            }
        }
        Found::Nothing
    }

    /// The time from which the request may be released if other replicas come first. `None` if it may go at once.
    fn leaves_to_others(
        &mut self,
        index: u32,
        rank: u32,
        at: Nanos,
        now: Instant,
        load: &dyn Load,
    ) -> Option<Nanos> {
        let item = self.ledger.item(index)?;
        let ceiling = *self.written.get(rank as usize)?;
        let fill = |unplaced| load.fill(unplaced, now).gating;
        self.reserve.waits(item.enqueued, item.tokens, ceiling, self.unplaced, at, fill)
    }

    fn release_one(&mut self, index: u32, at: Nanos, decisions: &mut Vec<GateDecision>) {
        let ticket = self.ledger.ticket(index);
        let Some(&Item { band, flow, priority, tokens, enqueued, .. }) = self.ledger.item(index) else {
            return;
        };
        if self.ledger.has_sessions() {
            self.ledger.take_turn(band, flow, at);
        }
        self.ledger.take(index, true);
        self.in_flight += 1;
        self.unplaced.requests += 1;
        self.unplaced.tokens = self.unplaced.tokens.saturating_add(tokens);
        if let Some(evictor) = &mut self.evictor {
            evictor.track(ticket, priority, at);
        }
        decisions.push(GateDecision::Release { ticket, waited: waited(enqueued, at) });
    }

    pub(super) fn reject(
        &mut self,
        index: u32,
        rejection: Rejection,
        at: Nanos,
        decisions: &mut Vec<GateDecision>,
    ) {
        let ticket = self.ledger.ticket(index);
        let enqueued = self.ledger.item(index).map_or(at, |item| item.enqueued);
        self.ledger.take(index, false);
        decisions.push(GateDecision::Reject { ticket, rejection, waited: waited(enqueued, at) });
    }

    /// Stops running requests in favour of a waiting band. That is the first band, from the held one down, in which
    /// requests wait. The stopped requests must be less important than the band.
    fn revoke(&mut self, held: usize, fill: Fill, at: Nanos, decisions: &mut Vec<GateDecision>) {
        let Some(evictor) = &mut self.evictor else { return };
        let Some(least) = evictor.least_important() else { return };
        let ledger = &self.ledger;
        let demand = (held..ledger.priorities().len())
            .filter_map(|rank| Some((rank, *ledger.priorities().get(rank)?, *self.written.get(rank)?)))
            .take_while(|(_, priority, _)| *priority > least)
            .find(|(rank, _, ceiling)| *ceiling > 0.0 && fill.gating >= *ceiling && ledger.waits_in(*rank));
        if let Some((_, priority, ceiling)) = demand {
            evictor.revoke(priority, ceiling, fill.raw, at, decisions);
        }
    }
}
