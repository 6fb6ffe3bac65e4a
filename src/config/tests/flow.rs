//! Flow control: what the section becomes, and what is said about it.

use std::time::Duration;

use super::fakes::{errors, options, plan, warnings};
use crate::config::{ConfigSource, LoadOptions, Plan, load};
use crate::flow::detector::{
    Concurrency, ConcurrencyMode, Detector, DetectorKind, StalenessPolicy, Utilization,
};
use crate::flow::settings::{BandSettings, Fairness, FlowSettings, HoldbackDomain, Ordering, UsageLimit};

const GATE: &str = "featureGates: [flowControl]\n";

fn open(section: &str) -> Plan {
    plan(&format!("{GATE}{section}"))
}

fn experimental(text: &str) -> Plan {
    let options = LoadOptions { allow_experimental: true, ..options() };
    load(&ConfigSource::Text(text.to_owned()), &options).unwrap_or_else(|problems| panic!("{problems}"))
}

const RICH: &str = "
featureGates: [flowControl]
plugins:
- type: round-robin-fairness-policy
  name: turns
- type: edf-ordering-policy
- type: priority-holdback-policy
  parameters: {minCeiling: 0.4, domain: value}
- type: concurrency-detector
  name: full
  parameters: {concurrencyMode: hybrid, maxConcurrency: 8}
schedulingProfiles:
- name: default
flowControl:
  maxBytes: 1Gi
  maxRequests: 100k
  defaultRequestTTL: 30s
  defaultPriorityBand:
    maxRequests: 7
    fairnessPolicyRef: turns
  defaultNegativePriorityBand:
    maxBytes: 1M
  priorityBands:
  - priority: 10
    orderingPolicyRef: edf-ordering-policy
  - priority: -10
    maxRequests: 0
  usageLimitPolicyPluginRef: priority-holdback-policy
  saturationDetector:
    pluginRef: full
  enableEviction: true
";

#[test]
fn an_open_gate_alone_gives_the_defaults() {
    for text in [GATE, "featureGates: ['flowControl=true']\nflowControl: {}\n"] {
        assert_eq!(plan(text).flow, Some(FlowSettings::default()));
        assert_eq!(warnings(text), [""; 0]);
    }
    let closed = plan("kind: EndpointPickerConfig\n");
    assert_eq!((closed.flow, closed.detector), (None, Detector::default()));
}

#[test]
fn every_setting_arrives() {
    let plan = experimental(RICH);
    let default_band =
        BandSettings { max_requests: 7, fairness: Fairness::RoundRobin, ..BandSettings::default() };
    let detector = Detector {
        name: "full".into(),
        kind: DetectorKind::Concurrency(Concurrency {
            mode: ConcurrencyMode::Hybrid,
            max_concurrency: 8,
            ..Concurrency::default()
        }),
    };
    let expected = FlowSettings {
        max_bytes: Some(1 << 30),
        max_requests: Some(100_000),
        default_request_ttl: Some(Duration::from_secs(30)),
        no_endpoint_request_ttl: Some(Duration::from_secs(30)),
        default_band: default_band.clone(),
        default_negative_band: Some(BandSettings { max_bytes: 1_000_000, ..BandSettings::default() }),
        bands: [
            (-10, BandSettings::default()),
            (0, default_band),
            (10, BandSettings { ordering: Ordering::Edf, ..BandSettings::default() }),
        ]
        .into(),
        usage_limit: UsageLimit::PriorityHoldback {
            min_ceiling: 0.4,
            max_ceiling: 1.0,
            domain: HoldbackDomain::Value,
        },
        eviction: true,
        detector: detector.clone(),
    };
    assert_eq!(plan.flow, Some(expected));
    assert_eq!(plan.detector, detector);
    let said = plan.problems.of(crate::document::Level::Warning).map(ToString::to_string);
    let said: Vec<String> = said.collect();
    assert!(said.len() == 1 && said[0].contains("priorityBands[1].maxRequests: is 0"), "{said:?}");
}

