//! Chunked decode: the engine writes the answer to a chat in several calls of a few tokens each, and the client gets
//! one answer. A long answer thus leaves the engine's batch after each chunk, so that other requests get their turn.

use bytes::Bytes;
use http::StatusCode;
use serde_json::{Value, json};

use super::request::Machine;
use super::state::{Chunks, Phase};
use super::types::{Call, Event, Leg, Rewrite};
use crate::request::{Edits, JsonObject, json_elements, json_string};
use crate::sidecar::api::{Api, MEMBERS};
use crate::sidecar::bodies::Pieces;
use crate::sidecar::connector::{Connector, Stage};
use crate::sidecar::outcome::{FailReason, Outcome};

/// The members of a chunk's answer that are read.
const ANSWER: &[&str] = &["id", "created", "model", "object", "choices", "usage"];

impl Machine {
    /// Returns true if the engine answers in several calls. That holds only for chats whose members a joined answer
    /// keeps, and only if the answer may be longer than one chunk.
    pub(super) fn answers_in_chunks(&self) -> bool {
        let settings = self.settings();
        let object = &self.ask.object;
        let own = self.ask.route.prefill.is_empty() || settings.connector == Connector::NixlV2;
        let plain = !["n", "tools", "logprobs", "top_logprobs", "response_format"]
            .iter()
            .any(|name| object.has(name));
        settings.chunk_size > 0
            && self.ask.api == Api::Chat
            && own
            && plain
            && object.has("messages")
            && self.chunk_limit().is_none_or(|limit| limit > settings.chunk_size)
    }

    fn chunk_limit(&self) -> Option<u64> {
        let object = &self.ask.object;
        let limit = object.count("max_completion_tokens").or_else(|| object.count("max_tokens"));
        limit.filter(|limit| *limit > 0)
    }

    /// Asks the engine for the first chunk.
    pub(super) fn chunks(&mut self, body: &Pieces) {
        let Ok(object) = JsonObject::read(Bytes::from(body.concat()), MEMBERS) else { return };
        let chunks = Chunks {
            object,
            limit: self.chunk_limit(),
            used: 0,
            prompt: 0,
            text: String::new(),
            begun: false,
            first: None,
        };
        self.next_chunk(chunks);
    }

    fn next_chunk(&mut self, chunks: Chunks) {
        let left = chunks.limit.map_or(u64::MAX, |limit| limit.saturating_sub(chunks.used));
        let size = self.settings().chunk_size.min(left).to_string();
        let mut edits = Edits::new();
        edits
            .set("max_tokens", size.clone())
            .set("max_completion_tokens", size)
            .set("stream", "false")
            .remove("stream_options");
        if chunks.used > 0 {
            edits
                .remove("kv_transfer_params")
                .set("continue_final_message", "true")
                .set("add_generation_prompt", "false")
                .set("messages", chunks.conversation());
        }
        let request = self.to_engine(chunks.object.edited(&edits));
        self.call(Call::Send(Leg::Decode, Box::new(request)));
        self.phase = Phase::Chunks(Box::new(chunks));
    }

    pub(super) fn on_chunks(&mut self, chunks: Box<Chunks>, event: Event) {
        match event {
            Event::Head(Leg::Decode, status) if status.is_success() => {
                self.call(Call::Collect(Leg::Decode));
                self.phase = Phase::Chunks(chunks);
            }
            Event::Head(Leg::Decode, status) if !chunks.begun => self.relay(status),
            Event::Head(Leg::Decode, _) => self.broken_off(FailReason::Status(Stage::Decode)),
            Event::Failed(Leg::Decode, failure) if !chunks.begun => self.decode_failed(failure),
            Event::Failed(Leg::Decode, failure) => self.broken_off(failure.reason(Stage::Decode)),
            Event::Body(Leg::Decode, body) => self.chunk(*chunks, body),
            _ => self.phase = Phase::Chunks(chunks),
        }
    }

    /// Handles the answer to one chunk: passes on its text, and asks for the next chunk if the answer is not complete.
    fn chunk(&mut self, mut chunks: Chunks, body: Bytes) {
        let Some(answer) = Answer::read(body) else {
            if chunks.begun {
                return self.broken_off(FailReason::Garbage(Stage::Decode));
            }
            return self.refuse(
                FailReason::Garbage(Stage::Decode),
                StatusCode::INTERNAL_SERVER_ERROR,
                "the model server's answer is no chat completion",
            );
        };
        if chunks.used == 0 {
            chunks.prompt = answer.prompt;
        }
        chunks.used += answer.tokens;
        chunks.text.push_str(&answer.text);
        let spent = chunks.limit.is_some_and(|limit| chunks.used >= limit);
        let nothing = answer.tokens == 0;
        let last = answer.finish != "length" || spent || nothing;
        if self.ask.streams() {
            self.stream_chunk(&mut chunks, &answer, last);
        } else if last {
            let document = self.joined(&chunks, &answer);
            self.call(Call::Outcome(self.outcome));
            self.call(Call::Answer(document, "application/json"));
        }
        if !last {
            self.next_chunk(chunks);
        }
    }

