//! Interleavings of requests and pool changes.

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;
use crate::pool::{Lease, Load, Reading};

fn spec(name: u8, port: u16) -> EndpointSpec {
    let address = SocketAddr::from(([127, 0, 0, name + 1], port));
    EndpointSpec::new(EndpointId::new("default", &format!("pod-{name}")), address)
}

fn pool() -> Pool {
    Pool::new("default", "pool", Instant::now())
}

#[test]
fn an_endpoint_that_stays_keeps_its_incarnation_when_labels_change() {
    let pool = pool();
    pool.replace_endpoints(vec![spec(0, 1)]);
    let before = pool.snapshot().endpoints()[0].incarnation();
    let change = pool.replace_endpoints(vec![spec(0, 1).with_labels([("a", "b")])]);
    let after = pool.snapshot();
    assert_eq!(change, PoolChange { added: 0, removed: 0, kept: 1 });
    assert_eq!((after.endpoints()[0].incarnation(), after.endpoints()[0].label("a")), (before, Some("b")));
}

#[test]
fn an_endpoint_that_moves_to_another_address_starts_with_a_fresh_count() {
    let pool = pool();
    pool.replace_endpoints(vec![spec(0, 1)]);
    let lease = Lease::take(&pool.snapshot().endpoints()[0], 10);
    pool.replace_endpoints(vec![spec(0, 2)]);
    assert_eq!(pool.snapshot().endpoints()[0].load().in_flight(), 0);
    drop(lease);
    assert_eq!(pool.snapshot().endpoints()[0].load().in_flight(), 0);
}

#[test]
fn of_two_entries_with_one_id_the_last_counts() {
    let pool = pool();
    pool.replace_endpoints(vec![spec(0, 1), spec(1, 1), spec(0, 2)]);
    let snapshot = pool.snapshot();
    let targets: Vec<_> = snapshot.endpoints().iter().map(|endpoint| endpoint.target()).collect();
    assert_eq!(targets, ["127.0.0.2:1", "127.0.0.1:2"]);
}

#[test]
fn a_forgotten_pool_has_no_endpoints_and_is_not_synced_but_keeps_its_rules() {
    let pool = pool();
    pool.replace_endpoints(vec![spec(0, 1)]);
    pool.set_objectives([("batch".to_owned(), -1)].into_iter().collect());
    let before = pool.snapshot().endpoints()[0].incarnation();
    pool.forget_endpoints();
    assert!(pool.snapshot().is_empty() && !pool.is_synced());
    assert_eq!(pool.objectives().find("batch"), Some(-1));
    pool.replace_endpoints(vec![spec(0, 1)]);
    assert!(pool.is_synced());
    assert_ne!(pool.snapshot().endpoints()[0].incarnation(), before, "what was known of its cache is void");
}

#[test]
fn a_change_of_objectives_wakes_who_waits_for_changes() {
    let pool = pool();
    let mut changes = pool.subscribe();
    assert!(!changes.has_changed().unwrap());
    pool.set_objectives(Objectives::default());
    assert!(changes.has_changed().unwrap());
    assert_eq!(*changes.borrow_and_update(), 0, "the endpoints are as they were");
}

#[derive(Clone, Debug)]
enum Step {
    Arrive(usize),
    End(usize),
    ReleaseTokens(usize),
    Change(Vec<(u8, u16)>),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => any::<usize>().prop_map(Step::Arrive),
        3 => any::<usize>().prop_map(Step::End),
        1 => any::<usize>().prop_map(Step::ReleaseTokens),
        2 => prop::collection::vec((0u8..4, 1u16..3), 0..5).prop_map(Step::Change),
    ];
    prop::collection::vec(step, 0..120)
}

proptest! {
    #[test]
    fn in_flight_counts_equal_open_streams_under_any_interleaving(steps in steps()) {
        let pool = pool();
        // Each open stream: the endpoint it was sent to (by name and address) and its lease.
        let mut open: Vec<(String, Lease)> = Vec::new();
        for step in steps {
            match step {
                Step::Arrive(pick) => {
                    let snapshot = pool.snapshot();
                    if !snapshot.is_empty() {
                        let endpoint = &snapshot.endpoints()[pick % snapshot.len()];
                        let key = format!("{}@{}", endpoint.id(), endpoint.target());
                        open.push((key, Lease::take(endpoint, 7)));
                    }
                }
                Step::End(pick) if !open.is_empty() => drop(open.swap_remove(pick % open.len())),
                Step::ReleaseTokens(pick) if !open.is_empty() => {
                    let index = pick % open.len();
                    open[index].1.release_tokens();
                }
                Step::End(_) | Step::ReleaseTokens(_) => {}
                Step::Change(list) => {
                    pool.replace_endpoints(list.into_iter().map(|(name, port)| spec(name, port)).collect());
                }
            }
            let mut expected: HashMap<&str, u64> = HashMap::new();
            for (key, _) in &open {
                *expected.entry(key).or_default() += 1;
            }
            for endpoint in pool.snapshot().endpoints() {
                let key = format!("{}@{}", endpoint.id(), endpoint.target());
                let want = expected.get(key.as_str()).copied().unwrap_or(0);
                prop_assert_eq!(endpoint.load().in_flight(), want, "{}", key);
            }
        }
        drop(open);
        for endpoint in pool.snapshot().endpoints() {
            prop_assert_eq!(endpoint.load().in_flight(), 0);
            prop_assert_eq!(endpoint.load().in_flight_tokens(), 0);
        }
    }
}

#[test]
fn a_pool_without_endpoints_expects_them_when_they_came_last_time() {
    let start = Instant::now();
    let at = |seconds| start + std::time::Duration::from_secs(seconds);
    let mut absence = super::Absence::default();
    assert_eq!(absence.rest(at(0)), None);
    absence.note(true, at(0));
    absence.note(true, at(10));
    assert_eq!(absence.rest(at(20)), None);
    absence.note(false, at(30));
    absence.note(true, at(100));
    assert_eq!(absence.rest(at(110)), Some(std::time::Duration::from_secs(20)));
    assert_eq!(absence.rest(at(200)), Some(std::time::Duration::ZERO));
}

#[test]
fn a_reading_without_a_block_size_leaves_the_last_one_in_force() {
    let start = Instant::now();
    let load = Load::new(start);
    for (block_size, expected) in [(None, 0), (Some(16), 16), (None, 16), (Some(32), 32)] {
        let reading = Reading { waiting: Some(1), block_size, ..Reading::default() };
        load.record(reading, 0, start);
        assert_eq!(load.block_size(), expected);
    }
}
