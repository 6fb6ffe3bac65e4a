//! Random histories in virtual time, compared with what the rules say of each step.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use proptest::prelude::*;

use super::pool::{Bench, arrival, millis};
use crate::flow::settings::{BandSettings, Fairness, Ordering, ProgramAware, TurnPriority};
use crate::flow::{Arrival, FlowSettings, GateDecision, Outcome, Ticket};

const PRIORITIES: [i32; 4] = [10, 0, -10, 99];
const FLOWS: [&str; 4] = ["a", "b", "c", "d"];
const TTL: Duration = Duration::from_millis(400);
const NO_ENDPOINT_TTL: Duration = Duration::from_millis(900);
const BACKSTOP: Duration = Duration::from_millis(2900);

#[derive(Clone, Debug)]
enum Step {
    Submit { priority: usize, flow: usize, size: u64, ttl: Option<u64>, slo: Option<u64> },
    Complete(prop::sample::Index),
    Cancel(prop::sample::Index),
    Pool { endpoints: u64, capacity: u64 },
    Pass(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let soon = || prop::option::weighted(0.3, 1..500_u64);
    prop_oneof![
        8 => (0..4_usize, 0..4_usize, 0..40_u64, soon(), soon())
            .prop_map(|(priority, flow, size, ttl, slo)| Step::Submit { priority, flow, size, ttl, slo }),
        4 => any::<prop::sample::Index>().prop_map(Step::Complete),
        1 => any::<prop::sample::Index>().prop_map(Step::Cancel),
        2 => (0..3_u64, 0..6_u64).prop_map(|(endpoints, capacity)| Step::Pool { endpoints, capacity }),
        2 => (0..300_u64).prop_map(Step::Pass),
    ]
}

fn settings() -> impl Strategy<Value = FlowSettings> {
    let fairness = prop_oneof![
        Just(Fairness::GlobalStrict),
        Just(Fairness::RoundRobin),
        Just(Fairness::ProgramAware(ProgramAware::default())),
        Just(Fairness::TurnPriority(TurnPriority::default())),
    ];
    let ordering = prop_oneof![Just(Ordering::Fcfs), Just(Ordering::Edf), Just(Ordering::SloDeadline)];
    let own_ttl = prop_oneof![Just(None), Just(Some(millis(150))), Just(Some(millis(700)))];
    let band = (fairness, ordering, 1..12_u64, 30..200_u64, own_ttl).prop_map(
        |(fairness, ordering, max_requests, max_bytes, request_ttl)| BandSettings {
            max_bytes,
            max_requests,
            request_ttl,
            fairness,
            ordering,
        },
    );
    (prop::collection::vec(band, 3), prop::option::of(1..20_u64)).prop_map(|(bands, max_requests)| {
        FlowSettings {
            max_requests,
            max_bytes: Some(300),
            default_request_ttl: Some(TTL),
            no_endpoint_request_ttl: Some(NO_ENDPOINT_TTL),
            bands: PRIORITIES.into_iter().zip(bands).collect(),
            ..FlowSettings::default()
        }
    })
}

/// A waiting request as the model knows it. Times are since the start.
#[derive(Clone, Debug)]
struct Request {
    band: i32,
    flow: &'static str,
    size: u64,
    enqueued: Duration,
    ttl: Duration,
    key: (Duration, Duration, usize),
}

struct Model {
    bench: Bench,
    settings: FlowSettings,
    start: std::time::Instant,
    waiting: HashMap<Ticket, Request>,
    running: Vec<Ticket>,
    submitted: usize,
    decided: usize,
    empty: bool,
    since: Duration,
    /// By band and flow: number of the release that served it last, and number of releases when it began to wait.
    served: BTreeMap<(i32, &'static str), (usize, usize)>,
    releases: usize,
}

impl Model {
    fn new(settings: FlowSettings) -> Self {
        let bench = Bench::new(settings.clone(), 1, 2);
        Self {
            start: bench.now,
            bench,
            settings,
            waiting: HashMap::new(),
            running: Vec::new(),
            submitted: 0,
            decided: 0,
            empty: false,
            since: Duration::ZERO,
            served: BTreeMap::new(),
            releases: 0,
        }
    }

