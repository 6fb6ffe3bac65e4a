//! Turns a request into its prompts, for each API.

mod completions;
mod fields;
mod truncation;

use crate::chat;
use crate::encoder::Stop;
use crate::json::{Json, Map, present};
use crate::model::Model;
use crate::unsupported::Unsupported;

pub(crate) use completions::given as given_ids;
pub(crate) use fields::flag;
pub(crate) use truncation::Truncation;

/// The APIs for which prompts are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Api {
    /// `/v1/completions`
    Completions,
    /// `/v1/chat/completions`
    Chat,
    /// Anthropic's `/v1/messages`.
    Messages,
    /// `/v1/responses`, except for requests that use state which the server keeps.
    Responses,
    /// `/inference/v1/generate`, whose prompt is token ids.
    Generate,
}

impl Api {
    /// The API of a path without a query; `None` for any other path.
    pub fn of(path: &str) -> Option<Self> {
        Some(match path.strip_suffix('/').unwrap_or(path) {
            "/v1/completions" => Self::Completions,
            "/v1/chat/completions" => Self::Chat,
            "/v1/messages" | "/v1/messages/count_tokens" => Self::Messages,
            "/v1/responses" => Self::Responses,
            "/inference/v1/generate" => Self::Generate,
            _ => return None,
        })
    }
}

/// The prompts of a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Prompts {
    /// The token ids of each prompt.
    pub ids: Vec<Vec<u32>>,
    /// True if the server does not read its cache for this request. It still fills the cache.
    pub skips_cache: bool,
}

impl Prompts {
    /// The number of tokens of all prompts together.
    pub fn count(&self) -> usize {
        self.ids.iter().map(Vec::len).sum()
    }
}

impl Model {
    /// Makes the prompts of a request. `path` has no query, and `body` no content encoding.
    ///
    /// # Errors
    /// Returns [`Unsupported`] if the tokens are not known, or if the server refuses the request.
    pub fn prepare(&self, path: &str, body: &[u8], stop: Stop<'_>) -> Result<Prompts, Unsupported> {
        let api = Api::of(path).ok_or_else(|| Unsupported::Path(path.chars().take(200).collect()))?;
        if body.len() > self.limits.body_bytes {
            let most = self.limits.body_bytes;
            return Err(Unsupported::TooLarge { what: "the body in bytes", got: body.len(), most });
        }
        let json = Json::parse(body)?;
        let body_map = json.map().ok_or_else(|| Unsupported::refused("(body)", "is no object"))?;
        prompts(self, api, body_map, body.len(), stop)
    }
}

/// Makes the prompts of a body of `bytes` bytes.
fn prompts(
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
        Api::Responses => vec![chat::responses_prompt(model, body, bytes, stop)?],
        Api::Generate => vec![given_ids(model, body.get("token_ids"), "token_ids")?],
    };
    if ids.iter().any(Vec::is_empty) {
        return Err(Unsupported::refused("prompt", "has no tokens"));
    }
    if let Some(most) = model.profile.max_model_len
        && ids.iter().any(|ids| ids.len() >= most)
    {
        return Err(Unsupported::refused("prompt", "leaves no room for an answer in the server's context"));
    }
    Ok(Prompts { ids, skips_cache: present(body, "prompt_logprobs").is_some() })
}
