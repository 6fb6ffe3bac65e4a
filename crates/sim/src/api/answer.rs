//! Answers as JSON bodies and as event streams.

use std::fmt::Write as _;

use super::ask::{Ask, Dialect};
use super::json::quoted;
use crate::driver::Progress;
use crate::engine::tokens;

/// The parts of an answer that are known when the request is read.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    dialect: Dialect,
    /// The id of the answer, as a JSON string.
    id: String,
    /// The name of the model, as a JSON string.
    model: String,
    /// The time in seconds since 1970.
    created: u64,
    prompt_tokens: usize,
    max_tokens: u32,
    stops_by_itself: bool,
    /// The number that chooses the words of the answer.
    seed: u64,
    include_usage: bool,
    /// True if too little of the prompt is cached, so that nothing is computed.
    below_threshold: bool,
    /// The `kv_transfer_params` as JSON.
    kv_params: String,
    /// The `ec_transfer_params` as JSON.
    ec_params: Option<String>,
}

/// The server that answers, as the answer names it to other servers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sender<'s> {
    /// The name of the server's engine.
    pub(crate) engine: &'s str,
    /// The host under which the client called the server.
    pub(crate) host: &'s str,
    /// The number of tokens in a block.
    pub(crate) block_size: usize,
}

impl Answer {
    /// Makes the answer of `sender` to `ask`. `unique` becomes part of the answer's id.
    pub(crate) fn new(ask: &Ask, unique: &str, created: u64, sender: Sender<'_>) -> Self {
        let prefix = match ask.dialect {
            Dialect::Completions => "cmpl",
            Dialect::Chat => "chatcmpl",
            Dialect::Responses => "resp",
            Dialect::Messages => "msg",
        };
        let prompt_tokens = ask.submission.prompt.len();
        let blocks = prompt_tokens.div_ceil(sender.block_size.max(1));
        let handoff = &ask.handoff;
        Self {
            below_threshold: false,
            kv_params: handoff.kv_params(sender.engine, sender.host, unique, blocks, prompt_tokens),
            ec_params: handoff.ec_params(sender.host),
            dialect: ask.dialect,
            id: quoted(&format!("{prefix}-{unique}")),
            model: quoted(&ask.model),
            created,
            prompt_tokens,
            max_tokens: ask.submission.max_tokens,
            stops_by_itself: ask.submission.stops_by_itself,
            seed: ask.submission.answer_seed,
            include_usage: ask.include_usage,
        }
    }

    /// Returns the same answer without tokens, because too little of the prompt is cached.
    pub(crate) fn below_threshold(self) -> Self {
        Self { max_tokens: 0, below_threshold: true, ..self }
    }

    /// The event stream of an answer without tokens.
    pub(crate) fn stream_without_tokens(&self, progress: Progress) -> String {
        let finish = self.finish_reason();
        let end = match self.dialect {
            Dialect::Chat => self.chat_chunk("{}", Some(finish)),
            Dialect::Completions => self.completion_chunk(&quoted(""), &quoted(finish)),
            Dialect::Responses | Dialect::Messages => String::new(),
        };
        self.opening() + &end + &self.closing(progress)
    }

    /// The number of tokens of the whole answer.
    pub(crate) fn tokens(&self) -> u32 {
        self.max_tokens
    }

