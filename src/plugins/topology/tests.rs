use serde_json::{Value, json};

use super::{extractor, filter, scorer};
use crate::datalayer::ObjectView;
use crate::plugins::PluginType;
use crate::plugins::fixture::{Fleet, Pod, pod, request};
use crate::scheduling::{Columns, Mask};

/// An endpoint with these labels for host, rack, zone and region; an empty one is absent.
fn placed(name: &str, places: [&str; 4]) -> Pod {
    let keys = ["kubernetes.io/hostname", "topology.kubernetes.io/rack"];
    let keys = keys.into_iter().chain(["topology.kubernetes.io/zone", "topology.kubernetes.io/region"]);
    keys.zip(places)
        .filter(|(_, place)| !place.is_empty())
        .fold(pod(name), |pod, (key, place)| pod.label(key, place))
}

/// The first endpoint is the peer.
fn pods() -> Vec<Pod> {
    vec![
        placed("p", ["h1", "r1", "z1", "g1"]),
        placed("a", ["h1", "r1", "z1", "g1"]),
        placed("b", ["h2", "r1", "z1", "g1"]),
        placed("c", ["h3", "", "z1", "g1"]),
        placed("d", ["h4", "r9", "z9", "g1"]),
        placed("e", ["h5", "r9", "z9", "g9"]),
        pod("f"),
    ]
}

/// Runs `look` over the endpoints behind the first, which is the peer unless there is none.
fn with_peer<R>(
    plugin: &PluginType,
    params: Value,
    pods: Vec<Pod>,
    peer: bool,
    look: impl FnOnce(&crate::plugins::Roles, &crate::scheduling::Call<'_>) -> R,
) -> R {
    let mut fleet = Fleet::new(pods);
    let source = fleet.build(&extractor::TYPE, None).unwrap();
    let built = fleet.build(plugin, Some(params)).unwrap();
    let request = request("m");
    let mut columns = Columns::new();
    for produced in fleet.call(&request, &Columns::new(), |call| {
        source.roles.producer.as_ref().unwrap().produce(call).unwrap()
    }) {
        columns.insert(produced);
    }
    let snapshot = fleet.snapshot();
    let first = snapshot.endpoints().first().filter(|_| peer);
    fleet.call(&request, &columns, |call| look(&built.roles, &call.beside(first).among(&call.slots()[1..])))
}

fn kept(params: Value, pods: Vec<Pod>, peer: bool) -> String {
    with_peer(&filter::TYPE, params, pods, peer, |roles, call| {
        let mut keep = Mask::full(call.len());
        roles.filter.as_ref().unwrap().narrow(call, &mut keep);
        let names = call.endpoints().enumerate().filter(|(position, _)| keep.contains(*position));
        names.map(|(_, endpoint)| endpoint.id().name().to_owned()).collect()
    })
}

#[test]
fn endpoints_stay_that_are_close_enough_and_all_if_nobody_is_or_there_is_no_peer() {
    for (params, expected) in [
        (json!({}), "a"),
        (json!({"minAffinity": "host"}), "a"),
        (json!({"MinAffinity": "rack"}), "ab"),
        (json!({"minAffinity": "zone"}), "abc"),
        (json!({"minAffinity": "region"}), "abcd"),
    ] {
        assert_eq!(kept(params.clone(), pods(), true), expected, "{params}");
        assert_eq!(kept(params, pods(), false), "abcdef");
    }
    let strangers = vec![placed("p", ["h1", "r1", "z1", "g1"]), placed("e", ["h5", "", "", ""]), pod("f")];
    assert_eq!(kept(json!({}), strangers, true), "ef");
    assert_eq!(kept(json!({}), vec![pod("p"), placed("a", ["h1", "", "", ""])], true), "a");
    assert_eq!(kept(json!({}), vec![pod("p")], true), "");
}

#[test]
fn the_closer_an_endpoint_is_the_more_it_scores() {
    let scores = |peer: bool| {
        with_peer(&scorer::TYPE, Value::Null, pods(), peer, |roles, call| {
            let mut scores = vec![0.0; call.len()];
            roles.scorer.as_ref().unwrap().score(call, &mut scores);
            scores
        })
    };
    assert_eq!(scores(true), [1.0, 0.2, 0.05, 0.02, 0.0, 0.0]);
    assert_eq!(scores(false), [0.0; 6]);
}

#[test]
fn the_extractor_is_added_if_nobody_lists_it_and_another_level_is_refused() {
    for plugin in [&filter::TYPE, &scorer::TYPE] {
        let built = Fleet::new([]).build(plugin, None).unwrap();
        assert_eq!(built.consumed[0].default_producer, Some("topology-extractor"));
    }
    let error = Fleet::new([]).build(&filter::TYPE, Some(json!({"minAffinity": "planet"}))).unwrap_err();
    assert_eq!(error.path, "minAffinity");
}

#[test]
fn host_names_of_ready_pods_stand_in_for_the_label() {
    let mut fleet = Fleet::new([pod("p"), pod("a"), pod("b"), placed("c", ["h1", "", "", ""])]);
    let source = fleet.build(&extractor::TYPE, None).unwrap();
    let scorer = fleet.build(&scorer::TYPE, None).unwrap();
    let listener = source.roles.object_listener.clone().unwrap();
    assert_eq!(listener.listens_to().to_string(), "Pod of v1");
    let scores = || {
        let request = request("m");
        let columns = fleet.produce(&source.roles, &request);
        let snapshot = fleet.snapshot();
        fleet.call(&request, &columns, |call| {
            let call = call.beside(snapshot.endpoints().first());
            let mut scores = vec![0.0; call.len()];
            scorer.roles.scorer.as_ref().unwrap().score(&call, &mut scores);
            scores[1..].to_vec()
        })
    };
    let tell = |name: &str, host: &str, ready: &str| {
        let content = json!({
            "spec": {"hostname": host}, "status": {"conditions": [{"type": "Ready", "status": ready}]},
        });
        listener.applied(ObjectView { name, content: &content });
    };
    assert_eq!(scores(), [0.0, 0.0, 0.0]);
    for (name, host, ready) in [("p", "h1", "True"), ("a", "h1", "True"), ("b", "h1", "False")] {
        tell(name, host, ready);
    }
    // The label of c names the same host.
    assert_eq!(scores(), [1.0, 0.0, 1.0]);
    tell("b", "h1", "True");
    tell("a", "h2", "True");
    assert_eq!(scores(), [0.0, 1.0, 1.0]);
    listener.removed("b");
    assert_eq!(scores(), [0.0, 0.0, 1.0]);
    listener.listed(&|name| name == "a");
    assert_eq!(scores(), [0.0, 0.0, 0.0]);
    for content in
        [json!(null), json!({"spec": 3}), json!({"spec": {"hostname": 4}, "status": {"conditions": {}}})]
    {
        listener.applied(ObjectView { name: "a", content: &content });
    }
}
