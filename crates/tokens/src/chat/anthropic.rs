//! Turns a request to Anthropic's Messages API into a chat in OpenAI's form.

use std::sync::Arc;

use crate::json::{Json, Map, present};
use crate::unsupported::Unsupported;

/// The beginning of a line that says whom a client bills.
pub(super) const BILLING: &str = "x-anthropic-billing-header";

fn refused(reason: &'static str) -> Unsupported {
    Unsupported::refused("messages", reason)
}

fn set(map: &mut Map, key: &str, value: Json) {
    map.insert(Arc::from(key), value);
}

fn object<const N: usize>(entries: [(&str, Json); N]) -> Map {
    entries.into_iter().map(|(key, value)| (Arc::from(key), value)).collect()
}

/// The chat in OpenAI's form that the server makes of a body.
pub(super) fn to_chat(body: &Map) -> Result<Map, Unsupported> {
    let mut messages = Vec::new();
    let system = present(body, "system").map(system_text).transpose()?.unwrap_or_default();
    if !system.is_empty() {
        messages.push(Json::Map(object([
            ("role", Json::from_text("system")),
            ("content", Json::from_text(system)),
        ])));
    }
    let given = body.get("messages").and_then(Json::list).ok_or_else(|| refused("is no list"))?;
    for message in given {
        let message = message.map().ok_or_else(|| refused("has an item that is no object"))?;
        let role =
            message.get("role").and_then(Json::text).ok_or_else(|| refused("has a message without role"))?;
        match &**role {
            "user" | "assistant" => add_message(&mut messages, role, message)?,
            "system" => return Err(Unsupported::field("messages", "has a system message among the others")),
            _ => return Err(refused("has a role that is neither user nor assistant")),
        }
    }
    let mut chat = object([("messages", Json::List(messages))]);
    for field in ["chat_template_kwargs", "cache_salt", "kv_transfer_params", "max_tokens", "prompt_logprobs"]
    {
        if let Some(value) = present(body, field) {
            set(&mut chat, field, value.clone());
        }
    }
    if let Some(tools) = present(body, "tools") {
        let tools = tools.list().ok_or_else(|| Unsupported::refused("tools", "is no list"))?;
        if !tools.is_empty() {
            set(&mut chat, "tools", Json::List(tools.iter().map(tool).collect::<Result<_, _>>()?));
        }
    }
    if let Some(choice) = present(body, "tool_choice") {
        let kind = choice.map().and_then(|choice| choice.get("type")).and_then(Json::text);
        if kind.is_some_and(|kind| &**kind == "none") {
            set(&mut chat, "tool_choice", Json::from_text("none"));
        }
    }
    if let Some(effort) = effort(body)? {
        set(&mut chat, "reasoning_effort", effort);
    }
    Ok(chat)
}

/// How much the model should think. The server finds out the meaning of `disabled` by trying the template.
fn effort(body: &Map) -> Result<Option<Json>, Unsupported> {
    if let Some(thinking) = present(body, "thinking") {
        let kind = thinking.map().and_then(|thinking| thinking.get("type")).and_then(Json::text);
        if kind.is_some_and(|kind| &**kind == "disabled") {
            return Err(Unsupported::field("thinking", "what the server makes of disabled is not known"));
        }
    }
    let config = present(body, "output_config").and_then(Json::map);
    Ok(config.and_then(|config| present(config, "effort")).cloned())
}

/// The text of the system field: its blocks joined without a separator, without the billing blocks.
fn system_text(system: &Json) -> Result<String, Unsupported> {
    let wrong = || Unsupported::refused("system", "is neither text nor a list of texts");
    match system {
        Json::Text(text) => Ok(text.to_string()),
        Json::List(blocks) => {
            let mut whole = String::new();
            for block in blocks {
                let block = block.map().ok_or_else(wrong)?;
                let text = block.get("text").and_then(Json::text).ok_or_else(wrong)?;
                if !text.starts_with(BILLING) {
                    whole.push_str(text);
                }
            }
            Ok(whole)
        }
        _ => Err(wrong()),
    }
}

