//! Chooses the model that a request is sent to: by a rewrite rule, else by a header, else by the body.

use bytes::Bytes;

use crate::metrics::Metrics;
use crate::pool::Pool;
use crate::request::{
    self, Encoded, Headers, Inference, MAX_MODEL_MEMBERS, MAX_MODEL_NAME, Spelling, Unread,
};

use super::names::{ControlHeader, MODEL_REWRITE};
use super::{Pieces, Reason, Refusal};

/// The inputs of that choice beside the body.
pub(super) struct Sources<'a> {
    pub(super) pool: &'a Pool,
    pub(super) headers: &'a Headers,
    /// The header of clients counts.
    pub(super) header_counts: bool,
    pub(super) metrics: &'a Metrics,
}

impl Sources<'_> {
    /// The target model for a request that names `incoming`, "" if nothing names one: servers have a model of their
    /// own. `draw` is a uniform number in 0..1. `rewritable`: the body or the query can get another model. An error if the rule that
    /// matches has no target, or if the name is longer than [`MAX_MODEL_NAME`].
    pub(super) fn target_model(
        &self,
        incoming: &str,
        rewritable: bool,
        draw: f64,
    ) -> Result<String, Refusal> {
        let header = self.header()?;
        if !rewritable {
            return Ok(header.unwrap_or_else(|| incoming.to_owned()));
        }
        let rewrites = self.pool.rewrites();
        let Some((name, rule)) = rewrites.find(incoming) else {
            return Ok(header.filter(|model| !model.is_empty()).unwrap_or_else(|| incoming.to_owned()));
        };
        let target = rule.draw(draw).filter(|target| !target.is_empty()).ok_or_else(|| {
            let text =
                format!("model {incoming:?}: the rewrite rule {name:?} that matches it has no target model");
            Refusal::new(Reason::ModelMissing, text)
        })?;
        self.metrics.model_rewrite(name, incoming, target);
        Ok(target.to_owned())
    }

    /// An error if a client asks by header for another model, or a rule matches every model, and the body may name one
    /// that could not be read.
    pub(super) fn check_read(&self, inference: &Inference) -> Result<(), Refusal> {
        let what = match inference.unread {
            Some(Unread::Encoding) => {
                let encoding = match request::content_encoding(self.headers) {
                    Encoded::Unknown(encoding) => encoding,
                    _ => String::new(),
                };
                format!("content-encoding: got {encoding:?}, expected gzip, deflate, br or zstd")
            }
            Some(unread @ Unread::Window) => unread.to_string(),
            Some(Unread::Charset) => "the body is not in UTF-8".to_owned(),
            Some(Unread::Form(fault)) => format!("the form cannot be read: {fault}"),
            None if inference.spelling == Spelling::Verbatim && !inference.is_rewritable() => {
                "the form has no field model that can be read".to_owned()
            }
            _ => return Ok(()),
        };
        let asked = self.header()?.is_some_and(|model| !model.is_empty());
        if !asked && !self.pool.rewrites().matches_all() {
            return Ok(());
        }
        Err(Refusal::new(Reason::InvalidBody, format!("{what}: the body cannot get another model")))
    }

    /// The model in the client's header, under its current or its older name.
    fn header(&self) -> Result<Option<String>, Refusal> {
        asked(self.headers, self.header_counts)
    }
}

/// The model that the client asks for by header, if such headers count.
pub(super) fn asked(headers: &Headers, header_counts: bool) -> Result<Option<String>, Refusal> {
    if !header_counts {
        return Ok(None);
    }
    let ControlHeader { current, .. } = MODEL_REWRITE;
    MODEL_REWRITE.value(headers).map(|model| named(&format!("header {current}"), model)).transpose()
}

/// The model that a request names.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Incoming {
    /// Its name; "" if nothing names one.
    pub(super) model: String,
    /// It stands in the query of the path.
    pub(super) in_query: bool,
}

/// The model that the body names, else the query.
pub(super) fn incoming_model(
    inference: &Inference,
    body: &Bytes,
    headers: &Headers,
) -> Result<Incoming, Refusal> {
    if let Some(model) = inference.model_name(body) {
        return Ok(Incoming { model: named("model", model)?, in_query: false });
    }
    if inference.is_rewritable() {
        return Ok(Incoming::default());
    }
    let model = request::query_model(headers);
    Ok(Incoming { in_query: model.is_some(), model: model.unwrap_or_default() })
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
    if inference.spelling == Spelling::Verbatim && model.contains(['\r', '\n']) {
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
