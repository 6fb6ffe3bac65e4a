//! Worked examples of the formulas, and where they go beyond the plain mean.

use std::net::SocketAddr;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::pool::{EndpointId, EndpointSpec, Lease, Pool, Reading, Snapshot};

/// An endpoint to be: role, reading (queue and cache) if it has one, tokens of each request in flight.
#[derive(Clone, Debug, Default)]
struct Pod {
    role: Option<&'static str>,
    reading: Option<(u64, f64)>,
    in_flight: Vec<u64>,
}

fn scraped(waiting: u64, kv: f64) -> Pod {
    Pod { reading: Some((waiting, kv)), ..Pod::default() }
}

fn serving(requests: usize, tokens: u64) -> Pod {
    Pod { in_flight: vec![tokens; requests], ..Pod::default() }
}

impl Pod {
    fn role(self, role: &'static str) -> Self {
        Self { role: Some(role), ..self }
    }
}

struct Fleet {
    snapshot: Arc<Snapshot>,
    now: Instant,
    leases: Vec<Lease>,
}

/// Requests in flight were sent before the reading.
fn fleet(pods: &[Pod]) -> Fleet {
    let now = Instant::now();
    let pool = Pool::new("ns", "pool", now);
    let specs = pods.iter().enumerate().map(|(index, pod)| {
        let spec = EndpointSpec::new(
            EndpointId::new("ns", &format!("p{index}")),
            SocketAddr::from(([10, 0, 0, 1], 80)),
        );
        match pod.role {
            Some(role) => spec.with_labels([(ROLE_LABEL, role)]),
            None => spec,
        }
    });
    pool.replace_endpoints(specs.collect());
    let snapshot = pool.snapshot();
    let mut leases = Vec::new();
    for (pod, endpoint) in pods.iter().zip(snapshot.endpoints()) {
        leases.extend(pod.in_flight.iter().map(|tokens| Lease::take(endpoint, *tokens)));
        if let Some((waiting, kv)) = pod.reading {
            let reading = Reading { waiting: Some(waiting), kv_usage: Some(kv), ..Reading::default() };
            endpoint.load().record(reading, endpoint.load().dispatched(), now);
        }
    }
    Fleet { snapshot, now, leases }
}

impl Fleet {
    fn send(&mut self, index: usize, requests: usize) {
        let endpoint = &self.snapshot.endpoints()[index];
        self.leases.extend((0..requests).map(|_| Lease::take(endpoint, 1)));
    }

    fn fill(&self, kind: &DetectorKind) -> PoolFill {
        self.fill_with(kind, Unplaced::default(), 1.0)
    }

    fn fill_with(&self, kind: &DetectorKind, unplaced: Unplaced, cap: f64) -> PoolFill {
        let detector = Detector { name: "detector".into(), kind: kind.clone() };
        pool(&detector, self.snapshot.endpoints(), unplaced, cap, self.now)
    }
}

fn utilization(staleness_policy: StalenessPolicy) -> DetectorKind {
    DetectorKind::Utilization(Utilization { staleness_policy, ..Utilization::default() })
}

fn concurrency(mode: ConcurrencyMode) -> DetectorKind {
    DetectorKind::Concurrency(Concurrency { mode, ..Concurrency::default() })
}

fn requests(requests: u64) -> Unplaced {
    Unplaced { requests, tokens: 0 }
}

#[track_caller]
fn close(got: f64, expected: f64) {
    assert!((got - expected).abs() < 1e-9, "got {got}, expected {expected}");
}

