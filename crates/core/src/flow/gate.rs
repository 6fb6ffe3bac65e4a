//! The core of flow control: who waits, who goes, who has waited for too long.
//!
//! Pure and deterministic: time and the pool's load come in, decisions go out. Nothing is done by the clock: each call
//! looks at what changed, releases all that may go, and says when to look again.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::band::{Band, BandUsage};
use super::evict::Evictor;
use super::limit::{Full, Queued, Waits};
use super::ordering::{Due, Nanos, rank};
use super::outcome::{GateDecision, Outcome, QueueBound, Rejection};
use super::programs::Programs;
use super::queue::{Item, Items, Ticket};
use super::saturation::{Fill, Unplaced};
use super::sessions::Sessions;
use super::settings::{Fairness, FlowSettings};
use super::usage_limit::Ceilings;

/// A request that asks to be released.
#[derive(Clone, Debug)]
pub struct Arrival {
    /// Priority of its objective; larger is more important. Without a band of its own it waits in band 0.
    pub priority: i32,
    /// Its flow.
    pub fairness_id: Arc<str>,
    /// Model as asked for; a label only.
    pub model: Arc<str>,
    /// Model after rewrites; a label only.
    pub target_model: Arc<str>,
    /// Bytes of the body.
    pub size: u64,
    /// Estimated tokens.
    pub tokens: u64,
    /// Time at which its headers came.
    pub received: Instant,
    /// Longest wait that it asks for; the configured one holds if that is shorter. `None` or 0 for the configured one.
    pub ttl: Option<Duration>,
    /// Objective for the time to first token, see [`super::slo_ttft`].
    pub slo_ttft: Option<Duration>,
}

/// The fill of the pool. The gate asks for it again after every release.
pub trait Load {
    /// True if the pool has no endpoint.
    fn is_empty(&self) -> bool;

    /// Endpoints that [`Load::fill`] looks at, which is what a judgement of the pool costs.
    fn size(&self) -> usize {
        1
    }

    /// The fill of the pool, counting also `unplaced` requests: those that were released and that no endpoint's load
    /// shows
    /// yet.
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
    pub(super) settings: FlowSettings,
    pub(super) items: Items,
    pub(super) waits: Waits,
    pub(super) bands: Vec<Option<Band>>,
    /// Slots of the bands, by falling priority.
    pub(super) order: Vec<u32>,
    pub(super) priorities: Vec<i32>,
    pub(super) queued: Queued,
    pub(super) ceilings: Ceilings,
    pub(super) written: Vec<f64>,
    pub(super) unplaced: Unplaced,
    pub(super) in_flight: u64,
    pub(super) programs: Vec<Programs>,
    pub(super) sessions: Vec<Sessions>,
    pub(super) evictor: Option<Evictor>,
    /// Time at which a band that is held by turns should be looked at again.
    pub(super) retry: Option<Nanos>,
    closed: bool,
    sequence: u64,
}

