//! The rules about Envoy, on the file that users take and on changes of it.

use serde_json::{Value, json};

use super::*;
use crate::doctor::waits::Waits;
use crate::document;

const SHIPPED: &str = include_str!("../../../deploy/envoy/envoy.yaml");
const FAIL_OPEN: &str = include_str!("../../../deploy/envoy/envoy-fail-open.yaml");

fn file(text: &str) -> Value {
    document::parse(text).unwrap().unwrap().to_json()
}

fn found_with(text: &str, waits: Option<Waits>) -> Vec<&'static str> {
    let facts = EnvoyFacts::of_file(&file(text));
    findings("envoy", &facts, waits).iter().map(|finding| finding.rule.name).collect()
}

#[test]
fn nothing_is_said_of_the_shipped_files() {
    let waits = Some(Waits { queue: 60.0, no_endpoint: 600.0 });
    for text in [SHIPPED, FAIL_OPEN] {
        assert_eq!(found_with(text, waits), [""; 0]);
        assert_eq!(found_with(text, None), [""; 0]);
    }
}

#[test]
fn each_change_for_the_worse_is_found_by_its_rule() {
    let cases = [
        ("failure_mode_allow: false", "failure_mode_allow: true", "envoy-fails-open"),
        ("message_timeout: 1000s", "message_timeout: 0.5s", "envoy-message-timeout"),
        ("message_timeout: 1000s", "request_attributes: []", "envoy-message-timeout"),
        ("request_body_mode: FULL_DUPLEX_STREAMED", "request_body_mode: NONE", "envoy-request-unseen"),
        ("request_header_mode: SEND", "request_header_mode: SKIP", "envoy-request-unseen"),
        ("request_body_mode: FULL_DUPLEX_STREAMED", "request_body_mode: BUFFERED", "envoy-buffer-limit"),
        (
            "request_body_mode: FULL_DUPLEX_STREAMED",
            "request_body_mode: BUFFERED_PARTIAL",
            "envoy-request-cut",
        ),
        ("response_body_mode: FULL_DUPLEX_STREAMED", "response_body_mode: BUFFERED", "envoy-answer-held"),
        ("response_header_mode: SEND", "response_header_mode: SKIP", "envoy-answer-unseen"),
        ("                            timeout: 86400s\n", "", "envoy-route-timeout"),
        (
            "                            idle_timeout: 86400s\n",
            "                            idle_timeout: 20s\n",
            "envoy-idle-timeout",
        ),
        (
            "                  max_headers_count: 200\n",
            "                  max_stream_duration: 60s\n",
            "envoy-stream-duration",
        ),
        (
            "authority: \"localhost:9002\"}",
            "authority: \"localhost:9002\"}\n                        timeout: 30s",
            "envoy-ext-proc-timeout",
        ),
        (
            "                            timeout: 86400s\n",
            "                            timeout: 86400s\n                            retry_policy: {retry_on: \"5xx,connect-failure\"}\n",
            "envoy-retries",
        ),
        (
            "                            timeout: 86400s\n",
            "                            timeout: 86400s\n                            retry_policy: {retry_on: connect-failure, per_try_timeout: 5s}\n",
            "envoy-per-try-timeout",
        ),
        ("filters.http.ext_proc.v3.ExternalProcessor", "filters.http.other.v3.Other", "envoy-asks-nobody"),
    ];
    for (from, to, rule) in cases {
        assert!(SHIPPED.contains(from), "the file has no {from:?} any more");
        assert_eq!(found_with(&SHIPPED.replace(from, to), None), [rule], "{to:?}");
    }
    let waits = Some(Waits { queue: 60.0, no_endpoint: 1200.0 });
    assert_eq!(found_with(SHIPPED, waits), ["envoy-message-timeout"]);
}

#[test]
fn an_old_envoy_with_a_filter_that_stops_is_found() {
    let text = SHIPPED.replace(
        "                  - name: envoy.filters.http.ext_proc\n",
        "                  - name: auth\n                    typed_config: {\"@type\": type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthz}\n                  - name: envoy.filters.http.ext_proc\n",
    );
    let mut facts = EnvoyFacts::of_file(&file(&text));
    facts.version = Some((1, 39));
    let names = |facts: &EnvoyFacts| -> Vec<&'static str> {
        findings("envoy", facts, None).iter().map(|finding| finding.rule.name).collect()
    };
    assert_eq!(names(&facts), ["envoy-old"]);
    facts.version = Some((1, 40));
    assert_eq!(names(&facts), [""; 0]);
}

#[test]
fn a_dump_of_the_admin_port_is_read_with_its_routes_and_what_they_say_otherwise() {
    let bootstrap = file(SHIPPED);
    let all = &bootstrap["static_resources"];
    let mut listener = all["listeners"][0].clone();
    let manager = &mut listener["filter_chains"][0]["filters"][0]["typed_config"];
    let mut routes = manager["route_config"].clone();
    manager.as_object_mut().unwrap().remove("route_config");
    manager["rds"] = json!({"route_config_name": "inference"});
    routes["virtual_hosts"][0]["routes"][0]["typed_per_filter_config"] = json!({
        "envoy.filters.http.ext_proc": {"overrides": {"processing_mode": {"request_body_mode": "BUFFERED_PARTIAL"}}},
    });
    let dump = json!({"configs": [
        {"static_clusters": [{"cluster": all["clusters"][0]}]},
        {"dynamic_listeners": [{"active_state": {"listener": listener}}]},
        {"dynamic_route_configs": [{"route_config": routes}]},
    ]});
    let facts = EnvoyFacts::of_dump(&dump, &json!({"version": "0a1b/1.39.2/Clean/RELEASE/BoringSSL"}));
    assert_eq!((facts.version, facts.routes.len()), (Some((1, 39)), 1));
    assert!(facts.routes[0].follows_header);
    let names: Vec<&str> = findings("e", &facts, None).iter().map(|finding| finding.rule.name).collect();
    assert_eq!(names, ["envoy-request-cut", "envoy-answer-unseen"]);
    assert_eq!(EnvoyFacts::of_dump(&json!([1, {"configs": 3}]), &Value::Null), EnvoyFacts::default());
}
