//! Other settings while requests wait: each finds its place under the new ones, and none is lost.

use std::sync::Arc;

use super::Ledger;
use crate::flow::arrival::Arrival;
use crate::flow::limit::Queued;
use crate::flow::ordering::{Due, Nanos, rank};
use crate::flow::queue::Item;
use crate::flow::settings::{Fairness, FlowSettings};

impl Ledger {
    /// Puts all requests in order anew by `settings`. They keep their tickets and the time at which they came; bounds do
    /// not count for them. `arrivals` says what the request in a place came with, and when its headers came.
    pub(in crate::flow) fn resettle<'a>(
        &mut self,
        settings: &FlowSettings,
        arrivals: impl Fn(u32) -> Option<(&'a Arrival, Nanos)>,
        at: Nanos,
    ) {
        let mut waiting: Vec<(u64, u32)> =
            self.items.iter().map(|(index, it)| (it.sequence, index)).collect();
        waiting.sort_unstable();
        let priorities = self.priorities.clone();
        self.waits = self.waits.again(settings.default_request_ttl, settings.no_endpoint_request_ttl);
        (self.queued, self.bands, self.order, self.priorities) = (Queued::default(), vec![], vec![], vec![]);
        // Bands of objectives stay until somebody says which there are.
        self.provision(settings, &priorities);
        for (_, index) in waiting {
            self.settle(index, arrivals(index), at);
        }
        let used =
            |fairness: &Fairness| self.bands.iter().flatten().any(|band| band.settings.fairness == *fairness);
        let programs: Vec<bool> = self
            .programs
            .iter()
            .map(|programs| used(&Fairness::ProgramAware(programs.parameters().clone())))
            .collect();
        let sessions: Vec<bool> = self
            .sessions
            .iter()
            .map(|sessions| used(&Fairness::TurnPriority(sessions.parameters().clone())))
            .collect();
        let mut kept = programs.into_iter();
        self.programs.retain(|_| kept.next().unwrap_or(false));
        let mut kept = sessions.into_iter();
        self.sessions.retain(|_| kept.next().unwrap_or(false));
    }

    /// Puts one request into the lists.
    fn settle(&mut self, index: u32, arrival: Option<(&Arrival, Nanos)>, at: Nanos) {
        let Some(item) = self.items.get(index).copied() else { return };
        let Some(slot) = self.slot(item.priority) else { return };
        let Some(band) = self.bands.get_mut(slot as usize).and_then(Option::as_mut) else { return };
        let id = arrival.map_or_else(|| Arc::from(""), |(arrival, _)| Arc::clone(&arrival.fairness_id));
        let ttl = self.waits.ttl(arrival.and_then(|(arrival, _)| arrival.ttl), band.settings.request_ttl);
        let wait = self.waits.group(ttl);
        let due = Due {
            received: arrival.map_or(item.enqueued, |(_, received)| received),
            enqueued: item.enqueued,
            ttl,
            slo_ttft: arrival.and_then(|(arrival, _)| arrival.slo_ttft),
        };
        let standing = match &band.settings.fairness {
            Fairness::ProgramAware(parameters) => {
                let programs = self.programs.iter().find(|programs| programs.parameters() == parameters);
                programs.map_or(0.0, |programs| programs.service(&id))
            }
            Fairness::TurnPriority(parameters) => {
                let sessions = self.sessions.iter().find(|sessions| sessions.parameters() == parameters);
                sessions.map_or(1.0, |sessions| sessions.turn(&id, at))
            }
            Fairness::GlobalStrict | Fairness::RoundRobin => 0.0,
        };
        let rank = rank(band.settings.ordering, due, item.sequence);
        self.items.put(index, Item { band: slot, flow: band.flow(&id), wait, rank, ..item });
        band.push(&mut self.items, index, standing);
        self.waits.add(&mut self.items, index, wait);
        self.queued.add(item.size, item.tokens);
    }
}
