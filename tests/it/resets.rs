//! Streams that are reset as soon as they are opened, and what they cost the others on the same connection.

use std::collections::HashSet;
use std::time::Duration;

use http_body_util::BodyExt as _;
use pointsman::extproc::PROCESS_PATH;
use pointsman::extproc::wire::{ProcessingRequest, Request};
use tokio::task::JoinSet;

use crate::support::raw_http2::{self, RawHttp2};
use crate::support::{
    BodyMode, EndpointsFile, Fleet, Pointsman, SCORERS, Stack, body, chat, config, headers, holds, within,
};

const GRPC: &[(&str, &str)] = &[("content-type", "application/grpc"), ("te", "trailers")];

/// A picker without TLS and a server behind it.
async fn picker(flags: &[&str]) -> (Fleet, EndpointsFile, Pointsman) {
    let fleet = Fleet::start(1, &[]).await;
    let endpoints = EndpointsFile::with(fleet.list());
    let flags = [&["--secure-serving=false"], flags].concat();
    let pointsman = Pointsman::start(&config(&endpoints.path(), SCORERS), &flags).await;
    (fleet, endpoints, pointsman)
}

fn say(to: &mut Vec<u8>, stream: u32, request: Request) {
    let message = ProcessingRequest { request: Some(request), ..ProcessingRequest::default() };
    raw_http2::message(to, stream, &message);
}

/// Opens a stream and sends the headers of a request; its body is to come.
fn begin(to: &mut Vec<u8>, stream: u32) {
    raw_http2::open(to, stream, PROCESS_PATH, GRPC);
    say(to, stream, headers("/v1/chat/completions", [], false));
}

/// Sends the body on `stream` and waits for an answer, which only comes if the connection lives.
async fn assert_answered(client: &mut RawHttp2, stream: u32) {
    let mut bytes = Vec::new();
    say(&mut bytes, stream, body(chat("still there?", 1, false).to_string(), true));
    client.send(&bytes).await;
    loop {
        let frame = client.next().await.expect("the connection was closed");
        assert!(!frame.is_go_away(), "{frame:?}");
        if frame.stream == stream {
            assert!(!frame.ends_stream(), "{frame:?}");
            if frame.is_data() {
                return;
            }
        }
    }
}

/// `count` pairs of HEADERS and RST_STREAM on the streams from `first` on.
fn pairs(first: u32, count: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    for stream in (first..).step_by(2).take(count as usize) {
        raw_http2::open(&mut bytes, stream, PROCESS_PATH, GRPC);
        raw_http2::reset(&mut bytes, stream);
    }
    bytes
}