#[test]
fn the_mean_of_queue_and_cache_is_what_the_formula_says() {
    let saturated = utilization(StalenessPolicy::Saturated);
    let [a, b, c, d] = [scraped(3, 0.4), scraped(0, 0.72), Pod::default(), scraped(12, 0.5)];
    for (pod, score) in [(&a, 0.6), (&b, 0.9), (&c, 1.0), (&d, 2.4)] {
        close(fleet(std::slice::from_ref(pod)).fill(&saturated).effective.raw, score);
    }
    let three = fleet(&[a.clone(), b.clone(), c.clone()]).fill(&saturated);
    close(three.effective.raw, 2.5 / 3.0);
    close(three.effective.gating, 2.5 / 3.0);
    assert_eq!(three.stale, 1);
    let four = fleet(&[a, b, c, d]).fill(&saturated);
    close(four.effective.raw, 1.225);
    close(four.effective.gating, 3.5 / 4.0);
}

#[test]
fn one_overloaded_endpoint_among_idle_ones_does_not_stop_the_pool() {
    let mut pods = vec![scraped(0, 0.0); 9];
    pods.push(scraped(50, 0.0));
    let fill = fleet(&pods).fill(&DetectorKind::Utilization(Utilization::default())).effective;
    close(fill.raw, 1.0);
    close(fill.gating, 0.1);
}

#[test]
fn a_pool_whose_endpoints_are_all_full_is_gated_whatever_the_excess() {
    let fill = fleet(&[scraped(5, 0.0), scraped(500, 0.0)]).fill(&utilization(StalenessPolicy::InFlight));
    close(fill.effective.gating, 1.0);
    let kind = utilization(StalenessPolicy::InFlight);
    let fill = fleet(&[scraped(6, 0.0), scraped(500, 0.0)]).fill_with(&kind, Unplaced::default(), 1.2);
    close(fill.effective.gating, 1.2);
}

#[test]
fn a_pool_without_endpoints_is_full() {
    let empty = fleet(&[]);
    for kind in [utilization(StalenessPolicy::Ignore), concurrency(ConcurrencyMode::Tokens)] {
        let fill = empty.fill(&kind);
        assert_eq!((fill.effective, fill.prefill, fill.decode, fill.stale), (Fill::FULL, None, None, 0));
        let detector = Detector { name: "detector".into(), kind };
        assert_eq!(together(&detector, [], empty.now), (Fill::FULL, 0));
    }
}

#[test]
fn a_burst_counts_before_the_next_reading_shows_it() {
    let kind = utilization(StalenessPolicy::Saturated);
    let mut fleet = fleet(&[scraped(0, 0.0), scraped(1, 0.0)]);
    fleet.send(0, 5);
    close(fleet.fill(&kind).effective.gating, 0.6);
    close(fleet.fill_with(&kind, requests(4), 1.0).effective.gating, 1.0);
    // What finished meanwhile does not wait.
    fleet.leases.clear();
    close(fleet.fill(&kind).effective.gating, 0.1);
}

#[test]
fn unplaced_requests_take_the_room_that_is_left_and_not_that_of_full_endpoints() {
    let kind = utilization(StalenessPolicy::InFlight);
    let fleet = fleet(&[scraped(50, 0.0), scraped(0, 0.0)]);
    close(fleet.fill_with(&kind, requests(4), 1.0).effective.gating, 0.9);
    assert!(fleet.fill_with(&kind, requests(5), 1.0).effective.gating >= 1.0);
}

#[test]
fn an_endpoint_without_a_recent_reading_is_judged_by_its_policy() {
    let mut pods = fleet(&[serving(50, 1), scraped(0, 0.4)]);
    let gating = |fleet: &Fleet, policy| fleet.fill(&utilization(policy)).effective.gating;
    close(gating(&pods, StalenessPolicy::Saturated), 0.75);
    close(gating(&pods, StalenessPolicy::Ignore), 0.5);
    close(gating(&pods, StalenessPolicy::InFlight), 0.5);
    pods.now += Duration::from_millis(201);
    assert_eq!(pods.fill(&utilization(StalenessPolicy::InFlight)).stale, 2);
    close(gating(&pods, StalenessPolicy::Saturated), 1.0);
    close(gating(&pods, StalenessPolicy::Ignore), 0.0);
    close(gating(&pods, StalenessPolicy::InFlight), 0.25);
}

