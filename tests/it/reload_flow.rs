//! Flow control changes while requests wait in it.

use std::process::Command;
use std::sync::Arc;

use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::overload::config;
use crate::support::{BodyMode, Client, EndpointsFile, Envoy, Fleet, Pointsman, chat, holds, program};

const COMPLETIONS: &str = "/v1/chat/completions";
const QUEUE: &str = "llm_d_epp_flow_control_queue_size";

/// One slow server that is full with one request, behind a program that reads its configuration from a file.
struct Held {
    file: tempfile::NamedTempFile,
    endpoints: EndpointsFile,
    pointsman: Pointsman,
    envoy: Envoy,
    _fleet: Fleet,
}

impl Held {
    async fn start(flags: &[&str]) -> Arc<Self> {
        let fleet = Fleet::start(1, &["--inter-token-ms", "20"]).await;
        let endpoints = EndpointsFile::with(fleet.list());
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), config(&endpoints, 1, "")).unwrap();
        let path = file.path().to_str().unwrap();
        let usual = ["--config-file", path, "--tracing=false", "--pool-name", "test-pool"];
        let own = ["--watch-config-file=false", "--allow-experimental-plugins"];
        let pointsman = Pointsman::start_in(&[], &[&usual, &own[..], flags].concat()).await;
        holds("the server was scraped", async || {
            pointsman.metric("llm_d_epp_ready_endpoints", &[]).await == Some(1.0)
        })
        .await;
        let envoy = Envoy::start(pointsman.grpc, true, BodyMode::FullDuplexStreamed).await;
        Arc::new(Self { file, endpoints, pointsman, envoy, _fleet: fleet })
    }

    async fn reload(&self, text: &str) -> Value {
        std::fs::write(self.file.path(), text).unwrap();
        let reply = Client::http1(self.pointsman.metrics).post("/-/reload", &json!({})).await;
        assert_eq!(reply.status, 200, "{reply:?}");
        reply.json()
    }

    /// So many requests that nobody answers before they had their turn.
    fn send(self: &Arc<Self>, count: usize, tokens: u32) -> JoinSet<u16> {
        let mut tasks = JoinSet::new();
        for index in 0..count {
            let held = Arc::clone(self);
            tasks.spawn(async move {
                let body = chat(&format!("request {index}"), tokens, false);
                held.envoy.http1().post(COMPLETIONS, &body).await.status
            });
        }
        tasks
    }

    async fn waiting(&self, expected: f64) {
        holds(&format!("{expected} requests wait"), async || {
            self.pointsman.metric(QUEUE, &[]).await.unwrap_or(0.0) == expected
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_goes_on_waiting_while_bounds_policies_and_the_gate_itself_change() {
    let folder = tempfile::tempdir().unwrap();
    let capture = folder.path().to_str().unwrap();
    let held = Held::start(&["--capture", capture]).await;
    let requests = held.send(4, 30);
    held.waiting(3.0).await;
    // A bound below what waits refuses new requests alone.
    let bounded = config(&held.endpoints, 1, "  maxRequests: \"2\"\n");
    let changed = held.reload(&bounded).await;
    assert!(changed["changes"].to_string().contains("maxRequests"), "{changed}");
    held.waiting(3.0).await;
    let refused = held.envoy.http1().post(COMPLETIONS, &chat("too many", 1, false)).await;
    assert_eq!(refused.status, 429, "{refused:?}");
    // Other policies, another detector's bound, and then no flow control at all.
    let fair = config(
        &held.endpoints,
        1,
        "  priorityBands:\n  - {priority: 0, fairnessPolicyRef: round-robin-fairness-policy, orderingPolicyRef: edf-ordering-policy}\n",
    );
    let policies =
        "- type: round-robin-fairness-policy\n- type: edf-ordering-policy\n- type: max-score-picker";
    let fair = fair.replacen("- type: max-score-picker", policies, 1);
    held.reload(&fair).await;
    held.waiting(3.0).await;
    let without = fair.replace("featureGates: [flowControl]\n", "");
    assert_eq!(held.reload(&without).await["generation"], 4);
    let through = held.envoy.http1().post(COMPLETIONS, &chat("nobody holds it", 1, false)).await;
    assert_eq!(through.status, 200, "nothing new waits without the gate: {through:?}");
    let statuses = requests.join_all().await;
    assert_eq!(statuses, [200; 4], "what waited was let go");
    held.waiting(0.0).await;
    assert_eq!(held.reload(&config(&held.endpoints, 1, "")).await["generation"], 5);
    let again = held.send(3, 10);
    held.waiting(2.0).await;
    assert_eq!(again.join_all().await, [200; 3]);
    holds("nothing is in flight", async || {
        held.pointsman.metric("pointsman_endpoint_in_flight_requests", &[]).await == Some(0.0)
    })
    .await;
    // Requests that waited through reloads stand in the capture under the configuration that they came with.
    let off = Client::http1(held.pointsman.metrics).put("/debug/capture", r#"{"on": false}"#).await;
    assert_eq!(off.status, 200);
    let played = Command::new(program()).args(["replay", capture]).output().unwrap();
    let said = String::from_utf8(played.stdout).unwrap();
    assert!(played.status.success() && said.contains("the same, bit for bit"), "{said}");
}
