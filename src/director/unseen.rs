//! Rewrites of a model that lies in a part of the body that was not seen.
//!
//! A proxy may send a part of the body only, or only after the request was decided. Where a rewrite applies all the
//! same, the client is told so: a model server knows nothing of an alias.

use std::sync::Arc;

use super::names::MODEL_REWRITE;
use super::request_body::{RequestBody, Unparsed};
use super::{BodyBudget, BodySeen, Reason, Refusal, Share};
use crate::pool::Pool;
use crate::request::{
    Api, ContentEncoding, Encoded, ModelWatch, NotDecoded, PassingDecoder, content_encoding,
};

/// The work that remains for a body that was not seen whole.
pub(super) enum Unseen {
    /// No work: the body was seen, or has no model.
    Nothing,
    /// Its model is looked for in the pieces that pass by.
    Watch(Box<UnseenModel>),
}

/// What may replace a model.
#[derive(Clone, Debug)]
pub(super) struct Replacing<'a> {
    pub(super) pool: &'a Arc<Pool>,
    /// The header of clients counts.
    pub(super) header_counts: bool,
    pub(super) budget: &'a Arc<BodyBudget>,
}

/// Refuses a request whose model must be replaced and was not seen. `read` is what is known of its body.
///
/// Without any of the body that is known only of a rewrite that the client itself asks for, and of rules that match
/// every model; a body that passes by later is looked through. Of the rest of a body that was cut it is not known
/// which rules match; there any rule may.
pub(super) fn check(
    replacing: &Replacing<'_>,
    unparsed: Unparsed<'_>,
    read: &RequestBody,
) -> Result<Unseen, Refusal> {
    let Unparsed { path, headers, seen, .. } = unparsed;
    let RequestBody { kind, inference, plain, cut: is_cut, .. } = read;
    let unseen = seen == BodySeen::Unseen || *is_cut;
    let rewrites = replacing.pool.rewrites();
    let asked = MODEL_REWRITE.value(headers).filter(|model| replacing.header_counts && !model.is_empty());
    if !unseen || inference.is_rewritable() || (rewrites.is_empty() && asked.is_none()) {
        return Ok(Unseen::Nothing);
    }
    let rules = Rules { asked: asked.map(std::borrow::Cow::into_owned), pool: Arc::clone(replacing.pool) };
    if *is_cut {
        let may_be_replaced = inference.model_name(plain).is_none_or(|model| rules.replace(&model));
        return if may_be_replaced { Err(cut()) } else { Ok(Unseen::Nothing) };
    }
    let has_model = kind.and_then(|kind| kind.api(path)).is_some_and(|api| api != Api::Opaque);
    let certain = rules.asked.is_some() || rewrites.matches_all();
    let encoding = content_encoding(headers);
    // What is in an encoding that nobody here knows may have any model.
    if certain && (has_model || matches!(encoding, Encoded::Unknown(_))) {
        return Err(not_shown());
    }
    let decoder = match encoding {
        Encoded::Plain => None,
        Encoded::By(encoding) => Some(Decoder::new(encoding, replacing.budget)),
        Encoded::Unknown(_) => return Ok(Unseen::Nothing),
    };
    let content_type = headers.get("content-type").map(AsRef::as_ref).unwrap_or_default();
    Ok(match ModelWatch::new(content_type, has_model) {
        Some(watch) => Unseen::Watch(Box::new(UnseenModel { watch, decoder, rules })),
        None => Unseen::Nothing,
    })
}

fn cut() -> Refusal {
    let text = "the model may have to be replaced, but it lies behind the part of the body that the proxy sends, or in \
                a compressed one; put model first, send a smaller body, or let the proxy send bodies whole";
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
    decoder: Option<Decoder>,
    rules: Rules,
}

impl UnseenModel {
    /// Takes the next piece, the last with `end`. An error if a rule would replace the model that ends in it, or if the
    /// body cannot be decoded.
    pub(super) fn feed(&mut self, chunk: &[u8], end: bool) -> Result<(), Refusal> {
        let watch = &mut self.watch;
        let mut model = None;
        match &mut self.decoder {
            Some(decoder) => decoder.feed(chunk, end, &mut |bytes| {
                model = watch.feed(bytes, false).or(model.take());
            })?,
            None => model = watch.feed(chunk, false),
        }
        if end {
            model = watch.feed(&[], true).or(model);
        }
        if model.is_some_and(|model| self.rules.replace(&model)) { Err(not_shown()) } else { Ok(()) }
    }
}

/// Which models are replaced.
#[derive(Debug)]
struct Rules {
    /// The model that the client asks for.
    asked: Option<String>,
    pool: Arc<Pool>,
}

impl Rules {
    fn replace(&self, model: &str) -> bool {
        match self.pool.rewrites().find(model) {
            Some((_, rule)) => rule.targets.iter().any(|target| target.model != model),
            None => self.asked.as_ref().is_some_and(|asked| asked != model),
        }
    }
}

/// Takes the content-encoding off a body that passes by; what it holds for that counts.
#[derive(Debug)]
struct Decoder {
    passing: PassingDecoder,
    encoding: ContentEncoding,
    share: Share,
}

impl Decoder {
    fn new(encoding: ContentEncoding, budget: &Arc<BodyBudget>) -> Self {
        Self { passing: PassingDecoder::new(encoding), encoding, share: Share::new(Arc::clone(budget)) }
    }

    fn feed(&mut self, chunk: &[u8], end: bool, give: &mut dyn FnMut(&[u8])) -> Result<(), Refusal> {
        let decoded = self.passing.feed(chunk, end, give);
        // The window is filled by what was decoded; a part that is not whole yet is no longer than what came.
        let held = self.passing.held().min(self.encoding.window());
        if !self.share.grow(held.saturating_sub(self.share.bytes())) {
            return Err(self.share.refusal());
        }
        decoded.map_err(|error| {
            let reason = match error {
                NotDecoded::Corrupt => Reason::InvalidBody,
                NotDecoded::Ratio => Reason::DecodedTooLarge,
            };
            Refusal::new(reason, format!("content-encoding {}: {error}", self.encoding.name()))
        })
    }
}