    fn now(&self) -> Duration {
        self.bench.now - self.start
    }

    fn apply(&mut self, step: &Step) {
        match step {
            Step::Submit { priority, flow, size, ttl, slo } => {
                self.submit(PRIORITIES[*priority], FLOWS[*flow], *size, *ttl, *slo);
            }
            Step::Complete(index) => {
                if !self.running.is_empty() {
                    let ticket = self.running.swap_remove(index.index(self.running.len()));
                    self.bench.complete(ticket);
                }
            }
            Step::Cancel(index) => {
                let mut tickets: Vec<Ticket> = self.waiting.keys().copied().collect();
                tickets.sort();
                if !tickets.is_empty() {
                    let ticket = tickets[index.index(tickets.len())];
                    assert!(self.bench.cancel(ticket));
                    self.decided += 1;
                    self.waiting.remove(&ticket);
                }
            }
            Step::Pool { endpoints, capacity } => self.resize(*endpoints, *capacity),
            Step::Pass(time) => {
                let end = self.bench.now + millis(*time);
                while let Some(next) = self.bench.gate.next_wakeup().filter(|next| *next <= end) {
                    let time = next - self.bench.now;
                    self.bench.pass(time);
                    self.check();
                }
                self.bench.now = end;
            }
        }
        self.check();
    }

    fn resize(&mut self, endpoints: u64, capacity: u64) {
        if self.empty != (endpoints == 0) {
            (self.empty, self.since) = (endpoints == 0, self.now());
        }
        self.bench.resize(endpoints, capacity);
    }

    fn submit(&mut self, priority: i32, flow: &'static str, size: u64, ttl: Option<u64>, slo: Option<u64>) {
        let now = self.now();
        let band = if self.settings.bands.contains_key(&priority) { priority } else { 0 };
        let most = self.settings.band(band).request_ttl.unwrap_or(TTL);
        let ttl = ttl.map_or(most, millis).min(most);
        let key = match self.settings.band(band).ordering {
            Ordering::Fcfs => (Duration::ZERO, now, self.submitted),
            Ordering::Edf => (now + ttl, now, self.submitted),
            Ordering::SloDeadline => {
                (slo.map_or(Duration::MAX, |slo| now + millis(slo)), now, self.submitted)
            }
        };
        let request = Request { band, flow, size, enqueued: now, ttl, key };
        let wanted = Arrival {
            size,
            ttl: Some(ttl),
            slo_ttft: slo.map(millis),
            received: self.bench.now,
            ..arrival(priority, flow)
        };
        self.submitted += 1;
        let fits = self.fits(&request);
        match self.bench.submit(&wanted) {
            Ok(ticket) => {
                assert!(fits, "bounds are exceeded");
                if !self.waits(band, flow) {
                    self.served.entry((band, flow)).or_default().1 = self.releases;
                }
                assert!(self.waiting.insert(ticket, request).is_none());
            }
            Err(refusal) => {
                assert!(!fits, "refused though there is room to wait");
                let expected =
                    if self.empty { Outcome::RejectedNoEndpoints } else { Outcome::RejectedCapacity };
                assert_eq!(refusal.outcome, expected);
                self.decided += 1;
            }
        }
    }

    fn fits(&self, request: &Request) -> bool {
        let count = |in_band: bool| {
            let those = self.waiting.values().filter(|other| !in_band || other.band == request.band);
            those.fold((1, request.size), |(n, bytes), other| (n + 1, bytes + other.size))
        };
        let band = self.settings.band(request.band);
        let ((all, all_bytes), (own, own_bytes)) = (count(false), count(true));
        self.settings.max_requests.is_none_or(|max| all <= max)
            && self.settings.max_bytes.is_none_or(|max| all_bytes <= max)
            && own <= band.max_requests
            && own_bytes <= band.max_bytes
    }

    fn waits(&self, band: i32, flow: &str) -> bool {
        self.waiting.values().any(|other| (other.band, other.flow) == (band, flow))
    }

