//! InferenceObjectives.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Deserialize;
use serde_json::Value;

use super::kind::resource;
use super::meta::slim;
use super::reference::{PoolName, Status, Written, spec_for};

/// An InferenceObjective as the API writes it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct InferenceObjective {
    #[serde(deserialize_with = "slim")]
    metadata: ObjectMeta,
    spec: Value,
    status: Status,
}

resource!(InferenceObjective, "InferenceObjective", "inferenceobjectives");

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Spec {
    priority: Option<i32>,
}

/// The facts that discovery remembers of an objective.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ObjectiveFacts {
    /// Name.
    pub(crate) name: String,
    /// Priority; 0 if the objective states none.
    pub(crate) priority: i32,
    /// For its status.
    pub(crate) written: Written,
}

impl InferenceObjective {
    /// The objective if it is for `pool` and not on its way out.
    pub(crate) fn facts(self, pool: &PoolName) -> Option<ObjectiveFacts> {
        if self.metadata.deletion_timestamp.is_some() {
            return None;
        }
        let spec = spec_for::<Spec>(self.spec, pool)?;
        let priority = spec.as_ref().ok().and_then(|spec| spec.priority).unwrap_or(0);
        Some(ObjectiveFacts {
            written: Written::of(&self.metadata, self.status, spec.err()),
            name: self.metadata.name.unwrap_or_default(),
            priority,
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_objective_is_for_the_pool_of_its_name_and_group() {
        let facts = |pool_ref: serde_json::Value| {
            let spec = json!({"priority": -1, "poolRef": pool_ref});
            let objective =
                json!({"metadata": {"name": "batch", "generation": 3}, "spec": spec, "status": {}});
            let objective: InferenceObjective = serde_json::from_value(objective).unwrap();
            let pool = PoolName { group: "inference.networking.k8s.io".into(), name: "p".into() };
            objective.facts(&pool).map(|facts| (facts.priority, facts.written.generation))
        };
        assert_eq!(facts(json!({"name": "p"})), Some((-1, Some(3))), "the group has a default");
        assert_eq!(
            facts(json!({"name": "p", "group": "inference.networking.k8s.io", "kind": "Any"})),
            Some((-1, Some(3)))
        );
        assert_eq!(facts(json!({"name": "p", "group": "other.io"})), None);
        assert_eq!(facts(json!({"name": "q"})), None);
    }

    #[test]
    fn an_objective_that_cannot_be_read_says_why_and_has_no_priority() {
        let spec = json!({"priority": "high", "poolRef": {"name": "p"}});
        let objective: InferenceObjective =
            serde_json::from_value(json!({"metadata": {"name": "o"}, "spec": spec})).unwrap();
        let pool = PoolName { group: "inference.networking.k8s.io".into(), name: "p".into() };
        let facts = objective.facts(&pool).unwrap();
        assert_eq!(facts.priority, 0);
        assert!(facts.written.fault.as_ref().unwrap().contains("\"high\""), "{facts:?}");
    }
}
