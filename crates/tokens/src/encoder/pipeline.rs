//! The changes that the server makes to a `tokenizer.json`: added tokens, tokenizer classes with a pipeline of their
//! own, BOS and EOS.

use serde_json::{Map, Value, json};

use super::frame::Frame;
use crate::files::TokenizerConfig;

/// A tokenizer that is ready to be loaded.
pub(crate) struct Pipeline {
    /// The content of the file, in the form that the encoder reads.
    pub(super) canonical: String,
    /// The ids around a text, if they are not those of the file.
    pub(super) frame: Option<Frame>,
    /// The largest token id.
    pub(crate) max_id: u32,
}

/// Why a tokenizer cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Flaw {
    /// The field of `tokenizer.json`.
    pub(crate) field: String,
    /// What is wrong with the field.
    pub(crate) reason: String,
}

impl Flaw {
    pub(super) fn new(field: &str, reason: impl Into<String>) -> Self {
        Self { field: field.to_owned(), reason: reason.into() }
    }
}

/// A number of ids that no vocabulary reaches.
const MOST_IDS: u64 = 1 << 24;

impl Pipeline {
    /// Reads the file. `as_is` says that the server uses the file unchanged, whatever the tokenizer class.
    ///
    /// # Errors
    /// [`Flaw`]
    pub(crate) fn new(file: &str, config: &TokenizerConfig, as_is: bool) -> Result<Self, Flaw> {
        let mut document: Value = serde_json::from_str(file)
            .map_err(|error| Flaw::new("(whole file)", format!("no JSON: {error}")))?;
        if !as_is {
            check_class(&document, config.class.as_deref())?;
        }
        max_id(&document)?;
        add_tokens(&mut document, config)?;
        let max_id = max_id(&document)?;
        let frame = match config.frame() {
            None => None,
            Some((before, after)) => {
                let ids = |tokens: Vec<&str>| -> Result<Vec<u32>, Flaw> {
                    tokens.into_iter().map(|token| known(&document, token)).collect()
                };
                Some(Frame { before: ids(before)?, after: ids(after)? })
            }
        };
        tokenizers::canonicalize_value(&mut document)
            .map_err(|error| Flaw::new("(whole file)", error.to_string()))?;
        Ok(Self { canonical: document.to_string(), frame, max_id })
    }
}

/// The id of a token.
fn id_of(document: &Value, token: &str) -> Option<u32> {
    let added = document.get("added_tokens").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let added = added.iter().find(|each| each.get("content").and_then(Value::as_str) == Some(token));
    let id = added.and_then(|each| each.get("id")).or_else(|| document.pointer("/model/vocab")?.get(token));
    u32::try_from(id?.as_u64()?).ok()
}

fn known(document: &Value, token: &str) -> Result<u32, Flaw> {
    id_of(document, token).ok_or_else(|| {
        Flaw::new("model.vocab", format!("has no token {token:?}, which tokenizer_config.json names"))
    })
}

/// Adds the tokens that only the configuration contains.
fn add_tokens(document: &mut Value, config: &TokenizerConfig) -> Result<(), Flaw> {
    let mut missing = Vec::new();
    let added = document.get("added_tokens").and_then(Value::as_array).cloned().unwrap_or_default();
    let is_added =
        |token: &str| added.iter().any(|each| each.get("content").and_then(Value::as_str) == Some(token));
    for (id, token) in &config.added {
        if !is_added(&token.content) {
            missing.push(json!({
                "id": id, "content": token.content, "single_word": token.single_word, "lstrip": token.lstrip,
                "rstrip": token.rstrip, "normalized": token.normalized, "special": token.special,
            }));
        }
    }
    for token in config.special_tokens() {
        let comes =
            missing.iter().any(|each: &Value| each.get("content").and_then(Value::as_str) == Some(token));
        if !is_added(token) && !comes {
            let id = known(document, token)?;
            missing.push(json!({
                "id": id, "content": token, "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": false, "special": true,
            }));
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    let mut all = added;
    all.extend(missing);
    all.sort_by_key(|token| token.get("id").and_then(Value::as_u64));
    let document = document.as_object_mut().ok_or_else(|| Flaw::new("(whole file)", "no object"))?;
    document.insert("added_tokens".to_owned(), Value::Array(all));
    Ok(())
}

fn max_id(document: &Value) -> Result<u32, Flaw> {
    let vocabulary = match document.pointer("/model/vocab") {
        Some(Value::Object(entries)) => entries.values().filter_map(Value::as_u64).max(),
        Some(Value::Array(entries)) => (entries.len() as u64).checked_sub(1),
        _ => return Err(Flaw::new("model.vocab", "is missing")),
    };
    let added = document.get("added_tokens").and_then(Value::as_array).into_iter().flatten();
    let added = added.filter_map(|token| token.get("id")?.as_u64()).max();
    let largest = vocabulary.max(added).unwrap_or(0);
    if largest >= MOST_IDS {
        return Err(Flaw::new("model.vocab", format!("has the id {largest}, and ids are below {MOST_IDS}")));
    }
    Ok(largest as u32)
}

/// The tokenizer classes that use the file unchanged.
const GENERIC: [&str; 2] = ["PreTrainedTokenizer", "TokenizersBackend"];

/// The pattern by which Qwen's class splits text into words.
const QWEN_WORDS: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// Checks a class that builds a pipeline of its own around vocabulary and merges. It is accepted if its pipeline is
/// that of the file.
fn check_class(document: &Value, class: Option<&str>) -> Result<(), Flaw> {
    let Some(class) = class else {
        return Err(Flaw::new(
            "pre_tokenizer",
            "tokenizer_config.json names no tokenizer_class, so what the server builds is not known",
        ));
    };
    let class = class.strip_suffix("Fast").unwrap_or(class);
    if GENERIC.contains(&class) {
        return Ok(());
    }
    let byte_level =
        |use_regex: bool| json!({"type": "ByteLevel", "add_prefix_space": false, "use_regex": use_regex});
    let (normalizer, words) = match class {
        "Qwen2Tokenizer" => {
            let split = json!({"type": "Split", "pattern": {"Regex": QWEN_WORDS}, "behavior": "Isolated", "invert": false});
            (json!({"type": "NFC"}), json!({"type": "Sequence", "pretokenizers": [split, byte_level(false)]}))
        }
        "GPT2Tokenizer" => (Value::Null, byte_level(true)),
        "GPTNeoXTokenizer" => (json!({"type": "NFC"}), byte_level(true)),
        "GemmaTokenizer" => (
            json!({"type": "Replace", "pattern": {"String": " "}, "content": "▁"}),
            json!({"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": false}),
        ),
        _ => {
            let reason = format!("the class {class} builds a pipeline of its own, which is not known");
            return Err(Flaw::new("pre_tokenizer", reason));
        }
    };
    for (field, wanted) in [("normalizer", normalizer), ("pre_tokenizer", words)] {
        if simplified(document.get(field).unwrap_or(&Value::Null)) != wanted {
            return Err(Flaw::new(
                field,
                format!("is not what the class {class} builds, which the server uses instead"),
            ));
        }
    }
    Ok(())
}

/// A component of the pipeline, without the parts that do not change ids.
fn simplified(component: &Value) -> Value {
    match component {
        Value::Object(fields) => {
            let kept = fields.iter().filter(|(name, _)| *name != "trim_offsets");
            Value::Object(kept.map(|(name, value)| (name.clone(), simplified(value))).collect::<Map<_, _>>())
        }
        Value::Array(items) => Value::Array(items.iter().map(simplified).collect()),
        other => other.clone(),
    }
}
