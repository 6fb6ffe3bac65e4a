//! What was found so far.

use crate::doctor::Finding;
use crate::doctor::replicas::ReplicaFacts;

/// What was found so far, and where.
#[derive(Debug, Default)]
pub(super) struct Gathered {
    /// What is wrong.
    pub(super) findings: Vec<Finding>,
    /// What was looked at.
    pub(super) looked_at: Vec<String>,
    /// What was not, and why.
    pub(super) skipped: Vec<String>,
    /// The replicas that answered.
    pub(super) replicas: Vec<ReplicaFacts>,
}
