//! `topology-affinity-filter` (alpha): keeps endpoints that are close to the server of the other stage.
//!
//! An endpoint stays if it is at least as close as `minAffinity` to the endpoint that was chosen before, as the decode
//! server while a prefill server is chosen. If nobody is that close, or no endpoint was chosen before, all stay.
//!
//! Use it where a cache must not cross a slow network between the stages. It costs up to four comparisons of labels for
//! each endpoint.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::Deserialize;

use super::{Level, Topology, affinities, extractor};
use crate::plugins::{BuildCx, BuildError, PluginType, Roles, Stability};
use crate::scheduling::{Call, Column, Filter, Mask};

/// Registry row.
pub static TYPE: PluginType = PluginType::new("topology-affinity-filter", Stability::Alpha, build).about(
    "Keeps endpoints that are close to the server of the other stage.",
    "Use it where a cache must not cross a slow network between the stages of a request. It costs up to four \
     comparisons of labels for each endpoint.",
);

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Params {
    /// How close an endpoint must be.
    min_affinity: Level,
    /// Instance that says which labels count; empty means `topology-extractor`.
    topology_producer_name: String,
}

fn build(cx: &mut BuildCx<'_>) -> Result<Roles, BuildError> {
    let Params { min_affinity, topology_producer_name } = cx.params()?;
    let topology = topology(cx, &topology_producer_name);
    Ok(Roles::default().filter(Arc::new(TopologyFilter { topology, least: min_affinity })))
}

/// The column of the named extractor, or of the default one.
pub(super) fn topology(cx: &mut BuildCx<'_>, producer: &str) -> Column<Topology> {
    let producer = if producer.is_empty() { extractor::TYPE.name } else { producer };
    cx.consumes(producer, Some(extractor::TYPE.name))
}

#[derive(Debug)]
struct TopologyFilter {
    topology: Column<Topology>,
    least: Level,
}

impl Filter for TopologyFilter {
    fn narrow(&self, call: &Call<'_>, keep: &mut Mask) {
        let Some(affinities) = affinities(call, self.topology) else { return };
        keep.retain(affinities, |affinity| affinity.is_some_and(|level| level >= self.least));
        if keep.count() == 0 {
            keep.reset(call.len());
        }
    }
}
