//! Objectives and model rewrites from the endpoints file, as clients and model servers see them.

use pointsman::extproc::wire::{Mutation, Response};
use serde_json::{Value, json};

use crate::support::{
    BodyMode, Client, EndpointsFile, Envoy, Fleet, Pointsman, Proxy, Reply, SCORERS, body, chat, config,
    headers, holds, sse_events,
};

const RESOURCES: &str = "\
objectives:
- {name: gold, priority: 10}
- {name: bulk, priority: -5}
- {name: elsewhere, priority: 99, poolRef: another-pool}
modelRewrites:
- name: exact
  rules:
  - matches: [{model: {type: Exact, value: asked}}]
    targets: [{modelRewrite: by-rule}]
- name: another
  poolRef: another-pool
  rules:
  - targets: [{modelRewrite: by-another-pool}]
";

/// Headers of a request beside the usual ones.
type Further<'a> = &'a [(&'a str, &'a str)];

/// One simulated server with many models behind the program behind Envoy.
struct Bench {
    envoy: Envoy,
    pointsman: Pointsman,
    fleet: Fleet,
    endpoints: EndpointsFile,
}

impl Bench {
    async fn start(resources: &str, flags: &[&str]) -> Self {
        let models = ["--model", "sim-model", "--model", "by-rule", "--model", "by-header"];
        let fleet = Fleet::start(1, &models).await;
        let endpoints = EndpointsFile::of(&format!("{}{resources}", EndpointsFile::listed(fleet.list())));
        let pointsman = Pointsman::start(&config(&endpoints.path(), SCORERS), flags).await;
        let envoy = Envoy::start(pointsman.grpc, true, BodyMode::FullDuplexStreamed).await;
        Self { envoy, pointsman, fleet, endpoints }
    }

    fn client(&self) -> Client {
        self.envoy.http1()
    }

    /// What the server received last.
    async fn last(&self) -> Value {
        let page = self.fleet.servers[0].client().get("/sim/requests?n=1").await.json();
        page[0].clone()
    }

    async fn ask(&self, model: &str, further: Further<'_>) -> Reply {
        // Odd spacing, escapes and key order on purpose: nothing but the name may change.
        let reply = self.client().post_with("/v1/chat/completions", further, odd(model)).await;
        assert_eq!(reply.status, 200, "{reply:?}");
        reply
    }
}

fn odd(model: &str) -> String {
    format!(
        "{{ \"max_tokens\":1 ,\n\t\"messages\" : [{{\"content\":\"\\u00e9\\/ \\\"model\\\":\\\"asked\\\"\",\"role\":\"user\"}}],\"model\" :  \"{model}\" ,\"user\":\"asked\"}}  "
    )
}

