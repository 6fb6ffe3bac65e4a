//! A pool of which the tests say how much fits into it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};

use crate::flow::{
    Arrival, Fill, FlowSettings, Gate, GateDecision, Load, Outcome, Rejection, Ticket, Unplaced,
};

/// Endpoints, and requests that fit into all of them. What the gate released counts until it ends.
#[derive(Clone, Debug)]
pub(super) struct FakePool {
    pub(super) endpoints: Arc<AtomicU64>,
    pub(super) capacity: Arc<AtomicU64>,
    /// Judgements of the whole pool.
    pub(super) looks: Arc<AtomicU64>,
}

impl FakePool {
    pub(super) fn new(endpoints: u64, capacity: u64) -> Self {
        Self {
            endpoints: Arc::new(endpoints.into()),
            capacity: Arc::new(capacity.into()),
            looks: Arc::default(),
        }
    }

    pub(super) fn set(&self, endpoints: u64, capacity: u64) {
        self.endpoints.store(endpoints, SeqCst);
        self.capacity.store(capacity, SeqCst);
    }
}

impl Load for FakePool {
    fn is_empty(&self) -> bool {
        self.endpoints.load(SeqCst) == 0
    }

    fn size(&self) -> usize {
        self.endpoints.load(SeqCst) as usize
    }

    fn fill(&self, unplaced: Unplaced, _: Instant) -> Fill {
        self.looks.fetch_add(1, SeqCst);
        let capacity = self.capacity.load(SeqCst);
        let fill = if capacity == 0 { 1.0 } else { unplaced.requests as f64 / capacity as f64 };
        Fill { raw: fill, gating: fill }
    }
}

pub(super) fn arrival(priority: i32, flow: &str) -> Arrival {
    Arrival {
        priority,
        fairness_id: flow.into(),
        model: "m".into(),
        target_model: "m".into(),
        size: 1,
        tokens: 1,
        received: tokio::time::Instant::now().into_std(),
        ttl: None,
        slo_ttft: None,
    }
}

pub(super) fn millis(count: u64) -> Duration {
    Duration::from_millis(count)
}

/// A gate, its pool and its clock.
pub(super) struct Bench {
    pub(super) gate: Gate,
    pub(super) pool: FakePool,
    pub(super) now: Instant,
    decisions: Vec<GateDecision>,
}

impl Bench {
    pub(super) fn new(settings: FlowSettings, endpoints: u64, capacity: u64) -> Self {
        let now = Instant::now();
        let pool = FakePool::new(endpoints, capacity);
        Self { gate: Gate::new(settings, now), pool, now, decisions: Vec::new() }
    }

    pub(super) fn submit(&mut self, arrival: &Arrival) -> Result<Ticket, Rejection> {
        self.gate.submit(arrival, self.now, &self.pool, &mut self.decisions)
    }

    /// Submits a request that has to be taken in.
    pub(super) fn wait(&mut self, arrival: &Arrival) -> Ticket {
        self.submit(arrival).unwrap()
    }

    pub(super) fn cancel(&mut self, ticket: Ticket) -> bool {
        self.gate.cancel(ticket, self.now, &self.pool, &mut self.decisions)
    }

    pub(super) fn complete(&mut self, ticket: Ticket) {
        self.gate.complete(ticket, Some(1), self.now, &self.pool, &mut self.decisions);
    }

    pub(super) fn close(&mut self) {
        self.gate.close(self.now, &self.pool, &mut self.decisions);
    }

    pub(super) fn resize(&mut self, endpoints: u64, capacity: u64) {
        self.pool.set(endpoints, capacity);
        self.gate.advance(self.now, &self.pool, &mut self.decisions);
    }

    /// Lets time pass, stopping at each wake-up that the gate asks for.
    pub(super) fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(next) = self.gate.next_wakeup().filter(|next| *next <= end) {
            assert!(next > self.now, "a wake-up that changes nothing");
            self.now = next;
            self.gate.advance(self.now, &self.pool, &mut self.decisions);
        }
        self.now = end;
    }

    pub(super) fn keep(&mut self, decisions: Vec<GateDecision>) {
        self.decisions.extend(decisions);
    }

    pub(super) fn decisions(&mut self) -> Vec<GateDecision> {
        std::mem::take(&mut self.decisions)
    }

    /// Requests released since the last look.
    pub(super) fn released(&mut self) -> Vec<Ticket> {
        let ticket = |decision| match decision {
            GateDecision::Release { ticket, .. } => Some(ticket),
            _ => None,
        };
        self.decisions().into_iter().filter_map(ticket).collect()
    }

    /// How requests were refused since the last look, with the time they waited.
    pub(super) fn refused(&mut self) -> Vec<(Outcome, Duration)> {
        let refusal = |decision| match decision {
            GateDecision::Reject { rejection, waited, .. } => Some((rejection.outcome, waited)),
            _ => None,
        };
        self.decisions().into_iter().filter_map(refusal).collect()
    }
}
