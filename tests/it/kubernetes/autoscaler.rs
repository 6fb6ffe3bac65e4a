//! KEDA's client of two replicas, one of which leads: what it hears when the leader is killed, loses the lease, or
//! drains.

use std::path::Path;
use std::time::{Duration, Instant};

use http_body_util::BodyExt as _;
use tokio::task::JoinSet;
use tonic::Code;

use crate::support::cluster::{
    ApiServer, Backend, Namespace, Service, Wire, free_port, picker_with, simulate,
};
use crate::support::{BodyMode, Client, Envoy, Keda, Pointsman, chat, eventually, holds, within};

/// The lease of these tests, the shortest there is; 15 s in the field.
const LEASE: Duration = Duration::from_secs(3);
/// While nobody leads, the client cannot connect. gRPC tries again after 1 s, a fifth more or less. The next leader is
/// there by then: it has asked the former one, and does not wait until the lease runs out.
const BOUND: Duration = Duration::from_secs(2);
/// KEDA's own pause between a stream that ended in order and the next, and room for a busy machine.
const PAUSE: Duration = Duration::from_secs(2 + 1);
/// The same when that next stream found nobody who leads: the second pause is twice as long.
const PAUSES: Duration = Duration::from_secs(2 + 4 + 1);
const FLAGS: [&str; 6] = [
    "--ha-enable-leader-election",
    "--ha-lease-duration=3s",
    "--keda-scaler-port=0",
    "--drain-timeout=20s",
    "--linger-timeout=20s",
    "--metrics-staleness-threshold=5s",
];
/// Requests that run through Envoy and the picker, and those that are sent straight to a server.
const PICKED: usize = 3;
const STRAIGHT: usize = 2;

struct Running {
    keda: Keda,
    leader: Pointsman,
    standby: Pointsman,
    /// The leader's way to the API server.
    wire: Wire,
    _service: Service,
    _requests: JoinSet<()>,
    _envoy: Envoy,
    _namespace: Namespace,
    _servers: crate::support::process::Process,
}

/// A busy pool, two replicas, and an autoscaler that has heard of the requests.
async fn start(server: &ApiServer) -> Running {
    let namespace = Namespace::with_chart_rights(
        server,
        &["inferenceExtension.replicas=2,inferenceExtension.activeActive=false"],
    )
    .await;
    let addresses = [1, 2].map(|place| namespace.address(place));
    let port = free_port(&addresses);
    let servers = simulate(&addresses, port, &["--inter-token-ms", "50"]).await;
    namespace.pool(&[port]).await;
    for (number, address) in addresses.into_iter().enumerate() {
        namespace.pod(&format!("pod-{number}"), address).await;
    }
    let wire = Wire::to(server.addr()).await;
    let folder = tempfile::tempdir().unwrap();
    let own = folder.path().join("kubeconfig");
    let text = std::fs::read_to_string(server.kubeconfig(&namespace.token)).unwrap();
    std::fs::write(&own, text.replace(&server.addr().to_string(), &wire.addr.to_string())).unwrap();
    let leader = replica(&own, &namespace).await;
    holds("the first leads", async || leader.metric("pointsman_leader", &[]).await == Some(1.0)).await;
    let standby = replica(&server.kubeconfig(&namespace.token), &namespace).await;
    let mut replicas = [leader, standby];
    for replica in &replicas {
        holds("every replica has read the pool", async || {
            replica.metric("llm_d_epp_ready_endpoints", &[]).await == Some(2.0)
        })
        .await;
    }
    let ports: Vec<_> = replicas.iter().map(|replica| replica.grpc).collect();
    let envoy = Envoy::start_with_several(&ports, true, BodyMode::FullDuplexStreamed).await;
    let mut requests = JoinSet::new();
    for _ in 0..PICKED {
        endless(&mut requests, Client::http1(envoy.addr)).await;
    }
    for _ in 0..STRAIGHT {
        endless(&mut requests, Client::http1((addresses[0], port).into())).await;
    }
    let mut backends = Vec::new();
    for replica in &mut replicas {
        let target = replica.keda().await;
        backends.push(Backend { health: replica.health, target });
    }
    let service = Service::start(backends).await;
    let trigger = [("metric", "runningRequests"), ("targetValue", "1"), ("coolDown", "1s")];
    let keda = Keda::start(service.addr, &trigger);
    heard(&keda, (PICKED + STRAIGHT) as f64, Instant::now()).await;
    let [leader, standby] = replicas;
    Running {
        keda,
        leader,
        standby,
        wire,
        _service: service,
        _requests: requests,
        _envoy: envoy,
        _namespace: namespace,
        _servers: servers,
    }
}

