//! Envoy may hand bodies over in other ways than the file in `deploy/` says: every pair of body modes, with aliases,
//! trailers, both protocols and bodies around the sizes at which something changes.

use bytes::Bytes;
use http::HeaderMap;
use pointsman::extproc::wire::{
    HttpBody, HttpTrailers, Mutation, ProcessingRequest, ProtocolConfiguration, Request, Response,
};
use serde_json::json;

use crate::support::{
    BodyMode, Client, EndpointsFile, Envoy, Fleet, Pointsman, Proxy, Recorded, Recorder, Reply, SCORERS,
    Stack, body, chat, config, headers, response_headers, sse_events,
};

const MODES: [BodyMode; 5] = [
    BodyMode::FullDuplexStreamed,
    BodyMode::None,
    BodyMode::Streamed,
    BodyMode::Buffered,
    BodyMode::BufferedPartial,
];

/// Largest body that Envoy buffers in the tests; the file has 1 MiB.
const BUFFER: usize = 1 << 20;

const REWRITES: &str = "\
modelRewrites:
- name: longer
  rules:
  - matches: [{model: {type: Exact, value: alias}}]
    targets: [{modelRewrite: sim-model}]
- name: shorter
  rules:
  - matches: [{model: {type: Exact, value: a-name-that-is-longer}}]
    targets: [{modelRewrite: sim-model}]
";

/// A completion request of exactly `size` bytes, with the model in front or behind.
fn sized(model: &str, size: usize, model_first: bool) -> String {
    let shape = |prompt: &str| {
        if model_first {
            format!("{{\"model\":\"{model}\",\"prompt\":\"{prompt}\"}}")
        } else {
            format!("{{\"prompt\":\"{prompt}\",\"model\":\"{model}\"}}")
        }
    };
    let around = shape("").len();
    shape(&"x".repeat(size.saturating_sub(around)))
}

/// Sends a body, in pieces and ended by trailers where asked.
async fn send(client: Client, body: String, trailers: bool) -> Reply {
    if !trailers {
        return client.post_with("/v1/completions", &[], body).await;
    }
    let pieces = Bytes::from(body);
    let mut map = HeaderMap::new();
    map.insert("x-checked", "yes".parse().unwrap());
    let pieces = pieces.chunks(50_000).map(Bytes::copy_from_slice).collect();
    client.post_with_trailers("/v1/completions", pieces, map).await
}

/// What becomes of an alias in this mode.
enum Fate {
    Replaced,
    Refused(u16),
}

/// What must become of a rewrite in this mode, of which the client heard `status`.
fn fate(mode: BodyMode, size: usize, model_first: bool, status: u16) -> Fate {
    match mode {
        // Envoy holds no more than its buffer takes.
        BodyMode::Buffered if size > BUFFER => Fate::Refused(413),
        // How much of a larger body Envoy shows is a matter of when its pieces come: the model may still be in it.
        BodyMode::BufferedPartial if size > BUFFER && !model_first && status == 200 => Fate::Replaced,
        BodyMode::BufferedPartial if size > BUFFER && !model_first => Fate::Refused(413),
        BodyMode::FullDuplexStreamed | BodyMode::Buffered | BodyMode::BufferedPartial => Fate::Replaced,
        BodyMode::Streamed => Fate::Refused(400),
        BodyMode::None => unreachable!("nothing is known of the body"),
    }
}