#[test]
fn a_pool_of_which_no_scrape_succeeds_holds_what_its_requests_in_flight_leave_no_room_for() {
    let kind = utilization(StalenessPolicy::InFlight);
    close(fleet(&[serving(99, 1)]).fill_with(&kind, requests(1), 1.0).effective.gating, 1.0);
    close(fleet(&[serving(98, 1)]).fill_with(&kind, requests(1), 1.0).effective.gating, 0.99);
}

#[test]
fn endpoints_that_do_not_answer_lend_no_room_while_others_do() {
    let kind = utilization(StalenessPolicy::InFlight);
    let fleet = fleet(&[scraped(5, 0.0), Pod::default()]);
    close(fleet.fill(&kind).effective.gating, 0.5);
    fleet.snapshot.endpoints()[1].load().note_silence(true);
    close(fleet.fill(&kind).effective.gating, 1.0);
    fleet.snapshot.endpoints()[0].load().note_silence(true);
    close(fleet.fill(&kind).effective.gating, 0.5);
}

#[test]
fn concurrency_is_the_share_of_all_limits_or_the_mean_of_the_nearer_ones() {
    let counted = fleet(&[serving(120, 1), serving(60, 1), Pod::default()]);
    close(counted.fill(&concurrency(ConcurrencyMode::Requests)).effective.raw, 0.6);
    let mixed = fleet(&[serving(100, 1000), serving(10, 100_000)]);
    close(mixed.fill(&concurrency(ConcurrencyMode::Hybrid)).effective.raw, 1.0);
    close(mixed.fill(&concurrency(ConcurrencyMode::Requests)).effective.raw, 0.55);
    close(mixed.fill(&concurrency(ConcurrencyMode::Tokens)).effective.raw, 0.55);
    let unplaced = Unplaced { requests: 20, tokens: 1_000_000 };
    let with = |mode| mixed.fill_with(&concurrency(mode), unplaced, 1.0).effective.raw;
    close(with(ConcurrencyMode::Requests), 0.65);
    close(with(ConcurrencyMode::Tokens), 1.05);
    close(with(ConcurrencyMode::Hybrid), 1.5);
}

#[test]
fn the_fuller_stage_counts() {
    let kind = concurrency(ConcurrencyMode::Requests);
    let pods = [serving(110, 1).role("prefill"), serving(40, 1).role("decode")];
    let fill = fleet(&pods).fill(&kind);
    close(fill.prefill.unwrap().raw, 1.1);
    close(fill.decode.unwrap().raw, 0.4);
    close(fill.effective.raw, 1.1);
    assert!(fill.effective.gating >= 1.0);
    let fill = fleet(&[serving(110, 1), serving(40, 1)]).fill(&kind);
    assert_eq!(fill.prefill, None);
    close(fill.effective.raw, 0.75);
}

#[test]
fn roles_map_to_stages() {
    let stages = |role| {
        let fill = fleet(&[serving(10, 1).role(role)]).fill(&concurrency(ConcurrencyMode::Requests));
        close(fill.effective.raw, 0.1);
        (fill.prefill.is_some(), fill.decode.is_some())
    };
    let roles =
        ["prefill", "encode-prefill", "decode", "prefill-decode", "both", "encode-prefill-decode", "encode"];
    let expected = [(true, false), (true, false), (false, true), (true, true), (true, true), (true, true)];
    for (role, expected) in roles.iter().zip(expected) {
        assert_eq!(stages(role), expected, "{role}");
    }
    // Without any stage the pool counts as a whole.
    assert_eq!(stages("encode"), (false, false));
    assert_eq!(stages("other"), (false, false));
    let mixed = fleet(&[serving(10, 1), serving(90, 1).role("encode")]);
    close(mixed.fill(&concurrency(ConcurrencyMode::Requests)).effective.raw, 0.1);
}

