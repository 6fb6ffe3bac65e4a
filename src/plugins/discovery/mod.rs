//! Where endpoints come from without Kubernetes.

mod file;

pub use file::TYPE as FILE_DISCOVERY;
