//! Every flag of `serve`, as typed. The groups and names are the reference's. Flags that the reference does not have
//! stand at the end of their group. `docs/configuration.md` has a row for each; a test compares the two.

use std::net::IpAddr;
use std::time::Duration;

use clap::{ArgAction, Args};

use crate::document::scalar;
use crate::extproc::BodyMode;
use crate::peers::PeerName;
use crate::plugins::{REGISTRY, Registry};
use crate::transport::PROXIES;

/// Flags of `pointsman serve`. `--flag value` and `--flag=value` mean the same, and so do `--flag`, `--flag=true` and
/// `--flag true`.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Serving")]
pub struct ServeFlags {
    /// Plugin types that a configuration may name. This field is not a flag.
    #[arg(skip = REGISTRY)]
    pub(super) registry: Registry,
    /// Port of the ext_proc service. With 0 the system chooses a port.
    #[arg(long, default_value_t = 9002)]
    pub grpc_port: u16,
    /// Port of the gRPC health service. With 0 the system chooses a port.
    #[arg(long, default_value_t = 9003)]
    pub grpc_health_port: u16,
    /// Port of metrics and debug pages. With 0 the system chooses a port.
    #[arg(long, default_value_t = 9090)]
    pub metrics_port: u16,
    /// Port of the external scaler for KEDA. With 0 the system chooses a port. Without this flag no scaler runs.
    #[arg(long)]
    pub keda_scaler_port: Option<u16>,
    /// Address that all ports listen on. Without this flag they listen on every address of the machine.
    #[arg(long)]
    pub bind_address: Option<IpAddr>,
    /// Print a line `SERVICE ADDRESS` on standard output for each port, once all ports listen.
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, default_value_t = false, default_missing_value = "true")]
    pub print_addresses: bool,
    /// How long Pointsman still serves new streams after SIGTERM. The drain ends earlier when no stream and no
    /// connection is open. 0s ends it at once.
    #[arg(long, default_value = "30s", value_parser = duration)]
    pub drain_timeout: Duration,
    /// How long open streams may take to end after the drain. Pointsman cuts off the rest.
    #[arg(long, default_value = "90s", value_parser = duration)]
    pub linger_timeout: Duration,
    /// Accepted for the sake of the reference's command lines. The ext_proc port always has the health service too.
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, default_value_t = false, default_missing_value = "true")]
    pub health_checking: bool,
    /// Largest gRPC message that is taken, as a quantity (10MiB). Empty means 4MiB, or as much as --max-request-body
    /// needs.
    #[arg(long, default_value = "", value_parser = message_size)]
    pub grpc_max_recv_msg_size: MessageSize,
    /// Largest gRPC message that is sent, as a quantity. Empty means no bound.
    #[arg(long, default_value = "", value_parser = message_size)]
    pub grpc_max_send_msg_size: MessageSize,
    /// Largest request body, as a quantity. A larger one is refused with 413. 0 means no bound.
    #[arg(long, default_value = "64Mi", value_parser = bytes)]
    pub max_request_body: u64,
    /// Memory for all request bodies that are received, decided or sent on, as a quantity. Requests beyond it are
    /// refused with 503. 0 means no bound.
    #[arg(long, default_value = "512Mi", value_parser = bytes)]
    pub max_buffered_bodies: u64,
    /// Most streams that are open at once. Requests beyond it are refused with 503. 0 means no bound.
    #[arg(long, default_value_t = 100_000)]
    pub max_concurrent_streams: u64,
    /// How long a stream may carry no message before Pointsman ends it. 0s means no bound.
    #[arg(long, default_value = "1h", value_parser = duration)]
    pub stream_idle_timeout: Duration,
    /// Most connections that are open at once on the ext_proc port. A further connection closes the one that has been
    /// idle longest.
    #[arg(long, default_value_t = PROXIES)]
    pub max_connections: usize,
    /// How long a connection of any port may be silent before a TCP probe and an HTTP/2 ping ask whether the client is
    /// alive. 0s switches the probes off.
    #[arg(long, default_value = "20s", value_parser = duration)]
    pub keepalive_interval: Duration,
    /// How long the answer to such a probe may take. Then the connection is closed, and its requests end.
    #[arg(long, default_value = "10s", value_parser = duration)]
    pub keepalive_timeout: Duration,
    /// Request body mode of proxies that do not say which mode they use: full-duplex-streamed, streamed, buffered,
    /// buffered-partial or none.
    #[arg(long, default_value = "full-duplex-streamed")]
    pub request_body_mode: BodyMode,
    /// Response body mode of proxies that do not say which mode they use. The values are those of --request-body-mode.
    #[arg(long, default_value = "full-duplex-streamed")]
    pub response_body_mode: BodyMode,
    /// Number of threads that serve. 0 means one for each core.
    #[arg(long, default_value_t = 0)]
    pub threads: usize,

    /// Serve the ext_proc port with TLS.
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, default_value_t = true, default_missing_value = "true", help_heading = "TLS")]
    pub secure_serving: bool,
    /// Folder with tls.crt and tls.key. Without it, Pointsman makes a self-signed certificate.
    #[arg(long, default_value = "", help_heading = "TLS")]
    pub cert_path: String,
    /// Read the certificate again when its files change. Needs --cert-path.
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, default_value_t = false, default_missing_value = "true", help_heading = "TLS")]
    pub enable_cert_reload: bool,
    /// Oldest TLS version: VersionTLS12 or VersionTLS13 (VersionTLS10 and VersionTLS11 mean VersionTLS12).
    #[arg(long, default_value = "", help_heading = "TLS")]
    pub tls_min_version: String,
    /// TLS 1.2 cipher suites by their Go names, separated by commas. TLS 1.3 suites are always on.
    #[arg(long, value_delimiter = ',', help_heading = "TLS")]
    pub tls_cipher_suites: Vec<String>,

    /// Configuration file: an EndpointPickerConfig in YAML or JSON. Without this flag the built-in default is in force.
    #[arg(long, default_value = "", help_heading = "Configuration")]
    pub config_file: String,
    /// Take over changes of the configuration file while serving. With false, a change takes effect at SIGHUP, at a
    /// POST to /-/reload, and at the next start.
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, default_value_t = true, default_missing_value = "true", help_heading = "Configuration")]
    pub watch_config_file: bool,
    /// Configuration as text, in place of --config-file.
    #[arg(long, default_value = "", help_heading = "Configuration")]
    pub config_text: String,
    /// Allow plugin types of Alpha stability, which may still change.
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, default_value_t = false, default_missing_value = "true", help_heading = "Configuration")]
    pub allow_experimental_plugins: bool,
    /// Start without the plugins whose type this version does not have yet. Without this flag, Pointsman does not start
    /// with such a configuration.
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, default_value_t = false, default_missing_value = "true", help_heading = "Configuration")]
    pub allow_missing_plugins: bool,
    /// Feature gates as NAME, NAME=true or NAME=false, separated by commas. They override the gates of the
    /// configuration.
    #[arg(long, value_delimiter = ',', help_heading = "Configuration")]
    pub feature_gates: Vec<String>,
    /// Engine of pods without an engine label. It overrides defaultEngine of core-metrics-extractor.
    #[arg(long, default_value = "", help_heading = "Configuration")]
    pub default_engine: String,
    /// Seed of all random choices. With 0 the seed comes from the system.
    #[arg(long, default_value_t = 0, help_heading = "Configuration")]
    pub seed: u64,

    /// Name of the InferencePool.
    #[arg(long, default_value = "", help_heading = "Pool")]
    pub pool_name: String,
    /// Namespace of the InferencePool. Empty means the environment variable NAMESPACE, or "default" without it.
    #[arg(long, default_value = "", help_heading = "Pool")]
    pub pool_namespace: String,
    /// API group of the InferencePool.
    #[arg(long, default_value = "inference.networking.k8s.io", help_heading = "Pool")]
    pub pool_group: String,
    /// File that says where the Kubernetes API server is. Empty means the environment variable KUBECONFIG, or the pod's
    /// service account without it.
    #[arg(long, default_value = "", help_heading = "Pool")]
    pub kubeconfig: String,
    /// Label selector of pods that are endpoints, in place of an InferencePool.
    #[arg(long, default_value = "", help_heading = "Pool")]
    pub endpoint_selector: String,
    /// Ports of each selected pod, separated by commas. Needs --endpoint-selector.
    #[arg(long, value_delimiter = ',', help_heading = "Pool")]
    pub endpoint_target_ports: Vec<u16>,
    /// Elect a leader among several replicas. Only the leader reports that it is ready, and the others stand by.
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, default_value_t = false, default_missing_value = "true", help_heading = "Pool")]
    pub ha_enable_leader_election: bool,
    /// How long a leader may be silent before another replica takes its place. At least 3s.
    #[arg(long, default_value = "15s", value_parser = duration, help_heading = "Pool")]
    pub ha_lease_duration: Duration,
    /// Label KEY=VALUE that the leader puts on its own pod and removes from every other pod, so that a Service can
    /// select the leader. Empty means none.
    #[arg(long, default_value = "", help_heading = "Pool")]
    pub ha_leader_label: String,

    /// Choose among the whole pool, and ignore the subset that the proxy asks for.
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, default_value_t = false, default_missing_value = "true", help_heading = "Requests")]
    pub disable_endpoint_subset_filter: bool,
    /// Leave out endpoints whose metrics port does not answer, while the port of another endpoint answers.
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, default_value_t = true, default_missing_value = "true", help_heading = "Requests")]
    pub avoid_unreachable: bool,
    /// Send the scores of all candidates as dynamic metadata.
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, default_value_t = false, default_missing_value = "true", help_heading = "Requests")]
    pub emit_endpoint_scores: bool,
    /// Memory for records of decisions, as a quantity. `pointsman explain` and /debug/decisions show them. 0 keeps
    /// none.
    #[arg(long, default_value = "32Mi", value_parser = bytes, help_heading = "Requests")]
    pub decision_records: u64,
    /// Folder for captures: what decisions were made from, as compressed lines of JSON without text of prompts. A capture
    /// begins at once. `pointsman replay` reads it.
    #[arg(long, default_value = "", help_heading = "Requests")]
    pub capture: String,
    /// Begin the capture at once. With false it begins with a PUT to /debug/capture.
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, default_value_t = true, default_missing_value = "true", help_heading = "Requests")]
    pub capture_at_start: bool,
    /// How long the capture goes on that begins at the start. 0s means until the end.
    #[arg(long, default_value = "0s", value_parser = duration, help_heading = "Requests")]
    pub capture_time: Duration,
    /// Bytes that all files of captures may take, as a quantity. The oldest file goes first.
    #[arg(long, default_value = "1Gi", value_parser = bytes, help_heading = "Requests")]
    pub capture_disk: u64,
    /// Bytes of one file of a capture, as a quantity. At a quarter of --capture-disk another one begins anyway.
    #[arg(long, default_value = "64Mi", value_parser = bytes, help_heading = "Requests")]
    pub capture_file: u64,
    /// File with a second configuration, whose profiles decide beside the running ones on live traffic, without effect.
    /// Metrics, `pointsman explain` and the page compare both. A changed file is taken over like the configuration.
    #[arg(long, default_value = "", help_heading = "Requests")]
    pub shadow_config: String,
    /// CPU time that the shadow may take, as a share of what the running configuration takes to schedule: 10% or 0.1.
    /// Requests beyond it are not compared.
    #[arg(long, default_value = "10%", value_parser = share, help_heading = "Requests")]
    pub shadow_cpu: f64,
    /// Tell clients in the response header x-pointsman-decision which endpoint was picked, its score, its margin, the
    /// matched tokens and the wait.
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, default_value_t = false, default_missing_value = "true", help_heading = "Requests")]
    pub decision_header: bool,
    /// Remove control headers of clients (fairness id, objective, routing) before the request goes to a model server.
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, default_value_t = true, default_missing_value = "true", help_heading = "Requests")]
    pub strip_control_headers: bool,
    /// Let clients choose the target model with the header x-llm-d-model-name-rewrite. With false, the header is
    /// ignored and removed.
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, default_value_t = true, default_missing_value = "true", help_heading = "Requests")]
    pub model_rewrite_header: bool,

    /// Most responses and conversations whose model server Pointsman remembers. A request that refers to one of them
    /// goes to that server. 0 remembers none.
    #[arg(long, default_value_t = 100_000, help_heading = "Requests")]
    pub max_response_bindings: usize,

    /// Memory of all prefix indexes together, as a quantity. Beyond it the oldest entries are forgotten.
    #[arg(long, default_value = "256Mi", value_parser = bytes, help_heading = "Requests")]
    pub prefix_index_memory: u64,

    /// Time between two scrapes of an endpoint. At least 50ms.
    #[arg(long, default_value = "50ms", value_parser = duration, help_heading = "Model server metrics")]
    pub refresh_metrics_interval: Duration,
    /// Time between two updates of the metrics of the whole pool.
    #[arg(long, default_value = "5s", value_parser = duration, help_heading = "Model server metrics")]
    pub refresh_prometheus_metrics_interval: Duration,
    /// Age from which an endpoint's metrics count as stale.
    #[arg(long, default_value = "2s", value_parser = duration, help_heading = "Model server metrics")]
    pub metrics_staleness_threshold: Duration,
    /// Ask a model server only for the needed series, if it can filter its metrics page.
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, default_value_t = true, default_missing_value = "true", help_heading = "Model server metrics")]
    pub filtered_scrapes: bool,
    /// Largest metrics page of a model server that is read, as a quantity.
    #[arg(long, default_value = "8Mi", value_parser = bytes, help_heading = "Model server metrics")]
    pub max_metrics_page: u64,

    /// Most series on the metrics page of this program, including buckets of histograms. Beyond it only the busiest
    /// tenants and models keep a label of their own; the others count as `other`.
    #[arg(long, default_value_t = 30_000, help_heading = "Logs and traces")]
    pub max_metric_series: usize,
    /// Largest size of the metrics page of this program, as a quantity.
    #[arg(long, default_value = "10Mi", value_parser = bytes, help_heading = "Logs and traces")]
    pub max_metrics_bytes: u64,

    /// Most fairness ids with a label of their own on the metrics page, up to 10000. The other ids count as `other`.
    /// With 0 all ids do.
    #[arg(long, default_value_t = 1000, help_heading = "Logs and traces")]
    pub fairness_id_metric_label_limit: u32,

    /// Log verbosity, as a number or a name: 2 default, 3 verbose, 4 debug, 5 trace.
    #[arg(
        long,
        short = 'v',
        default_value_t = 2,
        allow_negative_numbers = true,
        value_parser = verbosity,
        help_heading = "Logs and traces"
    )]
    pub v: i32,
    /// Log level: error, warn, info, debug, trace, or a number. It overrides --v.
    #[arg(long, help_heading = "Logs and traces")]
    pub zap_log_level: Option<String>,
    /// Log format: json or console.
    #[arg(long, default_value = "json", help_heading = "Logs and traces")]
    pub zap_encoder: String,
    /// Accepted for the sake of the reference's command lines, without effect.
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, default_missing_value = "true", hide = true)]
    pub zap_devel: Option<bool>,
    /// Accepted for the sake of the reference's command lines, without effect.
    #[arg(long, hide = true)]
    pub zap_stacktrace_level: Option<String>,
    /// Accepted for the sake of the reference's command lines, without effect.
    #[arg(long, hide = true)]
    pub zap_time_encoding: Option<String>,
    /// Take part in traces. The environment variables OTEL_… say where spans go.
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, default_value_t = true, default_missing_value = "true", help_heading = "Logs and traces")]
    pub tracing: bool,

    /// Other replicas as HOST:PORT, separated by commas. A DNS name stands for all its addresses, and this replica may
    /// be among them. The replicas of one pool report to each other their requests in flight and where prompts went.
    #[arg(long, value_delimiter = ',', help_heading = "Peers")]
    pub peers: Vec<PeerName>,
    /// Headless Service whose pods are the other replicas, in the namespace of the pool. Needs Kubernetes; --peers
    /// names replicas without it.
    #[arg(long, default_value = "", help_heading = "Peers")]
    pub peer_service: String,
    /// Port on which peers follow this replica. The port opens only with --peers or --peer-service. With 0 the system
    /// chooses a port.
    #[arg(long, default_value_t = 9006, help_heading = "Peers")]
    pub peer_port: u16,
    /// Folder with tls.crt, tls.key and ca.crt for the connections between replicas. Each end checks the other's
    /// certificate.
    #[arg(long, default_value = "", help_heading = "Peers")]
    pub peer_cert_dir: String,
    /// DNS name that the certificate of every replica carries.
    #[arg(long, default_value = "pointsman-peers", help_heading = "Peers")]
    pub peer_tls_name: String,
    /// Connect replicas in plaintext, without checking who they are. Without this flag, --peers needs --peer-cert-dir.
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, default_value_t = false, default_missing_value = "true", help_heading = "Peers")]
    pub peer_plaintext: bool,
    /// Folder for a file with this replica's knowledge of prompts and sessions. The replica writes the file when it
    /// ends, and a replica that starts within 15 minutes reads it.
    #[arg(long, default_value = "", help_heading = "Peers")]
    pub state_dir: String,

    /// Ask the API server whether the bearer token of a request for metrics may read them. With file discovery there is
    /// no API server to ask, and metrics are open.
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, default_value_t = true, default_missing_value = "true", help_heading = "Metrics port")]
    pub metrics_endpoint_auth: bool,
    /// Folder with tls.crt and tls.key for the metrics port. Empty serves plain HTTP.
    #[arg(long, default_value = "", help_heading = "Metrics port")]
    pub metrics_cert_dir: String,
    /// File with the authorities of client certificates for the metrics port. Needs --metrics-cert-dir.
    #[arg(long, default_value = "", help_heading = "Metrics port")]
    pub metrics_client_ca_file: String,
    /// Port of 127.0.0.1 with the page for people and all debug pages. Whoever reaches it may see them. In a cluster that
    /// is whoever may forward a port to the pod. Without it, the page is on the metrics port only. With 0 the system
    /// chooses a port.
    #[arg(long, help_heading = "Metrics port")]
    pub page_port: Option<u16>,
    /// Allow any address to change the log level and to reload the configuration. Without this flag, only loopback
    /// addresses may if the metrics port asks for no token.
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, default_value_t = false, default_missing_value = "true", help_heading = "Metrics port")]
    pub remote_log_level: bool,
    /// Count ext_proc streams by outcome, and measure how long they take.
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, default_value_t = false, default_missing_value = "true", help_heading = "Metrics port")]
    pub enable_grpc_stream_metrics: bool,
    /// Accepted for the sake of the reference's command lines. Pointsman is not a Go program and has no such profile.
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, default_value_t = true, default_missing_value = "true", hide = true)]
    pub enable_pprof: bool,
}

