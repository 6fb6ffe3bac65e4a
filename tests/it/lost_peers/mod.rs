//! A picker or a node that is gone, in front of the Envoy files as they ship: how many requests are lost, and for how
//! long.

pub(crate) mod load;

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;
use tokio::time::sleep;

use crate::support::network::{HERE, NODE, Network, ON_THE_NODE};
use crate::support::{BodyMode, EndpointsFile, Envoy, Fleet, Pointsman, SCORERS, chat, config, holds};
use load::Load;

/// What the documentation promises.
const SOON: Duration = Duration::from_secs(5);
/// Load before something happens, and after the last failure that may be.
const CALM: Duration = Duration::from_secs(3);

fn short(number: u64) -> Value {
    chat(&format!("question {number}"), 2, number.is_multiple_of(2))
}

async fn picker(prefix: &[&str], address: &str, endpoints: &EndpointsFile) -> Pointsman {
    let config = config(&endpoints.path(), SCORERS);
    let flags = ["--config-text", config.as_str(), "--tracing=false", "--pool-name", "test-pool"];
    Pointsman::start_at(prefix, address, &flags).await
}

async fn ready(pickers: &[&Pointsman], servers: f64) {
    // The metrics port of a picker on the node is reached over the cable too.
    for picker in pickers {
        holds("every server was scraped", async || {
            picker.metric("llm_d_epp_ready_endpoints", &[]).await == Some(servers)
        })
        .await;
    }
}

