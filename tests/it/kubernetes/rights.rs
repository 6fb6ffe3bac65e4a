//! What the program needs to be allowed, and what it does without.

use serde_json::json;

use crate::support::cluster::{ApiServer, Namespace, Stage, condition, picker};
use crate::support::{chat, holds};

/// Role of the oldest published chart: no rewrites, no current group, no status.
async fn oldest_rights(server: &ApiServer) -> Namespace {
    let namespace = Namespace::bare(server).await;
    let read = json!(["get", "watch", "list"]);
    namespace
        .apply(&json!({
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "Role",
            "metadata": {"name": "pool-epp"},
            "rules": [
                {"apiGroups": ["inference.networking.x-k8s.io"], "resources": ["inferenceobjectives"], "verbs": read},
                {"apiGroups": ["inference.networking.k8s.io"], "resources": ["inferencepools"], "verbs": read},
                {"apiGroups": [""], "resources": ["pods"], "verbs": read},
            ],
        }))
        .await;
    namespace
        .apply(&json!({
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "RoleBinding",
            "metadata": {"name": "pool-epp"},
            "subjects": [{"kind": "ServiceAccount", "name": "pool-epp", "namespace": namespace.name}],
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "pool-epp"},
        }))
        .await;
    namespace
}

#[tokio::test(flavor = "multi_thread")]
async fn with_the_oldest_published_rights_it_serves_and_says_what_it_may_not_see() {
    let server = ApiServer::shared().await;
    let stage = Stage::in_namespace(server, oldest_rights(server).await, 1, 1, &[]).await;
    let reply = stage.client().post("/v1/chat/completions", &chat("hello", 1, false)).await;
    assert_eq!(reply.status, 200);
    for (resource, group) in [
        ("inferencemodelrewrites", "llm-d.ai"),
        ("inferencemodelrewrites", "inference.networking.x-k8s.io"),
        ("inferenceobjectives", "llm-d.ai"),
    ] {
        let labels = [("resource", resource), ("group", group)];
        let forbidden = [labels[0], labels[1], ("reason", "forbidden")];
        holds("the refusal is counted", async || {
            stage.pointsman.metric("pointsman_discovery_errors_total", &forbidden).await.is_some()
        })
        .await;
        assert_eq!(
            stage.pointsman.metric("pointsman_discovery_synced", &labels).await,
            Some(0.0),
            "{resource}"
        );
        let warned =
            |line: &String| line.contains("forbidden:") && line.contains(resource) && line.contains(group);
        assert!(stage.pointsman.process.log().iter().any(warned), "no line about {resource} of {group}");
    }
    // Objectives of the former group are seen.
    stage
        .namespace
        .apply(&json!({
            "apiVersion": "inference.networking.x-k8s.io/v1alpha2",
            "kind": "InferenceObjective",
            "metadata": {"name": "batch"},
            "spec": {"priority": -1, "poolRef": {"name": "pool"}},
        }))
        .await;
    holds("the objective is known", async || {
        stage.pointsman.process.log().iter().any(|line| line.contains("objectives changed"))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rights_that_are_granted_later_are_found_without_a_restart() {
    let server = ApiServer::shared().await;
    let namespace = Namespace::bare(server).await;
    namespace.pool(&[8000]).await;
    namespace.pod("pod-1", namespace.address(1)).await;
    let pointsman = picker(server, &namespace, &[]).await;
    holds("it is told that it may not", async || {
        pointsman.metric("pointsman_discovery_errors_total", &[("reason", "forbidden")]).await.is_some()
    })
    .await;
    for object in namespace.rendered(&[]) {
        if matches!(object["kind"].as_str(), Some("Role" | "RoleBinding")) {
            namespace.apply(&object).await;
        }
    }
    holds("it knows the pool", async || pointsman.metric("pointsman_pool_endpoints", &[]).await == Some(1.0))
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn definitions_that_are_installed_later_are_found_without_a_restart() {
    let server = ApiServer::start().await;
    let namespace = Namespace::with_chart_rights(&server, &[]).await;
    let pointsman = picker(&server, &namespace, &[]).await;
    holds("the kinds are absent", async || {
        pointsman
            .metric(
                "pointsman_discovery_errors_total",
                &[("resource", "inferencepools"), ("reason", "absent")],
            )
            .await
            .is_some()
    })
    .await;
    server.install_definitions().await;
    namespace.pool(&[8000]).await;
    namespace.pod("pod-1", namespace.address(1)).await;
    holds("it knows the pool", async || pointsman.metric("pointsman_pool_endpoints", &[]).await == Some(1.0))
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn objectives_and_rewrites_are_told_whether_they_are_in_force() {
    let server = ApiServer::shared().await;
    let stage = Stage::start(server, 1, 1, &[]).await;
    stage.objective("batch", -5).await;
    let objective = ("llm-d.ai", "InferenceObjective", "batch");
    let message = condition(&stage.namespace, objective, "Ready", "True").await;
    assert!(message.contains("priority -5"), "{message}");
    condition(&stage.namespace, objective, "Accepted", "True").await;
    stage.objective("batch", 7).await;
    holds("the message follows", async || {
        condition(&stage.namespace, objective, "Ready", "True").await.contains("priority 7")
    })
    .await;

    let rewrite = |name: &str| {
        json!({
            "apiVersion": "inference.networking.x-k8s.io/v1alpha2",
            "kind": "InferenceModelRewrite",
            "metadata": {"name": name},
            "spec": {"poolRef": {"name": "pool"}, "rules": [
                {"matches": [{"model": {"value": "m"}}], "targets": [{"modelRewrite": "sim-model"}]},
            ]},
        })
    };
    stage.namespace.apply(&rewrite("a-first")).await;
    let first = ("inference.networking.x-k8s.io", "InferenceModelRewrite", "a-first");
    condition(&stage.namespace, first, "Ready", "True").await;
    stage.namespace.apply(&rewrite("b-second")).await;
    let second = ("inference.networking.x-k8s.io", "InferenceModelRewrite", "b-second");
    let message = condition(&stage.namespace, second, "Ready", "False").await;
    assert!(message.contains("m by a-first"), "{message}");

    stage.namespace.delete("inference.networking.k8s.io", "v1", "InferencePool", "pool").await;
    let message = condition(&stage.namespace, objective, "Ready", "False").await;
    assert!(message.contains("does not exist"), "{message}");
    let writes = stage.pointsman.metric("pointsman_status_writes_total", &[("outcome", "success")]).await;
    assert!(writes.is_some_and(|writes| writes < 20.0), "{writes:?} writes: they feed on themselves");
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_of_a_selector_are_endpoints_without_any_definition_installed() {
    let server = ApiServer::shared().await;
    let namespace = Namespace::with_chart_rights(server, &[]).await;
    let labels = json!({"app": "vllm", "tier": "gold"});
    namespace.pod_with("gold", namespace.address(1), labels, json!({})).await;
    namespace.set_ready("gold", true).await;
    namespace.pod("plain", namespace.address(2)).await;
    let flags = [
        "--pool-name",
        "",
        "--endpoint-selector",
        "app=vllm,tier in (gold, silver)",
        "--endpoint-target-ports",
        "8000,8001",
    ];
    let pointsman = picker(server, &namespace, &flags).await;
    holds("both ports of the one pod are endpoints", async || {
        pointsman.metric("pointsman_pool_endpoints", &[("name", "pool-epp")]).await == Some(2.0)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_older_pool_form_is_read_in_its_group() {
    let server = ApiServer::shared().await;
    let sets = ["inferencePool.apiVersion=inference.networking.x-k8s.io/v1alpha2"];
    let namespace = Namespace::with_chart_rights(server, &sets).await;
    for object in namespace.rendered(&sets) {
        if object["kind"] == "InferencePool" {
            assert_eq!(object["apiVersion"], "inference.networking.x-k8s.io/v1alpha2");
            namespace.apply(&object).await;
        }
    }
    namespace.pod("pod-1", namespace.address(1)).await;
    let pointsman = picker(server, &namespace, &["--pool-group", "inference.networking.x-k8s.io"]).await;
    holds("it knows the pool", async || pointsman.metric("pointsman_pool_endpoints", &[]).await == Some(1.0))
        .await;
}
