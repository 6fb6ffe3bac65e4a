//! Keeping the stages of a request close to each other: one file a plugin.
//!
//! | level | equal |
//! |---|---|
//! | host | the label for hosts, else the host name of the pod, where a source of pods tells it, else the address of the node, where discovery knows it |
//! | rack, zone, region | the label for it |
//!
//! How close two endpoints are is the first level at which they are equal and not empty.

pub mod extractor;
pub mod filter;
pub mod scorer;

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
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

/// The host names of ready pods that have one, by the name of the pod.
#[derive(Debug, Default)]
pub(super) struct Hostnames(ArcSwap<HashMap<String, Arc<str>>>);

impl Hostnames {
    /// The host name of the endpoint's pod.
    fn of(&self, endpoint: &Endpoint) -> Option<Arc<str>> {
        self.get(&endpoint.spec().pod)
    }

    /// The host name of the pod of this name.
    fn get(&self, pod: &str) -> Option<Arc<str>> {
        self.0.load().get(pod).cloned()
    }

    /// Changes the names; others read the former ones meanwhile.
    fn change(&self, change: impl Fn(&mut HashMap<String, Arc<str>>)) {
        self.0.rcu(|names| {
            let mut names = HashMap::clone(names);
            change(&mut names);
            names
        });
    }
}

/// The facts that the extractor tells the others of each request.
#[derive(Clone, Debug)]
pub(super) struct Topology {
    labels: Arc<PlaceLabels>,
    hostnames: Arc<Hostnames>,
}

impl Topology {
    /// The host of an endpoint by its label, else by the host name of its pod.
    fn host<'e>(&self, endpoint: &'e Endpoint) -> Option<Host<'e>> {
        match endpoint.label(&self.labels.host) {
            Some("") => None,
            Some(label) => Some(Host::Label(label)),
            None => self.hostnames.of(endpoint).map(Host::Name),
        }
    }

    /// How close two endpoints are; `None` if they have nothing in common.
    fn affinity(&self, one: &Endpoint, other: &Endpoint) -> Option<Level> {
        let label = |key: &str| {
            let value = one.label(key).filter(|value| !value.is_empty());
            value.is_some_and(|value| other.label(key) == Some(value))
        };
        let host = &self.labels.host;
        let (first, second) = (self.host(one), self.host(other));
        if first.is_some() && first == second {
            return Some(Level::Host);
        }
        let unnamed = first.is_none() && second.is_none();
        let unlabelled = unnamed && one.label(host).is_none() && other.label(host).is_none();
        let node = one.spec().node_address;
        if unlabelled && node.is_some() && node == other.spec().node_address {
            return Some(Level::Host);
        }
        self.labels.further.iter().find(|(_, key)| label(key)).map(|(level, _)| *level)
    }
}

/// A host.
enum Host<'e> {
    Label(&'e str),
    Name(Arc<str>),
}

impl Host<'_> {
    fn text(&self) -> &str {
        match self {
            Self::Label(text) => text,
            Self::Name(text) => text,
        }
    }
}

impl PartialEq for Host<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.text() == other.text()
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
