//! Where endpoints come from without Kubernetes.

mod file;

pub use file::{MULTICLUSTER as MULTICLUSTER_FILE_DISCOVERY, TYPE as FILE_DISCOVERY};
