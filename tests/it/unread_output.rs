//! A log that nobody reads, or that has no room, costs its lines and nothing else.

use std::io::Write as _;
use std::process::Stdio;
use std::time::{Duration, Instant};

use tonic::transport::Channel;
use tonic_health::pb::health_check_response::ServingStatus;

use crate::support::process::Process;
use crate::support::{
    EndpointsFile, Fleet, Pointsman, Proxy, SCORERS, body, config, destination, eventually, headers, health,
    program,
};

/// Bytes that a pipe holds on Linux.
const PIPE: usize = 65_536;

/// The reading and the writing end of a pipe that is full already, so that the first line has no room.
fn full_pipe() -> (std::io::PipeReader, Stdio) {
    let (reader, mut writer) = std::io::pipe().unwrap();
    writer.write_all(&vec![b'x'; PIPE]).unwrap();
    (reader, writer.into())
}

/// Requests are sent on, the metrics page comes, both health ports answer, and the level can be changed.
async fn assert_serves(pointsman: &Pointsman, fleet: &Fleet) {
    let proxy = Proxy::connect(pointsman.grpc).await;
    for _ in 0..20 {
        let mut exchange = proxy.open().await;
        exchange.say(headers("/v1/completions", [], false)).await;
        exchange.say(body(r#"{"model":"m","prompt":"hello"}"#, true)).await;
        let answer = exchange.answer().await.unwrap().unwrap();
        let chosen = destination(&answer).unwrap();
        assert_eq!(chosen, fleet.servers[0].addr.to_string());
    }
    for port in [pointsman.grpc, pointsman.health] {
        let channel = Channel::from_shared(format!("http://{port}")).unwrap().connect().await.unwrap();
        assert_eq!(health(&channel, "").await, Some(ServingStatus::Serving));
    }
    assert!(pointsman.page().await.contains("pointsman_streams"));
}

async fn dropped(pointsman: &Pointsman, reason: &str) -> f64 {
    let labels = [("stream", "stderr"), ("reason", reason)];
    pointsman.metric("pointsman_log_lines_dropped_total", &labels).await.unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_nobody_reads_stops_neither_requests_nor_scrapes_nor_probes_nor_the_end() {
    let fleet = Fleet::start(1, &[]).await;
    let endpoints = EndpointsFile::with(fleet.list());
    let config = config(&endpoints.path(), SCORERS);
    for verbosity in ["0", "2", "3", "4", "5", "10"] {
        let (reader, stderr) = full_pipe();
        let flags = ["--config-text", &config, "--tracing=false", "--secure-serving=false", "-v", verbosity];
        let flags = [&flags[..], &["--drain-timeout", "0s"]].concat();
        let mut pointsman = Pointsman::start_with(&[], &flags, stderr).await;
        assert_serves(&pointsman, &fleet).await;
        pointsman.process.terminate().await;
        let asked = Instant::now();
        assert!(pointsman.process.ended().await.success(), "verbosity {verbosity}");
        assert!(asked.elapsed() < Duration::from_secs(5), "verbosity {verbosity}: {:?}", asked.elapsed());
        drop(reader);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_unread_log_loses_is_counted_and_told_when_somebody_reads_again() {
    let fleet = Fleet::start(1, &[]).await;
    let endpoints = EndpointsFile::with(fleet.list());
    let config = config(&endpoints.path(), SCORERS);
    let (reader, stderr) = full_pipe();
    let flags = ["--config-text", &config, "--tracing=false", "--secure-serving=false", "-v", "10"];
    let pointsman = Pointsman::start_with(&[], &flags, stderr).await;
    eventually("lines are lost", async || {
        assert_serves(&pointsman, &fleet).await;
        (dropped(&pointsman, "queue_full").await > 0.0).then_some(())
    })
    .await;
    // Some 2 MiB may wait or be on their way; the rest of the memory is the program's own.
    assert!(pointsman.process.memory() < 200 << 20);
    let told = tokio::task::spawn_blocking(move || {
        let lines = std::io::BufRead::lines(std::io::BufReader::new(reader));
        lines.map_while(Result::ok).any(|line| line.contains("log lines were lost"))
    });
    assert!(crate::support::within("the notice", told).await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_on_a_full_disk_costs_its_lines_and_counts_them() {
    let fleet = Fleet::start(1, &[]).await;
    let endpoints = EndpointsFile::with(fleet.list());
    let config = config(&endpoints.path(), SCORERS);
    for verbosity in ["0", "4", "10"] {
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let flags = ["--config-text", &config, "--tracing=false", "--secure-serving=false", "-v", verbosity];
        let mut pointsman = Pointsman::start_with(&[], &flags, full.into()).await;
        assert_serves(&pointsman, &fleet).await;
        assert!(dropped(&pointsman, "write_failed").await > 0.0, "verbosity {verbosity}");
        assert!(pointsman.process.runs());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_that_fails_ends_in_time_though_nobody_reads_why() {
    for flags in [["--config-text", "kind: Nonsense"], ["--zap-log-level", "loud"]] {
        let (reader, stderr) = full_pipe();
        let mut process = Process::start_with(&[], "pointsman", &program(), flags, stderr);
        let asked = Instant::now();
        assert!(!process.ended().await.success(), "{flags:?}");
        assert!(asked.elapsed() < Duration::from_secs(5), "{flags:?}: {:?}", asked.elapsed());
        drop(reader);
    }
}
