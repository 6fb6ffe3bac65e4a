//! The core of flow control: who waits, who goes, who has waited for too long.
//!
//! Pure and deterministic: time and the pool's load come in, decisions go out. Nothing is done by the clock: each call
//! looks at what changed, releases all that may go, and says when to look again.

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
mod rivals;

use rivals::Reserve;
pub use rivals::Rivals;

/// The fill of the pool. The gate asks for it again after every release.
pub trait Load {
    /// True if the pool has no endpoint.
    fn is_empty(&self) -> bool;

    /// Endpoints that [`Load::fill`] looks at, which is what a judgement of the pool costs.
    fn size(&self) -> usize {
        1
    }

    /// The fill of the pool, counting also `unplaced` requests: those that were released and that no endpoint's load
    /// shows yet.
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
/// Calls must come with a `now` that doesn't go back; an earlier one counts as the latest seen.
#[derive(Debug)]
pub struct Gate {
    epoch: Instant,
    latest: Instant,
    settings: FlowSettings,
    /// The requests that wait.
    ledger: Ledger,
    /// How full the pool may be for each band, and the values in force, by rank.
    ceilings: Ceilings,
    written: Vec<f64>,
    /// Requests that were released and that no endpoint's load shows yet.
    unplaced: Unplaced,
    /// Requests that were released and have not ended.
    in_flight: u64,
    evictor: Option<Evictor>,
    /// The last places, where other replicas release too.
    reserve: Reserve,
    /// Time at which to look again at a band that is held by turns, or at a place that is left to another replica.
    retry: Option<Nanos>,
    closed: bool,
}

impl Gate {
    /// Empty queues. `epoch` must not be later than any `now`.
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

    /// Takes a request in. It is in `decisions` at once if there is room, and later otherwise; it is refused at once,
    /// and gets no ticket, if a bound is reached or the gate is closed. Bounds hold for a request that would not have
    /// to wait, too.
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

    /// Takes a waiting request out. False if it does not wait any more: then a decision was made for it.
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

    /// A released request now counts in the load of an endpoint. `tokens` as in its [`Arrival`].
    pub fn placed(&mut self, tokens: u64, now: Instant, load: &dyn Load, decisions: &mut Vec<GateDecision>) {
        self.forget_unplaced(tokens);
        self.advance(now, load, decisions);
    }

    /// A released request has ended. `unplaced` is the tokens of its [`Arrival`] if [`Gate::placed`] was not called for
    /// it.
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

    /// Tells that a released request of this session has ended, for fairness by turns. Costs nothing without it.
    pub fn session_request_ended(&mut self, fairness_id: &str, now: Instant) {
        if self.ledger.has_sessions() {
            let at = self.at(now);
            self.ledger.session_request_ended(fairness_id, at);
        }
    }

    /// Tells what a program was served, for program-aware fairness. Costs nothing without it.
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

    /// What programs were served since the last call, in tokens as program-aware fairness weighs them. Account is kept
    /// from the first call on, and only with that policy.
    pub fn take_services(&mut self) -> Vec<(Arc<str>, u64)> {
        self.ledger.take_services()
    }

    /// Another replica has served a program this many weighed tokens.
    pub fn served_elsewhere(&mut self, fairness_id: &Arc<str>, tokens: u64, now: Instant) {
        let at = self.at(now);
        self.ledger.served(fairness_id, tokens as f64, at);
    }

    /// Looks at everything anew: the load or the pool changed, or [`Gate::next_wakeup`] came.
    pub fn advance(&mut self, now: Instant, load: &dyn Load, decisions: &mut Vec<GateDecision>) {
        self.look(now, load, decisions);
        self.release(now.max(self.latest), load, decisions);
    }

    /// From now on this much waits at other replicas, by priority. It fills the same bounds.
    pub fn set_elsewhere(&mut self, waiting: impl IntoIterator<Item = (i32, Queued)>) {
        self.ledger.set_elsewhere(waiting);
    }

    /// These are the other replicas that release into the same pool, from now on.
    pub fn set_rivals(&mut self, rivals: Rivals) {
        self.reserve.set(rivals);
    }

    /// Refuses all that wait and all that come.
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

    /// Time at which to call [`Gate::advance`] if nothing happens before; `None` if no time will change anything.
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

    /// All requests that wait.
    pub fn queued(&self) -> Queued {
        self.ledger.queued()
    }

    /// Requests that were released and have not ended.
    pub fn in_flight(&self) -> u64 {
        self.in_flight
    }

    /// Released requests that no endpoint's load shows yet.
    pub fn unplaced(&self) -> Unplaced {
        self.unplaced
    }

    /// Saturation that the last eviction wanted back, and what stopped requests will still give; `None` without
    /// eviction.
    pub fn reclaim(&self) -> Option<(f64, f64)> {
        self.evictor.as_ref().map(Evictor::reclaim)
    }

    /// Bands by falling priority.
    pub fn bands(&self) -> impl Iterator<Item = BandUsage> {
        self.ledger.usages()
    }

    /// The `count` flows whose next request has waited longest, longest wait first.
    pub fn longest_waits(&self, count: usize, now: Instant) -> Vec<FlowWait> {
        self.ledger.longest_waits(count, nanos(self.epoch, now))
    }

    /// Flows that have requests waiting, in all bands. Bands that do not keep flows apart count as one.
    pub fn flows(&self) -> usize {
        self.ledger.flows()
    }

    /// Gives each of `priorities` a band, beside the configured ones. A band that is not among them any more goes once
    /// it is empty.
    pub fn provision(&mut self, priorities: &[i32]) {
        self.ledger.provision(&self.settings, priorities);
    }

    fn forget_unplaced(&mut self, tokens: u64) {
        self.unplaced.requests = self.unplaced.requests.saturating_sub(1);
        self.unplaced.tokens = self.unplaced.tokens.saturating_sub(tokens);
    }

    /// `now` as the gate counts.
    fn at(&mut self, now: Instant) -> Nanos {
        self.latest = self.latest.max(now);
        nanos(self.epoch, self.latest)
    }
}

fn nanos(epoch: Instant, at: Instant) -> Nanos {
    Nanos::try_from(at.saturating_duration_since(epoch).as_nanos()).unwrap_or(Nanos::MAX)
}
