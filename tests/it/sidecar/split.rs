//! Prefill, decode and encode servers, each in a process of its own, behind sidecars, the picker and a real Envoy.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::running::Sidecar;
use crate::support::{BodyMode, Client, EndpointsFile, Envoy, Fleet, Pointsman, chat, holds, sse_events};

const PLUGINS: &str = "\
- {type: always-disagg-pd-decider}
- {type: always-disagg-multimodal-decider}
- type: disagg-profile-handler
  parameters:
    maxPrefillCandidates: 3
    deciders: {prefill: always-disagg-pd-decider, encode: always-disagg-multimodal-decider}
- {type: decode-filter}
- {type: prefill-filter}
- {type: encode-filter}
- {type: random-picker}
schedulingProfiles:
- name: prefill
  plugins: [{pluginRef: prefill-filter}, {pluginRef: random-picker}]
- name: decode
  plugins: [{pluginRef: decode-filter}, {pluginRef: random-picker}]
- name: encode
  plugins: [{pluginRef: encode-filter}, {pluginRef: random-picker}]
";

/// The longest that anything may take in these tests.
const LIMIT: Duration = Duration::from_secs(10);

/// Everything together. Servers 0 and 1 prefill, 2 and 3 decode behind sidecars, 4 encodes.
struct Stage {
    envoy: Envoy,
    fleet: Fleet,
    sidecars: Vec<Sidecar>,
    pointsman: Pointsman,
    endpoints: EndpointsFile,
    /// Its rows; those of a server that is dead go.
    listed: Vec<String>,
}

impl Stage {
    async fn start(flags: &[&str]) -> Self {
        let mut fleet = Fleet::start_apart(0, &[]).await;
        for (name, role) in [
            ("prefill-a", "prefill"),
            ("prefill-b", "prefill"),
            ("decode-a", "decode"),
            ("decode-b", "decode"),
            ("encode", "encode"),
        ] {
            fleet
                .add(&[], name, &["--role", role, "--first-token-base-ms", "20", "--inter-token-ms", "5"])
                .await;
        }
        let mut sidecars = Vec::new();
        for server in &fleet.servers[2..4] {
            // The command line of the walkthrough, but for the ports.
            let port = format!("--vllm-port={}", server.addr.port());
            let words = [
                &["sidecar", "--port=0", &port, "--connector=nixlv2", "-v=5", "--secure-proxy=false"],
                flags,
            ]
            .concat();
            sidecars.push(Sidecar::launch(&[], &crate::support::program(), &words).await);
        }
        let named = |role: &'static str, addr: SocketAddr, number: usize| {
            format!(
                "- {{name: {role}-{number}, address: \"{}\", port: \"{}\", labels: {{llm-d.ai/role: {role}}}}}\n",
                addr.ip(),
                addr.port()
            )
        };
        let mut listed = Vec::new();
        for (number, (server, sidecar)) in fleet.servers.iter().zip(&sidecars).enumerate() {
            listed.push(named("prefill", server.addr, number));
            listed.push(named("decode", sidecar.addr, number));
        }
        listed.push(named("encode", fleet.servers[4].addr, 0));
        let endpoints = EndpointsFile::of(&format!("endpoints:\n{}", listed.concat()));
        let config = format!(
            "apiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerConfig\ndataLayer: {{discovery: {{pluginRef: file-discovery}}}}\n\
             plugins:\n- type: file-discovery\n  parameters: {{path: {}, watchFile: true}}\n{PLUGINS}",
            endpoints.path().display()
        );
        let pointsman = Pointsman::start(&config, &["--refresh-prometheus-metrics-interval=100ms"]).await;
        holds("every server was scraped", async || {
            pointsman.metric("llm_d_epp_ready_endpoints", &[]).await == Some(5.0)
        })
        .await;
        let envoy = Envoy::start(pointsman.grpc, true, BodyMode::FullDuplexStreamed).await;
        Self { envoy, fleet, sidecars, pointsman, endpoints, listed }
    }

    /// This server is none of the pool any more, as a pod that is not ready is not.
    fn forget(&self, name: &str) {
        let left = self.listed.iter().filter(|row| !row.contains(&format!("name: {name},")));
        self.endpoints.write_text(&format!("endpoints:\n{}", left.cloned().collect::<String>()));
    }

    fn client(&self) -> Client {
        self.envoy.http1()
    }

    async fn outcomes(&self, outcome: &str) -> f64 {
        let mut sum = 0.0;
        for sidecar in &self.sidecars {
            sum += sidecar.metric("pointsman_sidecar_outcomes_total", &[("outcome", outcome)]).await;
        }
        sum
    }

    /// Requests that reached a server.
    async fn seen(&self, number: usize) -> Vec<Value> {
        let seen = self.fleet.servers[number].client().get("/sim/requests?n=100").await.json();
        seen.as_array().unwrap().iter().filter(|row| row["method"] == "POST").cloned().collect()
    }
}

