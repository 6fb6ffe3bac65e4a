//! `weighted-random-picker`: endpoints at random, in proportion to their scores, without repetition.
//!
//! Efraimidis and Spirakis: each endpoint draws `U` in (0, 1) and gets the key `U^(1/score)`; the highest keys win.
//! Keys are compared as `ln(U)/score`, which orders alike and does not vanish for small scores. Scores of 0 and below
//! come last, in random order; if none is above 0, the choice is that of `random-picker`. Cost: a draw and a logarithm
//! an endpoint.

use std::sync::Arc;

use fastrand::Rng;
use smallvec::SmallVec;

use super::{max_score, random};
use crate::plugins::{BuildCx, BuildError, PluginType, Roles, Stability};
use crate::scheduling::{Call, Picker};

/// Registry row.
pub static TYPE: PluginType = PluginType::new("weighted-random-picker", Stability::Beta, build).about(
    "Picks an endpoint at random, in proportion to its score.",
    "Use it where several pickers with the same view of the pool would all choose the same endpoint. It \
         costs a draw and a logarithm for each endpoint.",
);

/// The value that a draw of 0 becomes.
const SMALLEST_DRAW: f64 = 1e-10;

fn build(cx: &mut BuildCx<'_>) -> Result<Roles, BuildError> {
    let limit = super::limit(cx)?;
    Ok(Roles::default().picker(Arc::new(WeightedRandom { limit })))
}

#[derive(Debug)]
struct WeightedRandom {
    limit: usize,
}

impl Picker for WeightedRandom {
    fn pick(&self, _call: &Call<'_>, totals: &[f64], rng: &mut Rng, picked: &mut SmallVec<[u32; 4]>) {
        if !totals.iter().any(|&total| total > 0.0) {
            random::choose(totals.len(), self.limit, rng, picked);
            return;
        }
        let mut draws = rng.fork();
        let keys = totals.iter().map(|&total| {
            if total > 0.0 {
                (draws.f64().max(SMALLEST_DRAW).ln() / total).max(f64::MIN)
            } else {
                f64::NEG_INFINITY
            }
        });
        if self.limit == 1 {
            // Two keys are never equal but with a vanishing chance, and one is finite.
            let best = keys.zip(0u32..).max_by(|(a, _), (b, _)| a.total_cmp(b));
            picked.extend(best.map(|(_, position)| position));
        } else {
            max_score::take_best(keys, self.limit, rng, picked);
        }
    }
}
