//! Pods: the few fields of one that make endpoints.

use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Deserialize;

use super::GroupVersion;
use super::kind::resource;
use super::meta::slim;
use crate::pool::Labels;

/// Annotation that names the target ports on which something listens; the first that a pod carries counts.
const ACTIVE_PORTS: [&str; 2] = ["llm-d.ai/active-ports", "inference.networking.k8s.io/active-ports"];

/// A pod as the API writes it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Pod {
    #[serde(deserialize_with = "slim")]
    metadata: ObjectMeta,
    status: Status,
}

resource!(Pod, "Pod", "pods");

impl Pod {
    /// The place of pods in the API.
    pub(crate) const AT: GroupVersion = GroupVersion { group: std::borrow::Cow::Borrowed(""), version: "v1" };
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Status {
    #[serde(rename = "podIP")]
    pod_ip: Option<String>,
    #[serde(rename = "hostIP")]
    host_ip: Option<String>,
    conditions: Vec<Condition>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Condition {
    #[serde(rename = "type")]
    kind: String,
    status: String,
}

/// The facts that discovery remembers of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PodFacts {
    /// Name, unique within the namespace.
    pub(crate) name: String,
    /// Address; `None` until the pod has one.
    pub(crate) address: Option<IpAddr>,
    /// Address of its node.
    pub(crate) node_address: Option<IpAddr>,
    /// Labels.
    pub(crate) labels: Arc<Labels>,
    /// Ports on which something listens; `None` if the pod does not say, which means all target ports.
    pub(crate) active_ports: Option<Vec<u16>>,
    /// The `Ready` condition holds, and nobody has asked for the pod to be deleted.
    pub(crate) ready: bool,
}

impl From<Pod> for PodFacts {
    fn from(pod: Pod) -> Self {
        let Pod { metadata, status } = pod;
        let annotations = metadata.annotations.unwrap_or_default();
        let active_ports = ACTIVE_PORTS.iter().find_map(|name| annotations.get(*name));
        let is_ready = status.conditions.iter().any(|one| one.kind == "Ready" && one.status == "True");
        let address = |text: Option<String>| text.and_then(|text| text.parse().ok());
        Self {
            name: metadata.name.unwrap_or_default(),
            address: address(status.pod_ip),
            node_address: address(status.host_ip),
            labels: Arc::new(metadata.labels.unwrap_or_default()),
            active_ports: active_ports.map(|text| ports(text)),
            ready: is_ready && metadata.deletion_timestamp.is_none(),
        }
    }
}

/// The ports of a comma list. What is no port is left out; the reference reads the leading digits of an entry, and so
/// do we.
fn ports(text: &str) -> Vec<u16> {
    let port = |entry: &str| {
        let entry = entry.trim();
        let digits = entry.find(|c: char| !c.is_ascii_digit()).unwrap_or(entry.len());
        entry.get(..digits).and_then(|digits| digits.parse().ok())
    };
    text.split(',').filter_map(port).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn facts(pod: serde_json::Value) -> PodFacts {
        serde_json::from_value::<Pod>(pod).unwrap().into()
    }

    #[test]
    fn a_pod_is_ready_by_its_condition_and_not_once_its_deletion_is_asked_for() {
        let pod = |status: &str, deleted: Option<&str>| {
            let metadata =
                json!({"name": "a", "deletionTimestamp": deleted, "managedFields": [{"manager": "m"}]});
            let condition = json!({"type": "Ready", "status": status, "lastTransitionTime": null});
            facts(
                json!({"metadata": metadata, "spec": {"containers": []}, "status": {"conditions": [condition]}}),
            )
        };
        assert!(pod("True", None).ready);
        assert!(!pod("False", None).ready);
        assert!(!pod("True", Some("2026-01-01T00:00:00Z")).ready);
        assert!(!facts(json!({"metadata": {"name": "a"}})).ready, "a pod without status");
    }

    #[test]
    fn addresses_of_both_families_are_read() {
        let pod = |ip: &str| {
            facts(json!({"metadata": {"name": "a"}, "status": {"podIP": ip, "hostIP": "10.0.0.1"}}))
        };
        assert_eq!(pod("fd00::7").address, Some("fd00::7".parse().unwrap()));
        assert_eq!(pod("10.1.2.3").node_address, Some("10.0.0.1".parse().unwrap()));
        assert_eq!(pod("").address, None);
    }

    #[test]
    fn active_ports_come_from_the_current_annotation_and_then_the_older_one() {
        let pod = |annotations: serde_json::Value| {
            facts(json!({"metadata": {"name": "a", "annotations": annotations}})).active_ports
        };
        let (current, older) = (ACTIVE_PORTS[0], ACTIVE_PORTS[1]);
        assert_eq!(pod(json!({})), None);
        assert_eq!(pod(json!({older: "8000, 8001"})), Some(vec![8000, 8001]));
        assert_eq!(pod(json!({older: "1", current: "8000x,,http,70000"})), Some(vec![8000]));
        assert_eq!(pod(json!({current: ""})), Some(vec![]));
    }
}
