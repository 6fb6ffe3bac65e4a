//! `topology-affinity-scorer` (alpha): prefers endpoints that are close to the server of the other stage.
//!
//! An endpoint scores 1 on the host of the endpoint that was chosen before, 0.2 in its rack, 0.05 in its zone, 0.02 in
//! its region, and else 0; all score 0 if no endpoint was chosen before.
//!
//! Use it where near servers hand caches to each other faster, but load counts, too. It costs up to four comparisons of
//! labels for each endpoint.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::Deserialize;

use super::filter::topology;
use super::{Level, Topology, affinities};
use crate::plugins::{BuildCx, BuildError, PluginType, Roles, Stability};
use crate::scheduling::{Call, Category, Column, Scorer};

/// Registry row.
pub static TYPE: PluginType = PluginType::new("topology-affinity-scorer", Stability::Alpha, build).about(
    "Prefers endpoints that are close to the server of the other stage.",
    "Use it where near servers hand caches to each other faster, but load counts, too. It costs up to four comparisons \
     of labels for each endpoint.",
);

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Params {
    /// Instance that says which labels count; empty means `topology-extractor`.
    topology_producer_name: String,
}

fn build(cx: &mut BuildCx<'_>) -> Result<Roles, BuildError> {
    let params: Params = cx.params()?;
    let topology = topology(cx, &params.topology_producer_name);
    Ok(Roles::default().scorer(Arc::new(TopologyScorer { topology })))
}

#[derive(Debug)]
struct TopologyScorer {
    topology: Column<Topology>,
}

impl Scorer for TopologyScorer {
    fn category(&self) -> Category {
        Category::Affinity
    }

    fn score(&self, call: &Call<'_>, out: &mut [f64]) {
        let Some(affinities) = affinities(call, self.topology) else { return };
        for (score, affinity) in out.iter_mut().zip(affinities) {
            *score = match affinity {
                Some(Level::Host) => 1.0,
                Some(Level::Rack) => 0.2,
                Some(Level::Zone) => 0.05,
                Some(Level::Region) => 0.02,
                None => 0.0,
            };
        }
    }
}