#[tokio::test(flavor = "multi_thread")]
async fn a_burst_of_resets_in_one_packet_costs_no_other_stream_of_the_connection() {
    let (_fleet, _endpoints, pointsman) = picker(&[]).await;
    for count in [22, 500, 10_000] {
        let mut client = RawHttp2::connect(pointsman.grpc).await;
        let mut bytes = Vec::new();
        begin(&mut bytes, 1);
        client.send(&bytes).await;
        client.send(&pairs(3, count)).await;
        assert_answered(&mut client, 1).await;
        let mut bytes = Vec::new();
        let next = 3 + 2 * count;
        begin(&mut bytes, next);
        client.send(&bytes).await;
        assert_answered(&mut client, next).await;
    }
    holds("no stream is left", async || pointsman.metric("pointsman_streams", &[]).await == Some(0.0)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn resets_without_end_cost_neither_memory_nor_the_connection() {
    let (_fleet, _endpoints, pointsman) = picker(&[]).await;
    let mut client = RawHttp2::connect(pointsman.grpc).await;
    let mut bytes = Vec::new();
    begin(&mut bytes, 1);
    client.send(&bytes).await;
    let before = pointsman.process.memory();
    for round in 0..10 {
        client.send(&pairs(3 + round * 20_000, 10_000)).await;
    }
    assert_answered(&mut client, 1).await;
    let grown = pointsman.process.peak_memory().saturating_sub(before);
    assert!(grown < 64 << 20, "{grown} bytes more for 100,000 streams that were reset");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_still_comes_on_streams_that_were_answered_costs_no_other_stream() {
    let (_fleet, _endpoints, pointsman) = picker(&[]).await;
    let mut client = RawHttp2::connect(pointsman.grpc).await;
    let mut bytes = Vec::new();
    begin(&mut bytes, 1);
    client.send(&bytes).await;
    // Each of these is refused at its first message, and goes on sending tiny frames: first many at a time, then many
    // in all.
    for round in 0..40_u32 {
        let mut bytes = Vec::new();
        for number in 0..60 {
            let stream = 3 + 2 * (round * 60 + number);
            raw_http2::open(&mut bytes, stream, PROCESS_PATH, GRPC);
            say(&mut bytes, stream, body("no headers came", false));
        }
        client.send(&bytes).await;
        let mut ended = HashSet::new();
        while ended.len() < 60 {
            let frame = client.next().await.expect("the connection was closed");
            assert!(!frame.is_go_away(), "round {round}: {frame:?}");
            if frame.ends_stream() {
                ended.insert(frame.stream);
            }
        }
        let mut bytes = Vec::new();
        for number in 0..60 {
            for _ in 0..20 {
                raw_http2::data(&mut bytes, 3 + 2 * (round * 60 + number), b"x", false);
            }
            raw_http2::reset(&mut bytes, 3 + 2 * (round * 60 + number));
        }
        client.send(&bytes).await;
    }
    assert_answered(&mut client, 1).await;
    holds("no stream is left but that one", async || {
        pointsman.metric("pointsman_streams", &[]).await == Some(1.0)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_that_falls_silent_gives_back_what_it_held() {
    let flags = ["--keepalive-interval", "1s", "--keepalive-timeout", "1s"];
    let (_fleet, _endpoints, pointsman) = picker(&flags).await;
    let mut silent = RawHttp2::connect(pointsman.grpc).await;
    let mut alive = RawHttp2::connect(pointsman.grpc).await;
    for client in [&mut silent, &mut alive] {
        let mut bytes = Vec::new();
        begin(&mut bytes, 1);
        client.send(&bytes).await;
        assert_answered(client, 1).await;
    }
    let in_flight = async || pointsman.metric("pointsman_endpoint_in_flight_requests", &[]).await;
    assert_eq!(in_flight().await, Some(2.0));
    let living = tokio::spawn(async move { while alive.next().await.is_some() {} });
    holds("the share of the silent one is free", async || in_flight().await == Some(1.0)).await;
    within("the end of the connection", async { while silent.next_unanswered().await.is_some() {} }).await;
    // The other one answers pings, and stays for several intervals more.
    for _ in 0..10 {
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert_eq!(in_flight().await, Some(1.0));
    }
    let ended = [("port", "grpc"), ("reason", "unanswered")];
    assert_eq!(pointsman.metric("pointsman_connections_ended_total", &ended).await, Some(1.0));
    living.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_resets_through_envoy_break_no_answer_of_others() {
    let fleet = Fleet::start(2, &["--inter-token-ms", "20"]).await;
    let stack = Stack::of(fleet, BodyMode::FullDuplexStreamed, &[]).await;
    let mut innocent = JoinSet::new();
    for number in 0..20 {
        let client = if number % 2 == 0 { stack.envoy.http2() } else { stack.envoy.http1() };
        innocent.spawn(async move {
            let response = client.open("/v1/chat/completions", &chat("innocent", 250, true)).await;
            assert_eq!(response.status(), 200);
            response.into_body().collect().await.map(http_body_util::Collected::to_bytes)
        });
    }
    holds("all stream", async || stack.pointsman.metric("pointsman_streams", &[]).await == Some(20.0)).await;
    // Envoy closes a client's connection after some hundreds of resets, so there are many of them.
    for _ in 0..40 {
        let mut abuser = RawHttp2::connect(stack.envoy.addr).await;
        let mut burst = Vec::new();
        for stream in (1..).step_by(2).take(250) {
            raw_http2::open(
                &mut burst,
                stream,
                "/v1/chat/completions",
                &[("content-type", "application/json")],
            );
            raw_http2::reset(&mut burst, stream);
        }
        abuser.send(&burst).await;
    }
    while let Some(answer) = innocent.join_next().await {
        let answer = answer.unwrap().expect("an innocent answer broke");
        assert!(answer.ends_with(b"data: [DONE]\n\n"), "{}", String::from_utf8_lossy(&answer));
    }
    assert!(stack.envoy.stat("http.inference.downstream_rq_rx_reset").await >= 9_000);
    assert_eq!(stack.envoy.stat("cluster.ext_proc.upstream_cx_close_notify").await, 0);
    stack.assert_idle().await;
}
