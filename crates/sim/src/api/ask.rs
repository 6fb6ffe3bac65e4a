//! Reads a request body as a prompt and limits.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::error::ApiError;
use super::handoff::{Handoff, Members, note_media};
use super::members::LastMembers;
use crate::config::{Role, SimConfig};
use crate::engine::{Fetch, Prompt, Submission, tokens};

/// The tokens of an answer if the request sets no limit.
const DEFAULT_TOKENS: u32 = 16;

/// The APIs that ask for a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// `/v1/completions`
    Completions,
    /// `/v1/chat/completions`
    Chat,
    /// `/v1/responses`
    Responses,
    /// `/v1/messages`
    Messages,
}

/// A request for a text.
#[derive(Debug, Clone)]
pub(crate) struct Ask {
    pub(crate) dialect: Dialect,
    /// The model name that the client asked for.
    pub(crate) model: String,
    pub(crate) submission: Submission,
    pub(crate) stream: bool,
    /// True if a stream ends with the usage.
    pub(crate) include_usage: bool,
    /// What the request asks of the other stages of disaggregated serving.
    pub(crate) handoff: Handoff,
}

/// The fields of all APIs that the server uses. Other fields are ignored.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Body {
    model: Option<String>,
    prompt: Option<Value>,
    messages: Option<Vec<LastMembers<Message>>>,
    input: Option<Value>,
    instructions: Option<String>,
    system: Option<Value>,
    tools: Option<Box<RawValue>>,
    max_tokens: Option<i64>,
    max_completion_tokens: Option<i64>,
    max_output_tokens: Option<i64>,
    n: Option<i64>,
    stream: Option<bool>,
    stream_options: Option<LastMembers<StreamOptions>>,
    kv_transfer_params: Option<Value>,
    bootstrap_host: Option<Value>,
    bootstrap_room: Option<Value>,
    cache_hit_threshold: Option<Value>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct StreamOptions {
    include_usage: Option<bool>,
}

#[derive(Debug, Deserialize)]
struct Message {
    role: String,
    #[serde(default)]
    content: Value,
}

/// Reads a request for a text.
pub(crate) fn ask(dialect: Dialect, body: &[u8], config: &SimConfig) -> Result<Ask, ApiError> {
    let body = parse(body)?;
    let (model, adapter) = resolve_model(body.model.as_deref(), config)?;
    if body.n.is_some_and(|n| n != 1) {
        return Err(ApiError::bad_request("only n=1 is simulated"));
    }
    let mut prompt = Vec::new();
    match dialect {
        Dialect::Completions => {
            let value = body.prompt.as_ref().ok_or_else(|| ApiError::bad_request("prompt is missing"))?;
            push_prompt(value, &mut prompt)?;
        }
        Dialect::Chat | Dialect::Messages => push_chat(&body, &mut prompt)?,
        Dialect::Responses => {
            if let Some(instructions) = &body.instructions {
                push_message("system", instructions, &mut prompt);
            }
            let input = body.input.as_ref().ok_or_else(|| ApiError::bad_request("input is missing"))?;
            push_message("user", &text_of(input), &mut prompt);
            tokens::push_mark("assistant", &mut prompt);
        }
    }
    let handoff = handoff(&body, config.role)?;
    let limit = body.max_completion_tokens.or(body.max_output_tokens).or(body.max_tokens);
    let max_tokens = match limit {
        None => DEFAULT_TOKENS,
        Some(limit) => u32::try_from(limit)
            .ok()
            .filter(|limit| *limit > 0)
            .ok_or_else(|| ApiError::bad_request(format!("max_tokens must be at least 1, got {limit}")))?,
    };
    let submission = Submission {
        answer_seed: tokens::answer_seed(&prompt, config.seed),
        prompt: Prompt::Tokens(prompt),
        adapter,
        max_tokens: if handoff.only_prefills { 1 } else { max_tokens },
        fetch: handoff.fetch,
        // A completion has a default limit. An answer of another API without a limit ends by itself.
        stops_by_itself: limit.is_none() && dialect != Dialect::Completions,
    };
    Ok(Ask {
        dialect,
        model,
        submission,
        stream: body.stream.unwrap_or_default(),
        include_usage: body.stream_options.and_then(|options| options.0.include_usage).unwrap_or_default(),
        handoff,
    })
}

fn handoff(body: &Body, role: Option<Role>) -> Result<Handoff, ApiError> {
    let members = Members {
        kv_transfer_params: body.kv_transfer_params.as_ref(),
        bootstrap_host: body.bootstrap_host.as_ref(),
        bootstrap_room: body.bootstrap_room.as_ref(),
        cache_hit_threshold: body.cache_hit_threshold.as_ref(),
    };
    let mut handoff = Handoff::read(role, &members)?;
    if role == Some(Role::Encode) {
        for LastMembers(message) in body.messages.iter().flatten() {
            note_media(&message.content, &mut handoff.media);
        }
        handoff.media.sort_unstable();
        handoff.media.dedup();
    }
    Ok(handoff)
}

