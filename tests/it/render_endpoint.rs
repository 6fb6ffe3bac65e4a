//! Exact tokens from a render endpoint: they decide when they come in time, and cost next to nothing when they do not.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use axum::{Json, Router};
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::support::{
    EndpointsFile, Fleet, Pointsman, Proxy, body, config, destination, eventually, headers, holds,
};

const WORKS: u8 = 0;
const HANGS: u8 = 1;
const FAILS: u8 = 2;

/// A render endpoint: a prompt has as many tokens as it says itself.
#[derive(Clone, Default)]
struct Render {
    mode: Arc<AtomicU8>,
    waiting: Arc<AtomicUsize>,
    asked: Arc<Mutex<Vec<Value>>>,
}

/// Counts a call until its connection is gone.
struct Call(Arc<AtomicUsize>);

impl Drop for Call {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

impl Render {
    async fn start(&self) -> SocketAddr {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new()
            .route("/v1/completions/render", post(completions))
            .route("/v1/chat/completions/render", post(chat))
            .with_state(self.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        address
    }

    async fn answer(&self, asked: Value) -> Result<(), StatusCode> {
        self.waiting.fetch_add(1, Relaxed);
        let _call = Call(Arc::clone(&self.waiting));
        self.asked.lock().push(asked);
        match self.mode.load(Relaxed) {
            HANGS => std::future::pending().await,
            FAILS => Err(StatusCode::INTERNAL_SERVER_ERROR),
            _ => Ok(()),
        }
    }
}

/// Ids that go up from 0, as many as the prompt says.
fn ids(prompt: &Value) -> Vec<u32> {
    (0..prompt.as_str().unwrap_or_default().split(' ').next().unwrap_or_default().parse().unwrap_or(1))
        .collect()
}

async fn completions(
    State(render): State<Render>,
    Json(asked): Json<Value>,
) -> Result<Json<Value>, StatusCode> {
    let tokens = ids(&asked["prompt"]);
    render.answer(asked).await?;
    Ok(Json(json!([{"token_ids": tokens}])))
}

async fn chat(State(render): State<Render>, Json(asked): Json<Value>) -> Result<Json<Value>, StatusCode> {
    let tokens = ids(&asked["messages"][0]["content"]);
    render.answer(asked).await?;
    Ok(Json(json!({"token_ids": tokens, "sampling_params": {"n": 1}})))
}

/// The program with a render endpoint and as many model servers.
struct Setup {
    render: Render,
    pointsman: Pointsman,
    proxy: Proxy,
    fleet: Fleet,
    _endpoints: EndpointsFile,
}

impl Setup {
    async fn start(servers: usize, parameters: &str, further: &str) -> Self {
        let render = Render::default();
        let address = render.start().await;
        let fleet = Fleet::start(servers, &[]).await;
        let endpoints = EndpointsFile::with(fleet.list());
        let plugin = format!(
            "plugins:\n- type: token-producer\n  parameters: {{modelName: org/model, vllm: {{url: \"http://{address}\"{parameters}}}}}\n{further}"
        );
        let config = config(&endpoints.path(), &[("prefix-cache-scorer", 1)])
            .replace("plugins:\n- type: file", &format!("{plugin}- type: file"));
        let pointsman = Pointsman::start(&config, &["--secure-serving=false"]).await;
        let proxy = Proxy::connect(pointsman.grpc).await;
        // The program has seen that the endpoint works.
        eventually("a first question", async || render.asked.lock().first().cloned()).await;
        Self { render, pointsman, proxy, fleet, _endpoints: endpoints }
    }

    /// Sends a prompt. Where it goes, how long that took, and the tokens in flight meanwhile.
    async fn send(&self, prompt: &str) -> (String, Duration, f64) {
        let asked = json!({"model": "m", "prompt": prompt}).to_string();
        self.send_to("/v1/completions", asked).await
    }

    async fn send_to(&self, path: &str, asked: String) -> (String, Duration, f64) {
        let mut exchange = self.proxy.open().await;
        exchange.say(headers(path, None, false)).await;
        let began = Instant::now();
        exchange.say(body(asked, true)).await;
        let picked = destination(&exchange.answer().await.unwrap().unwrap()).unwrap();
        let took = began.elapsed();
        let tokens = eventually("tokens in flight", async || {
            self.pointsman
                .metric("pointsman_endpoint_in_flight_tokens", &[])
                .await
                .filter(|tokens| *tokens > 0.0)
        })
        .await;
        drop(exchange);
        holds("nothing in flight", async || {
            self.pointsman.metric("pointsman_endpoint_in_flight_tokens", &[]).await == Some(0.0)
        })
        .await;
        (picked, took, tokens)
    }