async fn replaces_aliases(request: BodyMode) {
    let bench = Recorded::start(REWRITES).await;
    for response in MODES {
        let envoy = bench.envoy(request, response).await;
        for client in [envoy.http1(), envoy.http2()] {
            for alias in ["alias", "a-name-that-is-longer"] {
                let cases = [(80, true, false), (61_999, true, true), (62_000, false, false)];
                let more = [(62_001, true, false), (2_000_000, true, true), (2_000_000, false, false)];
                for (size, model_first, trailers) in cases.into_iter().chain(more) {
                    let case = format!("{request:?} {response:?} {alias} {size} {model_first} {trailers}");
                    let before = bench.server.received().len();
                    let reply = send(client, sized(alias, size, model_first), trailers).await;
                    match fate(request, size, model_first, reply.status) {
                        Fate::Refused(status) => {
                            assert_eq!(reply.status, status, "{case} {reply:?}");
                            let after = bench.server.received().len();
                            assert_eq!(after, before, "{case}: the alias reached the server");
                        }
                        Fate::Replaced => {
                            assert_eq!(reply.status, 200, "{case} {reply:?}");
                            let change = "sim-model".len().cast_signed() - alias.len().cast_signed();
                            let expected =
                                sized("sim-model", size.checked_add_signed(change).unwrap(), model_first);
                            assert!(bench.last() == expected, "{case}: the server got something else");
                            let name = if response == BodyMode::None { "sim-model" } else { alias };
                            assert_eq!(reply.json()["model"], name, "{case}");
                        }
                    }
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn aliases_are_replaced_in_full_duplex_bodies() {
    replaces_aliases(BodyMode::FullDuplexStreamed).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn aliases_are_replaced_in_whole_bodies() {
    replaces_aliases(BodyMode::Buffered).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn aliases_are_replaced_in_partly_buffered_bodies_or_refused_where_the_model_is_cut_off() {
    replaces_aliases(BodyMode::BufferedPartial).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn aliases_in_bodies_that_come_after_the_decision_are_refused_and_reach_no_server() {
    replaces_aliases(BodyMode::Streamed).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn aliases_are_replaced_in_pieces_that_come_before_the_headers_are_answered() {
    let bench = Recorded::start(REWRITES).await;
    let envoy = Envoy::start_with_early_bodies(bench.pointsman.grpc).await;
    for client in [envoy.http1(), envoy.http2()] {
        for alias in ["alias", "a-name-that-is-longer"] {
            for size in [80, 61_999, 62_001, 300_000] {
                let reply = send(client, sized(alias, size, size < 100), false).await;
                assert_eq!(reply.status, 200, "{alias} {size} {reply:?}");
                let change = "sim-model".len().cast_signed() - alias.len().cast_signed();
                let expected = sized("sim-model", size.checked_add_signed(change).unwrap(), size < 100);
                assert!(bench.last() == expected, "{alias} {size}: the server got something else");
                assert_eq!(reply.json()["model"], alias);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rewrite_that_is_certain_is_refused_where_no_body_is_shown() {
    let bench = Recorded::start(REWRITES).await;
    let asked = [("x-llm-d-model-name-rewrite", "sim-model")];
    for mode in [BodyMode::None, BodyMode::Streamed] {
        let envoy = bench.envoy(mode, mode).await;
        let client = envoy.http1();
        let reply = client.post_with("/v1/completions", &asked, sized("any", 100, true)).await;
        assert_eq!(reply.status, 400, "{reply:?}");
        assert_eq!(reply.json()["error"]["code"], "rewrite_unseen");
        // Nothing is to be replaced here.
        let reply = client.post_with("/v1/completions", &[], sized("sim-model", 100, true)).await;
        assert_eq!(reply.status, 200, "{reply:?}");
        let reply = client.get_with("/v1/models", &asked).await;
        assert_eq!(reply.status, 200, "a request without a body has no model: {reply:?}");
    }
    let all = "modelRewrites:\n- name: all\n  rules:\n  - targets: [{modelRewrite: sim-model}]\n";
    let bench = Recorded::start(all).await;
    let envoy = bench.envoy(BodyMode::None, BodyMode::None).await;
    let client = envoy.http1();
    let reply = client.post_with("/v1/completions", &[], sized("any", 100, true)).await;
    assert_eq!(reply.status, 400, "{reply:?}");
    assert!(bench.server.received().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_of_every_size_pass_unchanged_in_every_pair_of_modes() {
    let bench = Recorded::start("").await;
    for request in MODES {
        for response in MODES {
            let envoy = bench.envoy(request, response).await;
            for client in [envoy.http1(), envoy.http2()] {
                for (size, trailers) in
                    [(40, false), (61_999, false), (62_000, true), (62_001, false), (2_000_000, true)]
                {
                    let case = format!("{request:?} {response:?} {size} {trailers}");
                    let body = sized("sim-model", size, true);
                    let reply = send(client, body.clone(), trailers).await;
                    if request == BodyMode::Buffered && size > BUFFER {
                        assert_eq!(reply.status, 413, "{case} {reply:?}");
                        continue;
                    }
                    assert_eq!(reply.status, 200, "{case} {reply:?}");
                    assert!(bench.last() == body, "{case}: the server got something else");
                    assert_eq!(reply.json()["model"], "sim-model", "{case}");
                }
                // Bodies of no byte and of one are no JSON, and get an answer in every mode.
                for body in ["", "x"] {
                    let reply = client.post_with("/v1/completions", &[], body).await;
                    assert!(matches!(reply.status, 200 | 400), "{request:?} {response:?} {body:?} {reply:?}");
                }
            }
        }
    }
}

/// The body as it goes on to the client after answers to pieces that are `chunks`.
fn passed_on(chunks: &[&str], answers: &[Response]) -> String {
    let answers = answers.iter().filter_map(|answer| match answer {
        Response::ResponseBody(body) => Some(body.response.clone().unwrap_or_default().body_mutation),
        _ => None,
    });
    let pieces = chunks.iter().zip(answers).map(|(chunk, mutation)| {
        match mutation.and_then(|mutation| mutation.mutation) {
            None => (*chunk).to_owned(),
            Some(Mutation::Body(bytes)) => String::from_utf8(bytes.to_vec()).unwrap(),
            Some(Mutation::ClearBody(_)) => String::new(),
            Some(other) => panic!("{other:?} in a mode of whole pieces"),
        }
    });
    pieces.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_response_that_trailers_end_in_the_middle_of_a_model_name_loses_no_byte() {
    let server = Recorder::start().await;
    let endpoints =
        EndpointsFile::of(&format!("{}{REWRITES}", EndpointsFile::listed([("only", server.addr)])));
    let pointsman = Pointsman::start(&config(&endpoints.path(), SCORERS), &["--secure-serving=false"]).await;
    let proxy = Proxy::connect(pointsman.grpc).await;
    for (response_body_mode, chunks) in [
        (1, &["{\"id\":1,", "\"model\":\"sim-mo"][..]),
        (1, &["{\"model\":\"sim-", "model\",\"n\":1}"][..]),
        (2, &["{\"model\":\"sim-mo"][..]),
        (3, &["{\"model\":\"sim-mo"][..]),
    ] {
        let exchange = proxy.open().await;
        let config = ProtocolConfiguration { request_body_mode: 2, response_body_mode, ..Default::default() };
        exchange
            .tell(ProcessingRequest {
                request: Some(headers("/v1/completions", [], false)),
                protocol_config: Some(config),
                ..ProcessingRequest::default()
            })
            .await;
        exchange.say(body(sized("alias", 100, true), true)).await;
        exchange.say(response_headers("200")).await;
        for chunk in chunks {
            exchange
                .say(Request::ResponseBody(HttpBody { body: (*chunk).into(), end_of_stream: false }))
                .await;
        }
        exchange.say(Request::ResponseTrailers(HttpTrailers::default())).await;
        let answers: Vec<_> = exchange.finish().await.into_iter().map(Result::unwrap).collect();
        assert_eq!(passed_on(chunks, &answers), chunks.concat(), "mode {response_body_mode}");
    }
}

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
