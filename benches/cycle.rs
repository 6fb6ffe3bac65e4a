//! The scheduling cycle with the usual plugins (queue 2, KV cache 2, prefix cache 3, no-hit LRU 2, highest score), and
//! with those of the current guides (prefix cache affinity, token load, highest score).

#![allow(missing_docs, reason = "criterion generates public items")]
#![allow(clippy::unwrap_used, reason = "a bench may panic")]

use std::hint::black_box;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use criterion::measurement::WallTime;
use criterion::{BatchSize, BenchmarkGroup, BenchmarkId, Criterion, criterion_group, criterion_main};
use fastrand::Rng;
use pointsman::decisions::{Decisions, Draft, Known, PolicyNames};
use pointsman::metrics::{ExtensionPoint, Metrics};
use pointsman::plugins::{
    BuildCx, ColumnKey, PluginType, Roles, filters, pickers, producers, profiles, scorers,
};
use pointsman::pool::{EndpointId, EndpointSpec, Pool, Reading};
use pointsman::request::{Headers, Inference, JsonStr, Piece};
use pointsman::scheduling::{
    Call, Candidates, Columns, DecidedCall, HeaderEdits, Profile, ProfilePlugin, RequestView, Scheduler,
    WeightedScorer,
};

const ENDPOINTS: [usize; 4] = [10, 100, 1000, 5000];

struct Plan {
    scheduler: Scheduler,
    producer: Roles,
    scorers: Vec<Roles>,
}

/// The usual plugins.
fn usual() -> Plan {
    let weighted: &[(&PluginType, f64)] = &[
        (&scorers::queue::TYPE, 2.0),
        (&scorers::kv_cache_utilization::TYPE, 2.0),
        (&scorers::prefix_cache::TYPE, 3.0),
        (&scorers::no_hit_lru::TYPE, 2.0),
    ];
    plan(&[], weighted)
}

/// The plugins of the current guides.
fn guides() -> Plan {
    plan(&[&filters::prefix_cache_affinity::TYPE], &[(&scorers::token_load::TYPE, 1.0)])
}

fn plan(filters: &[&PluginType], weighted: &[(&PluginType, f64)]) -> Plan {
    let metrics = Arc::new(Metrics::new());
    let mut columns: Vec<ColumnKey> = Vec::new();
    let mut build = |plugin: &PluginType| {
        (plugin.build)(&mut BuildCx::new(plugin.name, None, &metrics, &mut columns, 7)).unwrap()
    };
    let scorers: Vec<Roles> = weighted.iter().map(|(plugin, _)| build(plugin)).collect();
    let producer = build(&producers::approx_prefix_cache::TYPE);
    let (picker, handler) = (build(&pickers::max_score::TYPE), build(&profiles::single::TYPE));
    let profile = Profile {
        name: "default".into(),
        filters: filters
            .iter()
            .map(|plugin| named(&metrics, plugin, ExtensionPoint::Filter, build(plugin).filter))
            .collect(),
        scorers: weighted
            .iter()
            .zip(&scorers)
            .map(|((plugin, weight), roles)| WeightedScorer {
                scorer: named(&metrics, plugin, ExtensionPoint::Scorer, roles.scorer.clone()),
                weight: *weight,
            })
            .collect(),
        picker: named(&metrics, &pickers::max_score::TYPE, ExtensionPoint::Picker, picker.picker),
    };
    let single = &profiles::single::TYPE;
    let handler = named(&metrics, single, ExtensionPoint::ProfilePicker, handler.profile_handler);
    let conclude = metrics.plugin_timer(ExtensionPoint::ProcessProfilesResults, single.name, single.name);
    Plan { scheduler: Scheduler::new(vec![profile], handler, Some(Arc::new(conclude))), producer, scorers }
}

fn named<T: ?Sized>(
    metrics: &Metrics,
    plugin: &PluginType,
    point: ExtensionPoint,
    role: Option<Arc<T>>,
) -> ProfilePlugin<T> {
    let timer = metrics.plugin_timer(point, plugin.reports_as, plugin.name);
    ProfilePlugin {
        name: plugin.name.into(),
        kind: plugin.name,
        timer: Some(Arc::new(timer)),
        plugin: role.unwrap(),
    }
}

fn pool(endpoints: usize) -> Pool {
    let now = Instant::now();
    let pool = Pool::new("default", "pool", now);
    let spec = |number: usize| {
        let address = SocketAddr::from(([10, 0, (number / 250) as u8, (number % 250) as u8], 8000));
        EndpointSpec::new(
            EndpointId::new("default", &format!("vllm-llama-6d5f8-{number:05}-rank-0")),
            address,
        )
    };
    pool.replace_endpoints((0..endpoints).map(spec).collect());
    let mut rng = Rng::with_seed(9);
    for endpoint in pool.snapshot().endpoints() {
        let reading = Reading {
            waiting: Some(rng.u64(..20)),
            running: Some(rng.u64(..100)),
            kv_usage: Some(rng.f64()),
            ..Reading::default()
        };
        endpoint.load().record(reading, 0, now);
    }
    pool
}

/// A prompt of 800 bytes, all of whose blocks differ from those of other numbers.
fn request(number: u64) -> (Bytes, Inference) {
    let body = format!("\"{number:_<800}\"");
    let mut inference = Inference::opaque();
    inference.prompt.pieces.push(Piece::Text(JsonStr { start: 1, end: 801, escaped: false }));
    (body.into(), inference)
}

