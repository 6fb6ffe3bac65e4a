//! Bodies of every kind that servers take: what is understood, what goes on all the same, and what each may cost.

use std::io::Write as _;
use std::time::Duration;

use flate2::Compression;
use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::support::{
    BodyMode, EndpointsFile, Envoy, Fleet, Pointsman, Reply, SCORERS, Stack, chat, config, holds,
};

const CHAT: &str = "/v1/chat/completions";
const ALIAS: &str = "modelRewrites:\n- name: alias\n  rules:\n  - matches: [{model: {value: alias}}]\n    \
                     targets: [{modelRewrite: real-model}]\n";

/// Servers of `real-model` behind the program, with a rule for `alias`.
async fn aliased(flags: &[&str]) -> Stack {
    let fleet = Fleet::start(1, &["--model", "real-model", "--model", "m"]).await;
    let stack = Stack::of(fleet, BodyMode::FullDuplexStreamed, flags).await;
    stack.endpoints.write_text(&format!("{}{ALIAS}", EndpointsFile::listed(stack.fleet.list())));
    holds("the rule is in force", async || {
        let mut question = chat("x", 1, false);
        question["model"] = json!("alias");
        stack.client().post(CHAT, &question).await.status == 200
    })
    .await;
    stack
}

/// What the server received last: its headers and its body.
async fn last(stack: &Stack) -> (String, String) {
    let page = stack.fleet.servers[0].client().get("/sim/requests?n=1").await.json();
    (page[0]["headers"].to_string(), page[0]["body"].as_str().unwrap_or_default().to_owned())
}