/// Adds a message. The tool results in it become messages in front of it.
fn add_message(messages: &mut Vec<Json>, role: &Arc<str>, message: &Map) -> Result<(), Unsupported> {
    let role_json = || Json::Text(Arc::clone(role));
    let blocks = match message.get("content") {
        Some(Json::Text(text)) => {
            let content = Json::Text(Arc::clone(text));
            messages.push(Json::Map(object([("role", role_json()), ("content", content)])));
            return Ok(());
        }
        Some(Json::List(blocks)) => blocks,
        _ => return Err(refused("has content that is neither text nor a list")),
    };
    let mut read = Blocks::default();
    for block in blocks {
        let block = block.map().ok_or_else(|| refused("has a block that is no object"))?;
        read.block(block, &**role == "user", messages)?;
    }
    let mut made = object([("role", role_json())]);
    match read.texts.as_slice() {
        [] => {}
        [single] => set(&mut made, "content", Json::Text(Arc::clone(single))),
        several => {
            let part = |text: &Arc<str>| {
                Json::Map(object([("type", Json::from_text("text")), ("text", Json::Text(Arc::clone(text)))]))
            };
            set(&mut made, "content", Json::List(several.iter().map(part).collect()));
        }
    }
    if !read.reasoning.is_empty() {
        set(&mut made, "reasoning", Json::from_text(&read.reasoning));
    }
    if !read.calls.is_empty() {
        set(&mut made, "tool_calls", Json::List(read.calls));
    }
    if made.len() > 1 || &**role == "assistant" {
        messages.push(Json::Map(made));
    }
    Ok(())
}

/// The content of a message's blocks.
#[derive(Default)]
struct Blocks {
    texts: Vec<Arc<str>>,
    reasoning: String,
    calls: Vec<Json>,
}

impl Blocks {
    fn block(&mut self, block: &Map, user: bool, messages: &mut Vec<Json>) -> Result<(), Unsupported> {
        let kind =
            block.get("type").and_then(Json::text).ok_or_else(|| refused("has a block without type"))?;
        let text = |field: &str| block.get(field).and_then(Json::text);
        match &**kind {
            "text" => {
                let text = text("text").ok_or_else(|| refused("has a block without text"))?;
                if !text.is_empty() {
                    self.texts.push(Arc::clone(text));
                }
            }
            "thinking" => self.reasoning.push_str(text("thinking").map(|text| &**text).unwrap_or_default()),
            "redacted_thinking" => {}
            "tool_use" => {
                let (id, name) =
                    text("id").zip(text("name")).ok_or_else(|| refused("has a tool_use without id"))?;
                let input = present(block, "input").cloned().unwrap_or_else(|| Json::Map(Map::new()));
                // The server dumps and parses the input again, which gives the same.
                self.calls.push(Json::Map(object([
                    ("id", Json::Text(Arc::clone(id))),
                    ("type", Json::from_text("function")),
                    (
                        "function",
                        Json::Map(object([("name", Json::Text(Arc::clone(name))), ("arguments", input)])),
                    ),
                ])));
            }
            "tool_result" if user => messages.push(tool_result(block)?),
            "image" => return Err(Unsupported::Media("images")),
            _ => return Err(Unsupported::field("messages", "has a block of a type that is not known")),
        }
        Ok(())
    }
}

/// The message of one tool result.
fn tool_result(block: &Map) -> Result<Json, Unsupported> {
    let id = block.get("tool_use_id").and_then(Json::text);
    let id = id.ok_or_else(|| refused("has a tool_result without tool_use_id"))?;
    let text = match block.get("content") {
        None | Some(Json::Null) => String::new(),
        Some(Json::Text(text)) => text.to_string(),
        Some(Json::List(parts)) => {
            let mut texts = Vec::new();
            for part in parts {
                let part = part.map().ok_or_else(|| refused("has a tool_result whose content is no text"))?;
                match part.get("type").and_then(Json::text).map(|kind| &**kind) {
                    Some("text") => {
                        texts.extend(part.get("text").and_then(Json::text).map(ToString::to_string));
                    }
                    Some("image") => return Err(Unsupported::Media("images")),
                    _ => {
                        return Err(Unsupported::field(
                            "messages",
                            "has a tool_result of a type that is not known",
                        ));
                    }
                }
            }
            texts.join("\n")
        }
        Some(_) => return Err(refused("has a tool_result whose content is no text")),
    };
    Ok(Json::Map(object([
        ("role", Json::from_text("tool")),
        ("tool_call_id", Json::Text(Arc::clone(id))),
        ("content", Json::from_text(text)),
    ])))
}

/// One tool in OpenAI's form.
fn tool(tool: &Json) -> Result<Json, Unsupported> {
    let tool = tool.map().ok_or_else(|| Unsupported::refused("tools", "has an item that is no object"))?;
    if present(tool, "type").and_then(Json::text).is_some_and(|kind| &**kind != "custom") {
        return Err(Unsupported::field("tools", "has a tool of the server"));
    }
    let mut function = Map::new();
    for (from, to) in [("name", "name"), ("description", "description"), ("input_schema", "parameters")] {
        if let Some(value) = present(tool, from) {
            set(&mut function, to, value.clone());
        }
    }
    if let Some(strict) = present(tool, "strict") {
        set(&mut function, "strict", strict.clone());
    }
    let mut made = object([("type", Json::from_text("function")), ("function", Json::Map(function))]);
    if let Some(defer) = present(tool, "defer_loading") {
        set(&mut made, "defer_loading", defer.clone());
    }
    Ok(Json::Map(made))
}
