//! `token-producer`: says which tokens the prompts of a request have.
//!
//! | parameter | default | meaning |
//! |---|---|---|
//! | `modelName` | – | the model, as the render endpoint or the tokenizer knows it; alone it asks `vllm` |
//! | `vllm.url` | `http://localhost:8000` | a vLLM server with `/v1/completions/render` and `/v1/chat/completions/render` |
//! | `vllm.timeout`, `vllm.mmTimeout` | `5s`, `30s` | longest time for a text, and for a prompt with media |
//! | `vllm.patience` | `50ms` | time that requests lose in sum to an endpoint that does not answer, before none waits |
//! | `local` | – | tokens are made in this process from the files of the model: see `local.rs` |
//! | `udsTokenizerConfig` | – | the tokenizer service of earlier releases, on a socket; deprecated |
//! | `estimate` | – | tokens are estimated, and pictures and videos taken for this size: see `estimate.rs` |
//!
//! One of `vllm`, `local`, `udsTokenizerConfig` and `estimate`; without any of them and without `modelName` tokens are
//! estimated, as they are without this plugin: four bytes of text each.
//!
//! Exact tokens take the place of the estimate for prefix blocks, the token load, the deciders of prefill, flow control
//! and the load of endpoints. The work is done before scheduling (`director/prepare.rs`), also while the request waits
//! in flow control. A request whose tokens are not there in time goes on with the estimate.

mod estimate;
#[cfg(feature = "tokens")]
mod local;
mod params;
#[cfg(test)]
mod tests;
#[cfg(not(feature = "tokens"))]
mod without_tokens;

use std::sync::Arc;
use std::time::Duration;

use http::Uri;

use self::params::{Params, Uds, Vllm};
use crate::document::scalar::go_duration;
use crate::plugins::{BuildCx, BuildError, PluginType, Roles, Stability};
use crate::render::{RenderBackend, RenderSettings, SocketBackend, SocketSettings};

/// Registry row.
pub static TYPE: PluginType = PluginType::new("token-producer", Stability::Beta, build).about(
    "Makes the exact tokens of prompts in this process or with a render endpoint, or says how tokens are estimated.",
    "Use it where decisions shall rest on the tokens that the engine sees: prefix caches, token loads, prefill. It costs the \
     memory of a tokenizer and some milliseconds of a core for a long prompt in this process, or one call of a \
     render endpoint for each request, and 50 ms in sum where the endpoint hangs.",
);

/// The older name.
pub static TOKENIZER: PluginType = PluginType::new("tokenizer", Stability::Beta, build)
    .reported_as("token-producer")
    .superseded_by("token-producer", "v0.9.0")
    .about(
        "Is token-producer under its older name.",
        "Use token-producer instead. It costs what token-producer costs.",
    );

const DEFAULT_URL: &str = "http://localhost:8000";
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(5);
const DEFAULT_MEDIA_TIMEOUT: Duration = Duration::from_secs(30);
/// Time that requests lose in sum to an endpoint that does not answer.
const DEFAULT_PATIENCE: Duration = Duration::from_millis(50);

