//! Replicas that are replaced one by one, and one that dies, behind Envoy and under load.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::Value;
use tokio::time::sleep;

use super::replicas::{Replicas, free_port};
use crate::lost_peers::load::{Ended, Load, Outcome};
use crate::support::{BodyMode, EndpointsFile, Envoy, Fleet, chat, config, holds};

const SCORERS: &[(&str, u32)] = &[("prefix-cache-scorer", 3), ("no-hit-lru-scorer", 1)];
const SERVERS: usize = 6;
/// Beginnings of prompts.
const GROUPS: u64 = 24;
/// Pause between two requests.
const EVERY: Duration = Duration::from_millis(5);

fn group(number: u64) -> u64 {
    number % GROUPS
}

fn request(number: u64) -> Value {
    let beginning = format!("Beginning {} of a long prompt that others share. ", group(number)).repeat(30);
    chat(&format!("{beginning}{number}"), 3, number.is_multiple_of(3))
}

/// Three replicas on ports that stay theirs, behind Envoy.
async fn behind_envoy(endpoints: &EndpointsFile) -> (Replicas, Envoy) {
    let flags = ["--peer-plaintext", "--drain-timeout=1500ms", "--linger-timeout=5s"];
    let text = config(&endpoints.path(), SCORERS);
    let mut replicas = Replicas::none(3, &text, &flags);
    let mut ports = Vec::new();
    for number in 0..3 {
        let port = free_port();
        ports.push(port);
        replicas.add_flags(number, [format!("--grpc-port={}", port.port())]);
        replicas.begin_again(number).await;
    }
    replicas.all_follow().await;
    let envoy = Envoy::start_with_several(&ports, false, BodyMode::FullDuplexStreamed).await;
    all_healthy(&envoy).await;
    (replicas, envoy)
}

async fn all_healthy(envoy: &Envoy) {
    holds("envoy finds three healthy replicas", async || {
        envoy.stat("cluster.ext_proc.membership_healthy").await == 3
    })
    .await;
}

/// Share of the requests begun at or after `from` that went where a prompt of their group had gone before.
fn hit_rate(outcome: &Outcome, from: Duration, to: Duration) -> f64 {
    let mut by_begin: Vec<&Ended> = outcome.0.iter().collect();
    by_begin.sort_by_key(|request| request.begun);
    let mut seen: BTreeMap<u64, BTreeSet<&str>> = BTreeMap::new();
    let (mut hits, mut all) = (0_u32, 0_u32);
    for request in by_begin {
        let new = seen.entry(group(request.number)).or_default().insert(&request.server);
        if (from..to).contains(&request.begun) {
            all += 1;
            hits += u32::from(!new);
        }
    }
    assert!(all > 100, "{all} requests tell nothing");
    f64::from(hits) / f64::from(all)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_restart_of_three_replicas_loses_no_request_and_keeps_the_hits() {
    let fleet = Fleet::start(SERVERS, &[]).await;
    let endpoints = EndpointsFile::with(fleet.list());
    let (mut replicas, envoy) = behind_envoy(&endpoints).await;
    let load = Load::paced(envoy.http2(), EVERY, request);
    sleep(Duration::from_secs(1)).await;
    let from = load.age();
    for number in 0..3 {
        replicas.end(number).await;
        replicas.begin_again(number).await;
        replicas.is_ready(number).await;
        all_healthy(&envoy).await;
    }
    let done = load.age();
    sleep(Duration::from_secs(1)).await;
    let end = load.age();
    let outcome = load.finish().await;
    outcome.told("three replicas replaced one by one", outcome.last_failure(from, end));
    assert_eq!(outcome.lost(), 0);
    let half = Duration::from_millis(300);
    let (before, after) = (hit_rate(&outcome, half, from), hit_rate(&outcome, done, end));
    eprintln!("hit rate {before:.3} before, {after:.3} after");
    assert!(after >= before - 0.05, "{before} before, {after} after");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_is_killed_costs_its_open_streams_alone() {
    let fleet = Fleet::start(SERVERS, &["--inter-token-ms", "100"]).await;
    let endpoints = EndpointsFile::with(fleet.list());
    let (mut replicas, envoy) = behind_envoy(&endpoints).await;
    let load = Load::start(envoy.http2(), request);
    sleep(Duration::from_secs(1)).await;
    let open: f64 = replicas.one(2).metric("pointsman_endpoint_in_flight_requests", &[]).await.unwrap_or(0.0);
    let died = load.age();
    replicas.kill(2).await;
    let dead = load.age();
    // The others know within three seconds that what it had under way is free.
    let told = std::time::Instant::now();
    holds("the dead one's share is gone", async || {
        let mut gone = true;
        for replica in replicas.running() {
            let peers = replica.metric("pointsman_peers", &[("state", "following")]).await;
            gone &= peers == Some(1.0);
        }
        gone
    })
    .await;
    let took = told.elapsed();
    sleep(Duration::from_secs(2)).await;
    let outcome = load.finish().await;
    outcome.told("one of three killed", outcome.last_failure(died, Duration::from_secs(5)));
    let late: Vec<&Ended> =
        outcome.0.iter().filter(|request| request.fault.is_some() && request.begun > dead).collect();
    assert!(late.is_empty(), "{} requests that began after the end failed", late.len());
    // Some began between the look and the end.
    let most = open as usize + 10;
    assert!(outcome.lost() <= most, "{} lost, {open} were open", outcome.lost());
    assert!(took < Duration::from_secs(3), "{took:?}");
}
