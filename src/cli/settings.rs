//! Turns flags into settings: finds conflicts, clamps values, and reads the environment.

use std::net::{IpAddr, Ipv6Addr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::config::ConfigSource;
use crate::director::BodyBudget;
use crate::director::DirectorSettings;
use crate::extproc::{ExtProcSettings, MachineSettings, Modes};
use crate::kubernetes::owner_of;
use crate::metrics::Metrics;
use crate::transport::{ConnectionBounds, Keepalive, TlsSettings, UNKNOWN_PROXIES};

use super::{ServeFlags, fit, peer_flags};

/// Shortest time between scrapes.
const MIN_REFRESH: Duration = Duration::from_millis(50);
/// Shortest lease: renewals have to fit in several times.
const MIN_LEASE: Duration = Duration::from_secs(3);
/// Fairness ids with a label of their own, at most.
const MOST_FAIRNESS_IDS: usize = 10_000;
/// Name of the pool where none is given and no Kubernetes is needed.
const DEFAULT_POOL: &str = "epp";

/// Flags that fit together.
#[derive(Debug)]
pub(super) struct Settings {
    /// The configuration.
    pub(super) config: ConfigSource,
    /// Addresses to try to listen on, in this order.
    pub(super) bind: Vec<IpAddr>,
    /// Name of the pool.
    pub(super) pool_name: String,
    /// Namespace of the pool.
    pub(super) pool_namespace: String,
    /// Name of the pod that this runs in.
    pub(super) pod_name: Option<String>,
    /// Time between scrapes.
    pub(super) refresh_interval: Duration,
    /// Seed of random choices.
    pub(super) seed: u64,
    /// TLS of the ext_proc port; `None` serves plaintext.
    pub(super) tls: Option<TlsSettings>,
    /// Settings by which every port asks whether its clients still live.
    pub(super) keepalive: Keepalive,
    /// Connections of the ext_proc port.
    pub(super) proxies: ConnectionBounds,
    /// Folder of the metrics port's certificate.
    pub(super) metrics_cert: Option<PathBuf>,
    /// Authorities of the metrics port's clients.
    pub(super) metrics_client_ca: Option<PathBuf>,
    /// Fairness ids with a label of their own.
    pub(super) fairness_ids: usize,
    /// Warnings for the operator.
    pub(super) warnings: Vec<String>,
}

impl Settings {
    /// Checks the flags. All conflicts are reported at once.
    pub(super) fn new(
        flags: &ServeFlags,
        environment: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, Vec<String>> {
        let environment = |name: &str| environment(name).filter(|value| !value.is_empty());
        let mut problems = fit::collisions(flags);
        let mut warnings = fit::warnings(flags);
        let config = ConfigSource::from_flags(given(&flags.config_file), Some(flags.config_text.clone()));
        let config = config.map_err(|problem| problems.push(problem)).unwrap_or_default();
        let cert_path = given(&flags.cert_path);
        if flags.enable_cert_reload && cert_path.is_none() {
            problems.push("--enable-cert-reload needs --cert-path".to_owned());
        }
        let metrics_cert = given(&flags.metrics_cert_dir);
        let metrics_client_ca = given(&flags.metrics_client_ca_file);
        if metrics_client_ca.is_some() && metrics_cert.is_none() {
            problems.push("--metrics-client-ca-file needs --metrics-cert-dir".to_owned());
        }
        if metrics_cert.is_some() && metrics_client_ca.is_none() && !flags.metrics_endpoint_auth {
            problems.push(
                "--metrics-cert-dir without --metrics-client-ca-file needs --metrics-endpoint-auth"
                    .to_owned(),
            );
        }
        problems.extend(out_of_range(flags));
        problems.extend(peer_flags::problems(flags));
        if flags.refresh_metrics_interval < MIN_REFRESH {
            warnings.push(format!(
                "--refresh-metrics-interval {:?} is below the minimum; {MIN_REFRESH:?} is used",
                flags.refresh_metrics_interval
            ));
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        let pod_name = environment("POD_NAME");
        let tls = TlsSettings {
            cert_path,
            min_version: flags.tls_min_version.clone(),
            cipher_suites: flags.tls_cipher_suites.clone(),
        };
        Ok(Self {
            config,
            bind: match flags.bind_address {
                Some(address) => vec![address],
                // One socket for both families; machines without IPv6 take the second.
                None => vec![Ipv6Addr::UNSPECIFIED.into(), std::net::Ipv4Addr::UNSPECIFIED.into()],
            },
            pool_name: match (nonempty(&flags.pool_name), &pod_name) {
                (Some(name), _) => name.to_owned(),
                (None, Some(pod)) if !flags.endpoint_selector.is_empty() => owner_of(pod).to_owned(),
                _ => DEFAULT_POOL.to_owned(),
            },
            pool_namespace: nonempty(&flags.pool_namespace)
                .map(str::to_owned)
                .or_else(|| environment("NAMESPACE"))
                .unwrap_or_else(|| "default".to_owned()),
            pod_name,
            refresh_interval: flags.refresh_metrics_interval.max(MIN_REFRESH),
            seed: if flags.seed == 0 { fastrand::u64(1..) } else { flags.seed },
            tls: flags.secure_serving.then_some(tls),
            keepalive: Keepalive { interval: flags.keepalive_interval, timeout: flags.keepalive_timeout },
            proxies: ConnectionBounds {
                open: flags.max_connections,
                strangers: UNKNOWN_PROXIES.min(flags.max_connections),
            },
            metrics_cert,
            metrics_client_ca,
            fairness_ids: fairness_ids(flags.fairness_id_metric_label_limit, &mut warnings),
            warnings,
        })
    }

    /// The name by which people recognise this replica.
    pub(super) fn host(&self) -> String {
        let kernel = || std::fs::read_to_string("/proc/sys/kernel/hostname").ok();
        self.pod_name
            .clone()
            .or_else(|| kernel().map(|name| name.trim().to_owned()))
            .filter(|name| !name.is_empty())
            .unwrap_or_else(|| "pointsman".to_owned())
    }

    /// The director's choices.
    pub(super) fn director(&self, flags: &ServeFlags) -> DirectorSettings {
        DirectorSettings {
            ignore_subset: flags.disable_endpoint_subset_filter,
            avoid_unreachable: flags.avoid_unreachable,
            emit_scores: flags.emit_endpoint_scores,
            decision_header: flags.decision_header,
            strip_control_headers: flags.strip_control_headers,
            model_rewrite_header: flags.model_rewrite_header,
            body_limit: flags.max_request_body,
            seed: self.seed,
            response_bindings: flags.max_response_bindings,
            ..DirectorSettings::default()
        }
    }
}

/// Bounds and modes of the ext_proc service.
pub(super) fn extproc(flags: &ServeFlags, metrics: &Metrics) -> ExtProcSettings {
    let budget = BodyBudget::new(flags.max_buffered_bodies).with_metrics(metrics.extproc());
    let defaults = ExtProcSettings::default();
    ExtProcSettings {
        machine: MachineSettings {
            modes: Modes {
                request: flags.request_body_mode,
                response: flags.response_body_mode,
                early_body: false,
            },
            body_limit: flags.max_request_body,
            budget: Arc::new(budget),
        },
        max_streams: flags.max_concurrent_streams,
        stream_idle_timeout: flags.stream_idle_timeout,
        max_receive_bytes: flags.grpc_max_recv_msg_size.0.unwrap_or_else(|| {
            // A proxy that buffers sends the whole body in one message; what the body bound allows must fit.
            let whole_body = usize::try_from(flags.max_request_body).unwrap_or(usize::MAX);
            defaults.max_receive_bytes.max(whole_body.saturating_add(fit::MESSAGE_FRAME))
        }),
        max_send_bytes: flags.grpc_max_send_msg_size.0.unwrap_or(defaults.max_send_bytes),
    }
}

/// Flags that mean something on Kubernetes only, where endpoints come from a file.
pub(super) fn without_kubernetes(flags: &ServeFlags) -> Vec<String> {
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

fn fairness_ids(limit: u32, warnings: &mut Vec<String>) -> usize {
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    if limit > MOST_FAIRNESS_IDS {
        warnings.push(format!(
            "--fairness-id-metric-label-limit {limit} is above the maximum; {MOST_FAIRNESS_IDS} is used"
        ));
    }
    limit.min(MOST_FAIRNESS_IDS)
}

fn given(path: &str) -> Option<PathBuf> {
    nonempty(path).map(PathBuf::from)
}

fn nonempty(text: &str) -> Option<&str> {
    (!text.is_empty()).then_some(text)
}

/// Values that no setting can have, and flags that exclude each other.
fn out_of_range(flags: &ServeFlags) -> Vec<String> {
    let mut problems = Vec::new();
    if !flags.pool_name.is_empty() && !flags.endpoint_selector.is_empty() {
        problems.push("--pool-name and --endpoint-selector exclude each other".to_owned());
    }
    if !matches!(flags.zap_encoder.as_str(), "json" | "console") {
        problems.push(format!("--zap-encoder: got {:?}, expected json or console", flags.zap_encoder));
    }
    if flags.refresh_prometheus_metrics_interval.is_zero() {
        problems.push("--refresh-prometheus-metrics-interval: got 0s, expected more".to_owned());
    }
    if flags.ha_lease_duration < MIN_LEASE || flags.ha_lease_duration.subsec_nanos() != 0 {
        problems.push(format!(
            "--ha-lease-duration: got {:?}, expected whole seconds, {MIN_LEASE:?} or more",
            flags.ha_lease_duration
        ));
    }
    if flags.keepalive_timeout.is_zero() && !flags.keepalive_interval.is_zero() {
        problems.push(
            "--keepalive-timeout: got 0s, expected more; --keepalive-interval 0s switches it off".to_owned(),
        );
    }
    if flags.max_connections == 0 {
        problems.push("--max-connections: got 0, expected 1 or more".to_owned());
    }
    problems
}

#[cfg(test)]
mod tests {
    use clap::{Args, Command, FromArgMatches};

    use super::*;

    fn flags(line: &str) -> ServeFlags {
        let words = std::iter::once("pointsman").chain(line.split_whitespace());
        let matches = ServeFlags::augment_args(Command::new("pointsman")).get_matches_from(words);
        ServeFlags::from_arg_matches(&matches).unwrap()
    }

    #[test]
    fn every_conflict_is_reported_at_once() {
        let flags = flags(
            "--config-file a --config-text b --enable-cert-reload --metrics-client-ca-file c --pool-name p --endpoint-selector s",
        );
        let problems = Settings::new(&flags, |_| None).unwrap_err();
        assert_eq!(problems.len(), 4, "{problems:?}");
    }

    #[test]
    fn the_namespace_comes_from_the_flag_then_the_environment_then_the_default() {
        let namespace = |line: &str, environment: Option<&str>| {
            let variable = |name: &str| environment.filter(|_| name == "NAMESPACE").map(str::to_owned);
            Settings::new(&flags(line), variable).unwrap().pool_namespace
        };
        assert_eq!(namespace("--pool-namespace a", Some("b")), "a");
        assert_eq!(namespace("", Some("b")), "b");
        assert_eq!(namespace("", None), "default");
    }

    #[test]
    fn too_short_a_refresh_interval_is_raised_with_a_warning() {
        let settings = Settings::new(&flags("--refresh-metrics-interval 10ms"), |_| None).unwrap();
        assert_eq!(settings.refresh_interval, MIN_REFRESH);
        assert_eq!(settings.warnings.len(), 1);
    }

    #[test]
    fn too_many_labels_of_fairness_ids_are_lowered_with_a_warning() {
        let settings = |line: &str| Settings::new(&flags(line), |_| None).unwrap();
        assert_eq!(settings("").fairness_ids, 1000);
        assert_eq!(settings("--fairness-id-metric-label-limit 0").fairness_ids, 0);
        let bounded = settings("--fairness-id-metric-label-limit 50000");
        assert_eq!((bounded.fairness_ids, bounded.warnings.len()), (10_000, 1));
    }

    #[test]
    fn verbosities_have_names() {
        for (line, verbosity) in [("--v=TRACE", 5), ("--v debug", 4), ("-v Verbose", 3), ("--v=-1", -1)] {
            assert_eq!(flags(line).v, verbosity, "{line}");
        }
        let words = ["pointsman", "--v=loud"];
        let error = ServeFlags::augment_args(Command::new("pointsman")).try_get_matches_from(words);
        assert!(error.unwrap_err().to_string().contains("verbose, debug or trace"));
    }

    #[test]
    fn message_sizes_take_a_trailing_byte_sign() {
        let size = |text: &str| flags(&format!("--grpc-max-recv-msg-size {text}")).grpc_max_recv_msg_size.0;
        assert_eq!(size("10MiB"), Some(10 << 20));
        assert_eq!(size("25MB"), Some(25_000_000));
        assert_eq!(size("1Ki"), Some(1024));
    }
}
