//! `queue-scorer`: prefers endpoints with fewer waiting requests.
//!
//! `(max − waiting) / (max − min)` over the endpoints in the running, 1 if all are equal. It is relative: a difference
//! of one request spreads scores over all of 0..=1. Reads the scraped queue length. With `loadByAge` the queue is
//! counted on from its reading (`plugins/by_age.rs`). Cost: two passes over the candidates.

use std::sync::Arc;

use crate::plugins::by_age::ByAge;
use crate::plugins::{PluginType, Roles, Stability};
use crate::scheduling::{Call, Category, Scorer};

/// Registry row.
pub static TYPE: PluginType = PluginType::new("queue-scorer", Stability::Beta, |cx| {
    let by_age = ByAge::alone(cx)?;
    Ok(Roles::default().scorer(Arc::new(Queue { by_age })))
})
.about(
    "Prefers endpoints with fewer waiting requests.",
    "Use it in nearly every profile, because a queue is the surest sign of a busy server. It costs two \
         passes over the candidates.",
);

#[derive(Debug)]
struct Queue {
    by_age: ByAge,
}

impl Scorer for Queue {
    fn category(&self) -> Category {
        Category::Distribution
    }

    fn score(&self, call: &Call<'_>, out: &mut [f64]) {
        super::least_is_best(call, out, |endpoint| self.by_age.waiting(endpoint.load()));
        self.by_age.choose(call, out);
    }
}