    /// The JSON body of an answer that is not streamed.
    pub(crate) fn whole(&self, progress: Progress) -> String {
        let (id, model, created) = (&self.id, &self.model, self.created);
        let (text, finish, usage) = (quoted(&self.text()), self.finish_reason(), self.usage(progress));
        let (kv, ec) = (&self.kv_params, self.ec_member());
        match self.dialect {
            Dialect::Completions => format!(
                r#"{{"id":{id},"object":"text_completion","created":{created},"model":{model},"choices":[{{"index":0,"text":{text},"logprobs":null,"finish_reason":"{finish}","stop_reason":null,"prompt_logprobs":null}}],"service_tier":null,"system_fingerprint":null,"usage":{usage},"kv_transfer_params":{kv}{ec}}}"#
            ),
            Dialect::Chat => format!(
                r#"{{"id":{id},"object":"chat.completion","created":{created},"model":{model},"choices":[{{"index":0,"message":{{"role":"assistant","content":{text},"refusal":null,"annotations":null,"audio":null,"function_call":null,"tool_calls":[],"reasoning":null}},"logprobs":null,"finish_reason":"{finish}","stop_reason":null,"token_ids":null}}],"service_tier":null,"system_fingerprint":null,"usage":{usage},"prompt_logprobs":null,"prompt_token_ids":null,"kv_transfer_params":{kv}{ec}}}"#
            ),
            Dialect::Responses => self.response_object("completed", Some(progress)),
            Dialect::Messages => format!(
                r#"{{"id":{id},"type":"message","role":"assistant","content":[{{"type":"text","text":{text}}}],"model":{model},"stop_reason":"{finish}","stop_sequence":null,"usage":{usage},"kv_transfer_params":{kv}{ec}}}"#
            ),
        }
    }

