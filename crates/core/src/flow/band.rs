//! One priority band: its flows, its bounds, and the flow that is served next.

use std::sync::Arc;
use std::time::Duration;

use hashbrown::HashMap;

use super::fairness::Turn;
use super::flows::{Flow, Flows};
use super::limit::{Full, Queued};
use super::ordering::Nanos;
use super::programs::{Aside, Programs};
use super::queue::{Items, List, Queue};
use super::sessions::Sessions;
use super::settings::{BandSettings, Fairness, Ordering};

/// The load and the bounds of one band.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BandUsage {
    /// The priority of the band.
    pub priority: i32,
    /// The requests that wait in the band.
    pub queued: Queued,
    /// The most requests that may wait in the band.
    pub max_requests: u64,
    /// The most body bytes that may wait in the band.
    pub max_bytes: u64,
}

/// A flow in which requests wait.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlowWait {
    /// The priority of the flow's band.
    pub priority: i32,
    /// The fairness id of the flow. It is empty where a band does not keep flows apart.
    pub id: Arc<str>,
    /// The time that the flow's first request has waited.
    pub oldest: Duration,
}

/// A priority band.
#[derive(Debug)]
pub(super) struct Band {
    pub(super) priority: i32,
    pub(super) settings: BandSettings,
    pub(super) queued: Queued,
    /// The requests that wait in this band at other replicas. They count towards the same bounds.
    pub(super) elsewhere: Queued,
    /// True if no objective has this priority any more. The band is removed when it is empty.
    pub(super) retiring: bool,
    pub(super) flows: Flows,
    pub(super) turn: Turn,
    /// The id of the one flow of a band that does not keep flows apart.
    everyone: Arc<str>,
}

impl Band {
    pub(super) fn new(priority: i32, settings: BandSettings) -> Self {
        Self {
            priority,
            turn: Turn::new(&settings.fairness),
            settings,
            queued: Queued::default(),
            elsewhere: Queued::default(),
            retiring: false,
            flows: Flows::default(),
            everyone: "".into(),
        }
    }

    pub(super) fn usage(&self) -> BandUsage {
        BandUsage {
            priority: self.priority,
            queued: self.queued,
            max_requests: self.settings.max_requests,
            max_bytes: self.settings.max_bytes,
        }
    }

    /// The bound that leaves no room for a body of `bytes`; `None` if there is room. Requests that wait at other
    /// replicas count.
    pub(super) fn full(&self, bytes: u64) -> Option<Full> {
        self.queued.plus(self.elsewhere).full(
            bytes,
            Some(self.settings.max_requests),
            Some(self.settings.max_bytes),
        )
    }

    /// The flow of a fairness id. It is created if it does not exist.
    pub(super) fn flow(&mut self, fairness_id: &Arc<str>) -> u32 {
        let id = if self.turn.keeps_flows_apart() { fairness_id } else { &self.everyone };
        if let Some(flow) = self.flows.find(id) {
            return flow;
        }
        let queue = match self.settings.ordering {
            Ordering::Fcfs => Queue::Arrival(List::default()),
            Ordering::Edf | Ordering::SloDeadline => Queue::Ranked(std::collections::BTreeSet::new()),
        };
        self.flows.insert(Flow { id: Arc::clone(id), queue })
    }

    /// Adds a request to its flow. `standing` is the service that the flow's program got, or the turn of its session.
    pub(super) fn push(&mut self, items: &mut Items, index: u32, standing: f64) {
        let Some(item) = items.get(index).copied() else { return };
        let Some(flow) = self.flows.get_mut(item.flow) else { return };
        let before = flow.queue.head();
        flow.queue.push(items, index);
        let after = flow.queue.head();
        self.queued.add(item.size, item.tokens);
        match before {
            None => self.turn.begin(item.flow, item.enqueued, standing),
            Some(_) if before != after => self.turn.head_changed(item.flow, item.enqueued),
            Some(_) => {}
        }
    }

    /// Adds a turn of `flow` to `turns`, if flows take turns here. Beyond `most` ids, further ones are left out.
    pub(super) fn note_turn(&self, flow: u32, turns: &mut HashMap<Arc<str>, u64>, most: usize) {
        if !matches!(self.turn, Turn::RoundRobin(_) | Turn::Sessions(_)) {
            return;
        }
        let Some(id) = self.flows.get(flow).map(|flow| &flow.id) else { return };
        if turns.len() < most || turns.contains_key(id) {
            *turns.entry(Arc::clone(id)).or_default() += 1;
        }
    }

    /// Another replica has released a request of this flow: the others come before it.
    pub(super) fn turn_elsewhere(&mut self, fairness_id: &Arc<str>) {
        if let (Turn::RoundRobin(_), Some(flow)) = (&self.turn, self.flows.find(fairness_id)) {
            self.turn.served(flow);
        }
    }

    /// The request that is served next.
    pub(super) fn next(&self) -> Option<u32> {
        self.flows.get(self.turn.next()?)?.queue.head()
    }

    /// Updates the scores of the program `id` and of the programs in `aside`, whose accounts changed.
    pub(super) fn service_changed(&mut self, programs: &Programs, id: &str, aside: &Aside) {
        let Fairness::ProgramAware(parameters) = &self.settings.fairness else { return };
        if parameters != programs.parameters() {
            return;
        }
        let Turn::Programs(contest) = &mut self.turn else { return };
        if let Some(factor) = aside.factor {
            contest.scale(factor);
        }
        for id in aside.forgotten.iter().map(|id| &**id).chain([id]) {
            if let Some(flow) = self.flows.find(id) {
                contest.set_service(flow, programs.service(id));
            }
        }
    }

    /// The session of a flow and the turn of its first request. `None` if the band is not fair by turns.
    pub(super) fn session(&self, flow: u32) -> Option<(Arc<str>, f64)> {
        let Turn::Sessions(depths) = &self.turn else { return None };
        Some((Arc::clone(&self.flows.get(flow)?.id), depths.turn(flow)?))
    }

    /// Updates the score of the session `id`, whose turn changed.
    pub(super) fn turn_changed(&mut self, sessions: &Sessions, id: &str, now: Nanos) {
        let Fairness::TurnPriority(parameters) = &self.settings.fairness else { return };
        if parameters == sessions.parameters()
            && let Turn::Sessions(depths) = &mut self.turn
            && let Some(flow) = self.flows.find(id)
        {
            depths.set_turn(flow, sessions.turn(id, now));
        }
    }

    /// Removes a request. `served` is true if the request is released, which uses up the turn of its flow.
    pub(super) fn remove(&mut self, items: &mut Items, index: u32, served: bool) {
        let Some(item) = items.get(index).copied() else { return };
        let Some(flow) = self.flows.get_mut(item.flow) else { return };
        let was_head = flow.queue.head() == Some(index);
        flow.queue.remove(items, index);
        self.queued.subtract(item.size, item.tokens);
        let Some(head) = flow.queue.head() else {
            self.turn.end(item.flow);
            self.flows.remove(item.flow);
            return;
        };
        if was_head {
            let since: Nanos = items.get(head).map_or(0, |head| head.enqueued);
            self.turn.head_changed(item.flow, since);
        }
        if served {
            self.turn.served(item.flow);
        }
    }
}
