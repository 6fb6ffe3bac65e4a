//! A pool through real Envoy while its pods, its ports, its selector and its rules change: none of the requests is
//! lost, and none goes to a pod that was gone for more than a second.

use std::time::Instant;

use serde_json::json;

use crate::support::cluster::{ApiServer, Gone, LABEL, Stage, Traffic};
use crate::support::{chat, eventually, holds};

/// Waits until requests sent from now on go to exactly these places.
async fn served_by(stage: &Stage, traffic: &Traffic, places: &[u8]) {
    let mut expected: Vec<_> = places.iter().map(|place| stage.target(*place)).collect();
    expected.sort();
    stage.has_endpoints(places.len()).await;
    holds("requests go to all of the pods and no others", async || {
        let (from, count) = (Instant::now(), traffic.count());
        holds("forty more requests", async || traffic.count() > count + 40).await;
        traffic.targets_since(from) == expected
    })
    .await;
}

/// A rewrite of `alias-model` to this one.
fn alias(target: &str) -> serde_json::Value {
    json!({
        "apiVersion": "llm-d.ai/v1alpha2",
        "kind": "InferenceModelRewrite",
        "metadata": {"name": "alias"},
        "spec": {"poolRef": {"name": "pool"}, "rules": [
            {"matches": [{"model": {"value": "alias-model"}}], "targets": [{"modelRewrite": target}]},
        ]},
    })
}

