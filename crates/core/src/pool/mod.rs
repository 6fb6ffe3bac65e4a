//! The pool: its endpoints, their load, the requests in flight on them, objectives and model rewrites.
//!
//! Readers take one immutable [`Snapshot`] per request and keep it. Load figures are atomics that successive
//! snapshots share. This module calls nobody; discovery and the data layer write into it.

mod attributes;
mod endpoint;
mod lease;
mod load;
mod objectives;
mod registry;
mod rewrites;
mod role;
mod snapshot;
mod subset;

pub use attributes::{AttributeKey, AttributeSeries};
pub use endpoint::{Endpoint, EndpointId, EndpointSpec, Labels, MetricsAccess};
pub use lease::Lease;
pub use load::state::LoadState;
pub use load::{Age, Load, LoadFigure, LoraReading, MOST_REQUESTS, Reading, Share};
pub use objectives::{Objectives, UnknownObjectives};
pub use registry::{Pool, PoolChange};
pub use rewrites::{MAX_TARGET_NAME, ModelRewrite, RewriteRule, RewriteTarget, Rewrites};
pub use role::{DECODE_ROLES, ENCODE_ROLES, PREFILL_ROLES, ROLE_LABEL};
pub use snapshot::Snapshot;
pub use subset::{Subset, SubsetEntry, SubsetError};