    /// The member `,"ec_transfer_params":…`, or an empty text.
    fn ec_member(&self) -> String {
        self.ec_params
            .as_ref()
            .map_or_else(String::new, |params| format!(r#","ec_transfer_params":{params}"#))
    }

    /// The events before the first token.
    pub(crate) fn opening(&self) -> String {
        let (id, model) = (&self.id, &self.model);
        match self.dialect {
            Dialect::Completions => String::new(),
            Dialect::Chat => self.chat_chunk(r#"{"role":"assistant","content":""}"#, None),
            Dialect::Responses => {
                let response = self.response_object("in_progress", None);
                event("response.created", &format!(r#","response":{response}"#))
            }
            Dialect::Messages => {
                let usage = format!(r#"{{"input_tokens":{},"output_tokens":0}}"#, self.prompt_tokens);
                let message = format!(
                    r#","message":{{"id":{id},"type":"message","role":"assistant","content":[],"model":{model},"stop_reason":null,"stop_sequence":null,"usage":{usage}}}"#
                );
                let block = r#","index":0,"content_block":{"type":"text","text":""}"#;
                event("message_start", &message) + &event("content_block_start", block)
            }
        }
    }

    /// The event of the token with this index. The event of the last token says why the answer ends.
    pub(crate) fn token(&self, index: u32) -> String {
        let text = quoted(&self.piece(index));
        let finish = (index + 1 == self.max_tokens).then(|| self.finish_reason());
        match self.dialect {
            Dialect::Completions => {
                self.completion_chunk(&text, &finish.map_or_else(|| "null".to_owned(), quoted))
            }
            Dialect::Chat => self.chat_chunk(&format!(r#"{{"content":{text}}}"#), finish),
            Dialect::Responses => event(
                "response.output_text.delta",
                &format!(r#","item_id":"msg_0","output_index":0,"content_index":0,"delta":{text}"#),
            ),
            Dialect::Messages => event(
                "content_block_delta",
                &format!(r#","index":0,"delta":{{"type":"text_delta","text":{text}}}"#),
            ),
        }
    }

    /// The events after the last token.
    pub(crate) fn closing(&self, progress: Progress) -> String {
        let (id, model, created) = (&self.id, &self.model, self.created);
        let usage = self.usage(progress);
        let object = match self.dialect {
            Dialect::Completions => "text_completion",
            Dialect::Chat => "chat.completion.chunk",
            Dialect::Responses => {
                let response = self.response_object("completed", Some(progress));
                return event("response.completed", &format!(r#","response":{response}"#));
            }
            Dialect::Messages => {
                let finish = self.finish_reason();
                let delta =
                    format!(r#","delta":{{"stop_reason":"{finish}","stop_sequence":null}},"usage":{usage}"#);
                return event("content_block_stop", r#","index":0"#)
                    + &event("message_delta", &delta)
                    + &event("message_stop", "");
            }
        };
        let mut out = String::new();
        if self.include_usage {
            // Writing to a string cannot fail.
            let _ = write!(
                out,
                "data: {{\"id\":{id},\"object\":\"{object}\",\"created\":{created},\"model\":{model},\"choices\":[],\"usage\":{usage}}}\n\n"
            );
        }
        out.push_str("data: [DONE]\n\n");
        out
    }

    /// The event of a completion. `text` and `finish` are JSON.
    fn completion_chunk(&self, text: &str, finish: &str) -> String {
        let (id, model, created) = (&self.id, &self.model, self.created);
        format!(
            "data: {{\"id\":{id},\"object\":\"text_completion\",\"created\":{created},\"model\":{model},\"choices\":[{{\"index\":0,\"text\":{text},\"logprobs\":null,\"finish_reason\":{finish},\"stop_reason\":null}}],\"usage\":null}}\n\n"
        )
    }

    fn chat_chunk(&self, delta: &str, finish: Option<&str>) -> String {
        let (id, model, created) = (&self.id, &self.model, self.created);
        let finish =
            finish.map_or_else(|| "null".to_owned(), |reason| format!("\"{reason}\",\"stop_reason\":null"));
        format!(
            "data: {{\"id\":{id},\"object\":\"chat.completion.chunk\",\"created\":{created},\"model\":{model},\"choices\":[{{\"index\":0,\"delta\":{delta},\"logprobs\":null,\"finish_reason\":{finish},\"token_ids\":null}}]}}\n\n"
        )
    }

    fn response_object(&self, status: &str, done: Option<Progress>) -> String {
        let (id, model, created) = (&self.id, &self.model, self.created);
        let (output, usage) = match done {
            None => (String::new(), "null".to_owned()),
            Some(progress) => {
                let text = quoted(&self.text());
                let output = format!(
                    r#"{{"id":"msg_0","type":"message","role":"assistant","status":"completed","content":[{{"type":"output_text","text":{text},"annotations":[],"logprobs":null}}]}}"#
                );
                (output, self.usage(progress))
            }
        };
        format!(
            r#"{{"id":{id},"object":"response","created_at":{created},"status":"{status}","model":{model},"output":[{output}],"usage":{usage},"kv_transfer_params":{}{}}}"#,
            self.kv_params,
            self.ec_member()
        )
    }

    fn usage(&self, progress: Progress) -> String {
        let (prompt, answer, cached) = (self.prompt_tokens, self.max_tokens, progress.cached_tokens);
        let total = prompt + answer as usize;
        match self.dialect {
            Dialect::Completions | Dialect::Chat => format!(
                r#"{{"prompt_tokens":{prompt},"total_tokens":{total},"completion_tokens":{answer},"prompt_tokens_details":{{"cached_tokens":{cached}}}}}"#
            ),
            Dialect::Responses => format!(
                r#"{{"input_tokens":{prompt},"input_tokens_details":{{"cached_tokens":{cached}}},"output_tokens":{answer},"output_tokens_details":{{"reasoning_tokens":0}},"total_tokens":{total}}}"#
            ),
            Dialect::Messages => format!(
                r#"{{"input_tokens":{},"cache_read_input_tokens":{cached},"output_tokens":{answer}}}"#,
                prompt.saturating_sub(cached)
            ),
        }
    }

    fn finish_reason(&self) -> &'static str {
        if self.below_threshold {
            return "cache_threshold";
        }
        match (self.dialect, self.stops_by_itself) {
            (Dialect::Messages, true) => "end_turn",
            (Dialect::Messages, false) => "max_tokens",
            (_, true) => "stop",
            (_, false) => "length",
        }
    }

    fn text(&self) -> String {
        (0..self.max_tokens).map(|index| self.piece(index)).collect()
    }

    /// The text of one token: a space and a word. The first token of a chat message has no space, because the chat
    /// template adds it.
    fn piece(&self, index: u32) -> String {
        let blank = if index == 0 && self.dialect != Dialect::Completions { "" } else { " " };
        format!("{blank}{}", tokens::word(self.seed, index))
    }
}

/// An event with a name. `fields` follow its type.
fn event(name: &str, fields: &str) -> String {
    format!("event: {name}\ndata: {{\"type\":\"{name}\"{fields}}}\n\n")
}
