//! The order of service among the flows of one band.

use super::contest::Contest;
use super::depths::Depths;
use super::ordering::Nanos;
use super::queue::NONE;
use super::settings::Fairness;

/// The order of service among the flows of one band that have requests waiting.
#[derive(Debug)]
pub(super) enum Turn {
    /// All requests of the band are in one flow, so the band's ordering alone decides. The result is that of comparing
    /// the first requests of all flows, without the cost of doing so.
    OneFlow(Option<u32>),
    /// The flows take turns. A flow that begins to wait comes last.
    RoundRobin(Ring),
    /// The program with the best score goes first.
    Programs(Contest),
    /// The session with the best score goes first.
    Sessions(Depths),
}

impl Turn {
    pub(super) fn new(fairness: &Fairness) -> Self {
        match fairness {
            Fairness::GlobalStrict => Self::OneFlow(None),
            Fairness::RoundRobin => Self::RoundRobin(Ring::default()),
            Fairness::ProgramAware(parameters) => {
                Self::Programs(Contest::new(parameters.weight_service, parameters.weight_head_wait))
            }
            Fairness::TurnPriority(parameters) => Self::Sessions(Depths::new(parameters.time_weight)),
        }
    }

    /// True if the requests of different fairness ids are in different flows.
    pub(super) fn keeps_flows_apart(&self) -> bool {
        !matches!(self, Self::OneFlow(_))
    }

    /// The flow that is served next.
    pub(super) fn next(&self) -> Option<u32> {
        match self {
            Self::OneFlow(flow) => *flow,
            Self::RoundRobin(ring) => ring.first(),
            Self::Programs(contest) => contest.best(),
            Self::Sessions(depths) => depths.best(),
        }
    }

    /// Adds `flow`, whose first request has waited since `head`. `standing` is the service that the flow's program got,
    /// or the turn of its session.
    pub(super) fn begin(&mut self, flow: u32, head: Nanos, standing: f64) {
        match self {
            Self::OneFlow(only) => *only = Some(flow),
            Self::RoundRobin(ring) => ring.append(flow),
            Self::Programs(contest) => contest.set(flow, head, standing),
            Self::Sessions(depths) => depths.set(flow, head, standing),
        }
    }

    /// Notes that the first request of `flow` is another one now, which has waited since `head`.
    pub(super) fn head_changed(&mut self, flow: u32, head: Nanos) {
        match self {
            Self::Programs(contest) => contest.set_head(flow, head),
            Self::Sessions(depths) => depths.set_head(flow, head),
            Self::OneFlow(_) | Self::RoundRobin(_) => {}
        }
    }

    /// Notes that a request of `flow` was released and others of the flow still wait.
    pub(super) fn served(&mut self, flow: u32) {
        if let Self::RoundRobin(ring) = self {
            ring.remove(flow);
            ring.append(flow);
        }
    }

    /// Removes `flow`, which has no requests left.
    pub(super) fn end(&mut self, flow: u32) {
        match self {
            Self::OneFlow(only) => *only = None,
            Self::RoundRobin(ring) => ring.remove(flow),
            Self::Programs(contest) => contest.clear(flow),
            Self::Sessions(depths) => depths.clear(flow),
        }
    }
}

/// The flows that take turns, as a linked list. Every operation is O(1).
#[derive(Debug)]
pub(super) struct Ring {
    /// The previous and the next flow, by flow slot. A flow that is alone in the list and one that is not in it both
    /// link to nothing.
    links: Vec<(u32, u32)>,
    head: u32,
    tail: u32,
}

impl Default for Ring {
    fn default() -> Self {
        Self { links: Vec::new(), head: NONE, tail: NONE }
    }
}

impl Ring {
    /// The flow whose turn it is.
    pub(super) fn first(&self) -> Option<u32> {
        (self.head != NONE).then_some(self.head)
    }

    pub(super) fn append(&mut self, flow: u32) {
        if self.links.len() <= flow as usize {
            self.links.resize(flow as usize + 1, (NONE, NONE));
        }
        let previous = std::mem::replace(&mut self.tail, flow);
        match self.links.get_mut(previous as usize) {
            Some(links) => links.1 = flow,
            None => self.head = flow,
        }
        if let Some(links) = self.links.get_mut(flow as usize) {
            *links = (previous, NONE);
        }
    }

    /// Removes a flow, which must be in the list.
    pub(super) fn remove(&mut self, flow: u32) {
        let Some(links) = self.links.get_mut(flow as usize) else { return };
        let (previous, next) = std::mem::replace(links, (NONE, NONE));
        match self.links.get_mut(previous as usize) {
            Some(links) => links.1 = next,
            None => self.head = next,
        }
        match self.links.get_mut(next as usize) {
            Some(links) => links.0 = previous,
            None => self.tail = previous,
        }
    }
}
