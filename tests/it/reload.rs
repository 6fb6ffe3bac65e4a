//! The configuration changes while requests are served.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use serde_json::{Value, json};

use crate::support::{
    BodyMode, Client, EndpointsFile, Envoy, Fleet, Pointsman, chat, config, eventually, holds,
};

/// A program that reads its configuration from a file, behind Envoy, before simulated servers.
struct Served {
    file: tempfile::NamedTempFile,
    endpoints: EndpointsFile,
    fleet: Fleet,
    pointsman: Pointsman,
    envoy: Envoy,
}

const BOTH: &[(&str, u32)] = &[("queue-scorer", 2), ("prefix-cache-scorer", 3)];

impl Served {
    async fn start(flags: &[&str]) -> Self {
        let fleet = Fleet::start(3, &[]).await;
        let endpoints = EndpointsFile::with(fleet.list());
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), config(&endpoints.path(), BOTH)).unwrap();
        let path = file.path().to_str().unwrap();
        let usual = ["--config-file", path, "--tracing=false", "--pool-name", "test-pool"];
        let pointsman = Pointsman::start_in(&[], &[&usual, flags].concat()).await;
        holds("every server was scraped", async || {
            pointsman.metric("llm_d_epp_ready_endpoints", &[]).await == Some(3.0)
        })
        .await;
        let envoy = Envoy::start(pointsman.grpc, true, BodyMode::FullDuplexStreamed).await;
        Self { file, endpoints, fleet, pointsman, envoy }
    }

    fn text(&self, scorers: &[(&str, u32)]) -> String {
        config(&self.endpoints.path(), scorers)
    }

    /// Puts another file in the place of the configuration, as editors and kubelets do.
    fn replace(&self, text: &str) {
        replace(self.file.path(), text);
    }

    async fn shown(&self) -> Value {
        Client::http1(self.pointsman.metrics).get("/debug/config").await.json()
    }

    async fn reload(&self) -> (u16, Value) {
        let reply = Client::http1(self.pointsman.metrics).post("/-/reload", &json!({})).await;
        (reply.status, reply.json())
    }
}

