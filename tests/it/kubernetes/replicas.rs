//! Three replicas as Helm installs them, at a real API server: with the flags, the certificate and the rights that they
//! get, found through EndpointSlices. The controller that keeps the slices is played.

use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Secret, Service};
use kube::Api;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::installing::Site;
use crate::support::cluster::{ApiServer, LABEL, Namespace, free_port as free_port_of, picker, simulate};
use crate::support::{Client, Pointsman, Proxy, body, chat, destination, eventually, headers, holds};

/// Replicas of the release.
const REPLICAS: usize = 3;

/// An address of this machine that is not loopback, which an EndpointSlice may not name.
fn own_address() -> Option<IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    // Nothing is sent.
    socket.connect("192.0.2.1:9").ok()?;
    Some(socket.local_addr().ok()?.ip()).filter(|ip| !ip.is_loopback() && !ip.is_unspecified())
}

/// What the Deployment mounts, as folders.
struct Mounted {
    config: TempDir,
    peers: TempDir,
    args: Vec<String>,
}

impl Mounted {
    async fn of(site: &Site) -> Self {
        let deployment: Deployment = site.api().get("pool-epp").await.unwrap();
        let pod = serde_json::to_value(deployment.spec.unwrap().template).unwrap();
        let args = pod["spec"]["containers"][0]["args"].as_array().unwrap().iter();
        let args = args.map(|arg| arg.as_str().unwrap().to_owned()).collect();
        let (config, peers) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let map: ConfigMap = site.api().get("pool-epp").await.unwrap();
        for (name, text) in map.data.unwrap() {
            std::fs::write(config.path().join(name), text).unwrap();
        }
        let secret: Secret = site.api().get("pool-epp-peers").await.unwrap();
        for (name, bytes) in secret.data.unwrap() {
            std::fs::write(peers.path().join(name), bytes.0).unwrap();
        }
        Self { config, peers, args }
    }

    /// The flags of a pod, but with this port for peers: here all pods have one address.
    fn flags(&self, namespace: &str, port: u16) -> Vec<String> {
        let moved = ["--grpc-port=", "--peer-port=", "--metrics-endpoint-auth="];
        let args = self.args.iter().filter(|arg| !moved.iter().any(|flag| arg.starts_with(flag)));
        let inside = |arg: &String| {
            arg.replace("/config/", &format!("{}/", self.config.path().display()))
                .replace(
                    "--peer-cert-dir=/peers",
                    &format!("--peer-cert-dir={}", self.peers.path().display()),
                )
                .replace("$(NAMESPACE)", namespace)
        };
        let own = [format!("--peer-port={port}"), "--metrics-endpoint-auth=false".to_owned()];
        args.map(inside).chain(own).chain(["--secure-serving=false".to_owned()]).collect()
    }
}

/// A slice of the headless Service with one pod, which need not be ready.
fn slice(number: usize, at: SocketAddr) -> Value {
    json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": format!("pool-epp-peers-{number}"),
            "labels": {"kubernetes.io/service-name": "pool-epp-peers"},
        },
        "addressType": "IPv4",
        "ports": [{"name": "peers", "port": at.port(), "protocol": "TCP"}],
        "endpoints": [{"addresses": [at.ip()], "conditions": {"ready": true, "serving": true, "terminating": false}}],
    })
}

/// True if the owner of this token may do this in the namespace.
async fn may(server: &ApiServer, namespace: &Namespace, (verb, group, resource): (&str, &str, &str)) -> bool {
    let ask = json!({
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": {"namespace": namespace.name, "verb": verb, "group": group, "resource": resource}},
    });
    let request = http::Request::post("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews")
        .header("content-type", "application/json")
        .body(ask.to_string().into_bytes())
        .unwrap();
    let answer: Value = server.client(&namespace.token).request(request).await.unwrap();
    answer["status"]["allowed"] == true
}

/// Requests in flight, as this replica knows them.
async fn in_flight(replica: &Pointsman) -> u64 {
    let page = Client::http1(replica.metrics).get("/debug/pool").await.json();
    let endpoints = page["endpoints"].as_array().unwrap().iter();
    endpoints.map(|endpoint| endpoint["in_flight_requests"].as_u64().unwrap()).sum()
}

