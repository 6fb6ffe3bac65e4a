//! The core of flow control. It decides which request waits, which is released, and which has waited for too long.
//!
//! The gate is pure and deterministic: its input is the time and the load of the pool, its output is decisions. It has
//! no timer. Each call looks at what changed, releases every request that may go, and computes when to look again.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::arrival::Arrival;
use super::band::{BandUsage, FlowWait};
use super::evict::Evictor;
use super::ledger::Ledger;
use super::limit::Queued;
use super::ordering::Nanos;
use super::outcome::{GateDecision, Outcome, Rejection};
use super::queue::Ticket;
use super::saturation::{Fill, Unplaced};
use super::settings::FlowSettings;
use super::usage_limit::Ceilings;

mod dispatch;
mod reconfigure;
mod rivals;

use rivals::Reserve;
pub use rivals::Rivals;

/// Computes how full the pool is. The gate asks again after every release.
pub trait Load {
    /// True if the pool has no endpoint.
    fn is_empty(&self) -> bool;

    /// The number of endpoints that [`Load::fill`] looks at, which is the cost of one call.
    fn size(&self) -> usize {
        1
    }

    /// The fill of the pool. It includes the requests of `unplaced`, which were released but do not show in the load of
    /// any endpoint yet.
    fn fill(&self, unplaced: Unplaced, now: Instant) -> Fill;
}

/// The queues of one pool.
///
/// ```
/// use std::time::Instant;
///
/// use pointsman_core::flow::{Arrival, GateDecision, Fill, FlowSettings, Gate, Load, Unplaced};
///
/// /// A pool that takes one request at a time.
/// struct OneAtATime;
///
/// impl Load for OneAtATime {
///     fn is_empty(&self) -> bool {
///         false
///     }
///
///     fn fill(&self, unplaced: Unplaced, _now: Instant) -> Fill {
///         let fullness = unplaced.requests as f64;
///         Fill { raw: fullness, gating: fullness }
///     }
/// }
///
/// let now = Instant::now();
/// let mut gate = Gate::new(FlowSettings::default(), now);
/// let arrival = Arrival {
///     priority: 0,
///     fairness_id: "tenant".into(),
///     model: "m".into(),
///     target_model: "m".into(),
///     size: 100,
///     tokens: 25,
///     received: now,
///     ttl: None,
///     slo_ttft: None,
/// };
/// let mut decisions = Vec::new();
/// let first = gate.submit(&arrival, now, &OneAtATime, &mut decisions)?;
/// assert!(matches!(decisions[..], [GateDecision::Release { ticket, .. }] if ticket == first));
/// gate.submit(&arrival, now, &OneAtATime, &mut decisions)?;
/// assert_eq!((decisions.len(), gate.queued().requests), (1, 1), "the second one waits");
/// # Ok::<(), pointsman_core::flow::Rejection>(())
/// ```
///
/// The `now` of a call should not be earlier than that of the call before. If it is, the latest time seen counts.
#[derive(Debug)]
pub struct Gate {
    epoch: Instant,
    latest: Instant,
    settings: FlowSettings,
    /// The waiting requests.
    ledger: Ledger,
    /// Computes how full the pool may be for each band. `written` holds the last ceilings, by rank.
    ceilings: Ceilings,
    written: Vec<f64>,
    /// The requests that were released but do not show in the load of any endpoint yet.
    unplaced: Unplaced,
    /// The number of requests that were released and have not ended.
    in_flight: u64,
    evictor: Option<Evictor>,
    /// Shares the last places of the pool with other replicas that release into it.
    reserve: Reserve,
    /// The time at which to look again because a band is held at some calls only, or a place is left to another
    /// replica.
    retry: Option<Nanos>,
    closed: bool,
}

impl Gate {
    /// Makes empty queues. `epoch` must not be later than any `now`.
    pub fn new(settings: FlowSettings, epoch: Instant) -> Self {
        Self {
            epoch,
            latest: epoch,
            ledger: Ledger::new(&settings),
            ceilings: Ceilings::new(settings.usage_limit.clone()),
            written: Vec::new(),
            unplaced: Unplaced::default(),
            in_flight: 0,
            evictor: settings.eviction.then(|| Evictor::new(&settings.detector.kind)),
            reserve: Reserve::default(),
            retry: None,
            closed: false,
            settings,
        }
    }

