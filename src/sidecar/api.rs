//! The APIs whose requests the sidecar splits, and how the answer of a prefill server is limited to one token.

use bytes::Bytes;
use http::Method;

use crate::request::{Api as Kind, Edits, JsonObject};

/// An API whose requests may have stages on other servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Api {
    /// `/v1/chat/completions`
    Chat,
    /// `/v1/completions`
    Completions,
    /// `/v1/messages`
    Messages,
    /// `/v1/responses`
    Responses,
    /// `/inference/v1/generate`
    Generate,
}

/// The members of a request body that the sidecar reads or sets.
pub(super) const MEMBERS: &[&str] = &[
    "stream",
    "stream_options",
    "max_tokens",
    "max_completion_tokens",
    "min_tokens",
    "max_output_tokens",
    "sampling_params",
    "kv_transfer_params",
    "ec_transfer_params",
    "cache_hit_threshold",
    "bootstrap_host",
    "bootstrap_port",
    "bootstrap_room",
    "messages",
    "continue_final_message",
    "add_generation_prompt",
    "do_remote_decode",
    "do_remote_prefill",
    "remote_block_ids",
    "remote_engine_id",
    "remote_host",
    "remote_port",
    "n",
    "tools",
    "logprobs",
    "top_logprobs",
    "response_format",
];

const LIMITS: &[&str] = &["max_tokens", "min_tokens", "extra_args"];

/// Which limits `Api::cap` sets when the client set none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Caps {
    /// Every limit that the API has, the lower limit included.
    All,
    /// The upper limits of the answer: `max_tokens` and `max_completion_tokens`.
    Bounds,
    /// Only the upper limit that the API cannot do without. The other limits are lowered if the client set them.
    Needed,
}

impl Api {
    /// All APIs.
    pub(super) const ALL: [Self; 5] =
        [Self::Chat, Self::Completions, Self::Messages, Self::Responses, Self::Generate];

    /// Returns the API of a request that may be split, and `None` for every other request. The method must be POST, and
    /// the path must match letter for letter.
    pub(super) fn of(method: &Method, path: &str) -> Option<Self> {
        if method != Method::POST {
            return None;
        }
        Self::ALL.into_iter().find(|api| api.path() == path)
    }

    /// The path of the API's requests.
    pub(super) fn path(self) -> &'static str {
        match self {
            Self::Chat => "/v1/chat/completions",
            Self::Completions => "/v1/completions",
            Self::Messages => "/v1/messages",
            Self::Responses => "/v1/responses",
            Self::Generate => "/inference/v1/generate",
        }
    }

    /// The name of the API in metrics.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Chat => "chat_completions",
            Self::Completions => "completions",
            Self::Messages => "messages",
            Self::Responses => "responses",
            Self::Generate => "generate",
        }
    }

    /// The same API in the list of all APIs that the request reader knows.
    pub(super) fn kind(self) -> Kind {
        match self {
            Self::Chat => Kind::ChatCompletions,
            Self::Completions => Kind::Completions,
            Self::Messages => Kind::Messages,
            Self::Responses => Kind::Responses,
            Self::Generate => Kind::Generate,
        }
    }

    /// Limits the answer of a prefill or encode server to one token: each limit of the API becomes 1. A server refuses
    /// a request whose `min_tokens` is above `max_tokens`, so `min_tokens` becomes 1 wherever the client set it.
    pub(super) fn cap(self, body: &JsonObject, caps: Caps, edits: &mut Edits) {
        let mut one = |name: &'static str, always: bool| {
            if always || body.has(name) {
                edits.set(name, "1");
            }
        };
        match self {
            Self::Chat | Self::Completions => {
                one("max_tokens", true);
                one("max_completion_tokens", caps != Caps::Needed);
                one("min_tokens", caps == Caps::All);
            }
            Self::Messages => {
                one("max_tokens", true);
                one("max_completion_tokens", false);
                one("min_tokens", false);
            }
            Self::Responses => {
                one("max_output_tokens", true);
                one("max_tokens", false);
                one("min_tokens", false);
            }
            Self::Generate => {
                let inner =
                    body.get("sampling_params").and_then(|value| JsonObject::read(value, LIMITS).ok());
                let mut limits = Edits::new();
                limits.set("max_tokens", "1");
                let minimum = inner.as_ref().is_some_and(|inner| inner.has("min_tokens"));
                if caps == Caps::All || minimum {
                    limits.set("min_tokens", "1");
                }
                let empty = || JsonObject::read(Bytes::from_static(b"{}"), LIMITS).ok();
                if let Some(inner) = inner.or_else(empty) {
                    edits.set("sampling_params", inner.edited(&limits).concat());
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn capped(api: Api, caps: Caps, body: &str) -> serde_json::Value {
        let object = JsonObject::read(Bytes::copy_from_slice(body.as_bytes()), MEMBERS).unwrap();
        let mut edits = Edits::new();
        api.cap(&object, caps, &mut edits);
        serde_json::from_slice(&object.edited(&edits).concat()).unwrap()
    }

    #[test]
    fn each_api_is_capped_by_its_own_limits() {
        use serde_json::json;
        for (api, caps, body, expected) in [
            (Api::Chat, Caps::All, "{}", json!({"max_tokens":1,"max_completion_tokens":1,"min_tokens":1})),
            (Api::Chat, Caps::Bounds, "{}", json!({"max_tokens":1,"max_completion_tokens":1})),
            (
                Api::Completions,
                Caps::Needed,
                r#"{"max_completion_tokens":9,"min_tokens":4}"#,
                json!({"max_tokens":1,"max_completion_tokens":1,"min_tokens":1}),
            ),
            (Api::Messages, Caps::All, r#"{"max_tokens":30}"#, json!({"max_tokens":1})),
            (Api::Responses, Caps::All, r#"{"max_output_tokens":64}"#, json!({"max_output_tokens":1})),
            (
                Api::Generate,
                Caps::All,
                r#"{"sampling_params":{"max_tokens":8,"temperature":0}}"#,
                json!({"sampling_params":{"max_tokens":1,"min_tokens":1,"temperature":0}}),
            ),
            (Api::Generate, Caps::Needed, "{}", json!({"sampling_params":{"max_tokens":1}})),
            (
                Api::Generate,
                Caps::Needed,
                r#"{"sampling_params":[]}"#,
                json!({"sampling_params":{"max_tokens":1}}),
            ),
        ] {
            assert_eq!(capped(api, caps, body), expected, "{api:?} {caps:?} {body}");
        }
    }

    #[test]
    fn only_posts_to_the_exact_paths_are_split() {
        for api in Api::ALL {
            assert_eq!(Api::of(&Method::POST, api.path()), Some(api));
            assert_eq!(Api::of(&Method::GET, api.path()), None);
        }
        for path in ["/v1/chat/completions/", "/v1/embeddings", "//v1/completions", "/V1/completions", ""] {
            assert_eq!(Api::of(&Method::POST, path), None, "{path}");
        }
    }
}
