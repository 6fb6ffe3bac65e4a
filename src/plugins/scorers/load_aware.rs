//! `load-aware-scorer`: prefers endpoints with short queues, on an absolute scale.
//!
//! `0.5 · (1 − min(waiting, threshold) / threshold)`: 0.5 with an empty queue, 0 from the threshold on. Reads the
//! scraped queue length. Cost: one pass over the candidates.

use std::sync::Arc;

use schemars::JsonSchema;

use serde::Deserialize;

use crate::plugins::{BuildCx, BuildError, PluginType, Roles, Stability};
use crate::scheduling::{Call, Category, Scorer};

/// Registry row.
pub static TYPE: PluginType = PluginType::new("load-aware-scorer", Stability::Beta, build).about(
    "Prefers endpoints with short queues, on an absolute scale.",
    "Use it where a difference of a few waiting requests should not outweigh other scores, as it does \
         with queue-scorer. It costs one pass over the candidates.",
);

/// Waiting requests at which an endpoint counts as full, unless configured.
const DEFAULT_THRESHOLD: i64 = 128;

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Params {
    /// Waiting requests at which the score reaches 0; below 1 means the default.
    threshold: i64,
}

impl Default for Params {
    fn default() -> Self {
        Self { threshold: DEFAULT_THRESHOLD }
    }
}

fn build(cx: &mut BuildCx<'_>) -> Result<Roles, BuildError> {
    let Params { mut threshold } = cx.params()?;
    if threshold < 1 {
        cx.warn(format!("threshold: {threshold} is below 1, using {DEFAULT_THRESHOLD}"));
        threshold = DEFAULT_THRESHOLD;
    }
    Ok(Roles::default().scorer(Arc::new(LoadAware { threshold: threshold as f64 })))
}

#[derive(Debug)]
struct LoadAware {
    threshold: f64,
}

impl Scorer for LoadAware {
    fn category(&self) -> Category {
        Category::Distribution
    }

    fn score(&self, call: &Call<'_>, out: &mut [f64]) {
        for (score, endpoint) in out.iter_mut().zip(call.endpoints()) {
            let waiting = (endpoint.load().waiting() as f64).min(self.threshold);
            *score = 0.5 * (1.0 - waiting / self.threshold);
        }
    }
}
