//! Changes in, endpoints out.

use proptest::prelude::*;

use super::super::resources::Written;
use super::*;

fn pool(selector: &str, ports: &[u16]) -> PoolFacts {
    PoolFacts { selector: Some(selector.into()), ports: ports.to_vec(), app_protocol: None }
}

fn pod(name: &str, address: &str) -> PodFacts {
    PodFacts {
        name: name.into(),
        address: address.parse().ok(),
        node_address: None,
        labels: Arc::default(),
        active_ports: None,
        ready: true,
    }
}

fn unready(name: &str, address: &str) -> PodFacts {
    PodFacts { ready: false, ..pod(name, address) }
}

fn shown(cluster: &Cluster) -> Vec<String> {
    let endpoints = cluster.view().map(|view| view.endpoints).unwrap_or_default();
    endpoints.iter().map(|endpoint| format!("{} {}", endpoint.id, endpoint.address)).collect()
}

/// A cluster whose pool has port 8000 and these pods.
fn serving(pods: Vec<PodFacts>) -> Cluster {
    let mut cluster = Cluster::new("ns");
    cluster.set_pool(Some(pool("app=a", &[8000])));
    cluster.pods(1, Delta::Listed(pods));
    cluster
}

#[test]
fn a_pod_is_an_endpoint_for_each_target_port_that_is_active() {
    let mut cluster = Cluster::new("ns");
    cluster.set_pool(Some(pool("app=a", &[8000, 8001, 8002])));
    let partly = PodFacts { active_ports: Some(vec![8002, 8000, 9999]), ..pod("b", "fd00::2") };
    let none = PodFacts { active_ports: Some(vec![]), ..pod("c", "10.0.0.3") };
    cluster.pods(1, Delta::Listed(vec![unready("a", "10.0.0.1"), partly, none]));
    assert_eq!(shown(&cluster), ["ns/b-rank-0 [fd00::2]:8000", "ns/b-rank-2 [fd00::2]:8002"]);
    let view = cluster.view().unwrap();
    assert_eq!((&*view.endpoints[1].pod, view.endpoints[1].rank), ("b", 2));
}

#[test]
fn nothing_is_known_until_the_pool_and_its_pods_are() {
    let mut cluster = Cluster::new("ns");
    assert_eq!(cluster.view(), None);
    cluster.set_pool(Some(pool("app=a", &[8000])));
    assert_eq!((cluster.view(), cluster.watch().map(|watch| watch.number)), (None, Some(1)));
    cluster.pods(1, Delta::Listed(vec![]));
    assert_eq!(cluster.view(), Some(View::default()), "an empty pool is a known one");
}

#[test]
fn two_pods_that_swap_addresses_end_up_as_the_api_says() {
    let mut cluster = serving(vec![pod("a", "10.0.0.1"), pod("b", "10.0.0.2")]);
    assert_eq!(cluster.pods(1, Delta::Applied(pod("a", "10.0.0.2"))), Some(Urgency::Loss));
    let view = cluster.view().unwrap();
    assert_eq!(
        (shown(&cluster), view.displaced),
        (vec!["ns/a-rank-0 10.0.0.2:8000".to_owned()], vec!["b".to_owned()])
    );
    cluster.pods(1, Delta::Applied(pod("b", "10.0.0.1")));
    assert_eq!(shown(&cluster), ["ns/a-rank-0 10.0.0.2:8000", "ns/b-rank-0 10.0.0.1:8000"]);
}

#[test]
fn an_address_that_moved_on_stays_with_its_new_pod_after_a_relist() {
    let mut cluster = serving(vec![pod("a", "10.0.0.1"), pod("b", "10.0.0.2")]);
    cluster.pods(1, Delta::Applied(pod("b", "10.0.0.1")));
    cluster.pods(1, Delta::Listed(vec![pod("a", "10.0.0.1"), pod("b", "10.0.0.1")]));
    assert_eq!(shown(&cluster), ["ns/b-rank-0 10.0.0.1:8000"]);
}

