//! From a request to its prompts, by API.

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

/// APIs whose prompts are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Api {
    /// `/v1/completions`
    Completions,
    /// `/v1/chat/completions`
    Chat,
    /// `/v1/messages`, Anthropic's
    Messages,
    /// `/v1/responses`, without what the server keeps from earlier requests
    Responses,
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
            "/v1/responses" => Self::Responses,
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

impl Model {
    /// The prompts of a request: `path` without a query, `body` without its content-encoding.
    ///
    /// # Errors
    /// [`Unsupported`], also where the server refuses the request.
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

/// The prompts of a body of `bytes` bytes.
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