/// Status of a request for `alias-model`.
async fn ask_alias(stage: &Stage) -> u16 {
    let mut body = chat("hello", 1, false);
    body["model"] = json!("alias-model");
    stage.client().post("/v1/chat/completions", &body).await.status
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_come_and_go_under_load_and_no_request_is_lost() {
    let server = ApiServer::shared().await;
    let stage = Stage::start(server, 6, 3, &[]).await;
    let namespace = &stage.namespace;
    let mut gone = Gone::default();
    let traffic = Traffic::start(stage.envoy.addr, 4);
    served_by(&stage, &traffic, &[1, 2, 3]).await;

    // Rolling replacement: a new pod, then one of the old goes.
    for (old, new) in [(1, 4), (2, 5), (3, 6)] {
        namespace.pod(&format!("pod-{new}"), namespace.address(new)).await;
        stage.has_endpoints(4).await;
        namespace.delete_pod(&format!("pod-{old}")).await;
        gone.note(stage.target(old));
        stage.has_endpoints(3).await;
    }
    served_by(&stage, &traffic, &[4, 5, 6]).await;

    // A label takes a pod out of the pool and brings it back.
    namespace.patch_pod("pod-4", &json!({"metadata": {"labels": {LABEL.0: "other"}}})).await;
    gone.note(stage.target(4));
    served_by(&stage, &traffic, &[5, 6]).await;
    traffic.assert_none_went_to(&gone);
    gone.back(stage.target(4));
    namespace.patch_pod("pod-4", &json!({"metadata": {"labels": {LABEL.0: LABEL.1}}})).await;
    served_by(&stage, &traffic, &[4, 5, 6]).await;

    // Readiness flaps.
    for _ in 0..3 {
        namespace.set_ready("pod-5", false).await;
        gone.note(stage.target(5));
        stage.has_endpoints(2).await;
        traffic.assert_none_went_to(&gone);
        gone.back(stage.target(5));
        namespace.set_ready("pod-5", true).await;
        stage.has_endpoints(3).await;
    }
    served_by(&stage, &traffic, &[4, 5, 6]).await;
    traffic.assert_none_went_to(&gone);

    // Priorities and rewrites come, change and go.
    for (priority, target, expected) in [(1, "sim-model", 200), (-1, "other", 404)] {
        stage.objective("batch", priority).await;
        namespace.apply(&alias(target)).await;
        holds("the rewrite is as it was written", async || ask_alias(&stage).await == expected).await;
    }
    namespace.delete("llm-d.ai", "v1alpha2", "InferenceModelRewrite", "alias").await;
    namespace.delete("llm-d.ai", "v1alpha2", "InferenceObjective", "batch").await;
    served_by(&stage, &traffic, &[4, 5, 6]).await;
    let sent = traffic.stop_all_good().await;
    assert!(sent.len() > 100, "only {} requests", sent.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_at_zero_holds_requests_until_a_pod_is_back() {
    let server = ApiServer::shared().await;
    let config = format!("{}featureGates: [flowControl]\n", crate::support::cluster::CONFIG);
    let stage = Stage::start(server, 1, 1, &["--config-text", &config]).await;
    stage.namespace.delete_pod("pod-1").await;
    stage.has_endpoints(0).await;
    let traffic = Traffic::start(stage.envoy.addr, 3);
    holds("three requests wait", async || {
        stage.pointsman.metric("llm_d_epp_flow_control_queue_size", &[]).await == Some(3.0)
    })
    .await;
    stage.namespace.pod("pod-1", stage.namespace.address(1)).await;
    served_by(&stage, &traffic, &[1]).await;
    traffic.stop_all_good().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ports_and_selector_of_the_pool_change_under_load() {
    let server = ApiServer::shared().await;
    let stage = Stage::start(server, 4, 2, &[]).await;
    let namespace = &stage.namespace;
    for (place, value) in [(3, "blue"), (4, "blue")] {
        let name = format!("pod-{place}");
        namespace.pod_with(&name, namespace.address(place), json!({"color": value}), json!({})).await;
        namespace.set_ready(&name, true).await;
    }
    let traffic = Traffic::start(stage.envoy.addr, 4);
    served_by(&stage, &traffic, &[1, 2]).await;

    // The servers listen on a second port as well; it becomes the pool's only one.
    let addresses = [1, 2, 3, 4].map(|place| namespace.address(place));
    let second = crate::support::cluster::free_port(&addresses);
    let _more = crate::support::cluster::simulate(&addresses, second, &[]).await;
    namespace.pool(&[second]).await;
    let mut gone = Gone::default();
    for place in [1, 2] {
        gone.note(stage.target(place));
    }
    let mut stage = stage;
    let first = std::mem::replace(&mut stage.port, second);
    served_by(&stage, &traffic, &[1, 2]).await;
    traffic.assert_none_went_to(&gone);

    // Other pods.
    stage.namespace.pool_of(("color", "blue"), &[second]).await;
    for place in [1, 2] {
        gone.note(stage.target(place));
    }
    served_by(&stage, &traffic, &[3, 4]).await;
    traffic.assert_none_went_to(&gone);

    // Both ports: four endpoints, two ranks of each pod.
    stage.namespace.pool_of(("color", "blue"), &[first, second]).await;
    stage.has_endpoints(4).await;
    let annotation = json!({"metadata": {"annotations": {"llm-d.ai/active-ports": second.to_string()}}});
    stage.namespace.patch_pod("pod-3", &annotation).await;
    stage.has_endpoints(3).await;
    traffic.stop_all_good().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_that_swap_addresses_are_found_where_they_are() {
    let server = ApiServer::shared().await;
    let stage = Stage::start(server, 2, 2, &[]).await;
    let traffic = Traffic::start(stage.envoy.addr, 2);
    let (one, two) = (stage.namespace.address(1), stage.namespace.address(2));
    stage.namespace.set_address("pod-1", two).await;
    stage.namespace.set_address("pod-2", one).await;
    let expected = [("pod-1", stage.target(2)), ("pod-2", stage.target(1))];
    eventually("each pod has its new address", async || {
        let page = crate::support::Client::http1(stage.pointsman.metrics).get("/debug/pool").await.json();
        let endpoints = page["endpoints"].as_array()?;
        let right = |(pod, target): &(&str, std::net::SocketAddr)| {
            endpoints
                .iter()
                .any(|endpoint| endpoint["pod"] == *pod && endpoint["address"] == target.to_string())
        };
        (endpoints.len() == 2 && expected.iter().all(right)).then_some(())
    })
    .await;
    traffic.stop_all_good().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_that_is_deleted_and_made_again_serves_with_its_rules() {
    let server = ApiServer::shared().await;
    let stage = Stage::start(server, 1, 1, &[]).await;
    stage.objective("batch", -5).await;
    stage.namespace.apply(&alias("sim-model")).await;
    let ask = async || ask_alias(&stage).await;
    holds("the rewrite is in force", async || ask().await == 200).await;
    stage.namespace.delete("inference.networking.k8s.io", "v1", "InferencePool", "pool").await;
    holds("without a pool nothing is served", async || ask().await == 503).await;
    stage.namespace.pool(&[stage.port]).await;
    holds("the rewrite is in force again", async || ask().await == 200).await;
    stage.namespace.delete("llm-d.ai", "v1alpha2", "InferenceModelRewrite", "alias").await;
    holds("the rewrite is gone", async || ask().await == 404).await;
}
