//! What a gate does, case by case.

use std::collections::BTreeMap;
use std::time::Duration;

use super::pool::{Bench, arrival, millis};
use crate::flow::detector::{Concurrency, Detector, DetectorKind};
use crate::flow::settings::{
    BandSettings, Fairness, Ordering, ProgramAware, TurnPriority, UsageLimit, no_endpoint_ttl, request_ttl,
};
use crate::flow::{Arrival, DropReason, FlowSettings, Outcome, QueueBound, Queued, Ticket};

fn one_slot() -> FlowSettings {
    banded(&[0], &BandSettings { max_requests: 1, ..BandSettings::default() })
}

fn banded(priorities: &[i32], band: &BandSettings) -> FlowSettings {
    let bands: BTreeMap<i32, BandSettings> = priorities.iter().map(|p| (*p, band.clone())).collect();
    FlowSettings { bands, default_band: band.clone(), ..FlowSettings::default() }
}

fn ttls(default: Option<Duration>, no_endpoint: Option<Duration>) -> FlowSettings {
    FlowSettings {
        default_request_ttl: request_ttl(default),
        no_endpoint_request_ttl: no_endpoint_ttl(no_endpoint, default),
        ..FlowSettings::default()
    }
}

/// Opens the pool for one request after the other and tells the order in which they went, by position in `tickets`.
fn order_of_release(bench: &mut Bench, tickets: &[Ticket]) -> Vec<usize> {
    bench.resize(1, 1);
    let mut order = Vec::new();
    while let [ticket] = bench.released()[..] {
        order.push(tickets.iter().position(|other| *other == ticket).unwrap());
        bench.complete(ticket);
    }
    order
}

#[test]
fn a_full_band_of_an_empty_pool_refuses_for_want_of_endpoints() {
    let mut bench = Bench::new(one_slot(), 0, 0);
    bench.wait(&arrival(0, "a"));
    let refusal = bench.submit(&arrival(0, "a")).unwrap_err();
    assert_eq!(refusal.outcome, Outcome::RejectedNoEndpoints);
    assert_eq!(refusal.drop_reason(), DropReason::NoEndpoints);
    assert_eq!(refusal.bound, Some(QueueBound::BandRequests(1)));
}

#[test]
fn a_full_band_of_a_saturated_pool_refuses_for_load() {
    let mut bench = Bench::new(one_slot(), 3, 0);
    bench.wait(&arrival(0, "a"));
    let refusal = bench.submit(&arrival(0, "a")).unwrap_err();
    assert_eq!(refusal.outcome, Outcome::RejectedCapacity);
    assert_eq!(refusal.drop_reason(), DropReason::Saturated);
    assert_eq!(refusal.bound, Some(QueueBound::BandRequests(1)));
}

#[test]
fn waits_start_anew_when_the_pool_gets_an_endpoint() {
    let mut bench = Bench::new(ttls(Some(millis(150)), Some(millis(5000))), 0, 0);
    let ticket = bench.wait(&arrival(0, "a"));
    bench.pass(millis(600));
    bench.resize(1, 0);
    bench.pass(millis(149));
    assert_eq!(bench.decisions(), []);
    bench.resize(1, 1);
    assert_eq!(bench.released(), [ticket]);
}

#[test]
fn a_wait_without_endpoints_ends_at_its_own_time() {
    let mut bench = Bench::new(ttls(Some(Duration::from_mins(5)), Some(millis(100))), 0, 0);
    bench.wait(&arrival(0, "a"));
    bench.pass(millis(1000));
    assert_eq!(bench.refused(), [(Outcome::EvictedNoEndpoints, millis(100))]);
}

#[test]
fn a_wait_with_endpoints_ends_at_its_own_time_and_a_shorter_one_of_the_request_counts() {
    let mut bench = Bench::new(ttls(Some(millis(200)), None), 1, 0);
    bench.wait(&arrival(0, "a"));
    bench.wait(&Arrival { ttl: Some(millis(50)), ..arrival(0, "a") });
    bench.wait(&Arrival { ttl: Some(Duration::from_hours(1)), ..arrival(0, "a") });
    bench.pass(millis(1000));
    let after = |time| (Outcome::EvictedTtl, millis(time));
    assert_eq!(bench.refused(), [after(50), after(200), after(200)]);
}

