//! Which model a request is sent to: a rewrite rule, else a header, else the body.

use bytes::Bytes;

use crate::metrics::Metrics;
use crate::pool::Pool;
use crate::request::{self, Encoded, Headers, Inference, MAX_MODEL_MEMBERS, MAX_MODEL_NAME, Unread};

use super::names::{ControlHeader, MODEL_REWRITE};
use super::{Pieces, Reason, Refusal};

/// What the choice of a model depends on beside the body.
pub(super) struct Sources<'a> {
    pub(super) pool: &'a Pool,
    pub(super) headers: &'a Headers,
    /// The header of clients counts.
    pub(super) header_counts: bool,
    pub(super) metrics: &'a Metrics,
}

impl Sources<'_> {
    /// The target model for a request that names `incoming`. `draw` is a uniform number in 0..1. An error if there is none at all and
    /// `required` (the parser can set a model), or if the name is longer than [`MAX_MODEL_NAME`].
    pub(super) fn target_model(&self, incoming: &str, required: bool, draw: f64) -> Result<String, Refusal> {
        let header = self.header()?;
        if !required {
            return Ok(header.unwrap_or_else(|| incoming.to_owned()));
        }
        let rewrites = self.pool.rewrites();
        let target = match rewrites.find(incoming) {
            Some((name, rule)) => {
                let target = rule.draw(draw).unwrap_or_default().to_owned();
                self.metrics.model_rewrite(name, incoming, &target);
                target
            }
            None => match header {
                Some(model) if !model.is_empty() => model,
                _ => incoming.to_owned(),
            },
        };
        if target.is_empty() {
            return Err(Refusal::new(Reason::ModelMissing, "model not found in request body"));
        }
        Ok(target)
    }

    /// An error if a client asks by header for another model in a body that cannot be read.
    pub(super) fn check_encoding(&self, inference: &Inference) -> Result<(), Refusal> {
        if inference.unread != Some(Unread::Encoding) || self.header()?.is_none_or(|model| model.is_empty()) {
            return Ok(());
        }
        let encoding = match request::content_encoding(self.headers) {
            Encoded::Unknown(encoding) => encoding,
            _ => String::new(),
        };
        let text = format!(
            "content-encoding: got {encoding:?}, expected gzip, deflate, br or zstd: the body cannot get another model"
        );
        Err(Refusal::new(Reason::InvalidBody, text))
    }

    /// What the client's header says, under its current or its older name.
    fn header(&self) -> Result<Option<String>, Refusal> {
        if !self.header_counts {
            return Ok(None);
        }
        let ControlHeader { current, .. } = MODEL_REWRITE;
        MODEL_REWRITE.value(self.headers).map(|model| named(&format!("header {current}"), model)).transpose()
    }
}

/// The model that the body names, else the query, or "".
pub(super) fn incoming_model(
    inference: &Inference,
    body: &Bytes,
    headers: &Headers,
) -> Result<String, Refusal> {
    match inference.model {
        Some(model) => named("model", model.text(body)),
        None if inference.is_rewritable() => Ok(String::new()),
        None => Ok(request::query_model(headers).unwrap_or_default()),
    }
}

/// `model` if it is no longer than a model name may be.
fn named<'m>(what: &str, model: impl Into<std::borrow::Cow<'m, str>>) -> Result<String, Refusal> {
    let model = model.into();
    if model.len() > MAX_MODEL_NAME {
        let text =
            format!("{what}: got {} bytes, expected a name of at most {MAX_MODEL_NAME} bytes", model.len());
        return Err(Refusal::new(Reason::InvalidBody, text));
    }
    Ok(model.into_owned())
}

/// An error if the body cannot get this model although it can be read.
pub(super) fn check(inference: &Inference, model: &str) -> Result<(), Refusal> {
    // In a form a name stands as it is, and a line end in it could begin another part.
    if inference.model_is_plain && model.contains(['\r', '\n']) {
        let text = "model: the target model has a line end, which a form cannot hold";
        return Err(Refusal::new(Reason::InvalidBody, text));
    }
    if inference.more_models {
        let text = format!(
            "model: got more than {MAX_MODEL_MEMBERS} members of this name, expected one: the body cannot be rewritten"
        );
        return Err(Refusal::new(Reason::InvalidBody, text));
    }
    Ok(())
}

/// The body with `model` in it, of at most `limit` bytes (0 means no bound).
pub(super) fn rewritten(
    body: &Bytes,
    inference: &Inference,
    model: &str,
    limit: u64,
) -> Result<Pieces, Refusal> {
    let pieces = request::splice_model(body, inference, model);
    let size: usize = pieces.iter().map(Bytes::len).sum();
    if limit != 0 && size as u64 > limit {
        let text = format!("request body with the target model exceeds the limit of {limit} bytes");
        return Err(Refusal::new(Reason::RewrittenTooLarge, text));
    }
    Ok(pieces)
}
