//! The definitions in `deploy/crds` accept and refuse what the published API does.

use serde_json::{Value, json};

use crate::support::cluster::{ApiServer, Namespace};

fn pool(spec: &Value) -> Value {
    json!({"apiVersion": "inference.networking.k8s.io/v1", "kind": "InferencePool", "metadata": {"name": "p"}, "spec": spec})
}

fn objective(spec: &Value) -> Value {
    json!({"apiVersion": "llm-d.ai/v1alpha2", "kind": "InferenceObjective", "metadata": {"name": "o"}, "spec": spec})
}

fn rewrite(spec: &Value) -> Value {
    json!({"apiVersion": "llm-d.ai/v1alpha2", "kind": "InferenceModelRewrite", "metadata": {"name": "r"}, "spec": spec})
}

/// Objects, and whether the API server is to accept them.
fn cases() -> Vec<(bool, Value)> {
    let labels = json!({"matchLabels": {"app": "a"}});
    let ports = json!([{"number": 8000}]);
    let nine: Vec<Value> = (1..10).map(|port| json!({"number": port})).collect();
    let target = json!({"modelRewrite": "m"});
    vec![
        (true, pool(&json!({"selector": labels, "targetPorts": ports}))),
        (
            true,
            pool(&json!({"selector": labels, "targetPorts": ports, "appProtocol": "kubernetes.io/h2c",
            "endpointPickerRef": {"name": "epp", "port": {"number": 9002}, "failureMode": "FailOpen"}})),
        ),
        (false, pool(&json!({"targetPorts": ports}))),
        (false, pool(&json!({"selector": {"matchLabels": {}}, "targetPorts": ports}))),
        (false, pool(&json!({"selector": labels, "targetPorts": []}))),
        (false, pool(&json!({"selector": labels, "targetPorts": nine}))),
        (false, pool(&json!({"selector": labels, "targetPorts": [{"number": 0}]}))),
        (false, pool(&json!({"selector": labels, "targetPorts": [{"number": 8000}, {"number": 8000}]}))),
        (false, pool(&json!({"selector": labels, "targetPorts": ports, "appProtocol": "grpc"}))),
        (
            false,
            pool(&json!({"selector": labels, "targetPorts": ports, "endpointPickerRef": {"name": "epp"}})),
        ),
        (
            true,
            pool(
                &json!({"selector": labels, "targetPorts": ports, "endpointPickerRef": {"name": "epp", "kind": "Other"}}),
            ),
        ),
        (
            false,
            pool(&json!({"selector": labels, "targetPorts": ports,
            "endpointPickerRef": {"name": "epp", "port": {"number": 1}, "failureMode": "Maybe"}})),
        ),
        (true, objective(&json!({"poolRef": {"name": "p"}}))),
        (true, objective(&json!({"poolRef": {"name": "p"}, "priority": -10}))),
        (false, objective(&json!({"priority": 1}))),
        (false, objective(&json!({"poolRef": {"name": ""}}))),
        (false, objective(&json!({"poolRef": {"name": "p"}, "priority": "high"}))),
        (true, rewrite(&json!({"poolRef": {"name": "p"}, "rules": []}))),
        (
            true,
            rewrite(
                &json!({"poolRef": {"name": "p"}, "rules": [{"matches": [{"model": {"value": "m"}}], "targets": [target]}]}),
            ),
        ),
        (false, rewrite(&json!({"poolRef": {"name": "p"}}))),
        (false, rewrite(&json!({"poolRef": {"name": "p"}, "rules": [{"targets": []}]}))),
        (
            false,
            rewrite(
                &json!({"poolRef": {"name": "p"}, "rules": [{"targets": [{"modelRewrite": "m", "weight": 0}]}]}),
            ),
        ),
        (
            false,
            rewrite(
                &json!({"poolRef": {"name": "p"}, "rules": [{"targets": [{"modelRewrite": "m", "weight": 1_000_001}]}]}),
            ),
        ),
        (
            false,
            rewrite(
                &json!({"poolRef": {"name": "p"}, "rules": [{"matches": [{"model": {"value": ""}}], "targets": [target]}]}),
            ),
        ),
        (
            false,
            rewrite(&json!({"poolRef": {"name": "p"},
            "rules": [{"matches": [{"model": {"value": "m", "type": "Prefix"}}], "targets": [target]}]})),
        ),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_are_accepted_and_refused_as_by_the_published_definitions() {
    let server = ApiServer::shared().await;
    let namespace = Namespace::bare(server).await;
    let mut wrong = Vec::new();
    for (accepted, object) in cases() {
        let answer = server.check_object(&object, &namespace.name).await;
        if answer.is_ok() != accepted {
            wrong.push(format!("accepted should be {accepted}, but {answer:?}: {object}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn defaults_are_those_of_the_published_definitions() {
    let server = ApiServer::shared().await;
    let namespace = Namespace::bare(server).await;
    let reference = json!({"name": "epp", "port": {"number": 9002}});
    namespace
        .apply(&pool(&json!({
            "selector": {"matchLabels": {"app": "a"}}, "targetPorts": [{"number": 1}], "endpointPickerRef": reference,
        })))
        .await;
    let stored = namespace.get("inference.networking.k8s.io", "v1", "InferencePool", "p").await;
    assert_eq!(stored["spec"]["appProtocol"], "http");
    assert_eq!(stored["spec"]["endpointPickerRef"]["failureMode"], "FailClose");
    assert_eq!(stored["spec"]["endpointPickerRef"]["kind"], "Service");
    namespace.apply(&objective(&json!({"poolRef": {"name": "p"}}))).await;
    let stored = namespace.get("llm-d.ai", "v1alpha2", "InferenceObjective", "o").await;
    assert_eq!(stored["spec"]["poolRef"]["group"], "inference.networking.k8s.io");
    assert_eq!(stored["spec"]["poolRef"]["kind"], "InferencePool");
}
