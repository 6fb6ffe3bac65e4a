//! Each type's reading of its parameters, and the endpoints that the detectors keep as filters.

use std::time::Duration;

use serde_json::{Value, json};

use super::{concurrency_detector, fairness, ordering, program_aware, usage_limits, utilization_detector};
use crate::flow::detector::{Concurrency, ConcurrencyMode, DetectorKind, StalenessPolicy, Utilization};
use crate::flow::settings::{Fairness, HoldbackDomain, Ordering, ProgramAware, TurnPriority, UsageLimit};
use crate::plugins::fixture::{Built, Fleet, Pod, pod, request};
use crate::plugins::{BuildError, PluginType};

fn build(plugin: &PluginType, params: Value) -> Result<Built, BuildError> {
    Fleet::new([]).build(plugin, Some(params))
}

#[track_caller]
fn check_fault(plugin: &PluginType, params: Value, path: &str, message: &str) {
    let error = build(plugin, params).unwrap_err();
    assert_eq!(error.path, path);
    assert!(error.message.contains(message), "{}", error.message);
}

#[track_caller]
fn check_kept(plugin: &PluginType, params: Value, pods: &[Pod], expected: &[&str]) {
    let mut fleet = Fleet::new(pods.iter().cloned());
    let built = fleet.build(plugin, Some(params)).unwrap();
    assert_eq!(fleet.kept(&built.roles, &request("m")), expected);
}

#[test]
fn detectors_take_their_parameters() {
    let built = build(&utilization_detector::TYPE, json!({})).unwrap();
    assert_eq!(built.roles.detector, Some(DetectorKind::Utilization(Utilization::default())));
    let params = json!({
        "queueDepthThreshold": 1, "kvCacheUtilThreshold": 1, "metricsStalenessThreshold": "1s", "headroom": 0.5,
        "stalenessPolicy": "saturated", "loadByAge": true
    });
    let expected = Utilization {
        queue_depth_threshold: 1,
        kv_cache_util_threshold: 1.0,
        staleness_threshold: Duration::from_secs(1),
        headroom: 0.5,
        staleness_policy: StalenessPolicy::Saturated,
        by_age: true,
    };
    let built = build(&utilization_detector::TYPE, params).unwrap();
    assert_eq!(built.roles.detector, Some(DetectorKind::Utilization(expected)));
    let built = build(&concurrency_detector::TYPE, Value::Null).unwrap();
    assert_eq!(built.roles.detector, Some(DetectorKind::Concurrency(Concurrency::default())));
    let params = json!({"concurrencyMode": "hybrid", "maxConcurrency": 7, "maxTokenConcurrency": 9, "headroom": 2,
        "inFlightLoadProducerName": "mine"});
    let built = build(&concurrency_detector::TYPE, params).unwrap();
    let expected = Concurrency {
        max_concurrency: 7,
        max_token_concurrency: 9,
        mode: ConcurrencyMode::Hybrid,
        headroom: 2.0,
    };
    assert_eq!(built.roles.detector, Some(DetectorKind::Concurrency(expected)));
    assert_eq!(built.warnings.len(), 2, "{:?}", built.warnings);
}

#[test]
fn detectors_refuse_limits_that_make_no_sense() {
    let plugin = &utilization_detector::TYPE;
    check_fault(plugin, json!({"queueDepthThreshold": 0}), "queueDepthThreshold", "at least 1");
    check_fault(plugin, json!({"queueDepthThreshold": -1}), "queueDepthThreshold", "at least 1");
    check_fault(plugin, json!({"kvCacheUtilThreshold": 0}), "kvCacheUtilThreshold", "above 0");
    check_fault(plugin, json!({"kvCacheUtilThreshold": 1.1}), "kvCacheUtilThreshold", "at most 1");
    check_fault(plugin, json!({"metricsStalenessThreshold": "0s"}), "metricsStalenessThreshold", "above 0");
    check_fault(
        plugin,
        json!({"metricsStalenessThreshold": "soon"}),
        "metricsStalenessThreshold",
        "duration",
    );
    check_fault(plugin, json!({"headroom": -0.1}), "headroom", "at least 0");
    check_fault(plugin, json!({"stalenessPolicy": "hope"}), "stalenessPolicy", "saturated");
    check_fault(plugin, json!({"queueDepth": 1}), "queueDepth", "unknown parameter");
    let plugin = &concurrency_detector::TYPE;
    check_fault(plugin, json!({"maxConcurrency": 0}), "maxConcurrency", "at least 1");
    check_fault(plugin, json!({"maxTokenConcurrency": -5}), "maxTokenConcurrency", "at least 1");
    check_fault(plugin, json!({"concurrencyMode": "all"}), "concurrencyMode", "hybrid");
}

