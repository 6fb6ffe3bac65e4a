//! `low-queue-filter`, see the folder. Queues are those of the last scrape, however old, and 0 without one.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::plugins::{BuildCx, BuildError, PluginType, Roles, Stability};
use crate::scheduling::{Call, Filter, Mask};

/// Registry row.
pub static TYPE: PluginType = PluginType::new("low-queue-filter", Stability::Beta, build)
    .superseded_by("queue-scorer", "v1.0.0 of the inference extension")
    .about(
        "Keeps endpoints with at most so many waiting requests.",
        "Use queue-scorer or utilization-filter instead. It costs one pass over the candidates.",
    );

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Params {
    /// Waiting requests up to which an endpoint stays.
    threshold: u64,
}

impl Default for Params {
    fn default() -> Self {
        Self { threshold: 128 }
    }
}

fn build(cx: &mut BuildCx<'_>) -> Result<Roles, BuildError> {
    let Params { threshold } = cx.params()?;
    Ok(Roles::default().filter(Arc::new(LowQueue { threshold })))
}

#[derive(Debug)]
struct LowQueue {
    threshold: u64,
}

impl Filter for LowQueue {
    fn narrow(&self, call: &Call<'_>, keep: &mut Mask) {
        keep.retain(call.endpoints(), |endpoint| endpoint.load().waiting() <= self.threshold);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::plugins::fixture::{Fleet, pod, request};

    #[test]
    fn queues_up_to_the_threshold_stay_and_nobody_may_be_left() {
        let mut fleet = Fleet::new([pod("a").waiting(128), pod("b").waiting(129), pod("c")]);
        let usual = fleet.build(&TYPE, None).unwrap();
        assert_eq!(fleet.kept(&usual.roles, &request("m")), ["a", "c"]);
        let lower = fleet.build(&TYPE, Some(json!({"Threshold": 0}))).unwrap();
        assert_eq!(fleet.kept(&lower.roles, &request("m")), ["c"]);
        let mut full = Fleet::new([pod("a").waiting(9)]);
        let none = full.build(&TYPE, Some(json!({"threshold": 0}))).unwrap();
        assert!(full.kept(&none.roles, &request("m")).is_empty());
    }
}
