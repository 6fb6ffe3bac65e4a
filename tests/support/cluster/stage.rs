//! Everything together: pods behind the program, which knows them by the API, behind Envoy.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;

use serde_json::json;

use super::apiserver::ApiServer;
use super::namespace::{Namespace, POOL};
use crate::support::process::Process;
use crate::support::{BodyMode, Client, Envoy, Pointsman, eventually, holds, program};

/// Configuration that spreads requests evenly.
pub(crate) const CONFIG: &str = "apiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerConfig\nplugins:\n- type: random-picker\n\
    schedulingProfiles:\n- name: default\n  plugins:\n  - pluginRef: random-picker\n";

/// A pool that serves.
pub(crate) struct Stage {
    /// Its namespace.
    pub(crate) namespace: Namespace,
    /// The picker, with the account of the chart.
    pub(crate) pointsman: Pointsman,
    /// In front.
    pub(crate) envoy: Envoy,
    /// Port of every simulated server.
    pub(crate) port: u16,
    _servers: Process,
}

impl Stage {
    /// A namespace with the chart's rights, `servers` simulated servers of which the first `pods` are ready pods of the
    /// pool.
    pub(crate) async fn start(server: &ApiServer, servers: u8, pods: u8, flags: &[&str]) -> Self {
        let namespace = Namespace::with_chart_rights(server, &[]).await;
        Self::in_namespace(server, namespace, servers, pods, flags).await
    }

    /// The same in a namespace that is there already.
    pub(crate) async fn in_namespace(
        server: &ApiServer,
        namespace: Namespace,
        servers: u8,
        pods: u8,
        flags: &[&str],
    ) -> Self {
        let addresses: Vec<Ipv4Addr> = (1..=servers).map(|place| namespace.address(place)).collect();
        let port = free_port(&addresses);
        let process = simulate(&addresses, port, &[]).await;
        namespace.pool(&[port]).await;
        for place in 1..=pods {
            namespace.pod(&format!("pod-{place}"), namespace.address(place)).await;
        }
        let pointsman = picker(server, &namespace, flags).await;
        let envoy = Envoy::start(pointsman.grpc, true, BodyMode::FullDuplexStreamed).await;
        let stage = Self { namespace, pointsman, envoy, port, _servers: process };
        stage.has_endpoints(usize::from(pods)).await;
        stage
    }

    /// Waits until the picker knows this many endpoints, all scraped.
    pub(crate) async fn has_endpoints(&self, count: usize) {
        for gauge in ["pointsman_pool_endpoints", "llm_d_epp_ready_endpoints"] {
            holds(&format!("{gauge} is {count}"), async || {
                self.pointsman.metric(gauge, &[]).await == Some(count as f64)
            })
            .await;
        }
    }

    /// Where the server of this place listens.
    pub(crate) fn target(&self, place: u8) -> SocketAddr {
        SocketAddr::new(self.namespace.address(place).into(), self.port)
    }

    /// A client of the pool.
    pub(crate) fn client(&self) -> Client {
        self.envoy.http1()
    }

    /// The picker's view of its endpoints: address of each.
    pub(crate) async fn endpoints(&self) -> Vec<String> {
        let page = Client::http1(self.pointsman.metrics).get("/debug/pool").await.json();
        let endpoints = page["endpoints"].as_array().unwrap().iter();
        endpoints.map(|endpoint| endpoint["address"].as_str().unwrap().to_owned()).collect()
    }

    /// An objective of the current group.
    pub(crate) async fn objective(&self, name: &str, priority: i32) {
        self.namespace
            .apply(&json!({
                "apiVersion": "llm-d.ai/v1alpha2",
                "kind": "InferenceObjective",
                "metadata": {"name": name},
                "spec": {"priority": priority, "poolRef": {"name": POOL}},
            }))
            .await;
    }
}

/// Starts the program as the chart would, with the token of the namespace's account.
pub(crate) async fn picker(server: &ApiServer, namespace: &Namespace, flags: &[&str]) -> Pointsman {
    picker_in(server, namespace, "pool-epp-7d9f8c6b5-x2x4z", flags).await
}

/// The same in the pod of this name.
pub(crate) async fn picker_in(
    server: &ApiServer,
    namespace: &Namespace,
    pod: &str,
    flags: &[&str],
) -> Pointsman {
    picker_with(&server.kubeconfig(&namespace.token), namespace, pod, flags).await
}

/// The same with this kubeconfig.
pub(crate) async fn picker_with(
    kubeconfig: &Path,
    namespace: &Namespace,
    pod: &str,
    flags: &[&str],
) -> Pointsman {
    let kubeconfig = kubeconfig.display().to_string();
    let environment = [("KUBECONFIG", kubeconfig.as_str()), ("POD_NAME", pod)];
    let usual = [
        "--config-text",
        CONFIG,
        "--tracing=false",
        "--pool-name",
        POOL,
        "--pool-namespace",
        &namespace.name,
        "--metrics-endpoint-auth=false",
    ];
    Pointsman::start_in(&environment, &[&usual, flags].concat()).await
}

/// Simulated servers on these addresses, all on one port.
pub(crate) async fn simulate(addresses: &[Ipv4Addr], port: u16, flags: &[&str]) -> Process {
    let mut args: Vec<String> =
        vec!["sim".into(), "--port".into(), port.to_string(), "--print-addresses".into()];
    for address in addresses {
        args.extend(["--address".to_owned(), address.to_string()]);
    }
    args.extend(flags.iter().map(|flag| (*flag).to_owned()));
    let mut process = Process::start("sim", &program(), args);
    let last = format!("sim-{} ", addresses.len() - 1);
    process.line("the last server listens", |line| line.starts_with(&last).then_some(())).await;
    process
}

/// A port that is free on all of these addresses.
pub(crate) fn free_port(addresses: &[Ipv4Addr]) -> u16 {
    let free = || {
        let first = TcpListener::bind((addresses[0], 0)).ok()?;
        let port = first.local_addr().ok()?.port();
        let others: Vec<_> =
            addresses[1..].iter().map(|address| TcpListener::bind((*address, port))).collect();
        others.iter().all(Result::is_ok).then_some(port)
    };
    (0..100).find_map(|_| free()).expect("a port that is free on all addresses")
}

/// Waits until the object has a condition of this type and gives its status and message.
pub(crate) async fn condition(
    namespace: &Namespace,
    (group, kind, name): (&str, &str, &str),
    condition: &str,
    status: &str,
) -> String {
    eventually(&format!("{kind} {name} has {condition}={status}"), async || {
        let object = namespace.get(group, "v1alpha2", kind, name).await;
        let conditions = object["status"]["conditions"].as_array()?.clone();
        let found = conditions.iter().find(|one| one["type"] == condition && one["status"] == status)?;
        Some(found["message"].as_str().unwrap_or_default().to_owned())
    })
    .await
}
