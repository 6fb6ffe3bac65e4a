//! Prompts that are text or token ids.

use super::{Truncation, flag};
use crate::encoder::Stop;
use crate::json::{Json, Map, present};
use crate::model::Model;
use crate::unsupported::Unsupported;

/// The most prompts of a request for which tokens are made.
const MOST_PROMPTS: usize = 1024;

pub(super) fn prompts(model: &Model, body: &Map, stop: Stop<'_>) -> Result<Vec<Vec<u32>>, Unsupported> {
    if present(body, "prompt_embeds").is_some() {
        return Err(Unsupported::Media("prompt_embeds"));
    }
    if present(body, "suffix").is_some() {
        return Err(Unsupported::refused("suffix", "is not supported by the server"));
    }
    let special = flag(body, "add_special_tokens", true)?;
    // A completion always has a limit of tokens, because the server sets a default.
    let truncation = Truncation::of(body, &model.profile, true)?;
    let text = |text: &str| truncation.encode(&model.encoder, text, special, stop);
    match body.get("prompt") {
        Some(Json::Text(prompt)) if prompt.is_empty() => Err(Unsupported::refused("prompt", "is empty")),
        Some(Json::Text(prompt)) => Ok(vec![text(prompt)?]),
        Some(Json::List(items)) => match items.first() {
            Some(Json::Text(_)) => {
                bounded(items)?;
                let prompt = |item: &Json| text(item.text().ok_or_else(mixed)?);
                items.iter().map(prompt).collect()
            }
            Some(Json::Int(_)) => Ok(vec![truncation.cut(ids(model, items, "prompt")?)]),
            Some(Json::List(_)) => {
                bounded(items)?;
                let prompt = |item: &Json| {
                    let ids = ids(model, item.list().ok_or_else(mixed)?, "prompt")?;
                    Ok(truncation.cut(ids))
                };
                items.iter().map(prompt).collect()
            }
            _ => Err(Unsupported::refused(
                "prompt",
                "is an empty list, or one of other things than texts and ids",
            )),
        },
        _ => Err(Unsupported::refused("prompt", "is neither text nor a list")),
    }
}

fn bounded(items: &[Json]) -> Result<(), Unsupported> {
    if items.len() > MOST_PROMPTS {
        return Err(Unsupported::TooLarge {
            what: "the number of prompts",
            got: items.len(),
            most: MOST_PROMPTS,
        });
    }
    Ok(())
}

fn mixed() -> Unsupported {
    Unsupported::refused("prompt", "mixes texts and ids")
}

/// The token ids of a field that contains nothing else.
pub(crate) fn given(
    model: &Model,
    field: Option<&Json>,
    name: &'static str,
) -> Result<Vec<u32>, Unsupported> {
    let items =
        field.and_then(Json::list).ok_or_else(|| Unsupported::refused(name, "is no list of token ids"))?;
    ids(model, items, name)
}

fn ids(model: &Model, items: &[Json], name: &'static str) -> Result<Vec<u32>, Unsupported> {
    let id = |item: &Json| match item {
        Json::Int(id) => u32::try_from(*id).ok().filter(|id| *id <= model.max_id),
        _ => None,
    };
    let ids: Option<Vec<u32>> = items.iter().map(id).collect();
    ids.ok_or_else(|| Unsupported::refused(name, "has an item that is no id of the vocabulary"))
}