impl Gate {
    /// Empty queues. `epoch` must not be later than any `now`.
    pub fn new(settings: FlowSettings, epoch: Instant) -> Self {
        let mut gate = Self {
            epoch,
            latest: epoch,
            items: Items::default(),
            waits: Waits::new(settings.default_request_ttl, settings.no_endpoint_request_ttl),
            bands: Vec::new(),
            order: Vec::new(),
            priorities: Vec::new(),
            queued: Queued::default(),
            ceilings: Ceilings::new(settings.usage_limit.clone()),
            written: Vec::new(),
            unplaced: Unplaced::default(),
            in_flight: 0,
            programs: Vec::new(),
            sessions: Vec::new(),
            evictor: settings.eviction.then(|| Evictor::new(&settings.detector.kind)),
            retry: None,
            closed: false,
            sequence: 0,
            settings,
        };
        gate.provision(&[]);
        gate
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
        let pool_empty = self.waits.is_empty_pool();
        if self.closed {
            return Err(Rejection::new(Outcome::RejectedOther, pool_empty));
        }
        let full = |bound| Rejection::full(bound, pool_empty);
        // There is always a band for priority 0.
        let no_band = Rejection::new(Outcome::RejectedOther, pool_empty);
        let slot = self.slot(arrival.priority).ok_or(no_band)?;
        let band = self.bands.get_mut(slot as usize).and_then(Option::as_mut).ok_or(no_band)?;
        let (requests, bytes) = (self.settings.max_requests, self.settings.max_bytes);
        match self.queued.full(arrival.size, requests, bytes) {
            Some(Full::Requests(bound)) => return Err(full(QueueBound::Requests(bound))),
            Some(Full::Bytes(bound)) => return Err(full(QueueBound::Bytes(bound))),
            None => {}
        }
        match band.full(arrival.size) {
            Some(Full::Requests(bound)) => return Err(full(QueueBound::BandRequests(bound))),
            Some(Full::Bytes(bound)) => return Err(full(QueueBound::BandBytes(bound))),
            None => {}
        }
        let ttl = self.waits.ttl(arrival.ttl, band.settings.request_ttl);
        let wait = self.waits.group(ttl);
        let received = nanos(self.epoch, arrival.received);
        let due = Due { received, enqueued: at, ttl, slo_ttft: arrival.slo_ttft };
        self.sequence += 1;
        let ticket = self.items.insert(Item {
            band: slot,
            flow: band.flow(&arrival.fairness_id),
            wait,
            priority: arrival.priority,
            size: arrival.size,
            tokens: arrival.tokens,
            enqueued: at,
            rank: rank(band.settings.ordering, due, self.sequence),
        });
        let standing = match &band.settings.fairness {
            Fairness::ProgramAware(parameters) => self
                .programs
                .iter()
                .find(|programs| programs.parameters() == parameters)
                .map_or(0.0, |programs| programs.service(&arrival.fairness_id)),
            Fairness::TurnPriority(parameters) => self
                .sessions
                .iter()
                .find(|sessions| sessions.parameters() == parameters)
                .map_or(1.0, |sessions| sessions.turn(&arrival.fairness_id, at)),
            Fairness::GlobalStrict | Fairness::RoundRobin => 0.0,
        };
        band.push(&mut self.items, ticket.index, standing);
        self.waits.add(&mut self.items, ticket.index, wait);
        self.queued.add(arrival.size, arrival.tokens);
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
        let found = self.items.find(ticket).is_some();
        if found {
            self.take(ticket.index, false);
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
        if self.sessions.is_empty() {
            return;
        }
        let at = self.at(now);
        for sessions in &mut self.sessions {
            sessions.ended(fairness_id, at);
        }
    }

    /// A request of the session in a flow of this band is about to be released.
    pub(super) fn take_turn(&mut self, band: u32, flow: u32, at: Nanos) {
        let Some(band) = self.bands.get(band as usize).and_then(Option::as_ref) else { return };
        let (Fairness::TurnPriority(parameters), Some((id, turn))) =
            (&band.settings.fairness, band.session(flow))
        else {
            return;
        };
        let found = self.sessions.iter_mut().find(|sessions| sessions.parameters() == parameters);
        let Some(sessions) = found else { return };
        sessions.released(&id, turn, at);
        for band in self.bands.iter_mut().flatten() {
            band.turn_changed(sessions, &id, at);
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
        for programs in &mut self.programs {
            let aside = programs.add(fairness_id, tokens, at);
            for band in self.bands.iter_mut().flatten() {
                band.service_changed(programs, fairness_id, &aside);
            }
        }
    }

    /// Looks at everything anew: the load or the pool changed, or [`Gate::next_wakeup`] came.
    pub fn advance(&mut self, now: Instant, load: &dyn Load, decisions: &mut Vec<GateDecision>) {
        self.look(now, load, decisions);
        self.release(now.max(self.latest), load, decisions);
    }

    /// Refuses all that wait and all that come.
    pub fn close(&mut self, now: Instant, load: &dyn Load, decisions: &mut Vec<GateDecision>) {
        let at = self.look(now, load, decisions);
        self.closed = true;
        let pool_empty = self.waits.is_empty_pool();
        for rank in 0..self.order.len() {
            while let Some(index) = self.band(rank).and_then(Band::next) {
                let rejection = Rejection::new(Outcome::EvictedOther, pool_empty);
                self.reject(index, rejection, at, decisions);
            }
        }
    }

    /// Time at which to call [`Gate::advance`] if nothing happens before; `None` if no time will change anything.
    pub fn next_wakeup(&self) -> Option<Instant> {
        let latest = nanos(self.epoch, self.latest);
        let evictor = self.evictor.as_ref();
        let next = if self.queued.requests == 0 {
            evictor.and_then(Evictor::gives_up)?
        } else {
            let paced = evictor.and_then(|evictor| evictor.next(latest));
            [self.waits.next(), self.retry, paced].into_iter().flatten().min()?
        };
        self.epoch.checked_add(Duration::from_nanos(next))
    }

    /// All requests that wait.
    pub fn queued(&self) -> Queued {
        self.queued
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
        (0..self.order.len()).filter_map(|rank| self.band(rank)).map(Band::usage)
    }

    /// Flows that have requests waiting, in all bands. Bands that do not keep flows apart count as one.
    pub fn flows(&self) -> usize {
        self.bands.iter().flatten().map(|band| band.flows.len()).sum()
    }

    /// Gives each of `priorities` a band, beside the configured ones. A band that is not among them any more goes once
    /// it is empty.
    pub fn provision(&mut self, priorities: &[i32]) {
        let fixed = self.settings.bands.keys().copied().chain([0]);
        for priority in priorities.iter().copied().chain(fixed).collect::<Vec<_>>() {
            if let Err(rank) = self.rank(priority) {
                self.add_band(priority, rank);
            }
        }
        for band in self.bands.iter_mut().flatten() {
            let wanted = band.priority == 0
                || priorities.contains(&band.priority)
                || self.settings.bands.contains_key(&band.priority);
            band.retiring = !wanted;
        }
        self.drop_retired();
    }

    fn add_band(&mut self, priority: i32, rank: usize) {
        let settings = self.settings.band(priority).clone();
        if let Fairness::ProgramAware(parameters) = &settings.fairness
            && !self.programs.iter().any(|programs| programs.parameters() == parameters)
        {
            self.programs.push(Programs::new(parameters.clone()));
        }
        if let Fairness::TurnPriority(parameters) = &settings.fairness
            && !self.sessions.iter().any(|sessions| sessions.parameters() == parameters)
        {
            self.sessions.push(Sessions::new(parameters.clone()));
        }
        let band = Some(Band::new(priority, settings));
        let slot = self.bands.iter().position(Option::is_none).unwrap_or(self.bands.len());
        match self.bands.get_mut(slot) {
            Some(free) => *free = band,
            None => self.bands.push(band),
        }
        self.order.insert(rank, slot as u32);
        self.priorities.insert(rank, priority);
    }

    /// Rank of the band of `priority`, or where it would be.
    fn rank(&self, priority: i32) -> Result<usize, usize> {
        self.priorities.binary_search_by(|other| priority.cmp(other))
    }

    /// Slot of the band that a request of `priority` waits in.
    fn slot(&self, priority: i32) -> Option<u32> {
        let rank = self.rank(priority).or_else(|_| self.rank(0)).ok()?;
        self.order.get(rank).copied()
    }

    fn forget_unplaced(&mut self, tokens: u64) {
        self.unplaced.requests = self.unplaced.requests.saturating_sub(1);
        self.unplaced.tokens = self.unplaced.tokens.saturating_sub(tokens);
    }

    /// `now` as the gate counts.
    pub(super) fn at(&mut self, now: Instant) -> Nanos {
        self.latest = self.latest.max(now);
        nanos(self.epoch, self.latest)
    }
}

fn nanos(epoch: Instant, at: Instant) -> Nanos {
    Nanos::try_from(at.saturating_duration_since(epoch).as_nanos()).unwrap_or(Nanos::MAX)
}
