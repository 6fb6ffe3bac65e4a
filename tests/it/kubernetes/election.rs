//! Three replicas, one of which leads.

use std::time::{Duration, Instant};

use k8s_openapi::jiff::Timestamp;
use tonic::transport::Channel;
use tonic_health::pb::health_check_response::ServingStatus;

use crate::support::cluster::{ApiServer, CONFIG, Namespace, Traffic, free_port, picker, simulate};
use crate::support::{BodyMode, Envoy, Pointsman, Recorder, eventually, health, holds};

/// The lease of these tests; 15 s in the field.
const LEASE: Duration = Duration::from_secs(6);
const FLAGS: [&str; 4] = ["--ha-enable-leader-election", "--ha-lease-duration=6s", "--drain-timeout", "3s"];

struct Running {
    namespace: Namespace,
    replicas: Vec<Pointsman>,
    envoy: Envoy,
    _servers: crate::support::process::Process,
}

/// A pool of two pods, three replicas, and Envoy in front of them with health checks.
async fn start(server: &ApiServer) -> Running {
    let namespace = Namespace::with_chart_rights(
        server,
        &["inferenceExtension.replicas=3,inferenceExtension.activeActive=false"],
    )
    .await;
    let addresses = [1, 2].map(|place| namespace.address(place));
    let port = free_port(&addresses);
    let servers = simulate(&addresses, port, &[]).await;
    namespace.pool(&[port]).await;
    for (number, address) in addresses.into_iter().enumerate() {
        namespace.pod(&format!("pod-{number}"), address).await;
    }
    let mut replicas = Vec::new();
    for _ in 0..3 {
        replicas.push(picker(server, &namespace, &FLAGS).await);
    }
    for replica in &replicas {
        holds("every replica knows the pool", async || {
            replica.metric("pointsman_pool_endpoints", &[]).await == Some(2.0)
        })
        .await;
    }
    let ports: Vec<_> = replicas.iter().map(|replica| replica.grpc).collect();
    let envoy = Envoy::start_with_several(&ports, true, BodyMode::FullDuplexStreamed).await;
    Running { namespace, replicas, envoy, _servers: servers }
}

async fn is_ready(replica: &Pointsman, service: &str) -> bool {
    let Ok(channel) = Channel::from_shared(format!("http://{}", replica.health)).unwrap().connect().await
    else {
        return false;
    };
    health(&channel, service).await == Some(ServingStatus::Serving)
}

