//! What the pool's pods say: ports, and how long they take to start.

use serde_json::Value;

use super::cluster::{ClusterFacts, servers, targets};
use super::waits::{Waits, shown};
use super::{Family, Finding, Rule};

const FAMILY: Family = Family::Cluster;

const PORT_UNDECLARED: Rule = Rule::error(
    "target-port-unused",
    FAMILY,
    "A target port of the pool is one that no container of its pods declares.",
    "Requests go to a port where, by what the pods say, nobody listens.",
);
const START_SLOW: Rule = Rule::warning(
    "wait-shorter-than-start",
    FAMILY,
    "Requests wait for a server less long than servers have needed to start.",
    "What comes while a pool grows from nothing is refused before the first server is ready.",
);

/// The rules.
pub const RULES: &[&Rule] = &[&PORT_UNDECLARED, &START_SLOW];

/// What is wrong with the pods. `waits` says how long requests may wait; `None` if they do not.
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
            // Declaring ports is a courtesy; one pod without any leaves all open.
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

/// Seconds from the start of a pod to its first readiness; `None` if it was not ready, or not for the first time.
fn start(pod: &Value) -> Option<f64> {
    let status = &pod["status"];
    let conditions = status["conditions"].as_array()?;
    let ready = conditions.iter().find(|row| row["type"] == "Ready" && row["status"] == "True")?;
    let restarts = status["containerStatuses"].as_array().into_iter().flatten();
    if restarts.filter_map(|row| row["restartCount"].as_u64()).any(|count| count > 0) {
        return None;
    }
    let begun = status["startTime"].as_str().or_else(|| pod["metadata"]["creationTimestamp"].as_str())?;
    Some(unix(ready["lastTransitionTime"].as_str()?)? - unix(begun)?).filter(|seconds| *seconds > 0.0)
}

/// Seconds since 1970 of a time such as `2026-01-02T03:04:05Z`.
pub fn unix(text: &str) -> Option<f64> {
    let (date, time) = text.strip_suffix('Z')?.split_once('T')?;
    let mut date = date.split('-').map(str::parse::<i64>);
    let (year, month, day) = (date.next()?.ok()?, date.next()?.ok()?, date.next()?.ok()?);
    if !(1970..10_000).contains(&year) || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    let mut time = time.split(':').map(str::parse::<f64>);
    let (hour, minute, second) = (time.next()?.ok()?, time.next()?.ok()?, time.next()?.ok()?);
    // Days from the civil calendar, with March as the first month (Howard Hinnant, "chrono-compatible low-level date
    // algorithms").
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let (era, of_era) = (year / 400, year % 400);
    let days =
        era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + (153 * month + 2) / 5 + day - 1 - 719_468;
    Some(days as f64 * 86_400.0 + hour * 3600.0 + minute * 60.0 + second)
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

    #[test]
    fn times_are_read() {
        assert_eq!(unix("1970-01-01T00:00:00Z"), Some(0.0));
        assert_eq!(unix("2026-11-28T17:11:51.5Z"), Some(1_795_885_911.5));
        assert_eq!(unix("2024-02-29T00:00:00Z"), Some(1_709_164_800.0));
        for text in ["", "x", "2026-13-01T00:00:00Z", "2026-01-01", "99999-01-01T00:00:00Z"] {
            assert_eq!(unix(text), None, "{text}");
        }
    }
}
