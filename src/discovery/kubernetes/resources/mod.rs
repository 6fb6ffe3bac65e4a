//! What is read from the Kubernetes API, as the API writes it, and the facts that come out of it.
//!
//! The types are our own: they hold a few fields each, so that reading a thousand pods neither builds nor keeps their
//! specifications.

mod kind;
mod meta;
mod objective;
mod pod;
mod pool;
mod reference;
mod rewrite;
mod slice;

pub(crate) use kind::{CURRENT_GROUP, GroupVersion, LEGACY_GROUP, POOL_GROUP};
pub(crate) use objective::{InferenceObjective, ObjectiveFacts};
pub(crate) use pod::{Pod, PodFacts};
pub(crate) use pool::without_repeats;
pub(crate) use pool::{InferencePool, PoolFacts};
pub(crate) use reference::{Condition, PoolName, Written};
pub(crate) use rewrite::{InferenceModelRewrite, RewriteFacts};
pub(crate) use slice::{EndpointSlice, SliceFacts};
