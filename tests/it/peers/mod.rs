//! Several replicas that know together what one would know alone.

mod bad_lines;
mod certificates;
mod cost;
mod limits;
mod over;
mod replicas;
mod restart;
mod rollout;
mod server;
mod strangers;
mod through_envoy;

use std::net::SocketAddr;
use std::time::Duration;

use over::{Over, over_both};
use replicas::{Replicas, open};

use crate::support::{EndpointsFile, Fleet, Proxy, config, eventually, holds};

/// A name that spreads prompts by prefix alone.
const PREFIX: &[(&str, u32)] = &[("prefix-cache-scorer", 1)];
/// The scorer that counts requests in flight.
const ACTIVE: &[(&str, u32)] = &[("active-request-scorer", 1)];

over_both!(
    replicas_agree_on_what_is_in_flight_also_after_one_was_killed,
    requests_that_peers_serve_count_in_the_choice_of_an_endpoint,
    a_prompt_goes_where_any_replica_has_sent_it_before,
    a_new_replica_is_told_what_its_peers_know_before_it_is_ready,
);

async fn replicas_agree_on_what_is_in_flight_also_after_one_was_killed(over: &Over) {
    let fleet = Fleet::start(4, &[]).await;
    let endpoints = EndpointsFile::with(fleet.list());
    let mut replicas = Replicas::over(over, 3, &config(&endpoints.path(), ACTIVE), &[]).await;
    replicas.all_follow().await;

    let mut exchanges = Vec::new();
    for (number, replica) in replicas.running().enumerate() {
        let proxy = Proxy::connect(replica.grpc).await;
        for turn in 0..=number {
            exchanges.push((number, open(&proxy, &format!("{number} {turn}")).await));
        }
    }
    // One, two and three requests.
    replicas.agree_on(6).await;
    let (_, (exchange, _)) = exchanges.remove(0);
    drop(exchange);
    replicas.agree_on(5).await;

    let died = std::time::Instant::now();
    replicas.kill(2).await;
    replicas.agree_on(2).await;
    assert!(died.elapsed() < Duration::from_secs(3), "{:?}", died.elapsed());

    // Another life begins with nothing, learns what the others have, and is heard again.
    replicas.begin_again(2).await;
    replicas.agree_on(2).await;
    let proxy = Proxy::connect(replicas.running().nth(2).unwrap().grpc).await;
    exchanges.push((2, open(&proxy, "again").await));
    replicas.agree_on(3).await;
    exchanges.clear();
    replicas.agree_on(0).await;
}

async fn requests_that_peers_serve_count_in_the_choice_of_an_endpoint(over: &Over) {
    let fleet = Fleet::start(6, &[]).await;
    let endpoints = EndpointsFile::with(fleet.list());
    let replicas = Replicas::over(over, 2, &config(&endpoints.path(), ACTIVE), &[]).await;
    replicas.all_follow().await;
    let mut open_ones = Vec::new();
    let mut chosen = std::collections::BTreeSet::new();
    for number in 0..6 {
        let proxy = Proxy::connect(replicas.running().nth(number % 2).unwrap().grpc).await;
        let (exchange, endpoint) = open(&proxy, &format!("request {number}")).await;
        chosen.insert(endpoint);
        open_ones.push(exchange);
        replicas.agree_on(number as u64 + 1).await;
    }
    assert_eq!(chosen.len(), 6, "each endpoint has one, whoever sent it: {chosen:?}");
}

/// A prompt of some blocks that nothing else begins like.
fn prompt(number: usize) -> String {
    format!("{number} is the number of this prompt. ").repeat(100)
}

/// How many of `count` prompts go to the same endpoint at the second replica as at the first.
async fn found_again(replicas: &Replicas, count: usize) -> usize {
    let mut proxies = Vec::new();
    for replica in replicas.running() {
        proxies.push(Proxy::connect(replica.grpc).await);
    }
    let mut same = 0;
    for number in 0..count {
        let (_, first) = open(&proxies[0], &prompt(number)).await;
        // What was assigned is told within milliseconds.
        tokio::time::sleep(Duration::from_millis(60)).await;
        let (_, second) = open(&proxies[1], &prompt(number)).await;
        same += usize::from(first == second);
    }
    same
}

async fn a_prompt_goes_where_any_replica_has_sent_it_before(over: &Over) {
    let fleet = Fleet::start(8, &[]).await;
    let endpoints = EndpointsFile::with(fleet.list());
    let replicas = Replicas::over(over, 2, &config(&endpoints.path(), PREFIX), &[]).await;
    replicas.all_follow().await;
    assert_eq!(found_again(&replicas, 12).await, 12);
    let taken = replicas.running().nth(1).unwrap();
    let taken = taken.metric("pointsman_peer_assignments_total", &[("outcome", "taken")]).await;
    assert!(taken.is_some_and(|taken| taken >= 12.0), "{taken:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_peers_each_replica_knows_its_own_prompts_alone() {
    let fleet = Fleet::start(8, &[]).await;
    let endpoints = EndpointsFile::with(fleet.list());
    let replicas = Replicas::alone(2, &endpoints, PREFIX).await;
    let same = found_again(&replicas, 12).await;
    assert!(same < 9, "{same} of 12 would be an accident");
}

async fn a_new_replica_is_told_what_its_peers_know_before_it_is_ready(over: &Over) {
    let fleet = Fleet::start(8, &[]).await;
    let endpoints = EndpointsFile::with(fleet.list());
    let mut replicas = Replicas::over(over, 2, &config(&endpoints.path(), PREFIX), &[]).await;
    replicas.all_follow().await;
    replicas.kill(1).await;
    let first = Proxy::connect(replicas.running().next().unwrap().grpc).await;
    let mut sent = Vec::new();
    for number in 0..10 {
        sent.push(open(&first, &prompt(number)).await.1);
    }
    replicas.begin_again(1).await;
    replicas.is_ready(1).await;
    let second = Proxy::connect(replicas.running().nth(1).unwrap().grpc).await;
    for (number, expected) in sent.iter().enumerate() {
        assert_eq!(open(&second, &prompt(number)).await.1, *expected, "prompt {number}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_of_peers_says_how_this_replica_stands_to_each() {
    let fleet = Fleet::start(1, &[]).await;
    let endpoints = EndpointsFile::with(fleet.list());
    let mut replicas = Replicas::start(2, &endpoints, ACTIVE, &["--peer-plaintext"]).await;
    replicas.all_follow().await;
    let page = replicas.page(0, "/debug/peers").await;
    let states = |page: &serde_json::Value| -> Vec<String> {
        let peers = page["peers"].as_array().unwrap();
        peers.iter().map(|peer| peer["state"].as_str().unwrap().to_owned()).collect()
    };
    // The list names this replica too.
    let mut found = states(&page);
    found.sort();
    assert_eq!(found, ["alias", "following"], "{page}");
    assert_eq!((page["followers"].as_u64(), page["tls"].as_bool()), (Some(1), Some(false)), "{page}");
    replicas.kill(1).await;
    eventually("the other one is missed", async || {
        let page = replicas.page(0, "/debug/peers").await;
        states(&page).contains(&"missing".to_owned()).then_some(())
    })
    .await;
    let lone = replicas.running().next().unwrap();
    holds("the metric says so too", async || {
        lone.metric("pointsman_peers", &[("state", "missing")]).await == Some(1.0)
    })
    .await;
    let alone: SocketAddr = Replicas::alone(1, &endpoints, ACTIVE).await.running().next().unwrap().metrics;
    assert_ne!(alone, lone.metrics);
}
