//! How responses end, and what is learned of them, seen from outside.

use http_body_util::BodyExt as _;
use serde_json::json;

use crate::support::{
    BodyMode, EndpointsFile, Envoy, Pointsman, SCORERS, Script, ScriptEnd, Scripted, chat, config, holds,
};

const CHAT: &str = "/v1/chat/completions";
const ENDS: &str = "pointsman_responses_total";
const EVENT: &str =
    "data: {\"choices\":[{\"delta\":{\"content\":\"an error in a text\"}}],\"usage\":null}\n\n";
const USAGE: &str =
    "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":12,\"completion_tokens\":6,\"total_tokens\":18}}\n\n";
const DONE: &str = "data: [DONE]\n\n";

/// The program in front of one scripted server, and behind Envoy.
async fn stack(server: &Scripted) -> (Pointsman, Envoy) {
    let endpoints = EndpointsFile::with([("one", server.addr)]);
    let pointsman = Pointsman::start(&config(&endpoints.path(), SCORERS), &["--secure-serving=false"]).await;
    let envoy = Envoy::start(pointsman.grpc, false, BodyMode::FullDuplexStreamed).await;
    (pointsman, envoy)
}

async fn ended(pointsman: &Pointsman, end: &str, times: f64) {
    holds(&format!("{times} responses that ended with {end}"), async || {
        pointsman.metric(ENDS, &[("end", end)]).await == Some(times)
    })
    .await;
}

