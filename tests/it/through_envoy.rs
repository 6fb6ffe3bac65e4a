//! The main job: a client asks Envoy, Envoy asks the picker, a model server answers.

use bytes::Bytes;
use http::HeaderMap;
use http_body_util::BodyExt as _;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::{
    BodyMode, EndpointsFile, Envoy, Pointsman, Recorder, SCORERS, Stack, chat, config, eventually, holds,
    sse_events, within,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_chat_request_is_answered_by_the_server_that_the_picker_named() {
    let stack = Stack::start(4).await;
    let reply =
        stack.client().post("/v1/chat/completions", &chat("where does this train go", 8, false)).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    stack.assert_picked(&reply);
    let body = reply.json();
    assert_eq!(body["choices"][0]["message"]["role"], "assistant");
    assert_eq!(body["usage"]["completion_tokens"], 8);
    stack.assert_idle().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_completion_is_answered_by_the_server_that_the_picker_named() {
    let stack = Stack::start(2).await;
    let body = json!({"model": "sim-model", "prompt": "once upon a line", "max_tokens": 5});
    let reply = stack.client().post("/v1/completions", &body).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    stack.assert_picked(&reply);
    assert_eq!(reply.json()["usage"]["completion_tokens"], 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_streamed_answer_arrives_whole_and_in_order() {
    let stack = Stack::start(2).await;
    for client in [stack.envoy.http1(), stack.envoy.http2()] {
        let reply = client.post("/v1/chat/completions", &chat("stream it", 20, true)).await;
        assert_eq!(reply.status, 200, "{reply:?}");
        assert!(reply.header("content-type").starts_with("text/event-stream"));
        stack.assert_picked(&reply);
        let events = sse_events(reply.text());
        assert_eq!(events.last(), Some(&"[DONE]"), "{reply:?}");
        let usage = events.iter().rev().find_map(|event| {
            let event: serde_json::Value = serde_json::from_str(event).ok()?;
            event["usage"]["completion_tokens"].as_u64()
        });
        assert_eq!(usage, Some(20));
    }
    stack.assert_idle().await;
    let tokens = stack.pointsman.metric("llm_d_epp_request_output_tokens_sum", &[]).await;
    assert_eq!(tokens, Some(40.0), "usage of both streams was read");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_streamed_answer_arrives_while_it_is_made() {
    let stack = Stack::of(
        crate::support::Fleet::start(1, &["--inter-token-ms", "100"]).await,
        BodyMode::FullDuplexStreamed,
        &[],
    )
    .await;
    let mut response = stack.client().open("/v1/chat/completions", &chat("slowly", 1000, true)).await;
    let first = within("first piece", response.body_mut().frame()).await.unwrap().unwrap();
    assert!(first.into_data().unwrap().starts_with(b"data: "));
    let second = within("second piece", response.body_mut().frame()).await;
    assert!(second.is_some(), "100 seconds of answer are left");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_without_a_body_is_picked_for_like_any_other() {
    let stack = Stack::start(3).await;
    for client in [stack.envoy.http1(), stack.envoy.http2()] {
        let reply = client.get("/v1/models").await;
        assert_eq!(reply.status, 200, "{reply:?}");
        stack.assert_picked(&reply);
        assert_eq!(reply.json()["data"][0]["id"], "sim-model");
    }
    stack.assert_idle().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_of_five_megabytes_arrives_byte_for_byte() {
    let recorder = Recorder::start().await;
    let (_endpoints, _pointsman, envoy) = in_front_of(&recorder).await;
    // Odd spacing, escapes and key order on purpose: nothing may be written anew.
    let filler: String = (0..5_000_000 / 8).map(|word| format!("w{word:06} ")).collect();
    let body = format!(
        "{{ \"max_tokens\":1e0 ,\n\t\"messages\" : [{{\"content\":\"\\u00e9\\/{filler}\",\"role\":\"user\"}}],\"model\":\"sim-model\",\"zz\":1.50}}  "
    );
    for client in [envoy.http1(), envoy.http2()] {
        let reply = client.post_with("/v1/chat/completions", &[], body.clone()).await;
        assert_eq!(reply.status, 200, "{reply:?}");
    }
    let received = recorder.received();
    assert_eq!(received.len(), 2);
    for request in received {
        assert_eq!(request.body.len(), body.len());
        assert!(request.body == body.as_bytes(), "the body was changed on its way");
        // Envoy frames a body in full-duplex mode by itself; if it says a length, it is the right one.
        let length = request.headers.get("content-length").map(|length| length.to_str().unwrap().to_owned());
        assert!(length.is_none() || length == Some(body.len().to_string()), "{length:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_ended_by_trailers_is_answered() {
    let recorder = Recorder::start().await;
    let (_endpoints, _pointsman, envoy) = in_front_of(&recorder).await;
    let body = Bytes::from(chat("the last car carries a lamp", 4, false).to_string());
    let mut trailers = HeaderMap::new();
    trailers.insert("x-lamp", "red".parse().unwrap());
    let pieces = vec![body.slice(..10), body.slice(10..)];
    let reply = envoy.http2().post_with_trailers("/v1/chat/completions", pieces, trailers).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    assert_eq!(reply.header("x-picked"), recorder.addr.to_string());
    let received = recorder.received();
    assert_eq!(received.len(), 1);
    assert_eq!(received[0].body, body);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_only_the_picker_may_say_does_not_reach_the_model_server() {
    let recorder = Recorder::start().await;
    let (_endpoints, _pointsman, envoy) = in_front_of(&recorder).await;
    let forged = [
        ("x-gateway-destination-endpoint", "127.0.0.1:1"),
        ("x-prefiller-host-port", "127.0.0.1:2"),
        ("x-custom", "kept"),
    ];
    let reply =
        envoy.http1().post_with("/v1/chat/completions", &forged, chat("hi", 1, false).to_string()).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    let received = recorder.received();
    let headers = &received[0].headers;
    assert_eq!(headers["x-custom"], "kept");
    assert_eq!(headers["x-gateway-destination-endpoint"], recorder.addr.to_string());
    assert!(!headers.contains_key("x-prefiller-host-port"), "{headers:?}");
    assert!(headers.contains_key("x-request-id"), "{headers:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_in_mid_stream_leaves_nothing_behind() {
    let fleet = crate::support::Fleet::start(2, &["--inter-token-ms", "50"]).await;
    let stack = Stack::of(fleet, BodyMode::FullDuplexStreamed, &[]).await;
    for client in [stack.envoy.http1(), stack.envoy.http2()] {
        let mut response = client.open("/v1/chat/completions", &chat("a long journey", 10_000, true)).await;
        let first = within("first piece", response.body_mut().frame()).await;
        assert!(first.is_some_and(|frame| frame.is_ok()));
        eventually("the request is counted", async || {
            stack.pointsman.metric("llm_d_epp_request_running", &[]).await.filter(|running| *running == 1.0)
        })
        .await;
        drop(response);
        stack.assert_idle().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn load_is_spread_over_the_pool() {
    let stack = Stack::start(4).await;
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..80 {
        let client = if number % 2 == 0 { stack.envoy.http1() } else { stack.envoy.http2() };
        tasks.spawn(async move {
            client
                .post("/v1/chat/completions", &chat(&format!("question {number}"), 4, number % 3 == 0))
                .await
        });
    }
    let mut counts = std::collections::BTreeMap::<String, usize>::new();
    while let Some(reply) = tasks.join_next().await {
        let reply = reply.unwrap();
        assert_eq!(reply.status, 200, "{reply:?}");
        stack.assert_picked(&reply);
        *counts.entry(reply.header("x-sim-server").to_owned()).or_default() += 1;
    }
    assert_eq!(counts.len(), 4, "{counts:?}");
    assert!(counts.values().all(|count| *count <= 60), "{counts:?}");
    stack.assert_idle().await;
    assert_eq!(stack.pointsman.metric("llm_d_epp_request_total", &[]).await, Some(80.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn plaintext_between_envoy_and_the_picker_works_too() {
    let fleet = crate::support::Fleet::start(1, &[]).await;
    let stack = Stack::of(fleet, BodyMode::FullDuplexStreamed, &["--secure-serving=false"]).await;
    let reply = stack.client().post("/v1/chat/completions", &chat("in the open", 2, false)).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    stack.assert_picked(&reply);
}

#[tokio::test(flavor = "multi_thread")]
async fn envoy_counts_the_picker_as_healthy() {
    let stack = Stack::start(1).await;
    holds("the health check passed", async || {
        stack.envoy.stat("cluster.ext_proc.membership_healthy").await == 1
    })
    .await;
    assert_eq!(stack.envoy.stat("cluster.ext_proc.health_check.failure").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prompt_goes_where_its_prefix_is_cached() {
    let fleet = crate::support::Fleet::start(4, &[]).await;
    let endpoints = EndpointsFile::with(fleet.list());
    let plugins = [("prefix-cache-scorer", 3)];
    let pointsman = Pointsman::start(&config(&endpoints.path(), &plugins), &[]).await;
    let envoy = Envoy::start(pointsman.grpc, true, BodyMode::FullDuplexStreamed).await;
    let shared = "all trains of this line stop at every station ".repeat(100);
    let mut servers = std::collections::BTreeSet::new();
    for number in 0..10 {
        let reply =
            envoy.http1().post("/v1/chat/completions", &chat(&format!("{shared}{number}"), 2, false)).await;
        assert_eq!(reply.status, 200, "{reply:?}");
        servers.insert(reply.header("x-sim-server").to_owned());
    }
    assert_eq!(servers.len(), 1, "{servers:?}");
}

async fn in_front_of(recorder: &Recorder) -> (EndpointsFile, Pointsman, Envoy) {
    let endpoints = EndpointsFile::with([("recorder", recorder.addr)]);
    let pointsman = Pointsman::start(&config(&endpoints.path(), SCORERS), &[]).await;
    let envoy = Envoy::start(pointsman.grpc, true, BodyMode::FullDuplexStreamed).await;
    (endpoints, pointsman, envoy)
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_of_http_1_0_get_whole_and_streamed_answers() {
    let stack = Stack::start(1).await;
    for stream in [false, true] {
        for host in ["host: pool\r\n", ""] {
            let body = chat("hello", 3, stream).to_string();
            let head =
                format!("POST /v1/chat/completions HTTP/1.0\r\n{host}content-length: {}\r\n\r\n", body.len());
            let mut connection = TcpStream::connect(stack.envoy.addr).await.unwrap();
            connection.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
            let mut answer = String::new();
            within("the end of the answer", connection.read_to_string(&mut answer)).await.unwrap();
            assert!(answer.starts_with("HTTP/1.0 200 OK\r\n"), "{answer}");
            assert!(answer.contains("choices") && !answer.contains("chunked"), "{answer}");
            assert_eq!(answer.contains("data: [DONE]"), stream, "{answer}");
        }
    }
    stack.assert_idle().await;
}
