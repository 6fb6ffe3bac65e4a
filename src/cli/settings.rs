//! Turns flags into settings: finds conflicts, clamps values, and reads the environment. Nobody reads the flags after
//! that.

mod cluster;
mod streams;

use std::net::{IpAddr, Ipv6Addr};
use std::path::PathBuf;
use std::time::Duration;

use crate::config::ConfigSource;
use crate::director::DirectorSettings;
use crate::kubernetes::owner_of;
use crate::metrics::MetricBounds;
use crate::plugins::Registry;
use crate::telemetry::{LogFormat, LogLevel};
use crate::transport::{ConnectionBounds, Keepalive, TlsSettings, UNKNOWN_PROXIES};

use super::capturing::CaptureWish;
use super::peer_flags::{self, PeerSettings};
use super::running::Patience;
use super::shadow_flags::ShadowWish;
use super::{ServeFlags, fit};
use cluster::ClusterSettings;
use streams::StreamSettings;

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
    /// Changes of its file count while serving.
    pub(super) watch_config: bool,
    /// What the flags say of plugins.
    pub(super) plugins: PluginSettings,
    /// Addresses to try to listen on, in this order.
    pub(super) bind: Vec<IpAddr>,
    /// The ports.
    pub(super) ports: PortNumbers,
    /// Threads that serve; 0 for one a core.
    pub(super) threads: usize,
    /// Name of the pool.
    pub(super) pool_name: String,
    /// Namespace of the pool.
    pub(super) pool_namespace: String,
    /// Name of the pod that this runs in.
    pub(super) pod_name: Option<String>,
    /// Settings that count on Kubernetes.
    pub(super) cluster: ClusterSettings,
    /// Reading metrics pages of model servers.
    pub(super) scraping: ScrapeSettings,
    /// TLS of the ext_proc port; `None` serves plaintext.
    pub(super) tls: Option<TlsSettings>,
    /// A renewed certificate of the ext_proc port is taken up.
    pub(super) cert_reload: bool,
    /// Settings by which every port asks whether its clients still live.
    pub(super) keepalive: Keepalive,
    /// Connections of the ext_proc port.
    pub(super) proxies: ConnectionBounds,
    /// Streams of the ext_proc port.
    pub(super) streams: StreamSettings,
    /// The director's choices.
    pub(super) director: DirectorSettings,
    /// Folder of the metrics port's certificate.
    pub(super) metrics_cert: Option<PathBuf>,
    /// Authorities of the metrics port's clients.
    pub(super) metrics_client_ca: Option<PathBuf>,
    /// Bounds of the metrics page.
    pub(super) metric_bounds: MetricBounds,
    /// The page shows the streams of ext_proc by their gRPC status.
    pub(super) grpc_stream_metrics: bool,
    /// The log level may be changed from any address.
    pub(super) remote_log_level: bool,
    /// Log lines.
    pub(super) log: LogSettings,
    /// The addresses of the ports go to standard output.
    pub(super) print_addresses: bool,
    /// Spans are exported.
    pub(super) tracing: bool,
    /// Memory for records of decisions, in bytes; 0 keeps none.
    pub(super) decision_records: u64,
    /// The capture of decisions; `None` without a folder for it.
    pub(super) capture: Option<CaptureWish>,
    /// A second configuration that decides without effect; `None` without one.
    pub(super) shadow: Option<ShadowWish>,
    /// Other replicas; `None` without any.
    pub(super) peers: Option<PeerSettings>,
    /// Folder in which a replica that ends leaves what it knows.
    pub(super) state_dir: Option<PathBuf>,
    /// Longest time for each part of the end.
    pub(super) patience: Patience,
    /// Warnings for the operator.
    pub(super) warnings: Vec<String>,
}

/// What the flags say of plugins.
#[derive(Clone, Debug)]
pub(super) struct PluginSettings {
    /// Plugin types there are.
    pub(super) registry: Registry,
    /// Types that may still change are accepted.
    pub(super) allow_experimental: bool,
    /// Types that are not built are accepted and do nothing.
    pub(super) allow_missing: bool,
    /// Feature gates, which count over those of the configuration.
    pub(super) feature_gates: Vec<String>,
    /// Bytes of all prefix indexes together.
    pub(super) prefix_memory: u64,
    /// Engine of pods that do not say theirs; empty for the configuration's.
    pub(super) default_engine: String,
    /// Seed of random choices.
    pub(super) seed: u64,
}