#[test]
fn a_band_may_have_a_longest_wait_of_its_own() {
    let text = "featureGates: [flowControl]\nflowControl:\n  defaultPriorityBand: {defaultRequestTTL: 0s}\n  priorityBands:\n  - {priority: 5, defaultRequestTTL: 2s}\n  - {priority: 6}\n";
    let first = plan(text);
    let flow = first.flow.clone().unwrap();
    let wait = |priority| flow.band(priority).request_ttl;
    let seconds = |seconds| Some(Duration::from_secs(seconds));
    assert_eq!([wait(5), wait(6), wait(0), wait(9)], [seconds(2), None, seconds(0), seconds(0)]);
    assert_eq!(plan(&first.effective_yaml()).flow, first.flow);
    let short =
        "featureGates: [flowControl]\nflowControl:\n  priorityBands:\n  - {defaultRequestTTL: 10us}\n";
    assert!(
        errors(short)[0].contains("priorityBands[0].defaultRequestTTL: got \"10us\""),
        "{:?}",
        errors(short)
    );
}

#[test]
fn the_effective_section_has_every_default_and_loads_to_the_same_settings() {
    let first = experimental(RICH);
    let again = experimental(&first.effective_yaml());
    assert_eq!((&first.flow, &first.detector), (&again.flow, &again.detector));
    let section = |plan: &Plan| {
        let yaml = plan.effective_yaml();
        yaml[yaml.find("flowControl:\n").unwrap()..].to_owned()
    };
    assert_eq!(section(&first), section(&again));
    insta::assert_snapshot!(section(&first), @r#"
flowControl:
  maxBytes: 1073741824
  maxRequests: 100000
  defaultRequestTTL: 30s
  noEndpointRequestTTL: 30s
  defaultPriorityBand:
    maxBytes: 1000000000
    maxRequests: 7
    fairnessPolicyRef: turns
    orderingPolicyRef: fcfs-ordering-policy
  defaultNegativePriorityBand:
    maxBytes: 1000000
    maxRequests: 5000
    fairnessPolicyRef: global-strict-fairness-policy
    orderingPolicyRef: fcfs-ordering-policy
  priorityBands:
  - priority: 10
    maxBytes: 1000000000
    maxRequests: 5000
    fairnessPolicyRef: global-strict-fairness-policy
    orderingPolicyRef: edf-ordering-policy
  - priority: 0
    maxBytes: 1000000000
    maxRequests: 7
    fairnessPolicyRef: turns
    orderingPolicyRef: fcfs-ordering-policy
  - priority: -10
    maxBytes: 1000000000
    maxRequests: 5000
    fairnessPolicyRef: global-strict-fairness-policy
    orderingPolicyRef: fcfs-ordering-policy
  usageLimitPolicyPluginRef: priority-holdback-policy
  saturationDetector: {"pluginRef":"full"}
  enableEviction: true
"#);
}

#[test]
fn thresholds_beside_the_detector_print_and_load_again() {
    for gate in ["", GATE] {
        let text = format!("{gate}saturationDetector: {{queueDepthThreshold: 3}}\n");
        let first = plan(&text);
        let again = plan(&first.effective_yaml());
        assert_eq!(first.detector, again.detector);
        assert_ne!(first.detector, Detector::default());
    }
}

#[test]
fn the_configuration_of_the_autoscaling_guide_loads() {
    let by_thresholds = "apiVersion: config.x-k8s.io/v1alpha1
kind: EndpointPickerConfig
featureGates: [\"flowControl\"]
saturationDetector:
  queueDepthThreshold: 8
  kvCacheUtilThreshold: 0.75
  metricsStalenessThreshold: 150ms
";
    let expected = DetectorKind::Utilization(Utilization {
        queue_depth_threshold: 8,
        kv_cache_util_threshold: 0.75,
        staleness_threshold: Duration::from_millis(150),
        headroom: 0.0,
        staleness_policy: StalenessPolicy::InFlight,
        by_age: false,
    });
    let plan_of = plan(by_thresholds);
    assert_eq!(plan_of.flow.unwrap().detector.kind, expected);
    let warnings = warnings(by_thresholds);
    assert_eq!(warnings.len(), 3, "{warnings:?}");
    let by_reference = "apiVersion: config.x-k8s.io/v1alpha1
kind: EndpointPickerConfig
featureGates: [\"flowControl\"]
plugins:
- type: utilization-detector
  parameters: {queueDepthThreshold: 8, kvCacheUtilThreshold: 0.75, metricsStalenessThreshold: 150ms}
- type: queue-scorer
schedulingProfiles:
- name: default
  plugins:
  - pluginRef: queue-scorer
saturationDetector:
  pluginRef: utilization-detector
";
    assert_eq!(plan(by_reference).flow.unwrap().detector.kind, expected);
}

#[test]
fn waits_follow_what_is_written() {
    let ttls = |section: &str| {
        let flow = open(&format!("flowControl: {{{section}}}\n")).flow.unwrap();
        (flow.default_request_ttl, flow.no_endpoint_request_ttl)
    };
    let seconds = |seconds| Some(Duration::from_secs(seconds));
    assert_eq!(ttls(""), (seconds(60), seconds(600)));
    assert_eq!(ttls("noEndpointRequestTTL: 60s"), (seconds(60), seconds(60)));
    assert_eq!(ttls("defaultRequestTTL: 0s"), (None, None));
    assert_eq!(ttls("defaultRequestTTL: 5m"), (seconds(300), seconds(300)));
    assert_eq!(ttls("defaultRequestTTL: 5m, noEndpointRequestTTL: 0s"), (seconds(300), None));
}

#[test]
fn a_plugin_named_like_a_default_policy_takes_its_place() {
    let text = "plugins:\n- type: static-usage-limit-policy\n  parameters: {threshold: 0.7}\n- {type: edf-ordering-policy, name: fcfs-ordering-policy}\n";
    let flow = open(text).flow.unwrap();
    assert_eq!(flow.usage_limit, UsageLimit::Static { threshold: 0.7 });
    assert_eq!(flow.default_band.ordering, Ordering::Edf);
    assert_eq!(warnings(&format!("{GATE}{text}")), [""; 0]);
    assert_eq!(
        errors(&format!("{GATE}plugins:\n- {{type: queue-scorer, name: fcfs-ordering-policy}}\n")),
        ["3: plugins[0]: \"fcfs-ordering-policy\" is no ordering policy: it is a scorer"]
    );
}

#[test]
fn bands_that_contradict_each_other_are_refused() {
    let text = format!(
        "{GATE}flowControl:\n  priorityBands:\n  - priority: 1\n  - maxRequests: 5\n  - priority: 0\n  - priority: 1\n"
    );
    assert_eq!(
        errors(&text),
        [
            "6: flowControl.priorityBands[2].priority: priority 0 has a band already",
            "7: flowControl.priorityBands[3].priority: priority 1 has a band already",
        ]
    );
    let text = format!("{GATE}flowControl:\n  defaultPriorityBand:\n    priority: 4\n");
    assert_eq!(
        warnings(&text),
        ["4: flowControl.defaultPriorityBand.priority: has no effect in a default band"]
    );
    let text = format!("{GATE}flowControl:\n  maxBytes: -1\n  defaultRequestTTL: -1s\n");
    assert_eq!(errors(&text).len(), 2);
}

#[test]
fn settings_behind_the_closed_gate_are_told_to_be_idle() {
    let text = "plugins:\n- type: round-robin-fairness-policy\n\
                flowControl:\n  maxBytes: 1Gi\n  priorityBands:\n  - priority: 1\n    fairnessPolicyRef: round-robin-fairness-policy\n    orderingPolicyRef: fcfs-ordering-policy\n";
    assert_eq!(warnings(text), ["4: flowControl: has no effect: the feature gate `flowControl` is off"]);
    let text = format!("{text}  saturationDetector:\n    pluginRef: utilization-detector\n");
    assert_eq!(
        warnings(&text),
        [
            "4: flowControl: has no effect but for its saturation detector: the feature gate `flowControl` is off"
        ]
    );
    assert_eq!(
        warnings("flowControl:\n  enableEviction: true\n"),
        ["2: flowControl: has no effect: the feature gate `flowControl` is off"]
    );
}

#[test]
fn references_are_checked_with_the_gate_open_and_closed() {
    let section = "plugins:\n- type: queue-scorer\n\
                flowControl:\n  defaultPriorityBand:\n    fairnessPolicyRef: queue-scorer\n    orderingPolicyRef: edf-ordering-policy\n  usageLimitPolicyPluginRef: nothing\n  saturationDetector: {pluginRef: utilisation-detector}\n";
    for gate in ["kind: EndpointPickerConfig\n", GATE] {
        assert_eq!(
            errors(&format!("{gate}{section}")),
            [
                "6: flowControl.defaultPriorityBand.fairnessPolicyRef: \"queue-scorer\" is no fairness policy: it is a scorer",
                "7: flowControl.defaultPriorityBand.orderingPolicyRef: there is no plugin named \"edf-ordering-policy\"; add `- type: edf-ordering-policy` to `plugins`",
                "8: flowControl.usageLimitPolicyPluginRef: there is no plugin named \"nothing\"",
                "9: flowControl.saturationDetector.pluginRef: there is no plugin named \"utilisation-detector\"",
            ]
        );
    }
}

#[test]
fn a_detector_that_is_listed_is_a_filter_too() {
    let listed = plan("plugins:\n- type: utilization-detector\n- type: queue-scorer\n");
    assert_eq!(&*listed.scheduler.profiles()[0].filters[0].name, "utilization-detector");
    assert!(plan(GATE).scheduler.profiles()[0].filters.is_empty());
}

#[test]
fn thresholds_in_the_section_are_checked() {
    let text = "flowControl:\n  saturationDetector:\n    queueDepthThreshold: 0\n    kvCacheUtilThreshold: 2\n    metricsStalenessThreshold: 0s\n";
    let errors = errors(text);
    assert_eq!(errors.len(), 3, "{errors:?}");
    let text = "plugins:\n- type: concurrency-detector\nflowControl:\n  saturationDetector:\n    pluginRef: concurrency-detector\n    queueDepthThreshold: 3\n";
    let warnings = warnings(text);
    assert!(warnings[0].contains("no effect"), "{warnings:?}");
}

#[test]
fn a_bound_of_zero_in_a_band_is_said_to_be_the_default() {
    let section = "flowControl:\n  defaultPriorityBand: {maxBytes: 0}\n  priorityBands:\n  - priority: 1\n    maxRequests: 0\n";
    let said = warnings(&format!("{GATE}{section}"));
    let expected = [
        "3: flowControl.defaultPriorityBand.maxBytes: is 0, which stands for the default of 1000000000 and not for none; expected at least 1",
        "6: flowControl.priorityBands[0].maxRequests: is 0, which stands for the default of 5000 and not for none; expected at least 1",
    ];
    assert_eq!(said, expected);
}

#[test]
fn a_wait_that_ends_before_a_release_is_refused() {
    for field in ["defaultRequestTTL", "noEndpointRequestTTL"] {
        let refused = errors(&format!("{GATE}flowControl: {{{field}: 1ns}}\n"));
        assert_eq!(refused.len(), 1, "{refused:?}");
        assert!(refused[0].contains(&format!("flowControl.{field}: got \"1ns\", expected 0")), "{refused:?}");
        assert_eq!(warnings(&format!("{GATE}flowControl: {{{field}: 1ms}}\n")), [""; 0]);
    }
}

#[test]
fn an_age_at_which_every_reading_is_stale_is_warned_of_wherever_it_stands() {
    let plugin = "plugins:\n- type: utilization-detector\n  parameters: {metricsStalenessThreshold: 1ms}\n";
    let inline = "flowControl:\n  saturationDetector: {metricsStalenessThreshold: 1ms}\n";
    for text in [plugin, inline] {
        let said = warnings(&format!("{GATE}{text}"));
        assert!(
            said.iter().any(|line| line.contains("metricsStalenessThreshold") && line.contains("is 1ms")),
            "{said:?}"
        );
    }
    assert_eq!(
        warnings(&format!("{GATE}{}", plugin.replace("1ms", "100ms")))
            .iter()
            .filter(|line| line.contains("Staleness"))
            .count(),
        0
    );
}
