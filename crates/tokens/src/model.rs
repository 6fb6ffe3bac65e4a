//! A loaded model that makes tokens.

use std::path::Path;
use std::sync::Arc;

use crate::chat::Marks;
use crate::encoder::{EncodeError, Encoder, Flaw, Pipeline, Stop};
use crate::files::{self, LoadError, Templates};
use crate::profile::{NEWEST, OLDEST, ServerProfile};
use crate::template::ContentFormat;

/// The bounds on the cost of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ModelLimits {
    /// The largest `tokenizer.json`, in bytes.
    pub file_bytes: u64,
    /// The memory for cached ids, in bytes.
    pub cache_bytes: usize,
    /// The largest body of a request, in bytes.
    pub body_bytes: usize,
}

impl Default for ModelLimits {
    fn default() -> Self {
        Self { file_bytes: 64 << 20, cache_bytes: 64 << 20, body_bytes: 16 << 20 }
    }
}

/// A loaded model that makes tokens.
pub struct Model {
    pub(crate) encoder: Encoder,
    pub(crate) templates: Templates,
    /// The special tokens that have a name, for templates.
    pub(crate) special: Vec<(&'static str, Arc<str>)>,
    pub(crate) profile: ServerProfile,
    /// The marks of chats with gpt-oss, which have no template.
    pub(crate) harmony: Option<Marks>,
    /// Why chats have no exact tokens; `None` if they have.
    pub(crate) no_chat: Option<&'static str>,
    /// The largest id that the server accepts.
    pub(crate) max_id: u32,
    pub(crate) limits: ModelLimits,
    file_bytes: usize,
}

/// The architectures for which the server has a tokenizer of its own.
const OWN_TOKENIZERS: [&str; 8] = [
    "KimiAudio",
    "KimiK3",
    "DeepseekV32",
    "DeepseekV4",
    "DeepseekV41",
    "Inkling",
    "Terratorch",
    "Cohere2Vision",
];

impl Model {
    /// Loads a model from a folder. This takes up to several seconds, and hundreds of megabytes of memory for that
    /// time.
    ///
    /// # Errors
    /// [`LoadError`] names the file and the field that is missing or not understood, and says why.
    pub fn load(folder: &Path, profile: ServerProfile, limits: ModelLimits) -> Result<Self, LoadError> {
        if !(OLDEST..=NEWEST).contains(&profile.version) {
            let reason = format!("0.{} is not known, which 0.{OLDEST} to 0.{NEWEST} are", profile.version);
            return Err(LoadError::new("the configured server", "version", reason));
        }
        let files = files::read(folder, limits.file_bytes)?;
        if let Some(name) = files.architectures.iter().find(|name| is_own(name)) {
            let reason = format!("{name} has a tokenizer of its own in the server");
            return Err(LoadError::new("config.json", "architectures", reason));
        }
        if let Some(sign) = files.mistral.as_ref().filter(|_| !profile.force_hf) {
            let reason = "makes the server use Mistral's tokenizer, unless it runs with --tokenizer-mode hf";
            return Err(LoadError::new(sign, "(whole file)", reason));
        }
        if files.config.remote_code {
            let reason = "names a tokenizer that is code of the repository";
            return Err(LoadError::new("tokenizer_config.json", "auto_map", reason));
        }
        let flaw = |flaw: Flaw| LoadError::new("tokenizer.json", &flaw.field, flaw.reason);
        let pipeline =
            Pipeline::new(&files.tokenizer, &files.config, profile.tokenizer_as_is).map_err(flaw)?;
        let encoder = Encoder::new(&pipeline, limits.cache_bytes).map_err(flaw)?;
        let is_harmony = files.architectures.iter().any(|name| name == "GptOssForCausalLM");
        let harmony = if is_harmony { Marks::of(&encoder) } else { None };
        let no_chat = (is_harmony && harmony.is_none()).then_some(
            "gpt-oss has a chat format of its own, whose special tokens the vocabulary does not have",
        );
        let format =
            profile.content_parts.map(|parts| if parts { ContentFormat::Parts } else { ContentFormat::Text });
        let templates = if is_harmony {
            Templates::default()
        } else {
            files::templates(&files, profile.chat_template.as_deref(), format)?
        };
        Ok(Self {
            encoder,
            templates,
            special: files.config.special.clone(),
            profile,
            harmony,
            no_chat,
            max_id: pipeline.max_id.max(files.vocabulary.map_or(0, |size| size.saturating_sub(1))),
            limits,
            file_bytes: files.tokenizer.len(),
        })
    }

    /// The token ids of a text. With `special` the special tokens are put around it.
    ///
    /// # Errors
    /// [`EncodeError`]
    pub fn encode(&self, text: &str, special: bool, stop: Stop<'_>) -> Result<Vec<u32>, EncodeError> {
        self.encoder.encode(text, special, stop)
    }

    /// The token ids of a text, without cuts, cache and special tokens around it. The results of other calls must equal
    /// this.
    ///
    /// # Errors
    /// [`EncodeError`]
    pub fn encode_whole(&self, text: &str) -> Result<Vec<u32>, EncodeError> {
        self.encoder.encode_whole(text)
    }

    /// Why chats have no exact tokens with this model; `None` if they have.
    pub fn without_chat(&self) -> Option<&'static str> {
        let none = self.templates.plain.is_none() && self.harmony.is_none();
        self.no_chat.or_else(|| none.then_some("it has no chat template"))
    }

    /// The memory that the model takes, in bytes: the present cache, and about ten times the size of the tokenizer's
    /// file.
    pub fn held_bytes(&self) -> usize {
        self.encoder.cache_bytes() + 10 * self.file_bytes
    }
}

fn is_own(architecture: &str) -> bool {
    OWN_TOKENIZERS.iter().any(|own| {
        architecture.strip_prefix(own).is_some_and(|rest| rest.starts_with("For") || rest.is_empty())
    })
}
