//! Rewrites of a model that lies in a part of the body that was not seen.
//!
//! A proxy may send a part of the body only, or only after the request was decided. Where a rewrite applies all the
//! same, the client is told so: a model server knows nothing of an alias.

use std::sync::Arc;

use bytes::Bytes;

use super::names::MODEL_REWRITE;
use super::request_body::{RequestBody, Unparsed};
use super::{BodySeen, Reason, Refusal};
use crate::pool::Pool;
use crate::request::{Api, Headers, ModelWatch};

/// What remains to be done for a body that was not seen whole.
pub(super) enum Unseen {
    /// Nothing: it was seen, or has no model.
    Nothing,
    /// Its model is looked for in the pieces that pass by.
    Watch(UnseenModel),
}

/// Refuses a request whose model must be replaced and was not seen. `read` is what is known of its body;
/// `header_counts`: clients may ask for a model.
///
/// On a path that no parser reads, a body that is JSON may have a model; it is looked for as the body passes by.
///
/// Without any of the body that is known only of a rewrite that the client itself asks for, and of rules that match
/// every model. Of the rest of a body that was cut it is not known either which rules match; there any rule may.
pub(super) fn check(
    pool: &Arc<Pool>,
    unparsed: Unparsed<'_>,
    read: &RequestBody,
    header_counts: bool,
) -> Result<Unseen, Refusal> {
    let Unparsed { path, headers, seen, .. } = unparsed;
    let RequestBody { kind, inference, .. } = read;
    let unseen = matches!(seen, BodySeen::Unseen | BodySeen::Part) && !inference.is_rewritable();
    let has_model = kind.and_then(|kind| kind.api(path)).is_some_and(|api| api != Api::Opaque);
    let may_have_one = !has_model && seen == BodySeen::Unseen && is_json(headers);
    let plain = headers
        .get("content-encoding")
        .is_none_or(|coding| coding.is_empty() || coding.eq_ignore_ascii_case(b"identity"));
    if !unseen || !(has_model || may_have_one) || !plain {
        return Ok(Unseen::Nothing);
    }
    let rewrites = pool.rewrites();
    let asked = header_counts && MODEL_REWRITE.value(headers).is_some_and(|model| !model.is_empty());
    if seen == BodySeen::Part {
        return if asked || !rewrites.is_empty() { Err(cut()) } else { Ok(Unseen::Nothing) };
    }
    if has_model && (asked || rewrites.matches_all()) {
        return Err(not_shown());
    }
    if rewrites.is_empty() && !asked {
        return Ok(Unseen::Nothing);
    }
    let asked = asked.then(|| MODEL_REWRITE.value(headers).unwrap_or_default().into_owned());
    Ok(Unseen::Watch(UnseenModel { watch: ModelWatch::new(), asked, pool: Arc::clone(pool) }))
}

/// True if the headers say that the body is JSON.
fn is_json(headers: &Headers) -> bool {
    let kind = headers.get("content-type").map(|kind| kind.to_ascii_lowercase()).unwrap_or_default();
    let kind = kind.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
    matches!(kind, b"application/json" | b"text/json") || kind.ends_with(b"+json")
}

fn cut() -> Refusal {
    let text = "the model may have to be replaced, but it lies behind the part of the body that the proxy sends; \
                put model first, send a smaller body, or let the proxy send bodies whole";
    Refusal::new(Reason::RewriteCut, text)
}

fn not_shown() -> Refusal {
    let text = "the model has to be replaced, but the proxy sends no body before the request is routed; \
                request_body_mode must be FULL_DUPLEX_STREAMED or BUFFERED";
    Refusal::new(Reason::RewriteUnseen, text)
}

/// Looks for the model in pieces of a body that goes on as it is.
#[derive(Debug)]
pub(super) struct UnseenModel {
    watch: ModelWatch,
    /// The model that the client asks for.
    asked: Option<String>,
    pool: Arc<Pool>,
}

impl UnseenModel {
    /// Takes the next piece. An error if a rule would replace the model that ends in it.
    pub(super) fn feed(&mut self, chunk: &Bytes) -> Result<(), Refusal> {
        let Some(model) = self.watch.feed(chunk) else { return Ok(()) };
        let rewrites = self.pool.rewrites();
        let replaces = match rewrites.find(&model) {
            Some((_, rule)) => rule.targets.iter().any(|target| target.model != model),
            None => self.asked.as_ref().is_some_and(|asked| *asked != model),
        };
        if replaces { Err(not_shown()) } else { Ok(()) }
    }
}
