//! Discovery by the Kubernetes API: the pods of an InferencePool or of a selector, InferenceObjectives and
//! InferenceModelRewrites.
//!
//! [`Cluster`](cluster::Cluster) is the pure core: steps of watches in, endpoints and rules out.
//! [`Settle`](settle::Settle) says when a batch of steps becomes a snapshot. Around them, `watch.rs` follows one
//! resource, `discover.rs` runs the watches and fills the pool, and `status.rs` writes conditions back.

mod cluster;
mod conditions;
mod discover;
mod objects;
mod resources;
mod settle;
mod slices;
mod status;
mod watch;

pub use discover::{KubernetesDiscovery, Scope};
pub use objects::ObjectWatches;
pub(crate) use resources::{CURRENT_GROUP, GroupVersion, LEGACY_GROUP, without_repeats};
pub use slices::ServiceSlices;
