//! A body of the Anthropic Messages API as the chat that vLLM makes of it. What vLLM would refuse, or what this version
//! does not know, has no chat: its tokens are estimated then.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// System text that changes from request to request and is no part of the prompt begins so.
const BILLING_HEADER: &str = "x-anthropic-billing-header";

#[derive(Deserialize)]
struct Body<'b> {
    #[serde(borrow, default)]
    system: Option<&'b RawValue>,
    #[serde(borrow)]
    messages: Vec<Message<'b>>,
    #[serde(borrow, default)]
    tools: Vec<Tool<'b>>,
    #[serde(borrow, default)]
    chat_template_kwargs: Option<&'b RawValue>,
}

#[derive(Deserialize)]
struct Message<'b> {
    role: String,
    #[serde(borrow)]
    content: &'b RawValue,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Block<'b> {
    #[serde(rename = "type")]
    kind: String,
    text: Option<String>,
    thinking: Option<String>,
    source: Option<Source>,
    id: Option<String>,
    name: Option<String>,
    #[serde(borrow)]
    input: Option<&'b RawValue>,
    tool_use_id: Option<String>,
    #[serde(borrow)]
    content: Option<&'b RawValue>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Source {
    media_type: Option<String>,
    data: Option<String>,
    url: Option<String>,
}

#[derive(Deserialize)]
struct Tool<'b> {
    name: String,
    #[serde(default)]
    description: Option<String>,
    #[serde(borrow, default)]
    input_schema: Option<&'b RawValue>,
}

#[derive(Serialize)]
struct Converted<'b> {
    model: &'b str,
    messages: Vec<Turn<'b>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tools: Vec<Described<'b>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    chat_template_kwargs: Option<&'b RawValue>,
}

#[derive(Default, Serialize)]
struct Turn<'b> {
    role: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<Said>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reasoning: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tool_calls: Vec<ToolCall<'b>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_call_id: Option<String>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Said {
    Text(String),
    Parts(Vec<Part>),
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Part {
    Text { text: String },
    ImageUrl { image_url: Url },
}

#[derive(Serialize)]
struct Url {
    url: String,
}

#[derive(Serialize)]
struct ToolCall<'b> {
    id: String,
    #[serde(rename = "type")]
    kind: &'static str,
    function: Called<'b>,
}

#[derive(Serialize)]
struct Called<'b> {
    name: String,
    /// The input as it lies: the server reads it again, so that its blanks do not count.
    arguments: &'b str,
}

#[derive(Serialize)]
struct Described<'b> {
    #[serde(rename = "type")]
    kind: &'static str,
    function: Function<'b>,
}

#[derive(Serialize)]
struct Function<'b> {
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    parameters: Option<&'b RawValue>,
}

/// The chat for the model `model`, as a body of the chat API.
pub(super) fn as_chat(body: &[u8], model: &str) -> Option<Vec<u8>> {
    let Body { system, messages, tools, chat_template_kwargs } = serde_json::from_slice(body).ok()?;
    let mut turns = Vec::new();
    if let Some(system) = system {
        system_turn(system, &mut turns)?;
    }
    for message in &messages {
        match message.role.as_str() {
            "user" => user_turns(message.content, &mut turns)?,
            "assistant" => turns.push(assistant_turn(message.content)?),
            "system" => system_turn(message.content, &mut turns)?,
            _ => return None,
        }
    }
    let tools = tools.into_iter().map(Described::from).collect();
    serde_json::to_vec(&Converted { model, messages: turns, tools, chat_template_kwargs }).ok()
}

impl<'b> From<Tool<'b>> for Described<'b> {
    fn from(tool: Tool<'b>) -> Self {
        let Tool { name, description, input_schema: parameters } = tool;
        Self { kind: "function", function: Function { name, description, parameters } }
    }
}

/// Content as blocks; a string is one block of text, `null` none.
fn blocks(content: &RawValue) -> Option<Vec<Block<'_>>> {
    match content.get().as_bytes().first()? {
        b'"' => {
            let text = Some(serde_json::from_str(content.get()).ok()?);
            Some(vec![Block { kind: "text".to_owned(), text, ..Block::default() }])
        }
        b'[' => serde_json::from_str(content.get()).ok(),
        b'n' => Some(Vec::new()),
        _ => None,
    }
}

/// Adds the system text, without separators between its blocks, if there is any.
fn system_turn(content: &RawValue, turns: &mut Vec<Turn<'_>>) -> Option<()> {
    let mut system = String::new();
    for block in blocks(content)? {
        let text = block.text.filter(|_| block.kind == "text")?;
        if !text.starts_with(BILLING_HEADER) {
            system.push_str(&text);
        }
    }
    if !system.is_empty() {
        turns.push(Turn { role: "system", content: Some(Said::Text(system)), ..Turn::default() });
    }
    Some(())
}

fn assistant_turn(content: &RawValue) -> Option<Turn<'_>> {
    let mut turn = Turn { role: "assistant", ..Turn::default() };
    let mut parts = Vec::new();
    for block in blocks(content)? {
        match block.kind.as_str() {
            "text" => parts.extend(text_part(block.text?)),
            "thinking" => turn.reasoning.get_or_insert_default().push_str(&block.thinking?),
            "redacted_thinking" => {}
            "tool_use" => turn.tool_calls.push(ToolCall {
                id: block.id?,
                kind: "function",
                function: Called { name: block.name?, arguments: block.input.map_or("{}", RawValue::get) },
            }),
            _ => return None,
        }
    }
    turn.content = said(parts);
    Some(turn)
}

