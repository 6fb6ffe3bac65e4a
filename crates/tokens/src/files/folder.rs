//! Reads the folder of a model. The size of every file is bounded.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use super::{LoadError, TokenizerConfig};
use crate::json::{Json, Map};

/// The largest size of a file other than the tokenizer, in bytes.
const SMALL_FILE: u64 = 4 << 20;

/// The files of a model's folder.
pub(crate) struct ModelFiles {
    /// The content of `tokenizer.json`.
    pub(crate) tokenizer: String,
    /// The settings of `tokenizer_config.json` and of the older files beside it.
    pub(crate) config: TokenizerConfig,
    /// The architectures in `config.json`.
    pub(crate) architectures: Vec<String>,
    /// The size of the vocabulary in `config.json`.
    pub(crate) vocabulary: Option<u32>,
    /// The content of `chat_template.jinja`.
    pub(crate) template: Option<String>,
    /// The `chat_template` of `chat_template.json`, which the processors of multimodal models have.
    pub(crate) processor_template: Option<String>,
    /// The content of `additional_chat_templates/tool_use.jinja`.
    pub(crate) tool_template: Option<String>,
    /// True if a file shows that the model has a processor for images or sounds.
    pub(crate) processor: bool,
    /// The name of a file that makes the server use Mistral's encoder.
    pub(crate) mistral: Option<String>,
}

/// Reads the folder of a model. `most` bounds `tokenizer.json`, in bytes.
///
/// # Errors
/// [`LoadError`] for a file that is missing, too large, or not understood.
pub(crate) fn read(folder: &Path, most: u64) -> Result<ModelFiles, LoadError> {
    let text = |name: &str| optional(folder, name, SMALL_FILE);
    let tokenizer = optional(folder, "tokenizer.json", most)?.ok_or_else(|| {
        LoadError::whole(
            "tokenizer.json",
            format!("is missing in {}; only models with this file are known", folder.display()),
        )
    })?;
    let config = json(folder, "tokenizer_config.json")?.unwrap_or_default();
    let special = json(folder, "special_tokens_map.json")?.unwrap_or_default();
    let model = json(folder, "config.json")?.unwrap_or_default();
    let architectures = model.get("architectures").and_then(Json::list).unwrap_or_default();
    let vocabulary = model.get("vocab_size").or_else(|| model.get("text_config")?.map()?.get("vocab_size"));
    let vocabulary = match vocabulary {
        Some(Json::Int(size)) => Some(u32::try_from(*size).map_err(|_| {
            LoadError::new("config.json", "vocab_size", format!("{size} is no size of a vocabulary"))
        })?),
        _ => None,
    };
    let processor_template = json(folder, "chat_template.json")?
        .and_then(|file| file.get("chat_template").and_then(Json::text).map(ToString::to_string));
    let there = |name: &&str| folder.join(name).is_file();
    Ok(ModelFiles {
        tokenizer,
        config: TokenizerConfig::new(&config, &special)?,
        architectures: architectures.iter().filter_map(Json::text).map(ToString::to_string).collect(),
        vocabulary,
        template: text("chat_template.jinja")?,
        processor_template,
        tool_template: text("additional_chat_templates/tool_use.jinja")?,
        processor: ["preprocessor_config.json", "processor_config.json"].iter().any(there),
        mistral: mistral_sign(folder),
    })
}

/// The name of the file that shows Mistral's format with Mistral's tokenizer.
fn mistral_sign(folder: &Path) -> Option<String> {
    if !folder.join("params.json").is_file() {
        return None;
    }
    let names = std::fs::read_dir(folder)
        .ok()?
        .take(10_000)
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let is_sign = |name: &String| name == "tekken.json" || name.starts_with("tokenizer.model.v");
    let mut signs: Vec<String> = names.filter(is_sign).collect();
    signs.sort();
    signs.into_iter().next()
}

/// The text of a file; `None` if the file does not exist.
fn optional(folder: &Path, name: &str, most: u64) -> Result<Option<String>, LoadError> {
    let path = folder.join(name);
    let failed = |error: std::io::Error| LoadError::whole(name, format!("is not read: {error}"));
    match std::fs::metadata(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
        Ok(metadata) if !metadata.is_file() => return Err(LoadError::whole(name, "is no file")),
        Ok(_) => {}
    }
    let mut bytes = Vec::new();
    File::open(&path).map_err(failed)?.take(most + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > most {
        return Err(LoadError::whole(name, format!("has more than {most} bytes, which is the bound")));
    }
    match String::from_utf8(bytes) {
        Ok(text) => Ok(Some(text)),
        Err(error) => {
            let at = error.utf8_error().valid_up_to();
            Err(LoadError::whole(name, format!("is no UTF-8 at byte {at}")))
        }
    }
}

/// The fields of a JSON file; `None` if the file does not exist.
fn json(folder: &Path, name: &str) -> Result<Option<Map>, LoadError> {
    let Some(text) = optional(folder, name, SMALL_FILE)? else { return Ok(None) };
    match Json::parse(text.as_bytes()) {
        Ok(Json::Map(map)) => Ok(Some(map)),
        Ok(_) => Err(LoadError::whole(name, "is no object")),
        Err(error) => Err(LoadError::whole(name, error.to_string())),
    }
}
