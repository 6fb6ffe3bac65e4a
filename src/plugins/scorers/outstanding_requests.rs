//! `outstanding-requests-scorer`: load by the age of its reading.
//!
//! `x = waiting + running` at the last reading, plus what this process and its peers sent since, minus what of that
//! ended since; what this process has in flight where nothing was ever read. The score is `(max − x) / (max − min)` over
//! a choice among the endpoints in the running, 1 if all are equal; endpoints that were not drawn score 0. Of `n`
//! endpoints, `max(2, n · 2^(−age / halfLifeMs))` are drawn for each request, where `age` is that of the oldest reading:
//! old readings make a herd of all replicas, which a choice among few avoids (Mitzenmacher, "How useful is old
//! information?", 2000). A `halfLifeMs` of 0 draws all of them always. Equal scores are a random tie for the picker.
//!
//! For it: it sees load of strangers, and its own requests at once. Against it: it counts requests, which may differ in
//! cost by a factor of a thousand. Cost: two passes over the candidates.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::plugins::by_age::{Draw, HALF_LIFE_MS};
use crate::plugins::{BuildCx, BuildError, PluginType, Roles, Stability};
use crate::scheduling::{Call, Category, Scorer};

/// Registry row.
pub static TYPE: PluginType = PluginType::new("outstanding-requests-scorer", Stability::Beta, build).about(
    "Prefers endpoints with few waiting and running requests, counted on from the last reading.",
    "Use it where readings are old, where several replicas send, or where others use the same servers. It costs two \
         passes over the candidates.",
);

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Params {
    /// Age of readings in milliseconds at which half of the endpoints are drawn; 0 draws all of them at any age.
    half_life_ms: f64,
}

impl Default for Params {
    fn default() -> Self {
        Self { half_life_ms: HALF_LIFE_MS }
    }
}

fn build(cx: &mut BuildCx<'_>) -> Result<Roles, BuildError> {
    let Params { half_life_ms } = cx.params()?;
    let draw = Draw::new(half_life_ms, cx.seed())?;
    Ok(Roles::default().scorer(Arc::new(OutstandingRequests { draw })))
}

#[derive(Debug)]
struct OutstandingRequests {
    draw: Draw,
}

impl Scorer for OutstandingRequests {
    fn category(&self) -> Category {
        Category::Distribution
    }

    fn score(&self, call: &Call<'_>, out: &mut [f64]) {
        for (value, endpoint) in out.iter_mut().zip(call.endpoints()) {
            *value = endpoint.load().outstanding() as f64;
        }
        let Some(places) = self.draw.places(call) else {
            super::lowest_is_best(out);
            return;
        };
        let mut chosen: Vec<f64> = places.iter().filter_map(|place| out.get(*place).copied()).collect();
        super::lowest_is_best(&mut chosen);
        out.fill(0.0);
        for (place, score) in places.into_iter().zip(chosen) {
            if let Some(out) = out.get_mut(place) {
                *out = score;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::plugins::fixture::{Fleet, pod, request};
    use crate::pool::Lease;
    use crate::scheduling::Columns;

    #[test]
    fn what_was_sent_since_the_reading_counts_on_top_of_it() {
        let mut fleet = Fleet::new([pod("a").waiting(4), pod("b").waiting(2), pod("c").waiting(0)]);
        let built = fleet.build(&TYPE, Some(json!({"halfLifeMs": 0}))).unwrap();
        let score = |fleet: &Fleet| fleet.scores(&built.roles, &request("m"), &Columns::new());
        assert_eq!(score(&fleet), [0.0, 0.5, 1.0]);
        let snapshot = fleet.snapshot();
        let _leases: Vec<Lease> = (0..4).map(|_| Lease::take(&snapshot.endpoints()[2], 1)).collect();
        assert_eq!(score(&fleet), [0.0, 1.0, 0.0]);
    }
}