#[test]
fn a_band_with_a_longest_wait_of_its_own_goes_by_it_and_other_bands_by_the_pools() {
    let mut settings = ttls(Some(millis(200)), None);
    for (priority, wait) in [(1, millis(500)), (2, millis(70)), (3, Duration::ZERO)] {
        let band = BandSettings { request_ttl: Some(wait), ..BandSettings::default() };
        settings.bands.insert(priority, band);
    }
    let mut bench = Bench::new(settings, 1, 0);
    for priority in 0..=3 {
        bench.wait(&arrival(priority, "a"));
    }
    bench.wait(&Arrival { ttl: Some(millis(300)), ..arrival(1, "a") });
    bench.pass(Duration::from_hours(1));
    let after = |time| (Outcome::EvictedTtl, millis(time));
    assert_eq!(bench.refused(), [after(70), after(200), after(300), after(500)]);
    bench.resize(1, 1);
    assert_eq!(bench.released().len(), 1, "the one that may wait forever");
}

#[test]
fn no_request_ttl_alone_means_no_limit_with_or_without_endpoints() {
    let mut bench = Bench::new(ttls(Some(Duration::ZERO), None), 1, 0);
    bench.wait(&arrival(0, "a"));
    bench.resize(0, 0);
    assert_eq!(bench.gate.next_wakeup(), None);
    bench.pass(Duration::from_hours(1000));
    bench.resize(1, 1);
    assert_eq!(bench.released().len(), 1);
}

#[test]
fn a_request_waits_ten_minutes_for_the_first_endpoint_unless_told_otherwise() {
    let mut bench = Bench::new(FlowSettings::default(), 0, 0);
    bench.wait(&arrival(0, "a"));
    bench.pass(Duration::from_hours(1));
    assert_eq!(bench.refused(), [(Outcome::EvictedNoEndpoints, Duration::from_mins(10))]);
}

#[test]
fn a_pool_that_comes_and_goes_does_not_hold_a_request_for_ever() {
    let mut bench = Bench::new(ttls(Some(millis(1000)), Some(millis(3000))), 0, 0);
    bench.wait(&arrival(0, "a"));
    for turn in 0..20 {
        bench.pass(millis(500));
        bench.resize(turn % 2, 0);
    }
    assert_eq!(bench.refused(), [(Outcome::EvictedTtl, millis(5000))]);
}

#[test]
fn bands_are_served_strictly_by_priority() {
    let mut bench = Bench::new(banded(&[10, 0, -10], &BandSettings::default()), 1, 0);
    let tickets: Vec<Ticket> = [-10, 0, 10, -10, 0, 10].map(|p| bench.wait(&arrival(p, "a"))).into();
    assert_eq!(order_of_release(&mut bench, &tickets), [2, 5, 1, 4, 0, 3]);
}

#[test]
fn a_held_band_holds_all_below_it_even_if_nothing_waits_in_it() {
    let mut settings = banded(&[10, 0], &BandSettings::default());
    settings.usage_limit = UsageLimit::Static { threshold: 0.5 };
    let mut bench = Bench::new(settings, 1, 4);
    let tickets: Vec<Ticket> = [0, 0, 0].map(|p| bench.wait(&arrival(p, "a"))).into();
    assert_eq!(bench.released(), tickets[..2]);
    bench.complete(tickets[0]);
    assert_eq!(bench.released(), tickets[2..]);
}

#[test]
fn the_rest_of_the_pool_is_kept_for_the_important() {
    let mut settings = banded(&[10, 0], &BandSettings::default());
    settings.usage_limit = UsageLimit::PriorityHoldback {
        min_ceiling: 0.5,
        max_ceiling: 1.0,
        domain: crate::flow::settings::HoldbackDomain::Rank,
    };
    let mut bench = Bench::new(settings, 1, 4);
    let low: Vec<Ticket> = [0, 0, 0].map(|p| bench.wait(&arrival(p, "a"))).into();
    let high: Vec<Ticket> = [10, 10, 10].map(|p| bench.wait(&arrival(p, "a"))).into();
    assert_eq!(bench.released(), [low[0], low[1], high[0], high[1]]);
}

#[test]
fn an_empty_band_is_passed_over() {
    let mut bench = Bench::new(banded(&[10, 0], &BandSettings::default()), 1, 1);
    let ticket = bench.wait(&arrival(0, "a"));
    assert_eq!(bench.released(), [ticket]);
}