/// The ports; 0 lets the system choose.
#[derive(Clone, Copy, Debug)]
pub(super) struct PortNumbers {
    /// ext_proc.
    pub(super) grpc: u16,
    /// gRPC health.
    pub(super) health: u16,
    /// Metrics and debug pages.
    pub(super) metrics: u16,
    /// KEDA's external scaler; `None` for no such port.
    pub(super) keda_scaler: Option<u16>,
    /// The page for people, on loopback; `None` for no such port.
    pub(super) page: Option<u16>,
}

/// Reading metrics pages of model servers, and the figures that come of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct ScrapeSettings {
    /// Time between two readings of one server.
    pub(super) interval: Duration,
    /// Servers are asked for the wanted series alone.
    pub(super) filtered: bool,
    /// Longest page, in bytes.
    pub(super) page_bytes: usize,
    /// Age at which a figure counts no more.
    pub(super) staleness: Duration,
    /// Time between two sums over the pool.
    pub(super) pool_figures: Duration,
}

/// Log lines.
#[derive(Clone, Copy, Debug)]
pub(super) struct LogSettings {
    /// The least important level that is written.
    pub(super) level: LogLevel,
    /// Their form.
    pub(super) format: LogFormat,
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
        problems.extend(unfit_certificates(flags));
        problems.extend(out_of_range(flags).into_iter().chain(peer_flags::problems(flags)));
        if flags.refresh_metrics_interval < MIN_REFRESH {
            warnings.push(format!(
                "--refresh-metrics-interval {:?} is below the minimum; {MIN_REFRESH:?} is used",
                flags.refresh_metrics_interval
            ));
        }
        let level = log_level(flags).map_err(|problem| problems.push(problem)).unwrap_or(LogLevel::Info);
        if !problems.is_empty() {
            return Err(problems);
        }
        let pod_name = environment("POD_NAME");
        let tls = TlsSettings {
            cert_path: given(&flags.cert_path),
            min_version: flags.tls_min_version.clone(),
            cipher_suites: flags.tls_cipher_suites.clone(),
        };
        let pool_namespace = nonempty(&flags.pool_namespace)
            .map(str::to_owned)
            .or_else(|| environment("NAMESPACE"))
            .unwrap_or_else(|| "default".to_owned());
        let seed = if flags.seed == 0 { fastrand::u64(1..) } else { flags.seed };
        Ok(Self {
            config,
            watch_config: flags.watch_config_file,
            plugins: PluginSettings::new(flags, seed),
            bind: bind_addresses(flags.bind_address),
            ports: PortNumbers::new(flags),
            threads: flags.threads,
            pool_name: match (nonempty(&flags.pool_name), &pod_name) {
                (Some(name), _) => name.to_owned(),
                (None, Some(pod)) if !flags.endpoint_selector.is_empty() => owner_of(pod).to_owned(),
                _ => DEFAULT_POOL.to_owned(),
            },
            cluster: ClusterSettings::new(flags, &pool_namespace, pod_name.as_deref()),
            pool_namespace,
            pod_name,
            scraping: ScrapeSettings::new(flags),
            tls: flags.secure_serving.then_some(tls),
            cert_reload: flags.enable_cert_reload,
            keepalive: Keepalive { interval: flags.keepalive_interval, timeout: flags.keepalive_timeout },
            proxies: ConnectionBounds {
                open: flags.max_connections,
                strangers: UNKNOWN_PROXIES.min(flags.max_connections),
            },
            streams: StreamSettings::new(flags),
            director: director(flags, seed),
            metrics_cert: given(&flags.metrics_cert_dir),
            metrics_client_ca: given(&flags.metrics_client_ca_file),
            metric_bounds: MetricBounds {
                series: flags.max_metric_series,
                bytes: usize::try_from(flags.max_metrics_bytes).unwrap_or(usize::MAX),
                fairness_ids: fairness_ids(flags.fairness_id_metric_label_limit, &mut warnings),
            },
            grpc_stream_metrics: flags.enable_grpc_stream_metrics,
            remote_log_level: flags.remote_log_level,
            log: LogSettings {
                level,
                format: if flags.zap_encoder == "console" { LogFormat::Console } else { LogFormat::Json },
            },
            print_addresses: flags.print_addresses,
            tracing: flags.tracing,
            decision_records: flags.decision_records,
            capture: CaptureWish::new(flags),
            shadow: ShadowWish::new(flags),
            peers: PeerSettings::new(flags),
            state_dir: given(&flags.state_dir),
            patience: Patience { drain: flags.drain_timeout, linger: flags.linger_timeout },
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
}

impl PortNumbers {
    fn new(flags: &ServeFlags) -> Self {
        Self {
            grpc: flags.grpc_port,
            health: flags.grpc_health_port,
            metrics: flags.metrics_port,
            keda_scaler: flags.keda_scaler_port,
            page: flags.page_port,
        }
    }
}

impl PluginSettings {
    fn new(flags: &ServeFlags, seed: u64) -> Self {
        Self {
            registry: flags.registry,
            allow_experimental: flags.allow_experimental_plugins,
            allow_missing: flags.allow_missing_plugins,
            feature_gates: flags.feature_gates.clone(),
            prefix_memory: flags.prefix_index_memory,
            default_engine: flags.default_engine.clone(),
            seed,
        }
    }
}

impl ScrapeSettings {
    fn new(flags: &ServeFlags) -> Self {
        Self {
            interval: flags.refresh_metrics_interval.max(MIN_REFRESH),
            filtered: flags.filtered_scrapes,
            page_bytes: usize::try_from(flags.max_metrics_page).unwrap_or(usize::MAX),
            staleness: flags.metrics_staleness_threshold,
            pool_figures: flags.refresh_prometheus_metrics_interval,
        }
    }
}

fn director(flags: &ServeFlags, seed: u64) -> DirectorSettings {
    DirectorSettings {
        ignore_subset: flags.disable_endpoint_subset_filter,
        avoid_unreachable: flags.avoid_unreachable,
        emit_scores: flags.emit_endpoint_scores,
        decision_header: flags.decision_header,
        strip_control_headers: flags.strip_control_headers,
        model_rewrite_header: flags.model_rewrite_header,
        body_limit: flags.max_request_body,
        seed,
        response_bindings: flags.max_response_bindings,
        ..DirectorSettings::default()
    }
}

/// Addresses to try, in this order.
fn bind_addresses(wanted: Option<IpAddr>) -> Vec<IpAddr> {
    match wanted {
        Some(address) => vec![address],
        // One socket for both families; machines without IPv6 take the second.
        None => vec![Ipv6Addr::UNSPECIFIED.into(), std::net::Ipv4Addr::UNSPECIFIED.into()],
    }
}

fn log_level(flags: &ServeFlags) -> Result<LogLevel, String> {
    match &flags.zap_log_level {
        Some(text) => text.parse().map_err(|error| format!("--zap-log-level: {error}")),
        None => Ok(LogLevel::from_verbosity(i64::from(flags.v))),
    }
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

/// Files of certificates without those that they need.
fn unfit_certificates(flags: &ServeFlags) -> Vec<String> {
    let mut problems = Vec::new();
    if flags.enable_cert_reload && flags.cert_path.is_empty() {
        problems.push("--enable-cert-reload needs --cert-path".to_owned());
    }
    let (cert, authorities) = (!flags.metrics_cert_dir.is_empty(), !flags.metrics_client_ca_file.is_empty());
    if authorities && !cert {
        problems.push("--metrics-client-ca-file needs --metrics-cert-dir".to_owned());
    }
    if cert && !authorities && !flags.metrics_endpoint_auth {
        problems.push(
            "--metrics-cert-dir without --metrics-client-ca-file needs --metrics-endpoint-auth".to_owned(),
        );
    }
    problems
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
        assert_eq!(settings.scraping.interval, MIN_REFRESH);
        assert_eq!(settings.warnings.len(), 1);
    }

    #[test]
    fn too_many_labels_of_fairness_ids_are_lowered_with_a_warning() {
        let settings = |line: &str| Settings::new(&flags(line), |_| None).unwrap();
        assert_eq!(settings("").metric_bounds.fairness_ids, 1000);
        assert_eq!(settings("--fairness-id-metric-label-limit 0").metric_bounds.fairness_ids, 0);
        let bounded = settings("--fairness-id-metric-label-limit 50000");
        assert_eq!((bounded.metric_bounds.fairness_ids, bounded.warnings.len()), (10_000, 1));
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