fn with_image(number: usize) -> Value {
    let image =
        json!({"type": "image_url", "image_url": {"url": format!("https://example.com/{number}.png")}});
    let content = json!([{"type": "text", "text": "what is this"}, image]);
    json!({"model": "sim-model", "max_tokens": 3, "messages": [{"role": "user", "content": content}]})
}

#[tokio::test(flavor = "multi_thread")]
async fn the_walkthroughs_sidecars_serve_every_kind_of_request_through_envoy_and_the_picker() {
    let stage = Stage::start(&["--ec-connector=ec-nixl"]).await;
    let client = stage.client();
    let reply = client.post("/v1/chat/completions", &chat("hello", 3, false)).await;
    assert_eq!(
        (reply.status, reply.json()["usage"]["completion_tokens"].clone()),
        (200, json!(3)),
        "{reply:?}"
    );
    let reply = client
        .post("/v1/completions", &json!({"model": "sim-model", "prompt": "hello", "max_tokens": 4}))
        .await;
    assert_eq!(
        (reply.status, reply.json()["usage"]["completion_tokens"].clone()),
        (200, json!(4)),
        "{reply:?}"
    );
    let reply = client.post("/v1/chat/completions", &chat("hello", 5, true)).await;
    assert_eq!(sse_events(reply.text()).last(), Some(&"[DONE]"), "{reply:?}");
    let reply = client.get("/v1/models").await;
    assert_eq!((reply.status, reply.json()["data"][0]["id"].clone()), (200, json!("sim-model")), "{reply:?}");
    assert_eq!((stage.outcomes("remote").await, stage.outcomes("failed").await), (3.0, 0.0));
    let reply = client.post("/v1/chat/completions", &with_image(1)).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    assert_eq!(stage.outcomes("remote").await, 4.0);
    // Each stage did its part: one token of the prompt's server, and the answer of a decode server.
    assert_eq!(stage.seen(0).await.len() + stage.seen(1).await.len(), 4);
    assert_eq!(stage.seen(4).await.len(), 1);
    assert!(reply.header("x-sim-server").starts_with("decode"), "{reply:?}");
    let decided = stage
        .pointsman
        .metric("llm_d_epp_disagg_decision_total", &[("decision_type", "encode-prefill-decode")])
        .await;
    assert_eq!(decided, Some(1.0));
}

/// What became of requests under load.
#[derive(Default)]
struct Load {
    good: AtomicUsize,
    failed: AtomicUsize,
    slowest: parking_lot::Mutex<Duration>,
}

/// Twelve clients, each of whom asks again and again until it has asked `count` times.
fn load(client: Client, count: usize, images: bool) -> (Arc<Load>, JoinSet<()>) {
    let (load, mut clients) = (Arc::new(Load::default()), JoinSet::new());
    for number in 0..12 {
        let load = Arc::clone(&load);
        clients.spawn(async move {
            for turn in 0..count {
                let stream = turn % 2 == 0;
                let body = if images && turn % 3 == 0 {
                    with_image(turn)
                } else {
                    chat(&format!("{number} {turn}"), 6, stream)
                };
                let begun = Instant::now();
                let reply = client.attempt("/v1/chat/completions", &body).await;
                let whole = reply.is_ok_and(|reply| {
                    reply.status == 200
                        && (body["stream"] != true || reply.text().trim_end().ends_with("data: [DONE]"))
                });
                if whole { &load.good } else { &load.failed }.fetch_add(1, SeqCst);
                let mut slowest = load.slowest.lock();
                *slowest = (*slowest).max(begun.elapsed());
            }
        });
    }
    (load, clients)
}

