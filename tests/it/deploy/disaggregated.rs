//! The example of prefill and decode servers: what stands in its files fits together.

use serde_json::{Value, json};

use super::monitoring::{promtool, series};
use super::{args, documents, has, list, object, read, render};
use crate::support::{program, run};

const FOLDER: &str = "deploy/disaggregated";

fn file(name: &str) -> Vec<Value> {
    documents(&read(&format!("{FOLDER}/{name}")))
}

/// Pod of the Deployment in a file.
fn pod(name: &str) -> Value {
    object(&file(&format!("{name}.yaml")), &format!("Deployment llama-{name}"))["spec"]["template"].clone()
}

fn ports(container: &Value) -> Vec<u64> {
    list(&container["ports"]).iter().map(|port| port["containerPort"].as_u64().unwrap()).collect()
}

#[test]
fn the_sidecar_serves_on_the_target_port_and_outlives_the_model_server() {
    let spec = pod("decode")["spec"].clone();
    let sidecar = &spec["initContainers"][0];
    assert_eq!(sidecar["restartPolicy"], "Always");
    let given: Vec<&str> = list(&sidecar["args"]).iter().map(|arg| arg.as_str().unwrap()).collect();
    let objects = render(&["--values", &format!("{FOLDER}/values.yaml")]);
    let pool = objects.iter().find(|object| object["kind"] == "InferencePool").unwrap();
    let port = pool["spec"]["targetPorts"][0]["number"].as_u64().unwrap();
    assert!(given.contains(&format!("--port={port}").as_str()), "{given:?}");
    let engine = &spec["containers"][0];
    assert!(given.contains(&format!("--model-server-port={}", ports(engine)[0]).as_str()), "{given:?}");
    assert_eq!(
        ports(&pod("prefill")["spec"]["containers"][0])[0],
        port,
        "prefill servers serve there themselves"
    );
    for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
        assert_eq!(sidecar[probe]["httpGet"]["port"], port, "{probe}");
        assert!(engine[probe]["httpGet"]["port"].is_u64(), "{probe}");
    }
    assert_eq!(sidecar["readinessProbe"]["httpGet"]["path"], "/readyz");
    assert!(
        sidecar["resources"]["limits"].get("cpu").is_none()
            && sidecar["resources"]["limits"]["memory"].is_string()
    );
    assert_eq!(sidecar["securityContext"]["readOnlyRootFilesystem"], true);
}

#[test]
fn pods_have_the_roles_and_labels_that_the_pool_and_the_filters_go_by() {
    let objects = render(&["--values", &format!("{FOLDER}/values.yaml")]);
    let pool = objects.iter().find(|object| object["kind"] == "InferencePool").unwrap();
    for role in ["prefill", "decode"] {
        let labels = &pod(role)["metadata"]["labels"];
        assert_eq!(labels["llm-d.ai/role"], role);
        for (name, value) in pool["spec"]["selector"]["matchLabels"].as_object().unwrap() {
            assert_eq!(labels[name], *value, "{role} {name}");
        }
    }
    assert!(
        has(&objects, "Deployment") && args(&objects).iter().any(|arg| arg.starts_with("--config-file="))
    );
    // The configuration in the values loads, and nothing of it is idle.
    let values = &file("values.yaml")[0];
    let config = values["inferenceExtension"]["pluginsCustomConfig"]["split.yaml"].as_str().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("split.yaml");
    std::fs::write(&path, config).unwrap();
    let (good, out, error) = run(&program(), &["check", "--config-file", path.to_str().unwrap()]);
    assert!(good && !error.contains("warning") && !error.contains("never"), "{out}{error}");
}

#[test]
fn the_network_policy_leaves_no_way_past_the_sidecar() {
    let policy = &file("networkpolicy.yaml")[0];
    let opened = |port: u64| {
        list(&policy["spec"]["ingress"]).iter().flat_map(|rule| list(&rule["ports"])).any(|range| {
            let first = range["port"].as_u64().unwrap();
            (first..=range["endPort"].as_u64().unwrap_or(first)).contains(&port)
        })
    };
    for (port, open) in [(8000, true), (5600, true), (9091, true), (8200, false)] {
        assert_eq!(opened(port), open, "{port}");
    }
    assert_eq!(policy["spec"]["podSelector"]["matchLabels"], json!({"app": "llama"}));
}

#[test]
fn alerts_on_outcomes_pass_their_tests_and_each_fires_in_one() {
    promtool(&["check", "rules", "deploy/monitoring/sidecar-alerts.yaml"]);
    promtool(&["test", "rules", "deploy/monitoring/sidecar-alerts.test.yaml"]);
    let tests = read("deploy/monitoring/sidecar-alerts.test.yaml");
    let tests = &documents(&tests)[0];
    let cases: Vec<Value> =
        list(&tests["tests"]).iter().flat_map(|test| list(&test["alert_rule_test"]).to_vec()).collect();
    let rules = &documents(&read("deploy/monitoring/sidecar-alerts.yaml"))[0];
    for rule in list(&rules["groups"][0]["rules"]) {
        let of_rule = || cases.iter().filter(|case| case["alertname"] == rule["alert"]);
        assert!(of_rule().any(|case| !list(&case["exp_alerts"]).is_empty()), "{rule}");
        assert!(of_rule().any(|case| list(&case["exp_alerts"]).is_empty()), "{rule}");
        for (name, _) in series(rule["expr"].as_str().unwrap()) {
            let known = [
                "pointsman_sidecar_outcomes_total",
                "llm_d_epp_disagg_decision_total",
                "pointsman_split_servers",
            ];
            assert!(known.contains(&name.as_str()), "{name}");
        }
    }
}
