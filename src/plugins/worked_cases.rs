//! A worked case for every row of the registry: what it answers for endpoints with figures, for endpoints that were
//! never read, for figures of an hour ago, for figures that are no numbers, and for nobody. A type that answers nothing
//! about endpoints names the test beside it that has its cases.
//!
//! The ordinary endpoints are these; `a` is also the server that was chosen for another stage.
//!
//! | | waiting | running | usage | in flight | adapters | labels |
//! |---|---|---|---|---|---|---|
//! | a | 0 | 2 | 0.25 | 0 | m active, of 4 | decode, zone z1, lengths 0-100 |
//! | b | 4 | 6 | 0.75 | 2 | m waiting, 1 of 1 active | prefill, zone z2, lengths 200-300 |
//! | c | 2 | 2 | 1.0 | 4 | none | none |
//!
//! The request is for model `m`, from zone z1, with a prompt of 400 bytes, which are 100 tokens, and names `b` in its
//! session and in the header for tests.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use fastrand::Rng;
use serde_json::Value;

use elsewhere::ELSEWHERE;

use super::fixture::{Built, Fleet, Pod, Request, pod, request};
use super::{PluginType, REGISTRY};
use crate::scheduling::Mask;

mod elsewhere;

/// A type with its parameters in YAML, and its answers in the five situations.
struct Row(&'static str, &'static str, [&'static str; 5]);

/// What scorers, filters, pickers and deciders answer: for figures, never read, an hour old, no numbers, nobody. A figure
/// that is no number is not taken over: usage then counts as never read, and attributes keep what they were.
const ROWS: &[Row] = &[
    Row("by-label", "{label: zone, validValues: [z1]}", ["keeps a", "keeps", "keeps a", "keeps a", "keeps"]),
    Row("by-label-selector", "matchLabels: {zone: z2}", ["keeps b", "keeps", "keeps b", "keeps b", "keeps"]),
    Row("decode-filter", "", ["keeps ac", "keeps abc", "keeps ac", "keeps ac", "keeps"]),
    Row("encode-filter", "", ["keeps", "keeps", "keeps", "keeps", "keeps"]),
    Row(
        "endpoint-attribute-filter",
        "{attribute: own, producer: \"\", algorithm: {type: threshold, threshold: {operator: LessThan, value: 5}}}",
        ["keeps ac", "keeps abc", "keeps ac", "keeps ac", "keeps"],
    ),
    Row("header-based-testing-filter", "", ["keeps b", "keeps b", "keeps b", "keeps b", "keeps"]),
    Row(
        "label-selector-filter",
        "matchExpressions: [{key: zone, operator: Exists}]",
        ["keeps ab", "keeps", "keeps ab", "keeps ab", "keeps"],
    ),
    Row("prefill-filter", "", ["keeps b", "keeps", "keeps b", "keeps b", "keeps"]),
    Row("prefix-cache-affinity-filter", "", ["keeps c", "keeps c", "keeps c", "keeps c", "keeps"]),
    Row("session-affinity-filter", "", ["keeps b", "keeps b", "keeps b", "keeps b", "keeps"]),
    Row("multicluster-session-affinity-filter", "", ["keeps b", "keeps b", "keeps b", "keeps b", "keeps"]),
    Row("slo-headroom-tier-filter", "", ["keeps abc", "keeps abc", "keeps abc", "keeps abc", "keeps"]),
    Row("topology-affinity-filter", "", ["keeps abc", "keeps abc", "keeps abc", "keeps abc", "keeps"]),
    Row(
        "utilization-filter",
        "conditions: [{metric: waiting-queue, maxValue: 3}]",
        ["keeps ac", "keeps abc", "keeps ac", "keeps ac", "keeps"],
    ),
    Row("least-kv-cache-filter", "", ["keeps a", "keeps abc", "keeps a", "keeps abc", "keeps"]),
    Row("least-queue-filter", "", ["keeps a", "keeps abc", "keeps a", "keeps a", "keeps"]),
    Row("lora-affinity-filter", "", ["keeps ab", "keeps", "keeps ab", "keeps ab", "keeps"]),
    Row("low-queue-filter", "threshold: 3", ["keeps ac", "keeps abc", "keeps ac", "keeps ac", "keeps"]),
    Row("utilization-detector", "", ["keeps a", "keeps abc", "keeps abc", "keeps a", "keeps"]),
    Row(
        "concurrency-detector",
        "maxConcurrency: 3",
        ["keeps ab", "keeps abc", "keeps ab", "keeps ab", "keeps"],
    ),
    Row(
        "context-length-aware",
        "",
        ["0.785 0.273 0.500", "0.500 0.500 0.500", "0.785 0.273 0.500", "0.785 0.273 0.500", ""],
    ),
    Row(
        "context-length-aware",
        "enableFiltering: true",
        [
            "keeps ac; 0.785 0.273 0.500",
            "keeps abc; 0.500 0.500 0.500",
            "keeps ac; 0.785 0.273 0.500",
            "keeps ac; 0.785 0.273 0.500",
            "keeps; ",
        ],
    ),
    Row(
        "active-request-scorer",
        "",
        ["1.000 0.500 0.000", "1.000 1.000 1.000", "1.000 0.500 0.000", "1.000 0.500 0.000", ""],
    ),
    Row(
        "endpoint-attribute-scorer",
        "{attributeKey: own, producer: \"\", algorithm: {type: linear_lower_is_better}}",
        ["1.000 0.000 0.000", "0.000 0.000 0.000", "1.000 0.000 0.000", "1.000 0.000 0.000", ""],
    ),
    Row(
        "header-label-affinity-scorer",
        "{headerName: X-Zone, labelKey: zone}",
        ["1.000 0.000 0.000", "0.000 0.000 0.000", "1.000 0.000 0.000", "1.000 0.000 0.000", ""],
    ),
    Row(
        "kv-block-cost-scorer",
        "",
        ["0.591 0.000 1.000", "0.500 0.000 1.000", "0.591 0.000 1.000", "0.503 0.000 1.000", ""],
    ),
    Row(
        "kv-cache-utilization-scorer",
        "",
        ["0.750 0.250 0.000", "1.000 1.000 1.000", "0.750 0.250 0.000", "1.000 1.000 1.000", ""],
    ),
    Row(
        "lmetric-scorer",
        "",
        ["0.833 0.000 1.000", "0.500 0.000 1.000", "0.833 0.000 1.000", "0.833 0.000 1.000", ""],
    ),
    Row(
        "latency-scorer",
        "",
        ["0.750 0.080 0.500", "0.830 0.670 1.000", "0.750 0.080 0.500", "0.830 0.330 0.830", ""],
    ),
    Row(
        "load-aware-scorer",
        "",
        ["0.500 0.484 0.492", "0.500 0.500 0.500", "0.500 0.484 0.492", "0.500 0.484 0.492", ""],
    ),
    Row(
        "lora-affinity-scorer",
        "",
        ["1.000 0.600 0.000", "0.000 0.000 0.000", "1.000 0.600 0.000", "1.000 0.600 0.000", ""],
    ),
    Row(
        "mm-embeddings-cache-scorer",
        "",
        ["0.000 0.000 0.000", "0.000 0.000 0.000", "0.000 0.000 0.000", "0.000 0.000 0.000", ""],
    ),
    Row(
        "multicluster-kv-cache-utilization-scorer",
        "",
        ["0.750 0.250 0.000", "0.000 0.000 0.000", "0.750 0.250 0.000", "0.750 0.250 0.000", ""],
    ),
    Row(
        "multicluster-queue-scorer",
        "",
        ["1.000 0.000 0.000", "0.000 0.000 0.000", "1.000 0.000 0.000", "1.000 0.000 0.000", ""],
    ),
    Row(
        "multicluster-prefix-cache-scorer",
        "",
        ["0.000 0.000 0.000", "0.000 0.000 0.000", "0.000 0.000 0.000", "0.000 0.000 0.000", ""],
    ),
    Row(
        "no-hit-lru-scorer",
        "",
        ["0.500 0.500 0.500", "0.500 0.500 0.500", "0.500 0.500 0.500", "0.500 0.500 0.500", ""],
    ),
    Row(
        "outstanding-requests-scorer",
        "",
        ["1.000 0.000 0.400", "1.000 1.000 1.000", "1.000 0.000 0.000", "1.000 0.000 0.400", ""],
    ),
    Row(
        "prefill-wait-scorer",
        "",
        ["1.000 0.000 0.552", "0.500 0.000 1.000", "1.000 0.000 0.552", "1.000 0.000 0.552", ""],
    ),
    Row(
        "prefix-cache-scorer",
        "",
        ["0.500 0.000 1.000", "0.500 0.000 1.000", "0.500 0.000 1.000", "0.500 0.000 1.000", ""],
    ),
    Row(
        "prefix-home-scorer",
        "",
        ["1.000 0.000 0.000", "0.000 1.000 0.000", "1.000 0.000 0.000", "1.000 0.000 0.000", ""],
    ),
    Row(
        "queue-scorer",
        "",
        ["1.000 0.000 0.500", "1.000 1.000 1.000", "1.000 0.000 0.500", "1.000 0.000 0.500", ""],
    ),
    Row(
        "running-requests-size-scorer",
        "",
        ["1.000 0.000 1.000", "1.000 1.000 1.000", "1.000 0.000 1.000", "1.000 0.000 1.000", ""],
    ),
    Row(
        "session-affinity-scorer",
        "",
        ["0.000 1.000 0.000", "0.000 1.000 0.000", "0.000 1.000 0.000", "0.000 1.000 0.000", ""],
    ),
    Row(
        "token-load-scorer",
        "queueThresholdTokens: 1024",
        ["0.750 0.498 0.996", "0.750 0.500 1.000", "0.750 0.498 0.996", "0.750 0.498 0.996", ""],
    ),
    Row(
        "topology-affinity-scorer",
        "",
        ["0.000 0.000 0.000", "0.000 0.000 0.000", "0.000 0.000 0.000", "0.000 0.000 0.000", ""],
    ),
    Row("max-score-picker", "", ["picks b", "picks b", "picks b", "picks b", "picks"]),
    Row("random-picker", "", ["picks a", "picks a", "picks a", "picks a", "picks"]),
    Row("weighted-random-picker", "", ["picks b", "picks b", "picks b", "picks b", "picks"]),
    Row("always-disagg-pd-decider", "", ["yes", "yes", "yes", "yes", "yes"]),
    Row("always-disagg-multimodal-decider", "", ["no", "no", "no", "no", "no"]),
    Row("prefix-based-pd-decider", "nonCachedTokens: 50", ["no", "no", "no", "no", "no"]),
];

/// The three endpoints of the table above.
fn ordinary() -> Vec<Pod> {
    let label = |pod: Pod, role, zone, lengths| {
        pod.label("llm-d.ai/role", role).label("zone", zone).label("llm-d.ai/context-length-range", lengths)
    };
    let a = pod("a").waiting(0).running(2).kv(0.25).lora(&["m"], &[], 4).cache(16, 100);
    let b = pod("b").waiting(4).running(6).kv(0.75).lora(&["x"], &["m"], 1).cache(16, 100).in_flight(2);
    let c = pod("c").waiting(2).running(2).kv(1.0).in_flight(4);
    let figures =
        |pod: Pod, queue, usage| {
            pod.attribute("own", "", queue)
                .attribute("llm-d.ai/multicluster-queue-size", "", queue)
                .attribute("llm-d.ai/multicluster-kv-cache-utilization", "", usage)
        };
    vec![
        figures(label(a, "decode", "z1", "0-100"), 2.0, 0.25),
        figures(label(b, "prefill", "z2", "200-300"), 6.0, 0.75),
        c,
    ]
}

/// The situations: their endpoints, and how long ago these were read.
fn situations() -> [(&'static str, Vec<Pod>, Duration); 5] {
    let broken = ordinary().into_iter().map(|pod| {
        let pod = pod.kv(f64::NAN).attribute("own", "", f64::NAN);
        pod.attribute("llm-d.ai/multicluster-queue-size", "", f64::NAN).attribute(
            "llm-d.ai/multicluster-kv-cache-utilization",
            "",
            f64::NAN,
        )
    });
    [
        ("figures", ordinary(), Duration::ZERO),
        ("never read", vec![pod("a"), pod("b"), pod("c")], Duration::ZERO),
        ("an hour old", ordinary(), Duration::from_hours(1)),
        ("no numbers", broken.collect(), Duration::ZERO),
        ("nobody", Vec::new(), Duration::ZERO),
    ]
}

fn asked() -> Request {
    // "default/b", as the token of a session says it.
    request("m")
        .prompt(&"word".repeat(100))
        .header("x-session-token", "ZGVmYXVsdC9i")
        .header("test-epp-endpoint-selection", "10.0.0.98")
        .header("x-zone", "z1")
}

/// What the plugin answers, in words: scores with three digits, names of endpoints that stay or are picked.
fn answer(fleet: &Fleet, built: &Built) -> String {
    let (roles, request) = (&built.roles, asked());
    let (snapshot, columns) = (fleet.snapshot(), fleet.known_matches(&[4, 0, 8], 8));
    let name = |position: usize| snapshot.endpoints()[position].id().name().to_owned();
    let peer = snapshot.endpoints().first();
    let mut told = Vec::new();
    if roles.filter.is_some() {
        let kept = fleet.call(&request, &columns, |call| {
            let call = call.beside(peer);
            let mut keep = Mask::full(call.len());
            roles.filter.as_ref().unwrap().narrow(&call, &mut keep);
            (0..call.len()).filter(|position| keep.contains(*position)).map(name).collect::<String>()
        });
        told.push(format!("keeps {kept}").trim_end().to_owned());
    }
    if roles.scorer.is_some() {
        let scores = fleet.call(&request, &columns, |call| {
            let call = call.beside(peer);
            let mut scores = vec![0.0; call.len()];
            roles.scorer.as_ref().unwrap().score(&call, &mut scores);
            scores
        });
        let scores: Vec<String> = scores.iter().map(|score| format!("{score:.3}")).collect();
        told.push(scores.join(" "));
    }
    if roles.picker.is_some() {
        let totals = [1.0, 3.0, 0.0];
        let picked = fleet.picked(roles, &totals[..snapshot.endpoints().len()], &mut Rng::with_seed(5));
        let picked: String = picked.into_iter().map(|position| name(position as usize)).collect();
        told.push(format!("picks {picked}").trim_end().to_owned());
    }
    if roles.decider.is_some() {
        told.push(if fleet.decides(roles, &request, &columns, peer) { "yes" } else { "no" }.to_owned());
    }
    told.join("; ")
}

fn row(name: &str) -> &'static PluginType {
    REGISTRY.iter().find(|row| row.name == name).unwrap_or_else(|| panic!("there is no type {name}"))
}

#[test]
fn every_type_answers_as_worked_out_in_every_situation() {
    let mut wrong = Vec::new();
    for Row(name, parameters, expected) in ROWS {
        let parameters = crate::document::parse(parameters).unwrap().map(|node| node.to_json());
        for ((what, pods, age), expected) in situations().into_iter().zip(expected) {
            let mut fleet = Fleet::new(pods);
            let built =
                fleet.build(row(name), parameters.clone().filter(|value: &Value| !value.is_null())).unwrap();
            Fleet::answer_deciders(&built, |_| true);
            fleet.now += age;
            let answered = answer(&fleet, &built);
            if answered != *expected {
                wrong.push(format!("{name}, {what}: \"{answered}\" instead of \"{expected}\""));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_type_has_a_worked_case_here_or_in_a_test_of_its_own() {
    let here: BTreeSet<&str> = ROWS.iter().map(|row| row.0).collect();
    for plugin in REGISTRY {
        let elsewhere = ELSEWHERE.iter().find(|(name, ..)| *name == plugin.name);
        let Some((name, file, test)) = elsewhere else {
            assert!(here.contains(plugin.name), "{} has no worked case", plugin.name);
            continue;
        };
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/plugins").join(file);
        let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{name}: {file}: {error}"));
        assert!(text.contains(&format!("fn {test}(")), "{name}: {file} has no test {test}");
    }
    let known = |name: &str| REGISTRY.iter().any(|row| row.name == name);
    assert!(ELSEWHERE.iter().all(|(name, ..)| known(name)) && here.iter().all(|name| known(name)));
}