#[test]
fn a_change_of_the_selector_is_one_step_when_its_pods_are_known() {
    let mut cluster = serving(vec![pod("old", "10.0.0.1")]);
    assert_eq!(cluster.set_pool(Some(pool("app=b", &[9000]))), None);
    assert_eq!(cluster.watch(), Some(&PodWatch { number: 2, selector: "app=b".into() }));
    assert_eq!(shown(&cluster), ["ns/old-rank-0 10.0.0.1:8000"], "neither pods nor ports change before");
    cluster.pods(1, Delta::Applied(pod("late", "10.0.0.9")));
    assert_eq!(shown(&cluster).len(), 2, "the former watch still counts");
    cluster.pods(2, Delta::Listed(vec![pod("new", "10.0.0.2")]));
    assert_eq!(
        (shown(&cluster), cluster.serves()),
        (vec!["ns/new-rank-0 10.0.0.2:9000".to_owned()], Some(2))
    );
    assert_eq!(cluster.pods(1, Delta::Applied(pod("old", "10.0.0.1"))), None, "the former watch is over");
    assert_eq!(shown(&cluster).len(), 1);
}

#[test]
fn a_selector_that_changes_back_before_its_pods_are_known_keeps_no_trace() {
    let mut cluster = serving(vec![pod("a", "10.0.0.1")]);
    cluster.set_pool(Some(pool("app=b", &[8000])));
    cluster.set_pool(Some(pool("app=a", &[8000])));
    assert_eq!(cluster.pods(2, Delta::Listed(vec![pod("b", "10.0.0.2")])), None);
    cluster.pods(3, Delta::Listed(vec![pod("a", "10.0.0.1")]));
    assert_eq!(shown(&cluster), ["ns/a-rank-0 10.0.0.1:8000"]);
}

#[test]
fn new_target_ports_hold_at_once() {
    let mut cluster = serving(vec![pod("a", "10.0.0.1")]);
    assert_eq!(cluster.set_pool(Some(pool("app=a", &[8000, 9000]))), Some(Urgency::Loss));
    assert_eq!(shown(&cluster), ["ns/a-rank-0 10.0.0.1:8000", "ns/a-rank-1 10.0.0.1:9000"]);
    assert_eq!(cluster.set_pool(Some(pool("app=a", &[8000, 9000]))), None, "nothing changed");
}

#[test]
fn a_pool_that_is_deleted_and_made_again_keeps_objectives_and_rewrites() {
    let mut cluster = serving(vec![pod("a", "10.0.0.1")]);
    let objective = ObjectiveFacts { name: "batch".into(), priority: -1, written: Written::default() };
    cluster.objectives(Origin::Current, Delta::Applied(objective));
    assert_eq!(cluster.set_pool(None), Some(Urgency::Loss));
    assert_eq!((cluster.view(), cluster.watch()), (None, None));
    cluster.set_pool(Some(pool("app=a", &[8000])));
    assert_eq!(cluster.watch().map(|watch| watch.number), Some(2), "its pods are listed afresh");
    cluster.pods(2, Delta::Listed(vec![pod("a", "10.0.0.1")]));
    assert_eq!((shown(&cluster).len(), cluster.effective_objectives().count()), (1, 1));
}

#[test]
fn a_pool_without_a_selector_has_no_endpoints() {
    let mut cluster = serving(vec![pod("a", "10.0.0.1")]);
    let bare = PoolFacts { selector: None, ports: vec![8000], app_protocol: None };
    assert_eq!(cluster.set_pool(Some(bare)), Some(Urgency::Loss));
    assert_eq!((cluster.view(), cluster.watch()), (Some(View::default()), None));
}

#[test]
fn losses_are_told_from_gains() {
    let mut cluster = serving(vec![pod("a", "10.0.0.1")]);
    assert_eq!(cluster.pods(1, Delta::Applied(pod("a", "10.0.0.1"))), None);
    assert_eq!(cluster.pods(1, Delta::Applied(unready("b", "10.0.0.2"))), None);
    assert_eq!(cluster.pods(1, Delta::Applied(pod("b", "10.0.0.2"))), Some(Urgency::Gain));
    assert_eq!(cluster.pods(1, Delta::Applied(unready("b", "10.0.0.2"))), Some(Urgency::Loss));
    assert_eq!(cluster.pods(1, Delta::Removed("b".into())), None);
    assert_eq!(cluster.pods(1, Delta::Removed("a".into())), Some(Urgency::Loss));
}

