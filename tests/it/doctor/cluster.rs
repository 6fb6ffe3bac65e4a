//! What doctor finds in a cluster.

use serde_json::{Value, json};

use super::{doctor, rules};
use crate::support::cluster::{ApiServer, Namespace, Stage, free_port, picker};
use crate::support::holds;

/// The Service that a pool names, and a pod of the picker with these arguments.
async fn picker_objects(namespace: &Namespace, arguments: &[&str]) {
    namespace
        .apply(&json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": "pool-epp"},
            "spec": {"selector": {"app": "epp"}, "ports": [{"name": "grpc", "port": 9002}]},
        }))
        .await;
    namespace
        .apply(&json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "epp-0", "labels": {"app": "epp"}},
            "spec": {"serviceAccountName": "pool-epp", "automountServiceAccountToken": false,
                "containers": [{"name": "epp", "image": "pointsman", "args": arguments}]},
        }))
        .await;
}

async fn look(server: &ApiServer, stage: &Stage, more: &[&str]) -> (Value, i32) {
    let url = format!("http://{}", stage.pointsman.metrics);
    let kubeconfig = server.admin_kubeconfig().display().to_string();
    doctor(&[&["--url", &url, "--kubeconfig", &kubeconfig], more].concat()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn doctor_says_nothing_of_a_sound_cluster_and_finds_what_is_changed_for_the_worse() {
    let server = ApiServer::shared().await;
    let stage = Stage::start(server, 2, 2, &[]).await;
    picker_objects(&stage.namespace, &["--pool-name", "pool"]).await;
    let (found, code) = look(server, &stage, &[]).await;
    assert_eq!((rules(&found), code), (vec![], 0), "{found:#}");

    stage
        .namespace
        .apply(&json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": "servers"},
            "spec": {"selector": {"app": "other"}, "ports": [{"port": stage.port}]},
        }))
        .await;
    stage.namespace.delete_pod("epp-0").await;
    picker_objects(&stage.namespace, &["--pool-name", "pool", "--poolNamespace", "x"]).await;
    let (found, code) = look(server, &stage, &["--service-account", "nobody"]).await;
    assert_eq!(code, 2);
    let rules_found = rules(&found);
    for rule in ["selectors-differ", "right-missing", "flag-warning"] {
        assert!(rules_found.contains(&rule), "{rule}: {found:#}");
    }

    stage.namespace.delete("", "v1", "Service", "pool-epp").await;
    let free = free_port(&[stage.namespace.address(1)]);
    stage.namespace.pool(&[free]).await;
    let end = format!(":{free}");
    holds("the pool has the other port", async || {
        stage.endpoints().await.iter().all(|it| it.ends_with(&end))
    })
    .await;
    let (found, _) = look(server, &stage, &[]).await;
    let rules_found = rules(&found);
    for rule in ["picker-service-missing", "nothing-listens"] {
        assert!(rules_found.contains(&rule), "{rule}: {found:#}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_that_nobody_named_are_found_by_the_service_and_compared() {
    let server = ApiServer::shared().await;
    let stage = Stage::start(server, 1, 1, &[]).await;
    let open = ["--feature-gates", "flowControl"];
    let other = picker(server, &stage.namespace, &open).await;
    let port = format!("--metrics-port={}", other.metrics.port());
    picker_objects(&stage.namespace, &["--pool-name", "pool", &port]).await;
    let (found, code) = look(server, &stage, &[]).await;
    assert_eq!((rules(&found), code), (vec![], 0), "a pod without an address does not run: {found:#}");
    stage.namespace.set_address("epp-0", std::net::Ipv4Addr::LOCALHOST).await;
    let (found, code) = look(server, &stage, &[]).await;
    assert_eq!((rules(&found), code), (vec!["configurations-differ"], 2), "{found:#}");
    assert!(
        found["looked_at"].to_string().contains(&format!("replica http://{}", other.metrics)),
        "{found:#}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn definitions_that_are_missing_are_found() {
    let server = ApiServer::start().await;
    let kubeconfig = server.admin_kubeconfig().display().to_string();
    let (found, code) = doctor(&["--kubeconfig", &kubeconfig, "--pool-name", "p"]).await;
    assert_eq!(
        (rules(&found), code),
        (vec!["definition-missing", "definition-missing-for-policy", "definition-missing-for-policy"], 2),
        "{found:#}"
    );
}
