//! What a thousand pods cost: CPU of the program while nothing changes and while one pod changes each second, its
//! memory, and how long a burst of pods takes to become endpoints. Against a real API server (`make setup` builds it).
//! Nothing is scraped, so that discovery alone counts.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a bench that fails may end so"
)]
#![allow(
    dead_code,
    unused_imports,
    clippy::format_collect,
    clippy::format_push_string,
    clippy::float_cmp,
    reason = "shared with the tests"
)]

#[path = "../tests/support/mod.rs"]
mod support;

use std::time::{Duration, Instant};

use support::cluster::{ApiServer, Namespace, picker};

/// Pods.
const PODS: usize = 1000;
/// Time over which CPU is measured.
const SPAN: Duration = Duration::from_secs(30);

#[tokio::main]
async fn main() {
    // `cargo test --benches` only wants to know that it builds.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let server = ApiServer::shared().await;
    let namespace = Namespace::with_chart_rights(server, &[]).await;
    namespace.pool(&[8000]).await;
    let pointsman = picker(
        server,
        &namespace,
        &["--refresh-metrics-interval", "1h", "--refresh-prometheus-metrics-interval", "1h"],
    )
    .await;
    let start = Instant::now();
    namespace.many_pods(PODS).await;
    let made = start.elapsed();
    support::holds("all are endpoints", async || {
        pointsman.metric("pointsman_pool_endpoints", &[]).await == Some(PODS as f64)
    })
    .await;
    println!(
        "{PODS} pods: made in {made:.1?}, known {:.1?} after the last",
        start.elapsed().saturating_sub(made)
    );
    let snapshots = pointsman.metric("pointsman_discovery_snapshots_total", &[]).await.unwrap();
    println!("snapshots: {snapshots}; CPU so far: {:.2?}", pointsman.process.cpu());
    tokio::time::sleep(Duration::from_secs(5)).await;

    let before = pointsman.process.cpu();
    tokio::time::sleep(SPAN).await;
    let idle = pointsman.process.cpu().saturating_sub(before);
    println!("nothing changes: {:.3} % of a core", 100.0 * idle.as_secs_f64() / SPAN.as_secs_f64());

    let (before, start) = (pointsman.process.cpu(), Instant::now());
    for beat in 0..SPAN.as_secs() {
        let name = Namespace::many_name((beat / 2) as usize);
        namespace.set_ready(&name, beat % 2 == 1).await;
        tokio::time::sleep_until((start + Duration::from_secs(beat + 1)).into()).await;
    }
    let busy = pointsman.process.cpu().saturating_sub(before);
    println!(
        "one pod changes each second: {:.3} % of a core",
        100.0 * busy.as_secs_f64() / start.elapsed().as_secs_f64()
    );
    println!(
        "memory: {:.1} MB now, {:.1} MB at most",
        pointsman.process.memory() as f64 / 1e6,
        pointsman.process.peak_memory() as f64 / 1e6
    );
}