#[test]
fn headroom_raises_the_limits_of_the_filters() {
    let fleet = fleet(&[scraped(5, 0.8), scraped(4, 0.79), serving(119, 1), serving(120, 1)]);
    let room = |headroom: f64| -> Vec<bool> {
        let policy = Utilization { headroom, ..Utilization::default() };
        fleet
            .snapshot
            .endpoints()
            .iter()
            .map(|endpoint| policy.has_room(endpoint.load(), fleet.now))
            .collect()
    };
    assert_eq!(room(0.0), [false, true, false, false]);
    assert_eq!(room(0.2), [true, true, true, false]);
    let limits = Concurrency { headroom: 0.2, ..Concurrency::default() };
    let room = |index: usize| limits.has_room(fleet.snapshot.endpoints()[index].load());
    assert_eq!([0, 2, 3].map(room), [true, true, false]);
}

#[test]
fn readings_that_are_merely_stale_are_no_demand_for_more_servers() {
    for policy in [StalenessPolicy::Saturated, StalenessPolicy::Ignore, StalenessPolicy::InFlight] {
        let detector = Detector { name: "detector".into(), kind: utilization(policy) };
        let demand = |pods: &[Pod], late: Duration| {
            let fleet = fleet(pods);
            demand(&detector, fleet.snapshot.endpoints(), fleet.now + late)
        };
        let (now, late) = (Duration::ZERO, Duration::from_mins(1));
        close(demand(&[scraped(5, 0.0), scraped(0, 0.4)], now), 0.75);
        close(demand(&[scraped(5, 0.9), scraped(0, 0.4)], late), 0.0);
        // Where nothing is read, what this process sent is still known.
        close(demand(&[serving(50, 1), serving(0, 1)], now), 0.25);
        // One that was never read is left out while another was.
        close(demand(&[scraped(0, 0.4), Pod::default()], now), 0.5);
        close(demand(&[], now), 1.0);
    }
}

proptest! {
    #[test]
    fn gating_never_exceeds_the_plain_mean_and_grows_with_what_is_unplaced(
        pods in prop::collection::vec((0u64..20, 0.0f64..=1.0, 0usize..6), 1..8), unplaced in 0u64..50
    ) {
        let pods: Vec<Pod> = pods.into_iter()
            .map(|(waiting, kv, count)| Pod { in_flight: vec![1; count], ..scraped(waiting, kv) })
            .collect();
        let fleet = fleet(&pods);
        for kind in [utilization(StalenessPolicy::InFlight), concurrency(ConcurrencyMode::Hybrid)] {
            let before = fleet.fill(&kind).effective;
            let after = fleet.fill_with(&kind, requests(unplaced), 1.0).effective;
            prop_assert!(before.gating <= before.raw + 1e-9 && before.gating <= 1.0 + 1e-9);
            prop_assert!(after.gating >= before.gating && after.raw >= before.raw);
        }
    }
}

#[test]
fn a_queue_is_counted_on_by_what_ended_since_where_that_is_asked_for() {
    let start = Instant::now();
    let pool = Pool::new("default", "pool", start);
    let address = SocketAddr::from(([10, 0, 0, 1], 8000));
    pool.replace_endpoints(vec![EndpointSpec::new(EndpointId::new("default", "a"), address)]);
    let endpoint = Arc::clone(&pool.snapshot().endpoints()[0]);
    let mut leases: Vec<Lease> = (0..4).map(|_| Lease::take(&endpoint, 1)).collect();
    let page = Reading { waiting: Some(3), ..Reading::default() };
    endpoint.load().record(page, endpoint.load().dispatched(), start);
    leases.truncate(1);
    for (by_age, room) in [(false, false), (true, true)] {
        let settings = Utilization { queue_depth_threshold: 3, by_age, ..Utilization::default() };
        assert_eq!(settings.has_room(endpoint.load(), start), room, "{by_age}");
    }
}
