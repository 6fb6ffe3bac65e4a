//! The ledger of the waiting requests: their bands and flows, their order, and the end of their waits.
//!
//! The gate decides, and the ledger keeps the books. Each request is part of three records: the queue of its flow, the
//! group of requests with the same wait, and the sums of its band and of all bands. The ledger changes all three
//! together, and no other code can change one of them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use hashbrown::HashMap;

use super::arrival::Arrival;
use super::band::{Band, BandUsage, FlowWait};
use super::limit::{Full, Queued, Waits};
use super::ordering::{Due, Nanos, rank};
use super::outcome::{Outcome, QueueBound, Rejection};
use super::programs::Programs;
use super::queue::{Item, Items, Ticket};
use super::sessions::Sessions;
use super::settings::{Fairness, FlowSettings};

mod resettle;

/// The most programs whose service is recorded between two calls of [`Ledger::take_services`].
const SERVICES: usize = 4096;

/// The waiting requests.
#[derive(Debug)]
pub(super) struct Ledger {
    items: Items,
    waits: Waits,
    bands: Vec<Option<Band>>,
    /// The slots of the bands, by falling priority.
    order: Vec<u32>,
    priorities: Vec<i32>,
    queued: Queued,
    /// The requests that wait at other replicas, by priority and in sum. They count towards the same bounds.
    elsewhere: BTreeMap<i32, Queued>,
    elsewhere_sum: Queued,
    programs: Vec<Programs>,
    /// The tokens that programs were served since the last call of [`Ledger::take_services`]. `None` before the first
    /// call.
    services: Option<HashMap<Arc<str>, u64>>,
    /// Requests that were released of each flow that takes turns, likewise.
    turns: Option<HashMap<Arc<str>, u64>>,
    sessions: Vec<Sessions>,
    /// The number of requests that ever came in.
    sequence: u64,
}

impl Ledger {
    /// A ledger without requests, with the bands that `settings` configures.
    pub(super) fn new(settings: &FlowSettings) -> Self {
        let mut ledger = Self {
            items: Items::default(),
            waits: Waits::new(settings.default_request_ttl, settings.no_endpoint_request_ttl),
            bands: Vec::new(),
            order: Vec::new(),
            priorities: Vec::new(),
            queued: Queued::default(),
            elsewhere: BTreeMap::new(),
            elsewhere_sum: Queued::default(),
            programs: Vec::new(),
            services: None,
            turns: None,
            sessions: Vec::new(),
            sequence: 0,
        };
        ledger.provision(settings, &[]);
        ledger
    }

