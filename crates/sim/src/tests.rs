//! Servers on loopback, asked over TCP.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{FakeMetrics, Faults, Role, SimConfig, SimServer, SimStats};

const PATIENCE: Duration = Duration::from_secs(10);

struct Client {
    sender: SendRequest<Full<Bytes>>,
}

impl Client {
    async fn new(addr: SocketAddr) -> Self {
        let stream = TcpStream::connect(addr).await.unwrap();
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        Self { sender }
    }

    async fn send(&mut self, method: &str, path: &str, body: &str) -> hyper::Result<Response<Incoming>> {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "sim")
            .header("x-test", "one")
            .header("x-test", "two")
            .header("content-type", "application/json")
            .body(Full::new(Bytes::copy_from_slice(body.as_bytes())))
            .unwrap();
        self.sender.ready().await?;
        self.sender.send_request(request).await
    }

    async fn ask(&mut self, method: &str, path: &str, body: &str) -> (StatusCode, String) {
        let response = timeout(PATIENCE, self.send(method, path, body)).await.unwrap().unwrap();
        assert!(response.headers().contains_key("x-sim-server"), "{method} {path}");
        (response.status(), text(response).await)
    }

    async fn get(&mut self, path: &str) -> String {
        let (status, body) = self.ask("GET", path, "").await;
        assert_eq!(status, 200, "{path}: {body}");
        body
    }

    async fn json(&mut self, method: &str, path: &str, body: &Value) -> Value {
        let (status, body) = self.ask(method, path, &body.to_string()).await;
        assert_eq!(status, 200, "{path}: {body}");
        serde_json::from_str(&body).unwrap()
    }
}

async fn text(response: Response<Incoming>) -> String {
    let body = timeout(PATIENCE, response.into_body().collect()).await.unwrap().unwrap();
    String::from_utf8(body.to_bytes().to_vec()).unwrap()
}

async fn start(config: SimConfig) -> SimServer {
    SimServer::start(config, "127.0.0.1:0".parse().unwrap()).await.unwrap()
}