async fn count(pointsman: &Pointsman, name: &str) -> f64 {
    pointsman.metric(name, &[]).await.unwrap_or(0.0)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_breaks_off_or_reports_an_error_is_told_from_a_good_one() {
    let error =
        "data: {\"error\":{\"message\":\"engine died\",\"type\":\"InternalServerError\",\"code\":500}}\n\n";
    let server = Scripted::start(move |_, body| match body {
        body if body.contains("broken") => Script::events(&[EVENT, EVENT], ScriptEnd::Reset),
        body if body.contains("error event") => Script::events(&[EVENT, error, DONE], ScriptEnd::Proper),
        _ => Script::events(&[EVENT, EVENT, DONE], ScriptEnd::Proper),
    })
    .await;
    let (pointsman, envoy) = stack(&server).await;

    envoy.http1().post(CHAT, &chat("good", 2, true)).await;
    ended(&pointsman, "complete", 1.0).await;
    envoy.http1().post(CHAT, &chat("error event", 2, true)).await;
    ended(&pointsman, "error_event", 1.0).await;
    assert_eq!(count(&pointsman, "llm_d_epp_request_ttft_seconds_count").await, 2.0);
    let _ = envoy.http1().attempt(CHAT, &chat("broken", 2, true)).await;
    ended(&pointsman, "cut_off", 1.0).await;
    assert_eq!(pointsman.metric(ENDS, &[("end", "complete")]).await, Some(1.0));
    assert_eq!(count(&pointsman, "llm_d_epp_request_ttft_seconds_count").await, 3.0);
    assert_eq!(count(&pointsman, "llm_d_epp_request_duration_seconds_count").await, 3.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_behind_the_usage_and_before_the_end_is_counted_with_its_tokens() {
    let server = Scripted::start(|_, _| Script::events(&[EVENT, USAGE], ScriptEnd::Never)).await;
    let (pointsman, envoy) = stack(&server).await;
    let mut response = envoy.http1().open(CHAT, &chat("hello", 2, true)).await;
    let mut seen = Vec::new();
    while !String::from_utf8_lossy(&seen).contains("total_tokens") {
        let frame = response.frame().await.unwrap().unwrap();
        seen.extend_from_slice(frame.data_ref().unwrap());
    }
    drop(response);
    ended(&pointsman, "closed_after_usage", 1.0).await;
    assert_eq!(server.asked(), ["POST /v1/chat/completions HTTP/1.1"]);
    for (name, expected) in [
        ("llm_d_epp_request_input_tokens_sum", 12.0),
        ("llm_d_epp_request_output_tokens_sum", 6.0),
        ("llm_d_epp_request_ttft_seconds_count", 1.0),
        ("llm_d_epp_request_duration_seconds_count", 1.0),
    ] {
        assert_eq!(count(&pointsman, name).await, expected, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn usage_of_a_responses_stream_is_read_from_an_event_of_any_length() {
    let last = json!({"type": "response.completed", "response": {"id": "resp_1", "status": "completed", "instructions": "I".repeat(70_000),
        "usage": {"input_tokens": 12, "input_tokens_details": {"cached_tokens": 4}, "output_tokens": 6, "total_tokens": 18}}});
    let first = "event: response.created\ndata: {\"type\":\"response.created\",\"response\":{\"id\":\"resp_1\",\"usage\":null}}\n\n";
    let last = format!("event: response.completed\ndata: {last}\n\n");
    let server = Scripted::start(move |_, _| Script::events(&[first, &last], ScriptEnd::Proper)).await;
    let (pointsman, envoy) = stack(&server).await;
    let body = json!({"model": "m", "input": "hello", "stream": true});
    let reply = envoy.http1().post("/v1/responses", &body).await;
    assert_eq!(reply.status, 200);
    ended(&pointsman, "complete", 1.0).await;
    assert_eq!(count(&pointsman, "llm_d_epp_request_input_tokens_sum").await, 12.0);
    assert_eq!(count(&pointsman, "llm_d_epp_request_output_tokens_sum").await, 6.0);
    assert_eq!(count(&pointsman, "llm_d_epp_request_cached_tokens_sum").await, 4.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_count_that_nobody_can_believe_stays_out_of_the_sums() {
    let body =
        r#"{"usage":{"prompt_tokens":1e30,"completion_tokens":6,"total_tokens":18446744073709551615}}"#;
    let server = Scripted::start(move |_, _| Script::json(body)).await;
    let (pointsman, envoy) = stack(&server).await;
    envoy.http1().post(CHAT, &chat("hello", 2, false)).await;
    ended(&pointsman, "complete", 1.0).await;
    assert_eq!(count(&pointsman, "llm_d_epp_request_input_tokens_sum").await, 0.0);
    assert_eq!(count(&pointsman, "llm_d_epp_request_output_tokens_sum").await, 6.0);
    let unread = pointsman.metric("pointsman_response_usage_unread_total", &[("reason", "unbelievable")]);
    assert_eq!(unread.await, Some(1.0));
}

/// These pieces in gzip, each flushed as servers do it.
fn gzipped(pieces: &[&str]) -> Script {
    use std::io::Write as _;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    let mut chunks = Vec::new();
    for piece in pieces {
        encoder.write_all(piece.as_bytes()).unwrap();
        encoder.flush().unwrap();
        chunks.push(std::mem::take(encoder.get_mut()));
    }
    chunks.push(encoder.finish().unwrap());
    let headers = "content-type: text/event-stream\r\ncontent-encoding: gzip\r\n".to_owned();
    Script { headers, chunks, end: ScriptEnd::Proper }
}

#[tokio::test(flavor = "multi_thread")]
async fn usage_is_read_from_a_compressed_stream_which_is_passed_on_untouched() {
    let sent = gzipped(&[EVENT, USAGE, DONE]);
    let expected = sent.chunks.concat();
    let server = Scripted::start(move |_, body| match body {
        body if body.contains("unknown") => {
            let headers = "content-type: text/event-stream\r\ncontent-encoding: br\r\n".to_owned();
            Script { headers, ..Script::events(&[EVENT], ScriptEnd::Proper) }
        }
        _ => sent.clone(),
    })
    .await;
    let (pointsman, envoy) = stack(&server).await;
    let reply = envoy.http1().post(CHAT, &chat("hello", 2, true)).await;
    assert_eq!(reply.body, expected);
    ended(&pointsman, "complete", 1.0).await;
    assert_eq!(count(&pointsman, "llm_d_epp_request_input_tokens_sum").await, 12.0);
    assert_eq!(count(&pointsman, "llm_d_epp_request_output_tokens_sum").await, 6.0);
    envoy.http1().post(CHAT, &chat("unknown", 2, true)).await;
    ended(&pointsman, "complete", 2.0).await;
    let unread = pointsman.metric("pointsman_response_usage_unread_total", &[("reason", "encoding")]);
    assert_eq!(unread.await, Some(1.0));
}
