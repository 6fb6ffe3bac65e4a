//! `random-picker`: endpoints at random, each as likely as the next, whatever their scores.
//!
//! Cost: a draw a returned endpoint; with several, one pass over the candidates.

use std::sync::Arc;

use fastrand::Rng;
use smallvec::SmallVec;

use crate::plugins::{BuildCx, BuildError, PluginType, Roles, Stability};
use crate::scheduling::{Call, Picker};

/// Registry row.
pub static TYPE: PluginType = PluginType::new("random-picker", Stability::Beta, build).about(
    "Picks an endpoint at random, whatever its score.",
    "Use it to compare other profiles with chance, or where filters alone decide. It costs one draw for \
         each endpoint that is returned.",
);

fn build(cx: &mut BuildCx<'_>) -> Result<Roles, BuildError> {
    let limit = super::limit(cx)?;
    Ok(Roles::default().picker(Arc::new(Random { limit })))
}

#[derive(Debug)]
struct Random {
    limit: usize,
}

impl Picker for Random {
    fn pick(&self, _call: &Call<'_>, totals: &[f64], rng: &mut Rng, picked: &mut SmallVec<[u32; 4]>) {
        choose(totals.len(), self.limit, rng, picked);
    }
}

/// Appends `limit` of `count` positions, or all, in random order.
pub(super) fn choose(count: usize, limit: usize, rng: &mut Rng, picked: &mut SmallVec<[u32; 4]>) {
    if limit == 1 && count > 0 {
        picked.push(rng.usize(..count) as u32);
        return;
    }
    let mut positions: Vec<u32> = (0..count as u32).collect();
    for next in 0..limit.min(count) {
        positions.swap(next, rng.usize(next..count));
        picked.push(positions[next]);
    }
}