#[test]
fn a_priority_without_a_band_waits_in_band_0_until_it_is_given_one() {
    let mut bench = Bench::new(FlowSettings::default(), 1, 0);
    let queued = |bench: &Bench| -> Vec<(i32, u64)> {
        bench.gate.bands().map(|band| (band.priority, band.queued.requests)).collect()
    };
    let first = bench.wait(&arrival(7, "a"));
    assert_eq!(queued(&bench), [(0, 1)]);
    bench.gate.provision(&[7]);
    let second = bench.wait(&arrival(7, "a"));
    assert_eq!(queued(&bench), [(7, 1), (0, 1)]);
    bench.gate.provision(&[]);
    assert_eq!(queued(&bench), [(7, 1), (0, 1)], "requests still wait in it");
    assert_eq!(order_of_release(&mut bench, &[first, second]), [1, 0]);
    assert_eq!(queued(&bench), [(0, 0)]);
}

#[test]
fn a_body_larger_than_the_band_is_refused_though_the_pool_is_idle() {
    let band = BandSettings { max_bytes: 100, ..BandSettings::default() };
    let mut bench = Bench::new(banded(&[0], &band), 1, 9);
    let refusal = bench.submit(&Arrival { size: 101, ..arrival(0, "a") }).unwrap_err();
    assert_eq!(refusal.outcome, Outcome::RejectedCapacity);
    bench.wait(&Arrival { size: 100, ..arrival(0, "a") });
}

#[test]
fn global_bounds_hold_across_bands() {
    let mut settings = banded(&[10, 0], &BandSettings::default());
    (settings.max_requests, settings.max_bytes) = (Some(2), Some(10));
    let mut bench = Bench::new(settings, 1, 0);
    bench.wait(&Arrival { size: 6, ..arrival(0, "a") });
    assert!(bench.submit(&Arrival { size: 5, ..arrival(10, "a") }).is_err());
    bench.wait(&Arrival { size: 4, ..arrival(10, "a") });
    assert!(bench.submit(&Arrival { size: 0, ..arrival(10, "a") }).is_err());
}

#[test]
fn what_waits_at_other_replicas_fills_the_same_bounds() {
    let band = BandSettings { max_requests: 4, ..BandSettings::default() };
    let mut settings = banded(&[10, 0], &band);
    settings.max_requests = Some(6);
    let mut bench = Bench::new(settings, 1, 0);
    bench.wait(&arrival(0, "a"));
    let waiting = |requests| Queued { requests, ..Queued::default() };
    bench.gate.set_elsewhere([(0, waiting(3))]);
    assert!(bench.submit(&arrival(0, "a")).is_err(), "the band is full");
    bench.wait(&arrival(10, "a"));
    bench.wait(&arrival(10, "a"));
    assert!(bench.submit(&arrival(10, "a")).is_err(), "all bands together are");
    bench.gate.set_elsewhere([]);
    bench.wait(&arrival(10, "a"));
    assert_eq!(bench.gate.queued().requests, 4, "its own alone are counted as queued");
}

#[test]
fn a_request_that_is_cancelled_leaves_its_place_at_once() {
    let mut bench = Bench::new(one_slot(), 1, 0);
    let ticket = bench.wait(&arrival(0, "a"));
    assert!(bench.cancel(ticket));
    assert!(!bench.cancel(ticket));
    bench.wait(&arrival(0, "a"));
}

#[test]
fn closing_refuses_all_that_wait_and_all_that_come() {
    let mut bench = Bench::new(banded(&[10, 0, -3], &BandSettings::default()), 1, 0);
    for priority in [10, 0, -3, -3] {
        bench.wait(&arrival(priority, "a"));
    }
    bench.close();
    assert_eq!(bench.refused(), [(Outcome::EvictedOther, Duration::ZERO); 4]);
    let refusal = bench.submit(&arrival(0, "a")).unwrap_err();
    assert_eq!((refusal.outcome, refusal.drop_reason()), (Outcome::RejectedOther, DropReason::ShuttingDown));
}

#[test]
fn flows_take_turns_under_round_robin() {
    let band = BandSettings { fairness: Fairness::RoundRobin, ..BandSettings::default() };
    let mut bench = Bench::new(banded(&[0], &band), 1, 0);
    let tickets: Vec<Ticket> =
        ["a", "a", "a", "b", "b", "b", "c", "c", "c"].map(|flow| bench.wait(&arrival(0, flow))).into();
    assert_eq!(order_of_release(&mut bench, &tickets), [0, 3, 6, 1, 4, 7, 2, 5, 8]);
}