fn replace(path: &Path, text: &str) {
    let beside = path.with_extension("new");
    std::fs::write(&beside, text).unwrap();
    std::fs::rename(&beside, path).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_file_is_taken_over_and_the_page_says_line_by_line_what_changed() {
    let served = Served::start(&[]).await;
    assert_eq!(served.shown().await["generation"], 1);
    served.replace(&served.text(&[("queue-scorer", 7), ("kv-cache-utilization-scorer", 1)]));
    let shown = eventually("the second generation", async || {
        let shown = served.shown().await;
        (shown["generation"] == 2).then_some(shown)
    })
    .await;
    let changes: Vec<&str> = shown["last_reload"]["changes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|line| line.as_str().unwrap())
        .collect();
    assert!(changes.contains(&"-     weight: 2") && changes.contains(&"+     weight: 7"), "{changes:?}");
    assert!(shown["effective"].as_str().unwrap().contains("kv-cache-utilization-scorer"));
    let reply = served.envoy.http1().post("/v1/chat/completions", &chat("hello", 1, false)).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    let list = Client::http1(served.pointsman.metrics).get("/debug/decisions?limit=1").await.json();
    let id = list["decisions"][0]["id"].as_str().unwrap();
    let record = Client::http1(served.pointsman.metrics).get(&format!("/debug/decisions/{id}")).await.json();
    assert_eq!(record["profiles"][0]["scorers"][0]["weight"], 7.0, "{record}");
    let reloads = served.pointsman.metric("pointsman_reloads_total", &[("source", "configuration")]).await;
    assert_eq!(reloads, Some(1.0));
    assert_eq!(served.pointsman.metric("pointsman_config_generation", &[]).await, Some(2.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_faulty_file_changes_nothing_and_what_needs_a_restart_is_named() {
    let served = Served::start(&["--watch-config-file=false"]).await;
    let good = served.text(BOTH);
    for (text, part) in [
        ("plugins: [".to_owned(), "unclosed"),
        (good.replace("queue-scorer", "queue-scorrer"), "queue-scorer"),
        (
            format!("{good}featureGates: [haPopulateNonLeaderDatastore=false]\n"),
            "cannot change without a restart",
        ),
    ] {
        served.replace(&text);
        let (status, answer) = served.reload().await;
        assert_eq!((status, answer["outcome"].as_str()), (422, Some("refused")), "{answer}");
        assert!(answer["problems"].to_string().contains(part), "{part}: {answer}");
        assert_eq!(served.shown().await["generation"], 1);
        let reply = served.envoy.http1().post("/v1/chat/completions", &chat("hello", 1, false)).await;
        assert_eq!(reply.status, 200, "{reply:?}");
    }
    served.replace(&good);
    assert_eq!(served.reload().await.1["generation"], 1, "the former text is no change of what runs");
    served.replace(&served.text(&[("queue-scorer", 1)]));
    let (status, answer) = served.reload().await;
    assert_eq!((status, answer["generation"].as_u64()), (200, Some(2)), "{answer}");
    served.replace(&served.text(&[("queue-scorer", 5)]));
    served.pointsman.process.hang_up().await;
    holds("a hangup reloads", async || served.shown().await["generation"] == 3).await;
}

/// A pipe in the place of the file, which nobody writes to, stands for a file system that hangs.
#[tokio::test(flavor = "multi_thread")]
async fn a_reload_that_hangs_holds_neither_the_page_of_the_configuration_nor_a_scrape() {
    let served = Served::start(&[]).await;
    let pipe = served.file.path().with_extension("pipe");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status().unwrap();
    assert!(made.success());
    std::fs::rename(&pipe, served.file.path()).unwrap();
    let metrics = served.pointsman.metrics;
    let mut reloads = tokio::task::JoinSet::new();
    for _ in 0..3 {
        reloads.spawn(async move { Client::http1(metrics).post("/-/reload", &json!({})).await.status });
    }
    assert_eq!(reloads.join_next().await.unwrap().unwrap(), 429, "one hangs, one waits for it");
    for _ in 0..20 {
        assert_eq!(served.shown().await["generation"], 1);
    }
    assert_eq!(served.pointsman.metric("llm_d_epp_ready_endpoints", &[]).await, Some(3.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn reloads_under_load_fail_no_request_and_forget_no_prefix() {
    let served = Arc::new(Served::start(&["--watch-config-file=false"]).await);
    let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let clients: Vec<_> = (0..4)
        .map(|client| {
            let (served, stop, sent) = (Arc::clone(&served), Arc::clone(&stop), Arc::clone(&sent));
            tokio::spawn(async move {
                let text = format!("conversation {client} ").repeat(200);
                while !stop.load(Relaxed) {
                    let reply =
                        served.envoy.http1().post("/v1/chat/completions", &chat(&text, 1, false)).await;
                    assert_eq!(reply.status, 200, "{reply:?}");
                    sent.fetch_add(1, Relaxed);
                }
            })
        })
        .collect();
    holds("requests flow", async || sent.load(Relaxed) > 20).await;
    for round in 0..100u32 {
        let text = match round % 4 {
            0 => served.text(&[("queue-scorer", 1 + round), ("prefix-cache-scorer", 3)]),
            1 => served.text(&[("prefix-cache-scorer", 3)]),
            2 => served.text(&[("kv-cache-utilization-scorer", 1 + round), ("prefix-cache-scorer", 3)]),
            _ => served.text(&[("no-such-scorer", 1)]),
        };
        served.replace(&text);
        let (status, answer) = served.reload().await;
        assert_eq!(status, if round % 4 == 3 { 422 } else { 200 }, "{answer}");
    }
    stop.store(true, Relaxed);
    for client in clients {
        client.await.unwrap();
    }
    assert_eq!(served.shown().await["generation"], 76);
    assert!(sent.load(Relaxed) > 100, "{}", sent.load(Relaxed));
    holds("nothing is in flight", async || {
        served.pointsman.metric("pointsman_endpoint_in_flight_requests", &[]).await == Some(0.0)
    })
    .await;
    let body = chat(&"conversation 0 ".repeat(200), 1, false);
    let dry =
        Client::http1(served.pointsman.metrics).post("/debug/decide", &json!({ "body": body })).await.json();
    assert!(dry["cached_tokens"].as_u64().unwrap() > 100, "the index lived through the reloads: {dry}");
    assert_eq!(served.fleet.servers.len(), 3);
}
