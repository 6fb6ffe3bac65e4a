//! What the flags say of Kubernetes.

use std::time::Duration;

use crate::cli::ServeFlags;
use crate::discovery::{Scope, without_repeats};
use crate::document::{check_selector, is_label_key, is_label_value};
use crate::kubernetes::LabelSettings;

/// Ports of a pod, at most; an InferencePool has no more either.
const MAX_PORTS: usize = 8;

/// Settings that count where endpoints come from Kubernetes.
#[derive(Debug)]
pub(in crate::cli) struct ClusterSettings {
    /// The pods of the pool. `Err` says which flags are missing or wrong.
    pub(in crate::cli) scope: Result<Scope, String>,
    /// The label of the leader's pod, if one is asked for. `Err` says what is missing or wrong.
    pub(in crate::cli) leader_label: Result<Option<LabelSettings>, String>,
    /// File that says how the API server is reached; `None` for the environment.
    pub(in crate::cli) kubeconfig: Option<String>,
    /// Time that a lease lasts; `None` without an election.
    pub(in crate::cli) lease: Option<Duration>,
    /// The API server is asked who may read the metrics port.
    pub(in crate::cli) auth: bool,
    /// Warnings where endpoints come from a file instead.
    pub(in crate::cli) without: Vec<String>,
}

impl ClusterSettings {
    /// Reads the flags. `pod_name` is the name of the pod that this runs in.
    pub(super) fn new(flags: &ServeFlags, namespace: &str, pod_name: Option<&str>) -> Self {
        Self {
            scope: scope(flags, pod_name),
            leader_label: leader_label(flags, namespace, pod_name),
            kubeconfig: (!flags.kubeconfig.is_empty()).then(|| flags.kubeconfig.clone()),
            lease: flags.ha_enable_leader_election.then_some(flags.ha_lease_duration),
            auth: flags.metrics_endpoint_auth,
            without: without_kubernetes(flags),
        }
    }
}

/// The pods that the flags ask for. `Err` says which flags are missing or wrong.
fn scope(flags: &ServeFlags, pod_name: Option<&str>) -> Result<Scope, String> {
    if flags.endpoint_selector.is_empty() {
        if flags.pool_name.is_empty() {
            return Err("either --pool-name (an InferencePool) or --endpoint-selector (a label selector of pods) must be set; without Kubernetes, list a \
                 file-discovery plugin in the configuration and name it in dataLayer.discovery.pluginRef".to_owned());
        }
        if !flags.pool_group.contains('.') {
            return Err(format!(
                "--pool-group: got {:?}, expected an API group such as inference.networking.k8s.io",
                flags.pool_group
            ));
        }
        return Ok(Scope::Pool { group: flags.pool_group.clone() });
    }
    if let Err(problem) = check_selector(&flags.endpoint_selector) {
        return Err(format!("--endpoint-selector {:?}: {problem}", flags.endpoint_selector));
    }
    let ports = without_repeats(flags.endpoint_target_ports.clone());
    if ports.is_empty() || ports.len() > MAX_PORTS || ports.contains(&0) {
        return Err(format!(
            "--endpoint-target-ports: got {:?}, expected 1 to {MAX_PORTS} ports from 1 to 65535, with commas; --endpoint-selector needs them",
            flags.endpoint_target_ports
        ));
    }
    if pod_name.is_none() {
        return Err("--endpoint-selector needs the environment variable POD_NAME (fieldRef metadata.name): the pool is named after it".to_owned());
    }
    Ok(Scope::Selector { selector: flags.endpoint_selector.clone(), ports })
}

/// The label that marks the leader's pod, if one is asked for. `Err` says what is missing or wrong.
fn leader_label(
    flags: &ServeFlags,
    namespace: &str,
    pod_name: Option<&str>,
) -> Result<Option<LabelSettings>, String> {
    if flags.ha_leader_label.is_empty() {
        return Ok(None);
    }
    let Some((key, value)) = flags
        .ha_leader_label
        .split_once('=')
        .filter(|(key, value)| is_label_key(key) && is_label_value(value) && !value.is_empty())
    else {
        return Err(format!(
            "--ha-leader-label: got {:?}, expected a label KEY=VALUE such as pointsman/leader=my-epp",
            flags.ha_leader_label
        ));
    };
    if !flags.ha_enable_leader_election {
        return Err("--ha-leader-label needs --ha-enable-leader-election: without it nobody leads".to_owned());
    }
    let Some(pod) = pod_name.map(str::to_owned) else {
        return Err("--ha-leader-label needs the environment variable POD_NAME (fieldRef metadata.name): the leader labels its own pod".to_owned());
    };
    Ok(Some(LabelSettings {
        namespace: namespace.to_owned(),
        pod,
        key: key.to_owned(),
        value: value.to_owned(),
    }))
}

