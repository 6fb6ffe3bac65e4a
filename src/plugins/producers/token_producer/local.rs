//! Tokens that are made in this process.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, Uri};
use pointsman_tokens::{Json, ModelLimits, ServerProfile};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::plugins::{BuildError, Roles};
use crate::render::{HubSettings, LocalBackend, LocalSettings, Source, is_repository, is_revision};

/// The files of a model, and what its servers were started with.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Local {
    /// Folder with `tokenizer.json`, `tokenizer_config.json` and the chat template.
    pub(super) folder: String,
    /// In the place of `folder`: the model on a hub, as `organisation/name`.
    pub(super) repository: String,
    /// Commit, branch or tag of the repository: that of the servers. `main` if it is empty.
    pub(super) revision: String,
    /// Folder in which the files of a repository are kept.
    pub(super) cache_folder: String,
    /// Other names under which requests ask for the model: aliases, LoRA adapters.
    pub(super) aliases: Vec<String>,
    /// Release of vLLM, from `0.29` to `0.32`.
    pub(super) vllm_version: String,
    /// `--max-model-len` of the servers, in tokens; 0 if it is not known. Then requests that are cut to it have no
    /// exact tokens.
    pub(super) max_model_len: u32,
    /// File of `--chat-template`, if the servers have one.
    pub(super) chat_template: String,
    /// `--chat-template-content-format`: `auto`, `string` or `openai`.
    pub(super) content_format: String,
    /// `--default-chat-template-kwargs`, an object.
    pub(super) default_chat_template_kwargs: Option<serde_json::Map<String, serde_json::Value>>,
    /// `--exclude-tools-when-tool-choice-none`
    pub(super) exclude_tools_when_tool_choice_none: bool,
    /// The servers run with `--tokenizer-mode hf`.
    pub(super) force_hf: bool,
    /// The servers take `tokenizer.json` as it is, whatever class `tokenizer_config.json` names.
    pub(super) tokenizer_as_is: bool,
    /// `VLLM_SYSTEM_START_DATE` of the servers, the day that gpt-oss is told, as `2026-01-31`; the day of now if it is
    /// empty.
    pub(super) system_start_date: String,
    /// Memory for ids that were made before, in MiB.
    pub(super) cache_mib: u32,
}

impl Default for Local {
    fn default() -> Self {
        Self {
            folder: String::new(),
            repository: String::new(),
            revision: String::new(),
            cache_folder: String::new(),
            aliases: Vec::new(),
            vllm_version: "0.32".to_owned(),
            max_model_len: 0,
            chat_template: String::new(),
            content_format: "auto".to_owned(),
            default_chat_template_kwargs: None,
            exclude_tools_when_tool_choice_none: false,
            force_hf: false,
            tokenizer_as_is: false,
            system_start_date: String::new(),
            cache_mib: 64,
        }
    }
}

/// The hub unless `HF_ENDPOINT` names another.
const DEFAULT_HUB: &str = "https://huggingface.co";
/// Largest cache, in MiB.
const MOST_CACHE: u32 = 4096;
/// Largest file of a chat template, in bytes.
const MOST_TEMPLATE: u64 = 4 << 20;

impl Local {
    /// The backend. Its model is loaded in the background.
    pub(super) fn build(self, model: String, patience: Duration) -> Result<Roles, BuildError> {
        if model.is_empty() {
            return Err(BuildError::at(
                "modelName",
                "is required with `local`: the model as requests name it",
            ));
        }
        if !(1..=MOST_CACHE).contains(&self.cache_mib) {
            let message = format!("got {}, expected 1 to {MOST_CACHE}", self.cache_mib);
            return Err(BuildError::at("local.cacheMib", message));
        }
        let limits = ModelLimits { cache_bytes: (self.cache_mib as usize) << 20, ..ModelLimits::default() };
        let profile = self.profile()?;
        let source = self.source(limits.file_bytes, |name| std::env::var(name).ok())?;
        let names = std::iter::once(model).chain(self.aliases).collect();
        let settings = LocalSettings { source, names, profile, limits, patience };
        let backend = LocalBackend::new(settings);
        let backend =
            backend.map_err(|error| BuildError::at("local", format!("there is no thread: {error}")))?;
        Ok(Roles::default().preparer(Arc::new(backend)))
    }

