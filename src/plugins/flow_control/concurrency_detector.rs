//! `concurrency-detector`: an endpoint is full when this process has as much in flight there as a limit says.
//!
//! | parameter | default | meaning |
//! |---|---|---|
//! | `concurrencyMode` | `requests` | what counts: `requests`, `tokens`, or `hybrid`, whichever is closer to its limit |
//! | `maxConcurrency` | 100 | requests of a full endpoint, at least 1 |
//! | `maxTokenConcurrency` | 1000000 | estimated tokens of a full endpoint, at least 1 |
//! | `headroom` | 0 | share by which the filter lets the limits be exceeded |
//! | `inFlightLoadProducerName` | | accepted without effect: what is in flight is always counted |
//!
//! As a filter it keeps the endpoints below the limits, which may be none. The formulas are in
//! [`crate::flow::saturation`].

use std::sync::Arc;

use schemars::JsonSchema;

use serde::Deserialize;

use super::{headroom, positive};
use crate::flow::detector::{Concurrency, ConcurrencyMode, DetectorKind};
use crate::plugins::{BuildCx, BuildError, PluginType, Roles, Stability};
use crate::scheduling::{Call, Filter, Mask};

/// Registry row.
pub static TYPE: PluginType = PluginType::new("concurrency-detector", Stability::Beta, build).about(
    "Counts an endpoint as full when this process has as much in flight there as a limit says.",
    "Use it where scrapes are too slow to follow the load, or where the servers' limits are known. It \
         costs one pass over the endpoints for each look at the pool.",
);

const PRODUCER: &str = "inflight-load-producer";

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Params {
    /// The unit that counts: `requests` in flight, `tokens` in flight, or `hybrid`, the larger share of the two.
    concurrency_mode: String,
    /// Requests of a full endpoint, at least 1.
    max_concurrency: i64,
    /// Tokens of a full endpoint, estimated as a quarter of the body's bytes, until its answer begins; at least 1.
    max_token_concurrency: i64,
    /// Share by which the filter lets the limits be exceeded, at least 0.
    headroom: f64,
    /// Without effect: what is in flight is always counted.
    in_flight_load_producer_name: String,
}

impl Default for Params {
    fn default() -> Self {
        Self {
            concurrency_mode: "requests".to_owned(),
            max_concurrency: 100,
            max_token_concurrency: 1_000_000,
            headroom: 0.0,
            in_flight_load_producer_name: PRODUCER.to_owned(),
        }
    }
}

fn build(cx: &mut BuildCx<'_>) -> Result<Roles, BuildError> {
    let params: Params = cx.params()?;
    let mode = match params.concurrency_mode.as_str() {
        "requests" | "" => ConcurrencyMode::Requests,
        "tokens" => ConcurrencyMode::Tokens,
        "hybrid" => ConcurrencyMode::Hybrid,
        other => {
            let message = format!("got \"{other}\", expected \"requests\", \"tokens\" or \"hybrid\"");
            return Err(BuildError::at("concurrencyMode", message));
        }
    };
    if !["", PRODUCER].contains(&params.in_flight_load_producer_name.as_str()) {
        cx.warn("inFlightLoadProducerName: has no effect, what is in flight is always counted");
    }
    let settings = Concurrency {
        max_concurrency: positive("maxConcurrency", params.max_concurrency)?,
        max_token_concurrency: positive("maxTokenConcurrency", params.max_token_concurrency)?,
        mode,
        headroom: headroom(cx, params.headroom)?,
    };
    let filter = Arc::new(BelowLimits { settings: settings.clone() });
    Ok(Roles { detector: Some(DetectorKind::Concurrency(settings)), ..Roles::default() }.filter(filter))
}

#[derive(Debug)]
struct BelowLimits {
    settings: Concurrency,
}

impl Filter for BelowLimits {
    fn narrow(&self, call: &Call<'_>, keep: &mut Mask) {
        keep.retain(call.endpoints(), |endpoint| self.settings.has_room(endpoint.load()));
    }
}
