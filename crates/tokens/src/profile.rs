//! The profile of the server whose tokens have to be matched.

use crate::json::{Json, Map};

/// The start settings of the server whose tokens have to be matched.
#[derive(Clone, Debug)]
pub struct ServerProfile {
    /// The second number of vLLM's version: 32 for 0.32. From 29 on the rules are known.
    pub version: u32,
    /// `--chat-template`, as text; the one of the model otherwise.
    pub chat_template: Option<String>,
    /// `--chat-template-content-format`: true for `openai`, false for `string`; by the template otherwise.
    pub content_parts: Option<bool>,
    /// `--default-chat-template-kwargs`, an object.
    pub default_kwargs: Json,
    /// `--exclude-tools-when-tool-choice-none`
    pub exclude_tools_when_none: bool,
    /// `--max-model-len`, in tokens. Without it requests that are truncated to it have no exact tokens.
    pub max_model_len: Option<usize>,
    /// `--tokenizer-mode hf`, for models whose files would make the server use another one.
    pub force_hf: bool,
    /// The server takes `tokenizer.json` as it is, whatever the class that `tokenizer_config.json` names.
    pub tokenizer_as_is: bool,
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
        }
    }
}

/// The oldest and the newest version whose rules are known.
pub(crate) const OLDEST: u32 = 29;
pub(crate) const NEWEST: u32 = 32;