/// Waits until Envoy sends to all of its pickers.
async fn all_healthy(envoy: &Envoy, count: u64) {
    holds("envoy finds its pickers healthy", async || {
        envoy.stat("cluster.ext_proc.membership_healthy").await == count
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_picker_whose_node_vanishes_costs_requests_for_less_than_five_seconds() {
    let name = "lost_peers::a_picker_whose_node_vanishes_costs_requests_for_less_than_five_seconds";
    let Some(network) = Network::of_test(name) else { return };
    let fleet = Fleet::start(3, &["--host", &HERE.to_string()]).await;
    let endpoints = EndpointsFile::with(fleet.list());
    let near = picker(&[], &HERE.to_string(), &endpoints).await;
    let far = picker(&ON_THE_NODE, &NODE.to_string(), &endpoints).await;
    ready(&[&near, &far], 3.0).await;
    let envoy = Envoy::start_with_several(&[near.grpc, far.grpc], true, BodyMode::FullDuplexStreamed).await;
    all_healthy(&envoy, 2).await;
    let load = Load::start(envoy.http1(), short);
    sleep(CALM).await;
    let event = load.age();
    network.cut();
    sleep(SOON + CALM).await;
    let outcome = load.finish().await;
    let last = outcome.last_failure(event, SOON);
    outcome.told("picker black-holed, another left", last);
    assert!(outcome.lost() > 0, "the picker that vanished had requests");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_picker_that_is_killed_beside_another_costs_requests_for_less_than_five_seconds() {
    let fleet = Fleet::start(3, &[]).await;
    let endpoints = EndpointsFile::with(fleet.list());
    let near = picker(&[], "127.0.0.1", &endpoints).await;
    let mut other = picker(&[], "127.0.0.1", &endpoints).await;
    ready(&[&near, &other], 3.0).await;
    let envoy = Envoy::start_with_several(&[near.grpc, other.grpc], true, BodyMode::FullDuplexStreamed).await;
    all_healthy(&envoy, 2).await;
    let load = Load::start(envoy.http1(), short);
    sleep(CALM).await;
    let event = load.age();
    other.process.kill().await;
    sleep(SOON + CALM).await;
    let outcome = load.finish().await;
    let last = outcome.last_failure(event, SOON);
    outcome.told("picker killed, another left", last);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_server_whose_node_vanishes_holds_no_client_for_more_than_five_seconds() {
    let name = "lost_peers::a_model_server_whose_node_vanishes_holds_no_client_for_more_than_five_seconds";
    let Some(network) = Network::of_test(name) else { return };
    let flags = ["--inter-token-ms", "100", "--max-num-seqs", "1000"];
    let mut fleet = Fleet::start(1, &[&["--host", &HERE.to_string()], &flags[..]].concat()).await;
    fleet.add(&ON_THE_NODE, "far", &[&["--host", &NODE.to_string()], &flags[..]].concat()).await;
    let endpoints = EndpointsFile::with(fleet.list());
    let picker = picker(&[], &HERE.to_string(), &endpoints).await;
    ready(&[&picker], 2.0).await;
    let envoy = Envoy::start(picker.grpc, true, BodyMode::FullDuplexStreamed).await;
    // Half of the answers run for two seconds: some are under way, others wait for their first byte, when the node
    // vanishes.
    let load = Load::start(envoy.http2(), |number| {
        chat(&format!("question {number}"), 20, number.is_multiple_of(2))
    });
    sleep(CALM).await;
    let event = load.age();
    network.cut();
    sleep(SOON + CALM).await;
    let outcome = load.finish().await;
    let last = outcome.last_failure(event, SOON);
    outcome.told("model server black-holed, another left", last);
    assert!(outcome.lost() > 0, "the server that vanished had requests");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_picker_the_client_gets_a_503_with_a_body_and_a_time_to_come_again() {
    let fleet = Fleet::start(1, &[]).await;
    let endpoints = EndpointsFile::with(fleet.list());
    let mut picker = picker(&[], "127.0.0.1", &endpoints).await;
    ready(&[&picker], 1.0).await;
    let envoy = Envoy::start(picker.grpc, true, BodyMode::FullDuplexStreamed).await;
    all_healthy(&envoy, 1).await;
    picker.process.kill().await;
    let reply = envoy.http1().post("/v1/chat/completions", &chat("anyone", 1, false)).await;
    assert_eq!(reply.status, 503, "{reply:?}");
    assert_eq!(reply.json()["error"]["code"], "picker-unavailable");
    assert_eq!(reply.header("retry-after"), "2");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_anthropic_client_gets_errors_of_its_api_from_envoy_too() {
    let fleet = Fleet::start(1, &[]).await;
    let endpoints = EndpointsFile::with(fleet.list());
    let mut picker = picker(&[], "127.0.0.1", &endpoints).await;
    ready(&[&picker], 1.0).await;
    let envoy = Envoy::start(picker.grpc, true, BodyMode::FullDuplexStreamed).await;
    all_healthy(&envoy, 1).await;
    picker.process.kill().await;
    let reply = envoy.http1().post("/v1/messages", &chat("anyone", 1, false)).await;
    assert_eq!(reply.status, 503, "{reply:?}");
    assert_eq!(reply.json()["type"], "error");
    assert_eq!(reply.json()["error"]["type"], "overloaded_error");
    assert_eq!(reply.header("retry-after"), "2");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_server_that_refuses_connections_is_told_with_a_body_and_a_time_to_come_again() {
    // Nobody listens on the port of a listener that is gone.
    let gone = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let endpoints = EndpointsFile::with([("gone", gone)]);
    let picker = picker(&[], "127.0.0.1", &endpoints).await;
    let envoy = Envoy::start(picker.grpc, true, BodyMode::FullDuplexStreamed).await;
    all_healthy(&envoy, 1).await;
    let reply = envoy.http1().post("/v1/chat/completions", &chat("anyone", 1, false)).await;
    assert_eq!(reply.status, 503, "{reply:?}");
    assert_eq!(reply.json()["error"]["code"], "server-unavailable");
    assert_eq!(reply.header("retry-after"), "1");
    let reply = envoy.http1().post("/v1/messages", &chat("anyone", 1, false)).await;
    assert_eq!(reply.json()["error"]["type"], "overloaded_error", "{reply:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_of_the_picker_reaches_the_client_as_the_picker_wrote_it() {
    let endpoints = EndpointsFile::of("endpoints: []\n");
    let picker = picker(&[], "127.0.0.1", &endpoints).await;
    let envoy = Envoy::start(picker.grpc, true, BodyMode::FullDuplexStreamed).await;
    let reply = envoy.http1().post("/v1/chat/completions", &chat("anyone", 1, false)).await;
    assert_eq!(reply.status, 503, "{reply:?}");
    assert_ne!(reply.json()["error"]["code"], "picker-unavailable");
    assert!(!reply.header("x-llm-d-request-dropped-reason").is_empty(), "{reply:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_fail_open_file_follows_the_picker_and_goes_on_without_it() {
    let fleet = Fleet::start(2, &[]).await;
    let addresses: Vec<SocketAddr> = fleet.servers.iter().map(|server| server.addr).collect();
    let endpoints = EndpointsFile::with(fleet.list());
    let mut picker = picker(&[], "127.0.0.1", &endpoints).await;
    ready(&[&picker], 2.0).await;
    let envoy = Envoy::start_fail_open(picker.grpc, &addresses).await;
    all_healthy(&envoy, 1).await;
    let client = envoy.http1();
    for number in 0..20 {
        let reply = client.post("/v1/chat/completions", &short(number)).await;
        assert_eq!(reply.status, 200, "{reply:?}");
        assert_eq!(reply.header("x-picked"), fleet.named(reply.header("x-sim-server")).addr.to_string());
    }
    let load = Load::start(client, short);
    sleep(CALM).await;
    let event = load.age();
    picker.process.kill().await;
    sleep(SOON + CALM).await;
    let outcome = load.finish().await;
    let last = outcome.last_failure(event, SOON);
    outcome.told("the only picker killed, fail open", last);
    assert!(outcome.lost() <= 20, "{} requests lost", outcome.lost());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_cannot_choose_its_server() {
    let fleet = Fleet::start(2, &[]).await;
    let addresses: Vec<SocketAddr> = fleet.servers.iter().map(|server| server.addr).collect();
    let endpoints = EndpointsFile::with([("sim-0", addresses[0])]);
    let mut picker = picker(&[], "127.0.0.1", &endpoints).await;
    ready(&[&picker], 1.0).await;
    let forged = [("x-gateway-destination-endpoint", addresses[1].to_string())];
    let forged: Vec<(&str, &str)> = forged.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let body = chat("x", 1, false).to_string();
    // Only the first server is listed: whoever reaches the second has chosen it.
    let envoy = Envoy::start_fail_open(picker.grpc, &addresses[..1]).await;
    all_healthy(&envoy, 1).await;
    let reply = envoy.http1().post_with("/v1/chat/completions", &forged, body.clone()).await;
    assert_eq!(reply.header("x-sim-server"), "sim-0", "{reply:?}");
    picker.process.kill().await;
    let reply = envoy.http1().post_with("/v1/chat/completions", &forged, body).await;
    assert_eq!(reply.header("x-sim-server"), "sim-0", "{reply:?}");
}
