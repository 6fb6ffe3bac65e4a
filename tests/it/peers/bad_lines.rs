//! Replicas that hear each other over bad lines.

use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::time::sleep;

use super::certificates::{authority, certificate, flag};
use super::over::with_server;
use super::replicas::{Replicas, free_port, open};
use super::{ACTIVE, PREFIX, prompt};
use crate::support::{Carries, EndpointsFile, Exchange, Fleet, Proxy, Redis, config, holds, within};

/// Time in which all agree after the last fault.
const SOON: Duration = Duration::from_secs(3);
/// Time that a fault lasts.
const WHILE: Duration = Duration::from_millis(450);
/// More requests than a test opens. A count that went below zero would be far beyond it.
const MANY: u64 = 1000;

/// Requests that are open, each with the number of its replica.
struct Streams {
    open: Vec<(usize, Exchange)>,
    sent: usize,
}

impl Streams {
    /// Opens one at each replica that runs, and cancels every third of those there were.
    async fn churn(&mut self, replicas: &Replicas) {
        let mut place = 0_usize;
        self.open.retain(|_| {
            place += 1;
            !place.is_multiple_of(3)
        });
        for number in replicas.numbers() {
            let proxy = Proxy::connect(replicas.one(number).grpc).await;
            self.sent += 1;
            self.open.push((number, open(&proxy, &format!("request {}", self.sent)).await.0));
        }
    }
}

fn secured() -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    certificate(folder.path(), &authority(), "pointsman-peers");
    let flag = flag(folder.path());
    (folder, flag)
}

