//! Dry runs, wired: a document becomes a request, and the decision a document.

use std::sync::Arc;

use arc_swap::ArcSwap;
use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::admin::DryRunner;
use crate::director::{Ask, BodySeen, Director, DryRun, SubsetHint};
use crate::prefix::ToldPrompt;
use crate::request::Headers;

/// Most tokens of a prompt that is told by its hashes.
const MOST_TOKENS: u64 = 4 << 20;
/// Bytes that stand for a token where text is counted.
const TOKEN_BYTES: usize = 4;

/// A request as a document.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Described {
    /// Path with which it would come.
    #[serde(default)]
    path: Option<String>,
    /// Headers by name.
    #[serde(default)]
    headers: Map<String, Value>,
    /// The body: a document, or text as it stands.
    #[serde(default)]
    body: Option<Value>,
    /// Endpoints that the proxy would allow, as `ip:port` or `ip`.
    #[serde(default)]
    subset: Option<Vec<String>>,
    /// Model, where the prompt is told by its hashes instead of a body.
    #[serde(default)]
    model: Option<String>,
    /// Tokens of that prompt.
    #[serde(default)]
    prompt_tokens: Option<u64>,
    /// Hashes of the blocks of that prompt, in order.
    #[serde(default)]
    prefix_hashes: Option<Vec<Value>>,
}

/// Decides for nobody, with the director that serves then.
pub(super) fn runner(director: &Arc<ArcSwap<Director>>) -> DryRunner {
    let director = Arc::clone(director);
    Arc::new(move |document: Bytes| {
        let director = director.load_full();
        Box::pin(async move {
            let (ask, told) = ask(&document)?;
            answer(director.dry_run(ask, told).await)
        })
    })
}

fn ask(document: &[u8]) -> Result<(Ask, Option<ToldPrompt>), String> {
    let expected = |error: &dyn std::fmt::Display| {
        format!(
            "expected {{path, headers, body}} or {{model, prompt_tokens, prefix_hashes}} in JSON, with subset if need \
             be: {error}"
        )
    };
    // An array would be read as the fields in their order.
    if document.trim_ascii_start().first() == Some(&b'[') {
        return Err(expected(&"got an array"));
    }
    let mut described: Described = serde_json::from_slice(document).map_err(|error| expected(&error))?;
    let told = described.told()?;
    let body = match described.body {
        None | Some(Value::Null) => Bytes::new(),
        Some(Value::String(text)) => text.into(),
        Some(document) => document.to_string().into(),
    };
    let path = described.path.unwrap_or_else(|| usual_path(&body).to_owned());
    let mut headers = Headers::new();
    headers.push(Bytes::from_static(b":path"), Bytes::from(path));
    headers.push(Bytes::from_static(b":method"), Bytes::from_static(b"POST"));
    for (name, value) in described.headers {
        let values = match value {
            Value::Array(values) => values,
            value => vec![value],
        };
        for value in values {
            let Value::String(text) = value else {
                return Err(format!("headers.{name}: got {value}, expected text or a list of texts"));
            };
            headers.push(Bytes::from(name.to_ascii_lowercase()), Bytes::from(text));
        }
    }
    let hint = described.subset.map_or(SubsetHint::Absent, SubsetHint::Addresses);
    let body_seen = if body.is_empty() { BodySeen::None } else { BodySeen::Whole };
    Ok((Ask { headers, body, body_seen, hint }, told))
}

impl Described {
    /// The prompt that is told by its hashes, if it is. A body of the prompt's size is put in the place of the text,
    /// because some plugins go by the size.
    fn told(&mut self) -> Result<Option<ToldPrompt>, String> {
        let given = (self.model.take(), self.prompt_tokens, self.prefix_hashes.take());
        let (model, tokens, hashes) = match given {
            (None, None, None) => return Ok(None),
            (Some(model), Some(tokens), hashes) => (model, tokens, hashes.unwrap_or_default()),
            _ => return Err("model and prompt_tokens: expected both, or a body".to_owned()),
        };
        if self.body.is_some() {
            return Err("body: expected none beside model, prompt_tokens and prefix_hashes".to_owned());
        }
        if tokens > MOST_TOKENS {
            return Err(format!("prompt_tokens: got {tokens}, expected at most {MOST_TOKENS}"));
        }
        let numbered = hashes.iter().enumerate();
        let hashes = numbered.map(|(at, value)| hash(value).ok_or_else(|| not_a_hash(at, value)));
        let hashes = hashes.collect::<Result<_, String>>()?;
        let prompt = "0".repeat(tokens as usize * TOKEN_BYTES);
        self.body = Some(json!({"model": model, "prompt": prompt}));
        Ok(Some(ToldPrompt { tokens, hashes }))
    }
}