    /// When the request has waited for too long.
    fn deadline(&self, request: &Request) -> Duration {
        let budget = if self.empty { NO_ENDPOINT_TTL } else { request.ttl };
        (request.enqueued.max(self.since) + budget).min(request.enqueued + BACKSTOP)
    }

    fn has_room(&self) -> bool {
        let capacity = self.bench.pool.capacity.load(std::sync::atomic::Ordering::SeqCst);
        !self.empty && (self.running.len() as u64) < capacity
    }

    /// Follows the decisions one by one, then compares all counts.
    fn check(&mut self) {
        let now = self.now();
        for decision in self.bench.decisions() {
            match decision {
                GateDecision::Release { ticket, waited } => {
                    assert!(self.has_room(), "released without room");
                    let request = self.waiting.remove(&ticket).expect("decided twice");
                    assert_eq!(waited, now.saturating_sub(request.enqueued));
                    self.check_order(&request);
                    self.releases += 1;
                    self.served.entry((request.band, request.flow)).or_default().0 = self.releases;
                    self.running.push(ticket);
                }
                GateDecision::Reject { ticket, rejection, waited } => {
                    let request = self.waiting.remove(&ticket).expect("decided twice");
                    assert_eq!(waited, now.saturating_sub(request.enqueued));
                    assert_eq!(self.deadline(&request), now, "not at its deadline: {rejection:?}");
                    assert_eq!(rejection.pool_empty, self.empty);
                    let backstop = request.enqueued.max(self.since) + NO_ENDPOINT_TTL > now;
                    let expected = if self.empty && !backstop {
                        Outcome::EvictedNoEndpoints
                    } else {
                        Outcome::EvictedTtl
                    };
                    assert_eq!(rejection.outcome, expected);
                }
                other => panic!("{other:?}"),
            }
            self.decided += 1;
        }
        assert!(!self.has_room() || self.waiting.is_empty(), "waits while there is room");
        let gate = &self.bench.gate;
        let bytes: u64 = self.waiting.values().map(|request| request.size).sum();
        assert_eq!((gate.queued().requests, gate.queued().bytes), (self.waiting.len() as u64, bytes));
        assert_eq!(gate.in_flight(), self.running.len() as u64);
        assert_eq!(self.decided + self.waiting.len(), self.submitted);
        for band in gate.bands() {
            assert!(band.queued.requests <= band.max_requests && band.queued.bytes <= band.max_bytes);
        }
        let next = self.waiting.values().map(|request| self.deadline(request)).min();
        assert_eq!(gate.next_wakeup().map(|at| at - self.start), next);
    }

    fn check_order(&self, request: &Request) {
        let band = self.settings.band(request.band);
        for other in self.waiting.values() {
            assert!(other.band <= request.band, "a less important request went first");
            if other.band == request.band
                && (other.flow == request.flow || band.fairness == Fairness::GlobalStrict)
            {
                assert!(request.key < other.key, "order within the flow");
            }
        }
        if band.fairness == Fairness::RoundRobin {
            let last = |flow| self.served.get(&(request.band, flow)).copied().unwrap_or_default();
            let (mine, began) = last(request.flow);
            for flow in FLOWS.into_iter().filter(|flow| *flow != request.flow) {
                let (theirs, waits_since) = last(flow);
                // Served and waiting on, while the other one waited all the time.
                let passed_over = mine > began && waits_since < mine && theirs < mine;
                assert!(!(self.waits(request.band, flow) && passed_over), "{flow} was passed over");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn every_history_keeps_the_rules_and_ends_with_nothing_left(
        settings in settings(),
        steps in prop::collection::vec(step(), 1..150),
    ) {
        let mut model = Model::new(settings);
        for step in &steps {
            model.apply(step);
        }
        model.resize(1, 10_000);
        model.check();
        while let Some(ticket) = model.running.pop() {
            model.bench.complete(ticket);
            model.check();
        }
        let gate = &model.bench.gate;
        prop_assert_eq!(model.decided, model.submitted);
        prop_assert_eq!((gate.queued().requests, gate.in_flight(), gate.unplaced().requests), (0, 0, 0));
        prop_assert_eq!((gate.flows(), gate.next_wakeup()), (0, None));
    }
}
