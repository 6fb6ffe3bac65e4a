//! Finding endpoints: whoever knows where model servers are writes it into the [`Pool`](crate::pool::Pool).
//!
//! [`Discovery`] is the seam. [`FileDiscovery`] reads a file; what the file means is decided by the pure
//! [`FileState::parse`]. [`KubernetesDiscovery`] follows the Kubernetes API.

mod discover;
mod file;
mod file_signals;
mod file_state;
mod hosts;
mod kubernetes;
mod resolve;

pub use discover::{Discovery, DiscoveryError};
pub use file::{FileDiscovery, ReloadOutcome};
pub use file_state::{FileObjective, FileRewrite, FileState};
pub(crate) use kubernetes::{CURRENT_GROUP, GroupVersion, LEGACY_GROUP, without_repeats};
pub use kubernetes::{KubernetesDiscovery, ObjectWatches, Scope, ServiceSlices};