    async fn count(&self, outcome: &str) -> f64 {
        self.pointsman
            .metric("pointsman_preparations_total", &[("outcome", outcome)])
            .await
            .unwrap_or_default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn exact_tokens_count_for_load_and_decide_about_prefixes() {
    let setup = Setup::start(4, "", "").await;
    assert_eq!(setup.send("1234 tokens").await.2, 1234.0);
    let chat = json!({"model": "m", "messages": [{"role": "user", "content": "640 tokens of a chat"}]});
    let (first, _, tokens) = setup.send_to("/v1/chat/completions", chat.to_string()).await;
    assert_eq!(tokens, 640.0);
    // Another text with the same tokens is the same prefix.
    for turn in 0..8 {
        let chat = json!({"model": "m", "messages": [{"role": "user", "content": format!("700 {turn}")}]});
        let (picked, ..) = setup.send_to("/v1/chat/completions", chat.to_string()).await;
        assert_eq!(picked, first, "turn {turn}");
    }
    let asked = setup.render.asked.lock().clone();
    assert!(asked.iter().all(|asked| asked["model"] == "org/model"), "{asked:?}");
    // Ids that a client sends are not asked about.
    let ids = json!({"model": "m", "prompt": vec![7; 99]}).to_string();
    setup.send_to("/v1/completions", ids).await;
    assert_eq!(setup.render.asked.lock().len(), asked.len());
    assert_eq!(setup.fleet.servers.len(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_render_endpoint_that_hangs_costs_all_requests_50_ms_in_sum_and_then_nothing() {
    let setup = Setup::start(1, "", "").await;
    setup.send("100").await;
    setup.render.mode.store(HANGS, Relaxed);
    let mut slowest = Duration::ZERO;
    let mut late = 0;
    for _ in 0..30 {
        let (_, took, tokens) = setup.send("1000 tokens").await;
        slowest = slowest.max(took);
        late += usize::from(took > Duration::from_millis(30));
        assert!(tokens < 100.0, "an estimate, not {tokens}");
    }
    let waited = setup.pointsman.metric("pointsman_preparation_wait_seconds_sum", &[]).await.unwrap();
    // One request waited for an answer in time before.
    assert!(waited < 0.075, "{waited} s");
    assert!(late <= 2 && slowest < Duration::from_millis(200), "{late} late, the slowest took {slowest:?}");
    assert_eq!(setup.count("late").await, 1.0);
    assert!(setup.count("skipped").await >= 25.0);
    assert_eq!(setup.pointsman.metric("pointsman_preparation_suspended", &[]).await, Some(1.0));
    // It works again: a probe sees it, and no request waits for the probe.
    setup.render.mode.store(WORKS, Relaxed);
    holds("exact tokens again", async || setup.send("1000 tokens").await.2 == 1000.0).await;
    assert_eq!(setup.pointsman.metric("pointsman_preparation_suspended", &[]).await, Some(0.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_render_endpoint_that_fails_is_left_alone_and_requests_go_on() {
    let setup = Setup::start(1, "", "").await;
    setup.render.mode.store(FAILS, Relaxed);
    for _ in 0..10 {
        assert!(setup.send("1000 tokens").await.2 < 100.0);
    }
    assert_eq!(setup.count("failed").await, 5.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_ends_the_question_about_its_prompt() {
    let setup = Setup::start(1, ", patience: 30s", "").await;
    setup.render.mode.store(HANGS, Relaxed);
    let exchange = setup.proxy.open().await;
    exchange.say(headers("/v1/completions", None, false)).await;
    exchange.say(body(json!({"model": "m", "prompt": "5"}).to_string(), true)).await;
    holds("a question", async || setup.render.waiting.load(Relaxed) == 1).await;
    drop(exchange);
    holds("no question", async || setup.render.waiting.load(Relaxed) == 0).await;
    assert_eq!(setup.count("cancelled").await, 1.0);
}
