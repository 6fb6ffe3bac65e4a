//! Turns a chat into the text that the server makes of it, and into token ids.

mod anthropic;
mod continued;
mod developer;
mod harmony;
mod message;
mod responses;
mod tools;
mod variables;

use crate::encoder::Stop;
use crate::json::{Json, Map, present};
use crate::model::Model;
use crate::request::{Truncation, flag, given_ids};
use crate::template::from_json;
use crate::unsupported::Unsupported;

pub(crate) use harmony::Marks;
use message::{Message, Origin};

/// The longest text, in bytes, that any chat may be rendered to. A long body allows more.
const MOST_TEXT: usize = 1 << 20;
/// A text may be this many times as long as the body.
const TEXT_PER_BODY: usize = 8;

/// The token ids of a chat in OpenAI's form.
pub(crate) fn prompt(
    model: &Model,
    body: &Map,
    bytes: usize,
    stop: Stop<'_>,
) -> Result<Vec<u32>, Unsupported> {
    chat_ids(model, body, Origin::Client, bytes, stop)
}

fn chat_ids(
    model: &Model,
    body: &Map,
    origin: Origin,
    bytes: usize,
    stop: Stop<'_>,
) -> Result<Vec<u32>, Unsupported> {
    if let Some(given) = handed_over(body)? {
        return given_ids(model, Some(given), "kv_transfer_params.prompt_token_ids");
    }
    if let Some(marks) = model.harmony {
        return match origin {
            Origin::Client => harmony::prompt(model, marks, body, stop),
            Origin::Converted | Origin::Items => {
                Err(Unsupported::field("messages", "what gpt-oss is shown in this API is not known"))
            }
        };
    }
    let limited = ["max_tokens", "max_completion_tokens"].iter().any(|field| present(body, field).is_some());
    let truncation = Truncation::of(body, &model.profile, limited)?;
    let text = text(model, body, origin, bytes, stop)?;
    let special = flag(body, "add_special_tokens", false)?;
    truncation.encode(&model.encoder, &text, special, stop)
}

/// The token ids of a chat in Anthropic's form.
pub(crate) fn anthropic_prompt(
    model: &Model,
    body: &Map,
    bytes: usize,
    stop: Stop<'_>,
) -> Result<Vec<u32>, Unsupported> {
    chat_ids(model, &anthropic::to_chat(body)?, Origin::Converted, bytes, stop)
}

/// The token ids of a request to the Responses API.
pub(crate) fn responses_prompt(
    model: &Model,
    body: &Map,
    bytes: usize,
    stop: Stop<'_>,
) -> Result<Vec<u32>, Unsupported> {
    chat_ids(model, &responses::to_chat(body)?, Origin::Items, bytes, stop)
}

/// The token ids that a sidecar copied from another server's answer. They replace the messages.
fn handed_over(body: &Map) -> Result<Option<&Json>, Unsupported> {
    let given =
        present(body, "kv_transfer_params").and_then(Json::map).and_then(|map| map.get("prompt_token_ids"));
    let Some(given) = given.filter(|given| given.list().is_some_and(|ids| !ids.is_empty())) else {
        return Ok(None);
    };
    Ok(if flag(body, "echo", false)? { None } else { Some(given) })
}

/// The text of a chat.
fn text(
    model: &Model,
    body: &Map,
    origin: Origin,
    bytes: usize,
    stop: Stop<'_>,
) -> Result<String, Unsupported> {
    if let Some(reason) = model.no_chat {
        return Err(Unsupported::field("messages", reason));
    }
    if present(body, "chat_template").is_some() {
        return Err(Unsupported::field("chat_template", "a template of the request is not used"));
    }
    let tools = tools::of(body, &model.profile)?;
    let template = if tools.is_some() { &model.templates.tools } else { &model.templates.plain };
    let template = template.as_ref().ok_or(Unsupported::NoTemplate)?;
    let list = body.get("messages").and_then(Json::list);
    let list = list.filter(|list| !list.is_empty());
    let list = list.ok_or_else(|| Unsupported::refused("messages", "is no list of messages"))?;
    let mut messages = Vec::with_capacity(list.len());
    for json in list {
        messages.push(Message::read(json, template.format, origin, &model.profile)?);
    }
    if !template.knows_developer {
        developer::rewrite(&mut messages);
    }
    let continued = flag(body, "continue_final_message", false)?;
    let mut variables = variables::of(model, body)?;
    if continued {
        continued::mark(&mut messages)?;
    }
    let values: Vec<minijinja::Value> = messages.iter().map(Message::value).collect();
    variables.set_default("messages", minijinja::Value::from(values));
    variables.set_default("tools", tools.as_ref().map_or_else(|| minijinja::Value::from(()), from_json));
    let most = MOST_TEXT.saturating_add(bytes.saturating_mul(TEXT_PER_BODY));
    let text = template.render(variables.into_context(), bytes, most, stop)?;
    if continued { continued::cut(text) } else { Ok(text) }
}
