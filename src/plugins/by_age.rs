//! Load by the age of its reading: one option for every plugin that goes by readings.
//!
//! With `loadByAge` a figure is the one of the last reading, plus what this process and its peers sent since, minus
//! what of theirs ended since. Of `n` endpoints, `max(2, n · 2^(−age / halfLifeMs))` are drawn for each request, where
//! `age` is that of the oldest reading; scorers give the others 0. Old readings make a herd of all replicas, which a
//! choice among few avoids (Mitzenmacher, "How useful is old information?", 2000). Equal scores are a random tie for
//! the picker.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;
use xxhash_rust::xxh64::xxh64;

use super::{BuildCx, BuildError};
use crate::pool::{Age, Load};
use crate::scheduling::Call;

/// Half-life unless set, in milliseconds.
pub(super) const HALF_LIFE_MS: f64 = 500.0;

/// A choice among the fewer endpoints, the older the readings are.
#[derive(Debug, Clone, Copy)]
pub(super) struct Draw {
    /// Seconds.
    half_life: f64,
    seed: u64,
}

impl Draw {
    /// A choice that halves with each `half_life_ms`; 0 draws all endpoints always.
    pub(super) fn new(half_life_ms: f64, seed: u64) -> Result<Self, BuildError> {
        if !half_life_ms.is_finite() || half_life_ms < 0.0 {
            let message = format!("is {half_life_ms}, expected a number of at least 0");
            return Err(BuildError::at("halfLifeMs", message));
        }
        Ok(Self { half_life: half_life_ms / 1e3, seed })
    }

    /// How many of `count` endpoints are drawn.
    fn count(self, count: usize, oldest: Duration) -> usize {
        if self.half_life <= 0.0 {
            return count;
        }
        let share = (-oldest.as_secs_f64() / self.half_life).exp2();
        ((count as f64 * share).ceil() as usize).max(2)
    }

    /// Places of the drawn endpoints; `None` if all are.
    pub(super) fn places(self, call: &Call<'_>) -> Option<Vec<usize>> {
        let ages = call.endpoints().filter_map(|endpoint| match endpoint.load().age(call.now) {
            Age::Since(age) => Some(age),
            Age::Never => None,
        });
        let drawn = self.count(call.len(), ages.max().unwrap_or_default());
        if drawn >= call.len() {
            return None;
        }
        let seed = xxh64(call.request.id.as_bytes(), self.seed);
        let mut order: Vec<(u64, usize)> =
            (0..call.len()).map(|place| (xxh64(&(place as u64).to_le_bytes(), seed), place)).collect();
        order.select_nth_unstable(drawn - 1);
        order.truncate(drawn);
        Some(order.into_iter().map(|(_, place)| place).collect())
    }
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Params {
    /// Count the last reading on by what this process and its peers sent since and what ended since, and choose among
    /// the fewer endpoints, the older the readings are.
    load_by_age: bool,
    /// Age of readings in milliseconds at which half of the endpoints are drawn, with `loadByAge`; 0 draws all of them
    /// at any age.
    half_life_ms: f64,
}

impl Default for Params {
    fn default() -> Self {
        Self { load_by_age: false, half_life_ms: HALF_LIFE_MS }
    }
}

/// The option of a scorer.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct ByAge(Option<Draw>);

impl ByAge {
    /// The option with these parameters.
    pub(super) fn new(on: bool, half_life_ms: f64, seed: u64) -> Result<Self, BuildError> {
        let draw = Draw::new(half_life_ms, seed)?;
        Ok(Self(on.then_some(draw)))
    }

    /// The option of a plugin that takes no other parameters.
    pub(super) fn alone(cx: &mut BuildCx<'_>) -> Result<Self, BuildError> {
        if cx.asks_for(&["loadByAge", "halfLifeMs"]) {
            let Params { load_by_age, half_life_ms } = cx.params()?;
            return Self::new(load_by_age, half_life_ms, cx.seed());
        }
        cx.no_params();
        Ok(Self::default())
    }

