//! Turns a request to OpenAI's Responses API into a chat.
//!
//! This module does not know what the server keeps from earlier requests, or how the server handles the calls of its
//! own tools.

use std::sync::Arc;

use crate::json::{Json, Map, present};
use crate::unsupported::Unsupported;

/// Fields of requests whose prompt comes from elsewhere, or is made by rules that are not known.
const ELSEWHERE: [&str; 4] = ["previous_response_id", "previous_input_messages", "prompt", "conversation"];

fn refused(reason: &'static str) -> Unsupported {
    Unsupported::refused("input", reason)
}

fn unknown(reason: &'static str) -> Unsupported {
    Unsupported::field("input", reason)
}

fn object<const N: usize>(entries: [(&str, Json); N]) -> Map {
    entries.into_iter().map(|(key, value)| (Arc::from(key), value)).collect()
}

fn text(map: &Map, field: &str) -> Option<Arc<str>> {
    map.get(field).and_then(Json::text).map(Arc::clone)
}

fn message(role: &str, content: Json) -> Json {
    Json::Map(object([("role", Json::from_text(role)), ("content", content)]))
}

/// The chat that the server makes of a body.
pub(super) fn to_chat(body: &Map) -> Result<Map, Unsupported> {
    for field in ELSEWHERE {
        if present(body, field).is_some() {
            return Err(Unsupported::field(field, "its part of the prompt is not known"));
        }
    }
    let mut items = Items::default();
    if let Some(instructions) = present(body, "instructions") {
        let told = instructions.text();
        let told = told.ok_or_else(|| Unsupported::refused("instructions", "is no text"))?;
        if !told.is_empty() {
            items.messages.push(message("system", instructions.clone()));
        }
    }
    let mut unfinished = false;
    match body.get("input") {
        Some(Json::Text(input)) => items.messages.push(message("user", Json::Text(Arc::clone(input)))),
        Some(Json::List(list)) => {
            for item in list {
                items.add(item.map().ok_or_else(|| refused("has an item that is no object"))?)?;
            }
            unfinished = goes_on(list.last())?;
        }
        _ => return Err(refused("is neither text nor a list")),
    }
    let mut chat = object([
        ("messages", Json::List(items.finish())),
        // A chat adds no special tokens by default. This API does.
        ("add_special_tokens", Json::Bool(true)),
    ]);
    let mut set = |field: &str, value: Json| chat.insert(Arc::from(field), value);
    if unfinished {
        set("continue_final_message", Json::Bool(true));
        set("add_generation_prompt", Json::Bool(false));
    }
    if let Some(limit) = present(body, "max_output_tokens") {
        set("max_tokens", limit.clone());
    }
    if present(body, "truncation").and_then(Json::text).is_some_and(|how| &**how != "disabled") {
        set("truncate_prompt_tokens", Json::Int(-1));
    }
    let reasoning = present(body, "reasoning").and_then(Json::map);
    if let Some(effort) = reasoning.and_then(|reasoning| present(reasoning, "effort")) {
        set("reasoning_effort", effort.clone());
    }
    for field in ["chat_template_kwargs", "tool_choice"] {
        if let Some(value) = present(body, field) {
            set(field, value.clone());
        }
    }
    let tools = tools(body)?;
    if !tools.is_empty() {
        set("tools", Json::List(tools));
    }
    Ok(chat)
}

/// True if the model should continue the last item.
fn goes_on(last: Option<&Json>) -> Result<bool, Unsupported> {
    let Some(last) = last.and_then(Json::map) else { return Ok(false) };
    let status = text(last, "status");
    if !status.is_some_and(|status| matches!(&*status, "in_progress" | "incomplete")) {
        return Ok(false);
    }
    match text(last, "type").as_deref() {
        Some("reasoning") => Err(unknown("ends with reasoning that is to be continued")),
        None | Some("message") => Ok(text(last, "role").is_some_and(|role| &*role == "assistant")),
        Some(_) => Ok(false),
    }
}

/// The functions among the tools, in the form that chats have. The server shows the model no other tools.
fn tools(body: &Map) -> Result<Vec<Json>, Unsupported> {
    let Some(tools) = present(body, "tools") else { return Ok(Vec::new()) };
    let tools = tools.list().ok_or_else(|| Unsupported::refused("tools", "is no list"))?;
    let mut functions = Vec::new();
    for tool in tools {
        let tool =
            tool.map().ok_or_else(|| Unsupported::refused("tools", "has an item that is no object"))?;
        match text(tool, "type").as_deref() {
            Some("function") => {}
            Some("namespace" | "custom") => {
                return Err(Unsupported::field("tools", "has a tool whose name in the prompt is not known"));
            }
            Some(_) => continue,
            None => return Err(Unsupported::refused("tools", "has a tool without type")),
        }
        let fields = ["name", "description", "parameters", "strict", "defer_loading"];
        let given =
            fields.into_iter().filter_map(|field| Some((Arc::from(field), present(tool, field)?.clone())));
        functions.push(Json::Map(object([
            ("type", Json::from_text("function")),
            ("function", Json::Map(given.collect())),
        ])));
    }
    if functions.is_empty() && !tools.is_empty() {
        // Templates see an empty list then, not the lack of tools.
        return Err(Unsupported::field("tools", "has no function"));
    }
    Ok(functions)
}

