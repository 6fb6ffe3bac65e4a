//! Streams that no Envoy would open, spoken to the picker directly.

use bytes::Bytes;
use pointsman::extproc::wire::{
    HeaderMap, HttpBody, HttpHeaders, HttpTrailers, Metadata, Mutation, ProcessingRequest,
    ProtocolConfiguration, Request, Response,
};

use crate::support::{
    EndpointsFile, Fleet, Pointsman, Proxy, SCORERS, body, chat, config, destination, headers, holds,
    response_headers, trailers,
};

/// One simulated server behind a picker, and a connection to it.
struct Bench {
    pointsman: Pointsman,
    proxy: Proxy,
    fleet: Fleet,
    _endpoints: EndpointsFile,
}

impl Bench {
    async fn start(flags: &[&str]) -> Self {
        let fleet = Fleet::start(1, &[]).await;
        let endpoints = EndpointsFile::with(fleet.list());
        let flags = [&["--secure-serving=false"], flags].concat();
        let pointsman = Pointsman::start(&config(&endpoints.path(), SCORERS), &flags).await;
        let proxy = Proxy::connect(pointsman.grpc).await;
        Self { pointsman, proxy, fleet, _endpoints: endpoints }
    }

    /// Fails unless an ordinary request is picked for and nothing else is left in flight.
    async fn assert_well(&mut self) {
        let mut exchange = self.proxy.open().await;
        exchange.say(headers("/v1/chat/completions", [], false)).await;
        exchange.say(body(chat("well?", 1, false).to_string(), true)).await;
        let answer = exchange.answer().await.unwrap().unwrap();
        assert_eq!(destination(&answer), Some(self.fleet.servers[0].addr.to_string()));
        drop(exchange);
        assert!(self.pointsman.process.runs());
        for gauge in
            ["pointsman_streams", "pointsman_endpoint_in_flight_requests", "pointsman_buffered_body_bytes"]
        {
            holds(&format!("{gauge} is back to zero"), async || {
                self.pointsman.metric(gauge, &[]).await.unwrap_or(0.0) == 0.0
            })
            .await;
        }
        let panics = self.pointsman.metric("pointsman_stream_panics_total", &[]).await;
        assert!(panics.is_none_or(|panics| panics == 0.0), "a stream ended in a panic");
    }
}

