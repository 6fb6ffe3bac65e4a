//! Envoy may hand bodies over in other ways than the file in `deploy/` says.

use serde_json::json;

use crate::support::{BodyMode, Fleet, Stack, chat, sse_events};

async fn serves(mode: BodyMode) {
    let stack = Stack::of(Fleet::start(2, &[]).await, mode, &[]).await;
    for client in [stack.envoy.http1(), stack.envoy.http2()] {
        let reply = client.post("/v1/chat/completions", &chat("whatever the mode", 6, false)).await;
        assert_eq!(reply.status, 200, "{mode:?} {reply:?}");
        stack.assert_picked(&reply);
        assert_eq!(reply.json()["usage"]["completion_tokens"], 6, "{mode:?}");

        let reply = client.post("/v1/chat/completions", &chat("streamed", 6, true)).await;
        assert_eq!(reply.status, 200, "{mode:?} {reply:?}");
        stack.assert_picked(&reply);
        assert_eq!(sse_events(reply.text()).last(), Some(&"[DONE]"), "{mode:?}");

        let long = "a prompt of some length ".repeat(8_000);
        let reply = client
            .post("/v1/completions", &json!({"model": "sim-model", "prompt": long, "max_tokens": 2}))
            .await;
        assert_eq!(reply.status, 200, "{mode:?} {reply:?}");
        stack.assert_picked(&reply);

        let reply = client.get("/v1/models").await;
        assert_eq!(reply.status, 200, "{mode:?} {reply:?}");
        stack.assert_picked(&reply);
    }
    stack.assert_idle().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whole_bodies_are_served() {
    serves(BodyMode::Buffered).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn partly_buffered_bodies_are_served() {
    serves(BodyMode::BufferedPartial).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_in_answered_pieces_are_served() {
    serves(BodyMode::Streamed).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_whose_bodies_stay_with_envoy_are_served() {
    serves(BodyMode::None).await;
}
