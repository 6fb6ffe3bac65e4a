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
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;
use xxhash_rust::xxh64::xxh64;

use crate::plugins::{BuildCx, BuildError, PluginType, Roles, Stability};
use crate::pool::Age;
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
        Self { half_life_ms: 500.0 }
    }
}

fn build(cx: &mut BuildCx<'_>) -> Result<Roles, BuildError> {
    let Params { half_life_ms } = cx.params()?;
    if !half_life_ms.is_finite() || half_life_ms < 0.0 {
        return Err(BuildError::at(
            "halfLifeMs",
            format!("is {half_life_ms}, expected a number of at least 0"),
        ));
    }
    let half_life = half_life_ms / 1e3;
    Ok(Roles::default().scorer(Arc::new(OutstandingRequests { half_life, seed: cx.seed() })))
}

#[derive(Debug)]
struct OutstandingRequests {
    /// Seconds.
    half_life: f64,
    seed: u64,
}

impl OutstandingRequests {
    /// How many of `count` endpoints are drawn.
    fn drawn(&self, count: usize, oldest: Duration) -> usize {
        if self.half_life <= 0.0 {
            return count;
        }
        let share = (-oldest.as_secs_f64() / self.half_life).exp2();
        ((count as f64 * share).ceil() as usize).max(2)
    }
}

impl Scorer for OutstandingRequests {
    fn category(&self) -> Category {
        Category::Distribution
    }

    fn score(&self, call: &Call<'_>, out: &mut [f64]) {
        let ages = call.endpoints().filter_map(|endpoint| match endpoint.load().age(call.now) {
            Age::Since(age) => Some(age),
            Age::Never => None,
        });
        let drawn = self.drawn(call.len(), ages.max().unwrap_or_default());
        for (value, endpoint) in out.iter_mut().zip(call.endpoints()) {
            *value = endpoint.load().outstanding() as f64;
        }
        if drawn >= call.len() {
            super::lowest_is_best(out);
            return;
        }
        let seed = xxh64(call.request.id.as_bytes(), self.seed);
        let mut order: Vec<(u64, usize)> =
            (0..out.len()).map(|place| (xxh64(&(place as u64).to_le_bytes(), seed), place)).collect();
        order.select_nth_unstable(drawn - 1);
        order.truncate(drawn);
        let mut chosen: Vec<f64> = order.iter().filter_map(|(_, place)| out.get(*place).copied()).collect();
        super::lowest_is_best(&mut chosen);
        out.fill(0.0);
        for ((_, place), score) in order.into_iter().zip(chosen) {
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

    #[test]
    fn the_older_the_reading_the_fewer_are_drawn_but_never_less_than_two() {
        let scorer = OutstandingRequests { half_life: 0.5, seed: 0 };
        for (ms, drawn) in [(0, 16), (500, 8), (1000, 4), (5000, 2)] {
            assert_eq!(scorer.drawn(16, Duration::from_millis(ms)), drawn, "{ms} ms");
        }
        assert_eq!(OutstandingRequests { half_life: 0.0, seed: 0 }.drawn(16, Duration::from_secs(9)), 16);
    }
}