fn immediate(answers: &[Result<Response, tonic::Status>]) -> Option<i32> {
    answers.iter().find_map(|answer| match answer {
        Ok(Response::ImmediateResponse(answer)) => Some(answer.status.as_ref()?.code),
        _ => None,
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_headers_are_no_trouble() {
    let mut bench = Bench::start(&[]).await;
    let many =
        (0..1000).map(|number| (Bytes::from(format!("x-load-{number}")), Bytes::from(number.to_string())));
    let mut exchange = bench.proxy.open().await;
    exchange.say(headers("/v1/chat/completions", many, false)).await;
    exchange.say(body(chat("many", 1, false).to_string(), true)).await;
    let answer = exchange.answer().await.unwrap().unwrap();
    assert!(destination(&answer).is_some(), "{answer:?}");
    if let Response::RequestHeaders(answer) = &answer {
        let set = answer.response.as_ref().unwrap().header_mutation.as_ref().unwrap().set_headers.len();
        assert!(set < 20, "{set} headers are sent back");
    }
    drop(exchange);
    bench.assert_well().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn names_and_values_that_are_no_text_are_no_trouble() {
    let mut bench = Bench::start(&[]).await;
    let odd = Bytes::from_static(b"\xff\xfe");
    for name in [
        "x-gateway-inference-fairness-id",
        "x-gateway-inference-objective",
        "x-request-id",
        "traceparent",
        ":path",
    ] {
        let mut exchange = bench.proxy.open().await;
        let further = [(Bytes::from_static(name.as_bytes()), odd.clone()), (odd.clone(), odd.clone())];
        exchange.say(headers("/v1/chat/completions", further, false)).await;
        exchange.say(body(chat("odd", 1, false).to_string(), true)).await;
        let answer = exchange.answer().await.unwrap().unwrap();
        let refused = matches!(answer, Response::ImmediateResponse(_));
        assert!(destination(&answer).is_some() || refused, "{name}: {answer:?}");
    }
    bench.assert_well().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn absent_parts_of_messages_are_no_trouble() {
    let mut bench = Bench::start(&[]).await;
    let nothing = ProcessingRequest::default;
    let conversations: [&[ProcessingRequest]; 6] = [
        &[nothing()],
        &[nothing(), nothing(), nothing()],
        &[of(Request::RequestHeaders(HttpHeaders::default())), of(body("{}", true))],
        &[of(Request::RequestHeaders(HttpHeaders { headers: None, end_of_stream: true }))],
        &[of(Request::RequestHeaders(HttpHeaders {
            headers: Some(HeaderMap::default()),
            end_of_stream: true,
        }))],
        &[
            of(Request::ResponseHeaders(HttpHeaders::default())),
            of(Request::ResponseTrailers(HttpTrailers::default())),
        ],
    ];
    for messages in conversations {
        let exchange = bench.proxy.open().await;
        for message in messages {
            exchange.tell(message.clone()).await;
        }
        exchange.finish().await;
    }
    bench.assert_well().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_out_of_order_end_the_stream_and_nothing_else() {
    let mut bench = Bench::start(&[]).await;
    let text = chat("order", 1, false).to_string();
    let kinds = [
        headers("/v1/chat/completions", [], false),
        body(text.clone(), false),
        body(text, true),
        trailers(),
        Request::ResponseHeaders(HttpHeaders::default()),
        Request::ResponseBody(HttpBody { body: Bytes::from_static(b"x"), end_of_stream: true }),
        Request::ResponseTrailers(HttpTrailers::default()),
    ];
    for first in &kinds {
        for second in &kinds {
            for third in &kinds {
                let exchange = bench.proxy.open().await;
                for kind in [first, second, third] {
                    exchange.say(kind.clone()).await;
                }
                let answers = exchange.finish().await;
                let picks = answers.iter().flatten().filter(|answer| destination(answer).is_some()).count();
                assert!(picks <= 1, "{first:?} {second:?} {third:?}: {answers:?}");
            }
        }
    }
    bench.assert_well().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_request_on_an_answered_stream_is_not_picked_for() {
    let mut bench = Bench::start(&[]).await;
    let text = chat("twice", 1, false).to_string();
    let exchange = bench.proxy.open().await;
    for _ in 0..2 {
        exchange.say(headers("/v1/chat/completions", [], false)).await;
        exchange.say(body(text.clone(), true)).await;
    }
    let answers = exchange.finish().await;
    let picks = answers.iter().flatten().filter(|answer| destination(answer).is_some()).count();
    assert_eq!(picks, 1, "{answers:?}");
    bench.assert_well().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_ended_by_trailers_is_picked_for() {
    let mut bench = Bench::start(&[]).await;
    let mut exchange = bench.proxy.open().await;
    exchange.say(headers("/v1/chat/completions", [], false)).await;
    exchange.say(body(chat("trailers", 1, false).to_string(), false)).await;
    exchange.say(trailers()).await;
    let answer = exchange.answer().await.unwrap().unwrap();
    assert!(destination(&answer).is_some(), "{answer:?}");
    let rest = exchange.finish().await;
    assert!(rest.iter().flatten().any(|answer| matches!(answer, Response::RequestTrailers(_))), "{rest:?}");
    bench.assert_well().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_malformed_subset_hint_is_refused_and_not_ignored() {
    let mut bench = Bench::start(&[]).await;
    // `envoy.lb.subset_hint` without a struct, and one whose list is no list.
    let hint = pointsman::extproc::wire::NamedStruct {
        name: Bytes::from_static(b"envoy.lb.subset_hint"),
        fields: Some(pointsman::extproc::wire::Struct {
            fields: vec![pointsman::extproc::wire::Field {
                name: Bytes::from_static(b"x-gateway-destination-endpoint-subset"),
                value: Some(pointsman::extproc::wire::Value { kind: None }),
            }],
        }),
    };
    let exchange = bench.proxy.open().await;
    let mut first = of(headers("/v1/chat/completions", [], false));
    first.metadata_context = Some(Metadata { filter_metadata: vec![hint] });
    exchange.tell(first).await;
    exchange.say(body(chat("subset", 1, false).to_string(), true)).await;
    let answers = exchange.finish().await;
    assert_eq!(immediate(&answers), Some(503), "{answers:?}");
    bench.assert_well().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_body_modes_and_observers_are_no_trouble() {
    let mut bench = Bench::start(&[]).await;
    let mut odd_mode = of(headers("/v1/chat/completions", [], false));
    odd_mode.protocol_config = Some(ProtocolConfiguration {
        request_body_mode: 99,
        response_body_mode: -1,
        send_body_without_waiting_for_header_response: true,
    });
    let mut observer = of(headers("/v1/chat/completions", [], false));
    observer.observability_mode = true;
    for first in [odd_mode, observer] {
        let exchange = bench.proxy.open().await;
        exchange.tell(first).await;
        exchange.say(body(chat("mode", 1, false).to_string(), true)).await;
        exchange.finish().await;
    }
    bench.assert_well().await;
}

/// An end of the stream that meets the response makes Envoy drop the response's body.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_whose_tokens_are_counted_goes_on_to_the_end_of_its_response() {
    let mut bench = Bench::start(&[]).await;
    let mut exchange = bench.proxy.open().await;
    let rewrite = [(Bytes::from_static(b"x-llm-d-model-name-rewrite"), Bytes::from_static(b"real"))];
    exchange.say(headers("/v1/messages/count_tokens", rewrite, false)).await;
    exchange.say(body(r#"{"model":"alias","messages":[]}"#, true)).await;
    assert!(destination(&exchange.answer().await.unwrap().unwrap()).is_some());
    exchange.answer().await.unwrap().unwrap();
    exchange.say(response_headers("200")).await;
    let answer = exchange.answer().await.expect("the stream goes on").unwrap();
    assert!(matches!(answer, Response::ResponseHeaders(_)), "{answer:?}");
    let reply = r#"{"model":"real","input_tokens":7}"#;
    exchange.say(Request::ResponseBody(HttpBody { body: reply.into(), end_of_stream: true })).await;
    let mut received = Vec::new();
    while let Some(Ok(Response::ResponseBody(answer))) = exchange.answer().await {
        let mutation = answer.response.unwrap().body_mutation.unwrap().mutation;
        let Some(Mutation::StreamedResponse(piece)) = mutation else { panic!("{mutation:?}") };
        received.extend_from_slice(&piece.body);
        if piece.end_of_stream {
            break;
        }
    }
    assert_eq!(String::from_utf8(received).unwrap(), r#"{"model":"alias","input_tokens":7}"#);
    drop(exchange);
    bench.assert_well().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_over_the_limit_ends_its_stream_alone() {
    let mut bench = Bench::start(&["--grpc-max-recv-msg-size", "4MiB"]).await;
    let exchange = bench.proxy.open().await;
    exchange.say(headers("/v1/chat/completions", [], false)).await;
    exchange.say(body(vec![b'x'; 5 * 1024 * 1024], true)).await;
    let answers = exchange.finish().await;
    let status = answers.last().unwrap().as_ref().unwrap_err();
    assert_eq!(status.code(), tonic::Code::OutOfRange, "{status:?}");
    assert!(answers.iter().flatten().all(|answer| destination(answer).is_none()), "{answers:?}");
    bench.assert_well().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_stream_is_ended_after_the_idle_time() {
    let mut bench = Bench::start(&["--stream-idle-timeout", "200ms"]).await;
    let mut exchange = bench.proxy.open().await;
    exchange.say(headers("/v1/chat/completions", [], false)).await;
    while let Some(Ok(_)) = exchange.answer().await {}
    bench.assert_well().await;
}

fn of(request: Request) -> ProcessingRequest {
    ProcessingRequest { request: Some(request), ..ProcessingRequest::default() }
}
