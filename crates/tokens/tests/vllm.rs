//! Requests against what a real vLLM made of them; `data/vllm.json` was recorded by `tests/vllm/vectors.py`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test ends this way")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use pointsman_tokens::{Json, Model, ModelLimits, ServerProfile, Stop, Unsupported};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

fn data() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data")
}

/// The servers that were asked, by name: `SERVERS` of the script.
fn models() -> BTreeMap<&'static str, Model> {
    let profile = |template: &str, context| ServerProfile {
        chat_template: Some(fs::read_to_string(data().join(format!("templates/{template}.jinja"))).unwrap()),
        max_model_len: Some(context),
        ..ServerProfile::default()
    };
    let defaults = ServerProfile {
        exclude_tools_when_none: true,
        default_kwargs: Json::parse(br#"{"enable_thinking":false}"#).unwrap(),
        ..profile("words", 4096)
    };
    let load = |profile| Model::load(&data(), profile, ModelLimits::default()).unwrap();
    BTreeMap::from([
        ("words", load(profile("words", 1_500_000))),
        ("parts", load(profile("parts", 4096))),
        ("defaults", load(defaults)),
    ])
}

fn cases() -> Vec<Value> {
    let file: Value = serde_json::from_slice(&fs::read(data().join("vllm.json")).unwrap()).unwrap();
    file["cases"].as_array().unwrap().clone()
}

/// A long text, made as the script makes it.
fn lines(first: u64, count: u64) -> String {
    (first..first + count).fold(String::new(), |text, n| {
        text + &format!("line {n} of the report: {} units\n", n * 7919 % 10007)
    })
}

fn body(case: &Value) -> String {
    let Some(counts) = case["lines"].as_array() else { return case["body"].as_str().unwrap().to_owned() };
    let mut first = 0;
    let messages: Vec<Value> = counts
        .iter()
        .enumerate()
        .map(|(at, count)| {
            let count = count.as_u64().unwrap();
            let content = lines(first, count);
            first += count;
            let role = if at.is_multiple_of(2) { "user" } else { "assistant" };
            json!({"role": role, "content": content})
        })
        .collect();
    json!({"model": "m", "messages": messages}).to_string()
}

/// Cases that vLLM answers and that are left to the approximate index, each for this reason.
fn left_out(case: &Value) -> Option<&'static str> {
    let body = case["body"].as_str().unwrap_or_default();
    LEFT_OUT.iter().find(|(part, _)| body.contains(part)).map(|(_, reason)| *reason)
}

const LEFT_OUT: [(&str, &str); 2] = [
    // Python's reader of JSON takes it, and prints it.
    (r#"{\"a\": NaN}"#, "body"),
    // The render endpoint does not look at the vocabulary; the engine, behind it, does.
    ("99999", "refused"),
];

fn wrong(case: &Value, made: &Result<Vec<Vec<u32>>, Unsupported>) -> Option<String> {
    let said = |made: &dyn std::fmt::Debug, wanted: &Value| {
        let what = format!("{} {} {} {}", case["vector"], case["server"], case["path"], case["body"]);
        let cut = |text: String| text.chars().take(600).collect::<String>();
        Some(format!(
            "{}\n  vLLM: {}\n  here: {}",
            cut(what),
            cut(wanted.to_string()),
            cut(format!("{made:?}"))
        ))
    };
    if let Some(reason) = left_out(case) {
        let why = made.as_ref().map_err(Unsupported::reason);
        return if why == Err(reason) { None } else { said(&why, &json!(reason)) };
    }
    let ids = match made {
        // What the server refuses never reaches its cache: it is all the same what is made of it, unless it is wrong
        // for sure.
        Err(why) => return if case["status"].is_u64() { None } else { said(why, &case["ids"]) },
        Ok(ids) => ids,
    };
    if let Some(digest) = case["sha256"].as_str() {
        let bytes: Vec<u8> = ids[0].iter().flat_map(|id| id.to_le_bytes()).collect();
        let hex = Sha256::digest(&bytes).iter().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"));
        let same = ids.len() == 1 && json!(ids[0].len()) == case["count"] && hex == digest;
        return if same { None } else { said(&ids[0].len(), &case["count"]) };
    }
    if json!(ids) == case["ids"] { None } else { said(ids, &case["ids"]) }
}

#[test]
fn requests_have_the_ids_that_a_real_server_made_of_them() {
    let (models, mut seen, mut faults) = (models(), BTreeSet::new(), Vec::new());
    for case in cases() {
        let model = &models[case["server"].as_str().unwrap()];
        seen.insert(case["vector"].as_u64().unwrap());
        let body = body(&case);
        // The second time segments come from the cache.
        for _ in 0..2 {
            let made = model.prepare(case["path"].as_str().unwrap(), body.as_bytes(), Stop::NEVER);
            faults.extend(wrong(&case, &made.map(|prompts| prompts.ids)));
        }
    }
    faults.dedup();
    assert!(faults.is_empty(), "{} differ:\n{}", faults.len(), faults.join("\n"));
    // 42 is that of gpt-oss.
    let missing: Vec<u64> = (1..=45).filter(|vector| *vector != 42 && !seen.contains(vector)).collect();
    assert!(missing.is_empty(), "no case for the vectors {missing:?}");
}
