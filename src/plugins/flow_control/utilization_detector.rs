//! `utilization-detector`: an endpoint is full when its queue or its cache, as last scraped, reaches a threshold.
//!
//! | parameter | default | meaning |
//! |---|---|---|
//! | `queueDepthThreshold` | 5 | waiting requests of a full endpoint, at least 1 |
//! | `kvCacheUtilThreshold` | 0.8 | cache usage of a full endpoint, above 0 and at most 1 |
//! | `metricsStalenessThreshold` | `200ms` | age from which a reading is not believed |
//! | `headroom` | 0 | share by which the filter lets the thresholds be exceeded |
//! | `stalenessPolicy` | `inflight` | what an endpoint without a recent reading counts as: `saturated`, `ignore` (not there), `inflight` (by what this process has in flight there) |
//! | `loadByAge` | false | counts the queue and the cache on from the last reading (`plugins/by_age.rs`): what ended since leaves the queue, and the prompts sent since take room in the cache |
//!
//! As a filter it keeps the endpoints below the thresholds, and all of them if none is. The formulas are in
//! [`crate::flow::saturation`].

use std::sync::Arc;
use std::time::Duration;

use schemars::JsonSchema;

use serde::Deserialize;

use super::{headroom, positive};
use crate::document::scalar::go_duration;
use crate::flow::detector::{DetectorKind, StalenessPolicy, Utilization};
use crate::plugins::{BuildCx, BuildError, PluginType, Roles, Stability};
use crate::scheduling::{Call, Filter, Mask};

/// Registry row.
pub static TYPE: PluginType = PluginType::new("utilization-detector", Stability::Beta, build).about(
    "Counts an endpoint as full when its queue or its cache, as last scraped, reaches a threshold.",
    "Use it where the servers' own figures say best how busy they are; it is the default. It costs one \
         pass over the endpoints for each look at the pool.",
);

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Params {
    /// Waiting requests of a full endpoint, at least 1. Requests sent since the reading count as waiting.
    queue_depth_threshold: i64,
    /// Share of the KV cache in use of a full endpoint, above 0 and at most 1. The score is the larger of the two
    /// shares.
    kv_cache_util_threshold: f64,
    /// Age from which a reading is not believed, above 0.
    metrics_staleness_threshold: String,
    /// Share by which the filter lets the thresholds be exceeded, at least 0.
    headroom: f64,
    /// How an endpoint without a believed reading counts. `inflight`: by its requests in flight, 100 being
    /// full; `saturated`: full; `ignore`: not there.
    staleness_policy: String,
    /// Count the last reading on by what this process and its peers sent since and what ended since. Otherwise what was
    /// sent since waits until the next reading, and the cache is as full as it was read.
    load_by_age: bool,
}

impl Default for Params {
    fn default() -> Self {
        Self {
            queue_depth_threshold: 5,
            kv_cache_util_threshold: 0.8,
            metrics_staleness_threshold: "200ms".to_owned(),
            headroom: 0.0,
            staleness_policy: "inflight".to_owned(),
            load_by_age: false,
        }
    }
}

fn build(cx: &mut BuildCx<'_>) -> Result<Roles, BuildError> {
    let params: Params = cx.params()?;
    let fault = BuildError::at;
    let settings = Utilization {
        queue_depth_threshold: positive("queueDepthThreshold", params.queue_depth_threshold)?,
        kv_cache_util_threshold: kv_threshold(params.kv_cache_util_threshold)
            .map_err(|message| fault("kvCacheUtilThreshold", message))?,
        staleness_threshold: staleness_threshold(&params.metrics_staleness_threshold)
            .map_err(|message| fault("metricsStalenessThreshold", message))?,
        headroom: headroom(cx, params.headroom)?,
        staleness_policy: match params.staleness_policy.as_str() {
            "saturated" => StalenessPolicy::Saturated,
            "ignore" => StalenessPolicy::Ignore,
            "inflight" | "" => StalenessPolicy::InFlight,
            other => {
                let message = format!("got \"{other}\", expected \"saturated\", \"ignore\" or \"inflight\"");
                return Err(fault("stalenessPolicy", message));
            }
        },
        by_age: params.load_by_age,
    };
    if let Some(doubt) = doubt_about_staleness(settings.staleness_threshold) {
        cx.warn(format!("metricsStalenessThreshold {doubt}"));
    }
    let filter = Arc::new(BelowThresholds { settings: settings.clone() });
    Ok(Roles { detector: Some(DetectorKind::Utilization(settings)), ..Roles::default() }.filter(filter))
}

/// Checks a cache usage that stands for full.
pub(crate) fn kv_threshold(value: f64) -> Result<f64, String> {
    if value > 0.0 && value <= 1.0 {
        Ok(value)
    } else {
        Err(format!("got {value}, expected a number above 0 and at most 1"))
    }
}

/// Reads the age from which a reading is not believed.
pub(crate) fn staleness_threshold(text: &str) -> Result<Duration, String> {
    match go_duration(text)? {
        Duration::ZERO => Err(format!("got \"{text}\", expected a duration above 0")),
        threshold => Ok(threshold),
    }
}

/// Two intervals between scrapes as they are by default: with less, readings grow stale between two scrapes.
const SHORT: Duration = Duration::from_millis(100);

/// What to say of an age that makes readings stale as soon as they come, unless scrapes are more frequent than by
/// default.
pub(crate) fn doubt_about_staleness(threshold: Duration) -> Option<String> {
    (threshold < SHORT).then(|| {
        format!("is {threshold:?}: readings are stale between two scrapes; expected at least twice the interval between scrapes, {SHORT:?} by default")
    })
}

#[derive(Debug)]
struct BelowThresholds {
    settings: Utilization,
}

impl Filter for BelowThresholds {
    fn narrow(&self, call: &Call<'_>, keep: &mut Mask) {
        let now = call.now;
        keep.retain(call.endpoints(), |endpoint| self.settings.has_room(endpoint.load(), now));
        if keep.count() == 0 {
            keep.reset(call.len());
        }
    }
}
