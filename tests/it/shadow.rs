//! A second configuration that decides in the shadow of the running one, asked of the running program.

use std::process::Command;
use std::sync::Arc;

use serde_json::Value;

use crate::support::{
    BodyMode, Client, EndpointsFile, Envoy, Fleet, Pointsman, chat, config, eventually, holds, program,
};

const SCORERS: &[(&str, u32)] = &[("queue-scorer", 2), ("prefix-cache-scorer", 3), ("no-hit-lru-scorer", 1)];

/// A program with a shadow, behind Envoy, before simulated servers.
struct Shadowed {
    shadow: tempfile::NamedTempFile,
    endpoints: EndpointsFile,
    pointsman: Pointsman,
    envoy: Envoy,
    _fleet: Fleet,
}

impl Shadowed {
    async fn start(shadow: &[(&str, u32)], share: &str) -> Self {
        let fleet = Fleet::start(4, &[]).await;
        let endpoints = EndpointsFile::with(fleet.list());
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), config(&endpoints.path(), shadow)).unwrap();
        let flags = ["--shadow-config", file.path().to_str().unwrap(), "--shadow-cpu", share];
        let pointsman = Pointsman::start(&config(&endpoints.path(), SCORERS), &flags).await;
        holds("every server was scraped", async || {
            pointsman.metric("llm_d_epp_ready_endpoints", &[]).await == Some(4.0)
        })
        .await;
        let envoy = Envoy::start(pointsman.grpc, true, BodyMode::FullDuplexStreamed).await;
        Self { shadow: file, endpoints, pointsman, envoy, _fleet: fleet }
    }

    /// Sends so many requests from eight clients at once. Each must be answered.
    async fn crowd(&self, count: usize) {
        let client = Arc::new(self.envoy.http2());
        let mut tasks = tokio::task::JoinSet::new();
        for index in 0..count {
            if tasks.len() == 8 {
                tasks.join_next().await.unwrap().unwrap();
            }
            let client = Arc::clone(&client);
            tasks.spawn(async move {
                let text = format!("tell me story {} ", index % 13).repeat(30 + index % 40);
                let reply = client.post("/v1/chat/completions", &chat(&text, 2, index % 2 == 0)).await;
                assert_eq!(reply.status, 200, "{reply:?}");
            });
        }
        while let Some(done) = tasks.join_next().await {
            done.unwrap();
        }
    }

    async fn count(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.pointsman.metric(name, labels).await.unwrap_or(0.0)
    }

    async fn decisions(&self, result: &str) -> f64 {
        self.count("pointsman_shadow_decisions_total", &[("result", result), ("profile", "default")]).await
    }

    async fn standing(&self) -> Value {
        Client::http1(self.pointsman.metrics).get("/debug/config").await.json()["shadow"].clone()
    }

    /// Puts another file in the place of the shadow's.
    fn replace(&self, text: &str) {
        let beside = self.shadow.path().with_extension("new");
        std::fs::write(&beside, text).unwrap();
        std::fs::rename(&beside, self.shadow.path()).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shadow_with_the_same_configuration_agrees_with_every_decision_under_load() {
    let shadowed = Shadowed::start(SCORERS, "1000%").await;
    shadowed.crowd(400).await;
    let (agree, differ) = (shadowed.decisions("agree").await, shadowed.decisions("differ").await);
    assert!(agree >= 50.0 && differ == 0.0, "{agree} agree, {differ} differ");
    for alone in ["only_shadow", "only_running"] {
        assert_eq!(shadowed.decisions(alone).await, 0.0, "{alone}");
    }
    assert_eq!(shadowed.count("pointsman_shadow_agreement_ratio", &[]).await, 1.0);
    let cached = async |choice: &str| {
        shadowed.count("pointsman_shadow_predicted_cached_tokens_total", &[("choice", choice)]).await
    };
    let (running, shadow) = (cached("running").await, cached("shadow").await);
    assert!(running > 0.0 && running == shadow, "{running} and {shadow}");
    let standing = shadowed.standing().await;
    assert_eq!((&standing["active"], &standing["problems"]), (&true.into(), &Vec::<Value>::new().into()));
    assert_eq!(standing["profiles"][0]["agreement"], 1.0, "{standing}");
    let page = Client::http1(shadowed.pointsman.metrics).get("/debug/decisions?limit=200").await.json();
    let mut seen = 0;
    for row in page["decisions"].as_array().unwrap() {
        let path = format!("/debug/decisions/@{}", row["sequence"]);
        let record = Client::http1(shadowed.pointsman.metrics).get(&path).await.json();
        let Some(shadow) = record.get("shadow") else { continue };
        assert_eq!((&shadow["endpoint"], &shadow["agrees"]), (&record["endpoint"], &true.into()), "{record}");
        assert_eq!(shadow["profiles"][0]["rows"], record["profiles"][0]["rows"], "the same numbers");
        seen += 1;
    }
    assert!(seen > 0, "no record has a shadow");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_shadow_is_compared_explained_and_replaced_while_requests_go_on() {
    let shadowed = Shadowed::start(&[("queue-scorer", 1)], "1000%").await;
    // Its scorer knows nothing of prefixes: the running configuration keeps stories where they are.
    shadowed.crowd(120).await;
    assert!(shadowed.decisions("differ").await > 0.0);
    let regrets = shadowed.count("pointsman_shadow_regret_count", &[("choice", "shadow")]).await;
    let ruled_out = shadowed.count("pointsman_shadow_ruled_out_total", &[("choice", "shadow")]).await;
    assert_eq!(regrets + ruled_out, shadowed.decisions("differ").await);
    let url = format!("http://{}", shadowed.pointsman.metrics);
    let page = Client::http1(shadowed.pointsman.metrics).get("/debug/decisions?limit=100").await.json();
    let mut words = String::new();
    for row in page["decisions"].as_array().unwrap() {
        let id = row["id"].as_str().unwrap().to_owned();
        let output = Command::new(program()).args(["explain", &id, "--url", &url]).output().unwrap();
        words = String::from_utf8(output.stdout).unwrap();
        if words.contains("shadow: ") {
            break;
        }
    }
    let table = words.lines().find(|line| line.contains("total")).unwrap_or_default();
    assert!(table.contains(" shadow ") && words.contains("shadow: "), "{words}");

    let digest = shadowed.standing().await["digest"].clone();
    shadowed.replace(&config(&shadowed.endpoints.path(), SCORERS));
    let standing = eventually("the shadow is another one", async || {
        let standing = shadowed.standing().await;
        (standing["digest"] != digest).then_some(standing)
    })
    .await;
    assert_eq!(standing["profiles"][0]["compared"], 0, "{standing}");
    let config = Client::http1(shadowed.pointsman.metrics).get("/debug/config").await.json();
    assert_eq!(config["generation"], 1, "the running configuration is the same");
    shadowed.crowd(20).await;
    assert_eq!(
        shadowed.standing().await["profiles"][0]["agreement"],
        1.0,
        "it knows what the other one knows"
    );

    shadowed.replace("plugins: [");
    holds("a faulty shadow is none", async || {
        let standing = shadowed.standing().await;
        standing["active"] == false && standing["problems"].as_array().is_some_and(|it| !it.is_empty())
    })
    .await;
    assert_eq!(shadowed.count("pointsman_shadow_active", &[]).await, 0.0);
    shadowed.crowd(10).await;
}
