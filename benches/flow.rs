//! Flow control: taking requests in, releasing them, giving up on them.

#![allow(missing_docs, reason = "criterion generates public items")]
#![allow(clippy::unwrap_used, reason = "a bench may panic")]

use std::hint::black_box;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use pointsman::flow::detector::Detector;
use pointsman::flow::settings::{BandSettings, Fairness, Ordering, ProgramAware};
use pointsman::flow::{
    Arrival, Controller, Fill, FlowSettings, Gate, GateDecision, Load, Silent, Ticket, Unplaced, saturation,
};
use pointsman::pool::{Endpoint, EndpointId, EndpointSpec, Pool, Reading};

/// A pool that takes this many requests at a time.
#[derive(Clone)]
struct Room(Arc<AtomicU64>);

impl Room {
    fn new(requests: u64) -> Self {
        Self(Arc::new(requests.into()))
    }
}

impl Load for Room {
    fn is_empty(&self) -> bool {
        false
    }

    fn fill(&self, unplaced: Unplaced, _: Instant) -> Fill {
        let fill = if unplaced.requests < self.0.load(Relaxed) { 0.0 } else { 1.0 };
        Fill { raw: fill, gating: fill }
    }
}

fn settings(fairness: Fairness, ordering: Ordering) -> FlowSettings {
    let band =
        BandSettings { max_requests: u64::MAX, max_bytes: u64::MAX, request_ttl: None, fairness, ordering };
    let bands = [100, 0, -10].map(|priority| (priority, band.clone())).into();
    FlowSettings { bands, ..FlowSettings::default() }
}

fn arrivals(flows: usize) -> Vec<Arrival> {
    let model: Arc<str> = "model".into();
    let received = Instant::now();
    let arrival = |flow: usize| Arrival {
        priority: [100, 0, -10][flow % 3],
        fairness_id: format!("tenant-{flow:06}").into(),
        model: Arc::clone(&model),
        target_model: Arc::clone(&model),
        size: 4096,
        tokens: 1000,
        received,
        ttl: None,
        slo_ttft: None,
    };
    let mut all: Vec<Arrival> = (0..flows).map(arrival).collect();
    fastrand::Rng::with_seed(7).shuffle(&mut all);
    all
}

/// A gate behind which requests of all flows wait, `each` of every flow.
struct Backlog {
    gate: Gate,
    room: Room,
    arrivals: Vec<Arrival>,
    next: usize,
    now: Instant,
    decisions: Vec<GateDecision>,
}

impl Backlog {
    fn new(settings: FlowSettings, flows: usize, each: usize) -> Self {
        let now = Instant::now();
        let gate = Gate::new(settings, now);
        let arrivals = arrivals(flows);
        let mut backlog = Self { gate, room: Room::new(0), arrivals, next: 0, now, decisions: Vec::new() };
        for _ in 0..flows * each {
            backlog.submit();
        }
        backlog
    }

    fn submit(&mut self) -> Ticket {
        self.next = (self.next + 1) % self.arrivals.len();
        self.now += Duration::from_nanos(100);
        self.gate.submit(&self.arrivals[self.next], self.now, &self.room, &mut self.decisions).unwrap()
    }

    /// One request comes and another one goes, whose place is given back at once.
    fn pair(&mut self) {
        self.submit();
        self.room.0.store(1, Relaxed);
        self.gate.advance(self.now, &self.room, &mut self.decisions);
        self.room.0.store(0, Relaxed);
        while let Some(GateDecision::Release { ticket, .. }) = self.decisions.pop() {
            self.gate.complete(ticket, Some(1000), self.now, &self.room, &mut self.decisions);
        }
    }
}

fn pairs(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("flow/pair");
    group.throughput(Throughput::Elements(1));
    let policies = [
        ("fcfs", Fairness::GlobalStrict, Ordering::Fcfs),
        ("round-robin", Fairness::RoundRobin, Ordering::Fcfs),
        ("round-robin-edf", Fairness::RoundRobin, Ordering::Edf),
        ("program-aware", Fairness::ProgramAware(ProgramAware::default()), Ordering::Fcfs),
    ];
    for (name, fairness, ordering) in policies {
        for (flows, each) in [(100, 10), (100_000, 1), (100_000, 10)] {
            let mut backlog = Backlog::new(settings(fairness.clone(), ordering), flows, each);
            let shape = BenchmarkId::new(name, format!("{flows}x{each}"));
            group.bench_function(shape, |bencher| bencher.iter(|| backlog.pair()));
        }
    }
    let mut open = Backlog::new(settings(Fairness::RoundRobin, Ordering::Fcfs), 100, 0);
    open.room = Room::new(u64::MAX);
    group.bench_function("nothing waits", |bencher| {
        bencher.iter(|| {
            open.submit();
            while let Some(GateDecision::Release { ticket, .. }) = open.decisions.pop() {
                open.gate.complete(ticket, Some(1000), open.now, &open.room, &mut open.decisions);
            }
        });
    });
    group.finish();
}

