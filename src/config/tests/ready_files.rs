//! The files in `config/` load over the real catalogue, without a warning.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::config::{ConfigSource, LoadOptions, Plan, load};
use crate::datalayer::SourceSpec;
use crate::document::Level;
use crate::flow::settings::Fairness;
use crate::metrics::Metrics;
use crate::request::ParserKind;

fn ready(name: &str, allow_experimental: bool) -> Plan {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config").join(name);
    let options = LoadOptions { allow_experimental, ..LoadOptions::new(Arc::new(Metrics::new())) };
    load(&ConfigSource::File(path), &options).unwrap_or_else(|problems| panic!("{problems}"))
}

fn check(name: &str, allow_experimental: bool) -> Plan {
    let plan = ready(name, allow_experimental);
    let warnings: Vec<String> = plan.problems.of(Level::Warning).map(ToString::to_string).collect();
    assert_eq!(warnings, [""; 0]);
    plan
}

fn weights(plan: &Plan) -> Vec<(&str, f64)> {
    let [profile] = plan.scheduler.profiles() else { panic!("one profile") };
    profile.scorers.iter().map(|row| (&*row.scorer.name, row.weight)).collect()
}

#[test]
fn the_default_is_a_file_too() {
    let plan = check("default.yaml", false);
    let default = load(&ConfigSource::BuiltIn, &LoadOptions::new(Arc::new(Metrics::new()))).unwrap();
    assert_eq!(plan.effective_yaml(), default.effective_yaml());
    assert_eq!(
        weights(&plan),
        [("queue-scorer", 2.0), ("kv-cache-utilization-scorer", 2.0), ("prefix-cache-scorer", 3.0)]
    );
    assert_eq!(plan.scheduler.profiles()[0].picker.kind, "max-score-picker");
    assert!(plan.producers.iter().any(|producer| &*producer.name == "approx-prefix-cache-producer"));
    assert_eq!(plan.parsers.iter().map(|parser| parser.kind).collect::<Vec<_>>(), ParserKind::DEFAULT);
    assert_eq!(plan.metrics_source, Some(SourceSpec::default()));
}

#[test]
fn the_payload_agnostic_file_looks_into_no_body() {
    let plan = check("payload-agnostic.yaml", true);
    assert_eq!(weights(&plan), [("active-request-scorer", 1.0), ("session-affinity-scorer", 1.0)]);
    assert_eq!(plan.parsers.iter().map(|parser| parser.kind).collect::<Vec<_>>(), [ParserKind::Passthrough]);
    assert!(!plan.response_headers.is_empty(), "sessions are named in response headers");
}

#[test]
fn the_payload_agnostic_file_needs_the_flag_for_experimental_plugins() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/payload-agnostic.yaml");
    let problems = load(&ConfigSource::File(path), &LoadOptions::new(Arc::new(Metrics::new()))).unwrap_err();
    assert!(problems.to_string().contains("--allow-experimental-plugins"), "{problems}");
}

#[test]
fn the_file_discovery_file_schedules_like_the_default() {
    let plan = check("file-discovery.yaml", false);
    assert_eq!(weights(&plan), weights(&check("default.yaml", false)));
    assert!(plan.discovery.as_ref().is_some_and(|discovery| discovery.watch));
}

#[test]
fn the_flow_control_file_lets_tenants_take_turns_and_ends_every_wait() {
    let plan = check("flow-control.yaml", false);
    assert_eq!(weights(&plan), weights(&check("default.yaml", false)));
    let flow = plan.flow.expect("the gate is on");
    assert_eq!(flow.default_request_ttl, Some(Duration::from_mins(1)));
    assert_eq!(flow.no_endpoint_request_ttl, Some(Duration::from_mins(10)));
    assert_eq!((flow.max_requests, flow.max_bytes), (Some(10_000), Some(256 << 20)));
    assert_ne!(flow.default_band.fairness, Fairness::default());
}

#[test]
fn the_priorities_file_has_a_band_for_each_of_three_priorities() {
    let flow = check("priorities.yaml", false).flow.expect("the gate is on");
    assert!(flow.eviction);
    assert_eq!(flow.bands.keys().copied().collect::<Vec<_>>(), [-10, 0, 10]);
    assert_eq!(flow.bands[&10].request_ttl, Some(Duration::from_secs(30)));
}

#[test]
fn every_whole_configuration_in_the_pages_loads_without_a_warning() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = 0;
    for page in ["docs/configuration.md", "docs/architecture.md", "docs/priorities.md", "docs/traps.md"] {
        let text = std::fs::read_to_string(root.join(page)).unwrap();
        for block in text.split("```yaml\n").skip(1).map(|rest| rest.split("```").next().unwrap_or_default())
        {
            if !block.contains("kind: EndpointPickerConfig") {
                continue;
            }
            found += 1;
            let options =
                LoadOptions { allow_experimental: true, ..LoadOptions::new(Arc::new(Metrics::new())) };
            let plan = load(&ConfigSource::Text(block.to_owned()), &options)
                .unwrap_or_else(|problems| panic!("{page}: {problems}\n{block}"));
            let warnings: Vec<String> = plan.problems.of(Level::Warning).map(ToString::to_string).collect();
            assert_eq!(warnings, [""; 0], "{page}\n{block}");
        }
    }
    assert!(found >= 2, "{found} configurations");
}