/// The texts to embed, as one prompt for the engine, with the number of tokens of each text.
#[derive(Debug)]
pub(crate) struct EmbeddingAsk {
    pub(crate) model: String,
    pub(crate) inputs: Vec<Vec<u32>>,
    pub(crate) submission: Submission,
}

/// Reads a request for embeddings.
pub(crate) fn embeddings(body: &[u8], config: &SimConfig) -> Result<EmbeddingAsk, ApiError> {
    let body = parse(body)?;
    let (model, adapter) = resolve_model(body.model.as_deref(), config)?;
    let input = body.input.ok_or_else(|| ApiError::bad_request("input is missing"))?;
    let several = matches!(&input, Value::Array(items) if !items.iter().all(Value::is_number));
    let texts = if let (true, Value::Array(items)) = (several, &input) {
        items.as_slice()
    } else {
        std::slice::from_ref(&input)
    };
    let mut inputs = Vec::with_capacity(texts.len());
    for text in texts {
        let mut tokens = Vec::new();
        push_prompt(text, &mut tokens)?;
        inputs.push(tokens);
    }
    let prompt = Prompt::Tokens(inputs.concat());
    let submission = Submission {
        prompt,
        adapter,
        max_tokens: 1,
        stops_by_itself: true,
        answer_seed: 0,
        fetch: Fetch::Nothing,
    };
    Ok(EmbeddingAsk { model, inputs, submission })
}

/// The tokens of a prompt or a chat.
pub(crate) fn tokenize(body: &[u8], config: &SimConfig) -> Result<Vec<u32>, ApiError> {
    let body = parse(body)?;
    resolve_model(body.model.as_deref(), config)?;
    let mut tokens = Vec::new();
    match &body.prompt {
        Some(prompt) => push_prompt(prompt, &mut tokens)?,
        None => push_chat(&body, &mut tokens)?,
    }
    Ok(tokens)
}

fn parse(body: &[u8]) -> Result<Body, ApiError> {
    serde_json::from_slice(body)
        .map(|LastMembers(body)| body)
        .map_err(|error| ApiError::bad_request(format!("invalid request body: {error}")))
}

/// The model name for the answer, and the adapter behind the name. A request without a name gets the first served
/// model.
fn resolve_model(asked: Option<&str>, config: &SimConfig) -> Result<(String, Option<Arc<str>>), ApiError> {
    let name = asked.unwrap_or_else(|| config.model_name());
    if config.models.iter().any(|model| model == name) {
        Ok((name.to_owned(), None))
    } else if config.adapters.iter().any(|adapter| adapter == name) {
        Ok((name.to_owned(), Some(Arc::from(name))))
    } else {
        Err(ApiError::unknown_model(name))
    }
}

/// Appends the tokens of a prompt: a text, a list with one text, or a list of token ids.
fn push_prompt(prompt: &Value, out: &mut Vec<u32>) -> Result<(), ApiError> {
    match prompt {
        Value::String(text) => tokens::push_text(text, out),
        Value::Array(items) => match items.as_slice() {
            [one @ (Value::String(_) | Value::Array(_))] => return push_prompt(one, out),
            ids => {
                for id in ids {
                    let id = id.as_u64().ok_or_else(|| {
                        ApiError::bad_request("a prompt is one text or one list of token ids")
                    })?;
                    out.push(id as u32);
                }
            }
        },
        _ => return Err(ApiError::bad_request("a prompt is one text or one list of token ids")),
    }
    Ok(())
}

fn push_chat(body: &Body, out: &mut Vec<u32>) -> Result<(), ApiError> {
    let messages = body.messages.as_ref().ok_or_else(|| ApiError::bad_request("messages is missing"))?;
    if let Some(tools) = &body.tools {
        push_message("tools", tools.get(), out);
    }
    if let Some(system) = &body.system {
        push_message("system", &text_of(system), out);
    }
    for LastMembers(message) in messages {
        push_message(&message.role, &text_of(&message.content), out);
    }
    tokens::push_mark("assistant", out);
    Ok(())
}

/// The space before the text gives an answer, which starts with a space, the same tokens when it comes back in a
/// prompt.
fn push_message(role: &str, text: &str, out: &mut Vec<u32>) {
    tokens::push_mark(role, out);
    tokens::push_text(&format!(" {text}"), out);
    tokens::push_mark("end", out);
}

/// The text of a content: the text itself, the texts of its parts, or the JSON of any other content.
fn text_of(content: &Value) -> String {
    match content {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Array(parts) => parts.iter().map(text_of).collect(),
        Value::Object(part) => match (part.get("text"), part.get("content")) {
            (Some(Value::String(text)), _) => text.clone(),
            (_, Some(content)) => text_of(content),
            _ => content.to_string(),
        },
        other => other.to_string(),
    }
}
