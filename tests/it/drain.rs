//! The end of the process.

use http_body_util::BodyExt as _;
use tonic::transport::Channel;
use tonic_health::pb::health_check_response::ServingStatus;

use crate::support::{BodyMode, Fleet, Stack, chat, health, holds, within};

const EXT_PROC: &str = "envoy.service.ext_proc.v3.ExternalProcessor";

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_turns_health_off_at_once_and_lets_running_requests_finish() {
    let fleet = Fleet::start(1, &["--inter-token-ms", "20"]).await;
    let mut stack = Stack::of(fleet, BodyMode::FullDuplexStreamed, &["--drain-timeout", "8s"]).await;
    let channel =
        Channel::from_shared(format!("http://{}", stack.pointsman.health)).unwrap().connect().await.unwrap();
    for service in ["", EXT_PROC] {
        assert_eq!(health(&channel, service).await, Some(ServingStatus::Serving), "{service:?}");
    }

    let mut response = stack.client().open("/v1/chat/completions", &chat("the last train", 200, true)).await;
    assert_eq!(response.status(), 200);
    let first = within("first piece", response.body_mut().frame()).await.unwrap().unwrap();
    stack.pointsman.process.terminate().await;
    holds("health says not serving", async || {
        health(&channel, EXT_PROC).await == Some(ServingStatus::NotServing)
    })
    .await;
    drop(channel);
    let metrics = stack.pointsman.metric("llm_d_epp_request_running", &[]).await;
    assert_eq!(metrics, Some(1.0), "metrics are served while the request runs");

    let rest = within("rest of the stream", response.into_body().collect()).await.unwrap().to_bytes();
    let whole = [first.into_data().unwrap(), rest].concat();
    assert!(whole.ends_with(b"data: [DONE]\n\n"), "{}", String::from_utf8_lossy(&whole));
    let status = stack.pointsman.process.ended().await;
    assert!(status.success(), "{status}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_process_ends_at_once() {
    let mut stack =
        Stack::of(Fleet::start(1, &[]).await, BodyMode::FullDuplexStreamed, &["--drain-timeout", "1s"]).await;
    stack.pointsman.process.terminate().await;
    assert!(stack.pointsman.process.ended().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_outlast_drain_and_linger_time_do_not_keep_the_process() {
    let mut stack = Stack::of(
        Fleet::start(1, &["--inter-token-ms", "100"]).await,
        BodyMode::FullDuplexStreamed,
        &["--drain-timeout", "1s", "--linger-timeout", "1s"],
    )
    .await;
    let mut response = stack.client().open("/v1/chat/completions", &chat("endless", 100_000, true)).await;
    assert!(within("first piece", response.body_mut().frame()).await.is_some());
    stack.pointsman.process.terminate().await;
    stack.pointsman.process.ended().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_outlasts_the_drain_time_is_finished_in_the_linger_time() {
    let mut stack = Stack::of(
        Fleet::start(1, &["--inter-token-ms", "100"]).await,
        BodyMode::FullDuplexStreamed,
        &["--drain-timeout", "1s", "--linger-timeout", "60s"],
    )
    .await;
    // Forty tokens take four seconds.
    let mut response = stack.client().open("/v1/chat/completions", &chat("long", 40, true)).await;
    assert!(within("first piece", response.body_mut().frame()).await.is_some());
    stack.pointsman.process.terminate().await;
    let rest = within("the whole answer", response.into_body().collect()).await;
    let text = String::from_utf8(rest.unwrap().to_bytes().to_vec()).unwrap();
    assert!(text.contains("[DONE]"), "{text}");
    assert!(stack.pointsman.process.ended().await.success());
}
