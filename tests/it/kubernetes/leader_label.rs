//! The leader's pod has a label, by which the Services of the chart find it.

use std::time::{Duration, Instant};

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt as _};
use serde_json::{Value, json};
use tonic::transport::Channel;
use tonic_health::pb::health_check_response::ServingStatus;

use crate::support::cluster::{ApiServer, Namespace, picker_in};
use crate::support::{Pointsman, health, holds};

/// 15 s in the field.
const LEASE: Duration = Duration::from_secs(4);
const SEVERAL: &str = "inferenceExtension.replicas=3,inferenceExtension.activeActive=false";

struct Running {
    namespace: Namespace,
    /// Each with the name of its pod.
    replicas: Vec<(String, Pointsman)>,
    /// What the chart's Service selects by.
    selector: String,
}

/// The flags of the chart's Deployment that are about the election, and quicker times.
fn flags(rendered: &[Value]) -> Vec<String> {
    let deployment = rendered.iter().find(|object| object["kind"] == "Deployment").unwrap();
    let args = deployment["spec"]["template"]["spec"]["containers"][0]["args"].as_array().unwrap();
    let args = args.iter().map(|arg| arg.as_str().unwrap().to_owned());
    let mut flags: Vec<String> = args.filter(|arg| arg.starts_with("--ha-")).collect();
    assert!(!flags.is_empty());
    flags.extend([
        format!("--ha-lease-duration={}s", LEASE.as_secs()),
        "--drain-timeout=10s".to_owned(),
        "--secure-serving=false".to_owned(),
    ]);
    flags
}

async fn start(server: &ApiServer) -> Running {
    let namespace = Namespace::with_chart_rights(server, &[SEVERAL]).await;
    namespace.pool(&[8000]).await;
    let rendered = namespace.rendered(&[SEVERAL]);
    let service =
        rendered.iter().find(|one| one["kind"] == "Service" && one["metadata"]["name"] == "pool-epp");
    let selector = service.unwrap()["spec"]["selector"].as_object().unwrap();
    let selector: Vec<String> =
        selector.iter().map(|(key, value)| format!("{key}={}", value.as_str().unwrap())).collect();
    let flags = flags(&rendered);
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let mut replicas = Vec::new();
    for place in 1..=3 {
        let name = format!("pool-epp-7d9f8c6b5-x2x4{place}");
        let labels = json!({"inferencepool": "pool-epp"});
        namespace.pod_with(&name, namespace.address(place), labels, json!({})).await;
        let replica = picker_in(server, &namespace, &name, &flags).await;
        replicas.push((name, replica));
    }
    Running { namespace, replicas, selector: selector.join(",") }
}

impl Running {
    /// The pods that the Service selects.
    async fn selected(&self) -> Vec<String> {
        let pods: Api<Pod> = Api::namespaced(self.namespace.client.clone(), &self.namespace.name);
        let found = pods.list(&ListParams::default().labels(&self.selector)).await.unwrap();
        found.items.iter().map(kube::ResourceExt::name_any).collect()
    }

    /// The pods whose replicas say that they lead.
    async fn leaders(&self) -> Vec<String> {
        let mut leaders = Vec::new();
        for (name, replica) in &self.replicas {
            if replica.metric("pointsman_leader", &[]).await == Some(1.0) {
                leaders.push(name.clone());
            }
        }
        leaders
    }

    /// Waits until the Service selects the leader and nobody else, and gives its place among the replicas.
    async fn leader(&self) -> usize {
        holds("the service selects the leader alone", async || {
            let leaders = self.leaders().await;
            leaders.len() == 1 && self.selected().await == leaders
        })
        .await;
        let leader = self.leaders().await.remove(0);
        self.replicas.iter().position(|(name, _)| *name == leader).unwrap()
    }
}