/// Waits for what a server says about itself.
async fn until(server: &SimServer, reached: impl Fn(&SimStats) -> bool) {
    let poll = async {
        while !reached(&server.stats()) {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, poll).await.unwrap_or_else(|_| panic!("{:?}", server.stats()));
}

/// A server whose answers take for ever after the first token.
fn slow() -> SimConfig {
    SimConfig { inter_token: Duration::from_hours(1), max_num_seqs: 1, ..SimConfig::instant() }
}

async fn in_role(role: Role) -> SimServer {
    let slow_prefill = Duration::from_millis(2);
    let config = SimConfig { role: Some(role), prefill_per_token: slow_prefill, ..SimConfig::instant() };
    start(config).await
}

#[tokio::test]
async fn what_a_prefill_server_offers_a_decode_server_does_not_compute_again() {
    let (prefill, decode) = (in_role(Role::Prefill).await, in_role(Role::Decode).await);
    let mut body = json!({"prompt": "all aboard the night train ".repeat(40), "max_tokens": 1,
        "kv_transfer_params": {"do_remote_decode": true, "do_remote_prefill": false, "remote_block_ids": null}});
    let first = Client::new(prefill.addr).await.json("POST", "/v1/completions", &body).await;
    let offered = first["kv_transfer_params"].clone();
    assert_eq!(
        (&offered["remote_host"], &offered["do_remote_prefill"]),
        (&json!("sim"), &json!(true)),
        "{first}"
    );
    (body["kv_transfer_params"], body["max_tokens"]) = (offered, json!(3));
    let second = Client::new(decode.addr).await.json("POST", "/v1/completions", &body).await;
    let prompt = second["usage"]["prompt_tokens"].as_u64().unwrap();
    let cached = second["usage"]["prompt_tokens_details"]["cached_tokens"].as_u64().unwrap();
    assert!(cached > 0 && prompt - cached <= 16, "{second}");
    assert_eq!(second["kv_transfer_params"], Value::Null);
    // Without a connector the same request is computed, and nobody is told.
    let plain = start(SimConfig::instant()).await;
    let third = Client::new(plain.addr).await.json("POST", "/v1/completions", &body).await;
    assert_eq!(third["usage"]["prompt_tokens_details"]["cached_tokens"], 0);
}

#[tokio::test]
async fn a_request_with_a_threshold_is_answered_at_once_where_too_little_is_cached() {
    let server = start(SimConfig::instant()).await;
    let mut client = Client::new(server.addr).await;
    let prompt = "all aboard the night train ".repeat(40);
    let body = |threshold: f64, stream: bool| {
        json!({"messages": [{"role": "user", "content": prompt}], "max_tokens": 2, "stream": stream,
               "cache_hit_threshold": threshold})
    };
    let cold = client.json("POST", "/v1/chat/completions", &body(0.8, false)).await;
    assert_eq!(cold["choices"][0]["finish_reason"], "cache_threshold");
    assert_eq!(
        (&cold["choices"][0]["message"]["content"], &cold["usage"]["completion_tokens"]),
        (&json!(""), &json!(0))
    );
    let (_, stream) = client.ask("POST", "/v1/chat/completions", &body(0.8, true).to_string()).await;
    assert!(stream.contains(r#""finish_reason":"cache_threshold""#) && stream.ends_with("data: [DONE]\n\n"));
    assert_eq!(server.stats().finished, 0, "nothing was computed");
    let computed = client.json("POST", "/v1/chat/completions", &body(0.0, false)).await;
    assert_eq!(computed["choices"][0]["finish_reason"], "length");
    let warm = client.json("POST", "/v1/chat/completions", &body(0.8, false)).await;
    assert_eq!(warm["choices"][0]["finish_reason"], "length");
}

#[tokio::test]
async fn bootstrap_servers_and_encoders_answer_in_their_roles() {
    let prefill = in_role(Role::Prefill).await;
    let engines = Client::new(prefill.addr).await.json("GET", "/query", &json!({})).await;
    assert_eq!(engines, json!({"0": {"engine_id": "sim-0-0"}}));
    let decode = in_role(Role::Decode).await;
    assert_eq!(Client::new(decode.addr).await.ask("GET", "/query", "").await.0, 404);
    let encode = in_role(Role::Encode).await;
    let image = json!({"type": "image_url", "image_url": {"url": "https://example.com/cat.png"}});
    let body = json!({"messages": [{"role": "user", "content": [image, image]}], "max_tokens": 1});
    let encoded = Client::new(encode.addr).await.json("POST", "/v1/chat/completions", &body).await;
    let offered = encoded["ec_transfer_params"].as_object().unwrap();
    assert_eq!(offered.values().collect::<Vec<_>>(), [&json!({"peer_host": "sim", "peer_port": 5601})]);
}

fn completion(stream: bool) -> String {
    json!({"model": "sim-model", "prompt": "hello world", "max_tokens": 5, "stream": stream}).to_string()
}

#[tokio::test]
async fn every_answer_names_its_server() {
    let server = start(SimConfig { name: "sim-7".to_owned(), ..SimConfig::instant() }).await;
    let mut client = Client::new(server.addr).await;
    for (method, path, status) in [
        ("GET", "/health", 200),
        ("GET", "/v1/models", 200),
        ("POST", "/v1/models", 405),
        ("GET", "/metrics", 200),
        ("POST", "/v1/completions", 200),
        ("POST", "/v1/anything", 404),
        ("GET", "/sim/stats", 200),
        ("GET", "/sim/nothing", 404),
    ] {
        let response = client.send(method, path, &completion(false)).await.unwrap();
        assert_eq!(response.status(), status, "{path}");
        assert_eq!(response.headers()["x-sim-server"], "sim-7", "{path}");
        assert_eq!(response.headers()["x-inference-pod"], "sim-7", "{path}");
        text(response).await;
    }
}

#[tokio::test]
async fn a_completion_has_text_and_usage_and_is_cached_the_second_time() {
    let server = start(SimConfig { block_size: 4, ..SimConfig::instant() }).await;
    let mut client = Client::new(server.addr).await;
    let body = json!({"prompt": "a".repeat(160), "max_tokens": 3});
    let first = client.json("POST", "/v1/completions", &body).await;
    let second = client.json("POST", "/v1/completions", &body).await;
    assert_eq!(first["choices"][0]["text"], second["choices"][0]["text"]);
    assert_eq!(first["usage"]["prompt_tokens"], 40);
    assert_eq!(first["usage"]["prompt_tokens_details"]["cached_tokens"], 0);
    assert_eq!(second["usage"]["prompt_tokens_details"]["cached_tokens"], 36);
    assert_ne!(first["id"], second["id"]);
}

#[tokio::test]
async fn a_stream_comes_as_events_with_usage_when_asked() {
    let server = start(SimConfig::instant()).await;
    let mut client = Client::new(server.addr).await;
    let body = json!({
        "messages": [{"role": "user", "content": "hi"}], "max_tokens": 3, "stream": true,
        "stream_options": {"include_usage": true},
    });
    let response = client.send("POST", "/v1/chat/completions", &body.to_string()).await.unwrap();
    assert_eq!(response.headers()["content-type"], "text/event-stream; charset=utf-8");
    let text = text(response).await;
    assert_eq!(text.matches("data: ").count(), 6, "{text}");
    assert!(text.contains(r#""completion_tokens":3"#) && text.ends_with("data: [DONE]\n\n"), "{text}");
}

#[tokio::test]
async fn an_unknown_model_is_not_found() {
    let server = start(SimConfig::instant()).await;
    let (status, body) =
        Client::new(server.addr).await.ask("POST", "/v1/completions", r#"{"model":"x","prompt":"y"}"#).await;
    assert_eq!(status, 404);
    assert!(body.contains("NotFoundError"), "{body}");
}

#[tokio::test]
async fn requests_are_shown_as_they_came() {
    let server = start(SimConfig::instant()).await;
    let mut client = Client::new(server.addr).await;
    let sent = "{\"prompt\" : \"x\",\n \"max_tokens\":1}";
    client.ask("POST", "/v1/completions?a=b", sent).await;
    client.get("/metrics").await;
    let shown = client.json("GET", "/sim/requests?n=1", &json!(null)).await;
    assert_eq!(shown.as_array().unwrap().len(), 1);
    assert_eq!(shown[0]["path"], "/v1/completions?a=b");
    assert_eq!(shown[0]["body"], sent);
    assert_eq!(shown[0]["body_xxh64"], format!("{:016x}", xxhash_rust::xxh64::xxh64(sent.as_bytes(), 0)));
    let headers = shown[0]["headers"].as_array().unwrap();
    let tests: Vec<&Value> =
        headers.iter().filter(|header| header[0] == "x-test").map(|header| &header[1]).collect();
    assert_eq!(tests, ["one", "two"]);
    assert_eq!(server.received(10).len(), 1);
}

#[tokio::test]
async fn echo_gives_the_body_back_and_a_long_one_is_refused() {
    let server = start(SimConfig { max_body_bytes: 1_000_000, ..SimConfig::instant() }).await;
    let body = "x".repeat(1_000_000);
    let (_, echoed) = Client::new(server.addr).await.ask("POST", "/echo", &body).await;
    assert!(echoed == body);
    let (status, _) = Client::new(server.addr).await.ask("POST", "/echo", &format!("{body}x")).await;
    assert_eq!(status, 413);
}

#[tokio::test]
async fn one_process_filters_below_the_slash_only() {
    let server = start(SimConfig::instant()).await;
    let mut client = Client::new(server.addr).await;
    let query = "name[]=vllm:num_requests_running&name[]=vllm:num_requests_waiting";
    let response = client.send("GET", &format!("/metrics?{query}"), "").await.unwrap();
    assert_eq!(response.headers()["content-type"], "text/plain; version=0.0.4; charset=utf-8");
    let whole = text(response).await;
    assert!(whole.len() > 40_000, "{}", whole.len());
    assert_eq!(client.get("/metrics/").await, whole);
    let filtered = client.get(&format!("/metrics/?{query}")).await;
    assert_eq!(filtered.lines().count(), 6, "{filtered}");
    let stats = server.stats();
    assert_eq!((stats.scrapes, stats.filtered_scrapes), (2, 1));
}

#[tokio::test]
async fn two_processes_answer_a_filter_with_an_empty_page() {
    let server = start(SimConfig { processes: 2, ..SimConfig::instant() }).await;
    let mut client = Client::new(server.addr).await;
    assert_eq!(client.get("/metrics/?name[]=vllm:num_requests_running").await, "");
    let whole = client.get("/metrics").await;
    assert!(whole.contains("vllm:num_requests_running{") && !whole.contains("python_info"));
}

#[tokio::test]
async fn running_and_waiting_show_on_the_page_and_vanish_with_their_clients() {
    let server = start(SimConfig { adapters: vec!["a".to_owned()], ..slow() }).await;
    let mut streaming = Client::new(server.addr).await;
    let response = streaming.send("POST", "/v1/completions", &completion(true)).await.unwrap();
    until(&server, |stats| stats.running == 1).await;
    let addr = server.addr;
    let waiting = tokio::spawn(async move {
        let mut client = Client::new(addr).await;
        let body = json!({"model": "a", "prompt": "x"}).to_string();
        client.send("POST", "/v1/completions", &body).await.map(|_| ())
    });
    until(&server, |stats| stats.waiting == 1).await;

    let mut client = Client::new(server.addr).await;
    let page = client.get("/metrics").await;
    for line in [
        r#"vllm:num_requests_running{engine="0",model_name="sim-model"} 1.0"#,
        r#"vllm:num_requests_waiting{engine="0",model_name="sim-model"} 1.0"#,
        r#"vllm:lora_requests_info{max_lora="1",running_lora_adapters="",waiting_lora_adapters="a"} 1."#,
    ] {
        assert!(page.contains(line), "{line}");
    }
    waiting.abort();
    until(&server, |stats| stats.waiting == 0).await;
    drop((response, streaming));
    until(&server, |stats| stats.running == 0 && stats.aborted == 2).await;
    assert!(server.stats().kv_usage == 0.0);
}

#[tokio::test]
async fn a_full_queue_answers_unavailable() {
    let server = start(SimConfig { max_waiting: 0, ..slow() }).await;
    let mut streaming = Client::new(server.addr).await;
    let _response = streaming.send("POST", "/v1/completions", &completion(true)).await.unwrap();
    let (status, _) = Client::new(server.addr).await.ask("POST", "/v1/completions", &completion(false)).await;
    assert_eq!(status, 503);
    assert_eq!(server.stats().rejected, 1);
}

#[tokio::test]
async fn errors_follow_the_rate_and_stop_when_cleared() {
    let server = start(SimConfig::instant()).await;
    let mut client = Client::new(server.addr).await;
    client.json("POST", "/sim/faults", &json!({"error_rate": 0.5, "error_status": 502})).await;
    let mut failed = 0;
    for _ in 0..100 {
        let (status, _) = client.ask("POST", "/v1/completions", &completion(false)).await;
        failed += usize::from(status == 502);
    }
    assert!((25..75).contains(&failed), "{failed}");
    client.json("DELETE", "/sim/faults", &json!(null)).await;
    client.json("POST", "/v1/completions", &json!({"prompt": "x"})).await;
    let (status, _) = client.ask("POST", "/sim/faults", r#"{"hagn":true}"#).await;
    assert_eq!(status, 400);
}

#[tokio::test]
async fn a_hanging_server_answers_nothing_but_its_control_and_goes_on_when_cleared() {
    let server = start(SimConfig::instant()).await;
    let mut control = Client::new(server.addr).await;
    control.json("POST", "/sim/faults", &json!({"hang": true})).await;
    let addr = server.addr;
    let asked = tokio::spawn(async move { Client::new(addr).await.ask("GET", "/health", "").await });
    until(&server, |stats| stats.received == 1).await;
    control.get("/metrics").await;
    assert!(!asked.is_finished());
    control.json("DELETE", "/sim/faults", &json!(null)).await;
    assert_eq!(asked.await.unwrap().0, 200);
}

#[tokio::test]
async fn hanging_metrics_leave_the_rest_alone() {
    let server = start(SimConfig::instant()).await;
    server.set_faults(Faults { hang_metrics: true, ..Faults::default() });
    let addr = server.addr;
    let scrape = tokio::spawn(async move { Client::new(addr).await.get("/metrics").await });
    Client::new(addr).await.json("POST", "/v1/completions", &json!({"prompt": "x"})).await;
    assert!(!scrape.is_finished());
    server.set_faults(Faults::default());
    assert!(scrape.await.unwrap().len() > 40_000);
}

#[tokio::test]
async fn a_reset_breaks_new_requests_and_streams_under_way() {
    let server = start(slow()).await;
    let mut streaming = Client::new(server.addr).await;
    let mut response = streaming.send("POST", "/v1/completions", &completion(true)).await.unwrap();
    let first = timeout(PATIENCE, response.body_mut().frame()).await.unwrap().unwrap();
    assert!(first.is_ok());
    server.set_faults(Faults { reset: true, ..Faults::default() });
    let next = timeout(PATIENCE, response.body_mut().frame()).await.unwrap().unwrap();
    assert!(next.is_err());
    assert!(Client::new(server.addr).await.send("GET", "/health", "").await.is_err());
    until(&server, |stats| stats.running == 0).await;
    server.set_faults(Faults::default());
    Client::new(server.addr).await.get("/health").await;
}

#[tokio::test]
async fn a_reset_is_a_reset_on_the_wire() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let server = start(SimConfig::instant()).await;
    server.set_faults(Faults { reset: true, ..Faults::default() });
    let mut stream = TcpStream::connect(server.addr).await.unwrap();
    stream.write_all(b"GET /health HTTP/1.1\r\nhost: sim\r\n\r\n").await.unwrap();
    let read = timeout(PATIENCE, stream.read(&mut [0; 64])).await.unwrap();
    assert_eq!(read.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn stale_metrics_keep_their_numbers_until_cleared() {
    let server = start(SimConfig::instant()).await;
    let mut client = Client::new(server.addr).await;
    let fresh = client.get("/metrics").await;
    client.json("POST", "/sim/faults", &json!({"stale_metrics": true})).await;
    client.json("POST", "/v1/completions", &json!({"prompt": "x"})).await;
    server.set_fake_metrics(FakeMetrics { waiting: Some(9), ..FakeMetrics::default() });
    assert!(client.get("/metrics").await == fresh);
    let generated = "/metrics/?name[]=vllm:generation_tokens_total";
    assert!(client.get(generated).await.ends_with(" 0.0\n"));
    server.set_faults(Faults::default());
    assert!(client.get(generated).await.ends_with(" 16.0\n"));
    assert!(client.get("/metrics").await.contains(r#"waiting{engine="0",model_name="sim-model"} 9.0"#));
}

#[tokio::test]
async fn load_figures_can_be_pinned_and_released() {
    let server = start(SimConfig::instant()).await;
    let mut client = Client::new(server.addr).await;
    client.json("POST", "/sim/fake-metrics", &json!({"waiting": 7, "running": 3, "kv": 0.25})).await;
    let page = client.get("/metrics/?name[]=vllm:num_requests_waiting&name[]=vllm:num_requests_running&name[]=vllm:kv_cache_usage_perc").await;
    let values: Vec<&str> = page
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| line.rsplit(' ').next().unwrap())
        .collect();
    assert_eq!(values, ["3.0", "7.0", "0.25"]);
    client.json("POST", "/sim/fake-metrics", &json!(null)).await;
    assert!(client.get("/metrics").await.contains(r#"waiting{engine="0",model_name="sim-model"} 0.0"#));
}

#[tokio::test]
async fn garbage_delay_and_status_of_metrics_are_switches() {
    let server = start(SimConfig::instant()).await;
    let mut client = Client::new(server.addr).await;
    server.set_faults(Faults { garbage_metrics: true, metrics_delay_ms: 5, ..Faults::default() });
    assert!(client.get("/metrics").await.contains("banana"));
    assert!(client.get("/metrics/?name[]=vllm:num_requests_waiting").await.contains("banana"));
    server.set_faults(Faults { metrics_status: 503, ..Faults::default() });
    assert_eq!(client.ask("GET", "/metrics", "").await, (StatusCode::SERVICE_UNAVAILABLE, String::new()));
}

#[tokio::test]
async fn the_other_dialects_and_tasks_answer() {
    let server = start(SimConfig::instant()).await;
    let mut client = Client::new(server.addr).await;
    let responses =
        client.json("POST", "/v1/responses", &json!({"input": "hi", "max_output_tokens": 2})).await;
    assert_eq!(responses["usage"]["output_tokens"], 2);
    let messages = json!({"messages": [{"role": "user", "content": "hi"}], "max_tokens": 2});
    assert_eq!(client.json("POST", "/v1/messages", &messages).await["usage"]["output_tokens"], 2);
    let embeddings = client.json("POST", "/v1/embeddings", &json!({"input": "hi"})).await;
    assert_eq!(embeddings["data"][0]["embedding"].as_array().unwrap().len(), 8);
    assert_eq!(client.json("POST", "/tokenize", &json!({"prompt": "hi"})).await["count"], 1);
}

#[tokio::test]
async fn a_stopped_server_frees_its_port_and_breaks_its_streams() {
    let server = start(slow()).await;
    let addr = server.addr;
    let mut client = Client::new(addr).await;
    let mut response = client.send("POST", "/v1/completions", &completion(true)).await.unwrap();
    response.body_mut().frame().await.unwrap().unwrap();
    timeout(PATIENCE, server.stop()).await.unwrap();
    let next = timeout(PATIENCE, response.body_mut().frame()).await.unwrap();
    assert!(next.is_none_or(|frame| frame.is_err()));
    let again = SimServer::start(SimConfig::instant(), addr).await.unwrap();
    Client::new(again.addr).await.get("/health").await;
}

#[tokio::test]
async fn a_hundred_servers_share_a_process() {
    let mut servers = Vec::new();
    for number in 0..100 {
        servers.push(start(SimConfig { name: format!("sim-{number}"), ..SimConfig::instant() }).await);
    }
    for server in &servers {
        let mut client = Client::new(server.addr).await;
        let response = client.send("GET", "/health", "").await.unwrap();
        assert_eq!(response.headers()["x-sim-server"], server.name.as_str());
    }
}