#[test]
fn of_two_objectives_with_one_name_the_current_group_counts() {
    let mut cluster = Cluster::new("ns");
    let objective = |priority| ObjectiveFacts { name: "x".into(), priority, written: Written::default() };
    cluster.objectives(Origin::Legacy, Delta::Listed(vec![objective(1)]));
    let priorities =
        |cluster: &Cluster| cluster.effective_objectives().map(|one| one.priority).collect::<Vec<_>>();
    assert_eq!(priorities(&cluster), [1]);
    cluster.objectives(Origin::Current, Delta::Listed(vec![objective(2)]));
    assert_eq!(priorities(&cluster), [2]);
    assert_eq!(cluster.objectives(Origin::Current, Delta::Listed(vec![objective(2)])), None, "the same list");
    cluster.objectives(Origin::Current, Delta::Removed("x".into()));
    assert_eq!(priorities(&cluster), [1]);
}

#[derive(Clone, Debug)]
enum Step {
    Apply(u8, u8, bool),
    Remove(u8),
    Relist,
    Selector(u8),
    Ports(u8),
    Pool(bool),
    /// The first list of the awaited watch arrives.
    Arrive,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (0u8..5, 0u8..4, any::<bool>()).prop_map(|(name, ip, ready)| Step::Apply(name, ip, ready)),
        2 => (0u8..5).prop_map(Step::Remove),
        1 => Just(Step::Relist),
        1 => (0u8..3).prop_map(Step::Selector),
        1 => (0u8..3).prop_map(Step::Ports),
        1 => any::<bool>().prop_map(Step::Pool),
        3 => Just(Step::Arrive),
    ];
    prop::collection::vec(step, 0..80)
}

proptest! {
    /// However events come, what is shown once everything was listed is what the API holds, and no address appears
    /// twice.
    #[test]
    fn any_order_of_events_leads_to_what_the_api_holds(steps in steps()) {
        let mut cluster = Cluster::new("ns");
        // The API: all pods match every selector here; the core does not match labels, the API does.
        let mut api: BTreeMap<String, PodFacts> = BTreeMap::new();
        let (mut selector, mut ports, mut exists) = (0u8, 1u8, false);
        let facts = |selector: u8, ports: u8| {
            pool(&format!("s={selector}"), &(0..=u16::from(ports)).map(|port| 8000 + port).collect::<Vec<_>>())
        };
        for step in steps {
            match step {
                Step::Apply(name, ip, ready) => {
                    let mut facts = pod(&format!("p{name}"), &format!("10.0.0.{ip}"));
                    facts.ready = ready;
                    api.insert(facts.name.clone(), facts.clone());
                    if let Some(number) = cluster.serves() {
                        cluster.pods(number, Delta::Applied(facts));
                    }
                }
                Step::Remove(name) => {
                    let name = format!("p{name}");
                    api.remove(&name);
                    if let Some(number) = cluster.serves() {
                        cluster.pods(number, Delta::Removed(name));
                    }
                }
                Step::Relist => {
                    if let Some(number) = cluster.serves() {
                        cluster.pods(number, Delta::Listed(api.values().cloned().collect()));
                    }
                }
                Step::Selector(to) => selector = to,
                Step::Ports(to) => ports = to,
                Step::Pool(to) => exists = to,
                Step::Arrive => {
                    if let Some(number) = cluster.watch().map(|watch| watch.number) {
                        cluster.pods(number, Delta::Listed(api.values().cloned().collect()));
                    }
                }
            }
            cluster.set_pool(exists.then(|| facts(selector, ports)));
            if let Some(view) = cluster.view() {
                let mut addresses: Vec<_> = view.endpoints.iter().map(|endpoint| endpoint.address).collect();
                addresses.sort();
                addresses.dedup();
                prop_assert_eq!(addresses.len(), view.endpoints.len());
            }
        }
        cluster.set_pool(Some(facts(selector, ports)));
        if let Some(number) = cluster.watch().map(|watch| watch.number) {
            cluster.pods(number, Delta::Listed(api.values().cloned().collect()));
        }
        let ready: std::collections::BTreeSet<_> =
            api.values().filter(|pod| pod.ready).filter_map(|pod| pod.address).collect();
        let shown: std::collections::BTreeSet<_> =
            cluster.view().unwrap().endpoints.iter().map(|endpoint| endpoint.address.ip()).collect();
        prop_assert_eq!(shown, ready);
    }
}
