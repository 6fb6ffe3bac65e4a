//! `max-score-picker`: the endpoints with the highest scores. Endpoints with equal scores are equally likely to come
//! first.
//!
//! Cost: one pass over the candidates; with several endpoints to return, a partial selection, not a sort of all.

use std::cmp::Ordering;
use std::sync::Arc;

use fastrand::Rng;
use smallvec::SmallVec;

use super::comparable;
use crate::plugins::{BuildCx, BuildError, PluginType, Roles, Stability};
use crate::scheduling::{Call, Picker};

/// Registry row.
pub static TYPE: PluginType = PluginType::new("max-score-picker", Stability::Beta, build).about(
    "Picks the endpoint with the highest score; equal scores are equally likely.",
    "Use it unless there is a reason for another picker. It costs one pass over the candidates.",
);

fn build(cx: &mut BuildCx<'_>) -> Result<Roles, BuildError> {
    let limit = super::limit(cx)?;
    Ok(Roles::default().picker(Arc::new(MaxScore { limit })))
}

#[derive(Debug)]
struct MaxScore {
    limit: usize,
}

impl Picker for MaxScore {
    fn pick(&self, _call: &Call<'_>, totals: &[f64], rng: &mut Rng, picked: &mut SmallVec<[u32; 4]>) {
        if self.limit == 1 {
            picked.extend(best(totals, rng));
        } else {
            let scores = totals.iter().map(|&total| comparable(total));
            take_best(scores, self.limit, rng, picked);
        }
    }
}

/// Position of the highest total; of equal ones each is equally likely.
fn best(totals: &[f64], rng: &mut Rng) -> Option<u32> {
    let highest = totals.iter().copied().map(comparable).max_by(f64::total_cmp)?;
    let ties = || (0u32..).zip(totals).filter(|(_, total)| comparable(**total) >= highest);
    let count = ties().count();
    let chosen = if count > 1 { rng.usize(..count) } else { 0 };
    ties().nth(chosen).map(|(position, _)| position)
}

/// Appends the positions of the `limit` highest scores, highest first; equal ones are in random order.
pub(super) fn take_best(
    scores: impl Iterator<Item = f64>,
    limit: usize,
    rng: &mut Rng,
    picked: &mut SmallVec<[u32; 4]>,
) {
    // Being random for each endpoint, the second part makes ties fair.
    let mut ranked: Vec<(f64, u64, u32)> =
        scores.zip(0..).map(|(score, position)| (score, rng.u64(..), position)).collect();
    let by_rank = |a: &(f64, u64, u32), b: &(f64, u64, u32)| -> Ordering {
        b.0.partial_cmp(&a.0).unwrap_or(Ordering::Equal).then_with(|| a.1.cmp(&b.1))
    };
    if limit < ranked.len() {
        ranked.select_nth_unstable_by(limit, by_rank);
        ranked.truncate(limit);
    }
    ranked.sort_unstable_by(by_rank);
    picked.extend(ranked.iter().map(|(_, _, position)| *position));
}