fn reached(reply: &Reply) -> bool {
    !reply.header("x-sim-server").is_empty()
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_that_are_not_understood_reach_a_server_and_are_counted() {
    let stack = aliased(&[]).await;
    for (path, body, unread) in [
        (
            "/v1/embeddings",
            json!({"messages": [{"role": "user", "content": [{"type": "text", "text": "hi"}]}]}),
            None,
        ),
        ("/v1/embeddings", json!({"input": [{"role": "user", "content": "hi"}]}), None),
        ("/v1/embeddings", json!({"input": [[{"role": "user", "content": "hi"}], [{"role": "user"}]]}), None),
        ("/v1/embeddings", json!({}), Some(("embeddings", "missing"))),
        ("/v1/completions", json!({"prompt_embeds": "AAAA"}), None),
        ("/v1/completions", json!({"prompt": ["a", [1, 2]]}), Some(("completions", "shape"))),
        (CHAT, json!({"messages": [null]}), Some(("chat_completions", "shape"))),
        (CHAT, json!({"messages": []}), Some(("chat_completions", "missing"))),
        ("/v1/responses", json!({"prompt": {"id": "p"}}), None),
        ("/v1/responses", json!({"previous_response_id": "r"}), Some(("responses", "missing"))),
        ("/v1/conversations", json!({}), Some(("conversations", "missing"))),
        (
            "/v1/messages",
            json!({"messages": [{"role": "user", "content": {"x": 1}}]}),
            Some(("messages", "shape")),
        ),
        ("/inference/v1/generate", json!({"prompt": "x"}), Some(("generate", "missing"))),
        ("/v1/images/generations", json!({"size": "1x1"}), Some(("images", "missing"))),
    ] {
        let mut body = body;
        body["model"] = json!("alias");
        let labels = unread.map(|(api, reason)| [("api", api), ("reason", reason)]);
        let count = async || match &labels {
            Some(labels) => stack.pointsman.metric("pointsman_unread_bodies_total", labels).await,
            None => stack.pointsman.metric("pointsman_unread_bodies_total", &[]).await,
        };
        let before = count().await.unwrap_or(0.0);
        let reply = stack.client().post(path, &body).await;
        assert!(reached(&reply), "{path} {body}: {reply:?}");
        body["model"] = json!("real-model");
        assert_eq!(serde_json::from_str::<Value>(&last(&stack).await.1).unwrap(), body, "{path}");
        let more = if labels.is_some() { 1.0 } else { 0.0 };
        assert_eq!(count().await.unwrap_or(0.0), before + more, "{path} {body}");
    }
    let refused = stack.client().post_with(CHAT, &[], r#"{"model":"alias""#).await;
    assert_eq!((refused.status, reached(&refused)), (400, false), "what is no JSON is still refused");
    stack.assert_idle().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_without_a_model_and_json_as_python_takes_it_reach_a_server_as_they_came() {
    let stack = aliased(&[]).await;
    for (path, body) in [
        ("/v1/conversations", &b"{}"[..]),
        ("/v1/conversations", br#"{"metadata":{}}"#),
        ("/v1/conversations", br#"{"items":[]}"#),
        ("/inference/v1/generate", br#"{"token_ids":[1,2]}"#),
        ("/v1/completions", br#"{"prompt":"x"}"#),
        ("/v1/completions", br#"{"model":null,"prompt":"x"}"#),
        ("/v1/responses", br#"{"input":"x"}"#),
        ("/openai/deployments/NAME/chat/completions", br#"{"messages":[{"role":"user","content":"x"}]}"#),
        (CHAT, br#"[{"model":"m"}]"#),
        (CHAT, br#"{"model":"m","temperature":NaN,"messages":[{"role":"user","content":"x"}]}"#),
        (CHAT, b"\xef\xbb\xbf{\"model\":\"m\",\"messages\":[]}"),
        (CHAT, b"{\0\"\0m\0o\0d\0e\0l\0\"\0:\0\"\0m\0\"\0}\0"),
    ] {
        let reply =
            stack.client().post_with(path, &[("content-type", "application/json")], body.to_vec()).await;
        assert!(reached(&reply), "{path} {}: {reply:?}", String::from_utf8_lossy(body));
    }
    for body in ["hello", "{", "[1"] {
        let refused = stack.client().post_with(CHAT, &[], body).await;
        assert_eq!((refused.status, reached(&refused)), (400, false), "{body:?} is no JSON");
    }
    stack.assert_idle().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_model_is_read_and_rewritten_on_every_path() {
    let stack = aliased(&[]).await;
    for path in [
        "/v1/rerank",
        "/rerank",
        "/v2/rerank",
        "/score",
        "/v1/score",
        "/pooling",
        "/classify",
        "/tokenize",
        "/v1/moderations",
        "/v1/videos",
        "/v1/audio/speech",
        "/generate",
        "/v1/messages/count_tokens",
        "/invocations",
    ] {
        let labels = [("model_name", "alias"), ("target_model_name", "real-model")];
        let before = stack.pointsman.metric("llm_d_epp_request_total", &labels).await.unwrap_or(0.0);
        let body = r#"{ "query":"q", "nested":{"model":"alias"}, "model" : "alias" }"#;
        let reply = stack.client().post_with(path, &[], body).await;
        assert!(reached(&reply), "{path}: {reply:?}");
        assert_eq!(
            last(&stack).await.1,
            r#"{ "query":"q", "nested":{"model":"alias"}, "model" : "real-model" }"#
        );
        let after = stack.pointsman.metric("llm_d_epp_request_total", &labels).await;
        assert_eq!(after, Some(before + 1.0), "{path}");
        let without = r#"{"inputs":[1]}"#;
        stack.client().post_with(path, &[], without).await;
        assert_eq!(last(&stack).await.1, without, "nothing is put into what names no model");
    }
    stack.client().get("/v1/realtime?model=org%2Fm").await;
    let labels = [("model_name", "org/m")];
    assert_eq!(stack.pointsman.metric("llm_d_epp_request_total", &labels).await, Some(1.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_model_in_a_query_is_rewritten_where_the_body_names_none() {
    let stack = aliased(&[]).await;
    let shown = async || {
        let page = stack.fleet.servers[0].client().get("/sim/requests?n=1").await.json();
        page[0]["path"].as_str().unwrap_or_default().to_owned()
    };
    stack.client().get("/v1/realtime?intent=x&model=alias").await;
    assert_eq!(shown().await, "/v1/realtime?intent=x&model=real-model");
    let audio = [("content-type", "audio/wav")];
    stack.client().post_with("/v1/audio/transcriptions?model=al%69as", &audio, "RIFF").await;
    assert_eq!(shown().await, "/v1/audio/transcriptions?model=real-model");
    assert_eq!(last(&stack).await.1, "RIFF");
    let labels = [("model_name", "alias"), ("target_model_name", "real-model")];
    let counted = stack.pointsman.metric("llm_d_epp_request_total", &labels).await;
    stack.client().get("/v1/realtime?model=m").await;
    assert_eq!(shown().await, "/v1/realtime?model=m", "no rule names this model");
    // A model in the body counts first, and the query is then none of our business.
    let mut question = chat("x", 1, false);
    question["model"] = json!("alias");
    stack.client().post(&format!("{CHAT}?model=alias"), &question).await;
    assert_eq!(shown().await, format!("{CHAT}?model=alias"));
    assert_eq!(
        stack.pointsman.metric("llm_d_epp_request_total", &labels).await,
        counted.map(|was| was + 1.0)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_model_in_a_form_is_read_and_rewritten() {
    let stack = aliased(&[]).await;
    let file = "alias\r\n--\0".repeat(1000);
    let form = |model: &str| {
        format!(
            "--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"model\"\r\nContent-Type: audio/wav\r\n\r\n{file}\r\n\
             --b\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\n{model}\r\n\
             --b\r\nContent-Disposition: form-data; name=\"prompt\"\r\n\r\nalias\r\n--b--\r\n"
        )
    };
    let kind = [("content-type", "multipart/form-data; boundary=b")];
    for path in
        ["/v1/images/edits", "/v1/audio/transcriptions", "/v1/audio/translations", "/v1/images/generations"]
    {
        let labels = [("model_name", "alias"), ("target_model_name", "real-model")];
        let before = stack.pointsman.metric("llm_d_epp_request_total", &labels).await.unwrap_or(0.0);
        let reply = stack.client().post_with(path, &kind, form("alias")).await;
        assert!(reached(&reply), "{path}: {reply:?}");
        assert!(last(&stack).await.1 == form("real-model"), "{path}");
        assert_eq!(
            stack.pointsman.metric("llm_d_epp_request_total", &labels).await,
            Some(before + 1.0),
            "{path}"
        );
    }
    let hostile = "--b\r\n\r\n\r\n".repeat(1500);
    let reply = stack.client().post_with("/v1/images/edits", &kind, hostile.clone()).await;
    assert!(reached(&reply) && last(&stack).await.1 == hostile, "a form of too many parts goes on unread");
    let labels = [("api", "opaque"), ("reason", "form")];
    assert_eq!(stack.pointsman.metric("pointsman_unread_bodies_total", &labels).await, Some(1.0));
    stack.assert_idle().await;
}

fn gzip(text: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(text).unwrap();
    encoder.finish().unwrap()
}

/// The text by each encoding, under the name of the header.
fn encoded(text: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let mut zlib = ZlibEncoder::new(Vec::new(), Compression::fast());
    zlib.write_all(text).unwrap();
    let mut raw = DeflateEncoder::new(Vec::new(), Compression::fast());
    raw.write_all(text).unwrap();
    let zstd = ruzstd::encoding::compress_to_vec(text, ruzstd::encoding::CompressionLevel::Fastest);
    vec![
        ("gzip", gzip(text)),
        ("X-Gzip", gzip(text)),
        ("deflate", zlib.finish().unwrap()),
        ("deflate", raw.finish().unwrap()),
        ("zstd", zstd),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn compressed_bodies_are_read_and_go_on_as_they_came_unless_they_are_rewritten() {
    let stack = aliased(&[]).await;
    for filler in
        ["x".to_owned(), (0..40_000).map(|number| format!("{} ", number * 7919 % 100_003)).collect()]
    {
        for (model, target) in [("m", "m"), ("alias", "real-model")] {
            let mut question = chat(&filler, 1, false);
            question["model"] = json!(model);
            let text = question.to_string();
            for (encoding, body) in encoded(text.as_bytes()) {
                let labels = [("model_name", model), ("target_model_name", target)];
                let before = stack.pointsman.metric("llm_d_epp_request_total", &labels).await.unwrap_or(0.0);
                let reply =
                    stack.client().post_with(CHAT, &[("content-encoding", encoding)], body.clone()).await;
                assert!(reached(&reply), "{encoding} {model}: {reply:?}");
                let after = stack.pointsman.metric("llm_d_epp_request_total", &labels).await;
                assert_eq!(after, Some(before + 1.0), "{encoding} {model}");
                let (headers, received) = last(&stack).await;
                if model == target {
                    assert!(headers.contains("content-encoding"), "{headers}");
                    let lossy = String::from_utf8_lossy(&body);
                    assert!(received.is_empty() || received == lossy, "{encoding}: it came otherwise");
                } else {
                    assert!(!headers.contains("content-encoding"), "{headers}");
                    question["model"] = json!(target);
                    // The server keeps 16 KiB of a body; it understood all of it.
                    let expected = text.replace(r#""model":"alias""#, r#""model":"real-model""#);
                    assert!(received == expected || text.len() > 16 << 10, "{encoding}: {received}");
                    assert_eq!((reply.status, &reply.json()["model"]), (200, &json!("alias")), "{encoding}");
                    question["model"] = json!(model);
                }
            }
        }
    }
    stack.assert_idle().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bomb_costs_its_own_request_and_unknown_encodings_pass_unread() {
    let stack = aliased(&["--max-request-body", "8Mi"]).await;
    let question = format!(r#"{{"model":"m","prompt":"{}"}}"#, " ".repeat(60 << 20));
    let bomb = gzip(question.as_bytes());
    let header = [("content-encoding", "gzip")];
    let mut bombs = JoinSet::new();
    for _ in 0..40 {
        let (client, bomb) = (stack.client(), bomb.clone());
        bombs.spawn(async move { client.post_with("/v1/completions", &header, bomb).await });
    }
    while let Some(reply) = bombs.join_next().await {
        let reply = reply.unwrap();
        assert_eq!((reply.status, reply.json()["error"]["code"].as_str()), (413, Some("decoded_too_large")));
    }
    let peak = stack.pointsman.process.peak_memory();
    assert!(peak < 200_000_000, "{peak}");
    let broken = stack.client().post_with(CHAT, &header, "no gzip").await;
    assert_eq!(broken.status, 400);
    assert!(broken.text().contains("content-encoding gzip"), "{broken:?}");
    let unknown = [("content-encoding", "lz4")];
    let reply = stack.client().post_with(CHAT, &unknown, "no json").await;
    assert!(reached(&reply), "{reply:?}");
    let labels = [("api", "chat_completions"), ("reason", "encoding")];
    assert_eq!(stack.pointsman.metric("pointsman_unread_bodies_total", &labels).await, Some(1.0));
    let asked = [unknown[0], ("x-llm-d-model-name-rewrite", "real-model")];
    let reply = stack.client().post_with(CHAT, &asked, "no json").await;
    assert_eq!(reply.status, 400);
    assert!(reply.text().contains("lz4"), "{reply:?}");
    stack.assert_idle().await;
}

/// Bytes that the program holds more while 300 requests with this body wait.
async fn held_by_waiting(body: &str) -> u64 {
    const WAITING: usize = 300;
    let fleet = Fleet::start(1, &["--inter-token-ms", "1000"]).await;
    let endpoints = EndpointsFile::with(fleet.list());
    let flow = "flowControl:\n  saturationDetector: {pluginRef: concurrency-detector}\n";
    let detector = "featureGates: [flowControl]\nplugins:\n- type: concurrency-detector\n  parameters: {maxConcurrency: 1}\n- type: f";
    let text = config(&endpoints.path(), SCORERS).replace("plugins:\n- type: f", detector);
    let pointsman = Pointsman::start(&format!("{text}{flow}"), &["--allow-experimental-plugins"]).await;
    let envoy = Envoy::start(pointsman.grpc, true, BodyMode::FullDuplexStreamed).await;
    let running = envoy.http1().open(CHAT, &chat("long", 1000, true)).await;
    assert_eq!(running.status(), 200);
    let before = pointsman.process.memory();
    let mut clients = JoinSet::new();
    for _ in 0..WAITING {
        let (client, body) = (envoy.http1(), body.to_owned());
        clients.spawn(async move {
            client.attempt("/v1/completions", &serde_json::from_str(&body).unwrap()).await
        });
    }
    holds("all wait", async || {
        pointsman.metric("llm_d_epp_flow_control_queue_size", &[]).await == Some(WAITING as f64)
    })
    .await;
    // A thread gives what parsing took for a moment back to the system when it works again, a little later: small
    // requests that are refused at once make all threads work.
    let mut held = u64::MAX;
    for _ in 0..30 {
        let refused = (0..8).map(|_| envoy.http1());
        let mut refused: JoinSet<_> =
            refused
                .map(|client| async move {
                    client.try_post("/v1/completions", &[], "{".into()).await.unwrap().status
                })
                .collect();
        while let Some(status) = refused.join_next().await {
            assert_eq!(status.unwrap(), 400);
        }
        held = held.min(pointsman.process.memory().saturating_sub(before));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    drop(running);
    clients.abort_all();
    held
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_wait_are_not_held_taken_apart() {
    let prompt = |prompt: String| format!(r#"{{"model":"sim-model","max_tokens":1,"prompt":{prompt}}}"#);
    let tiny = prompt(format!("[{}]", vec![r#""a""#; 32_000].join(",")));
    let plain = prompt(format!("{:?}", "a".repeat(tiny.len())));
    let (of_plain, of_tiny) = (held_by_waiting(&plain).await, held_by_waiting(&tiny).await);
    println!(
        "300 waiting requests of {} bytes hold {of_plain} bytes as text, {of_tiny} as tiny strings",
        tiny.len()
    );
    assert!(of_tiny < of_plain * 13 / 10 + 5_000_000, "{of_tiny} for tiny strings, {of_plain} for one text");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_of_tiny_pictures_does_not_hold_a_thread() {
    let fleet = Fleet::start(1, &[]).await;
    let endpoints = EndpointsFile::with(fleet.list());
    let scorers = [SCORERS, &[("prefix-cache-scorer", 3)]].concat();
    let text = config(&endpoints.path(), &scorers).replace(
        "plugins:\n- type: f",
        "plugins:\n- type: approx-prefix-cache-producer\n  parameters: {maxPrefixTokensToMatch: 0, maxPrefixBlocksToMatch: 0}\n- type: f",
    );
    let pointsman = Pointsman::start(&text, &["--threads", "1"]).await;
    let envoy = Envoy::start(pointsman.grpc, true, BodyMode::FullDuplexStreamed).await;
    // A picture whose header claims 65535 × 65535 pixels.
    let png = "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAA//8AAP//CAYAAAA=";
    let part = json!({"type": "image_url", "image_url": {"url": png}});
    let body = json!({"model": "sim-model", "max_tokens": 1, "messages": [{"role": "user", "content": vec![part; 4000]}]});
    let size = body.to_string().len();
    assert!((380_000..480_000).contains(&size), "{size}");
    let before = pointsman.process.cpu();
    let reply = envoy.http1().post(CHAT, &body).await;
    let took = pointsman.process.cpu().saturating_sub(before);
    assert_eq!(reply.status, 200, "{reply:?}");
    println!("{size} bytes of pictures took {took:?} of CPU time");
    assert!(took < Duration::from_secs(1), "{took:?}");
}
