//! The API server goes away and comes back.

use std::time::{Duration, Instant};

use crate::support::cluster::{ApiServer, Stage, Traffic};
use crate::support::holds;

/// Ages of the lost watch that are waited for, in seconds: the API server is away for the last of them.
const AGES: [f64; 3] = [20.0, 40.0, 60.0];

#[tokio::test(flavor = "multi_thread")]
async fn an_api_server_that_is_away_for_a_minute_costs_no_request_and_is_caught_up_with_in_two_seconds() {
    let server = ApiServer::start().await;
    server.install_definitions().await;
    let stage = Stage::start(&server, 3, 2, &[]).await;
    let traffic = Traffic::start(stage.envoy.addr, 2);
    let synced = async |resource: &str| {
        stage.pointsman.metric("pointsman_discovery_synced", &[("resource", resource)]).await
    };
    assert_eq!(synced("pods").await, Some(1.0));

    server.stop();
    holds("the lost watch shows", async || synced("pods").await == Some(0.0)).await;
    for seconds in AGES {
        holds("its age grows", async || {
            let age =
                stage.pointsman.metric("pointsman_discovery_age_seconds", &[("resource", "pods")]).await;
            age.is_some_and(|age| age >= seconds)
        })
        .await;
    }
    assert_eq!(stage.endpoints().await.len(), 2, "the last known pool stays in force");

    server.resume().await;
    // What happens right after the return: one pod goes, another comes.
    stage.namespace.delete_pod("pod-1").await;
    stage.namespace.pod("pod-3", stage.namespace.address(3)).await;
    let changed = Instant::now();
    let expected = [2, 3].map(|place| stage.target(place).to_string());
    holds("the pool is as the API says", async || stage.endpoints().await == expected).await;
    let took = changed.elapsed();
    assert!(took < Duration::from_secs(2), "caught up after {took:?}");
    holds("every watch is live", async || {
        let sum = async |name: &str| stage.pointsman.metric(name, &[]).await;
        let synced = sum("pointsman_discovery_synced").await == Some(6.0);
        synced && sum("pointsman_discovery_age_seconds").await == Some(0.0)
    })
    .await;
    let sent = traffic.stop_all_good().await;
    assert!(sent.len() > 1000, "only {} requests", sent.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_picker_that_starts_while_the_api_server_is_away_serves_when_it_is_back() {
    let server = ApiServer::start().await;
    server.install_definitions().await;
    let stage = Stage::start(&server, 1, 1, &[]).await;
    server.stop();
    let late = crate::support::cluster::picker(&server, &stage.namespace, &[]).await;
    holds("the attempts are counted", async || {
        let failures = late.metric("pointsman_discovery_errors_total", &[("reason", "unavailable")]).await;
        failures.is_some_and(|failures| failures > 2.0)
    })
    .await;
    server.resume().await;
    holds("it knows the pool", async || late.metric("pointsman_pool_endpoints", &[]).await == Some(1.0))
        .await;
}