    /// The answer to the last chunk, with the text of all chunks and the sum of their tokens.
    fn joined(&self, chunks: &Chunks, last: &Answer) -> Bytes {
        let mut choice = last.choice.clone();
        choice["message"]["content"] = json!(chunks.text);
        let mut edits = Edits::new();
        edits.set("choices", json!([choice]).to_string()).set("usage", self.chunk_usage(chunks).to_string());
        last.object.edited(&edits).concat().into()
    }

    fn chunk_usage(&self, chunks: &Chunks) -> Value {
        let mut usage = json!({
            "prompt_tokens": chunks.prompt,
            "completion_tokens": chunks.used,
            "total_tokens": chunks.prompt + chunks.used,
        });
        if let Rewrite::CachedTokens(cached) = self.rewrite {
            usage["prompt_tokens_details"] = json!({ "cached_tokens": cached });
        }
        usage
    }

    fn stream_chunk(&mut self, chunks: &mut Chunks, answer: &Answer, last: bool) {
        if !std::mem::replace(&mut chunks.begun, true) {
            self.call(Call::Begin("text/event-stream"));
        }
        let field = |name: &str| {
            let value = answer.object.get(name).unwrap_or_default();
            serde_json::from_slice::<Value>(&value).unwrap_or(Value::Null)
        };
        let (id, created) = chunks.first.get_or_insert_with(|| (field("id"), field("created"))).clone();
        let finish = if last { json!(answer.finish) } else { Value::Null };
        let event = |choices: Value, usage: Option<Value>| {
            let mut event = json!({
                "id": id, "object": "chat.completion.chunk", "created": created, "model": field("model"), "choices": choices,
            });
            if let Some(usage) = usage {
                event["usage"] = usage;
            }
            Bytes::from(format!("data: {event}\n\n"))
        };
        let delta = json!({ "role": "assistant", "content": answer.text });
        self.call(Call::Piece(event(json!([{ "index": 0, "delta": delta, "finish_reason": finish }]), None)));
        if last {
            self.call(Call::Piece(event(json!([]), Some(self.chunk_usage(chunks)))));
            self.call(Call::Piece(Bytes::from_static(b"data: [DONE]\n\n")));
            self.call(Call::Outcome(self.outcome));
            self.call(Call::End);
        }
    }

    /// Ends a stream of which the client has got a part with an event that tells of the failure.
    fn broken_off(&mut self, reason: FailReason) {
        let error = json!({ "error": { "message": "the model server failed in the middle of the answer", "type": "BadGateway", "code": 502 } });
        self.call(Call::Outcome(Outcome::Failed(reason)));
        self.call(Call::Piece(Bytes::from(format!("data: {error}\n\n"))));
        self.call(Call::End);
    }
}

impl Chunks {
    /// The client's messages, followed by an assistant message with the text that the engine has written so far.
    fn conversation(&self) -> Bytes {
        let messages = self.object.get("messages").unwrap_or_else(|| Bytes::from_static(b"[]"));
        let written: &[&[u8]] =
            &[b"{\"role\":\"assistant\",\"content\":".as_slice(), &json_string(&self.text), b"}]".as_slice()];
        let end = messages.iter().rposition(|byte| *byte == b']').unwrap_or(messages.len());
        let comma = json_elements(&messages).is_some_and(|elements| !elements.is_empty());
        let mut text = messages[..end].to_vec();
        if comma {
            text.push(b',');
        }
        for part in written {
            text.extend_from_slice(part);
        }
        Bytes::from(text)
    }
}

/// The parts of a chunk's answer that are used.
struct Answer {
    object: JsonObject,
    choice: Value,
    text: String,
    finish: String,
    tokens: u64,
    prompt: u64,
}

impl Answer {
    fn read(body: Bytes) -> Option<Self> {
        let object = JsonObject::read(body, ANSWER).ok()?;
        let choices = json_elements(&object.get("choices")?)?;
        let choice: Value = serde_json::from_slice(choices.first()?).ok()?;
        let usage: Value = object.get("usage").and_then(|usage| serde_json::from_slice(&usage).ok())?;
        Some(Self {
            text: choice["message"]["content"].as_str().unwrap_or_default().to_owned(),
            finish: choice["finish_reason"].as_str().unwrap_or("stop").to_owned(),
            tokens: usage["completion_tokens"].as_u64().unwrap_or(0),
            prompt: usage["prompt_tokens"].as_u64().unwrap_or(0),
            object,
            choice,
        })
    }
}
