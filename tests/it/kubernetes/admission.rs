//! Pods of the chart before the admission of strict clusters: Pod Security `restricted`, and OpenShift's
//! `restricted-v2`, which is played by a policy of the API server's own.

use std::path::Path;

use serde_json::{Value, json};

use crate::support::cluster::{ApiServer, Namespace};
use crate::support::{eventually, render};

const OPENSHIFT: [&str; 2] = ["--api-versions", "security.openshift.io/v1"];

/// Pods as the controllers of these objects would make them.
pub(super) fn pods(objects: &[Value], namespace: &str) -> Vec<Value> {
    let owners = objects.iter().filter(|one| matches!(one["kind"].as_str(), Some("Deployment" | "Job")));
    let pod = |owner: &Value| {
        let mut spec = owner["spec"]["template"]["spec"].clone();
        // Accounts are admitted by another plug-in, which this server has not.
        spec.as_object_mut().unwrap().remove("serviceAccountName");
        json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": owner["metadata"]["name"], "namespace": namespace,
                "labels": owner["spec"]["template"]["metadata"]["labels"]},
            "spec": spec,
        })
    };
    owners.map(pod).collect()
}

/// What the API server has against the pods of every ready combination of values, with these further arguments of Helm.
async fn refusals(server: &ApiServer, namespace: &Namespace, args: &[&str]) -> Vec<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/charts/pointsman/ci");
    let (mut found, mut checked) = (Vec::new(), 0);
    for entry in std::fs::read_dir(folder).unwrap() {
        let values = entry.unwrap().path();
        let objects =
            render("pool", &namespace.name, &[&["--values", values.to_str().unwrap()], args].concat());
        for pod in pods(&objects.unwrap(), &namespace.name) {
            checked += 1;
            if let Err(error) = server.check_object(&pod, &namespace.name).await {
                found.push(format!("{} {}: {error}", values.display(), pod["metadata"]["name"]));
            }
        }
    }
    assert!(checked > 20, "only {checked} pods");
    found
}

/// A pod that runs as this user and is without fault otherwise.
fn pod_as(user: i64) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "probe"},
        "spec": {
            "securityContext": {"runAsNonRoot": true, "runAsUser": user, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [{"name": "c", "image": "i", "securityContext": {
                "allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]},
            }}],
        },
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn every_pod_of_the_chart_is_admitted_by_pod_security_restricted() {
    let server = ApiServer::shared().await;
    let namespace = Namespace::bare(server).await;
    namespace.label("pod-security.kubernetes.io/enforce", "restricted").await;
    let mut root = pod_as(0);
    root["spec"]["securityContext"]["runAsNonRoot"] = false.into();
    let refused = server.check_object(&root, &namespace.name).await.unwrap_err().to_string();
    assert!(refused.contains("violates PodSecurity"), "it is in force: {refused}");
    for args in [&[][..], &OPENSHIFT] {
        let found = refusals(server, &namespace, args).await;
        assert!(found.is_empty(), "{}", found.join("\n"));
    }
}

/// The policy that denies pods which break one of these rules.
fn policy(rules: &[Value]) -> Value {
    json!({
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingAdmissionPolicy",
        "metadata": {"name": "restricted-v2"},
        "spec": {
            "failurePolicy": "Fail",
            "matchConstraints": {"resourceRules": [
                {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]},
            ]},
            "validations": rules,
        },
    })
}

/// The rules of `restricted-v2` for a namespace with the range 1000650000/10000.
pub(super) async fn restricted_v2(server: &ApiServer, namespace: &Namespace) {
    let in_range =
        |field: &str| format!("(!has(c.{field}) || (c.{field} >= 1000650000 && c.{field} < 1000660000))");
    let contexts = "([object.spec].filter(s, has(s.securityContext)).map(s, s.securityContext))";
    let all =
        "(object.spec.containers + (has(object.spec.initContainers) ? object.spec.initContainers : []))";
    let of_container = format!("{all}.filter(o, has(o.securityContext)).map(o, o.securityContext)");
    let kinds = [
        "configMap",
        "csi",
        "downwardAPI",
        "emptyDir",
        "ephemeral",
        "persistentVolumeClaim",
        "projected",
        "secret",
    ];
    let kinds: Vec<String> = kinds.iter().map(|kind| format!("has(v.{kind})")).collect();
    let rules = [
        (
            "ids of the pod",
            format!(
                "{contexts}.all(c, {} && {} && {})",
                in_range("runAsUser"),
                in_range("runAsGroup"),
                in_range("fsGroup")
            ),
        ),
        (
            "ids of a container",
            format!("{of_container}.all(c, {} && {})", in_range("runAsUser"), in_range("runAsGroup")),
        ),
        (
            "capabilities",
            format!(
                "{of_container}.all(c, has(c.capabilities) && has(c.capabilities.drop) && 'ALL' in c.capabilities.drop)"
            ),
        ),
        (
            "privileges",
            format!(
                "{of_container}.all(c, (!has(c.privileged) || !c.privileged) && has(c.allowPrivilegeEscalation) && !c.allowPrivilegeEscalation)"
            ),
        ),
        ("the host", "!has(object.spec.hostNetwork) || !object.spec.hostNetwork".to_owned()),
        (
            "volumes",
            format!("!has(object.spec.volumes) || object.spec.volumes.all(v, {})", kinds.join(" || ")),
        ),
        (
            "seccomp",
            format!("{contexts}.all(c, !has(c.seccompProfile) || c.seccompProfile.type == 'RuntimeDefault')"),
        ),
    ];
    let rules: Vec<Value> = rules
        .iter()
        .map(|(what, rule)| json!({"expression": rule, "message": format!("restricted-v2: {what}")}))
        .collect();
    let policy = policy(&rules);
    let binding = json!({
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": {"name": "restricted-v2"},
        "spec": {
            "policyName": "restricted-v2",
            "validationActions": ["Deny"],
            "matchResources": {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace.name}}},
        },
    });
    server.apply_object(&policy, None).await;
    server.apply_object(&binding, None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_pod_of_the_chart_is_admitted_where_openshift_chooses_the_ids() {
    let server = ApiServer::shared().await;
    let namespace = Namespace::bare(server).await;
    restricted_v2(server, &namespace).await;
    let refusal = eventually("the policy is in force", async || {
        server.check_object(&pod_as(65532), &namespace.name).await.err()
    })
    .await
    .to_string();
    assert!(refusal.contains("restricted-v2: ids of the pod"), "{refusal}");
    server.check_object(&pod_as(1_000_650_123), &namespace.name).await.unwrap();
    let found = refusals(server, &namespace, &OPENSHIFT).await;
    assert!(found.is_empty(), "{}", found.join("\n"));
    assert!(!refusals(server, &namespace, &[]).await.is_empty(), "elsewhere the ids are fixed");
}
