//! Releasing and expiring.
//!
//! A release goes through three choices.
//!
//! 1. The band. The search goes from the highest priority to the lowest and takes the first band that has requests. It
//!    ends at the first band whose ceiling the pool has reached, even if nothing waits in that band: a less important
//!    request must not take the room that is kept for a more important one.
//! 2. The flow. The band's fairness policy chooses among the tenants that wait in it.
//! 3. The request. The band's ordering policy says which request of the flow comes first.
//!
//! Then the pool is judged again, with the released request counted, and the next release is searched for. Example: two
//! bands, 0 with a ceiling of 1.0 and −1 with a ceiling of 0.8. At a saturation of 0.9 requests of band 0 go; when band
//! 0 is empty the search stops at band −1, because 0.9 is over its ceiling.

use std::time::{Duration, Instant};

use super::band::Band;
use super::gate::{Gate, Load};
use super::ordering::{Nanos, later};
use super::outcome::{GateDecision, Rejection};
use super::saturation::Fill;

/// Time until a band that is held by turns is looked at again.
const NEXT_TURN: Duration = Duration::from_millis(1);

/// The result of the search for a request to release.
enum Found {
    /// This request may go.
    Request(u32),
    /// The pool is too full for the band of this rank.
    Held(usize),
    /// All bands are open and empty.
    Nothing,
}

impl Gate {
    /// Takes note of time and pool, and rejects what has waited for too long.
    pub(super) fn look(&mut self, now: Instant, load: &dyn Load, decisions: &mut Vec<GateDecision>) -> Nanos {
        let at = self.at(now);
        if let Some(evictor) = &mut self.evictor {
            evictor.pace(at, decisions);
        }
        self.waits.observe(load.is_empty(), &self.items, at);
        while let Some((index, outcome)) = self.waits.expired(&self.items, at) {
            let rejection = Rejection::new(outcome, self.waits.is_empty_pool());
            self.reject(index, rejection, at, decisions);
        }
        at
    }

    /// Releases all that may go.
    pub(super) fn release(&mut self, now: Instant, load: &dyn Load, decisions: &mut Vec<GateDecision>) {
        let at = self.at(now);
        self.retry = None;
        while self.queued.requests > 0 && !self.waits.is_empty_pool() {
            let fill = load.fill(self.unplaced, now);
            self.ceilings.write(fill.gating, &self.priorities, &mut self.written);
            match self.search(fill.gating) {
                Found::Request(index) => self.release_one(index, at, decisions),
                Found::Held(rank) => {
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
            // A saturation that is no number holds, too.
            if !matches!(saturation.partial_cmp(ceiling), Some(std::cmp::Ordering::Less)) {
                return Found::Held(rank);
            }
            if let Some(index) = self.band(rank).and_then(Band::next) {
                return Found::Request(index);
            }
        }
        Found::Nothing
    }

    fn release_one(&mut self, index: u32, at: Nanos, decisions: &mut Vec<GateDecision>) {
        let ticket = self.items.ticket(index);
        let Some(item) = self.items.get(index).copied() else { return };
        if !self.sessions.is_empty() {
            self.take_turn(item.band, item.flow, at);
        }
        self.take(index, true);
        self.in_flight += 1;
        self.unplaced.requests += 1;
        self.unplaced.tokens = self.unplaced.tokens.saturating_add(item.tokens);
        if let Some(evictor) = &mut self.evictor {
            evictor.track(ticket, item.priority, at);
        }
        decisions.push(GateDecision::Release { ticket, waited: waited(item.enqueued, at) });
    }

    pub(super) fn reject(
        &mut self,
        index: u32,
        rejection: Rejection,
        at: Nanos,
        decisions: &mut Vec<GateDecision>,
    ) {
        let ticket = self.items.ticket(index);
        let enqueued = self.items.get(index).map_or(at, |item| item.enqueued);
        self.take(index, false);
        decisions.push(GateDecision::Reject { ticket, rejection, waited: waited(enqueued, at) });
    }

    /// Takes a request out of all lists.
    pub(super) fn take(&mut self, index: u32, served: bool) {
        let Some(item) = self.items.get(index).copied() else { return };
        self.waits.remove(&mut self.items, index, item.wait);
        self.queued.subtract(item.size, item.tokens);
        let mut retired = false;
        if let Some(band) = self.bands.get_mut(item.band as usize).and_then(Option::as_mut) {
            band.remove(&mut self.items, index, served);
            retired = band.retiring && band.queued.requests == 0;
        }
        self.items.remove(index);
        if retired {
            self.drop_retired();
        }
    }

    /// Drops empty bands that nobody wants.
    pub(super) fn drop_retired(&mut self) {
        for slot in &mut self.bands {
            if slot.as_ref().is_some_and(|band| band.retiring && band.queued.requests == 0) {
                *slot = None;
            }
        }
        let bands = &self.bands;
        self.order.retain(|slot| bands.get(*slot as usize).is_some_and(Option::is_some));
        self.priorities.clear();
        self.priorities
            .extend(self.order.iter().filter_map(|slot| Some(bands.get(*slot as usize)?.as_ref()?.priority)));
    }

    /// Stops running requests for the first band, from the held one down, that waits and is more important than they
    /// are.
    fn revoke(&mut self, held: usize, fill: Fill, at: Nanos, decisions: &mut Vec<GateDecision>) {
        let Some(evictor) = &mut self.evictor else { return };
        let Some(least) = evictor.least_important() else { return };
        let bands = &self.bands;
        let waits = |rank: usize| {
            let slot = self.order.get(rank).and_then(|slot| bands.get(*slot as usize)?.as_ref());
            slot.is_some_and(|band| band.queued.requests > 0)
        };
        let demand = (held..self.order.len())
            .filter_map(|rank| Some((rank, *self.priorities.get(rank)?, *self.written.get(rank)?)))
            .take_while(|(_, priority, _)| *priority > least)
            .find(|(rank, _, ceiling)| *ceiling > 0.0 && fill.gating >= *ceiling && waits(*rank));
        if let Some((_, priority, ceiling)) = demand {
            evictor.revoke(priority, ceiling, fill.raw, at, decisions);
        }
    }

    pub(super) fn band(&self, rank: usize) -> Option<&Band> {
        self.bands.get(*self.order.get(rank)? as usize)?.as_ref()
    }
}

fn waited(enqueued: Nanos, at: Nanos) -> Duration {
    Duration::from_nanos(at.saturating_sub(enqueued))
}