fn header_of(received: &Value, name: &str) -> Option<String> {
    let headers = received["headers"].as_array().unwrap();
    let found = headers.iter().find(|header| header[0] == name)?;
    found[1].as_str().map(str::to_owned)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rule_goes_before_the_header_and_the_header_before_the_body() {
    let bench = Bench::start(RESOURCES, &[]).await;
    let header = [("x-llm-d-model-name-rewrite", "by-header")];
    let older = [("x-gateway-model-name-rewrite", "by-header")];
    let both = [("x-llm-d-model-name-rewrite", "by-header"), ("x-gateway-model-name-rewrite", "nobody")];
    let cases: [(&str, Further<'_>, &str); 6] = [
        ("asked", &header, "by-rule"),
        ("asked", &[], "by-rule"),
        ("any", &header, "by-header"),
        ("any", &older, "by-header"),
        ("any", &both, "by-header"),
        ("sim-model", &[], "sim-model"),
    ];
    for (model, further, expected) in cases {
        let reply = bench.ask(model, further).await;
        assert_eq!(reply.json()["model"], model, "the client gets the name it asked for");
        let received = bench.last().await;
        assert_eq!(received["body"], odd(expected), "{model} {further:?}");
    }
    let labels = [("model_rewrite_name", "exact"), ("model_name", "asked"), ("target_model", "by-rule")];
    let decisions = bench.pointsman.metric("llm_d_epp_model_rewrite_decisions_total", &labels).await;
    assert_eq!(decisions, Some(2.0));
    let labels = [("model_name", "any"), ("target_model_name", "by-header")];
    assert_eq!(bench.pointsman.metric("llm_d_epp_request_total", &labels).await, Some(3.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_streamed_answer_names_the_model_that_was_asked_for_in_every_event() {
    let bench = Bench::start(RESOURCES, &[]).await;
    let mut question = chat("asked or by-rule, that is the question", 20, true);
    question["model"] = json!("asked");
    for client in [bench.envoy.http1(), bench.envoy.http2()] {
        let reply = client.post("/v1/chat/completions", &question).await;
        assert_eq!(reply.status, 200, "{reply:?}");
        let events = sse_events(reply.text());
        assert_eq!(events.last(), Some(&"[DONE]"), "{reply:?}");
        assert!(events.len() > 20, "{events:?}");
        for event in &events[..events.len() - 1] {
            let event: Value = serde_json::from_str(event).unwrap();
            assert_eq!(event["model"], "asked", "{event}");
        }
        let sent: Value = serde_json::from_str(bench.last().await["body"].as_str().unwrap()).unwrap();
        assert_eq!(sent["model"], "by-rule");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rewrites_follow_the_file_while_requests_are_served() {
    let bench = Bench::start("", &[]).await;
    bench.ask("sim-model", &[]).await;
    assert_eq!(bench.last().await["body"], odd("sim-model"));
    let listed = EndpointsFile::listed(bench.fleet.list());
    let rule = "modelRewrites:\n- name: all\n  rules:\n  - targets: [{modelRewrite: by-rule}]\n";
    bench.endpoints.write_text(&format!("{listed}{rule}"));
    holds("the new rule is followed", async || {
        bench.ask("sim-model", &[]).await;
        bench.last().await["body"] == odd("by-rule")
    })
    .await;
    bench.endpoints.write_text(&listed);
    holds("the rule is gone", async || {
        bench.ask("sim-model", &[]).await;
        bench.last().await["body"] == odd("sim-model")
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_objective_and_the_fairness_id_are_labels_of_the_request() {
    let bench = Bench::start(RESOURCES, &[]).await;
    let cases: [(Further<'_>, &str, &str); 6] = [
        (&[("x-llm-d-inference-objective", "gold")], "10", "default-flow"),
        (&[("x-gateway-inference-objective", "bulk")], "-5", "default-flow"),
        (&[("x-llm-d-inference-objective", "unknown")], "0", "default-flow"),
        (&[("x-llm-d-inference-objective", "elsewhere")], "0", "default-flow"),
        (&[("x-llm-d-inference-fairness-id", "tenant-a")], "0", "tenant-a"),
        (&[("x-gateway-inference-fairness-id", "tenant-b")], "0", "tenant-b"),
    ];
    for (further, priority, fairness_id) in cases {
        let labels = [("priority", priority), ("fairness_id", fairness_id)];
        let name = "llm_d_epp_request_total";
        let before = bench.pointsman.metric(name, &labels).await.unwrap_or(0.0);
        bench.ask("sim-model", further).await;
        assert_eq!(bench.pointsman.metric(name, &labels).await, Some(before + 1.0), "{further:?}");
    }
    let log = bench.pointsman.process.log().join("\n");
    assert!(log.contains("another-pool"), "what belongs to another pool is told: {log}");
}

const CONTROL: [(&str, &str); 6] = [
    ("x-llm-d-inference-fairness-id", "tenant-a"),
    ("x-gateway-inference-fairness-id", "tenant-b"),
    ("x-llm-d-inference-objective", "gold"),
    ("x-llm-d-model-name-rewrite", "by-header"),
    ("x-prefiller-host-port", "10.0.0.9:1"),
    ("x-data-parallel-host-port", "10.0.0.9:2"),
];

#[tokio::test(flavor = "multi_thread")]
async fn control_headers_end_at_the_picker() {
    let bench = Bench::start(RESOURCES, &[]).await;
    bench.ask("any", &[CONTROL.as_slice(), &[("x-custom", "kept")]].concat()).await;
    let received = bench.last().await;
    for (name, _) in CONTROL {
        assert_eq!(header_of(&received, name), None, "{name}");
    }
    assert_eq!(header_of(&received, "x-custom").as_deref(), Some("kept"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flag_lets_control_headers_through() {
    let bench = Bench::start(RESOURCES, &["--strip-control-headers=false"]).await;
    bench.ask("any", &CONTROL).await;
    let received = bench.last().await;
    for (name, value) in CONTROL {
        assert_eq!(header_of(&received, name).as_deref(), Some(value), "{name}");
    }
}

/// The models that this many requests are sent to, by a picker with this seed.
async fn drawn(seed: &str, count: usize) -> Vec<String> {
    let rules = "modelRewrites:\n- name: split\n  rules:\n  - targets:\n    - {modelRewrite: stable, weight: 3}\n    \
                 - {modelRewrite: canary, weight: 1}\n    - {modelRewrite: never}\n";
    let listed = EndpointsFile::listed([("one", "127.0.0.1:1".parse().unwrap())]);
    let endpoints = EndpointsFile::of(&format!("{listed}{rules}"));
    let flags = ["--secure-serving=false", "--seed", seed];
    let pointsman = Pointsman::start(&config(&endpoints.path(), SCORERS), &flags).await;
    let proxy = Proxy::connect(pointsman.grpc).await;
    let mut models = Vec::new();
    for _ in 0..count {
        let exchange = proxy.open().await;
        exchange.say(headers("/v1/chat/completions", [], false)).await;
        exchange.say(body(chat("which", 1, false).to_string(), true)).await;
        let answers = exchange.finish().await;
        let sent: Vec<u8> = answers.into_iter().flat_map(|answer| piece(&answer.unwrap())).collect();
        let sent: Value = serde_json::from_slice(&sent).unwrap();
        models.push(sent["model"].as_str().unwrap().to_owned());
    }
    models
}

fn piece(answer: &Response) -> Vec<u8> {
    let Response::RequestBody(answer) = answer else { return Vec::new() };
    let mutation = answer.response.as_ref().and_then(|response| response.body_mutation.as_ref());
    match mutation.and_then(|mutation| mutation.mutation.as_ref()) {
        Some(Mutation::StreamedResponse(piece)) => piece.body.to_vec(),
        other => panic!("no piece of a body: {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn weights_share_the_requests_and_a_seed_repeats_the_draws() {
    let first = drawn("7", 400).await;
    let count = |model: &str| first.iter().filter(|drawn| *drawn == model).count();
    assert!((260..340).contains(&count("stable")), "{} of 400", count("stable"));
    assert_eq!(count("stable") + count("canary"), 400, "a target without a weight is never drawn");
    assert_eq!(first, drawn("7", 400).await);
    assert_ne!(first, drawn("8", 400).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_whose_body_cannot_be_read_counts_under_the_model_that_its_header_asks_for() {
    let bench = Bench::start("", &[]).await;
    let further = [("x-llm-d-model-name-rewrite", "by-header")];
    let reply = bench.client().post_with("/v1/chat/completions", &further, "{\"model\":").await;
    assert_eq!(reply.status, 400);
    let page = bench.pointsman.page().await;
    let line = page.lines().find(|line| line.starts_with("llm_d_epp_request_error_total{")).unwrap();
    assert!(line.contains("target_model_name=\"by-header\"") && line.contains("model_name=\"\""), "{line}");
}
