//! Messages of the tokenizer service on a socket, with the fields that are used, and what it is asked about a request.

use std::collections::HashMap;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::request::{Api, Inference, MediaKind, MediaSpan, Piece, Tokenized, TokenizedPrompt, cut};

/// Longest hash of a picture that is kept, in bytes.
const MAX_HASH: usize = 256;

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct InitializeQuestion {
    #[prost(string, tag = "1")]
    pub(super) model_name: String,
    #[prost(bool, tag = "2")]
    pub(super) enable_thinking: bool,
    #[prost(bool, tag = "3")]
    pub(super) add_generation_prompt: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Initialized {
    #[prost(bool, tag = "1")]
    pub(super) success: bool,
    #[prost(string, tag = "2")]
    pub(super) error_message: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct CompletionQuestion {
    #[prost(string, tag = "1")]
    pub(super) model_name: String,
    #[prost(string, tag = "2")]
    pub(super) prompt: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct RenderedCompletion {
    #[prost(uint32, repeated, tag = "2")]
    token_ids: Vec<u32>,
    #[prost(bool, tag = "3")]
    success: bool,
    #[prost(string, tag = "4")]
    error_message: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct ChatQuestion {
    #[prost(string, tag = "1")]
    model_name: String,
    #[prost(message, repeated, tag = "2")]
    messages: Vec<ChatMessage>,
    #[prost(string, tag = "4")]
    chat_template: String,
    #[prost(bool, optional, tag = "5")]
    add_generation_prompt: Option<bool>,
    #[prost(bool, tag = "6")]
    continue_final_message: bool,
    #[prost(string, optional, tag = "7")]
    chat_template_kwargs: Option<String>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ChatMessage {
    #[prost(string, tag = "1")]
    role: String,
    #[prost(string, optional, tag = "2")]
    content: Option<String>,
    #[prost(message, repeated, tag = "3")]
    content_parts: Vec<ContentPart>,
}

#[derive(Clone, PartialEq, Deserialize, prost::Message)]
struct ContentPart {
    #[prost(string, tag = "1")]
    #[serde(rename = "type")]
    kind: String,
    #[prost(string, optional, tag = "2")]
    #[serde(default)]
    text: Option<String>,
    #[prost(message, optional, tag = "3")]
    #[serde(default)]
    image_url: Option<ImageUrl>,
}

#[derive(Clone, PartialEq, Deserialize, prost::Message)]
struct ImageUrl {
    #[prost(string, tag = "1")]
    url: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Rendered {
    #[prost(uint32, repeated, tag = "2")]
    token_ids: Vec<u32>,
    #[prost(message, optional, tag = "3")]
    features: Option<Features>,
    #[prost(bool, tag = "4")]
    success: bool,
    #[prost(string, tag = "5")]
    error_message: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Features {
    #[prost(map = "string, message", tag = "1")]
    mm_hashes: HashMap<String, Hashes>,
    #[prost(map = "string, message", tag = "2")]
    mm_placeholders: HashMap<String, Places>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Hashes {
    #[prost(string, repeated, tag = "1")]
    values: Vec<String>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Places {
    #[prost(message, repeated, tag = "1")]
    ranges: Vec<Place>,
}

#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
struct Place {
    #[prost(int32, tag = "1")]
    offset: i32,
    #[prost(int32, tag = "2")]
    length: i32,
}

impl From<RenderedCompletion> for Rendered {
    fn from(answer: RenderedCompletion) -> Self {
        let RenderedCompletion { token_ids, success, error_message } = answer;
        Self { token_ids, features: None, success, error_message }
    }
}

impl Rendered {
    /// The tokens, or why there are none.
    pub(super) fn tokens(self) -> Result<Tokenized, String> {
        let Self { token_ids: ids, features, success, error_message } = self;
        if !success || ids.is_empty() {
            return Err(format!("no tokens: {}", cut(&error_message, 512)));
        }
        let mut media = Vec::new();
        for (modality, places) in features.iter().flat_map(|features| &features.mm_placeholders) {
            let kind = MediaKind::named(modality).unwrap_or(MediaKind::Image);
            let hashes = features.as_ref().and_then(|features| features.mm_hashes.get(modality));
            for (place, hash) in places.ranges.iter().zip(hashes.iter().flat_map(|hashes| &hashes.values)) {
                let (Ok(offset), Ok(length)) = (u32::try_from(place.offset), u32::try_from(place.length))
                else {
                    continue;
                };
                media.push(MediaSpan { kind, hash: cut(hash, MAX_HASH).into(), offset, length });
            }
        }
        media.sort_by_key(|span| span.offset);
        Ok(Tokenized { prompts: vec![TokenizedPrompt { ids, media }] })
    }
}

impl ChatQuestion {
    /// True if it has images.
    pub(super) fn has_media(&self) -> bool {
        self.messages.iter().flat_map(|message| &message.content_parts).any(|part| part.image_url.is_some())
    }
}

/// What the service is asked.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Question {
    Completion(CompletionQuestion),
    Chat(ChatQuestion),
}

#[derive(Deserialize)]
struct ChatBody<'b> {
    #[serde(borrow)]
    messages: Vec<BodyMessage<'b>>,
    #[serde(borrow, default)]
    tools: Option<&'b RawValue>,
    #[serde(default)]
    chat_template: Option<String>,
    #[serde(default)]
    add_generation_prompt: Option<bool>,
    #[serde(default)]
    continue_final_message: bool,
    #[serde(borrow, default)]
    chat_template_kwargs: Option<&'b RawValue>,
}

#[derive(Deserialize)]
struct BodyMessage<'b> {
    role: String,
    #[serde(borrow, default)]
    content: Option<&'b RawValue>,
    #[serde(borrow, default)]
    tool_calls: Option<&'b RawValue>,
}

/// The question about a request; `None` if the service has no answer to it: it takes one prompt of text, and chats
/// without tools.
pub(super) fn question(inference: &Inference, body: &Bytes, model: &str) -> Option<Question> {
    if inference.unread.is_some() {
        return None;
    }
    let model_name = model.to_owned();
    match (inference.api, inference.prompt.pieces.as_slice()) {
        (Api::Completions, [Piece::Text(text)]) => {
            let prompt = text.text(body).into_owned();
            Some(Question::Completion(CompletionQuestion { model_name, prompt }))
        }
        (Api::ChatCompletions, [_, ..]) => {
            let chat: ChatBody<'_> = serde_json::from_slice(body).ok()?;
            let something = |value: Option<&RawValue>| value.is_some_and(|value| value.get() != "null");
            if something(chat.tools) || chat.messages.iter().any(|message| something(message.tool_calls)) {
                return None;
            }
            let messages = chat.messages.into_iter().map(chat_message).collect::<Option<_>>()?;
            Some(Question::Chat(ChatQuestion {
                model_name,
                messages,
                chat_template: chat.chat_template.unwrap_or_default(),
                add_generation_prompt: Some(chat.add_generation_prompt.unwrap_or(true)),
                continue_final_message: chat.continue_final_message,
                chat_template_kwargs: chat.chat_template_kwargs.map(|value| value.get().to_owned()),
            }))
        }
        _ => None,
    }
}

fn chat_message(message: BodyMessage<'_>) -> Option<ChatMessage> {
    let mut out = ChatMessage { role: message.role, ..ChatMessage::default() };
    match message.content.map(RawValue::get) {
        None | Some("null") => out.content = Some(String::new()),
        Some(text) if text.starts_with('"') => out.content = Some(serde_json::from_str(text).ok()?),
        Some(parts) => {
            out.content_parts = serde_json::from_str(parts).ok()?;
            if !out.content_parts.iter().all(|part| matches!(part.kind.as_str(), "text" | "image_url")) {
                return None;
            }
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::{ParserKind, parse};

    fn ask(path: &str, body: &'static str) -> Option<Question> {
        let body = Bytes::from_static(body.as_bytes());
        question(&parse(ParserKind::OpenAi, path, &body).unwrap(), &body, "m")
    }

    #[test]
    fn one_text_and_chats_without_tools_are_asked_about() {
        let text = ask("/v1/completions", r#"{"prompt":"a\nb"}"#);
        let expected = CompletionQuestion { model_name: "m".to_owned(), prompt: "a\nb".to_owned() };
        assert_eq!(text, Some(Question::Completion(expected)));
        let chat = "/v1/chat/completions";
        let Some(Question::Chat(asked)) = ask(
            chat,
            r#"{"messages":[{"role":"user","content":[{"type":"text","text":"x"},
                {"type":"image_url","image_url":{"url":"u"}}]}],"chat_template_kwargs":{"a":1}}"#,
        ) else {
            panic!("a chat")
        };
        assert!(asked.has_media());
        assert_eq!(
            (asked.add_generation_prompt, asked.chat_template_kwargs.as_deref()),
            (Some(true), Some(r#"{"a":1}"#))
        );
        for (path, body) in [
            ("/v1/completions", r#"{"prompt":["a","b"]}"#),
            ("/v1/completions", r#"{"prompt":[1,2]}"#),
            (chat, r#"{"messages":[{"role":"user","content":"x"}],"tools":[{"type":"function"}]}"#),
            (chat, r#"{"messages":[{"role":"user","content":[{"type":"input_audio"}]}]}"#),
            ("/v1/embeddings", r#"{"input":"x"}"#),
        ] {
            assert_eq!(ask(path, body), None, "{body}");
        }
    }

    #[test]
    fn an_answer_gives_its_tokens_and_spans() {
        let places = Places { ranges: vec![Place { offset: 1, length: 2 }, Place { offset: -1, length: 2 }] };
        let hashes = Hashes { values: vec!["aa".to_owned(), "bb".to_owned()] };
        let features = Features {
            mm_hashes: [("image".to_owned(), hashes)].into(),
            mm_placeholders: [("image".to_owned(), places)].into(),
        };
        let answer = Rendered {
            token_ids: vec![1, 2, 3],
            features: Some(features),
            success: true,
            ..Rendered::default()
        };
        let tokens = answer.clone().tokens().unwrap();
        assert_eq!((tokens.count(), tokens.prompts[0].media.len()), (3, 1));
        assert!(Rendered { success: false, ..answer.clone() }.tokens().is_err());
        assert!(Rendered { token_ids: Vec::new(), ..answer }.tokens().is_err());
    }
}