#[tokio::test(flavor = "multi_thread")]
async fn no_request_is_lost_when_one_of_two_prefill_servers_dies_under_load() {
    let mut stage = Stage::start(&["--on-prefill-failure=next"]).await;
    let (load, clients) = load(stage.client(), 25, false);
    holds("some are answered", async || load.good.load(SeqCst) > 60).await;
    stage.fleet.kill(0).await;
    clients.join_all().await;
    assert_eq!((load.good.load(SeqCst), load.failed.load(SeqCst)), (300, 0));
    assert!(*load.slowest.lock() < LIMIT);
    assert_eq!((stage.outcomes("remote").await, stage.outcomes("failed").await), (300.0, 0.0));
    let mut retried = 0.0;
    for sidecar in &stage.sidecars {
        retried += sidecar.metric("pointsman_sidecar_prefill_retries_total", &[("kind", "next")]).await;
        sidecar.is_idle().await;
    }
    assert!(retried > 0.0, "the other server was asked in its place");
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_dies_under_load_nothing_hangs_and_the_others_go_on() {
    for victim in ["prefill", "decode", "sidecar", "encode"] {
        let mut stage = Stage::start(&["--ec-connector=ec-nixl", "--on-prefill-failure=next"]).await;
        let (load, clients) = load(stage.client(), 15, victim == "encode");
        holds("some are answered", async || load.good.load(SeqCst) > 30).await;
        let dead = match victim {
            "prefill" => "prefill-1",
            "encode" => "encode-0",
            _ => "decode-0",
        };
        match victim {
            "prefill" => stage.fleet.kill(1).await,
            "decode" => stage.fleet.kill(2).await,
            "encode" => stage.fleet.kill(4).await,
            _ => stage.sidecars[0].process.kill().await,
        }
        clients.join_all().await;
        let slowest = *load.slowest.lock();
        assert!(slowest < LIMIT, "{victim}: {slowest:?}");
        assert_eq!(load.good.load(SeqCst) + load.failed.load(SeqCst), 180, "{victim}");
        assert!(victim != "prefill" || load.failed.load(SeqCst) == 0, "{victim}");
        stage.forget(dead);
        holds(&format!("{victim}: requests in a row are answered"), async || {
            for number in 0..8 {
                let reply = stage
                    .client()
                    .attempt("/v1/chat/completions", &chat(&format!("{number}"), 2, false))
                    .await;
                if reply.is_err() || reply.is_ok_and(|reply| reply.status != 200) {
                    return false;
                }
            }
            true
        })
        .await;
        for sidecar in &stage.sidecars[usize::from(victim == "sidecar")..] {
            sidecar.is_idle().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_picker_sees_which_decode_servers_take_prompts_over_and_which_lack_a_sidecar() {
    let stage = Stage::start(&["--outcomes-in-metrics"]).await;
    let client = stage.client();
    let state =
        async |state: &str| stage.pointsman.metric("pointsman_split_servers", &[("state", state)]).await;
    holds("both decode servers transfer", async || {
        client.post("/v1/chat/completions", &chat("hello", 1, false)).await;
        state("transferring").await == Some(2.0)
    })
    .await;
    let taken = stage.pointsman.metric("pointsman_split_prompts_total", &[("result", "transferred")]).await;
    assert!(taken >= Some(20.0), "{taken:?}");
    // The row of the second decode server names its engine now, as if its pod had no sidecar.
    let engine = stage.fleet.servers[3].addr.port();
    let sidecar = stage.sidecars[1].addr.port();
    let rows = stage.listed.concat().replace(&format!("\"{sidecar}\""), &format!("\"{engine}\""));
    stage.endpoints.write_text(&format!("endpoints:\n{}", rows.replace("decode-1", "decode-9")));
    holds("the server without a sidecar is silent", async || state("silent").await == Some(1.0)).await;
    let log = stage.pointsman.process.log();
    assert!(
        log.iter().any(|line| line.contains("decode-9") && line.contains("lacks the sidecar")),
        "{log:?}"
    );
}