/// A message of the assistant. Several items make one message.
#[derive(Default)]
struct Assistant {
    content: Option<Arc<str>>,
    reasoning: Option<Arc<str>>,
    calls: Vec<Json>,
}

/// The messages that were made so far.
#[derive(Default)]
struct Items {
    messages: Vec<Json>,
    open: Option<Assistant>,
}

impl Items {
    fn add(&mut self, item: &Map) -> Result<(), Unsupported> {
        match text(item, "type").as_deref() {
            None | Some("message") => self.message(item),
            Some("reasoning") => {
                let reasoning = reasoning(item)?;
                self.assistant(|open| open.reasoning.is_none()).reasoning = Some(reasoning);
                Ok(())
            }
            Some("function_call") => {
                let call = call(item)?;
                self.assistant(|_| true).calls.push(call);
                Ok(())
            }
            Some("function_call_output") => self.result(item),
            Some(_) => Err(unknown("has an item of a type that is not known")),
        }
    }

    /// The open message of the assistant if it has `room`, else a new one.
    fn assistant(&mut self, room: impl Fn(&Assistant) -> bool) -> &mut Assistant {
        if self.open.as_ref().is_some_and(|open| !room(open)) {
            self.close();
        }
        self.open.get_or_insert_default()
    }

    fn close(&mut self) {
        let Some(Assistant { content, reasoning, calls }) = self.open.take() else { return };
        let mut made = object([("role", Json::from_text("assistant"))]);
        for (field, value) in [
            ("content", content.map(Json::Text)),
            ("reasoning", reasoning.map(Json::Text)),
            ("tool_calls", (!calls.is_empty()).then_some(Json::List(calls))),
        ] {
            if let Some(value) = value {
                made.insert(Arc::from(field), value);
            }
        }
        self.messages.push(Json::Map(made));
    }

    fn message(&mut self, item: &Map) -> Result<(), Unsupported> {
        let role = text(item, "role").ok_or_else(|| refused("has a message without role"))?;
        if &*role != "assistant" {
            self.close();
            self.messages.push(Json::Map(item.clone()));
            return Ok(());
        }
        let content = match item.get("content") {
            Some(Json::Text(content)) => Arc::clone(content),
            // Only the first part counts.
            Some(Json::List(parts)) => {
                let first = parts.first().and_then(Json::map).and_then(|part| text(part, "text"));
                first
                    .ok_or_else(|| unknown("has a message of the assistant that does not begin with text"))?
            }
            _ => return Err(refused("has a message of the assistant without content")),
        };
        self.assistant(|open| open.content.is_none()).content = Some(content);
        Ok(())
    }

    fn result(&mut self, item: &Map) -> Result<(), Unsupported> {
        let id = text(item, "call_id").ok_or_else(|| refused("has an output without call_id"))?;
        let output = match item.get("output") {
            Some(output @ (Json::Text(_) | Json::List(_))) => output.clone(),
            _ => return Err(refused("has an output that is neither text nor a list")),
        };
        self.close();
        self.messages.push(Json::Map(object([
            ("role", Json::from_text("tool")),
            ("content", output),
            ("tool_call_id", Json::Text(id)),
        ])));
        Ok(())
    }

    fn finish(mut self) -> Vec<Json> {
        self.close();
        self.messages
    }
}

/// The text of a reasoning item: the first text of the reasoning itself, else that of its summary, else none.
fn reasoning(item: &Map) -> Result<Arc<str>, Unsupported> {
    let encrypted = present(item, "encrypted_content").and_then(Json::text);
    if encrypted.is_some_and(|text| !text.is_empty()) {
        return Err(refused("has encrypted reasoning"));
    }
    let first = |field: &str| present(item, field).and_then(Json::list).and_then(<[Json]>::first);
    match first("content").or_else(|| first("summary")) {
        None => Ok(Arc::from("")),
        Some(part) => part
            .map()
            .and_then(|part| text(part, "text"))
            .ok_or_else(|| refused("has reasoning without text")),
    }
}

/// The call of a function, in the form that chats have.
fn call(item: &Map) -> Result<Json, Unsupported> {
    let field = |name| text(item, name).map(Json::Text);
    let whole = field("call_id").zip(field("name")).zip(field("arguments"));
    let ((id, name), arguments) =
        whole.ok_or_else(|| refused("has a call without call_id, name and arguments"))?;
    if present(item, "namespace").is_some() {
        return Err(unknown("has a call whose name in the prompt is not known"));
    }
    let function = Json::Map(object([("name", name), ("arguments", arguments)]));
    Ok(Json::Map(object([("id", id), ("type", Json::from_text("function")), ("function", function)])))
}
