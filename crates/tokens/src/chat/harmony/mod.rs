//! Chats with gpt-oss, whose format (harmony) is made of messages and not by a template.
//!
//! A message is `<|start|>`, its author, perhaps `<|channel|>` with a channel, `<|message|>`, text, and `<|end|>`. The
//! marks are special tokens; everything between two of them is encoded on its own, as text that holds no special token.
//! The first message tells the day, in UTC, unless the server has one set.

mod declarations;
mod marks;

use std::collections::HashMap;
use std::sync::Arc;

use crate::encoder::Stop;
use crate::json::{Json, Map, present};
use crate::model::Model;
use crate::request::flag;
use crate::unsupported::Unsupported;

use super::tools;
pub(crate) use marks::Marks;

/// The oldest version whose format is known.
const OLDEST: u32 = 31;

/// A message as it is written.
struct Message {
    author: String,
    channel: Option<String>,
    /// Each is encoded on its own.
    texts: Vec<Arc<str>>,
    /// It calls a function.
    call: bool,
}

impl Message {
    fn new(author: &str, channel: Option<&str>, text: impl Into<Arc<str>>) -> Self {
        let channel = channel.map(str::to_owned);
        Self { author: author.to_owned(), channel, texts: vec![text.into()], call: false }
    }

    fn is(&self, channel: &str) -> bool {
        self.author == "assistant" && self.channel.as_deref() == Some(channel)
    }
}

fn refused(reason: &'static str) -> Unsupported {
    Unsupported::refused("messages", reason)
}

fn unknown(field: &'static str) -> Unsupported {
    Unsupported::field(field, "what gpt-oss is shown of it is not known")
}

/// The ids of a chat in OpenAI's form.
pub(super) fn prompt(
    model: &Model,
    marks: Marks,
    body: &Map,
    stop: Stop<'_>,
) -> Result<Vec<u32>, Unsupported> {
    if model.profile.version < OLDEST {
        return Err(Unsupported::field(
            "messages",
            "the format of gpt-oss in this version of the server is not known",
        ));
    }
    let messages = messages(model, body)?;
    let mut ids = Vec::new();
    let put = |ids: &mut Vec<u32>, text: &str| {
        ids.extend(model.encoder.encode_ordinary(text, stop)?);
        Ok::<(), Unsupported>(())
    };
    for message in &messages {
        ids.push(marks.start);
        put(&mut ids, &message.author)?;
        if let Some(channel) = &message.channel {
            ids.push(marks.channel);
            put(&mut ids, channel)?;
        }
        ids.push(marks.message);
        for text in &message.texts {
            put(&mut ids, text)?;
        }
        ids.push(if message.call { marks.call } else { marks.end });
    }
    ids.push(marks.start);
    put(&mut ids, "assistant")?;
    Ok(ids)
}

fn messages(model: &Model, body: &Map) -> Result<Vec<Message>, Unsupported> {
    for field in ["chat_template", "truncate_prompt_tokens"] {
        if present(body, field).is_some() {
            return Err(unknown(field));
        }
    }
    if flag(body, "continue_final_message", false)? || !flag(body, "add_generation_prompt", true)? {
        return Err(unknown("continue_final_message"));
    }
    let tools = tools::of(body, &model.profile)?;
    let tools = tools.as_ref().and_then(Json::list).unwrap_or_default();
    let list = body.get("messages").and_then(Json::list).filter(|list| !list.is_empty());
    let mut list = list.ok_or_else(|| refused("is no list of messages"))?;
    let mut told = Vec::new();
    if let Some((first, rest)) = list.split_first()
        && let Some("system" | "developer") = role(first)?.as_deref()
    {
        told.extend(flat(content(first)?).filter(|text| !text.is_empty()));
        list = rest;
    }
    let mut made = vec![Message::new("system", None, system(model, body, !tools.is_empty())?)];
    let instructions = told.first().map(|text| format!("# Instructions\n\n{text}"));
    let declared = (!tools.is_empty()).then(|| declarations::section(tools)).transpose()?;
    let developer: Vec<String> = instructions.into_iter().chain(declared).collect();
    if !developer.is_empty() {
        made.push(Message::new("developer", None, developer.join("\n\n")));
    }
    let mut names = HashMap::new();
    for message in list {
        for call in calls(message)? {
            names.insert(call.id, call.name);
        }
    }
    for message in list {
        add(&mut made, message, &names)?;
    }
    // What led to an answer that was given is not shown again.
    let last = made.iter().rposition(|message| message.is("final")).unwrap_or(0);
    let mut at = 0..;
    made.retain(|message| {
        at.next().is_none_or(|at| at >= last) || message.channel.as_deref() != Some("analysis")
    });
    Ok(made)
}

/// The first message.
fn system(model: &Model, body: &Map, tools: bool) -> Result<String, Unsupported> {
    let effort = match present(body, "reasoning_effort") {
        None => "medium",
        Some(Json::Text(effort)) if matches!(&**effort, "low" | "medium" | "high") => effort,
        Some(_) => {
            return Err(Unsupported::refused("reasoning_effort", "is neither low nor medium nor high"));
        }
    };
    let today = || jiff::Timestamp::now().strftime("%Y-%m-%d").to_string();
    let day = model.profile.start_date.clone().unwrap_or_else(today);
    let calls =
        if tools { "\nCalls to these tools must go to the commentary channel: 'functions'." } else { "" };
    Ok(format!(
        "You are ChatGPT, a large language model trained by OpenAI.\nKnowledge cutoff: 2024-06\nCurrent date: {day}\n\n\
         Reasoning: {effort}\n\n# Valid channels: analysis, commentary, final. Channel must be included for every \
         message.{calls}"
    ))
}