    /// Submits a request. If the pool has room, `decisions` gets its release at once; otherwise the request waits. The
    /// bounds on waiting requests apply even to a request that would not have to wait.
    ///
    /// # Errors
    ///
    /// Returns a [`Rejection`], and no ticket, if a bound is reached or the gate is closed.
    pub fn submit(
        &mut self,
        arrival: &Arrival,
        now: Instant,
        load: &dyn Load,
        decisions: &mut Vec<GateDecision>,
    ) -> Result<Ticket, Rejection> {
        let at = self.look(now, load, decisions);
        if self.closed {
            return Err(Rejection::new(Outcome::RejectedOther, self.ledger.is_pool_empty()));
        }
        let received = nanos(self.epoch, arrival.received);
        let ticket = self.ledger.enter(&self.settings, arrival, received, at)?;
        self.release(now.max(self.latest), load, decisions);
        Ok(ticket)
    }

    /// Removes a waiting request. Returns false if the request does not wait any more, because a decision was made for
    /// it.
    pub fn cancel(
        &mut self,
        ticket: Ticket,
        now: Instant,
        load: &dyn Load,
        decisions: &mut Vec<GateDecision>,
    ) -> bool {
        let found = self.ledger.has(ticket);
        if found {
            self.ledger.take(ticket.index, false);
        }
        self.advance(now, load, decisions);
        found
    }

    /// Notes that a released request now shows in the load of an endpoint. `tokens` is that of its [`Arrival`].
    pub fn placed(&mut self, tokens: u64, now: Instant, load: &dyn Load, decisions: &mut Vec<GateDecision>) {
        self.forget_unplaced(tokens);
        self.advance(now, load, decisions);
    }

    /// Notes that a released request has ended. If [`Gate::placed`] was not called for the request, `unplaced` is the
    /// `tokens` of its [`Arrival`].
    pub fn complete(
        &mut self,
        ticket: Ticket,
        unplaced: Option<u64>,
        now: Instant,
        load: &dyn Load,
        decisions: &mut Vec<GateDecision>,
    ) {
        self.in_flight = self.in_flight.saturating_sub(1);
        if let Some(tokens) = unplaced {
            self.forget_unplaced(tokens);
        }
        let at = self.at(now);
        if let Some(evictor) = &mut self.evictor {
            evictor.untrack(ticket, at, decisions);
        }
        self.advance(now, load, decisions);
    }

    /// Notes that a released request of this session has ended. Only fairness by turns needs this call; otherwise it
    /// costs nothing.
    pub fn session_request_ended(&mut self, fairness_id: &str, now: Instant) {
        if self.ledger.has_sessions() {
            let at = self.at(now);
            self.ledger.session_request_ended(fairness_id, at);
        }
    }

    /// Adds the tokens of a response to the service of its program. Only program-aware fairness needs this call;
    /// otherwise it costs little.
    pub fn served(
        &mut self,
        fairness_id: &Arc<str>,
        prompt_tokens: u64,
        completion_tokens: u64,
        now: Instant,
    ) {
        let at = self.at(now);
        let tokens = prompt_tokens as f64 + 2.0 * completion_tokens as f64;
        self.ledger.served(fairness_id, tokens, at);
        self.ledger.note_service(fairness_id, tokens);
    }

    /// Returns the tokens that each program was served since the last call, weighed as program-aware fairness weighs
    /// them. Service is recorded only after the first call, and only with that policy.
    pub fn take_services(&mut self) -> Vec<(Arc<str>, u64)> {
        self.ledger.take_services()
    }

    /// Adds the weighed tokens that another replica served to a program.
    pub fn served_elsewhere(&mut self, fairness_id: &Arc<str>, tokens: u64, now: Instant) {
        let at = self.at(now);
        self.ledger.served(fairness_id, tokens as f64, at);
    }

    /// Requests that were released since the last call, by fairness id, in bands whose flows take turns. Account is kept
    /// from the first call on.
    pub fn take_turns(&mut self) -> Vec<(Arc<str>, u64)> {
        self.ledger.take_turns()
    }

