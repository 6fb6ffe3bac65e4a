//! From a request to its prompts, by API.

mod completions;
mod truncation;

use crate::chat;
use crate::encoder::Stop;
use crate::json::{Json, Map, present};
use crate::model::Model;
use crate::unsupported::Unsupported;

pub(crate) use completions::given as given_ids;
pub(crate) use truncation::Truncation;

/// APIs whose prompts are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Api {
    /// `/v1/completions`
    Completions,
    /// `/v1/chat/completions`
    Chat,
    /// `/v1/messages`, Anthropic's
    Messages,
    /// `/inference/v1/generate`: token ids
    Generate,
}

impl Api {
    /// The API of a path without a query.
    pub fn of(path: &str) -> Option<Self> {
        Some(match path.strip_suffix('/').unwrap_or(path) {
            "/v1/completions" => Self::Completions,
            "/v1/chat/completions" => Self::Chat,
            "/v1/messages" | "/v1/messages/count_tokens" => Self::Messages,
            "/inference/v1/generate" => Self::Generate,
            _ => return None,
        })
    }
}

/// The prompts of a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Prompts {
    /// Token ids, prompt by prompt.
    pub ids: Vec<Vec<u32>>,
    /// The server does not read its cache for this request; it still fills it.
    pub skips_cache: bool,
}

impl Prompts {
    /// Tokens of all prompts together.
    pub fn count(&self) -> usize {
        self.ids.iter().map(Vec::len).sum()
    }
}

/// The prompts of a body of `bytes` bytes.
pub(crate) fn prompts(
    model: &Model,
    api: Api,
    body: &Map,
    bytes: usize,
    stop: Stop<'_>,
) -> Result<Prompts, Unsupported> {
    let ids = match api {
        Api::Completions => completions::prompts(model, body, stop)?,
        Api::Chat => vec![chat::prompt(model, body, bytes, stop)?],
        Api::Messages => vec![chat::anthropic_prompt(model, body, bytes, stop)?],
        Api::Generate => vec![given_ids(model, body.get("token_ids"), "token_ids")?],
    };
    if ids.iter().any(Vec::is_empty) {
        return Err(Unsupported::refused("prompt", "has no tokens"));
    }
    if let Some(most) = model.profile.max_model_len
        && ids.iter().any(|ids| ids.len() > most)
    {
        return Err(Unsupported::refused("prompt", "is longer than the server's context"));
    }
    Ok(Prompts { ids, skips_cache: present(body, "prompt_logprobs").is_some() })
}

/// A flag that is there, or `otherwise`.
pub(crate) fn flag(body: &Map, field: &'static str, otherwise: bool) -> Result<bool, Unsupported> {
    match body.get(field) {
        None => Ok(otherwise),
        Some(Json::Bool(flag)) => Ok(*flag),
        Some(_) => Err(Unsupported::refused(field, "is neither true nor false")),
    }
}
