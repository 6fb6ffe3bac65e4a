//! What a client may send through Envoy, however odd: it is answered, and nothing stays behind.

use bytes::Bytes;

use crate::support::{
    BodyMode, EndpointsFile, Envoy, Pointsman, Recorder, SCORERS, Stack, chat, config, holds, lone_request,
};

/// A request as bytes, with `headers` in place of the usual ones.
fn raw(path: &str, headers: &[u8], body: &str) -> Vec<u8> {
    let mut bytes = format!("POST {path} HTTP/1.1\r\nhost: pool\r\nconnection: close\r\n").into_bytes();
    bytes.extend_from_slice(headers);
    bytes.extend_from_slice(
        format!("content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}", body.len()).as_bytes(),
    );
    bytes
}

fn status(answer: &[u8]) -> u16 {
    let line = answer.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let text = String::from_utf8_lossy(line);
    text.split(' ')
        .nth(1)
        .and_then(|code| code.parse().ok())
        .unwrap_or_else(|| panic!("no answer but {text:?}"))
}

async fn still_serves(stack: &mut Stack) {
    let reply = stack.client().post("/v1/chat/completions", &chat("still there?", 1, false)).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    assert!(stack.pointsman.process.runs());
    stack.assert_idle().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_that_are_no_text_are_served() {
    let mut stack = Stack::start(1).await;
    let body = chat("bytes", 1, false).to_string();
    for name in [
        "x-gateway-inference-fairness-id",
        "x-gateway-inference-objective",
        "x-gateway-model-name-rewrite",
        "x-llm-d-inference-fairness-id",
        "x-llm-d-inference-objective",
        "x-llm-d-model-name-rewrite",
        "x-request-id",
        "x-session-token",
        "traceparent",
        "baggage",
        "prefer",
    ] {
        let mut header = format!("{name}: ").into_bytes();
        header.extend_from_slice(b"\xff\xfe\r\n");
        let answer = lone_request(stack.envoy.addr, &raw("/v1/chat/completions", &header, &body)).await;
        let status = status(&answer);
        // A model name that is no text is no model's; all else does not matter to the server.
        assert!(status == 200 || name.contains("rewrite"), "{name}: {}", String::from_utf8_lossy(&answer));
        assert!(status < 500, "{name}: {status}");
    }
    still_serves(&mut stack).await;
    let page = stack.pointsman.page().await;
    assert!(page.contains("llm_d_epp_request_total"), "the page can still be read");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fairness_id_that_is_no_text_reaches_the_server_unchanged_or_not_at_all() {
    let recorder = Recorder::start().await;
    let endpoints = EndpointsFile::with([("recorder", recorder.addr)]);
    let pointsman = Pointsman::start(&config(&endpoints.path(), SCORERS), &[]).await;
    let envoy = Envoy::start(pointsman.grpc, true, BodyMode::FullDuplexStreamed).await;
    let body = chat("bytes", 1, false).to_string();
    let headers = b"x-gateway-inference-fairness-id: \xff\xfe\r\nx-custom: \xff\xfe\r\n";
    let answer = lone_request(envoy.addr, &raw("/v1/chat/completions", headers, &body)).await;
    assert_eq!(status(&answer), 200);
    let received = recorder.received();
    assert_eq!(received[0].headers["x-custom"].as_bytes(), b"\xff\xfe");
    if let Some(id) = received[0].headers.get("x-gateway-inference-fairness-id") {
        assert_eq!(id.as_bytes(), b"\xff\xfe");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn as_many_headers_as_envoy_lets_through_are_served() {
    let mut stack = Stack::start(1).await;
    let body = chat("many", 1, false).to_string();
    // Envoy takes 100 headers; the request comes with a few of its own, and the picker adds some.
    let many: String = (0..85).map(|number| format!("x-load-{number}: {number}\r\n")).collect();
    let answer = lone_request(stack.envoy.addr, &raw("/v1/chat/completions", many.as_bytes(), &body)).await;
    assert_eq!(status(&answer), 200, "{}", String::from_utf8_lossy(&answer));
    let thousand: String = (0..1000).map(|number| format!("x-load-{number}: {number}\r\n")).collect();
    let answer =
        lone_request(stack.envoy.addr, &raw("/v1/chat/completions", thousand.as_bytes(), &body)).await;
    // Envoy refuses these by itself, and hangs up while they are still being sent.
    assert!(answer.is_empty() || status(&answer) == 431, "{}", String::from_utf8_lossy(&answer));
    still_serves(&mut stack).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_nested_a_hundred_thousand_deep_are_answered() {
    let mut stack = Stack::start(1).await;
    for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
        let depth = 100_000;
        let inner = if open == "[" { "" } else { "1" };
        let deep = format!("{}{inner}{}", open.repeat(depth), close.repeat(depth));
        for body in [
            deep.clone(),
            format!("{{\"model\":\"sim-model\",\"prompt\":\"x\",\"extra\":{deep}}}"),
            format!("{{\"model\":\"sim-model\",\"messages\":{deep}}}"),
            open.repeat(depth),
        ] {
            for path in ["/v1/completions", "/v1/chat/completions", "/v1/messages", "/v1/responses"] {
                let reply = stack.client().post_with(path, &[], Bytes::from(body.clone())).await;
                assert!(reply.status == 200 || (400..500).contains(&reply.status), "{path}: {reply:?}");
            }
        }
    }
    still_serves(&mut stack).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn repeated_model_keys_are_answered() {
    let mut stack = Stack::start(1).await;
    let body = r#"{"model":"other","model":"sim-model","prompt":"x","max_tokens":1}"#;
    let reply = stack.client().post_with("/v1/completions", &[], body).await;
    assert!(reply.status == 200 || reply.status == 400 || reply.status == 404, "{reply:?}");
    still_serves(&mut stack).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_that_are_no_json_are_refused_or_passed_on_but_never_lost() {
    let mut stack = Stack::start(1).await;
    let bodies: [&[u8]; 6] =
        [b"", b"\xff\xfe", b"{", b"null", b"{\"model\":1}", b"{\"model\":\"\\ud800\",\"prompt\":\"x\"}"];
    for body in bodies {
        for path in ["/v1/completions", "/v1/chat/completions", "/v1/embeddings", "/elsewhere"] {
            let reply = stack.client().post_with(path, &[], Bytes::copy_from_slice(body)).await;
            assert!(reply.status < 500, "{path} {:?}: {reply:?}", String::from_utf8_lossy(body));
        }
    }
    still_serves(&mut stack).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_request_on_a_kept_connection_is_picked_for_by_itself() {
    let mut stack = Stack::start(2).await;
    let body = chat("pipelined", 1, false).to_string();
    let first = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: pool\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut bytes = first.into_bytes();
    bytes.extend_from_slice(&raw("/v1/chat/completions", b"", &body));
    let answer = lone_request(stack.envoy.addr, &bytes).await;
    let answers = String::from_utf8_lossy(&answer).matches("HTTP/1.1 200").count();
    assert_eq!(answers, 2, "{}", String::from_utf8_lossy(&answer));
    still_serves(&mut stack).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_stops_in_the_middle_of_its_body_leaves_nothing_behind() {
    use tokio::io::AsyncWriteExt as _;
    let mut stack = Stack::start(1).await;
    let head =
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: pool\r\ncontent-length: 100000\r\n\r\n{\"model\":";
    let mut stream = tokio::net::TcpStream::connect(stack.envoy.addr).await.unwrap();
    stream.write_all(head).await.unwrap();
    holds("the picker was asked", async || {
        stack.envoy.stat("cluster.ext_proc.upstream_rq_active").await == 1
    })
    .await;
    drop(stream);
    still_serves(&mut stack).await;
}