    /// Another replica has released so many requests of this flow.
    pub fn turns_elsewhere(&mut self, fairness_id: &Arc<str>, count: u64, now: Instant) {
        let at = self.at(now);
        self.ledger.turns_elsewhere(fairness_id, count, at);
    }

    /// Looks at all queues again. Call this when the load or the pool changed, or when [`Gate::next_wakeup`] has come.
    pub fn advance(&mut self, now: Instant, load: &dyn Load, decisions: &mut Vec<GateDecision>) {
        self.look(now, load, decisions);
        self.release(now.max(self.latest), load, decisions);
    }

    /// Sets the requests that wait at other replicas, by priority. They count towards the same bounds.
    pub fn set_elsewhere(&mut self, waiting: impl IntoIterator<Item = (i32, Queued)>) {
        self.ledger.set_elsewhere(waiting);
    }

    /// Sets the other replicas that release into the same pool.
    pub fn set_rivals(&mut self, rivals: Rivals) {
        self.reserve.set(rivals);
    }

    /// Rejects all waiting requests, and all that come later.
    pub fn close(&mut self, now: Instant, load: &dyn Load, decisions: &mut Vec<GateDecision>) {
        let at = self.look(now, load, decisions);
        self.closed = true;
        let pool_empty = self.ledger.is_pool_empty();
        for rank in 0..self.ledger.priorities().len() {
            while let Some(index) = self.ledger.next_in(rank) {
                let rejection = Rejection::new(Outcome::EvictedOther, pool_empty);
                self.reject(index, rejection, at, decisions);
            }
        }
    }

    /// The time at which to call [`Gate::advance`] if nothing happens before. `None` if time alone changes nothing.
    pub fn next_wakeup(&self) -> Option<Instant> {
        let latest = nanos(self.epoch, self.latest);
        let evictor = self.evictor.as_ref();
        let next = if self.ledger.queued().requests == 0 {
            evictor.and_then(Evictor::gives_up)?
        } else {
            let paced = evictor.and_then(|evictor| evictor.next(latest));
            [self.ledger.next_expiry(), self.retry, paced].into_iter().flatten().min()?
        };
        self.epoch.checked_add(Duration::from_nanos(next))
    }

    /// The number and the size of all waiting requests.
    pub fn queued(&self) -> Queued {
        self.ledger.queued()
    }

    /// The number of requests that were released and have not ended.
    pub fn in_flight(&self) -> u64 {
        self.in_flight
    }

    /// The released requests that do not show in the load of any endpoint yet.
    pub fn unplaced(&self) -> Unplaced {
        self.unplaced
    }

    /// The saturation that the last eviction wanted to free, and the part of it that stopped requests will still free.
    /// `None` without eviction.
    pub fn reclaim(&self) -> Option<(f64, f64)> {
        self.evictor.as_ref().map(Evictor::reclaim)
    }

    /// The bands, by falling priority.
    pub fn bands(&self) -> impl Iterator<Item = BandUsage> {
        self.ledger.usages()
    }

    /// The `count` flows whose next request has waited longest, longest wait first.
    pub fn longest_waits(&self, count: usize, now: Instant) -> Vec<FlowWait> {
        self.ledger.longest_waits(count, nanos(self.epoch, now))
    }

    /// The number of flows that have requests waiting, in all bands. A band that does not keep flows apart counts as
    /// one flow.
    pub fn flows(&self) -> usize {
        self.ledger.flows()
    }

    /// Makes a band for each of `priorities`, beside the configured bands. A band for any other priority is removed
    /// once it is empty.
    pub fn provision(&mut self, priorities: &[i32]) {
        self.ledger.provision(&self.settings, priorities);
    }

    fn forget_unplaced(&mut self, tokens: u64) {
        self.unplaced.requests = self.unplaced.requests.saturating_sub(1);
        self.unplaced.tokens = self.unplaced.tokens.saturating_sub(tokens);
    }

    /// Converts `now` to nanoseconds since the epoch. It never goes back.
    fn at(&mut self, now: Instant) -> Nanos {
        self.latest = self.latest.max(now);
        nanos(self.epoch, self.latest)
    }
}

fn nanos(epoch: Instant, at: Instant) -> Nanos {
    Nanos::try_from(at.saturating_duration_since(epoch).as_nanos()).unwrap_or(Nanos::MAX)
}