fn cycle(criterion: &mut Criterion) {
    measure(criterion, "cycle", usual);
    measure(criterion, "cycle of the guides", guides);
}

fn measure(criterion: &mut Criterion, name: &str, plan: fn() -> Plan) {
    let mut group = criterion.benchmark_group(name);
    for endpoints in ENDPOINTS {
        let (pool, plan) = (pool(endpoints), plan());
        let headers = Headers::new();
        let mut rng = Rng::with_seed(1);
        let mut decide =
            |(body, inference): &(Bytes, Inference), whole: bool, table: &mut Option<Columns>| {
                let view = view(&headers, body, inference);
                let candidates = Candidates::all(pool.snapshot());
                let now = Instant::now();
                if whole || table.is_none() {
                    let slots = candidates.slots();
                    let empty = Columns::new();
                    let call = Call::new(view, now, &candidates, &slots, &empty);
                    *table = Some(columns(&plan, &call));
                }
                let columns = table.as_ref().unwrap();
                let everyone = candidates.slots();
                let call = Call::new(view, now, &candidates, &everyone, columns);
                let decision = plan.scheduler.schedule(&call, &mut rng, None).unwrap();
                if whole {
                    let call = Call::new(view, now, &candidates, &[], columns);
                    let decided =
                        DecidedCall { call, decision: &decision, profiles: plan.scheduler.profile_names() };
                    let hooks = plan
                        .scorers
                        .iter()
                        .chain([&plan.producer])
                        .filter_map(|roles| roles.pre_request.as_ref());
                    for hook in hooks {
                        hook.before_forward(&decided, &mut HeaderEdits::default()).unwrap();
                    }
                }
                black_box(decision);
            };
        let mut number = 0;
        group.bench_function(BenchmarkId::new("produce, schedule, record; cold", endpoints), |bencher| {
            let next = || {
                number += 1;
                request(number)
            };
            bencher.iter_batched(next, |request| decide(&request, true, &mut None), BatchSize::SmallInput);
        });
        let first = request(1);
        group.bench_function(BenchmarkId::new("produce, schedule, record; warm", endpoints), |bencher| {
            bencher.iter(|| decide(&first, true, &mut None));
        });
        let mut warm = None;
        group.bench_function(BenchmarkId::new("schedule; warm", endpoints), |bencher| {
            bencher.iter(|| decide(&first, false, &mut warm));
        });
        record(&mut group, &pool, &plan, endpoints);
        let (mut cold, last) = (None, request(u64::MAX));
        group.bench_function(BenchmarkId::new("schedule; cold", endpoints), |bencher| {
            bencher.iter(|| decide(&last, false, &mut cold));
        });
    }
}

fn view<'a>(headers: &'a Headers, body: &'a Bytes, inference: &'a Inference) -> RequestView<'a> {
    RequestView {
        id: "request",
        target_model: "model",
        headers,
        body,
        inference,
        tokens: None,
        findings: &[],
        media: &pointsman::request::MediaEstimate::DEFAULT,
        priority: 0,
        fairness_id: "default",
    }
}

/// The columns of the producer's data for all candidates.
fn columns(plan: &Plan, call: &Call<'_>) -> Columns {
    let mut table = Columns::new();
    for produced in plan.producer.producer.as_ref().unwrap().produce(call).unwrap() {
        table.insert(produced);
    }
    table
}

/// What the record of a decision costs beside it: the difference of the two rows.
fn record(group: &mut BenchmarkGroup<'_, WallTime>, pool: &Pool, plan: &Plan, endpoints: usize) {
    let metrics = Metrics::new();
    let ring = Decisions::new(32 << 20, metrics.records());
    let names = Arc::new(PolicyNames::of(&plan.scheduler));
    let (headers, (body, inference)) = (Headers::new(), request(1));
    let view = view(&headers, &body, &inference);
    let candidates = Candidates::all(pool.snapshot());
    let (everyone, now) = (candidates.slots(), Instant::now());
    let empty = Columns::new();
    let call = Call::new(view, now, &candidates, &everyone, &empty);
    let table = columns(plan, &call);
    let call = Call::new(view, now, &candidates, &everyone, &table);
    let mut rng = Rng::with_seed(1);
    group.bench_function(BenchmarkId::new("schedule; without a record", endpoints), |bencher| {
        bencher.iter(|| black_box(plan.scheduler.schedule(&call, &mut rng, None).unwrap()));
    });
    let mut sequence = 0;
    group.bench_function(BenchmarkId::new("schedule; with a record", endpoints), |bencher| {
        bencher.iter(|| {
            sequence += 1;
            let mut draft = Draft::new(&names, sequence, 1, now);
            draft.candidates(&candidates, None, now);
            let decision = plan.scheduler.schedule_recorded(&call, &mut rng, None, Some(&mut draft)).unwrap();
            let known = Known { id: "request".to_owned(), model: "model".to_owned(), ..Known::default() };
            let record = draft.routed(known, decision.targets().into(), decision.primary);
            black_box(ring.push(record));
        });
    });
}

criterion_group!(benches, cycle);
criterion_main!(benches);