async fn replica(kubeconfig: &Path, namespace: &Namespace) -> Pointsman {
    picker_with(kubeconfig, namespace, "pool-epp-7d9f8c6b5-x2x4z", &FLAGS).await
}

/// A request whose answer does not end while it is read.
async fn endless(requests: &mut JoinSet<()>, client: Client) {
    let mut response = client.open("/v1/chat/completions", &chat("on and on", 100_000, true)).await;
    assert_eq!(response.status(), 200);
    assert!(within("first piece", response.body_mut().frame()).await.is_some());
    requests
        .spawn(async move { while response.body_mut().frame().await.is_some_and(|frame| frame.is_ok()) {} });
}

/// Waits until the stream has ended after `from`. It must end in order, for after anything else KEDA waits longer and
/// longer.
async fn left(keda: &Keda, from: Instant) -> Instant {
    let (at, end) = eventually("the stream ends", async || keda.ears().first_end(from)).await;
    assert_eq!(end, Code::Ok);
    at
}

/// Waits until the value is heard, and a stream says "active"; both after `from`, and how long after.
async fn heard(keda: &Keda, value: f64, from: Instant) -> (Duration, Duration) {
    let first = eventually("the right number is heard", async || keda.ears().first_value(value, from)).await;
    let word = eventually("a stream says active", async || keda.ears().first_word(from)).await;
    (first - from, word - from)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_autoscaler_hears_the_next_leader_and_never_of_an_idle_pool_when_the_leader_drains() {
    let mut all = start(ApiServer::shared().await).await;
    let from = Instant::now();
    all.leader.process.terminate().await;
    let left = left(&all.keda, from).await;
    assert!(left - from < Duration::from_secs(1), "at once: {:?}", left - from);
    let (value, word) = heard(&all.keda, (PICKED + STRAIGHT) as f64, left).await;
    println!("drained: number after {value:?}, stream after {word:?}");
    assert!(value < BOUND, "{value:?}");
    assert!(word < PAUSE, "{word:?}");
    assert!(all.leader.process.runs(), "it still drains: its requests run");
    all.keda.ears().assert_always_busy();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_autoscaler_hears_the_next_leader_and_never_of_an_idle_pool_when_the_leader_steps_down() {
    let mut all = start(ApiServer::shared().await).await;
    let from = Instant::now();
    all.wire.cut();
    let left = left(&all.keda, from).await;
    assert!(left - from < LEASE, "before another may lead: {:?}", left - from);
    assert_eq!(all.leader.metric("pointsman_leader", &[]).await, Some(0.0));
    // The lease runs out a third of it later. The other has heard of it before.
    let (value, word) = heard(&all.keda, (PICKED + STRAIGHT) as f64, left).await;
    println!("stepped down: number after {value:?}, stream after {word:?}");
    assert!(value < BOUND, "{value:?}");
    assert!(word < PAUSES, "{word:?}");
    assert!(all.leader.process.runs() && all.standby.process.runs());
    all.keda.ears().assert_always_busy();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_autoscaler_hears_the_next_leader_and_never_of_an_idle_pool_when_the_leader_is_killed() {
    let mut all = start(ApiServer::shared().await).await;
    let from = Instant::now();
    all.leader.process.kill().await;
    // Envoy's requests die with the picker that watches them; those beside it run on.
    let value = eventually("a number is heard", async || {
        let ears = all.keda.ears();
        let first = ears.values.iter().find(|heard| heard.at > from && heard.answer.is_ok())?;
        Some(first.at - from)
    })
    .await;
    println!("killed: number after {value:?}");
    assert!(value < BOUND, "{value:?}");
    let right = [STRAIGHT as f64, (PICKED + STRAIGHT) as f64];
    holds("the stream is back", async || all.keda.ears().first_word(from + value).is_some()).await;
    let ears = all.keda.ears();
    let later = ears.values.iter().filter(|heard| heard.at >= from + value);
    let values: Vec<f64> = later.filter_map(|heard| heard.answer.ok()).collect();
    assert!(values.iter().all(|value| (right[0]..=right[1]).contains(value)), "{values:?}");
    ears.assert_always_busy();
}