#[test]
fn the_utilization_filter_keeps_endpoints_with_room_and_all_if_none_has_any() {
    let plugin = &utilization_detector::TYPE;
    let pods =
        [pod("a").waiting(4).kv(0.7), pod("b").waiting(5).kv(0.0), pod("c").waiting(0).kv(0.8), pod("d")];
    check_kept(plugin, json!({}), &pods, &["a", "d"]);
    check_kept(plugin, json!({"stalenessPolicy": "saturated"}), &pods, &["a"]);
    check_kept(plugin, json!({"stalenessPolicy": "ignore", "headroom": 0.1}), &pods, &["a", "b", "c"]);
    check_kept(plugin, json!({"stalenessPolicy": "saturated"}), &pods[1..], &["b", "c", "d"]);
}

#[test]
fn the_concurrency_filter_may_keep_nobody() {
    let plugin = &concurrency_detector::TYPE;
    let pods = [pod("a").in_flight(9), pod("b").in_flight(10), pod("c").in_flight(12)];
    check_kept(plugin, json!({"maxConcurrency": 10}), &pods, &["a"]);
    check_kept(plugin, json!({"maxConcurrency": 10, "headroom": 0.2}), &pods, &["a", "b"]);
    check_kept(plugin, json!({"maxConcurrency": 9}), &pods, &[]);
    // A request of the fixture has one token.
    check_kept(plugin, json!({"concurrencyMode": "tokens", "maxTokenConcurrency": 11}), &pods, &["a", "b"]);
    check_kept(
        plugin,
        json!({"concurrencyMode": "hybrid", "maxTokenConcurrency": 11, "maxConcurrency": 10}),
        &pods,
        &["a"],
    );
}

#[test]
fn orderings_and_plain_fairness_take_no_parameters() {
    let orderings = [
        (&ordering::FCFS, Ordering::Fcfs),
        (&ordering::EDF, Ordering::Edf),
        (&ordering::SLO_DEADLINE, Ordering::SloDeadline),
    ];
    for (plugin, expected) in orderings {
        assert_eq!(build(plugin, Value::Null).unwrap().roles.ordering, Some(expected));
        assert_eq!(build(plugin, json!({"a": 1})).unwrap().warnings.len(), 1);
    }
    let built = |plugin| build(plugin, Value::Null).unwrap().roles.fairness;
    assert_eq!(built(&fairness::GLOBAL_STRICT), Some(Fairness::GlobalStrict));
    assert_eq!(built(&fairness::ROUND_ROBIN), Some(Fairness::RoundRobin));
}

#[test]
fn weights_of_programs_without_a_finite_sum_are_refused_and_a_tiny_half_life_is_raised() {
    let plugin = &program_aware::TYPE;
    let weights = json!({"lasWeightService": 1.7e308, "lasWeightHeadWait": 1.7e308});
    check_fault(plugin, weights, "lasWeightHeadWait", "no finite sum");
    let built = build(plugin, json!({"lasHalfLifeSeconds": 1e-9})).unwrap();
    assert!(
        built.warnings.len() == 1 && built.warnings[0].contains("lasHalfLifeSeconds"),
        "{:?}",
        built.warnings
    );
    let raised = ProgramAware { half_life: Some(Duration::from_secs(1)), ..ProgramAware::default() };
    assert_eq!(built.roles.fairness, Some(Fairness::ProgramAware(raised)));
}

#[test]
fn program_aware_fairness_reads_seconds_and_zero_as_never() {
    let plugin = &program_aware::TYPE;
    let built = |params| build(plugin, params).unwrap().roles.fairness.unwrap();
    assert_eq!(built(Value::Null), Fairness::ProgramAware(ProgramAware::default()));
    let params = json!({"lasWeightService": 0.5, "lasWeightHeadWait": 0.5, "lasHalfLifeSeconds": 0, "evictionTtlSeconds": 0,
        "evictionSweepSeconds": 1.5, "strategy": ""});
    let expected = ProgramAware {
        weight_service: 0.5,
        weight_head_wait: 0.5,
        half_life: None,
        eviction_ttl: None,
        eviction_sweep: Duration::from_millis(1500),
    };
    assert_eq!(built(params), Fairness::ProgramAware(expected));
    check_fault(plugin, json!({"strategy": "fifo"}), "strategy", "las");
    check_fault(plugin, json!({"lasWeightService": -1}), "lasWeightService", "at least 0");
    check_fault(plugin, json!({"evictionSweepSeconds": 0}), "evictionSweepSeconds", "above 0");
    check_fault(plugin, json!({"evictionTtlSeconds": 1e300}), "evictionTtlSeconds", "fewer");
    check_fault(plugin, json!({"lasDecayFactor": 0.9}), "lasDecayFactor", "unknown parameter");
}