/// Number of the one replica that is ready.
async fn leader(replicas: &[Pointsman]) -> usize {
    eventually("one replica leads", async || {
        let mut ready = Vec::new();
        for (number, replica) in replicas.iter().enumerate() {
            if is_ready(replica, "readiness").await {
                ready.push(number);
            }
        }
        assert!(ready.len() <= 1, "{ready:?} are ready at once");
        ready.first().copied()
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_is_killed_is_replaced_long_before_its_lease_runs_out_and_standbys_answer_at_once() {
    let server = ApiServer::shared().await;
    let mut all = start(server).await;
    let first = leader(&all.replicas).await;
    for replica in &all.replicas {
        assert!(is_ready(replica, "liveness").await);
    }
    let traffic = Traffic::start(all.envoy.addr, 2);
    holds("traffic flows", async || traffic.count() > 50).await;

    let mut killed = all.replicas.remove(first);
    let at = Instant::now();
    killed.process.kill().await;
    // While none is ready Envoy sends to all: the standbys know the pool and answer rightly.
    holds("requests are answered again", async || {
        let before = traffic.count();
        holds("more requests end", async || traffic.count() > before + 20).await;
        traffic.good_since(at) > 20
    })
    .await;
    let restored = at.elapsed();
    assert!(restored < LEASE, "answers again after {restored:?}");
    leader(&all.replicas).await;
    let took = at.elapsed();
    // The standbys are refused where it listened. Most of this is room for a busy machine.
    println!("killed: a new leader after {took:?}");
    assert!(took < LEASE / 2, "a new leader after {took:?}");

    // Once Envoy has seen who leads, nothing fails any more.
    holds("envoy has found the new leader", async || {
        let from = Instant::now();
        holds("forty more are answered", async || traffic.good_since(from) >= 40).await;
        traffic.bad_since(from) == 0
    })
    .await;
    let settled = Instant::now();
    assert!(settled - at < LEASE * 2, "settled after {:?}", settled - at);
    holds("a hundred more are answered", async || traffic.good_since(settled) >= 100).await;
    assert_eq!(traffic.bad_since(settled), 0);
    traffic.stop().await;
    let lease = all.namespace.get("coordination.k8s.io", "v1", "Lease", &lease_name(&all.namespace)).await;
    assert!(lease["spec"]["leaseTransitions"].as_u64() >= Some(1), "{lease}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_is_asked_to_end_hands_over_at_once_and_no_request_is_lost() {
    let server = ApiServer::shared().await;
    let mut all = start(server).await;
    let first = leader(&all.replicas).await;
    let traffic = Traffic::start(all.envoy.addr, 2);
    holds("traffic flows", async || traffic.count() > 50).await;

    let mut leaving = all.replicas.remove(first);
    let at = Instant::now();
    leaving.process.terminate().await;
    leader(&all.replicas).await;
    let took = at.elapsed();
    println!("handed over after {took:?}");
    assert!(took < LEASE / 2, "handed over after {took:?}: not before the lease ran out");
    assert!(leaving.process.ended().await.success());
    let count = traffic.count();
    holds("traffic goes on", async || traffic.count() > count + 50).await;
    traffic.stop_all_good().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_without_the_api_server_steps_down_but_lives_and_leads_again_afterwards() {
    let server = ApiServer::start().await;
    server.install_definitions().await;
    let namespace = Namespace::with_chart_rights(
        &server,
        &["inferenceExtension.replicas=2,inferenceExtension.activeActive=false"],
    )
    .await;
    namespace.pool(&[8000]).await;
    let mut replica = picker(&server, &namespace, &FLAGS).await;
    holds("it leads", async || replica.metric("pointsman_leader", &[]).await == Some(1.0)).await;
    server.stop();
    holds("it steps down", async || replica.metric("pointsman_leader", &[]).await == Some(0.0)).await;
    assert!(!is_ready(&replica, "readiness").await && is_ready(&replica, "liveness").await);
    server.resume().await;
    holds("it leads again", async || replica.metric("pointsman_leader", &[]).await == Some(1.0)).await;
    assert!(replica.process.runs());
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_that_know_no_pool_until_they_lead_serve_to_the_end_of_their_drain() {
    let server = ApiServer::shared().await;
    let namespace = Namespace::with_chart_rights(
        server,
        &["inferenceExtension.replicas=2,inferenceExtension.activeActive=false"],
    )
    .await;
    namespace.pool(&[8000]).await;
    namespace.pod("pod-1", namespace.address(1)).await;
    let config = format!("{CONFIG}featureGates: [haPopulateNonLeaderDatastore=false]\n");
    let flags = ["--config-text", &config, "--secure-serving=false", "--drain-timeout", "60s"];
    let flags = [&FLAGS[..], &flags].concat();
    let mut first = picker(server, &namespace, &flags).await;
    let endpoints = async |replica: &Pointsman| replica.metric("pointsman_pool_endpoints", &[]).await;
    holds("the leader knows the pool", async || endpoints(&first).await == Some(1.0)).await;
    let second = picker(server, &namespace, &flags).await;
    holds("it stands by", async || second.metric("pointsman_leader", &[]).await == Some(0.0)).await;
    assert_eq!(second.metric("pointsman_discovery_synced", &[]).await, None, "it watches nothing");

    // A connection over which something was asked keeps the first from ending at once.
    let open = Channel::from_shared(format!("http://{}", first.grpc)).unwrap().connect().await.unwrap();
    assert_eq!(health(&open, "readiness").await, Some(ServingStatus::Serving));
    first.process.terminate().await;
    holds("the second leads", async || second.metric("pointsman_leader", &[]).await == Some(1.0)).await;
    assert_eq!(endpoints(&first).await, Some(1.0), "who ends serves until then");
    holds("the second knows the pool", async || endpoints(&second).await == Some(1.0)).await;
    drop(open);
    assert!(first.process.ended().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_election_has_a_thread_of_its_own_that_nothing_else_can_keep_busy() {
    let server = ApiServer::shared().await;
    let namespace = Namespace::with_chart_rights(
        server,
        &["inferenceExtension.replicas=2,inferenceExtension.activeActive=false"],
    )
    .await;
    namespace.pool(&[8000]).await;
    let replica = picker(server, &namespace, &FLAGS).await;
    holds("it leads", async || replica.metric("pointsman_leader", &[]).await == Some(1.0)).await;
    let before = replica.process.thread_cpu("election").expect("a thread for the election");
    // Renewals cost it time, so it is there that they are made.
    holds("it works", async || replica.process.thread_cpu("election").is_some_and(|now| now > before)).await;
    assert!(replica.process.thread_cpu("background").is_some());
}

/// A metrics page of the largest size that is read, nearly all of it lines that nobody asked for.
fn huge_page() -> &'static str {
    let mut page = String::from("# TYPE vllm:num_requests_waiting gauge\nvllm:num_requests_waiting 1\n");
    for number in 0.. {
        let line = format!("vllm:num_requests_waited{{engine=\"{number}\",model_name=\"m\"}} {number}.5\n");
        if page.len() + line.len() > 8 << 20 {
            break;
        }
        page.push_str(&line);
    }
    page.leak()
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_that_keep_the_scraping_busy_with_huge_pages_delay_no_renewal() {
    const PODS: u8 = 12;
    const RENEWALS: usize = 20;
    let server = ApiServer::shared().await;
    let namespace = Namespace::with_chart_rights(
        server,
        &["inferenceExtension.replicas=2,inferenceExtension.activeActive=false"],
    )
    .await;
    let addresses: Vec<_> = (1..=PODS).map(|place| namespace.address(place)).collect();
    let (port, page) = (free_port(&addresses), huge_page());
    let mut pods = Vec::new();
    for (number, address) in addresses.into_iter().enumerate() {
        pods.push(Recorder::start_at((address, port).into(), page).await);
        namespace.pod(&format!("pod-{number}"), address).await;
    }
    namespace.pool(&[port]).await;
    // The shortest lease: renewed every 400 ms, and given up by a leader that could not renew it for 2 s.
    let flags = ["--ha-enable-leader-election", "--ha-lease-duration=3s"];
    let replica = picker(server, &namespace, &flags).await;
    let read = async || replica.metric("pointsman_scrape_bytes_total", &[]).await.unwrap_or(0.0);
    holds("pages are read", async || read().await > page.len() as f64).await;

    let cpu = |name| replica.process.thread_cpu(name).unwrap();
    let before = (cpu("background"), cpu("election"), read().await);
    let mut renewals = Vec::new();
    holds("the lease was renewed twenty times", async || {
        let lease = namespace.get("coordination.k8s.io", "v1", "Lease", &lease_name(&namespace)).await;
        assert_eq!(lease["spec"]["leaseTransitions"].as_u64().unwrap_or(0), 0, "{lease}");
        let at: Timestamp = lease["spec"]["renewTime"].as_str().unwrap().parse().unwrap();
        if renewals.last() != Some(&at) {
            renewals.push(at);
        }
        renewals.len() > RENEWALS
    })
    .await;
    let (background, election) =
        (cpu("background").saturating_sub(before.0), cpu("election").saturating_sub(before.1));
    let gaps = renewals.windows(2).map(|pair| Duration::try_from(pair[1] - pair[0]).unwrap());
    let longest = gaps.max().unwrap();
    println!("longest gap {longest:?}; background {background:?}, election {election:?} of processor time");
    assert!(background > election * 10, "{background:?} and {election:?}: the scraping was not busy");
    assert!(read().await - before.2 > 10.0 * page.len() as f64, "few pages were read");
    assert!(longest < Duration::from_secs(2), "{longest:?} between two renewals");
    assert_eq!(replica.metric("pointsman_leader", &[]).await, Some(1.0));
    assert_eq!(replica.metric("pointsman_leader_transitions_total", &[]).await, Some(1.0));
}

fn lease_name(namespace: &Namespace) -> String {
    format!("epp-{}-pool.llm-d.ai", namespace.name)
}
