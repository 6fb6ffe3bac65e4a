//! What counts as idle: a stream on which nothing moves, and not one that waits for its turn.

use std::time::Duration;

use pointsman::extproc::wire::{HttpBody, Request, Response};
use tokio::time::sleep;

use crate::overload::config;
use crate::support::{
    EndpointsFile, Exchange, Fleet, Pointsman, Proxy, body, chat, destination, headers, holds,
    response_headers,
};

async fn asks(proxy: &Proxy, text: &str) -> Exchange {
    let exchange = proxy.open().await;
    exchange.say(headers("/v1/chat/completions", [], false)).await;
    exchange.say(body(chat(text, 1, false).to_string(), true)).await;
    exchange
}

fn chunk() -> Request {
    Request::ResponseBody(HttpBody { body: "data: {}\n\n".into(), end_of_stream: false })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_waited_longer_than_the_idle_time_is_served_when_its_turn_comes() {
    let fleet = Fleet::start(1, &[]).await;
    let endpoints = EndpointsFile::with(fleet.list());
    let flags = ["--allow-experimental-plugins", "--secure-serving=false", "--stream-idle-timeout", "500ms"];
    let pointsman = Pointsman::start(&config(&endpoints, 1, ""), &flags).await;
    let proxy = Proxy::connect(pointsman.grpc).await;

    let mut first = asks(&proxy, "first").await;
    assert!(destination(&first.answer().await.unwrap().unwrap()).is_some());
    first.say(response_headers("200")).await;
    let mut second = asks(&proxy, "second").await;
    holds("the second waits", async || {
        pointsman.metric("llm_d_epp_flow_control_queue_size", &[]).await == Some(1.0)
    })
    .await;
    // Chunks keep the first alive for twice the idle time; nothing moves on the second.
    for _ in 0..10 {
        sleep(Duration::from_millis(100)).await;
        first.say(chunk()).await;
    }
    drop(first);
    let answer = second.answer().await.unwrap().unwrap();
    assert!(destination(&answer).is_some(), "{answer:?}");
    assert!(matches!(second.answer().await, Some(Ok(Response::RequestBody(_)))));
    // The server thinks for less than the idle time.
    sleep(Duration::from_millis(250)).await;
    let in_flight = pointsman.metric("pointsman_endpoint_in_flight_requests", &[]).await;
    assert_eq!(in_flight, Some(1.0), "the second holds its share while its server works");
    second.say(response_headers("200")).await;
    let answer = second.answer().await.expect("the stream goes on").unwrap();
    assert!(matches!(answer, Response::ResponseHeaders(_)), "{answer:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_is_silent_after_its_decision_is_ended() {
    let fleet = Fleet::start(1, &[]).await;
    let endpoints = EndpointsFile::with(fleet.list());
    let flags = ["--allow-experimental-plugins", "--secure-serving=false", "--stream-idle-timeout", "500ms"];
    let pointsman = Pointsman::start(&config(&endpoints, 1, ""), &flags).await;
    let proxy = Proxy::connect(pointsman.grpc).await;
    let mut exchange = asks(&proxy, "only").await;
    assert!(destination(&exchange.answer().await.unwrap().unwrap()).is_some());
    while let Some(Ok(_)) = exchange.answer().await {}
    holds("nothing is in flight", async || {
        pointsman.metric("pointsman_endpoint_in_flight_requests", &[]).await == Some(0.0)
    })
    .await;
}
