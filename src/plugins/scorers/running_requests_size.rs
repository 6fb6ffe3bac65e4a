//! `running-requests-size-scorer`: prefers endpoints with fewer running requests.
//!
//! `(max − running) / (max − min)` over the endpoints in the running, 1 if all are equal. Reads the scraped size of the
//! batch. Takes no parameters. Cost: two passes over the candidates.

use std::sync::Arc;

use crate::plugins::{PluginType, Roles, Stability};
use crate::scheduling::{Call, Category, Scorer};

/// Registry row.
pub static TYPE: PluginType = PluginType {
    name: "running-requests-size-scorer",
    reports_as: "running-requests-size-scorer",
    stability: Stability::Beta,
    superseded: None,
    build: |cx| {
        cx.no_params();
        Ok(Roles::default().scorer(Arc::new(RunningRequestsSize)))
    },
};

#[derive(Debug)]
struct RunningRequestsSize;

impl Scorer for RunningRequestsSize {
    fn category(&self) -> Category {
        Category::Distribution
    }

    fn score(&self, call: &Call<'_>, out: &mut [f64]) {
        super::least_is_best(call, out, |endpoint| endpoint.load().running());
    }
}
