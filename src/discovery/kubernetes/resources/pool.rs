//! InferencePools, in the current form and in the older one.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Deserialize;

use super::kind::resource;
use super::meta::slim;

/// An InferencePool as the API writes it. The older version has its selector without `matchLabels` and one
/// `targetPortNumber`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct InferencePool {
    #[serde(deserialize_with = "slim")]
    metadata: ObjectMeta,
    spec: Spec,
}

resource!(InferencePool, "InferencePool", "inferencepools");

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Spec {
    selector: Option<Selector>,
    target_ports: Vec<TargetPort>,
    target_port_number: Option<u16>,
    app_protocol: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
enum Selector {
    Current {
        #[serde(rename = "matchLabels")]
        match_labels: BTreeMap<String, String>,
    },
    Older(BTreeMap<String, String>),
}

#[derive(Clone, Debug, Default, Deserialize)]
struct TargetPort {
    number: u16,
}

/// The facts that discovery needs of a pool.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct PoolFacts {
    /// Label selector of the pods, in the form that the API takes in a query. Never empty: no selector selects no pod.
    pub(crate) selector: Option<String>,
    /// Ports of each pod, in order; the place is the rank.
    pub(crate) ports: Vec<u16>,
    /// Application protocol of the model servers; `None` if the pool does not say.
    pub(crate) app_protocol: Option<String>,
}

impl InferencePool {
    /// The pool, unless its deletion has been asked for.
    pub(crate) fn facts(self) -> Option<PoolFacts> {
        if self.metadata.deletion_timestamp.is_some() {
            return None;
        }
        let labels = match self.spec.selector {
            Some(Selector::Current { match_labels } | Selector::Older(match_labels)) => match_labels,
            None => BTreeMap::new(),
        };
        let terms: Vec<String> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let listed = self.spec.target_ports.iter().map(|port| port.number);
        let ports: Vec<u16> = listed.chain(self.spec.target_port_number).collect();
        Some(PoolFacts {
            selector: (!terms.is_empty()).then(|| terms.join(",")),
            ports: without_repeats(ports),
            app_protocol: self.spec.app_protocol.filter(|text| !text.is_empty()),
        })
    }
}

/// The same ports in the same order, each once.
pub(crate) fn without_repeats(ports: Vec<u16>) -> Vec<u16> {
    let mut seen = Vec::with_capacity(ports.len());
    for port in ports {
        if !seen.contains(&port) {
            seen.push(port);
        }
    }
    seen
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn facts(spec: &serde_json::Value) -> Option<PoolFacts> {
        serde_json::from_value::<InferencePool>(json!({"metadata": {"name": "p"}, "spec": spec}))
            .unwrap()
            .facts()
    }

    #[test]
    fn the_current_form_has_match_labels_and_a_list_of_ports() {
        let pool = facts(&json!({
            "selector": {"matchLabels": {"app": "vllm", "a.b/c": "d"}},
            "targetPorts": [{"number": 8000}, {"number": 8001}],
            "appProtocol": "kubernetes.io/h2c",
            "endpointPickerRef": {"name": "epp", "port": {"number": 9002}},
        }));
        assert_eq!(
            pool,
            Some(PoolFacts {
                selector: Some("a.b/c=d,app=vllm".into()),
                ports: vec![8000, 8001],
                app_protocol: Some("kubernetes.io/h2c".into()),
            })
        );
    }

    #[test]
    fn the_older_form_has_bare_labels_and_one_port() {
        let pool = facts(
            &json!({"selector": {"app": "vllm"}, "targetPortNumber": 8000, "extensionRef": {"name": "epp"}}),
        );
        let expected = PoolFacts { selector: Some("app=vllm".into()), ports: vec![8000], app_protocol: None };
        assert_eq!(pool, Some(expected));
    }

    #[test]
    fn a_pool_without_labels_selects_nothing_rather_than_everything() {
        for selector in [json!(null), json!({}), json!({"matchLabels": {}})] {
            let pool = facts(&json!({"selector": selector, "targetPorts": [{"number": 1}]})).unwrap();
            assert_eq!(pool.selector, None, "{selector}");
        }
    }

    #[test]
    fn a_pool_on_its_way_out_is_gone() {
        let metadata = json!({"name": "p", "deletionTimestamp": "2026-01-01T00:00:00Z"});
        let pool: InferencePool = serde_json::from_value(json!({"metadata": metadata, "spec": {}})).unwrap();
        assert_eq!(pool.facts(), None);
    }
}
