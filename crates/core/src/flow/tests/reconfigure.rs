//! Settings that change while requests wait.

use std::collections::{BTreeMap, HashMap};

use proptest::prelude::*;

use super::pool::{Bench, arrival, millis};
use crate::flow::settings::{BandSettings, Fairness, Ordering, ProgramAware, TurnPriority};
use crate::flow::{Arrival, FlowSettings, GateDecision, Outcome, Ticket};

impl Bench {
    fn reconfigure(&mut self, settings: FlowSettings, arrivals: &HashMap<usize, Arrival>) {
        let (now, pool) = (self.now, self.pool.clone());
        let mut decisions = Vec::new();
        self.gate.reconfigure(settings, |place| arrivals.get(&place), now, &pool, &mut decisions);
        self.keep(decisions);
    }
}

fn band(fairness: Fairness, ordering: Ordering) -> BandSettings {
    BandSettings { fairness, ordering, ..BandSettings::default() }
}

fn settings(bands: impl IntoIterator<Item = (i32, BandSettings)>) -> FlowSettings {
    FlowSettings { bands: bands.into_iter().collect::<BTreeMap<_, _>>(), ..FlowSettings::default() }
}

fn fairness() -> impl Strategy<Value = Fairness> {
    prop_oneof![
        Just(Fairness::GlobalStrict),
        Just(Fairness::RoundRobin),
        Just(Fairness::ProgramAware(ProgramAware::default())),
        Just(Fairness::TurnPriority(TurnPriority::default())),
    ]
}

fn any_settings() -> impl Strategy<Value = FlowSettings> {
    let ordering = prop_oneof![Just(Ordering::Fcfs), Just(Ordering::Edf), Just(Ordering::SloDeadline)];
    let own = (fairness(), ordering).prop_map(|(fairness, ordering)| band(fairness, ordering));
    prop::collection::vec(own, 1..4).prop_map(|bands| settings([0, 5, -5].into_iter().zip(bands)))
}

#[derive(Clone, Debug)]
struct Sent {
    priority: i32,
    flow: &'static str,
    ttl: Option<u64>,
    slo: Option<u64>,
    pause: u64,
}

fn sent() -> impl Strategy<Value = Vec<Sent>> {
    let soon = || prop::option::weighted(0.4, 10_000..40_000_u64);
    let priority = prop::sample::select(vec![0, 5, -5]);
    let flow = prop::sample::select(vec!["a", "b", "c"]);
    let one = (priority, flow, soon(), soon(), 0..30_u64)
        .prop_map(|(priority, flow, ttl, slo, pause)| Sent { priority, flow, ttl, slo, pause });
    prop::collection::vec(one, 1..24)
}

/// Submits all while the pool is full, and keeps what each came with.
fn fill(bench: &mut Bench, requests: &[Sent]) -> (Vec<Ticket>, HashMap<usize, Arrival>) {
    let (mut tickets, mut arrivals) = (Vec::new(), HashMap::new());
    for sent in requests {
        bench.pass(millis(sent.pause));
        let arrival = Arrival {
            received: bench.now,
            ttl: sent.ttl.map(millis),
            slo_ttft: sent.slo.map(millis),
            ..arrival(sent.priority, sent.flow)
        };
        let ticket = bench.wait(&arrival);
        arrivals.insert(ticket.index(), arrival);
        tickets.push(ticket);
    }
    (tickets, arrivals)
}

/// The order in which requests are released, by their place in the list, one at a time.
fn order(bench: &mut Bench, tickets: &[Ticket]) -> Vec<usize> {
    let mut order = Vec::new();
    bench.decisions();
    bench.resize(1, 1);
    loop {
        let released = bench.released();
        let Some(ticket) = released.first().copied() else { return order };
        assert_eq!(released.len(), 1, "there is room for one");
        order.push(tickets.iter().position(|other| *other == ticket).unwrap());
        bench.complete(ticket);
    }
}