fn role(message: &Json) -> Result<Option<Arc<str>>, Unsupported> {
    let map = message.map().ok_or_else(|| refused("has an item that is no object"))?;
    Ok(map.get("role").and_then(Json::text).map(Arc::clone))
}

/// The texts of a message; `None` without any content.
fn content(message: &Json) -> Result<Option<Vec<Arc<str>>>, Unsupported> {
    match message.map().and_then(|map| map.get("content")) {
        None | Some(Json::Null) => Ok(None),
        Some(Json::Text(text)) => Ok(Some(vec![Arc::clone(text)])),
        Some(Json::List(parts)) => {
            let text = |part: &Json| {
                let part = part.map().ok_or_else(|| refused("has a part of content that is no object"))?;
                match part.get("type").and_then(Json::text).map(|kind| &**kind) {
                    Some("text") => part.get("text").and_then(Json::text).map(Arc::clone),
                    Some(_) => return Err(unknown("messages")),
                    None => None,
                }
                .ok_or_else(|| refused("has a part of content without its text"))
            };
            Ok(Some(parts.iter().map(text).collect::<Result<_, _>>()?))
        }
        Some(_) => Err(refused("has content that is neither text nor a list")),
    }
}

/// The texts without anything between them; `None` if there are none.
fn flat(content: Option<Vec<Arc<str>>>) -> Option<String> {
    content.filter(|texts| !texts.is_empty()).map(|texts| texts.concat())
}

struct Call {
    id: Arc<str>,
    name: Arc<str>,
    arguments: Arc<str>,
}

fn calls(message: &Json) -> Result<Vec<Call>, Unsupported> {
    let map = message.map().ok_or_else(|| refused("has an item that is no object"))?;
    let Some(calls) = present(map, "tool_calls") else { return Ok(Vec::new()) };
    let calls = calls.list().ok_or_else(|| refused("has tool_calls that are no list"))?;
    let call = |call: &Json| {
        let call = call.map()?;
        let function = call.get("function")?.map()?;
        call.get("type").and_then(Json::text).filter(|kind| &***kind == "function")?;
        Some(Call {
            id: Arc::clone(call.get("id")?.text()?),
            name: Arc::clone(function.get("name")?.text()?),
            arguments: Arc::clone(function.get("arguments")?.text()?),
        })
    };
    let wrong = || refused("has a tool call without id, type function, or function with name and arguments");
    calls.iter().map(|each| call(each).ok_or_else(wrong)).collect()
}

/// Adds the messages that are made of one.
fn add(
    made: &mut Vec<Message>,
    message: &Json,
    names: &HashMap<Arc<str>, Arc<str>>,
) -> Result<(), Unsupported> {
    let texts = content(message)?;
    let role = role(message)?.ok_or_else(|| refused("has a message without role"))?;
    match &*role {
        "assistant" => assistant(made, message, texts),
        "system" | "developer" => {
            if let Some(text) = flat(texts) {
                made.push(Message::new("developer", None, format!("# Instructions\n\n{text}")));
            }
            Ok(())
        }
        "tool" => {
            let id = message.map().and_then(|map| map.get("tool_call_id")).and_then(Json::text);
            let name = id.and_then(|id| names.get(id)).map(|name| &**name).unwrap_or_default();
            let text = flat(texts).unwrap_or_default();
            made.push(Message::new(&format!("functions.{name}"), Some("commentary to=assistant"), text));
            Ok(())
        }
        "user" => {
            let texts = texts.ok_or_else(|| refused("has a user message without content"))?;
            made.push(Message { texts, ..Message::new("user", None, "") });
            Ok(())
        }
        _ => Err(unknown("messages")),
    }
}

fn assistant(
    made: &mut Vec<Message>,
    message: &Json,
    texts: Option<Vec<Arc<str>>>,
) -> Result<(), Unsupported> {
    let reasoning =
        super::message::reasoning(message.map().ok_or_else(|| refused("has an item that is no object"))?)?;
    let reasoning = reasoning.filter(|text| !text.is_empty());
    let thought = reasoning.map(|text| Message::new("assistant", Some("analysis"), text));
    let calls = calls(message)?;
    if calls.is_empty() {
        made.extend(thought);
        if let Some(texts) = texts.filter(|texts| texts.first().is_some_and(|text| !text.is_empty())) {
            made.push(Message { texts, ..Message::new("assistant", Some("final"), "") });
        }
        return Ok(());
    }
    let said = flat(texts).filter(|text| !text.is_empty());
    made.extend(said.map(|text| Message::new("assistant", Some("commentary"), text)));
    made.extend(thought);
    for Call { name, arguments, .. } in calls {
        let author = format!("assistant to=functions.{name}");
        made.push(Message { call: true, ..Message::new(&author, Some("commentary json"), arguments) });
    }
    Ok(())
}
