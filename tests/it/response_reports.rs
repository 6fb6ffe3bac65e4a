//! What plugins tell the proxy of complete responses.

use pointsman::extproc::wire::{HttpBody, Kind, Request, Struct};

use crate::support::{EndpointsFile, Fleet, Pointsman, Proxy, body, chat, config, headers, response_headers};

const ANSWER: &str =
    r#"{"choices":[],"usage":{"prompt_tokens":100,"completion_tokens":7,"total_tokens":107}}"#;

/// The number under `namespace` and `key`.
fn number(metadata: &Struct, namespace: &str, key: &str) -> Option<f64> {
    let find = |fields: &Struct, name: &str| {
        let field = fields.fields.iter().find(|field| field.name == name)?;
        field.value.as_ref()?.kind.clone()
    };
    let Some(Kind::Struct(space)) = find(metadata, namespace) else { return None };
    match find(&space, key) {
        Some(Kind::Number(value)) => Some(value),
        _ => None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_message_of_a_response_carries_the_figure_that_an_expression_gives() {
    let fleet = Fleet::start(1, &[]).await;
    let endpoints = EndpointsFile::with(fleet.list());
    let row = "- type: request-attribute-reporter\n  parameters:\n    attributes:\n    - key: {namespace: a.b, name: cost}\n      \
               expression: usage.prompt_tokens + usage.completion_tokens * 4.0\n      condition: usage.total_tokens > 10.0\n";
    let text = config(&endpoints.path(), &[("queue-scorer", 1)])
        .replace("- type: queue-scorer\n", &format!("- type: queue-scorer\n{row}"));
    let pointsman = Pointsman::start(&text, &["--secure-serving=false"]).await;
    let proxy = Proxy::connect(pointsman.grpc).await;
    let mut exchange = proxy.open().await;
    exchange.say(headers("/v1/chat/completions", [], false)).await;
    exchange.say(body(chat("hello", 1, false).to_string(), true)).await;
    exchange.answer().await.unwrap().unwrap();
    exchange.answer().await.unwrap().unwrap();
    exchange.say(response_headers("200")).await;
    exchange.answer().await.unwrap().unwrap();
    let (first, rest) = ANSWER.split_at(40);
    for (piece, end) in [(first, false), (rest, true)] {
        exchange.say(Request::ResponseBody(HttpBody { body: piece.into(), end_of_stream: end })).await;
    }
    let mut last = None;
    // Trailing pieces may be answered apart.
    for _ in 0..2 {
        last = exchange.message().await.unwrap().unwrap().dynamic_metadata;
        if last.is_some() {
            break;
        }
    }
    assert_eq!(number(&last.unwrap(), "a.b", "cost"), Some(128.0));
}