/// A user's message: the results of tools come before what else was said, each as a message of its own.
fn user_turns<'b>(content: &'b RawValue, turns: &mut Vec<Turn<'b>>) -> Option<()> {
    let mut parts = Vec::new();
    for block in blocks(content)? {
        match block.kind.as_str() {
            "text" => parts.extend(text_part(block.text?)),
            "image" => parts.push(image_part(block.source?)?),
            "tool_result" => {
                let (mut texts, mut images) = (Vec::new(), Vec::new());
                for result in block.content.map_or(Some(Vec::new()), blocks)? {
                    match result.kind.as_str() {
                        "text" => texts.push(result.text?),
                        "image" => images.push(image_part(result.source?)?),
                        _ => return None,
                    }
                }
                turns.push(Turn {
                    role: "tool",
                    content: Some(Said::Text(texts.join("\n"))),
                    tool_call_id: Some(block.tool_use_id?),
                    ..Turn::default()
                });
                let images = said(images);
                if images.is_some() {
                    turns.push(Turn { role: "user", content: images, ..Turn::default() });
                }
            }
            _ => return None,
        }
    }
    if let Some(content) = said(parts) {
        turns.push(Turn { role: "user", content: Some(content), ..Turn::default() });
    }
    Some(())
}

/// A part of text; an empty one counts for nothing.
fn text_part(text: String) -> Option<Part> {
    (!text.is_empty()).then_some(Part::Text { text })
}

fn image_part(source: Source) -> Option<Part> {
    let url = match source {
        Source { data: Some(data), media_type, .. } => {
            format!("data:{};base64,{data}", media_type.as_deref().unwrap_or("image/jpeg"))
        }
        Source { url, .. } => url?,
    };
    Some(Part::ImageUrl { image_url: Url { url } })
}

/// Parts as content: a single text stands alone, and no parts are no content.
fn said(mut parts: Vec<Part>) -> Option<Said> {
    match parts.as_mut_slice() {
        [] => None,
        [Part::Text { text }] => Some(Said::Text(std::mem::take(text))),
        _ => Some(Said::Parts(parts)),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn chat(body: &Value) -> Option<Value> {
        as_chat(body.to_string().as_bytes(), "m").map(|chat| serde_json::from_slice(&chat).unwrap())
    }

    #[test]
    fn system_texts_run_together_without_the_billing_header() {
        let system = json!([
            {"type": "text", "text": "x-anthropic-billing-header: cc=1"},
            {"type": "text", "text": "Be "}, {"type": "text", "text": "brief."}
        ]);
        let body = json!({"model": "a", "system": system, "messages": [{"role": "user", "content": "hi"}]});
        let expected = json!({"model": "m", "messages": [
            {"role": "system", "content": "Be brief."}, {"role": "user", "content": "hi"}
        ]});
        assert_eq!(chat(&body), Some(expected));
    }

    #[test]
    fn tools_their_use_and_their_results_become_those_of_a_chat() {
        let body = json!({"messages": [
            {"role": "assistant", "content": [
                {"type": "thinking", "thinking": "hm", "signature": "s"},
                {"type": "text", "text": "I look."},
                {"type": "tool_use", "id": "t1", "name": "look", "input": {"b": 1, "a": [2]}}
            ]},
            {"role": "user", "content": [
                {"type": "text", "text": "and?"},
                {"type": "tool_result", "tool_use_id": "t1", "content": [
                    {"type": "text", "text": "one"}, {"type": "text", "text": "two"},
                    {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AA"}}
                ]}
            ]}
        ], "tools": [{"name": "look", "description": "looks", "input_schema": {"type": "object"}}]});
        let got = chat(&body).unwrap();
        assert_eq!(got["messages"][0]["reasoning"], "hm");
        assert_eq!(got["messages"][0]["content"], "I look.");
        let called = &got["messages"][0]["tool_calls"][0];
        let arguments: Value =
            serde_json::from_str(called["function"]["arguments"].as_str().unwrap()).unwrap();
        assert_eq!((&called["id"], &arguments), (&json!("t1"), &json!({"b": 1, "a": [2]})));
        assert_eq!(got["messages"][1], json!({"role": "tool", "content": "one\ntwo", "tool_call_id": "t1"}));
        let url = &got["messages"][2]["content"][0]["image_url"]["url"];
        assert_eq!((url, &got["messages"][2]["role"]), (&json!("data:image/png;base64,AA"), &json!("user")));
        assert_eq!(got["messages"][3], json!({"role": "user", "content": "and?"}));
        let tool = json!({"type": "function",
            "function": {"name": "look", "description": "looks", "parameters": {"type": "object"}}});
        assert_eq!(got["tools"], json!([tool]));
    }

    #[test]
    fn the_order_of_keys_in_a_schema_stays() {
        let tool = r#"{"name":"t","input_schema":{"z":1,"a":2}}"#;
        let body = format!(r#"{{"messages":[{{"role":"user","content":"x"}}],"tools":[{tool}]}}"#);
        let chat = String::from_utf8(as_chat(body.as_bytes(), "m").unwrap()).unwrap();
        assert!(chat.contains(r#""parameters":{"z":1,"a":2}"#), "{chat}");
    }

    #[test]
    fn what_is_not_known_has_no_chat() {
        for messages in [
            json!([{"role": "user", "content": [{"type": "document"}]}]),
            json!([{"role": "robot", "content": "x"}]),
            json!([{"role": "user", "content": 7}]),
            json!([{"role": "user", "content": [{"type": "image", "source": {}}]}]),
            json!("x"),
        ] {
            assert_eq!(chat(&json!({"messages": messages})), None, "{messages}");
        }
        assert_eq!(as_chat(b"{", "m"), None);
        let deep = format!(r#"{{"messages":[{{"role":"user","content":{}"#, "[".repeat(100_000));
        assert_eq!(as_chat(deep.as_bytes(), "m"), None);
    }
}
