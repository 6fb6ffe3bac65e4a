//! Two hundred clients stream answers through a real Envoy while others abuse every port. No stream of the two hundred
//! may break, the memory stays small, and nothing is left behind.
//!
//! `make test` runs it for some seconds. `make soak` runs it for as long as `SOAK_SECONDS` says.

mod abusers;
mod http2;
mod victims;

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::support::{BodyMode, EndpointsFile, Envoy, Fleet, Pointsman, Stack, eventually, holds};
use abusers::Abuse;
use victims::Victims;

/// Seconds of abuse where `SOAK_SECONDS` names no other number.
const SECONDS: u64 = 15;
/// What the program may have resident.
const MEMORY: u64 = 300_000_000;
/// Innocent clients.
const INNOCENT: usize = 200;
/// File descriptors that may be open beyond those before the abuse.
const DESCRIPTORS: usize = 16;

/// Flow control with the fairness policy that keeps an account for each id.
fn config(endpoints: &EndpointsFile) -> String {
    format!(
        "apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
featureGates: [flowControl]
plugins:
- type: file-discovery
  parameters: {{path: {}, watchFile: true}}
- type: queue-scorer
- type: prefix-cache-scorer
- type: session-affinity-scorer
- type: concurrency-detector
  parameters: {{maxConcurrency: 2000}}
- type: program-aware-fairness
- type: max-score-picker
schedulingProfiles:
- name: default
  plugins:
  - pluginRef: queue-scorer
  - pluginRef: prefix-cache-scorer
  - pluginRef: session-affinity-scorer
  - pluginRef: max-score-picker
flowControl:
  saturationDetector: {{pluginRef: concurrency-detector}}
  priorityBands:
  - {{priority: 0, fairnessPolicyRef: program-aware-fairness}}
dataLayer:
  discovery: {{pluginRef: file-discovery}}
",
        endpoints.path().display()
    )
}

async fn stack() -> Stack {
    let fleet = Fleet::start(4, &["--inter-token-ms", "200", "--max-num-seqs", "1000"]).await;
    let endpoints = EndpointsFile::with(fleet.list());
    let flags = ["--secure-serving=false", "--allow-experimental-plugins"];
    let pointsman = Pointsman::start(&config(&endpoints), &flags).await;
    holds("every server was scraped", async || {
        pointsman.metric("llm_d_epp_ready_endpoints", &[]).await == Some(4.0)
    })
    .await;
    let envoy = Envoy::start(pointsman.grpc, false, BodyMode::FullDuplexStreamed).await;
    Stack { envoy, pointsman, fleet, endpoints }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_streaming_clients_lose_nothing_while_abusers_work_on_every_port() {
    let seconds =
        std::env::var("SOAK_SECONDS").map_or(SECONDS, |text| text.parse().expect("SOAK_SECONDS is a number"));
    let stack = Arc::new(stack().await);
    let before = stack.pointsman.process.descriptors();
    let end = Instant::now() + Duration::from_secs(seconds);
    let victims = Victims::start(&stack, INNOCENT, end);
    // The abuse begins when the streams run.
    holds("the innocent stream", async || victims.streaming() > INNOCENT / 2).await;
    let mut abusers = JoinSet::new();
    for abuse in Abuse::ALL {
        let stack = Arc::clone(&stack);
        abusers.spawn(async move { (abuse, abuse.go_on_until(end, &stack).await) });
    }
    let rounds = abusers.join_all().await;
    let outcome = victims.outcome().await;
    let peak = stack.pointsman.process.peak_memory();
    let page = stack.pointsman.page().await;
    eprintln!("innocent: {outcome:?}; abuse: {rounds:?}; peak {peak} bytes; page {} bytes", page.len());
    assert_eq!(outcome.broken, Vec::<String>::new());
    assert!(outcome.whole >= INNOCENT, "{outcome:?}");
    for (abuse, count) in rounds {
        assert!(count > 0, "{abuse:?} did nothing");
    }
    assert!(peak < MEMORY, "{peak} bytes resident at the highest");
    assert!(page.len() < 10_000_000, "a page of {} bytes", page.len());
    nothing_is_left(&stack, before).await;
}

/// Waits until gauges and descriptors are where they were before.
async fn nothing_is_left(stack: &Stack, before: usize) {
    stack.assert_idle().await;
    for gauge in ["llm_d_epp_flow_control_queue_size", "llm_d_epp_flow_control_queue_bytes"] {
        holds(&format!("{gauge} is back to zero"), async || {
            stack.pointsman.metric(gauge, &[]).await.unwrap_or(0.0) == 0.0
        })
        .await;
    }
    eventually("the descriptors are closed", async || {
        (stack.pointsman.process.descriptors() <= before + DESCRIPTORS).then_some(())
    })
    .await;
}
