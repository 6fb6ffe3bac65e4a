//! What InferenceObjectives and InferenceModelRewrites have in common: the pool they are for, and conditions in their
//! status.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::POOL_GROUP;

/// Name of a pool, as objects refer to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PoolName {
    /// API group.
    pub(crate) group: String,
    /// Name in the namespace of the object.
    pub(crate) name: String,
}

/// `spec.poolRef`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct PoolRef {
    group: Option<String>,
    name: String,
}

impl PoolRef {
    /// True if it refers to `pool`. The kind does not matter, as in the reference.
    pub(super) fn is(&self, pool: &PoolName) -> bool {
        self.name == pool.name && self.group.as_deref().unwrap_or(POOL_GROUP) == pool.group
    }
}

/// Reads a specification if it is for `pool`. One that cannot be read is a fault of its object, told in its status; it
/// must not take the list that it stands in with it.
pub(super) fn spec_for<S: DeserializeOwned>(spec: Value, pool: &PoolName) -> Option<Result<S, String>> {
    let reference = spec.get("poolRef").cloned().unwrap_or_default();
    let reference: PoolRef = serde_json::from_value(reference).unwrap_or_default();
    reference.is(pool).then(|| serde_json::from_value(spec).map_err(|error| format!("spec: {error}")))
}

/// A condition in a status.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Condition {
    /// The subject of the condition: `Accepted` or `Ready`.
    #[serde(rename = "type")]
    pub(crate) kind: String,
    /// `True`, `False` or `Unknown`.
    pub(crate) status: String,
    /// One word for why.
    pub(crate) reason: String,
    /// A sentence for people.
    pub(crate) message: String,
    /// Time at which `status` last changed (RFC 3339).
    pub(crate) last_transition_time: String,
    /// Generation of the object that the condition speaks of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) observed_generation: Option<i64>,
}

/// `status`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Status {
    pub(super) conditions: Vec<Condition>,
}

/// The facts that writing an object's status needs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Written {
    /// Generation of the object.
    pub(crate) generation: Option<i64>,
    /// The conditions that it has.
    pub(crate) conditions: Vec<Condition>,
    /// The fault that makes it unusable as it is written.
    pub(crate) fault: Option<String>,
}

impl Written {
    pub(super) fn of(metadata: &ObjectMeta, status: Status, fault: Option<String>) -> Self {
        Self { generation: metadata.generation, conditions: status.conditions, fault }
    }
}
