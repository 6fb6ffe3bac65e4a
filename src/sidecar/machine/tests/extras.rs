//! Encode servers, and answers in chunks.

use http::StatusCode;
use serde_json::{Value, json};

use super::nixl::{P, nixl, settings};
use super::support::{Got, Played, Reply, ask, ok, play, shared};
use crate::sidecar::api::Api;
use crate::sidecar::connector::{Connector, EncodeConnector};
use crate::sidecar::machine::{Leg, Rewrite};
use crate::sidecar::settings::Settings;
use crate::sidecar::target::Target;

#[test]
fn images_go_to_encode_servers_before_the_prompt_goes_anywhere() {
    let image = |url: &str| json!({"type":"image_url","image_url":{"url":url}});
    let body = json!({"model":"m","stream":true,"messages":[{"role":"user","content":[{"type":"text","text":"x"},image("u1"),image("u2"),image("u1")]}]});
    let encoded = |encode, text: &str, body: &Value| {
        let mut ask = ask(Api::Chat, &body.to_string(), &[P]);
        ask.route.encoders = ["e0:1", "e1:1"].iter().filter_map(|text| Target::parse(text)).collect();
        let settings = Settings { encode, ..settings(Connector::NixlV2) };
        play(&shared(settings), ask, move |made| match made.leg {
            Leg::Encode(0) if text == "400" => Reply::Answer(400, String::new()),
            Leg::Encode(0) if text == "500" => Reply::Answer(500, String::new()),
            Leg::Encode(0) => ok(r#"{"ec_transfer_params":{"h1":{"peer_port":1}}}"#),
            Leg::Encode(_) => ok(r#"{"ec_transfer_params":{"h2":{}}}"#),
            _ => nixl(made),
        })
    };
    let played = encoded(Some(EncodeConnector::Nixl), "", &body);
    let first = played.one(Leg::Encode(0));
    assert_eq!((first.to.as_str(), first.header("x-request-id").as_deref()), ("e0:1", Some("id-enc-0")));
    assert_eq!(
        first.body(),
        json!({"model":"m","stream":false,"max_tokens":1,"messages":[{"role":"user","content":[image("u1")]}]})
    );
    assert_eq!(played.one(Leg::Encode(1)).to, "e1:1");
    for leg in [Leg::Prefill, Leg::Decode] {
        let body = played.one(leg).body();
        assert_eq!(body["ec_transfer_params"], json!({"h1":{"peer_port":1},"h2":{}}));
        assert_eq!(body["cache_hit_threshold"], 0);
    }
    let played = encoded(Some(EncodeConnector::Nixl), "400", &body);
    assert_eq!(played.got, Got::Relayed(Leg::Encode(0), Rewrite::Nothing));
    let played = encoded(Some(EncodeConnector::Nixl), "500", &body);
    assert_eq!(
        (played.got.clone(), played.of(Leg::Prefill).len()),
        (Got::Refused(StatusCode::BAD_GATEWAY), 0)
    );
    let played = encoded(Some(EncodeConnector::Nixl), "", &json!({"messages":[{"content":"text"}]}));
    assert_eq!((played.made.len(), &played.one(Leg::Prefill).body()["cache_hit_threshold"]), (2, &json!(0)));
    let played = encoded(Some(EncodeConnector::Example), "", &body);
    assert_eq!(played.one(Leg::Prefill).body().get("ec_transfer_params"), None);
    let played = encoded(None, "", &body);
    assert_eq!(played.made.len(), 2);
}

fn chunk(tokens: u64, finish: &str) -> Reply {
    ok(&json!({"id":format!("c{tokens}"),"model":"m","object":"chat.completion","choices":[{"index":0,"message":{"role":"assistant","content":"x".repeat(tokens as usize)},"finish_reason":finish}],"usage":{"prompt_tokens":5,"completion_tokens":tokens}}).to_string())
}

fn chunked(body: &str) -> Played {
    let settings = Settings { chunk_size: 4, ..settings(Connector::NixlV2) };
    let mut answers = vec![chunk(2, "stop"), chunk(4, "length"), chunk(4, "length")];
    play(&shared(settings), ask(Api::Chat, body, &[]), move |_| answers.pop().unwrap())
}

#[test]
fn a_chat_in_chunks_is_one_answer_to_the_client() {
    let played = chunked(r#"{"max_tokens":10,"messages":[{"role":"user","content":"q"}]}"#);
    let sizes: Vec<_> = played.made.iter().map(|made| made.body()["max_tokens"].as_u64().unwrap()).collect();
    assert_eq!(sizes, [4, 4, 2]);
    let second = played.made[1].body();
    assert_eq!(
        (&second["continue_final_message"], &second["add_generation_prompt"]),
        (&json!(true), &json!(false))
    );
    assert_eq!(second["messages"][1], json!({"role":"assistant","content":"xxxx"}));
    assert_eq!(played.made[2].body()["messages"][1], json!({"role":"assistant","content":"xxxxxxxx"}));
    let Got::Document(document) = &played.got else { panic!("{:?}", played.got) };
    assert_eq!(document["choices"][0]["message"]["content"], "xxxxxxxxxx");
    assert_eq!(document["usage"]["completion_tokens"], 10);
    let played = chunked(r#"{"max_tokens":4,"messages":[]}"#);
    assert_eq!(played.one(Leg::Decode).bytes(), br#"{"max_tokens":4,"messages":[]}"#);
}

#[test]
fn a_chat_in_chunks_can_be_a_stream() {
    let played = chunked(r#"{"stream":true,"max_tokens":10,"messages":[]}"#);
    let Got::Stream(text) = &played.got else { panic!("{:?}", played.got) };
    let events: Vec<Value> = text
        .split("\n\n")
        .filter_map(|event| serde_json::from_str(event.strip_prefix("data: ")?).ok())
        .collect();
    assert_eq!(events.len(), 4, "{text}");
    let finished: Vec<_> =
        events[..3].iter().map(|event| event["choices"][0]["finish_reason"].clone()).collect();
    assert_eq!(finished, [Value::Null, Value::Null, json!("stop")]);
    assert!(events.iter().all(|event| event["id"] == "c4"));
    assert_eq!(events[3]["usage"]["completion_tokens"], 10);
    assert!(text.ends_with("data: [DONE]\n\n"));
    assert_eq!(played.outcomes.len(), 1);
}