async fn says(replica: &Pointsman, service: &str) -> Option<ServingStatus> {
    let channel =
        Channel::from_shared(format!("http://{}", replica.health)).unwrap().connect().await.unwrap();
    health(&channel, service).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_service_selects_the_leader_alone_also_after_it_was_killed_and_after_it_ended() {
    let server = ApiServer::shared().await;
    let mut all = start(server).await;
    let first = all.leader().await;
    for (place, (_, replica)) in all.replicas.iter().enumerate() {
        holds("every replica is available", async || {
            says(replica, "available").await == Some(ServingStatus::Serving)
        })
        .await;
        let leads = says(replica, "readiness").await == Some(ServingStatus::Serving);
        assert_eq!(leads, place == first, "the names of proxies go on asking for the leader");
    }

    let (killed, mut process) = all.replicas.remove(first);
    process.process.kill().await;
    let at = Instant::now();
    let second = all.leader().await;
    let took = at.elapsed();
    println!("selected {took:?} after the leader was killed");
    assert!(took < LEASE + LEASE / 2, "another is selected after {took:?}");
    let pod = all.namespace.get("", "v1", "Pod", &killed).await;
    assert!(pod["metadata"]["labels"].get("pointsman/leader").is_none(), "{}", pod["metadata"]["labels"]);
    assert_eq!(pod["metadata"]["labels"]["inferencepool"], "pool-epp", "its other labels stay");

    let (_, mut leaving) = all.replicas.remove(second);
    // A connection over which something was asked keeps it from ending at once.
    let open = Channel::from_shared(format!("http://{}", leaving.grpc)).unwrap();
    let open = open.connect().await.unwrap();
    assert_eq!(health(&open, "available").await, Some(ServingStatus::Serving));
    leaving.process.terminate().await;
    let at = Instant::now();
    holds("who ends is not available", async || {
        says(&leaving, "available").await == Some(ServingStatus::NotServing)
    })
    .await;
    all.leader().await;
    let took = at.elapsed();
    println!("selected {took:?} after the leader was told to end");
    assert!(took < LEASE / 2, "another is selected after {took:?}");
    drop(open);
    assert!(leaving.process.ended().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_label_that_somebody_moves_comes_back_to_the_leader() {
    let server = ApiServer::shared().await;
    let all = start(server).await;
    let leader = all.leader().await;
    for (place, (name, _)) in all.replicas.iter().enumerate() {
        let value = (place != leader).then_some("pool-epp");
        all.namespace.patch_pod(name, &json!({"metadata": {"labels": {"pointsman/leader": value}}})).await;
    }
    assert_eq!(all.selected().await.len(), 2);
    assert_eq!(all.leader().await, leader);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_account_may_label_pods_but_neither_change_what_they_run_nor_touch_leases_of_others() {
    let server = ApiServer::shared().await;
    let namespace = Namespace::with_chart_rights(server, &[SEVERAL]).await;
    let forbidden = |result: Result<(), kube::Error>, what: &str| match result {
        Err(kube::Error::Api(status)) => assert_eq!(status.code, 403, "{what}: {status:?}"),
        other => panic!("{what}: {other:?}"),
    };
    namespace.pod_with("epp-1", namespace.address(1), json!({"inferencepool": "pool-epp"}), json!({})).await;
    namespace.pod("server-1", namespace.address(2)).await;
    let leases: Api<Lease> = Api::namespaced(namespace.client.clone(), &namespace.name);
    let other = json!({"metadata": {"name": "other"}, "spec": {"holderIdentity": "somebody"}});
    let other = leases.create(&PostParams::default(), &serde_json::from_value(other).unwrap()).await.unwrap();

    let client = server.client(&namespace.token);
    let pods: Api<Pod> = Api::namespaced(client.clone(), &namespace.name);
    let params = PatchParams::default();
    let label = json!({"metadata": {"labels": {"pointsman/leader": "pool-epp"}}});
    let patched = pods.patch_status("epp-1", &params, &Patch::Merge(&label)).await.unwrap();
    assert_eq!(patched.labels().get("pointsman/leader").map(String::as_str), Some("pool-epp"));
    let removed = json!({"metadata": {"labels": {"pointsman/leader": null}}});
    let patched = pods.patch_status("epp-1", &params, &Patch::Merge(&removed)).await.unwrap();
    assert_eq!(patched.labels().get("inferencepool").map(String::as_str), Some("pool-epp"));

    let image = json!({"spec": {"containers": [{"name": "server", "image": "another"}]}});
    let sent = Patch::Strategic(&image);
    forbidden(pods.patch("epp-1", &params, &sent).await.map(drop), "another image");
    let patched = pods.patch_status("epp-1", &params, &sent).await.unwrap();
    let runs = patched.spec.unwrap().containers.remove(0).image;
    assert_eq!(runs.as_deref(), Some("vllm"), "what a pod runs is no part of its status");

    // The policy of the chart, which the server takes a moment to put in force.
    let denied = async |pod: &str, change: &Value| {
        let sent = Patch::Merge(change);
        let dry = PatchParams { dry_run: true, ..PatchParams::default() };
        match pods.patch_status(pod, &dry, &sent).await {
            Err(kube::Error::Api(status)) => {
                status.message.contains("The picker may").then_some(status.message.clone())
            }
            _ => None,
        }
    };
    for (pod, change) in [
        ("server-1", &label),
        ("epp-1", &json!({"metadata": {"labels": {"inferencepool": "other-epp"}}})),
        ("epp-1", &json!({"metadata": {"labels": {"app": "vllm"}}})),
        ("epp-1", &json!({"metadata": {"annotations": {"a": "b"}}})),
        ("epp-1", &json!({"metadata": {"finalizers": ["example.com/never"]}})),
        ("epp-1", &json!({"status": {"podIP": "127.9.9.9"}})),
        ("epp-1", &json!({"status": {"conditions": [{"type": "Ready", "status": "True"}]}})),
    ] {
        holds(&format!("{change} of {pod} is denied"), async || denied(pod, change).await.is_some()).await;
    }
    pods.patch_status("epp-1", &params, &Patch::Merge(&label)).await.expect("the label is still allowed");

    let leases: Api<Lease> = Api::namespaced(client, &namespace.name);
    forbidden(leases.replace("other", &PostParams::default(), &other).await.map(drop), "another's lease");
    forbidden(leases.get("other").await.map(drop), "a look at another's lease");
    forbidden(leases.list(&ListParams::default()).await.map(drop), "all leases");
    let own = format!("epp-{}-pool.llm-d.ai", namespace.name);
    let only = ListParams::default().fields(&format!("metadata.name={own}"));
    leases.list(&only).await.expect("its own, as a watch lists it");
}
