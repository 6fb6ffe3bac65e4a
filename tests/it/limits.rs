//! What is refused, and how the client is told.

use serde_json::Value;

use crate::support::{BodyMode, EndpointsFile, Envoy, Fleet, Pointsman, Reply, SCORERS, Stack, chat, config};

fn assert_openai_error(reply: &Reply, status: u16) {
    assert_eq!(reply.status, status, "{reply:?}");
    assert!(reply.header("content-type").starts_with("application/json"), "{reply:?}");
    let error = &reply.json()["error"];
    assert!(error["message"].is_string() && error["type"].is_string(), "{reply:?}");
    assert_ne!(error["code"], Value::Null, "{reply:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_over_the_limit_is_refused_with_413() {
    let fleet = Fleet::start(1, &[]).await;
    let stack = Stack::of(fleet, BodyMode::FullDuplexStreamed, &["--max-request-body", "100000"]).await;
    for client in [stack.envoy.http1(), stack.envoy.http2()] {
        let reply = client.post("/v1/chat/completions", &chat(&"x".repeat(99_000), 1, false)).await;
        assert_eq!(reply.status, 200, "{reply:?}");
        let reply = client.post("/v1/chat/completions", &chat(&"x".repeat(200_000), 1, false)).await;
        assert_openai_error(&reply, 413);
    }
    stack.assert_idle().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_beyond_what_all_streams_may_hold_are_refused_with_503() {
    let fleet = Fleet::start(1, &[]).await;
    let stack = Stack::of(fleet, BodyMode::FullDuplexStreamed, &["--max-buffered-bodies", "100000"]).await;
    let reply = stack.client().post("/v1/chat/completions", &chat(&"x".repeat(200_000), 1, false)).await;
    assert_openai_error(&reply, 503);
    assert!(!reply.header("x-llm-d-request-dropped-reason").is_empty(), "{reply:?}");
    let reply = stack.client().post("/v1/chat/completions", &chat(&"x".repeat(50_000), 1, false)).await;
    assert_eq!(reply.status, 200, "what was held is given back: {reply:?}");
    stack.assert_idle().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_beyond_the_limit_are_refused_with_503() {
    let fleet = Fleet::start(1, &["--inter-token-ms", "100"]).await;
    let stack = Stack::of(fleet, BodyMode::FullDuplexStreamed, &["--max-concurrent-streams", "1"]).await;
    let first = stack.client().open("/v1/chat/completions", &chat("long", 10_000, true)).await;
    assert_eq!(first.status(), 200);
    let reply = stack.client().post("/v1/chat/completions", &chat("short", 1, false)).await;
    assert_openai_error(&reply, 503);
    drop(first);
    stack.assert_idle().await;
    let reply = stack.client().post("/v1/chat/completions", &chat("short", 1, false)).await;
    assert_eq!(reply.status, 200, "{reply:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_pool_is_a_503_with_a_reason() {
    let endpoints = EndpointsFile::with([]);
    endpoints.write_text("endpoints: []\n");
    let pointsman = Pointsman::start(&config(&endpoints.path(), SCORERS), &[]).await;
    let envoy = Envoy::start(pointsman.grpc, true, BodyMode::FullDuplexStreamed).await;
    let reply = envoy.http1().post("/v1/chat/completions", &chat("anyone", 1, false)).await;
    assert_openai_error(&reply, 503);
    assert_eq!(reply.header("x-llm-d-request-dropped-reason"), "rejected-no-endpoints");
    let reply = envoy.http1().get("/v1/models").await;
    assert_openai_error(&reply, 503);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_does_not_parse_is_a_400() {
    let stack = Stack::start(1).await;
    let reply = stack.client().post_with("/v1/chat/completions", &[], "{\"model\": }").await;
    assert_openai_error(&reply, 400);
    stack.assert_idle().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_picker_nothing_is_let_through() {
    let mut stack = Stack::start(1).await;
    stack.pointsman.process.kill().await;
    let forged = [("x-gateway-destination-endpoint", stack.fleet.servers[0].addr.to_string())];
    let forged: Vec<(&str, &str)> = forged.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let reply =
        stack.client().post_with("/v1/chat/completions", &forged, chat("x", 1, false).to_string()).await;
    assert!(reply.status >= 500, "{reply:?}");
    assert_eq!(reply.header("x-sim-server"), "");
}