/// Flags that mean something on Kubernetes only, where endpoints come from a file.
fn without_kubernetes(flags: &ServeFlags) -> Vec<String> {
    let given = [
        ("--kubeconfig", !flags.kubeconfig.is_empty()),
        ("--endpoint-selector", !flags.endpoint_selector.is_empty()),
        ("--endpoint-target-ports", !flags.endpoint_target_ports.is_empty()),
        ("--ha-enable-leader-election", flags.ha_enable_leader_election),
        ("--ha-leader-label", !flags.ha_leader_label.is_empty()),
        ("--ha-lease-duration", flags.ha_lease_duration != Duration::from_secs(15)),
        ("--peer-service", !flags.peer_service.is_empty()),
        ("--metrics-endpoint-auth", flags.metrics_endpoint_auth && !flags.metrics_cert_dir.is_empty()),
    ];
    let given = given.into_iter().filter_map(|(flag, given)| given.then_some(flag));
    given.map(|flag| format!("{flag} has no effect with file discovery")).collect()
}

#[cfg(test)]
mod tests {
    use clap::{Args, Command, FromArgMatches};

    use super::*;

    fn scope_of(line: &str, pod: Option<&str>) -> Result<Scope, String> {
        let words = std::iter::once("pointsman").chain(line.split('\t').filter(|word| !word.is_empty()));
        let matches = ServeFlags::augment_args(Command::new("pointsman")).get_matches_from(words);
        scope(&ServeFlags::from_arg_matches(&matches).unwrap(), pod)
    }

    #[test]
    fn a_pool_or_a_selector_is_needed() {
        assert!(scope_of("", None).unwrap_err().contains("--pool-name"));
        let pool = scope_of("--pool-name\tp", None).unwrap();
        assert_eq!(pool, Scope::Pool { group: "inference.networking.k8s.io".into() });
        assert!(
            scope_of("--pool-name\tp\t--pool-group\tx", None)
                .unwrap_err()
                .contains("--pool-group: got \"x\"")
        );
    }

    #[test]
    fn a_selector_needs_ports_and_the_name_of_the_pod() {
        let line = "--endpoint-selector\tapp in (a,b)\t--endpoint-target-ports\t8000,8001,8000";
        let expected = Scope::Selector { selector: "app in (a,b)".into(), ports: vec![8000, 8001] };
        assert_eq!(scope_of(line, Some("epp-1")), Ok(expected));
        assert!(scope_of(line, None).unwrap_err().contains("POD_NAME"));
        assert!(
            scope_of("--endpoint-selector\tapp=a", Some("p"))
                .unwrap_err()
                .contains("--endpoint-target-ports")
        );
        assert!(scope_of("--endpoint-selector\tapp=a b", Some("p")).unwrap_err().contains("\"a b\""));
        let many = "--endpoint-selector\tapp=a\t--endpoint-target-ports\t1,2,3,4,5,6,7,8,9";
        assert!(scope_of(many, Some("p")).unwrap_err().contains("1 to 8 ports"));
    }

    #[test]
    fn the_label_of_the_leader_needs_an_election_a_pod_and_a_label() {
        let label = |line: &str, pod: Option<&str>| {
            let words = std::iter::once("pointsman").chain(line.split(' '));
            let matches = ServeFlags::augment_args(Command::new("pointsman")).get_matches_from(words);
            let flags = ServeFlags::from_arg_matches(&matches).unwrap();
            leader_label(&flags, "ns", pod)
        };
        let line = "--ha-enable-leader-election --pool-namespace ns --ha-leader-label pointsman/leader=a-epp";
        let expected = LabelSettings {
            namespace: "ns".into(),
            pod: "a-epp-1".into(),
            key: "pointsman/leader".into(),
            value: "a-epp".into(),
        };
        assert_eq!(label(line, Some("a-epp-1")), Ok(Some(expected)));
        assert_eq!(label("--ha-enable-leader-election", None), Ok(None));
        assert!(label(line, None).unwrap_err().contains("POD_NAME"));
        assert!(
            label("--ha-leader-label a=b", Some("p")).unwrap_err().contains("--ha-enable-leader-election")
        );
        for wrong in ["leader", "leader=", "=a", "a=b,c=d", "a b=c", "a/b/c=d", "a!=b", "a==b"] {
            let line =
                format!("--ha-enable-leader-election --ha-leader-label={}", wrong.replace(' ', "\u{a0}"));
            let problem = label(&line, Some("p")).unwrap_err();
            assert!(problem.contains("expected a label KEY=VALUE"), "{wrong}: {problem}");
        }
    }
}