#[tokio::test(flavor = "multi_thread")]
#[allow(clippy::print_stdout, reason = "whoever runs the tests has to know")]
async fn three_replicas_that_helm_installs_find_each_other_with_the_rights_they_get() {
    let Some(ip) = own_address() else {
        println!("no address but loopback: replicas that Helm installs are NOT tested");
        return;
    };
    let server = ApiServer::shared().await;
    let site = Site::start(server).await;
    let labels = format!("inferencePool.modelServers.matchLabels.{}={}", LABEL.0, LABEL.1);
    let replicas = format!("inferenceExtension.replicas={REPLICAS}");
    site.release("deploy/charts/pointsman", &["--set", &labels, "--set", &replicas]).await.unwrap();
    let service: Service = site.api().get("pool-epp-peers").await.unwrap();
    let spec = serde_json::to_value(service.spec.unwrap()).unwrap();
    assert_eq!((&spec["clusterIP"], &spec["publishNotReadyAddresses"]), (&json!("None"), &json!(true)));

    // A model server. The chart's pool has its port.
    let namespace = &site.namespace;
    let servers = [namespace.address(1)];
    let port = free_port_of(&servers);
    let _servers = simulate(&servers, port, &[]).await;
    namespace.pool(&[port]).await;
    namespace.label("pod-security.kubernetes.io/enforce", "privileged").await;
    namespace.pod("server-1", servers[0]).await;

    let mounted = Mounted::of(&site).await;
    let kubeconfig = format!("KUBECONFIG={}", server.kubeconfig(&namespace.token).display());
    let held: Vec<TcpListener> = (0..REPLICAS).map(|_| TcpListener::bind((ip, 0)).unwrap()).collect();
    let ports: Vec<SocketAddr> = held.iter().map(|held| held.local_addr().unwrap()).collect();
    drop(held);
    let mut running = Vec::new();
    for (number, at) in ports.iter().enumerate() {
        namespace.apply(&slice(number, *at)).await;
        let flags = mounted.flags(&namespace.name, at.port());
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        let pod = format!("POD_NAME=pool-epp-7d9f8c6b5-{number}");
        let prefix = ["env", kubeconfig.as_str(), pod.as_str()];
        running.push(Pointsman::start_at(&prefix, &ip.to_string(), &flags).await);
    }
    for replica in &running {
        holds("the others are followed", async || {
            replica.metric("pointsman_peers", &[("state", "following")]).await == Some((REPLICAS - 1) as f64)
                && replica.metric("pointsman_pool_endpoints", &[]).await == Some(1.0)
        })
        .await;
    }
    let mut exchange = Proxy::connect(running[0].grpc).await.open().await;
    exchange.say(headers("/v1/chat/completions", [], false)).await;
    exchange.say(body(chat("hello", 1, false).to_string(), true)).await;
    assert!(destination(&exchange.answer().await.unwrap().unwrap()).is_some());
    for replica in &running {
        eventually("every replica knows the request", async || (in_flight(replica).await == 1).then_some(()))
            .await;
        let forbidden = [("reason", "forbidden")];
        let refusals = replica.metric("pointsman_discovery_errors_total", &forbidden).await;
        assert_eq!(refusals.unwrap_or(0.0), 0.0, "a right is missing");
        let page = Client::http1(replica.metrics).get("/debug/peers").await.json();
        assert_eq!(page["tls"], true, "{page}");
    }

    // What it does not need it may not.
    for verb in ["get", "list", "watch"] {
        assert!(may(server, namespace, (verb, "discovery.k8s.io", "endpointslices")).await, "{verb}");
        assert!(!may(server, namespace, (verb, "", "secrets")).await, "{verb}");
        assert!(!may(server, namespace, (verb, "coordination.k8s.io", "leases")).await, "{verb}");
    }
    for verb in ["create", "update", "patch", "delete"] {
        for (group, resource) in [("discovery.k8s.io", "endpointslices"), ("", "pods"), ("", "services")] {
            assert!(!may(server, namespace, (verb, group, resource)).await, "{verb} {resource}");
        }
    }
    // One that is scaled down is missed by nobody.
    let slices: Api<k8s_openapi::api::discovery::v1::EndpointSlice> = site.api();
    slices.delete("pool-epp-peers-2", &kube::api::DeleteParams::default()).await.unwrap();
    running.pop();
    holds("two are left, and none is missed", async || {
        running[0].metric("pointsman_peers", &[("state", "following")]).await == Some(1.0)
            && running[0].metric("pointsman_peers", &[("state", "missing")]).await == Some(0.0)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_right_to_look_at_endpoint_slices_a_replica_says_so_and_serves() {
    let server = ApiServer::shared().await;
    let namespace = Namespace::with_chart_rights(server, &["inferenceExtension.replicas=1"]).await;
    namespace.pool(&[8000]).await;
    namespace.pod("pod-1", namespace.address(1)).await;
    let flags = ["--peer-service=pool-epp-peers", "--peer-port=0", "--peer-plaintext"];
    let pointsman = picker(server, &namespace, &flags).await;
    let forbidden = [("resource", "endpointslices"), ("reason", "forbidden")];
    holds("the refusal is counted", async || {
        pointsman.metric("pointsman_discovery_errors_total", &forbidden).await.is_some()
    })
    .await;
    holds("it knows the pool", async || pointsman.metric("pointsman_pool_endpoints", &[]).await == Some(1.0))
        .await;
}
