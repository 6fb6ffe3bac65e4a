//! Reads `tokenizer_config.json`, together with the older files that add to it.

use std::sync::Arc;

use super::LoadError;
use crate::json::{Json, Map, present};

const FILE: &str = "tokenizer_config.json";

/// The names of special tokens, in the order in which templates get them.
pub(crate) const NAMES: [&str; 7] =
    ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

/// The settings that the server reads from `tokenizer_config.json`.
#[derive(Clone, Debug, Default)]
pub(crate) struct TokenizerConfig {
    /// The class of the tokenizer.
    pub(crate) class: Option<String>,
    /// The special tokens that have a name.
    pub(crate) special: Vec<(&'static str, Arc<str>)>,
    /// The special tokens without a name.
    extra: Vec<Arc<str>>,
    /// The tokens that the configuration adds, by id.
    pub(crate) added: Vec<(u32, Added)>,
    /// Whether BOS and EOS are put around texts; `None` if the configuration says neither.
    around: Option<(bool, bool)>,
    /// The templates by name. A single template has the name `default`.
    pub(crate) templates: Vec<(String, String)>,
    /// True if the tokenizer is code in the repository.
    pub(crate) remote_code: bool,
}

/// A token of `added_tokens_decoder`.
#[derive(Clone, Debug)]
pub(crate) struct Added {
    pub(crate) content: String,
    pub(crate) single_word: bool,
    pub(crate) lstrip: bool,
    pub(crate) rstrip: bool,
    pub(crate) normalized: bool,
    pub(crate) special: bool,
}

impl TokenizerConfig {
    /// Reads `tokenizer_config.json`. `older` is `special_tokens_map.json`, whose values count only where the first
    /// file has none.
    ///
    /// # Errors
    /// [`LoadError`] for a field of another type.
    pub(crate) fn new(config: &Map, older: &Map) -> Result<Self, LoadError> {
        let mut special = Vec::new();
        for name in NAMES {
            let token = config.get(name).or_else(|| older.get(name)).filter(|token| !token.is_null());
            if let Some(token) = token {
                special.push((name, token_text(name, token)?));
            }
        }
        Ok(Self {
            class: text(config, "tokenizer_class")?,
            special,
            extra: extra_tokens(config)?,
            added: added_tokens(config)?,
            around: around(config)?,
            templates: templates(config)?,
            remote_code: config
                .get("auto_map")
                .and_then(Json::map)
                .is_some_and(|map| map.contains_key("AutoTokenizer")),
        })
    }

    /// All special tokens.
    pub(crate) fn special_tokens(&self) -> impl Iterator<Item = &str> {
        self.special.iter().map(|(_, token)| &**token).chain(self.extra.iter().map(|token| &**token))
    }

    /// The tokens before and after a text, if the configuration sets them. The server leaves out a token that has no
    /// name.
    pub(crate) fn frame(&self) -> Option<(Vec<&str>, Vec<&str>)> {
        let (bos, eos) = self.around?;
        let token = |wanted: bool, name: &str| {
            let named = self.special.iter().filter(|(each, _)| wanted && *each == name);
            named.map(|(_, token)| &**token).collect()
        };
        Some((token(bos, "bos_token"), token(eos, "eos_token")))
    }
}

fn wrong(field: &str, reason: &str) -> LoadError {
    LoadError::new(FILE, field, reason)
}

fn text(config: &Map, field: &str) -> Result<Option<String>, LoadError> {
    match present(config, field) {
        None => Ok(None),
        Some(Json::Text(text)) => Ok(Some(text.to_string())),
        Some(_) => Err(wrong(field, "is no text")),
    }
}

/// The text of a token, which is a text or an object with `content`.
fn token_text(field: &str, token: &Json) -> Result<Arc<str>, LoadError> {
    let content = token.map().and_then(|token| token.get("content")).unwrap_or(token);
    content.text().cloned().ok_or_else(|| wrong(field, "is neither text nor an object with content"))
}

fn extra_tokens(config: &Map) -> Result<Vec<Arc<str>>, LoadError> {
    let mut tokens = Vec::new();
    for field in ["additional_special_tokens", "extra_special_tokens"] {
        match present(config, field) {
            None => {}
            Some(Json::List(list)) => {
                for token in list {
                    tokens.push(token_text(field, token)?);
                }
            }
            Some(Json::Map(map)) => {
                for token in map.values() {
                    tokens.push(token_text(field, token)?);
                }
            }
            Some(_) => return Err(wrong(field, "is neither a list nor an object")),
        }
    }
    Ok(tokens)
}

fn added_tokens(config: &Map) -> Result<Vec<(u32, Added)>, LoadError> {
    const FIELD: &str = "added_tokens_decoder";
    let Some(tokens) = present(config, FIELD) else { return Ok(Vec::new()) };
    let tokens = tokens.map().ok_or_else(|| wrong(FIELD, "is no object"))?;
    let mut added = Vec::new();
    for (id, token) in tokens {
        let id = id.parse().map_err(|_| wrong(FIELD, "has a key that is no id"))?;
        let content = token_text(FIELD, token)?;
        let flag = |name: &str, otherwise: bool| match token.map().and_then(|token| token.get(name)) {
            Some(Json::Bool(flag)) => *flag,
            _ => otherwise,
        };
        let special = flag("special", false);
        added.push((
            id,
            Added {
                content: content.to_string(),
                single_word: flag("single_word", false),
                lstrip: flag("lstrip", false),
                rstrip: flag("rstrip", false),
                normalized: flag("normalized", !special),
                special,
            },
        ));
    }
    Ok(added)
}

fn around(config: &Map) -> Result<Option<(bool, bool)>, LoadError> {
    let flag = |field: &'static str| match config.get(field) {
        None => Ok(None),
        Some(Json::Null) => Ok(Some(false)),
        Some(Json::Bool(flag)) => Ok(Some(*flag)),
        Some(_) => Err(wrong(field, "is neither true nor false")),
    };
    Ok(match (flag("add_bos_token")?, flag("add_eos_token")?) {
        (None, None) => None,
        (bos, eos) => Some((bos.unwrap_or(false), eos.unwrap_or(false))),
    })
}

fn templates(config: &Map) -> Result<Vec<(String, String)>, LoadError> {
    const FIELD: &str = "chat_template";
    match present(config, FIELD) {
        None => Ok(Vec::new()),
        Some(Json::Text(text)) => Ok(vec![("default".to_owned(), text.to_string())]),
        Some(Json::List(list)) => list
            .iter()
            .map(|entry| {
                let part = |name: &str| entry.map()?.get(name)?.text().map(ToString::to_string);
                part("name")
                    .zip(part("template"))
                    .ok_or_else(|| wrong(FIELD, "has an entry without name and template"))
            })
            .collect(),
        Some(_) => Err(wrong(FIELD, "is neither text nor a list of templates")),
    }
}
