//! Request bodies, by path: parsing, and putting another model in.

use bytes::Bytes;
use pointsman::request::{Parsers, parse, splice_model};
use serde_json::Value;

use super::{path, size_class};
use crate::engine::{Broken, Target, run};
use crate::memory;

/// Bytes of memory that parsing and rewriting may hold for each byte of a body.
const HELD_PER_BYTE: usize = 32;
/// Bytes of memory that they may hold whatever the body is.
const HELD_BESIDE: usize = 64 << 10;

/// The first byte of an input chooses one of these.
const PATHS: [&str; 12] = [
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/embeddings",
    "/v1/responses",
    "/v1/conversations",
    "/v1/images/generations",
    "/v1/messages",
    "/v1/messages/count_tokens",
    "/inference/v1/generate",
    "/v1/rerank",
    "/tokenize",
    "/v1/chat/completions/render",
];

const BODIES: [&str; 9] = [
    r#"{"model":"m","messages":[{"role":"user","content":"hi"},{"role":"user","content":[{"type":"text","text":"a"},{"type":"image_url","image_url":{"url":"data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAAB"}}]}],"max_tokens":5,"stream":true,"tools":[{"type":"function"}]}"#,
    r#"{"model":"m","prompt":["a","b"],"max_tokens":16,"cache_salt":"s"}"#,
    r#"{"model":"m","prompt":[[1,2,3],[4,5]],"stream":false}"#,
    r#"{"model":"m","input":[[1,2],[3]]}"#,
    r#"{"model":"m","input":[{"role":"user","content":[{"type":"input_text","text":"x"}]}],"instructions":"be brief","previous_response_id":"resp_1"}"#,
    r#"{"model":"m","system":[{"type":"text","text":"s"}],"messages":[{"role":"user","content":[{"type":"tool_result","content":[{"type":"image","source":{"type":"base64","data":"AAAA"}}]}]}],"max_tokens":9}"#,
    r#"{"model":"m","token_ids":[1,2,3],"sampling_params":{"max_tokens":3},"features":{"mm_hashes":{"image":["a"]}}}"#,
    r#"{"items":[{"type":"message","role":"user","content":"\u00e9\ud83d\ude00"}]}"#,
    r"{ }",
];

const WORDS: [&str; 24] = [
    "\"model\":\"m\",",
    "\"model\":1,",
    "{\"model\":\"x\"}",
    "\"prompt\":",
    "\"messages\":",
    "\"content\":",
    "\"input\":",
    "\"\",",
    "\"stream\":true,",
    "\"max_tokens\":",
    "\"image_url\":{\"url\":\"x\"}",
    "{\"type\":\"text\",\"text\":\"",
    "\\u0000",
    "\\ud800",
    "\\\"",
    "null",
    "true",
    "{}",
    "[]",
    "[1,",
    "\u{feff}",
    "\"cache_salt\":",
    "data:image/png;base64,",
    "\"tools\":[{}],",
];

#[test]
fn a_request_body_is_parsed_and_rewritten_within_bounds_of_time_memory_and_output() {
    let seeds = (0..PATHS.len() as u8)
        .flat_map(|kind| BODIES.iter().map(move |body| [&[kind], body.as_bytes()].concat()))
        .collect();
    // The trees that a rewritten body is compared by take far more than what is measured in the check.
    let target =
        Target { name: "request_bodies", seeds, words: &WORDS, memory_factor: 1000, memory_base: 1 << 20 };
    run(&target, check);
}

fn check(input: &[u8]) -> Result<u64, Broken> {
    let (&kind, body) = input.split_first().unwrap_or((&0, &[]));
    let route = PATHS[kind as usize % PATHS.len()];
    let Some(parser) = Parsers::default().resolve(route) else { return Ok(0) };
    let body = Bytes::copy_from_slice(body);
    let inference = match parse(parser, route, &body) {
        Ok(inference) => inference,
        Err(error) => {
            let text = error.to_string();
            let said = text.len();
            return if said <= 1024 {
                Ok(path((kind, text)))
            } else {
                Err(format!("an error of {said} bytes"))
            };
        }
    };
    for piece in &inference.prompt.pieces {
        std::hint::black_box(format!("{piece:?}").len());
    }
    let rewritten = inference.is_rewritable().then(|| splice_model(&body, &inference, "other-model"));
    let held = memory::peak();
    if held > HELD_PER_BYTE * input.len() + HELD_BESIDE {
        return Err(format!("{held} bytes held for a body of {}", body.len()));
    }
    if let Some(pieces) = rewritten {
        check_rewrite(&body, &pieces.concat())?;
    }
    let observed = (
        kind,
        inference.api,
        inference.stream,
        inference.model.is_some(),
        size_class(inference.prompt.pieces.len()),
        inference.max_output_tokens.map(|tokens| size_class(tokens as usize)),
    );
    Ok(path(observed))
}

fn check_rewrite(body: &[u8], rewritten: &[u8]) -> Result<(), Broken> {
    if rewritten.len() > 2 * body.len() + 1024 {
        return Err(format!("{} bytes became {}", body.len(), rewritten.len()));
    }
    // Where serde_json can read the body, it reads the same but for the model.
    let Ok(Value::Object(mut before)) = serde_json::from_slice(body) else { return Ok(()) };
    let Ok(Value::Object(after)) = serde_json::from_slice(rewritten) else {
        return Err(format!("the rewritten body is no JSON: {}", String::from_utf8_lossy(rewritten)));
    };
    before.insert("model".to_owned(), Value::from("other-model"));
    if before == after { Ok(()) } else { Err("more than the model has changed".to_owned()) }
}