fn build(cx: &mut BuildCx<'_>) -> Result<Roles, BuildError> {
    let Params { model_name, vllm, local, estimate, uds_tokenizer_config } = cx.params()?;
    let uds = uds_tokenizer_config.filter(|uds| !uds.socket_file.is_empty());
    // What a template left empty is nobody's address.
    let nowhere = |vllm: &Vllm| model_name.is_empty() && vllm.url.trim().is_empty();
    if vllm.as_ref().is_some_and(nowhere) {
        cx.warn("`vllm` without `url` and `modelName` has no effect: tokens are estimated");
    }
    let vllm = vllm.filter(|vllm| !nowhere(vllm));
    let given = [
        ("vllm", vllm.is_some()),
        ("local", local.is_some()),
        ("udsTokenizerConfig", uds.is_some()),
        ("estimate", estimate.is_some()),
    ];
    let given: Vec<&str> = given.into_iter().filter_map(|(name, given)| given.then_some(name)).collect();
    if let [first, second, ..] = given.as_slice() {
        let message = format!("stands beside `{first}`; a token-producer has one way to make tokens");
        return Err(BuildError::at(*second, message));
    }
    if let Some(local) = local {
        return local.build(model_name, DEFAULT_PATIENCE);
    }
    match (vllm, uds, estimate) {
        (_, Some(uds), _) => over_socket(cx, uds, model_name),
        (vllm, None, None) if vllm.is_some() || !model_name.is_empty() => {
            over_http(vllm.unwrap_or_default(), model_name)
        }
        (_, None, estimate) => {
            if !model_name.is_empty() {
                cx.warn("estimates tokens: `modelName` has no effect beside `estimate`");
            }
            let media_estimate = Some(estimate.unwrap_or_default().rules()?);
            Ok(Roles { media_estimate, ..Roles::default() })
        }
    }
}

fn over_http(vllm: Vllm, model: String) -> Result<Roles, BuildError> {
    if model.is_empty() {
        return Err(BuildError::at("modelName", "is required with `vllm`: the model as the server knows it"));
    }
    let Vllm { url, timeout, mm_timeout, patience } = vllm;
    let settings = RenderSettings {
        url: address(&url)?,
        model,
        timeout: time("vllm.timeout", &timeout, DEFAULT_TIMEOUT)?,
        media_timeout: time("vllm.mmTimeout", &mm_timeout, DEFAULT_MEDIA_TIMEOUT)?,
        patience: time("vllm.patience", &patience, DEFAULT_PATIENCE)?,
    };
    let backend = RenderBackend::new(settings);
    let backend = backend.map_err(|error| BuildError::at("vllm.url", error.to_string()))?;
    Ok(Roles::default().preparer(Arc::new(backend)))
}

fn over_socket(cx: &mut BuildCx<'_>, uds: Uds, model: String) -> Result<Roles, BuildError> {
    cx.warn("`udsTokenizerConfig` is deprecated, use `vllm`");
    if model.is_empty() {
        return Err(BuildError::at("modelName", "is required with `udsTokenizerConfig`"));
    }
    let model = match uds.model_tokenizer_map {
        None => model,
        Some(map) => {
            let Some(location) = map.get(&model) else {
                let message = format!("has no entry for the model \"{model}\"");
                return Err(BuildError::at("udsTokenizerConfig.modelTokenizerMap", message));
            };
            location.strip_suffix("/tokenizer.json").unwrap_or(location).to_owned()
        }
    };
    let settings = SocketSettings {
        address: uds.socket_file,
        tcp: uds.use_tcp,
        model,
        timeout: DEFAULT_TIMEOUT,
        media_timeout: DEFAULT_MEDIA_TIMEOUT,
        patience: DEFAULT_PATIENCE,
    };
    Ok(Roles::default().preparer(Arc::new(SocketBackend::new(settings))))
}

/// The address of the endpoint, without a slash at its end.
fn address(url: &str) -> Result<Uri, BuildError> {
    let url = match url.trim().trim_end_matches('/') {
        "" => DEFAULT_URL,
        url => url,
    };
    let parsed: Option<Uri> = url.parse().ok();
    let usable = |uri: &Uri| {
        matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some_and(|host| !host.is_empty())
    };
    parsed.filter(|uri| usable(uri) && uri.query().is_none()).ok_or_else(|| {
        BuildError::at("vllm.url", format!("got \"{url}\", expected an address such as \"{DEFAULT_URL}\""))
    })
}

fn time(parameter: &str, text: &str, default: Duration) -> Result<Duration, BuildError> {
    if text.is_empty() {
        return Ok(default);
    }
    let time = go_duration(text).map_err(|message| BuildError::at(parameter, message))?;
    Ok(if time.is_zero() { default } else { time })
}
