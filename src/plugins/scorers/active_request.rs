//! `active-request-scorer`: prefers endpoints that serve fewer of the requests this process sent.
//!
//! With `c` requests in flight and `M` the most of any endpoint in the running: 1 up to `idleThreshold`; else `(M − c)
//! / M · maxBusyScore`, so the busiest gets 0. It reads the ledger of leases, which is exact at once and needs no
//! scrape. Cost: two passes over the candidates.

use std::sync::Arc;

use schemars::JsonSchema;

use serde::Deserialize;

use crate::plugins::load_producer::note_load_producer;
use crate::plugins::{BuildCx, BuildError, PluginType, Roles, Stability};
use crate::scheduling::{Call, Category, Scorer};

/// Registry row.
pub static TYPE: PluginType = PluginType::new("active-request-scorer", Stability::Beta, build).about(
    "Prefers endpoints that serve fewer of the requests that this process sent.",
    "Use it where requests cost about the same, or where scrapes are too slow to follow the load. It \
         costs two passes over the candidates and needs no scrape.",
);

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Params {
    /// Without effect: a request counts until its stream ends.
    request_timeout: Option<String>,
    /// Most requests in flight at which an endpoint still counts as idle; negative means 0.
    idle_threshold: i64,
    /// Highest score of an endpoint that is not idle, 0..=1; outside it means 1.
    max_busy_score: f64,
    /// Without effect: the ledger is always there.
    in_flight_load_producer_name: Option<String>,
}

impl Default for Params {
    fn default() -> Self {
        Self {
            request_timeout: None,
            idle_threshold: 0,
            max_busy_score: 1.0,
            in_flight_load_producer_name: None,
        }
    }
}

fn build(cx: &mut BuildCx<'_>) -> Result<Roles, BuildError> {
    let mut params: Params = cx.params()?;
    if params.request_timeout.is_some() {
        cx.warn("requestTimeout has no effect, a request counts until its stream ends");
    }
    note_load_producer(cx, params.in_flight_load_producer_name.as_deref());
    if params.idle_threshold < 0 {
        cx.warn(format!("idleThreshold: {} is negative, using 0", params.idle_threshold));
    }
    if !(0.0..=1.0).contains(&params.max_busy_score) {
        cx.warn(format!("maxBusyScore: {} is outside 0..=1, using 1", params.max_busy_score));
        params.max_busy_score = 1.0;
    }
    Ok(Roles::default().scorer(Arc::new(ActiveRequest {
        idle_threshold: u64::try_from(params.idle_threshold).unwrap_or(0) as f64,
        max_busy_score: params.max_busy_score,
    })))
}

#[derive(Debug)]
struct ActiveRequest {
    idle_threshold: f64,
    max_busy_score: f64,
}

impl Scorer for ActiveRequest {
    fn category(&self) -> Category {
        Category::Distribution
    }

    fn score(&self, call: &Call<'_>, out: &mut [f64]) {
        let mut most: f64 = 0.0;
        for (score, endpoint) in out.iter_mut().zip(call.endpoints()) {
            *score = endpoint.load().in_flight() as f64;
            most = most.max(*score);
        }
        for score in out {
            *score = if *score <= self.idle_threshold {
                1.0
            } else {
                (most - *score) / most * self.max_busy_score
            };
        }
    }
}
