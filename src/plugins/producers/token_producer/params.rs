//! Parameters of `token-producer`.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use super::estimate::Estimate;
#[cfg(feature = "tokens")]
use super::local::Local;
#[cfg(not(feature = "tokens"))]
use super::without_tokens::Local;

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Params {
    /// The model, as the render endpoint or the tokenizer knows it. Alone it asks the endpoint of `vllm`.
    pub(super) model_name: String,
    /// Tokens come from a vLLM server with render endpoints.
    pub(super) vllm: Option<Vllm>,
    /// Tokens are made in this process from the files of the model.
    pub(super) local: Option<Local>,
    /// Tokens are estimated.
    pub(super) estimate: Option<Estimate>,
    /// Tokens come from the tokenizer service of earlier releases; deprecated.
    pub(super) uds_tokenizer_config: Option<Uds>,
}

/// A vLLM server.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Vllm {
    /// Address of the server; `http://localhost:8000` if empty.
    pub(super) url: String,
    /// Longest time for a prompt of text, as a Go duration; `5s` if empty.
    pub(super) timeout: String,
    /// Longest time for a prompt with images, videos or sounds, as a Go duration; `30s` if empty.
    pub(super) mm_timeout: String,
    /// Time that requests lose in sum to an endpoint that does not answer, before none waits for it any more, as a Go
    /// duration; `50ms` if empty.
    pub(super) patience: String,
}

/// The tokenizer service of earlier releases.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Uds {
    /// Its socket; nothing is asked if it is empty.
    pub(super) socket_file: String,
    /// `socketFile` is an address and a port of TCP.
    #[serde(rename = "useTCP")]
    pub(super) use_tcp: bool,
    /// Where the service finds the tokenizer of each model.
    pub(super) model_tokenizer_map: Option<BTreeMap<String, String>>,
}
