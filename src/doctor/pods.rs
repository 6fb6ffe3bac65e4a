//! What the pool's pods declare of their ports, and how long they took to start.

use serde_json::Value;

use super::cluster::{ClusterFacts, servers, targets};
use super::waits::{Waits, shown};
use super::{Family, Finding, Rule};
use crate::telemetry::unix_time;

const FAMILY: Family = Family::Cluster;

const PORT_UNDECLARED: Rule = Rule::error(
    "target-port-unused",
    FAMILY,
    "A target port of the pool is one that no container of its pods declares.",
    "Requests go to a port on which the pods do not listen, by their own declaration.",
);
const START_SLOW: Rule = Rule::warning(
    "wait-shorter-than-start",
    FAMILY,
    "Requests wait for a server for a shorter time than servers have needed to start.",
    "Requests that come while the pool starts from zero servers are refused before the first server is ready.",
);

/// The rules of this file.
pub const RULES: &[&Rule] = &[&PORT_UNDECLARED, &START_SLOW];

/// Returns what is wrong with the pods. `waits` says how long requests may wait in the picker; `None` if they do not
/// wait.
pub fn findings(facts: &ClusterFacts, waits: Option<Waits>) -> Vec<Finding> {
    let mut found = ports(facts);
    found.extend(waits.and_then(|waits| starts(facts, waits)));
    found
}

fn declared(pod: &Value) -> Vec<u64> {
    let lists = ["containers", "initContainers"].map(|list| &pod["spec"][list]);
    let containers = lists.into_iter().filter_map(Value::as_array).flatten();
    let ports = containers.filter_map(|container| container["ports"].as_array()).flatten();
    ports.filter_map(|port| port["containerPort"].as_u64()).collect()
}

fn ports(facts: &ClusterFacts) -> Vec<Finding> {
    let mut all: Vec<u64> = Vec::new();
    for pod in servers(facts) {
        let ports = declared(pod);
        if ports.is_empty() {
            // Pods need not declare ports. If one pod declares none, nothing can be said of any port.
            return Vec::new();
        }
        all.extend(ports);
    }
    all.sort_unstable();
    all.dedup();
    let unused = targets(&facts.pool).into_iter().filter(|port| !all.is_empty() && !all.contains(port));
    unused
        .map(|port| {
            PORT_UNDECLARED.found(
                &facts.name,
                format!("the pool sends to port {port}, and its pods declare {all:?}"),
                format!("`targetPorts: [{{number: {}}}]` in `spec` of the pool", all[0]),
            )
        })
        .collect()
}

/// The seconds from the start of a pod until it was first ready. `None` if it is not ready, or was restarted.
fn start(pod: &Value) -> Option<f64> {
    let status = &pod["status"];
    let conditions = status["conditions"].as_array()?;
    let ready = conditions.iter().find(|row| row["type"] == "Ready" && row["status"] == "True")?;
    let restarts = status["containerStatuses"].as_array().into_iter().flatten();
    if restarts.filter_map(|row| row["restartCount"].as_u64()).any(|count| count > 0) {
        return None;
    }
    let begun = status["startTime"].as_str().or_else(|| pod["metadata"]["creationTimestamp"].as_str())?;
    Some(unix_time(ready["lastTransitionTime"].as_str()?)? - unix_time(begun)?)
        .filter(|seconds| *seconds > 0.0)
}

fn starts(facts: &ClusterFacts, waits: Waits) -> Option<Finding> {
    let mut slowest: Option<(f64, &str)> = None;
    for pod in servers(facts) {
        if let Some(seconds) = start(pod).filter(|seconds| slowest.is_none_or(|(most, _)| *seconds > most)) {
            slowest = Some((seconds, pod["metadata"]["name"].as_str().unwrap_or("?")));
        }
    }
    let (seconds, name) = slowest.filter(|(seconds, _)| *seconds > waits.no_endpoint)?;
    Some(START_SLOW.found(
        &facts.name,
        format!(
            "pod {name} needed {} until it was ready, and noEndpointRequestTTL is {}",
            shown(seconds),
            shown(waits.no_endpoint)
        ),
        format!("`noEndpointRequestTTL: {}s` in `flowControl`", (seconds * 1.5).ceil()),
    ))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn facts(port: u64, declared: &Value, ready: &str) -> ClusterFacts {
        let pod = json!({
            "metadata": {"name": "a", "labels": {"app": "vllm"}, "creationTimestamp": "2026-02-28T23:59:50Z"},
            "spec": {"containers": [{"ports": declared}]},
            "status": {"startTime": "2026-02-28T23:59:50Z",
                "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": ready}]},
        });
        ClusterFacts {
            pool: json!({"spec": {"selector": {"matchLabels": {"app": "vllm"}}, "targetPorts": [{"number": port}]}}),
            pods: vec![pod],
            ..ClusterFacts::default()
        }
    }

    #[test]
    fn ports_that_nobody_declares_and_starts_that_take_longer_than_waits_are_found() {
        let ports = json!([{"containerPort": 8000}]);
        let waits = Some(Waits { queue: 60.0, no_endpoint: 600.0 });
        let names = |facts: &ClusterFacts| -> Vec<&'static str> {
            findings(facts, waits).iter().map(|finding| finding.rule.name).collect()
        };
        assert_eq!(names(&facts(8000, &ports, "2026-03-01T00:05:00Z")), [""; 0]);
        assert_eq!(names(&facts(8001, &ports, "2026-03-01T00:05:00Z")), ["target-port-unused"]);
        assert_eq!(names(&facts(8001, &Value::Null, "2026-03-01T00:05:00Z")), [""; 0]);
        assert_eq!(names(&facts(8000, &ports, "2026-03-01T00:12:00Z")), ["wait-shorter-than-start"]);
        assert!(findings(&facts(8000, &ports, "2026-03-01T00:12:00Z"), None).is_empty());
    }
}
