//! One message of a conversation, in the form that templates get.

use std::sync::Arc;

use minijinja::Value;

use crate::json::{Json, Map, present};
use crate::profile::ServerProfile;
use crate::template::{ContentFormat, Dict, from_json};
use crate::unsupported::Unsupported;

/// The content of a message.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Content {
    /// The content is one text.
    Text(Arc<str>),
    /// The content is a list of parts, all of which are text.
    Parts(Vec<Arc<str>>),
}

/// The source of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// A client sent the message.
    Client,
    /// The message was converted from another API, so the arguments of its calls are parsed already.
    Converted,
    /// Items of the Responses API: a call's name comes before its arguments.
    Items,
}

/// A message.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Message {
    pub(super) role: Arc<str>,
    pub(super) content: Content,
    /// The tool calls of an assistant, with parsed arguments.
    tool_calls: Option<Json>,
    reasoning: Option<Arc<str>>,
    tool_call_id: Option<Json>,
    name: Option<Arc<str>>,
    /// The tools of a developer message. The variable is set even if the value is `null`.
    pub(super) tools: Option<Json>,
}

/// The roles that have a form of their own.
const ROLES: [&str; 6] = ["system", "developer", "user", "assistant", "tool", "function"];

fn refused(reason: &'static str) -> Unsupported {
    Unsupported::refused("messages", reason)
}

impl Content {
    /// The text of the message, with parts joined by newlines.
    pub(super) fn joined(&self) -> String {
        match self {
            Self::Text(text) => text.to_string(),
            Self::Parts(parts) => join(parts),
        }
    }
}

/// Joins the texts that are not empty, with newlines.
fn join(parts: &[Arc<str>]) -> String {
    let filled: Vec<&str> = parts.iter().map(|part| &**part).filter(|part| !part.is_empty()).collect();
    filled.join("\n")
}

impl Message {
    /// Makes a message with only a role and a content.
    pub(super) fn plain(role: &str, content: Content) -> Self {
        let role = Arc::from(role);
        Self { role, content, tool_calls: None, reasoning: None, tool_call_id: None, name: None, tools: None }
    }

    /// Reads a message of a request.
    pub(super) fn read(
        json: &Json,
        format: ContentFormat,
        origin: Origin,
        profile: &ServerProfile,
    ) -> Result<Self, Unsupported> {
        let map = json.map().ok_or_else(|| refused("has an item that is no object"))?;
        let role =
            map.get("role").and_then(Json::text).ok_or_else(|| refused("has a message without role"))?;
        let mut parts = parts(map, role)?;
        if &**role == "system" {
            parts = without_billing(parts, profile);
        }
        let whole = matches!(map.get("content"), Some(Json::List(_)));
        let content = match format {
            ContentFormat::Text => Content::Text(Arc::from(join(&parts))),
            // The server joins the parts of a tool's answer in either form.
            ContentFormat::Parts if &**role == "tool" && whole => Content::Text(Arc::from(join(&parts))),
            ContentFormat::Parts => Content::Parts(parts),
        };
        let mut message = Self::plain(role, content);
        match &**role {
            "assistant" => {
                message.tool_calls = tool_calls(map, origin)?;
                message.reasoning = reasoning(map)?;
            }
            "tool" => message.tool_call_id = map.get("tool_call_id").cloned(),
            "developer" => message.tools = Some(map.get("tools").cloned().unwrap_or(Json::Null)),
            _ => {}
        }
        message.name = map.get("name").and_then(Json::text).cloned();
        Ok(message)
    }

    /// The value of the message for templates.
    pub(super) fn value(&self) -> Value {
        let mut dict = Dict::default();
        dict.set("role", Value::from(Arc::clone(&self.role)));
        dict.set(
            "content",
            match &self.content {
                Content::Text(text) => Value::from(Arc::clone(text)),
                Content::Parts(parts) => Value::from(parts.iter().map(part_value).collect::<Vec<_>>()),
            },
        );
        if let Some(calls) = &self.tool_calls {
            dict.set("tool_calls", from_json(calls));
        }
        if let Some(reasoning) = &self.reasoning {
            dict.set("reasoning", Value::from(Arc::clone(reasoning)));
            dict.set("reasoning_content", Value::from(Arc::clone(reasoning)));
        }
        if let Some(id) = &self.tool_call_id {
            dict.set("tool_call_id", from_json(id));
        }
        if let Some(name) = &self.name {
            dict.set("name", Value::from(Arc::clone(name)));
        }
        if let Some(tools) = &self.tools {
            dict.set("tools", from_json(tools));
        }
        Value::from_object(dict)
    }
}

fn part_value(text: &Arc<str>) -> Value {
    let mut part = Dict::default();
    part.set("type", Value::from("text"));
    part.set("text", Value::from(Arc::clone(text)));
    Value::from_object(part)
}