/// A message size; `None` is the library's default.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MessageSize(pub(super) Option<usize>);

fn duration(text: &str) -> Result<Duration, String> {
    scalar::go_duration(text)
}

/// A share of something: `10%` or `0.1`.
fn share(text: &str) -> Result<f64, String> {
    let expected =
        || format!("got {text:?}, expected a share such as 10% or 0.1, more than 0 and at most 1000%");
    let (number, whole) = text.strip_suffix('%').map_or((text, 1.0), |number| (number, 100.0));
    let share = number.trim().parse::<f64>().map_err(|_| expected())? / whole;
    if share > 0.0 && share <= 10.0 { Ok(share) } else { Err(expected()) }
}

fn verbosity(text: &str) -> Result<i32, String> {
    match text.to_ascii_lowercase().as_str() {
        "info" | "default" => Ok(2),
        "verbose" => Ok(3),
        "debug" => Ok(4),
        "trace" => Ok(5),
        number => number.parse().map_err(|_| {
            "expected a number, or default, verbose, debug or trace; --zap-log-level takes error and warn"
                .to_owned()
        }),
    }
}

fn bytes(text: &str) -> Result<u64, String> {
    // A trailing B, as in 10MiB, is not part of a Kubernetes quantity.
    scalar::quantity(text.strip_suffix(['B', 'b']).unwrap_or(text))
}

fn message_size(text: &str) -> Result<MessageSize, String> {
    if text.is_empty() {
        return Ok(MessageSize(None));
    }
    let size = usize::try_from(bytes(text)?).map_err(|error| error.to_string())?;
    Ok(MessageSize(Some(size)))
}
