//! Replicas that nobody named: those that a picker follows as peers, and the picker's pods of a cluster.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use http::Uri;
use serde_json::Value;
use tokio::time::timeout;

use super::args::DoctorArgs;
use super::gathered::Gathered;
use super::pickers;
use crate::doctor::picker::PickerFacts;

/// Longest time for all of what one replica is asked.
const PATIENCE: Duration = Duration::from_secs(5);
/// Most replicas that are asked without being named.
const MOST: usize = 16;
/// Metrics port of a pod that does not say its own.
const USUAL_PORT: u16 = 9090;

/// Addresses of the replicas that these pickers follow, at the port at which each picker was asked.
pub(super) fn peers(pickers: &[PickerFacts]) -> Vec<String> {
    let known: BTreeSet<SocketAddr> = pickers.iter().filter_map(|picker| address(&picker.url)).collect();
    let mut found = BTreeSet::new();
    for picker in pickers {
        let Some(asked) = address(&picker.url) else { continue };
        for row in picker.peers["peers"].as_array().into_iter().flatten() {
            // An alias is a replica under a further address, or this one itself.
            let peer = row["address"].as_str().and_then(|text| text.parse::<SocketAddr>().ok());
            let Some(peer) = peer.filter(|_| row["state"] != "alias") else { continue };
            let there = SocketAddr::new(peer.ip(), asked.port());
            if !known.contains(&there) {
                found.insert(there);
            }
        }
    }
    found.into_iter().map(|there| format!("http://{there}")).collect()
}

/// Addresses of the metrics ports of these pods.
pub(super) fn pods<'p>(pods: impl Iterator<Item = &'p Value>) -> Vec<String> {
    let address = |pod: &Value| {
        let ip: IpAddr = pod["status"]["podIP"].as_str()?.parse().ok()?;
        Some(format!("http://{}", SocketAddr::new(ip, metrics_port(pod))))
    };
    pods.filter_map(address).collect()
}

/// The port that a flag of the pod's command line says, or a container names `metrics`.
fn metrics_port(pod: &Value) -> u16 {
    let containers = || pod["spec"]["containers"].as_array().into_iter().flatten();
    let words: Vec<&str> = containers()
        .flat_map(|container| container["args"].as_array().into_iter().flatten())
        .filter_map(Value::as_str)
        .collect();
    let flag = words.iter().enumerate().find_map(|(place, word)| {
        let name = word.trim_start_matches('-');
        match name.strip_prefix("metrics-port")?.strip_prefix('=') {
            Some(value) => value.parse().ok(),
            None => words.get(place + 1)?.parse().ok(),
        }
    });
    let named = || {
        let ports = containers().flat_map(|container| container["ports"].as_array().into_iter().flatten());
        let mut ports = ports.filter(|port| port["name"] == "metrics" || port["name"] == "http-metrics");
        ports.next().and_then(|port| port["containerPort"].as_u64()?.try_into().ok())
    };
    flag.or_else(named).unwrap_or(USUAL_PORT)
}

/// Where a picker was asked, if that is an address.
fn address(url: &str) -> Option<SocketAddr> {
    let uri: Uri = url.parse().ok()?;
    let host = uri.host()?.trim_start_matches('[').trim_end_matches(']');
    let ip = if host == "localhost" { IpAddr::from([127, 0, 0, 1]) } else { host.parse().ok()? };
    Some(SocketAddr::new(ip, uri.port_u16().unwrap_or(80)))
}

/// Asks replicas at these addresses for what is compared. One that does not answer is said to be skipped.
pub(super) async fn ask(args: &DoctorArgs, urls: Vec<String>, gathered: &mut Gathered) {
    let known: BTreeSet<String> =
        gathered.replicas.iter().map(|replica| replica.url.trim_end_matches('/').to_owned()).collect();
    let mut left = urls.into_iter().filter(|url| !known.contains(url));
    for url in left.by_ref().take(MOST) {
        let asking = args.ask(&url);
        let why = match timeout(PATIENCE, pickers::compared(&asking)).await {
            Ok(Ok(replica)) => {
                gathered.looked_at.push(format!("replica {url}"));
                gathered.replicas.push(replica);
                continue;
            }
            Ok(Err(error)) => format!("{error:#}"),
            Err(_) => format!("no answer within {PATIENCE:?}"),
        };
        gathered.skipped.push(format!("the replica at {url}: {why}; --url names it at another address"));
    }
    let more = left.count();
    if more > 0 {
        gathered.skipped.push(format!("{more} replicas beyond the first {MOST}"));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn peers_are_asked_at_the_port_at_which_the_picker_was() {
        let peers_page = json!({"peers": [
            {"address": "10.0.0.2:9006", "state": "following"},
            {"address": "[fd00::3]:9006", "state": "missing"},
            {"address": "10.0.0.1:9006", "state": "alias"},
            {"address": "no address", "state": "following"},
            {"address": "10.0.0.4:9006", "state": "begins"},
        ]});
        let picker =
            |url: &str, peers: Value| PickerFacts { url: url.into(), peers, ..PickerFacts::default() };
        let pickers =
            [picker("http://10.0.0.1:9190", peers_page), picker("http://10.0.0.4:9190/", Value::Null)];
        assert_eq!(peers(&pickers), ["http://10.0.0.2:9190", "http://[fd00::3]:9190"]);
        assert_eq!(address("http://localhost:9090"), Some(([127, 0, 0, 1], 9090).into()));
        assert_eq!(address("http://picker.example:9090"), None);
    }

    #[test]
    fn the_metrics_port_of_a_pod_is_what_its_flags_say_or_its_ports_or_the_usual_one() {
        let pod = |container: Value| json!({"status": {"podIP": "10.0.0.1"}, "spec": {"containers": [{"name": "other"}, container]}});
        for (container, port) in [
            (json!({"args": ["--v=2", "--metrics-port=1234"]}), 1234),
            (json!({"args": ["--metrics-port", "1235"]}), 1235),
            (
                json!({"args": ["--metrics-port-of-old=7"], "ports": [{"name": "metrics", "containerPort": 77}]}),
                77,
            ),
            (json!({}), 9090),
        ] {
            let pod = pod(container);
            assert_eq!(pods([&pod].into_iter()), [format!("http://10.0.0.1:{port}")]);
        }
        assert_eq!(pods([&json!({})].into_iter()), [""; 0], "a pod that does not run yet");
    }
}
