//! The start settings of the server whose tokens have to be matched.

use crate::json::{Json, Map};

/// The start settings of the server whose tokens have to be matched.
#[derive(Clone, Debug)]
pub struct ServerProfile {
    /// The second number of vLLM's version, such as 32 for 0.32. The rules are known from 29 on.
    pub version: u32,
    /// The text of `--chat-template`. `None` takes the template of the model.
    pub chat_template: Option<String>,
    /// The value of `--chat-template-content-format`: true for `openai`, false for `string`. `None` takes what the
    /// template expects.
    pub content_parts: Option<bool>,
    /// The object of `--default-chat-template-kwargs`.
    pub default_kwargs: Json,
    /// True if the server has `--exclude-tools-when-tool-choice-none`.
    pub exclude_tools_when_none: bool,
    /// The value of `--max-model-len`, in tokens. Without it, requests that are truncated to it have no exact tokens.
    pub max_model_len: Option<usize>,
    /// True if the server has `--tokenizer-mode hf`, for models whose files would make it use another tokenizer.
    pub force_hf: bool,
    /// True if the server uses `tokenizer.json` unchanged, whatever class `tokenizer_config.json` names.
    pub tokenizer_as_is: bool,
    /// `VLLM_SYSTEM_START_DATE`, the day that gpt-oss is told, as `2026-01-31`; the day of now otherwise.
    pub start_date: Option<String>,
}

impl Default for ServerProfile {
    fn default() -> Self {
        Self {
            version: NEWEST,
            chat_template: None,
            content_parts: None,
            default_kwargs: Json::Map(Map::new()),
            exclude_tools_when_none: false,
            max_model_len: None,
            force_hf: false,
            tokenizer_as_is: false,
            start_date: None,
        }
    }
}

/// The oldest and the newest version whose rules are known.
pub(crate) const OLDEST: u32 = 29;
pub(crate) const NEWEST: u32 = 32;