#[test]
fn global_strict_fairness_serves_the_best_head_of_all_flows() {
    let mut bench = Bench::new(FlowSettings::default(), 1, 0);
    let tickets: Vec<Ticket> = ["a", "a", "b", "a"].map(|flow| bench.wait(&arrival(0, flow))).into();
    assert_eq!(order_of_release(&mut bench, &tickets), [0, 1, 2, 3]);
}

#[test]
fn deadlines_come_before_arrival_if_so_ordered() {
    let band = BandSettings { ordering: Ordering::SloDeadline, ..BandSettings::default() };
    let mut bench = Bench::new(banded(&[0], &band), 1, 0);
    let tickets: Vec<Ticket> = [None, Some(900), Some(100), None, Some(500)]
        .map(|slo| bench.wait(&Arrival { slo_ttft: slo.map(millis), ..arrival(0, "a") }))
        .into();
    assert_eq!(order_of_release(&mut bench, &tickets), [2, 4, 1, 0, 3]);
}

#[test]
fn the_program_with_the_least_service_goes_first() {
    let fairness = Fairness::ProgramAware(ProgramAware::default());
    let band = BandSettings { fairness, ..BandSettings::default() };
    let mut bench = Bench::new(banded(&[0], &band), 1, 0);
    let tickets: Vec<Ticket> = ["a", "c", "b"]
        .map(|flow| {
            bench.pass(millis(100));
            bench.wait(&arrival(0, flow))
        })
        .into();
    for (flow, tokens) in [("a", 300), ("b", 100), ("c", 200)] {
        bench.gate.served(&flow.into(), tokens, 0, bench.now);
    }
    assert_eq!(order_of_release(&mut bench, &tickets), [2, 1, 0]);
}

#[test]
fn what_another_replica_has_served_a_program_counts_and_is_not_told_on() {
    let fairness = Fairness::ProgramAware(ProgramAware::default());
    let band = BandSettings { fairness, ..BandSettings::default() };
    let mut bench = Bench::new(banded(&[0], &band), 1, 0);
    assert!(bench.gate.take_services().is_empty());
    let tickets: Vec<Ticket> = ["a", "b"].map(|flow| bench.wait(&arrival(0, flow))).into();
    bench.gate.served_elsewhere(&"a".into(), 1000, bench.now);
    bench.gate.served(&"b".into(), 100, 50, bench.now);
    assert_eq!(bench.gate.take_services(), [("b".into(), 200)]);
    assert!(bench.gate.take_services().is_empty());
    assert_eq!(order_of_release(&mut bench, &tickets), [1, 0]);
}

#[test]
fn a_flow_that_another_replica_has_served_comes_after_the_others() {
    let band = BandSettings { fairness: Fairness::RoundRobin, ..BandSettings::default() };
    let mut bench = Bench::new(banded(&[0], &band), 1, 0);
    assert!(bench.gate.take_turns().is_empty());
    let tickets: Vec<Ticket> = ["a", "b", "c"].map(|flow| bench.wait(&arrival(0, flow))).into();
    bench.gate.turns_elsewhere(&"a".into(), 2, bench.now);
    bench.gate.turns_elsewhere(&"unknown".into(), 1, bench.now);
    assert_eq!(order_of_release(&mut bench, &tickets), [1, 2, 0]);
    let mut told = bench.gate.take_turns();
    told.sort();
    assert_eq!(told, ["a", "b", "c"].map(|flow| (flow.into(), 1)), "what others did is not told on");
    assert!(bench.gate.take_turns().is_empty());
}

#[test]
fn a_session_is_as_deep_as_all_replicas_have_made_it() {
    let fairness = Fairness::TurnPriority(TurnPriority::default());
    let band = BandSettings { fairness, ..BandSettings::default() };
    let mut bench = Bench::new(banded(&[0], &band), 1, 0);
    let tickets: Vec<Ticket> = ["new", "deep"].map(|flow| bench.wait(&arrival(0, flow))).into();
    bench.gate.turns_elsewhere(&"deep".into(), 4, bench.now);
    assert_eq!(order_of_release(&mut bench, &tickets), [1, 0]);
}

