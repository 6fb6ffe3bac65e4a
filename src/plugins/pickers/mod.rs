//! Pickers: one file a plugin. All return up to `maxNumOfEndpoints` endpoints, best first, and draw from the generator
//! they are given.

pub mod max_score;
pub mod random;
pub mod weighted_random;

use schemars::JsonSchema;

use serde::Deserialize;

use super::{BuildCx, BuildError};

/// Parameters of every picker.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Params {
    /// Most endpoints to return; below 1 means 1.
    max_num_of_endpoints: i64,
}

impl Default for Params {
    fn default() -> Self {
        Self { max_num_of_endpoints: 1 }
    }
}

/// Most endpoints to return, at least 1.
fn limit(cx: &mut BuildCx<'_>) -> Result<usize, BuildError> {
    let Params { max_num_of_endpoints: limit } = cx.params()?;
    if limit < 1 {
        cx.warn(format!("maxNumOfEndpoints: {limit} is below 1, using 1"));
    }
    if limit > 1 {
        cx.warn(format!(
            "maxNumOfEndpoints: {limit} sends fallbacks with commas; a proxy that takes one address only (Envoy's ORIGINAL_DST) then answers 503"
        ));
    }
    Ok(usize::try_from(limit).unwrap_or(1).max(1))
}

/// A score that can be put in order: NaN is the lowest.
fn comparable(score: f64) -> f64 {
    if score.is_nan() { f64::NEG_INFINITY } else { score }
}