proptest! {
    #[test]
    fn what_waits_is_served_as_if_the_new_settings_had_been_there_from_the_start(
        former in any_settings(),
        new in any_settings(),
        requests in sent(),
    ) {
        let mut changed = Bench::new(former, 1, 0);
        let (tickets, arrivals) = fill(&mut changed, &requests);
        // Bands that objectives give stay, so the other one gets them, too.
        let priorities: Vec<i32> = changed.gate.bands().map(|band| band.priority).collect();
        changed.reconfigure(new.clone(), &arrivals);
        prop_assert_eq!(changed.gate.queued().requests, requests.len() as u64);
        let mut fresh = Bench::new(new, 1, 0);
        fresh.gate.provision(&priorities);
        let (others, _) = fill(&mut fresh, &requests);
        prop_assert_eq!(order(&mut changed, &tickets), order(&mut fresh, &others));
    }

    #[test]
    fn no_request_is_lost_or_told_twice_whatever_changes_when(
        steps in prop::collection::vec(
            prop_oneof![
                6 => sent().prop_map(|sent| (Some(sent), None)),
                2 => any_settings().prop_map(|settings| (None, Some(settings))),
            ],
            1..10,
        ),
        capacity in 0..3_u64,
    ) {
        let mut bench = Bench::new(FlowSettings::default(), 1, capacity);
        let (mut told, mut arrivals) = (HashMap::<Ticket, u32>::new(), HashMap::new());
        for (sent, settings) in steps {
            if let Some(sent) = sent {
                let (tickets, came) = fill(&mut bench, &sent);
                for ticket in tickets {
                    told.entry(ticket).or_default();
                }
                arrivals.extend(came);
            }
            if let Some(settings) = settings {
                bench.reconfigure(settings, &arrivals);
            }
            for decision in bench.decisions() {
                if let GateDecision::Release { ticket, .. } | GateDecision::Reject { ticket, .. } = decision {
                    *told.entry(ticket).or_default() += 1;
                    if matches!(decision, GateDecision::Release { .. }) {
                        bench.complete(ticket);
                    }
                }
            }
        }
        bench.resize(1, 1_000_000);
        bench.pass(millis(1_000_000));
        for decision in bench.decisions() {
            if let GateDecision::Release { ticket, .. } | GateDecision::Reject { ticket, .. } = decision {
                *told.entry(ticket).or_default() += 1;
            }
        }
        prop_assert!(told.values().all(|count| *count == 1), "{told:?}");
        prop_assert_eq!(bench.gate.queued(), crate::flow::Queued::default());
    }
}

#[test]
fn a_lower_bound_refuses_new_requests_and_keeps_what_waits() {
    let mut bench = Bench::new(FlowSettings::default(), 1, 0);
    let came = Sent { priority: 0, flow: "a", ttl: None, slo: None, pause: 0 };
    let (_, arrivals) = fill(&mut bench, &vec![came; 5]);
    bench.reconfigure(FlowSettings { max_requests: Some(2), ..FlowSettings::default() }, &arrivals);
    assert_eq!((bench.gate.queued().requests, bench.refused().len()), (5, 0));
    assert!(bench.submit(&arrival(0, "a")).is_err());
}

#[test]
fn a_wait_that_becomes_shorter_ends_at_the_time_that_it_would_have_had_from_the_start() {
    let mut bench = Bench::new(FlowSettings::default(), 1, 0);
    let came = Sent { priority: 0, flow: "a", ttl: None, slo: None, pause: 0 };
    let (_, arrivals) = fill(&mut bench, &[came]);
    bench.pass(millis(300));
    let shorter = FlowSettings { default_request_ttl: Some(millis(500)), ..FlowSettings::default() };
    bench.reconfigure(shorter, &arrivals);
    bench.pass(millis(199));
    assert_eq!(bench.refused(), []);
    bench.pass(millis(2));
    assert_eq!(bench.refused(), [(Outcome::EvictedTtl, millis(500))]);
}