    /// Adds a request. `received` is the time of its headers.
    ///
    /// # Errors
    ///
    /// Returns a [`Rejection`] if a bound is reached.
    pub(super) fn enter(
        &mut self,
        settings: &FlowSettings,
        arrival: &Arrival,
        received: Nanos,
        at: Nanos,
    ) -> Result<Ticket, Rejection> {
        let pool_empty = self.waits.is_empty_pool();
        let full = |bound| Rejection::full(bound, pool_empty);
        // The band of priority 0 always exists, so this rejection does not happen.
        let no_band = Rejection::new(Outcome::RejectedOther, pool_empty);
        let slot = self.slot(arrival.priority).ok_or(no_band)?;
        let band = self.bands.get_mut(slot as usize).and_then(Option::as_mut).ok_or(no_band)?;
        let all = self.queued.plus(self.elsewhere_sum);
        match all.full(arrival.size, settings.max_requests, settings.max_bytes) {
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
            sequence: self.sequence,
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
        Ok(ticket)
    }

    /// Sets the requests that wait at other replicas, by priority.
    pub(super) fn set_elsewhere(&mut self, waiting: impl IntoIterator<Item = (i32, Queued)>) {
        self.elsewhere = waiting.into_iter().collect();
        self.elsewhere_sum = self.elsewhere.values().fold(Queued::default(), |sum, one| sum.plus(*one));
        for band in self.bands.iter_mut().flatten() {
            band.elsewhere = self.elsewhere.get(&band.priority).copied().unwrap_or_default();
        }
    }

    /// Removes a request from all records. `served` is true if the request is released. The request is not returned:
    /// copying it costs more than callers save by it. They read it with [`Ledger::item`] before.
    pub(super) fn take(&mut self, index: u32, served: bool) {
        let Some(item) = self.items.get(index).copied() else { return };
        self.waits.remove(&mut self.items, index, item.wait);
        self.queued.subtract(item.size, item.tokens);
        let mut retired = false;
        if let Some(band) = self.bands.get_mut(item.band as usize).and_then(Option::as_mut) {
            if served && let Some(turns) = &mut self.turns {
                band.note_turn(item.flow, turns, SERVICES);
            }
            band.remove(&mut self.items, index, served);
            retired = band.retiring && band.queued.requests == 0;
        }
        self.items.remove(index);
        if retired {
            self.drop_retired();
        }
    }

    /// The request in this slot.
    pub(super) fn item(&self, index: u32) -> Option<&Item> {
        self.items.get(index)
    }

    /// The ticket of the request in this slot.
    pub(super) fn ticket(&self, index: u32) -> Ticket {
        self.items.ticket(index)
    }

    /// True if the request of `ticket` still waits.
    pub(super) fn has(&self, ticket: Ticket) -> bool {
        self.items.find(ticket).is_some()
    }

    /// The request that is served next in the band of this rank.
    pub(super) fn next_in(&self, rank: usize) -> Option<u32> {
        self.band(rank).and_then(Band::next)
    }

    /// True if requests wait in the band of this rank.
    pub(super) fn waits_in(&self, rank: usize) -> bool {
        self.band(rank).is_some_and(|band| band.queued.requests > 0)
    }

    /// The priorities of the bands, falling. The index of a priority is the rank of its band.
    pub(super) fn priorities(&self) -> &[i32] {
        &self.priorities
    }

    /// The number and the size of all waiting requests.
    pub(super) fn queued(&self) -> Queued {
        self.queued
    }

    /// The load and the bounds of each band, by falling priority.
    pub(super) fn usages(&self) -> impl Iterator<Item = BandUsage> {
        (0..self.order.len()).filter_map(|rank| self.band(rank)).map(Band::usage)
    }

    /// The `count` flows whose next request has waited longest, longest wait first.
    pub(super) fn longest_waits(&self, count: usize, at: Nanos) -> Vec<FlowWait> {
        let bands = self.bands.iter().flatten();
        let flows = bands.flat_map(|band| band.flows.iter().map(move |flow| (band.priority, flow)));
        let mut waits: Vec<_> = flows
            .filter_map(|(priority, flow)| {
                Some((self.item(flow.queue.head()?)?.enqueued, priority, &flow.id))
            })
            .collect();
        // There may be many flows and the caller holds the lock, so the search sorts only the flows that it returns.
        if count < waits.len() {
            waits.select_nth_unstable_by_key(count, |(enqueued, ..)| *enqueued);
            waits.truncate(count);
        }
        waits.sort_by_key(|(enqueued, ..)| *enqueued);
        let wait = |(enqueued, priority, id): (Nanos, i32, &Arc<str>)| FlowWait {
            priority,
            id: Arc::clone(id),
            oldest: waited(enqueued, at),
        };
        waits.into_iter().map(wait).collect()
    }

    /// The number of flows that have requests waiting, in all bands.
    pub(super) fn flows(&self) -> usize {
        self.bands.iter().flatten().map(|band| band.flows.len()).sum()
    }

    /// Notes whether the pool has endpoints. If that changed, the wait of every request begins anew.
    pub(super) fn observe_pool(&mut self, is_empty: bool, at: Nanos) {
        self.waits.observe(is_empty, &self.items, at);
    }

    /// True if the pool had no endpoint when it was last observed.
    pub(super) fn is_pool_empty(&self) -> bool {
        self.waits.is_empty_pool()
    }

    /// A request whose wait has ended, with the outcome of the request.
    pub(super) fn expired(&self, at: Nanos) -> Option<(u32, Outcome)> {
        self.waits.expired(&self.items, at)
    }

    /// The time at which the next wait ends.
    pub(super) fn next_expiry(&self) -> Option<Nanos> {
        self.waits.next()
    }

    /// Notes that a request of this session has ended, for fairness by turns.
    pub(super) fn session_request_ended(&mut self, fairness_id: &str, at: Nanos) {
        for sessions in &mut self.sessions {
            sessions.ended(fairness_id, at);
        }
    }

    /// True if at least one band is fair by turns.
    pub(super) fn has_sessions(&self) -> bool {
        !self.sessions.is_empty()
    }

    /// Notes that the next request of the session in this flow of this band is about to be released.
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

    /// Adds `tokens`, weighed as the policy weighs them, to the service of a program.
    pub(super) fn served(&mut self, fairness_id: &Arc<str>, tokens: f64, at: Nanos) {
        for programs in &mut self.programs {
            let aside = programs.add(fairness_id, tokens, at);
            for band in self.bands.iter_mut().flatten() {
                band.service_changed(programs, fairness_id, &aside);
            }
        }
    }

    /// Records service that this process gave to a program, for [`Ledger::take_services`].
    pub(super) fn note_service(&mut self, fairness_id: &Arc<str>, tokens: f64) {
        let Some(services) = self.services.as_mut().filter(|_| !self.programs.is_empty()) else { return };
        if services.len() < SERVICES || services.contains_key(fairness_id) {
            *services.entry(Arc::clone(fairness_id)).or_default() += tokens as u64;
        }
    }

    /// Returns the service that was recorded since the last call, and starts recording.
    pub(super) fn take_services(&mut self) -> Vec<(Arc<str>, u64)> {
        self.services.replace(HashMap::new()).into_iter().flatten().collect()
    }

    /// Requests that were released since the last call, by fairness id, of flows that take turns.
    pub(super) fn take_turns(&mut self) -> Vec<(Arc<str>, u64)> {
        self.turns.replace(HashMap::new()).into_iter().flatten().collect()
    }

    /// Another replica has released so many requests of this flow.
    pub(super) fn turns_elsewhere(&mut self, fairness_id: &Arc<str>, count: u64, at: Nanos) {
        for sessions in &mut self.sessions {
            sessions.released_elsewhere(fairness_id, count, at);
        }
        for band in self.bands.iter_mut().flatten() {
            band.turn_elsewhere(fairness_id);
            for sessions in &self.sessions {
                band.turn_changed(sessions, fairness_id, at);
            }
        }
    }

    /// Makes a band for each of `priorities`, beside the configured bands. A band for any other priority is removed
    /// once it is empty.
    pub(super) fn provision(&mut self, settings: &FlowSettings, priorities: &[i32]) {
        let fixed = settings.bands.keys().copied().chain([0]);
        for priority in priorities.iter().copied().chain(fixed).collect::<Vec<_>>() {
            if let Err(rank) = self.rank(priority) {
                self.add_band(settings, priority, rank);
            }
        }
        for band in self.bands.iter_mut().flatten() {
            let wanted = band.priority == 0
                || priorities.contains(&band.priority)
                || settings.bands.contains_key(&band.priority);
            band.retiring = !wanted;
        }
        self.drop_retired();
    }

    fn add_band(&mut self, settings: &FlowSettings, priority: i32, rank: usize) {
        let settings = settings.band(priority).clone();
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
        let mut band = Band::new(priority, settings);
        band.elsewhere = self.elsewhere.get(&priority).copied().unwrap_or_default();
        let band = Some(band);
        let slot = self.bands.iter().position(Option::is_none).unwrap_or(self.bands.len());
        match self.bands.get_mut(slot) {
            Some(free) => *free = band,
            None => self.bands.push(band),
        }
        self.order.insert(rank, slot as u32);
        self.priorities.insert(rank, priority);
    }

    /// Removes the empty bands whose priority is no longer needed.
    fn drop_retired(&mut self) {
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

    /// The rank of the band of `priority`. The error is the rank that a new band of this priority would have.
    fn rank(&self, priority: i32) -> Result<usize, usize> {
        self.priorities.binary_search_by(|other| priority.cmp(other))
    }

    /// The slot of the band in which a request of `priority` waits.
    fn slot(&self, priority: i32) -> Option<u32> {
        let rank = self.rank(priority).or_else(|_| self.rank(0)).ok()?;
        self.order.get(rank).copied()
    }

    fn band(&self, rank: usize) -> Option<&Band> {
        self.bands.get(*self.order.get(rank)? as usize)?.as_ref()
    }
}

/// The time that a request has waited since it came in.
pub(super) fn waited(enqueued: Nanos, at: Nanos) -> Duration {
    Duration::from_nanos(at.saturating_sub(enqueued))
}
