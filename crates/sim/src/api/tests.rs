//! Bodies in, bodies out, without a server.

use serde_json::{Value, json};

use super::answer::{Answer, Sender};
use super::ask::{self, Ask, Dialect};
use super::error::ApiError;
use super::tasks;
use crate::config::SimConfig;
use crate::driver::Progress;

const SENDER: Sender<'_> = Sender { engine: "sim-0", host: "10.0.0.2", block_size: 16 };

fn config() -> SimConfig {
    SimConfig {
        models: vec!["m".into(), "alias".into()],
        adapters: vec!["lora".into()],
        ..SimConfig::default()
    }
}

fn read(dialect: Dialect, body: &Value) -> Result<Ask, ApiError> {
    ask::ask(dialect, body.to_string().as_bytes(), &config())
}

fn chat(body: &Value) -> Ask {
    read(Dialect::Chat, body).unwrap()
}

fn progress(tokens: u32) -> Progress {
    Progress { tokens, cached_tokens: 4, finished: None }
}

fn events(stream: &str) -> Vec<Value> {
    let data =
        stream.split("\n\n").filter_map(|event| event.lines().find_map(|line| line.strip_prefix("data: ")));
    data.filter(|data| *data != "[DONE]").map(|data| serde_json::from_str(data).unwrap()).collect()
}

fn stream(answer: &Answer) -> String {
    let mut out = answer.opening();
    out.extend((0..answer.tokens()).map(|index| answer.token(index)));
    out + &answer.closing(progress(answer.tokens()))
}

#[test]
fn names_aliases_and_adapters_resolve_and_others_do_not() {
    let model = |name: &str| read(Dialect::Completions, &json!({"model": name, "prompt": "x"}));
    assert_eq!(model("alias").unwrap().submission.adapter, None);
    assert_eq!(model("lora").unwrap().submission.adapter.as_deref(), Some("lora"));
    let error = model("other").unwrap_err();
    assert_eq!(error.status, 404);
    let body: Value = serde_json::from_str(&error.body()).unwrap();
    assert_eq!(body["error"]["type"], "NotFoundError");
    assert_eq!(body["error"]["code"], 404);
    assert_eq!(read(Dialect::Completions, &json!({"prompt": "x"})).unwrap().model, "m");
}

#[test]
fn of_a_repeated_member_the_last_counts_at_every_depth() {
    let text = r#"{"model": 7, "model": "other", "model": "lora", "stream": true, "stream": false, "max_tokens": 0, "max_tokens": 3,
        "messages": "none", "messages": [{"role": 1, "role": "system", "content": "a", "role": "user", "content": "b"}],
        "stream_options": {"include_usage": false, "include_usage": true}}"#;
    let ask = ask::ask(Dialect::Chat, text.as_bytes(), &config()).unwrap();
    let plain = chat(&json!({"model": "lora", "messages": [{"role": "user", "content": "b"}]}));
    assert_eq!(ask.model, "lora");
    assert_eq!(ask.submission.prompt.tokens(), plain.submission.prompt.tokens());
    assert_eq!((ask.submission.max_tokens, ask.stream, ask.include_usage), (3, false, true));
}

#[test]
fn bad_requests_are_told_so() {
    for (dialect, body) in [
        (Dialect::Completions, json!({})),
        (Dialect::Completions, json!({"prompt": 1})),
        (Dialect::Completions, json!({"prompt": ["a", "b"]})),
        (Dialect::Completions, json!({"prompt": "a", "max_tokens": 0})),
        (Dialect::Completions, json!({"prompt": "a", "n": 2})),
        (Dialect::Chat, json!({"prompt": "a"})),
        (Dialect::Chat, json!({"messages": [{"content": "no role"}]})),
        (Dialect::Responses, json!({})),
        (Dialect::Chat, json!([])),
    ] {
        assert_eq!(read(dialect, &body).unwrap_err().status, 400, "{body}");
    }
    assert_eq!(ask::ask(Dialect::Chat, b"{", &config()).unwrap_err().status, 400);
}

#[test]
fn a_prompt_may_be_token_ids() {
    let ask = read(Dialect::Completions, &json!({"prompt": [5, 6, 7]})).unwrap();
    assert_eq!(ask.submission.prompt.tokens(), [5, 6, 7]);
    assert_eq!(ask.submission.max_tokens, 16);
}

#[test]
fn text_parts_read_like_the_same_text_in_one_piece() {
    let parts =
        chat(&json!({"messages": [{"role": "user", "content": [{"type": "text", "text": "hello"}]}]}));
    let plain = chat(&json!({"messages": [{"role": "user", "content": "hello"}]}));
    assert_eq!(parts.submission.prompt.tokens(), plain.submission.prompt.tokens());
}