#[test]
fn fairness_by_turns_has_parameters_of_its_own_and_checks_all() {
    let plugin = &program_aware::TYPE;
    let built = |params| build(plugin, params).unwrap().roles.fairness.unwrap();
    let by_turns = |mut params: Value| {
        params["strategy"] = "turn-priority".into();
        params
    };
    assert_eq!(built(by_turns(json!({}))), Fairness::TurnPriority(TurnPriority::default()));
    let params = json!({"turnPriorityTimeWeight": 0, "turnPriorityInactivitySeconds": 0, "evictionTtlSeconds": 60,
        "evictionSweepSeconds": 5, "lasWeightService": 0, "lasWeightHeadWait": 0});
    let expected = TurnPriority {
        time_weight: 0.0,
        inactivity: None,
        eviction_ttl: Some(Duration::from_mins(1)),
        eviction_sweep: Duration::from_secs(5),
    };
    let of_all = build(plugin, by_turns(params)).unwrap();
    assert_eq!(of_all.roles.fairness, Some(Fairness::TurnPriority(expected)));
    assert_eq!(of_all.warnings, [""; 0], "weights that are not in force");
    for (params, path) in [
        (json!({"turnPriorityTimeWeight": -0.1}), "turnPriorityTimeWeight"),
        (json!({"turnPriorityInactivitySeconds": -1}), "turnPriorityInactivitySeconds"),
        (json!({"turnPriorityInactivitySeconds": 1e300}), "turnPriorityInactivitySeconds"),
        (json!({"lasWeightService": -1}), "lasWeightService"),
        (json!({"evictionSweepSeconds": 0}), "evictionSweepSeconds"),
    ] {
        check_fault(plugin, by_turns(params), path, "expected");
    }
    check_fault(plugin, json!({"turnPriorityTimeWeight": -1}), "turnPriorityTimeWeight", "at least 0");
}

#[test]
fn usage_limits_check_their_ceilings() {
    let built = |plugin, params| build(plugin, params).unwrap().roles.usage_limit.unwrap();
    assert_eq!(built(&usage_limits::STATIC, Value::Null), UsageLimit::default());
    assert_eq!(
        built(&usage_limits::STATIC, json!({"threshold": 0.7})),
        UsageLimit::Static { threshold: 0.7 }
    );
    assert_eq!(build(&usage_limits::STATIC, json!({"threshold": 0})).unwrap().warnings.len(), 1);
    let plugin = &usage_limits::PRIORITY_HOLDBACK;
    let expected =
        UsageLimit::PriorityHoldback { min_ceiling: 0.4, max_ceiling: 0.9, domain: HoldbackDomain::Value };
    let params = json!({"minCeiling": 0.4, "maxCeiling": 0.9, "domain": "value", "shape": "linear"});
    assert_eq!(built(plugin, params), expected);
    check_fault(plugin, Value::Null, "minCeiling", "is required");
    check_fault(plugin, json!({"minCeiling": 1}), "minCeiling", "below 1");
    check_fault(plugin, json!({"minCeiling": 0.5, "maxCeiling": 0.5}), "maxCeiling", "minCeiling");
    check_fault(plugin, json!({"minCeiling": 0.5, "maxCeiling": 1.5}), "maxCeiling", "at most 1");
    check_fault(plugin, json!({"minCeiling": 0.5, "shape": "round"}), "shape", "linear");
    check_fault(plugin, json!({"minCeiling": 0.5, "domain": "x"}), "domain", "rank");
    let plugin = &usage_limits::SOFT_REFLECTIVE_CEILING;
    assert_eq!(built(plugin, json!({})), UsageLimit::SoftReflectiveCeiling);
    check_fault(plugin, json!({"any": 1}), "any", "unknown parameter");
}