/// Applies each fault for a while, under load.
async fn suffer(replicas: &Replicas, streams: &mut Streams, faults: &[Carries]) {
    for (turn, fault) in faults.iter().enumerate() {
        // One whose words are not heard by the others, and who does not hear one of them.
        let (heard, other) = (turn % 3, (turn + 1) % 3);
        for follower in (0..3).filter(|follower| *follower != heard) {
            replicas.line(follower, heard, *fault);
        }
        replicas.line(heard, other, *fault);
        streams.churn(replicas).await;
        sleep(WHILE).await;
        for sum in replicas.in_flight().await {
            assert!(sum < MANY, "{sum} in flight is below zero");
        }
        replicas.mend_lines();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_agree_with_the_open_streams_three_seconds_after_the_last_fault() {
    let (_folder, certificates) = secured();
    let fleet = Fleet::start(4, &[]).await;
    let endpoints = EndpointsFile::with(fleet.list());
    let text = config(&endpoints.path(), ACTIVE);
    let flags = [certificates.as_str(), "--drain-timeout=0s", "--linger-timeout=1s"];
    let replicas = Replicas::over_lines(3, &text, &flags).await;
    agree_after_faults(replicas, &fleet, &endpoints).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_agree_three_seconds_after_the_last_fault_of_the_lines_to_a_server() {
    let folder = tempfile::tempdir().unwrap();
    certificate(folder.path(), &authority(), "localhost");
    let at = |name: &str| folder.path().join(name).display().to_string();
    let secure = free_port();
    let (port, cert, key, ca) = (secure.port().to_string(), at("tls.crt"), at("tls.key"), at("ca.crt"));
    let options =
        ["--tls-port", &port, "--tls-cert-file", &cert, "--tls-key-file", &key, "--tls-ca-cert-file", &ca];
    let options = [&options[..], &["--tls-auth-clients", "no"]].concat();
    let Some(_server) = Redis::start(free_port(), &options).await else { return };
    let fleet = Fleet::start(4, &[]).await;
    let endpoints = EndpointsFile::with(fleet.list());
    let text = |port| {
        let server = format!("{{url: \"rediss://localhost:{port}\", caFile: {ca}}}");
        with_server(&config(&endpoints.path(), ACTIVE), &server)
    };
    let flags = ["--drain-timeout=0s", "--linger-timeout=1s"];
    let replicas = Replicas::over_lines_to_a_server(3, secure, text, &flags).await;
    agree_after_faults(replicas, &fleet, &endpoints).await;
}

/// Makes all lines bad in all ways, one after the other.
async fn agree_after_faults(mut replicas: Replicas, fleet: &Fleet, endpoints: &EndpointsFile) {
    replicas.all_follow().await;
    let mut streams = Streams { open: Vec::new(), sent: 0 };

    let late = Carries::Late(Duration::from_millis(30));
    suffer(&replicas, &mut streams, &[Carries::Nothing, late, Carries::Twice, Carries::Swapped]).await;
    // An endpoint goes and comes back while its requests run, and a replica dies without a word.
    endpoints.write(fleet.list().take(3));
    suffer(&replicas, &mut streams, &[Carries::HangsUp]).await;
    endpoints.write(fleet.list());
    replicas.kill(1).await;
    streams.open.retain(|(replica, _)| *replica != 1);
    streams.churn(&replicas).await;
    replicas.begin_again(1).await;
    suffer(&replicas, &mut streams, &[Carries::Swapped, Carries::Nothing]).await;
    streams.churn(&replicas).await;

    let last = Instant::now();
    replicas.agree_on(streams.open.len() as u64).await;
    let took = last.elapsed();
    eprintln!("all agree on {} requests {took:.2?} after the last fault", streams.open.len());
    assert!(took < SOON, "{took:?}");
    streams.open.clear();
    replicas.agree_on(0).await;
    let mut ends = 0.0;
    for replica in replicas.running() {
        ends += replica.metric("pointsman_peer_ends_total", &[]).await.unwrap_or(0.0);
        ends += replica.metric("pointsman_peer_server_ends_total", &[]).await.unwrap_or(0.0);
    }
    assert!(ends > 0.0, "no fault was felt");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_stops_reading_harms_nobody_and_gets_a_snapshot_afterwards() {
    let fleet = Fleet::start(4, &[]).await;
    let endpoints = EndpointsFile::with(fleet.list());
    let replicas = Replicas::over_lines(2, &config(&endpoints.path(), PREFIX), &["--peer-plaintext"]).await;
    replicas.all_follow().await;
    let told = replicas.one(0);
    let snapshots =
        async || told.metric("pointsman_peer_snapshots_total", &[("direction", "sent")]).await.unwrap_or(0.0);
    let (before, memory) = (snapshots().await, told.process.memory());
    // The second replica reads nothing of the first one any more.
    replicas.line(1, 0, Carries::Unread);
    let proxy = Proxy::connect(told.grpc).await;
    let mut slowest = Duration::ZERO;
    for number in 0..300 {
        let asked = Instant::now();
        // Prompts of some hundred blocks, so that what there is to say is more than buffers hold.
        let text = prompt(number).repeat(8);
        drop(within("a choice", open(&proxy, &text)).await);
        slowest = slowest.max(asked.elapsed());
    }
    let grown = told.process.memory().saturating_sub(memory);
    eprintln!(
        "300 choices beside a peer that reads nothing: the slowest took {slowest:.1?}, memory grew by {grown} bytes"
    );
    assert!(slowest < Duration::from_secs(2), "{slowest:?}");
    assert!(grown < 64 << 20, "{grown} bytes");
    holds("the one that hears nothing gives up", async || {
        replicas.one(1).metric("pointsman_peer_ends_total", &[("reason", "silent")]).await.is_some()
    })
    .await;
    replicas.mend_lines();
    holds("it is told everything anew", async || snapshots().await > before).await;
    // It knows the prompts that it could not hear.
    let heard = Proxy::connect(replicas.one(1).grpc).await;
    holds("the last prompt is known", async || {
        let page: Value = replicas.page(1, "/debug/peers").await;
        page["peers"].as_array().unwrap().iter().any(|peer| peer["complete"] == true)
    })
    .await;
    let text = prompt(299).repeat(8);
    assert_eq!(open(&heard, &text).await.1, open(&proxy, &text).await.1);
}
