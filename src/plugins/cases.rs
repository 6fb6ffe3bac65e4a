//! Worked cases: given these figures, these decisions. The expected values are computed by hand from the formulas.

use fastrand::Rng;
use serde_json::{Value, json};

use super::fixture::{Fleet, Pod, Request, pod, request};
use super::{PluginType, filters, pickers, scorers};

/// One worked case of a scorer.
struct Case {
    plugin: &'static PluginType,
    params: Value,
    pods: Vec<Pod>,
    request: Request,
    /// Matched blocks by endpoint, and blocks of the request.
    matches: Option<(&'static [u32], u32)>,
    expected: Vec<f64>,
}

fn case(plugin: &'static PluginType, pods: impl IntoIterator<Item = Pod>, expected: &[f64]) -> Case {
    Case {
        plugin,
        params: Value::Null,
        pods: pods.into_iter().collect(),
        request: request("m"),
        matches: None,
        expected: expected.to_vec(),
    }
}

impl Case {
    fn params(mut self, params: Value) -> Self {
        self.params = params;
        self
    }

    fn model(mut self, model: &str) -> Self {
        model.clone_into(&mut self.request.model);
        self
    }

    fn matches(mut self, matched: &'static [u32], total: u32) -> Self {
        self.matches = Some((matched, total));
        self
    }
}

#[track_caller]
fn check(cases: impl IntoIterator<Item = Case>) {
    for (number, case) in cases.into_iter().enumerate() {
        let mut fleet = Fleet::new(case.pods);
        let built = fleet.build(case.plugin, Some(case.params.clone())).unwrap();
        let columns = case.matches.map(|(matched, total)| fleet.matches(matched, total)).unwrap_or_default();
        let scores = fleet.scores(&built.roles, &case.request, &columns);
        let close = |(a, b): (&f64, &f64)| (a - b).abs() < 1e-12;
        assert!(
            scores.len() == case.expected.len() && scores.iter().zip(&case.expected).all(close),
            "case {number} of {}, {}: {scores:?} instead of {:?}",
            case.plugin.name,
            case.params,
            case.expected
        );
    }
}

#[test]
fn queue_and_running_requests_are_scored_between_their_extremes() {
    let queue = &scorers::queue::TYPE;
    let running = &scorers::running_requests_size::TYPE;
    let waiting = |figures: &[u64]| figures.iter().map(|&n| pod("a").waiting(n)).collect::<Vec<_>>();
    let batch = |figures: &[u64]| figures.iter().map(|&n| pod("a").running(n)).collect::<Vec<_>>();
    let named =
        |pods: Vec<Pod>| pods.into_iter().zip(["a", "b", "c", "d"]).map(|(pod, name)| pod.named(name));
    check([
        case(queue, named(waiting(&[0, 5, 10])), &[1.0, 0.5, 0.0]),
        case(queue, named(waiting(&[7, 7])), &[1.0, 1.0]),
        case(queue, named(waiting(&[9])), &[1.0]),
        case(queue, named(waiting(&[0, 1])), &[1.0, 0.0]),
        case(queue, named(waiting(&[100, 101, 104])), &[1.0, 0.75, 0.0]),
        // Never scraped reads as an empty queue.
        case(queue, [pod("a"), pod("b").waiting(4), pod("c").waiting(1)], &[1.0, 0.0, 0.75]),
        case(running, named(batch(&[2, 4, 6, 10])), &[1.0, 0.75, 0.5, 0.0]),
        case(running, named(batch(&[0, 0])), &[1.0, 1.0]),
        // Running requests do not look at the queue.
        case(running, [pod("a").running(1).waiting(50), pod("b").running(2)], &[1.0, 0.0]),
    ]);
}

#[test]
fn kv_cache_utilization_is_scored_as_what_is_free() {
    let kv = &scorers::kv_cache_utilization::TYPE;
    check([
        case(kv, [pod("a").kv(0.0), pod("b").kv(0.25), pod("c").kv(1.0)], &[1.0, 0.75, 0.0]),
        case(kv, [pod("a").kv(0.9)], &[0.1]),
        // Never scraped reads as an empty cache.
        case(kv, [pod("a"), pod("b").kv(0.5)], &[1.0, 0.5]),
    ]);
}

#[test]
fn lora_prefers_loaded_adapters_then_room_then_waiting_ones() {
    let lora = &scorers::lora_affinity::TYPE;
    check([
        case(
            lora,
            [
                pod("a").lora(&["m"], &[], 1),
                pod("b").lora(&["x"], &[], 2),
                pod("c").lora(&["x"], &["m"], 2),
                pod("d").lora(&["x"], &["y"], 2),
            ],
            &[1.0, 0.8, 0.6, 0.0],
        ),
        // No LoRA at all, and never scraped.
        case(lora, [pod("a").lora(&[], &[], 0), pod("b")], &[0.0, 0.0]),
        // Names are compared exactly.
        case(lora, [pod("a").lora(&["M"], &[], 1)], &[0.0]),
        // Active counts even beyond the maximum; room beats waiting.
        case(lora, [pod("a").lora(&["m", "x"], &[], 1), pod("b").lora(&[], &["m"], 2)], &[1.0, 0.8]),
        case(lora, [pod("a").lora(&["other"], &[], 4)], &[1.0]).model("other"),
    ]);
}

#[test]
fn load_aware_halves_and_falls_to_zero_at_the_threshold() {
    let load = &scorers::load_aware::TYPE;
    check([
        case(
            load,
            [pod("a"), pod("b").waiting(64), pod("c").waiting(128), pod("d").waiting(999)],
            &[0.5, 0.25, 0.0, 0.0],
        ),
        case(load, [pod("a").waiting(1)], &[0.5 * 127.0 / 128.0]),
        case(load, [pod("a").waiting(5)], &[0.25]).params(json!({"threshold": 10})),
        case(load, [pod("a").waiting(32)], &[0.375]).params(json!({"threshold": 0})),
        case(load, [pod("a").waiting(32)], &[0.375]).params(json!({"threshold": -3})),
    ]);
}

#[test]
fn active_requests_are_scored_against_the_busiest() {
    let active = &scorers::active_request::TYPE;
    let fleet = || [pod("a"), pod("b").in_flight(1), pod("c").in_flight(4)];
    check([
        case(active, fleet(), &[1.0, 0.75, 0.0]),
        case(active, [pod("a"), pod("b")], &[1.0, 1.0]),
        case(active, [pod("a").in_flight(3), pod("b").in_flight(3)], &[0.0, 0.0]),
        case(active, fleet(), &[1.0, 1.0, 0.0]).params(json!({"idleThreshold": 1})),
        case(active, fleet(), &[1.0, 1.0, 1.0]).params(json!({"idleThreshold": 4})),
        case(active, fleet(), &[1.0, 0.375, 0.0]).params(json!({"maxBusyScore": 0.5})),
        case(active, fleet(), &[1.0, 0.0, 0.0]).params(json!({"maxBusyScore": 0})),
        case(active, fleet(), &[1.0, 0.75, 0.0]).params(json!({"maxBusyScore": 7, "idleThreshold": -1})),
        // Scraped figures do not count.
        case(active, [pod("a").running(9).waiting(9), pod("b").in_flight(1)], &[1.0, 0.0]),
    ]);
}

#[test]
fn prefix_matches_are_scored_by_share_and_by_length() {
    let prefix = &scorers::prefix_cache::TYPE;
    let three = || [pod("a"), pod("b"), pod("c")];
    check([
        case(prefix, three(), &[0.0, 0.5, 1.0]).matches(&[0, 4, 8], 8),
        case(prefix, three(), &[0.0, 0.0, 0.0]).matches(&[0, 0, 0], 0),
        // The producer did not run.
        case(prefix, three(), &[0.0, 0.0, 0.0]),
        // 64 tokens a block: 16 blocks are 1024 tokens, 1/8 of the scale, 1/64 squared.
        case(prefix, [pod("a")], &[1.0 / 64.0]).matches(&[16], 32).params(json!({"matchLengthWeight": 1})),
        case(prefix, [pod("a")], &[0.5 / 64.0 + 0.25])
            .matches(&[16], 32)
            .params(json!({"matchLengthWeight": 0.5})),
        case(prefix, [pod("a")], &[1.0])
            .matches(&[200], 400)
            .params(json!({"matchLengthWeight": 1.0, "matchLengthScaleTokens": 8192})),
        case(prefix, [pod("a")], &[0.25])
            .matches(&[8], 100)
            .params(json!({"matchLengthWeight": 1, "matchLengthScaleTokens": 1024})),
    ]);
}

#[test]
fn warm_prompts_score_the_same_everywhere_and_cold_ones_in_order_at_first() {
    let lru = &scorers::no_hit_lru::TYPE;
    let four = || [pod("a"), pod("b"), pod("c"), pod("d")];
    check([
        case(lru, four(), &[0.5, 0.5, 0.5, 0.5]).matches(&[0, 0, 1, 0], 9),
        case(lru, four(), &[1.0, 2.0 / 3.0, 1.0 / 3.0, 0.0]).matches(&[0, 0, 0, 0], 9),
        case(lru, four(), &[1.0, 2.0 / 3.0, 1.0 / 3.0, 0.0]),
        case(lru, [pod("a")], &[1.0]).matches(&[0], 9),
        case(lru, [pod("a")], &[0.5]).matches(&[1], 9),
        case(lru, [pod("a"), pod("b")], &[1.0, 0.0]).matches(&[0, 0], 0),
    ]);
}

#[track_caller]
fn check_filter(plugin: &PluginType, params: &Value, pods: &[Pod], request: &Request, expected: &[&str]) {
    let mut fleet = Fleet::new(pods.iter().cloned());
    let built = fleet.build(plugin, Some(params.clone())).unwrap();
    assert_eq!(fleet.kept(&built.roles, request), expected, "{} {params}", plugin.name);
}

#[test]
fn role_filters_know_all_roles() {
    let role = |name, role| pod(name).label("llm-d.ai/role", role);
    let pods = [
        pod("none"),
        role("empty", ""),
        role("decode", "decode"),
        role("prefill", "prefill"),
        role("prefill-decode", "prefill-decode"),
        role("both", "both"),
        role("encode", "encode"),
        role("encode-prefill", "encode-prefill"),
        role("all", "encode-prefill-decode"),
        role("encode-decode", "encode-decode"),
        role("Decode", "Decode"),
    ];
    let check =
        |plugin, expected: &[&str]| check_filter(plugin, &Value::Null, &pods, &request("m"), expected);
    check(&filters::by_role::DECODE, &["none", "decode", "prefill-decode", "both", "all"]);
    check(&filters::by_role::PREFILL, &["prefill", "prefill-decode", "both", "encode-prefill", "all"]);
    check(&filters::by_role::ENCODE, &["encode", "encode-prefill", "all"]);
}

#[test]
fn by_label_reads_an_absent_label_as_empty() {
    let pods = [
        pod("none"),
        pod("x").label("tier", "x"),
        pod("y").label("tier", "y"),
        pod("empty").label("tier", ""),
    ];
    let check = |params: Value, expected: &[&str]| {
        check_filter(&filters::by_label::TYPE, &params, &pods, &request("m"), expected);
    };
    check(json!({"label": "tier", "validValues": ["x"]}), &["x"]);
    check(json!({"label": "tier", "validValues": ["x", "y"], "allowsNoLabel": true}), &["none", "x", "y"]);
    check(json!({"label": "tier", "allowsNoLabel": true}), &["none"]);
    check(json!({"label": "tier", "validValues": [""]}), &["none", "empty"]);
}

#[test]
fn label_selectors_mean_what_they_mean_to_kubernetes() {
    let pods = [
        pod("none"),
        pod("x").label("tier", "x").label("zone", "1"),
        pod("y").label("tier", "y").label("zone", "1"),
    ];
    let check = |params: Value, expected: &[&str]| {
        for plugin in [&filters::label_selector::TYPE, &filters::label_selector::BY_LABEL_SELECTOR] {
            check_filter(plugin, &params, &pods, &request("m"), expected);
        }
    };
    let expression = |operator: &str, values: &[&str]| json!({"matchExpressions": [{"key": "tier", "operator": operator, "values": values}]});
    check(Value::Null, &["none", "x", "y"]);
    check(json!({}), &["none", "x", "y"]);
    check(json!({"matchLabels": {"tier": "x"}}), &["x"]);
    check(json!({"matchLabels": {"tier": "x", "zone": "2"}}), &[]);
    check(expression("In", &["x", "y"]), &["x", "y"]);
    check(expression("NotIn", &["x"]), &["none", "y"]);
    check(expression("Exists", &[]), &["x", "y"]);
    check(expression("DoesNotExist", &[]), &["none"]);
    let both = json!({
        "matchLabels": {"zone": "1"},
        "matchExpressions": [{"key": "tier", "operator": "NotIn", "values": ["x"]}],
    });
    check(both, &["y"]);
}

#[test]
fn the_testing_filter_keeps_what_its_header_names() {
    let pods = [
        pod("a").at("10.0.0.1:8000"),
        pod("b").at("10.0.0.1:8001"),
        pod("c").at("10.0.0.2:8000"),
        pod("d").at("[fd00::1]:8000"),
    ];
    let check = |header: Option<&str>, expected: &[&str]| {
        let request = match header {
            Some(value) => request("m").header("test-epp-endpoint-selection", value),
            None => request("m"),
        };
        check_filter(&filters::header_based_testing::TYPE, &Value::Null, &pods, &request, expected);
    };
    check(None, &[]);
    check(Some(" "), &[]);
    check(Some("10.0.0.2"), &["c"]);
    check(Some("10.0.0.2:8000 , [fd00::1]:8000"), &["c", "d"]);
    check(Some("[fd00::1]"), &["d"]);
    check(Some("10.0.0.2:9"), &[]);
    // Two ports of one address collapse to the first entry; an address alone means its last endpoint.
    check(Some("10.0.0.1:8000,10.0.0.1:8001"), &["a"]);
    check(Some("10.0.0.1:9,10.0.0.1:8001"), &["b"]);
    check(Some("10.0.0.1"), &["b"]);
    check(Some("nonsense,10.0.0.2"), &["c"]);
}

/// How often each of `totals.len()` endpoints is picked first in `rounds` picks.
fn tally(plugin: &PluginType, params: &Value, totals: &[f64], rounds: usize) -> Vec<usize> {
    let mut fleet = Fleet::new([pod("a")]);
    let built = fleet.build(plugin, Some(params.clone())).unwrap();
    let mut rng = Rng::with_seed(42);
    let mut counts = vec![0; totals.len()];
    for _ in 0..rounds {
        counts[fleet.picked(&built.roles, totals, &mut rng)[0] as usize] += 1;
    }
    counts
}

/// Chi-square statistic of counts against expected shares.
fn chi_square(counts: &[usize], shares: &[f64]) -> f64 {
    let total = counts.iter().sum::<usize>() as f64;
    counts
        .iter()
        .zip(shares)
        .map(|(&count, share)| (count as f64 - total * share).powi(2) / (total * share))
        .sum()
}

#[test]
fn max_score_picks_the_highest_and_breaks_ties_evenly() {
    let max = &pickers::max_score::TYPE;
    assert_eq!(tally(max, &Value::Null, &[0.1, 0.9, 0.5], 100), [0, 100, 0]);
    assert_eq!(tally(max, &Value::Null, &[f64::NAN, -3.0], 100), [0, 100]);
    assert_eq!(tally(max, &Value::Null, &[-1.0], 3), [3]);
    for limit in [1, 2] {
        let counts = tally(max, &json!({"maxNumOfEndpoints": limit}), &[1.0, 0.0, 1.0, 1.0], 3000);
        assert_eq!(counts[1], 0);
        // 99.9 % of fair draws stay below 13.8; the seed is fixed, so this is one fixed number.
        let others = [counts[0], counts[2], counts[3]];
        assert!(chi_square(&others, &[1.0 / 3.0; 3]) < 13.8, "{counts:?}");
    }
    let zeros = tally(max, &Value::Null, &[0.0, -0.0], 1000);
    assert!(zeros.iter().all(|&count| count > 400), "{zeros:?}");
}

#[test]
fn random_ignores_scores() {
    for limit in [1, 3] {
        let counts = tally(
            &pickers::random::TYPE,
            &json!({"maxNumOfEndpoints": limit}),
            &[9.0, 0.0, -1.0, f64::NAN],
            4000,
        );
        assert!(chi_square(&counts, &[0.25; 4]) < 16.3, "{counts:?}");
    }
}

#[test]
fn weighted_random_picks_in_proportion() {
    let weighted = &pickers::weighted_random::TYPE;
    for limit in [1, 2] {
        let params = json!({"maxNumOfEndpoints": limit});
        let counts = tally(weighted, &params, &[1.0, 2.0, 5.0, 0.0], 8000);
        assert_eq!(counts[3], 0);
        assert!(chi_square(&counts[..3], &[0.125, 0.25, 0.625]) < 13.8, "{counts:?}");
        // Proportions only; nothing underflows.
        let tiny = tally(weighted, &params, &[1e-9, 3e-9], 4000);
        assert!(chi_square(&tiny, &[0.25, 0.75]) < 10.8, "{tiny:?}");
        // Nothing above 0: at random.
        let nothing = tally(weighted, &params, &[0.0, -1.0, f64::NAN], 3000);
        assert!(chi_square(&nothing, &[1.0 / 3.0; 3]) < 13.8, "{nothing:?}");
    }
}

#[test]
fn pickers_return_as_many_as_asked_and_none_twice() {
    let totals = [3.0, 1.0, 2.0, 0.0, 2.0];
    let mut rng = Rng::with_seed(1);
    let mut pick = |plugin: &PluginType, limit: i64| {
        let mut fleet = Fleet::new([pod("a")]);
        let built = fleet.build(plugin, Some(json!({"maxNumOfEndpoints": limit}))).unwrap();
        fleet.picked(&built.roles, &totals, &mut rng)
    };
    let top = pick(&pickers::max_score::TYPE, 4);
    assert_eq!((top[0], top[3]), (0, 1));
    for plugin in [&pickers::max_score::TYPE, &pickers::random::TYPE, &pickers::weighted_random::TYPE] {
        for (limit, expected) in [(-1, 1), (0, 1), (1, 1), (3, 3), (5, 5), (100, 5)] {
            let mut picked = pick(plugin, limit);
            assert_eq!(picked.len(), expected, "{} {limit}", plugin.name);
            picked.sort_unstable();
            picked.dedup();
            assert_eq!(picked.len(), expected, "{} {limit}", plugin.name);
        }
    }
    // What has no weight comes last.
    assert_eq!(pick(&pickers::weighted_random::TYPE, 5)[4], 3);
}

#[test]
fn wrong_parameters_name_their_field() {
    let cases = [
        (&filters::by_label::TYPE, json!({"validValues": ["x"]}), "label"),
        (&filters::by_label::TYPE, json!({"label": "x"}), "validValues"),
        (&scorers::prefix_cache::TYPE, json!({"matchLengthWeight": 1.5}), "matchLengthWeight"),
        (
            &scorers::prefix_cache::TYPE,
            json!({"matchLengthWeight": 0.5, "matchLengthScaleTokens": 0}),
            "matchLengthScaleTokens",
        ),
    ];
    for (plugin, params, path) in cases {
        let error = Fleet::new([]).build(plugin, Some(params.clone())).map(|_| ()).unwrap_err();
        assert_eq!(error.path, path, "{} {params}: {error}", plugin.name);
    }
    for plugin in [&pickers::random::TYPE, &scorers::load_aware::TYPE, &scorers::no_hit_lru::TYPE] {
        assert!(Fleet::new([]).build(plugin, Some(json!({"unknown": 1}))).is_err(), "{}", plugin.name);
    }
}

#[test]
fn parameters_without_effect_are_warned_about() {
    let warnings = |plugin, params: Value| Fleet::new([]).build(plugin, Some(params)).unwrap().warnings;
    assert_eq!(warnings(&scorers::queue::TYPE, json!({"any": "thing"})).len(), 1);
    assert_eq!(warnings(&scorers::queue::TYPE, json!({})).len(), 0);
    let ignored = json!({"requestTimeout": "2m", "inFlightLoadProducerName": "other", "maxBusyScore": 2});
    assert_eq!(warnings(&scorers::active_request::TYPE, ignored).len(), 3);
    let named = json!({"inFlightLoadProducerName": "inflight-load-producer"});
    assert_eq!(warnings(&scorers::active_request::TYPE, named).len(), 0);
    let plugins = json!({"prefixPluginType": "x", "prefixPluginName": "y"});
    assert_eq!(warnings(&scorers::no_hit_lru::TYPE, plugins).len(), 2);
    assert_eq!(warnings(&pickers::max_score::TYPE, json!({"maxNumOfEndpoints": 0})).len(), 1);
}

#[test]
fn consumers_of_matches_ask_for_the_default_producer_by_its_name_only() {
    for plugin in [&scorers::prefix_cache::TYPE, &scorers::no_hit_lru::TYPE] {
        let consumed = |params| Fleet::new([]).build(plugin, params).unwrap().consumed.remove(0);
        let default = consumed(None);
        assert!(default.required);
        assert_eq!(default.default_producer, Some("approx-prefix-cache-producer"));
        let other = consumed(Some(json!({"prefixMatchInfoProducerName": "mine"})));
        assert_eq!((other.key.producer.as_str(), other.default_producer), ("mine", None));
    }
}
