//! `load-aware-scorer`: prefers endpoints with short queues, on an absolute scale.
//!
//! `0.5 · (1 − min(waiting, threshold) / threshold)`: 0.5 with an empty queue, 0 from the threshold on. Reads the
//! scraped queue length. With `loadByAge` it is counted on from its reading (`plugins/by_age.rs`). Cost: one
//! pass over the candidates.

use std::sync::Arc;

use schemars::JsonSchema;

use serde::Deserialize;

use crate::plugins::by_age::{ByAge, HALF_LIFE_MS};
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
    /// Count the last reading on by what this process and its peers sent since and what ended since, and choose among
    /// the fewer endpoints, the older the readings are.
    load_by_age: bool,
    /// Age of readings in milliseconds at which half of the endpoints are drawn, with `loadByAge`; 0 draws all of them
    /// at any age.
    half_life_ms: f64,
}

impl Default for Params {
    fn default() -> Self {
        Self { threshold: DEFAULT_THRESHOLD, load_by_age: false, half_life_ms: HALF_LIFE_MS }
    }
}

fn build(cx: &mut BuildCx<'_>) -> Result<Roles, BuildError> {
    let Params { mut threshold, load_by_age, half_life_ms } = cx.params()?;
    let by_age = ByAge::new(load_by_age, half_life_ms, cx.seed())?;
    if threshold < 1 {
        cx.warn(format!("threshold: {threshold} is below 1, using {DEFAULT_THRESHOLD}"));
        threshold = DEFAULT_THRESHOLD;
    }
    Ok(Roles::default().scorer(Arc::new(LoadAware { threshold: threshold as f64, by_age })))
}

#[derive(Debug)]
struct LoadAware {
    threshold: f64,
    by_age: ByAge,
}

impl Scorer for LoadAware {
    fn category(&self) -> Category {
        Category::Distribution
    }

    fn score(&self, call: &Call<'_>, out: &mut [f64]) {
        for (score, endpoint) in out.iter_mut().zip(call.endpoints()) {
            let waiting = (self.by_age.waiting(endpoint.load()) as f64).min(self.threshold);
            *score = 0.5 * (1.0 - waiting / self.threshold);
        }
        self.by_age.choose(call, out);
    }
}
