//! InferenceModelRewrites.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Deserialize;
use serde_json::Value;

use super::kind::resource;
use super::meta::{created, slim};
use super::reference::{PoolName, Status, Written, spec_for};
use crate::pool::{ModelRewrite, RewriteRule, RewriteTarget};

/// An InferenceModelRewrite as the API writes it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct InferenceModelRewrite {
    #[serde(deserialize_with = "slim")]
    metadata: ObjectMeta,
    spec: Value,
    status: Status,
}

resource!(InferenceModelRewrite, "InferenceModelRewrite", "inferencemodelrewrites");

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Spec {
    rules: Vec<Rule>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Rule {
    matches: Vec<Match>,
    targets: Vec<Target>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Match {
    model: ModelMatch,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct ModelMatch {
    value: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Target {
    model_rewrite: String,
    weight: Option<u32>,
}

/// The facts that discovery remembers of a rewrite.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct RewriteFacts {
    /// The rewrite, with its name and age.
    pub(crate) rewrite: ModelRewrite,
    /// For its status.
    pub(crate) written: Written,
}

impl InferenceModelRewrite {
    /// The rewrite if it is for `pool` and not on its way out.
    pub(crate) fn facts(self, pool: &PoolName) -> Option<RewriteFacts> {
        if self.metadata.deletion_timestamp.is_some() {
            return None;
        }
        let (spec, fault) = match spec_for::<Spec>(self.spec, pool)? {
            Ok(spec) => (spec, None),
            Err(fault) => (Spec::default(), Some(fault)),
        };
        let rules = spec.rules.into_iter().map(|rule| RewriteRule {
            models: rule.matches.into_iter().map(|one| one.model.value).collect(),
            targets: rule
                .targets
                .into_iter()
                .map(|target| RewriteTarget { model: target.model_rewrite, weight: target.weight })
                .collect(),
        });
        Some(RewriteFacts {
            written: Written::of(&self.metadata, self.status, fault),
            rewrite: ModelRewrite {
                created: created(&self.metadata),
                name: self.metadata.name.unwrap_or_default(),
                rules: rules.collect(),
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn rules_age_and_conditions_are_read() {
        let rewrite: InferenceModelRewrite = serde_json::from_value(json!({
            "metadata": {"name": "canary", "creationTimestamp": "1970-01-01T00:01:00Z"},
            "spec": {
                "poolRef": {"name": "p"},
                "rules": [{
                    "matches": [{"model": {"type": "Exact", "value": "m"}}],
                    "targets": [{"modelRewrite": "a", "weight": 9}, {"modelRewrite": "b", "weight": 1}],
                }, {}],
            },
            "status": {"conditions": [{"type": "Accepted", "status": "Unknown", "reason": "Pending",
                "message": "Waiting for controller", "lastTransitionTime": "1970-01-01T00:00:00Z"}]},
        }))
        .unwrap();
        let pool = PoolName { group: "inference.networking.k8s.io".into(), name: "p".into() };
        let facts = rewrite.facts(&pool).unwrap();
        assert_eq!((facts.rewrite.name.as_str(), facts.rewrite.created), ("canary", 60));
        assert_eq!(facts.rewrite.rules[0].models, ["m"]);
        assert_eq!(facts.rewrite.rules[0].targets[1], RewriteTarget { model: "b".into(), weight: Some(1) });
        assert_eq!(facts.rewrite.rules[1], RewriteRule::default());
        assert_eq!(facts.written.conditions[0].reason, "Pending");
    }

    #[test]
    fn a_match_without_a_value_does_not_become_a_match_of_everything() {
        let targets = json!([{"modelRewrite": "a"}]);
        let rules = json!([{"matches": [{"model": {"type": "Exact"}}], "targets": targets}, {"matches": [{}], "targets": targets}]);
        let spec = json!({"poolRef": {"name": "p"}, "rules": rules});
        let rewrite: InferenceModelRewrite =
            serde_json::from_value(json!({"metadata": {"name": "r"}, "spec": spec})).unwrap();
        let pool = PoolName { group: "inference.networking.k8s.io".into(), name: "p".into() };
        let rewrites = crate::pool::Rewrites::new(vec![rewrite.facts(&pool).unwrap().rewrite]);
        assert_eq!((rewrites.find(""), rewrites.find("m")), (None, None));
    }

    #[test]
    fn a_rewrite_that_cannot_be_read_has_no_rules_and_says_why() {
        let targets = json!([{"modelRewrite": "a", "weight": -1}]);
        let spec = json!({"poolRef": {"name": "p"}, "rules": [{"targets": targets}]});
        let rewrite: InferenceModelRewrite =
            serde_json::from_value(json!({"metadata": {"name": "r"}, "spec": spec})).unwrap();
        let pool = PoolName { group: "inference.networking.k8s.io".into(), name: "p".into() };
        let facts = rewrite.facts(&pool).unwrap();
        assert!(facts.rewrite.rules.is_empty());
        assert!(facts.written.fault.as_ref().unwrap().contains("-1"), "{facts:?}");
    }
}