fn leaving(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("flow/million");
    let mut backlog = Backlog::new(settings(Fairness::RoundRobin, Ordering::Edf), 100_000, 10);
    group.bench_function("submit and cancel", |bencher| {
        bencher.iter(|| {
            let ticket = backlog.submit();
            black_box(backlog.gate.cancel(ticket, backlog.now, &backlog.room, &mut backlog.decisions))
        });
    });
    group.bench_function("look for expired", |bencher| {
        bencher.iter(|| {
            backlog.gate.advance(backlog.now, &backlog.room, &mut backlog.decisions);
            black_box(backlog.gate.next_wakeup())
        });
    });
    group.finish();
}

fn drain(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("flow/drain");
    group.sample_size(20);
    group.bench_function("gate/10k", |bencher| {
        bencher.iter_batched(
            || Backlog::new(settings(Fairness::RoundRobin, Ordering::Fcfs), 100, 100),
            |mut backlog| {
                backlog.room.0.store(u64::MAX, Relaxed);
                backlog.gate.advance(backlog.now, &backlog.room, &mut backlog.decisions);
                assert_eq!(backlog.decisions.len(), 10_000);
                backlog
            },
            BatchSize::LargeInput,
        );
    });
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    group.bench_function("tasks/10k", |bencher| {
        bencher.iter_custom(|rounds| (0..rounds).map(|_| runtime.block_on(drain_tasks())).sum());
    });
    group.finish();
}

/// Time from the moment there is room until the last of 10,000 tasks holds its permit.
async fn drain_tasks() -> Duration {
    let room = Room::new(0);
    let settings = settings(Fairness::RoundRobin, Ordering::Fcfs);
    let controller = Controller::new(settings, room.clone(), Silent);
    let timer = tokio::spawn(Arc::clone(&controller).run());
    let arrivals = arrivals(100);
    let tasks: Vec<_> = (0..10_000)
        .map(|number| {
            let (controller, arrival) = (Arc::clone(&controller), arrivals[number % 100].clone());
            tokio::spawn(async move { controller.admit(arrival).await.unwrap() })
        })
        .collect();
    while controller.queued().requests < 10_000 {
        tokio::task::yield_now().await;
    }
    let start = Instant::now();
    room.0.store(u64::MAX, Relaxed);
    controller.notify_load();
    let mut permits = Vec::with_capacity(tasks.len());
    for task in tasks {
        permits.push(task.await.unwrap());
    }
    let took = start.elapsed();
    timer.abort();
    took
}

/// A pool of real endpoints, all of which are full.
struct Full(Vec<Arc<Endpoint>>, Detector);

impl Load for Full {
    fn is_empty(&self) -> bool {
        false
    }

    fn size(&self) -> usize {
        self.0.len()
    }

    fn fill(&self, unplaced: Unplaced, now: Instant) -> Fill {
        saturation::pool(&self.1, &self.0, unplaced, 1.0, now).effective
    }
}

/// What a reading of one endpoint costs while requests wait for a pool of 1,000.
fn readings(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let pool = Pool::new("default", "bench", Instant::now());
    let spec = |number: u16| {
        let address = SocketAddr::from(([10, 0, (number >> 8) as u8, number as u8], 8000));
        EndpointSpec::new(EndpointId::new("default", &format!("e{number}")), address)
    };
    pool.replace_endpoints((0..1000).map(spec).collect());
    let endpoints = pool.snapshot().endpoints().to_vec();
    for endpoint in &endpoints {
        let reading = Reading { waiting: Some(1000), ..Reading::default() };
        endpoint.load().record(reading, 0, Instant::now() + Duration::from_hours(1));
    }
    let controller = Controller::new(FlowSettings::default(), Full(endpoints, Detector::default()), Silent);
    let arrival = arrivals(1).remove(0);
    let waiting = runtime.spawn({
        let controller = Arc::clone(&controller);
        async move { drop(controller.admit(arrival).await) }
    });
    while controller.queued().requests == 0 {
        std::thread::yield_now();
    }
    let mut group = criterion.benchmark_group("flow/reading");
    group.bench_function("1000 endpoints", |bencher| bencher.iter(|| controller.notify_load()));
    group.finish();
    waiting.abort();
}

criterion_group!(benches, pairs, leaving, drain, readings);
criterion_main!(benches);
