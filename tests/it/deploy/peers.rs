//! What the chart makes for replicas that know of each other.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::{LABEL, NAME, args, containers, each, list, names, object, render, rights, values};
use crate::support;

const SEVERAL: &str = "inferenceExtension.replicas=3";

fn several(sets: &[&str]) -> Vec<Value> {
    let mut words = vec!["--set", LABEL, "--set", SEVERAL];
    for set in sets {
        words.extend(["--set", set]);
    }
    render(&words)
}

#[test]
fn several_replicas_find_each_other_by_a_headless_service_ready_or_not() {
    let objects = several(&[]);
    let service = &object(&objects, &format!("Service {NAME}-peers"))["spec"];
    assert_eq!((&service["clusterIP"], &service["publishNotReadyAddresses"]), (&json!("None"), &json!(true)));
    assert_eq!(service["selector"], json!({"inferencepool": NAME}));
    assert_eq!((&service["ports"][0]["name"], &service["ports"][0]["port"]), (&json!("peers"), &json!(9006)));
    let given = args(&objects);
    for expected in
        [format!("--peer-service={NAME}-peers"), "--peer-port=9006".into(), "--peer-cert-dir=/peers".into()]
    {
        assert!(given.contains(&expected.as_str()), "{expected}: {given:?}");
    }
    assert!(!given.iter().any(|arg| arg.contains("leader-election") || arg.contains("peer-plaintext")));
    let containers = containers(&objects);
    let (_, picker) = containers.iter().find(|(_, container)| container["name"] == "epp").unwrap();
    assert!(list(&picker["ports"]).contains(&json!({"name": "peers", "containerPort": 9006})));
}

#[test]
fn their_certificate_is_of_an_authority_whose_key_nobody_keeps() {
    let objects = several(&[]);
    let secret = object(&objects, &format!("Secret {NAME}-peers"));
    let keys: Vec<&String> = secret["data"].as_object().unwrap().keys().collect();
    assert_eq!(keys, ["ca.crt", "tls.crt", "tls.key"]);
    let pem = |key: &str| {
        let bytes = STANDARD.decode(secret["data"][key].as_str().unwrap()).unwrap();
        String::from_utf8(bytes).unwrap()
    };
    assert!(pem("ca.crt").contains("BEGIN CERTIFICATE") && pem("tls.crt").contains("BEGIN CERTIFICATE"));
    assert!(!pem("ca.crt").contains("PRIVATE KEY") && pem("tls.key").contains("PRIVATE KEY"));
    assert_ne!(pem("ca.crt"), pem("tls.crt"));

    let named = several(&["inferenceExtension.peers.certificate.secretName=mine"]);
    assert!(!names(&named).contains(&format!("Secret {NAME}-peers")));
    let volumes = &object(&named, &format!("Deployment {NAME}"))["spec"]["template"]["spec"]["volumes"];
    assert!(list(volumes).contains(&json!({"name": "peers", "secret": {"secretName": "mine"}})), "{volumes}");
}

#[test]
fn one_replica_one_leader_and_replicas_with_flags_of_their_own_have_none_of_it() {
    for sets in [
        &["inferenceExtension.replicas=1"][..],
        &["inferenceExtension.activeActive=false"],
        &["inferenceExtension.flags.ha-enable-leader-election=true"],
        &["inferenceExtension.peers.enabled=false"],
        &["inferenceExtension.flags.peers=10.0.0.1:9006", "inferenceExtension.flags.peer-plaintext=true"],
    ] {
        let objects = several(sets);
        assert!(!names(&objects).iter().any(|name| name.contains("peers")), "{sets:?}");
        assert!(!args(&objects).iter().any(|arg| arg.starts_with("--peer-service")), "{sets:?}");
    }
    let one = several(&["inferenceExtension.replicas=1", "inferenceExtension.peers.enabled=true"]);
    object(&one, &format!("Service {NAME}-peers"));
}

#[test]
fn they_may_look_at_endpoint_slices_and_at_nothing_else_besides() {
    let role = format!("Role {NAME}");
    let mut expected = rights(object(&values("default"), &role));
    expected.extend(each(&["discovery.k8s.io"], &["endpointslices"], &["get", "list", "watch"]));
    assert_eq!(rights(object(&several(&[]), &role)), expected);
}

#[test]
fn the_network_policy_lets_replicas_alone_at_their_port() {
    let objects = several(&["networkPolicy.enabled=true", "inferenceExtension.peers.port=7777"]);
    let policy = &object(&objects, &format!("NetworkPolicy {NAME}"))["spec"];
    let rules: Vec<&Value> = list(&policy["ingress"])
        .iter()
        .filter(|rule| list(&rule["ports"]).contains(&json!({"port": 7777})))
        .collect();
    let own = json!([{"podSelector": {"matchLabels": {"inferencepool": NAME}}}]);
    assert!(rules.len() == 1 && rules[0]["from"] == own, "{rules:?}");
}

#[test]
fn their_port_is_a_port_of_its_own() {
    let port = "inferenceExtension.peers.port=9003";
    let refused =
        support::render("pool", "default", &["--set", LABEL, "--set", SEVERAL, "--set", port]).unwrap_err();
    assert!(refused.contains("inferenceExtension.peers.port") && refused.contains("9003"), "{refused}");
}
