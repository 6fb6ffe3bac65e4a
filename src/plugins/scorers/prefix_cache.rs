//! `prefix-cache-scorer`: prefers endpoints that hold more of the prompt.
//!
//! With `m` of `n` blocks of `b` tokens matched, weight `w` and scale `S`: `w · min(1, m·b/S)² + (1 − w) · m/n`. The
//! first part rewards long matches even of longer prompts; by default `w` is 0. No match data, or no blocks, scores 0.
//! Consumes the matches of a prefix producer, by default of `approx-prefix-cache-producer`, which is then created.
//! Cost: one pass over the candidates.

use std::sync::Arc;

use schemars::JsonSchema;

use serde::Deserialize;

use crate::plugins::producers::approx_prefix_cache;
use crate::plugins::{BuildCx, BuildError, PluginType, Roles, Stability};
use crate::prefix::PrefixMatch;
use crate::scheduling::{Call, Category, Column, Scorer};

/// Registry row.
pub static TYPE: PluginType = PluginType::new("prefix-cache-scorer", Stability::Beta, build).about(
    "Prefers endpoints that hold more of the prompt in their cache.",
    "Use it where prompts share long beginnings, as chats and system prompts do. It costs one pass over \
         the candidates, and its producer hashes each prompt.",
);

/// Registry row of the scorer where endpoints are clusters.
pub static MULTICLUSTER: PluginType = PluginType::new(
    "multicluster-prefix-cache-scorer",
    Stability::Alpha,
    build_multicluster,
)
.about(
    "Prefers clusters that hold more of the prompt in their caches.",
    "Use it where endpoints are whole clusters and prompts share long beginnings. It costs one pass over the \
         candidates, and its producer hashes each prompt.",
);

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Params {
    /// Instance that produces the matches; by default the approximate producer.
    prefix_match_info_producer_name: String,
    /// Weight of the length of the match against its share of the prompt, 0..=1.
    match_length_weight: f64,
    /// Tokens at which the length of the match counts in full; above 0 if its weight is.
    match_length_scale_tokens: f64,
}

impl Default for Params {
    fn default() -> Self {
        Self {
            prefix_match_info_producer_name: String::new(),
            match_length_weight: 0.0,
            match_length_scale_tokens: 8192.0,
        }
    }
}

fn build(cx: &mut BuildCx<'_>) -> Result<Roles, BuildError> {
    build_with(cx, &approx_prefix_cache::TYPE)
}

fn build_multicluster(cx: &mut BuildCx<'_>) -> Result<Roles, BuildError> {
    build_with(cx, &approx_prefix_cache::MULTICLUSTER)
}

/// `default` produces the matches where no instance is named.
fn build_with(cx: &mut BuildCx<'_>, default: &PluginType) -> Result<Roles, BuildError> {
    let params: Params = cx.params()?;
    if !(0.0..=1.0).contains(&params.match_length_weight) {
        return Err(BuildError::at("matchLengthWeight", "must lie in 0..=1"));
    }
    if params.match_length_weight > 0.0 && params.match_length_scale_tokens <= 0.0 {
        return Err(BuildError::at("matchLengthScaleTokens", "must be above 0 where matchLengthWeight is"));
    }
    let producer = match params.prefix_match_info_producer_name.as_str() {
        "" => default.name,
        named => named,
    };
    let matches = cx.consumes(producer, Some(default.name));
    Ok(Roles::default().scorer(Arc::new(PrefixCache {
        matches,
        length_weight: params.match_length_weight,
        length_scale: params.match_length_scale_tokens,
    })))
}

#[derive(Debug)]
struct PrefixCache {
    matches: Column<PrefixMatch>,
    length_weight: f64,
    length_scale: f64,
}

impl Scorer for PrefixCache {
    fn category(&self) -> Category {
        Category::Affinity
    }

    fn score(&self, call: &Call<'_>, out: &mut [f64]) {
        let Some(matches) = call.column(self.matches) else { return };
        for (score, prefix) in out.iter_mut().zip(matches) {
            if prefix.total == 0 {
                continue;
            }
            let mut length = 0.0;
            if self.length_weight > 0.0 {
                let tokens = f64::from(prefix.matched) * f64::from(prefix.block_size);
                length = (tokens / self.length_scale).min(1.0).powi(2);
            }
            *score = self.length_weight * length + (1.0 - self.length_weight) * prefix.fraction();
        }
    }
}
