//! What a client may do with the name of the model: how long it is, how often it stands there, who may set it.

use bytes::Bytes;
use pointsman::extproc::wire::{Mutation, Response};
use serde_json::Value;

use crate::support::{
    BodyMode, EndpointsFile, Envoy, Fleet, Pointsman, Proxy, Reply, SCORERS, Stack, body, chat, config,
    headers,
};

const PATH: &str = "/v1/completions";
const REWRITE: &str = "x-llm-d-model-name-rewrite";

/// A body of `count` members `model`.
fn models(count: usize) -> String {
    format!(r#"{{"prompt":"x","max_tokens":1,{}}}"#, vec![r#""model":"x""#; count].join(","))
}

fn assert_refused(reply: &Reply, status: u16, names: &str) {
    assert_eq!(reply.status, status, "{reply:?}");
    let message = reply.json()["error"]["message"].as_str().unwrap().to_owned();
    assert!(message.contains(names) && message.len() < 1200, "{message}");
}

async fn last_body(stack: &Stack) -> String {
    let page = stack.fleet.servers[0].client().get("/sim/requests?n=1").await.json();
    page[0]["body"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_of_many_models_is_not_rewritten_into_many_times_its_size() {
    let fleet = Fleet::start(1, &["--model", "real-model", "--model", "x"]).await;
    let stack = Stack::of(fleet, BodyMode::FullDuplexStreamed, &[]).await;
    let header = [(REWRITE, "real-model")];
    let reply = stack.client().post_with(PATH, &header, models(80_000)).await;
    assert_refused(&reply, 400, "model: got more than 8 members");
    let few = stack.client().post_with(PATH, &header, models(8)).await;
    assert_eq!(few.header("x-sim-server"), "sim-0", "{few:?}");
    assert_eq!(last_body(&stack).await, models(8).replace(r#""model":"x""#, r#""model":"real-model""#));
    let untouched = stack.client().post_with(PATH, &[], models(1000)).await;
    assert_eq!(untouched.header("x-sim-server"), "sim-0", "{untouched:?}");
    assert_eq!(last_body(&stack).await, models(1000), "a body that needs no rewrite goes on as it came");
    stack.assert_idle().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_to_a_body_of_many_models_stay_below_twice_its_size() {
    let endpoints = EndpointsFile::with([("one", "127.0.0.1:1".parse().unwrap())]);
    let flags = ["--secure-serving=false"];
    let pointsman = Pointsman::start(&config(&endpoints.path(), SCORERS), &flags).await;
    let proxy = Proxy::connect(pointsman.grpc).await;
    for (count, name) in [(8, "r".repeat(1024)), (9, "r".repeat(1024)), (100_000, "\u{1}".repeat(50))] {
        let text = models(count);
        let (size, exchange) = (text.len(), proxy.open().await);
        let header = (Bytes::from_static(REWRITE.as_bytes()), Bytes::from(name));
        exchange.say(headers(PATH, [header], false)).await;
        exchange.say(body(text, true)).await;
        let answers = exchange.finish().await;
        let sent: usize = answers.iter().map(|answer| bytes_of(answer.as_ref().unwrap())).sum();
        assert!(answers.len() <= 2, "{} messages for {count} models", answers.len());
        assert!(sent <= size + 8 * 1026, "{sent} bytes for {size} with {count} models");
    }
}

/// Bytes of a body in an answer.
fn bytes_of(answer: &Response) -> usize {
    match answer {
        Response::RequestBody(answer) => {
            let mutation = answer.response.as_ref().and_then(|response| response.body_mutation.as_ref());
            match mutation.and_then(|mutation| mutation.mutation.as_ref()) {
                Some(Mutation::StreamedResponse(piece)) => piece.body.len(),
                other => panic!("no piece of a body: {other:?}"),
            }
        }
        Response::ImmediateResponse(answer) => answer.body.len(),
        _ => 0,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_name_of_kilobytes_is_refused_from_header_and_body() {
    let stack = Stack::start(1).await;
    let long = "y".repeat(30_000);
    let reply = stack.client().post_with(PATH, &[(REWRITE, &long)], models(2)).await;
    assert_refused(&reply, 400, "header x-llm-d-model-name-rewrite: got 30000 bytes");
    let mut question = chat("x", 1, false);
    question["model"] = Value::from(long);
    let reply = stack.client().post("/v1/chat/completions", &question).await;
    assert_refused(&reply, 400, "model: got 30000 bytes, expected a name of at most 1024 bytes");
    let page = stack.pointsman.page().await;
    assert!(!page.contains("yyyyyyyy"), "such a name is nobody's label");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rewritten_body_counts_against_the_largest_body() {
    let fleet = Fleet::start(1, &["--model", "sim-model", "--model", &"z".repeat(200)]).await;
    let stack = Stack::of(fleet, BodyMode::FullDuplexStreamed, &["--max-request-body", "1000"]).await;
    let question = chat(&"x".repeat(850), 1, false).to_string();
    assert!((900..1000).contains(&question.len()));
    let header = [(REWRITE, "z".repeat(200))];
    let header = [(header[0].0, header[0].1.as_str())];
    let reply = stack.client().post_with("/v1/chat/completions", &header, question.clone()).await;
    assert_refused(&reply, 413, "with the target model exceeds the limit of 1000 bytes");
    let reply = stack.client().post_with("/v1/chat/completions", &[], question).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    assert_eq!(
        stack.pointsman.metric("pointsman_bound_hits_total", &[("bound", "request_body")]).await,
        Some(1.0)
    );
    stack.assert_idle().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_operator_can_switch_the_rewrite_header_off() {
    let fleet = Fleet::start(1, &["--model", "sim-model", "--model", "other"]).await;
    let flags = ["--model-rewrite-header=false", "--strip-control-headers=false"];
    let stack = Stack::of(fleet, BodyMode::FullDuplexStreamed, &flags).await;
    let long = "y".repeat(30_000);
    for (name, value) in [(REWRITE, "other"), ("x-gateway-model-name-rewrite", "other"), (REWRITE, &long)] {
        let question = chat("x", 1, false);
        let further = [(name, value), ("x-llm-d-inference-objective", "gold")];
        let reply = stack.client().post_with("/v1/chat/completions", &further, question.to_string()).await;
        assert_eq!(reply.status, 200, "{reply:?}");
        let page = stack.fleet.servers[0].client().get("/sim/requests?n=1").await.json();
        assert_eq!(page[0]["body"], question.to_string());
        let sent = page[0]["headers"].to_string();
        assert!(!sent.contains("model-name-rewrite"), "the header is removed: {sent}");
        assert!(sent.contains("x-llm-d-inference-objective"), "others pass: {sent}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_does_not_send_a_long_path_back() {
    let endpoints = EndpointsFile::with([("one", "127.0.0.1:1".parse().unwrap())]);
    let parser = "requestHandler:\n  parsers:\n  - pluginRef: openai-parser\n";
    let text = config(&endpoints.path(), SCORERS)
        .replace("plugins:\n- type: f", "plugins:\n- type: openai-parser\n- type: f");
    let pointsman = Pointsman::start(&format!("{text}{parser}"), &[]).await;
    let envoy = Envoy::start(pointsman.grpc, true, BodyMode::FullDuplexStreamed).await;
    let path = format!("/{}", "p".repeat(20_000));
    let reply = envoy.http1().post_with(&path, &[], "{}").await;
    assert_refused(&reply, 400, "no parser registered matching path suffix for: /ppp");
    assert!(reply.body.len() < 1500, "{}", reply.body.len());
}