#[test]
fn the_deepest_session_goes_first_unless_another_has_waited_for_its_turns() {
    let fairness = Fairness::TurnPriority(TurnPriority { time_weight: 0.5, ..TurnPriority::default() });
    let band = BandSettings { fairness, ..BandSettings::default() };
    let mut bench = Bench::new(banded(&[0], &band), 1, 0);
    // Three requests of "deep" and one of "old" were released before, and have ended.
    for flow in ["deep", "deep", "deep", "old"] {
        let ticket = bench.wait(&arrival(0, flow));
        assert_eq!(order_of_release(&mut bench, &[ticket]), [0]);
        bench.gate.session_request_ended(flow, bench.now);
    }
    bench.resize(1, 0);
    let wait = |bench: &mut Bench, flow| {
        bench.pass(millis(100));
        bench.wait(&arrival(0, flow))
    };
    let tickets = ["new", "old", "deep", "deep"].map(|flow| wait(&mut bench, flow));
    assert_eq!(order_of_release(&mut bench, &tickets), [2, 3, 1, 0]);
    // Turn 6 against turn 2, five seconds older: 4 turns are worth 8 seconds, so depth wins. Ten seconds older, it loses.
    for (older, order) in [(5, [1, 0]), (10, [0, 1])] {
        bench.resize(1, 0);
        let new = bench.wait(&arrival(0, "new"));
        bench.pass(millis(older * 1000));
        let deep = bench.wait(&arrival(0, "deep"));
        assert_eq!(order_of_release(&mut bench, &[new, deep]), order, "{older} s");
    }
}

#[test]
fn a_band_held_by_turns_is_looked_at_again_without_any_event() {
    let mut settings = banded(&[1, 0, -1], &BandSettings::default());
    settings.usage_limit = UsageLimit::SoftReflectiveCeiling;
    let mut bench = Bench::new(settings, 1, 4);
    for _ in 0..3 {
        bench.wait(&arrival(1, "a"));
    }
    let low = bench.wait(&arrival(-1, "a"));
    assert_eq!(bench.released().len(), 3);
    bench.pass(millis(3));
    assert_eq!(bench.released(), [low]);
}

#[test]
fn running_requests_below_zero_are_stopped_for_more_important_ones() {
    let kind = DetectorKind::Concurrency(Concurrency::default());
    let mut settings = banded(&[0, -1], &BandSettings::default());
    settings.eviction = true;
    settings.detector = Detector { kind, ..Detector::default() };
    let mut bench = Bench::new(settings, 1, 2);
    let running: Vec<Ticket> = [-1, -1].map(|p| bench.wait(&arrival(p, "a"))).into();
    bench.decisions();
    let urgent = bench.wait(&arrival(0, "a"));
    let stopped = bench.decisions();
    let [crate::flow::GateDecision::Revoke { ticket, demand: 0 }] = stopped[..] else {
        panic!("{stopped:?}")
    };
    assert!(running.contains(&ticket));
    bench.pass(millis(5));
    bench.complete(ticket);
    assert_eq!(bench.released(), [urgent]);
    bench.wait(&arrival(-1, "a"));
    bench.pass(millis(100));
    assert_eq!(bench.decisions(), [], "sheddable requests stop nobody");
}

#[test]
fn what_is_released_counts_before_any_endpoint_shows_it() {
    let mut bench = Bench::new(FlowSettings::default(), 1, 3);
    for _ in 0..10 {
        bench.wait(&arrival(0, "a"));
    }
    assert_eq!(bench.released().len(), 3);
    assert_eq!(bench.gate.unplaced().requests, 3);
    bench.gate.placed(1, bench.now, &bench.pool, &mut Vec::new());
    assert_eq!((bench.gate.unplaced().requests, bench.gate.in_flight()), (3, 4));
}

#[test]
fn endpoints_that_come_one_by_one_get_what_each_can_take() {
    let mut bench = Bench::new(FlowSettings::default(), 0, 0);
    let tickets: Vec<Ticket> = (0..200).map(|_| bench.wait(&arrival(0, "a"))).collect();
    bench.pass(Duration::from_secs(15));
    bench.resize(1, 40);
    assert_eq!(bench.released(), tickets[..40]);
    bench.resize(2, 80);
    assert_eq!(bench.released(), tickets[40..80]);
    for done in 0..200 {
        bench.complete(tickets[done]);
        let expected = tickets.get(done + 80).copied();
        assert_eq!(bench.released(), Vec::from_iter(expected));
    }
    assert_eq!((bench.gate.queued().requests, bench.gate.in_flight()), (0, 0));
}
