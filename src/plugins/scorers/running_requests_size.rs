//! `running-requests-size-scorer`: prefers endpoints with fewer running requests.
//!
//! `(max − running) / (max − min)` over the endpoints in the running, 1 if all are equal. Reads the scraped size of the
//! batch. With `loadByAge` it is counted on from its reading (`plugins/by_age.rs`). Cost: two passes over the
//! candidates.

use std::sync::Arc;

use crate::plugins::by_age::ByAge;
use crate::plugins::{PluginType, Roles, Stability};
use crate::scheduling::{Call, Category, Scorer};

/// Registry row.
pub static TYPE: PluginType = PluginType::new("running-requests-size-scorer", Stability::Beta, |cx| {
    let by_age = ByAge::alone(cx)?;
    Ok(Roles::default().scorer(Arc::new(RunningRequestsSize { by_age })))
})
.about(
    "Prefers endpoints with fewer running requests.",
    "Use it where the servers rarely queue, so that the size of the batch tells more than the queue. It \
         costs two passes over the candidates.",
);

#[derive(Debug)]
struct RunningRequestsSize {
    by_age: ByAge,
}

impl Scorer for RunningRequestsSize {
    fn category(&self) -> Category {
        Category::Distribution
    }

    fn score(&self, call: &Call<'_>, out: &mut [f64]) {
        super::least_is_best(call, out, |endpoint| self.by_age.running(endpoint.load()));
        self.by_age.choose(call, out);
    }
}