/// The texts of a message's parts.
fn parts(message: &Map, role: &str) -> Result<Vec<Arc<str>>, Unsupported> {
    match message.get("content") {
        None | Some(Json::Null) if role == "user" && message.contains_key("content") => {
            Err(refused("has a user message whose content is null"))
        }
        None | Some(Json::Null) => Ok(Vec::new()),
        Some(Json::Text(text)) => Ok(vec![Arc::clone(text)]),
        Some(Json::List(items)) => {
            let mut parts = Vec::with_capacity(items.len());
            for item in items {
                match item {
                    Json::Text(text) if !ROLES.contains(&role) => parts.push(Arc::clone(text)),
                    Json::Map(part) => parts.extend(part_text(part)?),
                    _ => return Err(refused("has a part of content that is no object")),
                }
            }
            Ok(parts)
        }
        Some(_) => Err(refused("has content that is neither text nor a list")),
    }
}

/// The text of a part; `None` for a part without text.
fn part_text(part: &Map) -> Result<Option<Arc<str>>, Unsupported> {
    let kind =
        part.get("type").and_then(Json::text).ok_or_else(|| refused("has a part of content without type"))?;
    let field = match &**kind {
        "text" | "input_text" | "output_text" => "text",
        "refusal" => "refusal",
        "thinking" => "thinking",
        "image_url" | "input_image" | "image_pil" | "image_embeds" => {
            return Err(Unsupported::Media("images"));
        }
        "audio_url" | "input_audio" | "audio_embeds" => return Err(Unsupported::Media("sounds")),
        "video_url" => return Err(Unsupported::Media("videos")),
        _ => return Err(Unsupported::field("messages", "has a part of content of a type that is not known")),
    };
    match part.get(field) {
        Some(Json::Text(text)) => Ok(Some(Arc::clone(text))),
        Some(Json::Null) => Ok(None),
        _ => Err(refused("has a part of content without its text")),
    }
}

/// The first version that removes the billing line from system messages.
const STRIPS_BILLING: u32 = 32;

/// Takes the line out of the parts of a system message; a part without any other line goes.
fn without_billing(parts: Vec<Arc<str>>, profile: &ServerProfile) -> Vec<Arc<str>> {
    if profile.version < STRIPS_BILLING {
        return parts;
    }
    let rest = |part: Arc<str>| {
        if !part.starts_with(super::anthropic::BILLING) {
            return Some(part);
        }
        part.split_once('\n').map(|(_, rest)| rest).filter(|rest| !rest.is_empty()).map(Arc::from)
    };
    parts.into_iter().filter_map(rest).collect()
}

/// The reasoning of an assistant. If both names are present, the newer one counts.
pub(super) fn reasoning(message: &Map) -> Result<Option<Arc<str>>, Unsupported> {
    let found = present(message, "reasoning").or_else(|| present(message, "reasoning_content"));
    match found {
        None => Ok(None),
        Some(Json::Text(text)) => Ok(Some(Arc::clone(text))),
        Some(_) => Err(refused("has reasoning that is no text")),
    }
}

/// The tool calls of an assistant: the known fields in the server's order, with parsed arguments.
fn tool_calls(message: &Map, origin: Origin) -> Result<Option<Json>, Unsupported> {
    let Some(calls) = present(message, "tool_calls") else { return Ok(None) };
    let calls = calls.list().ok_or_else(|| refused("has tool_calls that are no list"))?;
    if calls.is_empty() {
        return Ok(None);
    }
    Ok(Some(Json::List(calls.iter().map(|call| tool_call(call, origin)).collect::<Result<_, _>>()?)))
}

fn tool_call(call: &Json, origin: Origin) -> Result<Json, Unsupported> {
    let parsed_already = origin == Origin::Converted;
    let wrong = || refused("has a tool call without id, type function, or function with name and arguments");
    let call = call.map().ok_or_else(wrong)?;
    let id = call.get("id").and_then(Json::text).ok_or_else(wrong)?;
    match call.get("type").and_then(Json::text).map(|kind| &**kind) {
        Some("function") => {}
        Some("custom") => return Err(Unsupported::field("messages", "has a call of a custom tool")),
        _ => return Err(wrong()),
    }
    let function = call.get("function").and_then(Json::map).ok_or_else(wrong)?;
    let name = function.get("name").and_then(Json::text).ok_or_else(wrong)?;
    let arguments = match function.get("arguments") {
        Some(Json::Text(arguments)) => parsed(arguments)?,
        // Only a conversion from another API gives a map. The server writes it as JSON and parses it again, with the
        // same result.
        Some(arguments @ Json::Map(_)) if parsed_already => arguments.clone(),
        Some(_) if parsed_already => Json::Map(Map::new()),
        _ => return Err(wrong()),
    };
    let text = |text: &Arc<str>| Json::Text(Arc::clone(text));
    let mut function = [("arguments", arguments), ("name", text(name))];
    if origin == Origin::Items {
        function.reverse();
    }
    let call = [("id", text(id)), ("function", object(function)), ("type", Json::from_text("function"))];
    Ok(object(call))
}

fn object<const N: usize>(entries: [(&str, Json); N]) -> Json {
    Json::Map(entries.into_iter().map(|(key, value)| (Arc::from(key), value)).collect())
}

/// The arguments of a call. A value that is not an object counts as an empty object.
fn parsed(arguments: &str) -> Result<Json, Unsupported> {
    match Json::parse(arguments.as_bytes()) {
        Ok(Json::Map(map)) => Ok(Json::Map(map)),
        Ok(_) | Err(crate::json::JsonError::Syntax(_)) => Ok(Json::Map(Map::new())),
        Err(error) => Err(error.into()),
    }
}
