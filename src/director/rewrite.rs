//! Which model a request is sent to: a rewrite rule, else a header, else the body.

use crate::metrics::Metrics;
use crate::pool::Pool;
use crate::request::Headers;

use super::names::MODEL_REWRITE;
use super::{Reason, Refusal};

/// The target model for a request that names `incoming`. `draw` is a uniform number in 0..1. An error if there is none at all and
/// `required` (the parser can set a model).
pub(super) fn target_model(
    pool: &Pool,
    headers: &Headers,
    incoming: &str,
    required: bool,
    draw: f64,
    metrics: &Metrics,
) -> Result<String, Refusal> {
    let header = MODEL_REWRITE.value(headers);
    if !required {
        return Ok(header.unwrap_or_default().into_owned());
    }
    let rewrites = pool.rewrites();
    let target = match rewrites.find(incoming) {
        Some((name, rule)) => {
            let target = rule.draw(draw).unwrap_or_default().to_owned();
            metrics.model_rewrite(name, incoming, &target);
            target
        }
        None => match header {
            Some(model) if !model.is_empty() => model.into_owned(),
            _ => incoming.to_owned(),
        },
    };
    if target.is_empty() {
        return Err(Refusal::new(Reason::ModelMissing, "model not found in request body"));
    }
    Ok(target)
}