/// A hash: a number, or text with 16 hexadecimal digits or a decimal number, because many programs round large
/// numbers.
fn hash(value: &Value) -> Option<u64> {
    match value {
        Value::Number(number) => number.as_u64(),
        Value::String(text) if text.len() == 16 => u64::from_str_radix(text, 16).ok(),
        Value::String(text) => text.parse().ok(),
        _ => None,
    }
}

fn not_a_hash(at: usize, value: &Value) -> String {
    format!(
        "prefix_hashes[{at}]: got {value}, expected a number from 0 to 18446744073709551615, the same as text, or 16 \
         hexadecimal digits"
    )
}

/// The path of a body where none is given.
fn usual_path(body: &[u8]) -> &'static str {
    let chat = serde_json::from_slice::<Value>(body).is_ok_and(|body| body.get("messages").is_some());
    if chat { "/v1/chat/completions" } else { "/v1/completions" }
}

/// The record, and beside it what a router of models asks for.
fn answer(run: DryRun) -> Result<Value, String> {
    let DryRun { view, would_wait, queue_wait } = run;
    let cached = view.outcome.predicted_cached_tokens.unwrap_or(0).min(view.prompt.tokens);
    let prefill = view.prompt.tokens - cached;
    let mut answer = serde_json::to_value(view).map_err(|error| error.to_string())?;
    answer["outcome"]["state"] = if answer["refusal"].is_null() { "dry_run" } else { "refused" }.into();
    answer["cached_tokens"] = json!(cached);
    answer["prefill_tokens"] = json!(prefill);
    answer["would_wait"] = json!(would_wait);
    answer["queue_wait_estimate_ms"] = json!(queue_wait.as_millis() as u64);
    if answer["endpoint"].is_null() {
        answer["endpoint"] = Value::Null;
    }
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_becomes_a_request_and_what_is_wrong_with_it_is_named() {
        let text = r#"{"body":{"messages":[]},"headers":{"X-A":["1","2"]},"subset":["10.0.0.1"]}"#;
        let (asked, told) = ask(text.as_bytes()).unwrap();
        assert_eq!(told, None);
        assert_eq!(asked.headers.text(":path"), Some("/v1/chat/completions"));
        assert_eq!(asked.headers.first("x-a").map(AsRef::as_ref), Some(b"1".as_slice()));
        assert_eq!(asked.body, r#"{"messages":[]}"#);
        assert_eq!(asked.hint, SubsetHint::Addresses(vec!["10.0.0.1".into()]));
        let (plain, _) = ask(br#"{"path":"/v1/models"}"#).unwrap();
        assert_eq!((plain.body_seen, plain.hint), (BodySeen::None, SubsetHint::Absent));
        for (text, part) in [
            ("[]", "{path, headers, body}"),
            (r#"{"modle":"m"}"#, "modle"),
            (r#"{"headers":{"a":1}}"#, "headers.a: got 1"),
            (r#"{"prefix_hashes":[1]}"#, "model and prompt_tokens"),
            (r#"{"model":"m","prompt_tokens":1,"prefix_hashes":[-1]}"#, "prefix_hashes[0]: got -1"),
            (r#"{"model":"m","prompt_tokens":99999999}"#, "prompt_tokens: got 99999999"),
            (r#"{"model":"m","prompt_tokens":1,"body":{}}"#, "body: expected none"),
        ] {
            let error = ask(text.as_bytes()).unwrap_err();
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn a_prompt_may_be_told_by_its_hashes() {
        let text = r#"{"model":"m","prompt_tokens":80,
            "prefix_hashes":[7,"18446744073709551615","00000000000000ff"],"headers":{"x-a":"1"}}"#;
        let (asked, told) = ask(text.as_bytes()).unwrap();
        assert_eq!(told, Some(ToldPrompt { tokens: 80, hashes: vec![7, u64::MAX, 255] }));
        let body: Value = serde_json::from_slice(&asked.body).unwrap();
        assert_eq!((body["model"].as_str(), body["prompt"].as_str().map(str::len)), (Some("m"), Some(320)));
        assert_eq!(asked.headers.text(":path"), Some("/v1/completions"));
    }
}