#[test]
fn the_next_turn_of_a_chat_begins_with_the_tokens_of_this_one() {
    let first = chat(&json!({"messages": [{"role": "user", "content": "hello"}], "max_tokens": 5}));
    let answer = Answer::new(&first, "1", 0, SENDER);
    let body: Value = serde_json::from_str(&answer.whole(progress(5))).unwrap();
    let said = &body["choices"][0]["message"]["content"];
    let second = chat(&json!({"messages": [
        {"role": "user", "content": "hello"}, {"role": "assistant", "content": said}, {"role": "user", "content": "go on"}
    ]}));
    assert!(second.submission.prompt.tokens().starts_with(first.submission.prompt.tokens()));
    let seed = first.submission.answer_seed;
    let generated: Vec<u32> = (0..5).map(|i| crate::engine::tokens::word_token(seed, i)).collect();
    assert!(
        second.submission.prompt.tokens()[first.submission.prompt.tokens().len()..].starts_with(&generated)
    );
}

#[test]
fn usage_is_part_of_a_whole_answer_in_every_dialect() {
    let message = json!([{"role": "user", "content": "hello there"}]);
    for (dialect, body, path) in [
        (Dialect::Completions, json!({"prompt": "hello there"}), "/usage/completion_tokens"),
        (Dialect::Chat, json!({"messages": message}), "/usage/completion_tokens"),
        (Dialect::Responses, json!({"input": "hello there"}), "/usage/output_tokens"),
        (Dialect::Messages, json!({"messages": message}), "/usage/output_tokens"),
    ] {
        let ask = read(dialect, &body).unwrap();
        let body: Value =
            serde_json::from_str(&Answer::new(&ask, "1", 0, SENDER).whole(progress(16))).unwrap();
        assert_eq!(body.pointer(path), Some(&json!(16)), "{body}");
    }
}

#[test]
fn a_stream_has_usage_only_when_asked() {
    for (options, expected) in [(json!(null), 0), (json!({}), 0), (json!({"include_usage": true}), 1)] {
        for dialect in [Dialect::Chat, Dialect::Completions] {
            let messages = json!([{"role": "user", "content": "hello"}]);
            let body =
                json!({"prompt": "x", "messages": messages, "stream": true, "stream_options": options});
            let text = stream(&Answer::new(&read(dialect, &body).unwrap(), "1", 0, SENDER));
            assert!(text.ends_with("data: [DONE]\n\n"));
            let with_usage: Vec<Value> =
                events(&text).into_iter().filter(|event| event["usage"].is_object()).collect();
            assert_eq!(with_usage.len(), expected);
            for event in with_usage {
                assert_eq!(event["choices"], json!([]));
                assert_eq!(event["usage"]["prompt_tokens_details"]["cached_tokens"], 4);
            }
        }
    }
}

#[test]
fn the_pieces_of_a_stream_make_the_whole_answer_and_the_last_says_why() {
    let ask = chat(&json!({"messages": [{"role": "user", "content": "hello"}], "max_tokens": 4}));
    let answer = Answer::new(&ask, "1", 0, SENDER);
    let events = events(&stream(&answer));
    assert_eq!(events[0]["choices"][0]["delta"]["role"], "assistant");
    let text: String =
        events.iter().filter_map(|event| event["choices"][0]["delta"]["content"].as_str()).collect();
    let whole: Value = serde_json::from_str(&answer.whole(progress(4))).unwrap();
    assert_eq!(whole["choices"][0]["message"]["content"], text);
    assert_eq!(events.last().unwrap()["choices"][0]["finish_reason"], "length");
    assert_eq!(events.len(), 5);
}

#[test]
fn every_event_of_the_other_dialects_is_json() {
    let messages = json!([{"role": "user", "content": "hello"}]);
    let body = json!({"input": "x", "messages": messages, "max_tokens": 2});
    let responses = events(&stream(&Answer::new(&read(Dialect::Responses, &body).unwrap(), "1", 0, SENDER)));
    assert_eq!(responses.last().unwrap()["response"]["usage"]["output_tokens"], 2);
    let messages = events(&stream(&Answer::new(&read(Dialect::Messages, &body).unwrap(), "1", 0, SENDER)));
    assert_eq!(messages.last().unwrap()["type"], "message_stop");
    assert_eq!(messages[messages.len() - 2]["delta"]["stop_reason"], "max_tokens");
}

#[test]
fn models_tokens_and_embeddings_are_json() {
    let models: Value = serde_json::from_str(&tasks::models(&config(), 1, 100)).unwrap();
    let ids: Vec<&str> =
        models["data"].as_array().unwrap().iter().map(|card| card["id"].as_str().unwrap()).collect();
    assert_eq!(ids, ["m", "alias", "lora"]);
    assert_eq!(models["data"][2]["parent"], "m");

    let ask = ask::embeddings(br#"{"input": ["a b", "c"]}"#, &config()).unwrap();
    let embeddings: Value = serde_json::from_str(&tasks::embeddings(&ask, "1", 1)).unwrap();
    assert_eq!(embeddings["data"].as_array().unwrap().len(), 2);
    assert_eq!(embeddings["usage"]["prompt_tokens"], 3);

    let tokens = ask::tokenize(br#"{"prompt": "abcdefgh"}"#, &config()).unwrap();
    let tokenized: Value = serde_json::from_str(&tasks::tokenized(&tokens, 9)).unwrap();
    assert_eq!(tokenized["count"], 2);
}