    /// Waiting requests of an endpoint.
    pub(super) fn waiting(self, load: &Load) -> u64 {
        if self.0.is_some() { load.waiting_by_now() } else { load.waiting() }
    }

    /// Running requests of an endpoint.
    pub(super) fn running(self, load: &Load) -> u64 {
        if self.0.is_some() { load.running_by_now() } else { load.running() }
    }

    /// KV-cache usage of an endpoint, 0..=1.
    pub(super) fn kv_usage(self, load: &Load) -> f64 {
        if self.0.is_some() { load.kv_usage_by_now() } else { load.kv_usage() }
    }

    /// Gives endpoints that are not drawn a score of 0.
    pub(super) fn choose(self, call: &Call<'_>, scores: &mut [f64]) {
        let Some(places) = self.0.and_then(|draw| draw.places(call)) else { return };
        let mut chosen = vec![0.0; scores.len()];
        for place in places {
            if let (Some(to), Some(from)) = (chosen.get_mut(place), scores.get(place)) {
                *to = *from;
            }
        }
        scores.copy_from_slice(&chosen);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::plugins::PluginType;
    use crate::plugins::fixture::{Fleet, pod, request};
    use crate::plugins::scorers::{kv_cache_utilization, load_aware, queue, running_requests_size};
    use crate::pool::Lease;
    use crate::scheduling::Columns;

    #[test]
    fn the_older_the_reading_the_fewer_are_drawn_but_never_less_than_two() {
        let draw = Draw::new(500.0, 0).unwrap();
        for (ms, drawn) in [(0, 16), (500, 8), (1000, 4), (5000, 2)] {
            assert_eq!(draw.count(16, Duration::from_millis(ms)), drawn, "{ms} ms");
        }
        assert_eq!(Draw::new(0.0, 0).unwrap().count(16, Duration::from_secs(9)), 16);
    }

    fn scored(plugin: &PluginType, params: serde_json::Value, age: Duration) -> Vec<f64> {
        let pods = ["a", "b", "c", "d", "e", "f", "g", "h"]
            .map(|name| pod(name).waiting(2).running(4).kv(0.25).cache(16, 100));
        let mut fleet = Fleet::new(pods);
        let built = fleet.build(plugin, Some(params)).unwrap();
        let snapshot = fleet.snapshot();
        let _leases: Vec<Lease> = (0..4).map(|_| Lease::take(&snapshot.endpoints()[0], 100)).collect();
        fleet.now += age;
        fleet.scores(&built.roles, &request("m"), &Columns::new())
    }

    #[test]
    fn every_scorer_that_goes_by_readings_counts_them_on_where_it_is_told_to() {
        for plugin in
            [&queue::TYPE, &running_requests_size::TYPE, &load_aware::TYPE, &kv_cache_utilization::TYPE]
        {
            let plain = scored(plugin, json!({}), Duration::ZERO);
            assert!(plain.iter().all(|score| (score - plain[0]).abs() < 1e-12), "{}: {plain:?}", plugin.name);
            let counted = scored(plugin, json!({"loadByAge": true}), Duration::ZERO);
            assert!(counted[0] < counted[1], "{}: {counted:?}", plugin.name);
            let old = scored(plugin, json!({"loadByAge": true}), Duration::from_secs(1));
            let drawn = old.iter().filter(|score| **score > 0.0).count();
            assert!(drawn <= 2, "{}: {old:?}", plugin.name);
            let all = scored(plugin, json!({"loadByAge": true, "halfLifeMs": 0}), Duration::from_secs(1));
            assert_eq!(all, counted, "{}", plugin.name);
        }
    }

    #[test]
    fn a_half_life_below_zero_is_refused_by_name() {
        let mut fleet = Fleet::new([]);
        for plugin in [&queue::TYPE, &load_aware::TYPE] {
            let error = fleet.build(plugin, Some(json!({"loadByAge": true, "halfLifeMs": -1}))).err();
            assert_eq!(error.map(|error| error.path), Some("halfLifeMs".to_owned()));
        }
    }
}
