//! Keeping the stages of a request close to each other: one file a plugin.
//!
//! | level | equal |
//! |---|---|
//! | host | the label for hosts, else the address of the node, where discovery knows it |
//! | rack, zone, region | the label for it |
//!
//! How close two endpoints are is the first level at which they are equal and not empty.

pub mod extractor;
pub mod filter;
pub mod scorer;

use std::sync::Arc;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::pool::Endpoint;
use crate::scheduling::{Call, Column};

/// How close two endpoints are, or should be at least.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum Level {
    /// In one region.
    Region,
    /// In one zone.
    Zone,
    /// In one rack.
    Rack,
    /// On one host.
    #[default]
    Host,
}

/// Pod labels that hold the place of an endpoint.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct PlaceLabels {
    host: String,
    /// The closest first.
    further: [(Level, String); 3],
}

/// The facts that the extractor tells the others of each request.
#[derive(Clone, Debug)]
pub(super) struct Topology(Arc<PlaceLabels>);

impl Topology {
    /// How close two endpoints are; `None` if they have nothing in common.
    fn affinity(&self, one: &Endpoint, other: &Endpoint) -> Option<Level> {
        let label = |key: &str| {
            let value = one.label(key).filter(|value| !value.is_empty());
            value.is_some_and(|value| other.label(key) == Some(value))
        };
        let host = &self.0.host;
        let unlabelled = one.label(host).is_none() && other.label(host).is_none();
        let node = one.spec().node_address;
        if label(host) || unlabelled && node.is_some() && node == other.spec().node_address {
            return Some(Level::Host);
        }
        self.0.further.iter().find(|(_, key)| label(key)).map(|(level, _)| *level)
    }
}

/// How close each endpoint in the running is to the one that was chosen for another stage; `None` without such an
/// endpoint, or without the extractor.
fn affinities<'a>(
    call: &Call<'a>,
    topology: Column<Topology>,
) -> Option<impl Iterator<Item = Option<Level>> + use<'a>> {
    let [topology] = call.columns().slice(topology)? else { return None };
    let peer = call.peer()?;
    Some(call.endpoints().map(move |endpoint| topology.affinity(peer, endpoint)))
}

#[cfg(test)]
mod tests;
