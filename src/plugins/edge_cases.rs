//! What every plugin type has to bear, run for each row of the registry: nobody in the running, endpoints that were
//! never read, figures of an hour ago, and figures and attributes that are no numbers.
//!
//! A type that has none of the roles below, nor one of those that see no endpoint, fails: it needs cases of its own.

use std::time::Duration;

use fastrand::Rng;
use serde_json::Value;

use super::fixture::{Fleet, Pod, pod, request};
use super::{PluginType, REGISTRY, Roles};
use crate::scheduling::{Columns, Mask};

/// A situation: its name, the endpoints, and how long ago they were read.
fn situations() -> Vec<(&'static str, Vec<Pod>, Duration)> {
    let busy = |name: &str| pod(name).waiting(3).running(2).kv(0.5).cache(16, 100).lora(&["m"], &[], 4);
    let broken = |name: &str| busy(name).kv(f64::NAN).attribute("queue", "", f64::NAN);
    let labelled = |pod: Pod| pod.label("llm-d.ai/role", "decode").label("zone", "a");
    vec![
        ("nobody", Vec::new(), Duration::ZERO),
        ("never read", vec![pod("a"), labelled(pod("b"))], Duration::ZERO),
        ("read an hour ago", vec![busy("a"), labelled(busy("b"))], Duration::from_hours(1)),
        ("no numbers", vec![broken("a"), labelled(broken("b")), busy("c")], Duration::ZERO),
    ]
}

/// True if the type has a role in which it never sees an endpoint of a request.
fn sees_no_endpoint(roles: &Roles) -> bool {
    let reads = roles.parser.is_some() || roles.media_estimate.is_some() || roles.preparer.is_some();
    let reads = reads || roles.in_flight.is_some();
    let fetches = roles.metrics_source.is_some()
        || roles.metrics_extractor.is_some()
        || roles.page_source.is_some()
        || roles.page_extractor.is_some()
        || roles.notifies
        || roles.object_source.is_some()
        || roles.discovery.is_some();
    let waits = roles.detector.is_some()
        || roles.ordering.is_some()
        || roles.fairness.is_some()
        || roles.usage_limit.is_some()
        || roles.flow_namer.is_some();
    let after = roles.reporter.is_some() || roles.response_headers.is_some() || roles.pre_request.is_some();
    reads || fetches || waits || after
}

/// Runs every role of the type that sees endpoints; the number of roles that were run.
fn bear(plugin: &'static PluginType, pods: Vec<Pod>, age: Duration, what: &str) -> usize {
    let example = crate::document::parse(plugin.example).unwrap().map(|node| node.to_json());
    let mut fleet = Fleet::new(pods);
    let built = fleet.build(plugin, example.filter(|value: &Value| !value.is_null())).unwrap();
    Fleet::answer_deciders(&built, |_| true);
    fleet.now += age;
    let (roles, name) = (&built.roles, plugin.name);
    let (count, mut ran) = (fleet.snapshot().len(), 0);
    let (columns, mut rng) = (Columns::new(), Rng::with_seed(1));
    let request = request("m").prompt("hello").priority(-1);
    if roles.scorer.is_some() {
        ran += 1;
        let scores = fleet.scores(roles, &request, &columns);
        assert!(
            scores.len() == count && scores.iter().all(|score| !score.is_infinite()),
            "{name}, {what}: {scores:?}"
        );
    }
    if roles.filter.is_some() && built.filters.is_empty() {
        ran += 1;
        assert!(fleet.kept(roles, &request).len() <= count, "{name}, {what}");
    }
    if roles.picker.is_some() {
        ran += 1;
        for total in [0.0, 1.0, f64::NAN] {
            let picked = fleet.picked(roles, &vec![total; count], &mut rng);
            let known = picked.iter().all(|position| (*position as usize) < count);
            assert!(known && picked.is_empty() == (count == 0), "{name}, {what}: {picked:?}");
        }
    }
    if let Some(producer) = &roles.producer {
        ran += 1;
        // Some producers say that they have nothing to go by; that costs the request nothing.
        let _ = fleet.call(&request, &columns, |call| producer.produce(call).map(|made| made.len()));
    }
    if let Some(screener) = &roles.screener {
        ran += 1;
        fleet.call(&request, &columns, |call| screener.screen(call, &mut rng, &mut Mask::full(call.len())));
    }
    if let Some(admitter) = &roles.admitter {
        ran += 1;
        let _ = fleet.call(&request, &columns, |call| admitter.admit(call, &mut rng));
    }
    if roles.decider.is_some() {
        ran += 1;
        let snapshot = fleet.snapshot();
        for target in [None, snapshot.endpoints().first()] {
            fleet.decides(roles, &request, &columns, target);
        }
    }
    if let Some(handler) = &roles.profile_handler {
        ran += 1;
        handler.review(&[]);
        handler.review(&["default".into(), "prefill".into(), "decode".into()]);
    }
    ran
}

#[test]
fn every_type_bears_missing_old_and_impossible_figures_and_an_empty_pool() {
    for plugin in REGISTRY {
        for (what, pods, age) in situations() {
            let ran = bear(plugin, pods, age, what);
            let bears = ran > 0 || sees_no_endpoint(&plugin.roles()) || plugin.name == "decision-tree-filter";
            assert!(bears, "{} has no worked case for \"{what}\"", plugin.name);
        }
    }
}
