//! Chats with gpt-oss against what vLLM hands to it; `data/make_harmony.py` says how `data/harmony.json` was made.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test ends this way")]

use std::fs;
use std::path::{Path, PathBuf};

use pointsman_tokens::{Model, ModelLimits, ServerProfile, Stop};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

const PATH: &str = "/v1/chat/completions";

fn data() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data")
}

fn profile() -> ServerProfile {
    ServerProfile { start_date: Some("2026-01-02".to_owned()), ..ServerProfile::default() }
}

/// The small tokenizer with the special tokens of gpt-oss.
fn model() -> Model {
    let folder = tempfile::tempdir().unwrap();
    let mut tokenizer: Value =
        serde_json::from_slice(&fs::read(data().join("tokenizer.json")).unwrap()).unwrap();
    let added = tokenizer["added_tokens"].as_array_mut().unwrap();
    for (id, content) in ["<|start|>", "<|channel|>", "<|message|>", "<|end|>", "<|call|>"].iter().enumerate()
    {
        added.push(json!({"id": 800 + id, "content": content, "single_word": false, "lstrip": false,
            "rstrip": false, "normalized": false, "special": true}));
    }
    fs::write(folder.path().join("tokenizer.json"), tokenizer.to_string()).unwrap();
    fs::copy(data().join("tokenizer_config.json"), folder.path().join("tokenizer_config.json")).unwrap();
    fs::write(folder.path().join("config.json"), r#"{"architectures":["GptOssForCausalLM"]}"#).unwrap();
    Model::load(folder.path(), profile(), ModelLimits::default()).unwrap()
}

fn cases() -> Vec<Value> {
    serde_json::from_slice(&fs::read(data().join("harmony.json")).unwrap()).unwrap()
}

#[test]
fn chats_with_gpt_oss_are_the_messages_that_the_server_makes() {
    let model = model();
    assert_eq!(model.without_chat(), None);
    let mark = |text: &str| model.encode_whole(text).unwrap();
    let mut wrong = Vec::new();
    for case in cases() {
        let body = case["body"].as_str().unwrap();
        let made = model.prepare(PATH, body.as_bytes(), Stop::NEVER);
        // A text that spells special tokens is compared by `the_real_vocabulary`.
        let pieces = case["pieces"].as_array().unwrap();
        if pieces.iter().filter_map(Value::as_str).any(|text| text.contains("<|")) {
            assert!(made.is_ok());
            continue;
        }
        let ids = |piece: &Value| match piece.as_str() {
            Some(text) => model.encode_whole(text).unwrap(),
            None => mark(piece[0].as_str().unwrap()),
        };
        let wanted: Vec<u32> = pieces.iter().flat_map(ids).collect();
        if made.as_ref().map(|prompts| &prompts.ids[0]) != Ok(&wanted) {
            wrong.push(format!("{body}\n  {}\n  {:?}", case["pieces"], made.err()));
        }
    }
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n"));
}

/// `POINTSMAN_GPT_OSS` names a folder with the files of the real model.
#[test]
fn the_real_vocabulary_gives_the_ids_of_the_server() {
    let Ok(folder) = std::env::var("POINTSMAN_GPT_OSS") else {
        println!("POINTSMAN_GPT_OSS is not set: the real vocabulary was not compared");
        return;
    };
    let model = Model::load(Path::new(&folder), profile(), ModelLimits::default()).unwrap();
    for case in cases() {
        let body = case["body"].as_str().unwrap();
        let ids = &model.prepare(PATH, body.as_bytes(), Stop::NEVER).unwrap().ids[0];
        let bytes: Vec<u8> = ids.iter().flat_map(|id| id.to_le_bytes()).collect();
        let hex = Sha256::digest(&bytes).iter().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"));
        assert_eq!(json!(hex), case["sha256"], "{body}: {ids:?}");
    }
}

#[test]
fn what_is_not_known_of_gpt_oss_is_said() {
    let model = model();
    let with = |more: &str| format!(r#"{{"messages":[{{"role":"user","content":"hi"}}]{more}}}"#);
    let tool = |schema: &str| {
        with(&format!(r#","tools":[{{"type":"function","function":{{"name":"f","parameters":{schema}}}}}]"#))
    };
    for (path, body, reason) in [
        (PATH, with(r#","reasoning_effort":"none""#), "refused"),
        (PATH, with(r#","tools":[]"#), "refused"),
        (PATH, with(r#","truncate_prompt_tokens":5"#), "field"),
        (PATH, with(r#","add_generation_prompt":false"#), "field"),
        (PATH, tool(r#"{"type":"object","properties":{"a":{"oneOf":[{"type":"string"}]}}}"#), "field"),
        (PATH, tool(r#"{"type":"object","properties":{"a":{"type":"number","default":1.5}}}"#), "field"),
        (
            PATH,
            tool(&format!("{}{}{}", r#"{"type":"array","items":"#.repeat(40), "{}", "}".repeat(40))),
            "field",
        ),
        (PATH, r#"{"messages":[{"role":"user","content":[{"type":"image_url"}]}]}"#.to_owned(), "field"),
        ("/v1/messages", with(r#","max_tokens":1"#), "field"),
        ("/v1/responses", r#"{"input":"hi"}"#.to_owned(), "field"),
    ] {
        let made = model.prepare(path, body.as_bytes(), Stop::NEVER).map_err(|why| why.reason());
        assert_eq!(made, Err(reason), "{path} {body}");
    }
    // A completion has the tokens of its text.
    assert!(model.prepare("/v1/completions", br#"{"prompt":"hi"}"#, Stop::NEVER).is_ok());
}
