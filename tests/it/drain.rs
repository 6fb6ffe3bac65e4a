//! The end of the process.

use std::time::{Duration, Instant};

use http_body_util::BodyExt as _;
use tokio::net::TcpStream;
use tonic::Code;
use tonic::transport::Channel;
use tonic_health::pb::health_check_response::ServingStatus;

use crate::support::{
    BodyMode, EndpointsFile, Fleet, Keda, Pointsman, SCORERS, Stack, chat, config, eventually, health, holds,
    within,
};

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
    let fleet = Fleet::start(1, &[]).await;
    let endpoints = EndpointsFile::with(fleet.list());
    let flags = ["--drain-timeout", "60s", "--linger-timeout", "60s"];
    let mut pointsman = Pointsman::start(&config(&endpoints.path(), SCORERS), &flags).await;
    let asked = Instant::now();
    pointsman.process.terminate().await;
    assert!(pointsman.process.ended().await.success());
    let took = asked.elapsed();
    assert!(
        took < Duration::from_secs(10),
        "{took:?}: neither the drain time nor the linger time is waited for"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_outlast_drain_and_linger_time_are_cut_off_and_the_process_ends_in_order() {
    let mut stack = Stack::of(
        Fleet::start(1, &["--inter-token-ms", "100"]).await,
        BodyMode::FullDuplexStreamed,
        &["--drain-timeout", "1s", "--linger-timeout", "1s"],
    )
    .await;
    let mut response = stack.client().open("/v1/chat/completions", &chat("endless", 100_000, true)).await;
    assert_eq!(response.status(), 200);
    assert!(within("first piece", response.body_mut().frame()).await.is_some());
    let asked = Instant::now();
    stack.pointsman.process.terminate().await;
    let status = stack.pointsman.process.ended().await;
    let took = asked.elapsed();
    assert!(status.success(), "{status}");
    assert!(took >= Duration::from_secs(2), "{took:?}: the request had drain and linger time");
    let log = stack.pointsman.process.log();
    let cut = log.iter().find(|line| line.contains("streams did not end in time and are cut off"));
    assert!(cut.is_some_and(|line| line.contains("\"streams\":1")), "{log:?}");
    // The answer is not finished. Envoy says so by breaking it off.
    let rest = within("the end of the answer", response.into_body().collect()).await;
    let whole = rest.is_ok_and(|rest| rest.to_bytes().ends_with(b"[DONE]\n\n"));
    assert!(!whole, "an endless answer cannot be whole");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_ends_the_drain_with_code_1_and_no_thread_panics() {
    let mut stack = Stack::of(
        Fleet::start(1, &["--inter-token-ms", "2"]).await,
        BodyMode::FullDuplexStreamed,
        &["--drain-timeout", "60s", "--linger-timeout", "60s"],
    )
    .await;
    let mut responses = Vec::new();
    for _ in 0..8 {
        let mut response = stack.client().open("/v1/chat/completions", &chat("endless", 100_000, true)).await;
        assert!(within("first piece", response.body_mut().frame()).await.is_some());
        responses.push(response);
    }
    stack.pointsman.process.terminate().await;
    eventually("the drain begins", async || {
        stack.pointsman.process.log().iter().any(|line| line.contains("\"draining\"")).then_some(())
    })
    .await;
    stack.pointsman.process.terminate().await;
    let status = stack.pointsman.process.ended().await;
    assert_eq!(status.code(), Some(1));
    let log = stack.pointsman.process.log();
    let panicked = |line: &&String| line.contains("panicked") || line.contains("Tokio 1.x");
    assert_eq!(log.iter().find(panicked), None);
    assert!(log.iter().any(|line| line.contains("a second signal ended the drain")), "{log:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_autoscaler_is_let_go_when_the_drain_begins_and_not_when_it_ends() {
    let mut stack = Stack::of(
        Fleet::start(1, &["--inter-token-ms", "100"]).await,
        BodyMode::FullDuplexStreamed,
        &["--drain-timeout", "60s", "--linger-timeout", "60s", "--keda-scaler-port", "0"],
    )
    .await;
    let mut response = stack.client().open("/v1/chat/completions", &chat("endless", 100_000, true)).await;
    assert!(within("first piece", response.body_mut().frame()).await.is_some());
    let addr = stack.pointsman.keda().await;
    let keda = Keda::start(addr, &[("metric", "runningRequests"), ("targetValue", "1")]);
    let start = Instant::now();
    eventually("a stream says active", async || keda.ears().first_word(start)).await;

    let asked = Instant::now();
    stack.pointsman.process.terminate().await;
    let (ended, how) = eventually("the stream ends", async || keda.ears().first_end(asked)).await;
    assert_eq!(how, Code::Ok, "in order, so that the client comes again soon");
    assert!(ended - asked < Duration::from_secs(2), "{:?}", ended - asked);
    holds("nobody listens for the autoscaler", async || TcpStream::connect(addr).await.is_err()).await;
    let refused = |ears: &crate::support::Ears| ears.values.last().map(|heard| heard.answer);
    holds("its connection is closed", async || refused(&keda.ears()) == Some(Err(Code::Unavailable))).await;
    keda.ears().assert_always_busy();
    assert!(stack.pointsman.process.runs(), "the request still runs");
    drop(response);
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