    /// Where the files are; `environment` has the hub's address and a token for it.
    fn source(
        &self,
        file_bytes: u64,
        environment: impl Fn(&str) -> Option<String>,
    ) -> Result<Source, BuildError> {
        match (self.folder.as_str(), self.repository.as_str()) {
            ("", "") => {
                let message = "is required, or `repository`: the folder with the files of the model";
                return Err(BuildError::at("local.folder", message));
            }
            (folder, "") => return Ok(Source::Folder(folder.into())),
            ("", _) => {}
            _ => {
                return Err(BuildError::at(
                    "local.repository",
                    "is set beside `folder`, expected one of them",
                ));
            }
        }
        if !is_repository(&self.repository) {
            let message =
                format!("got \"{}\", expected a name such as \"organisation/model\"", self.repository);
            return Err(BuildError::at("local.repository", message));
        }
        let revision = if self.revision.is_empty() { "main" } else { &self.revision };
        if !is_revision(revision) {
            let message = format!("got \"{revision}\", expected a commit, a branch or a tag");
            return Err(BuildError::at("local.revision", message));
        }
        if self.cache_folder.is_empty() {
            let message = "is required with `repository`: the folder in which its files are kept";
            return Err(BuildError::at("local.cacheFolder", message));
        }
        let set =
            |name: &str| environment(name).map(|text| text.trim().to_owned()).filter(|text| !text.is_empty());
        let address = set("HF_ENDPOINT").unwrap_or_else(|| DEFAULT_HUB.to_owned());
        let endpoint = address.trim_end_matches('/').parse::<Uri>().ok().filter(|uri| {
            matches!(uri.scheme_str(), Some("http" | "https"))
                && uri.host().is_some()
                && uri.query().is_none()
        });
        let endpoint = endpoint.ok_or_else(|| {
            let message =
                format!("got \"{address}\" in HF_ENDPOINT, expected an address such as \"{DEFAULT_HUB}\"");
            BuildError::at("local.repository", message)
        })?;
        let token = set("HF_TOKEN").map(|token| HeaderValue::try_from(format!("Bearer {token}"))).transpose();
        let mut token = token
            .map_err(|_| BuildError::at("local.repository", "HF_TOKEN has characters that no token has"))?;
        if let Some(token) = &mut token {
            token.set_sensitive(true);
        }
        Ok(Source::Hub(HubSettings {
            endpoint,
            repository: self.repository.clone(),
            revision: revision.to_owned(),
            cache: self.cache_folder.clone().into(),
            token,
            file_bytes,
        }))
    }

    fn profile(&self) -> Result<ServerProfile, BuildError> {
        let mut numbers = self.vllm_version.trim().trim_start_matches('v').split('.');
        let version = (numbers.next() == Some("0")).then(|| numbers.next()?.parse().ok()).flatten();
        let known = version.filter(|version| (29..=32).contains(version));
        let version = known.ok_or_else(|| {
            let message =
                format!("got \"{}\", expected a release from \"0.29\" to \"0.32\"", self.vllm_version);
            BuildError::at("local.vllmVersion", message)
        })?;
        let content_parts = match self.content_format.as_str() {
            "" | "auto" => None,
            "string" => Some(false),
            "openai" => Some(true),
            other => {
                let message = format!("got \"{other}\", expected \"auto\", \"string\" or \"openai\"");
                return Err(BuildError::at("local.contentFormat", message));
            }
        };
        let kwargs = serde_json::Value::Object(self.default_chat_template_kwargs.clone().unwrap_or_default());
        let default_kwargs = Json::parse(kwargs.to_string().as_bytes())
            .map_err(|error| BuildError::at("local.defaultChatTemplateKwargs", error.to_string()))?;
        Ok(ServerProfile {
            version,
            chat_template: self.template()?,
            content_parts,
            default_kwargs,
            exclude_tools_when_none: self.exclude_tools_when_tool_choice_none,
            max_model_len: (self.max_model_len > 0).then_some(self.max_model_len as usize),
            force_hf: self.force_hf,
            tokenizer_as_is: self.tokenizer_as_is,
            start_date: Some(self.system_start_date.clone()).filter(|date| !date.is_empty()),
        })
    }

    fn template(&self) -> Result<Option<String>, BuildError> {
        if self.chat_template.is_empty() {
            return Ok(None);
        }
        let at = |reason: String| {
            BuildError::at("local.chatTemplate", format!("\"{}\" {reason}", self.chat_template))
        };
        let size =
            std::fs::metadata(&self.chat_template).map_err(|error| at(format!("is not read: {error}")))?;
        if !size.is_file() || size.len() > MOST_TEMPLATE {
            return Err(at(format!("is no file of at most {MOST_TEMPLATE} bytes")));
        }
        std::fs::read_to_string(&self.chat_template)
            .map(Some)
            .map_err(|error| at(format!("is not read: {error}")))
    }
}
