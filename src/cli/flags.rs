//! Every flag of `serve`, as typed. The groups and names are the reference's; what is ours stands at the end of its
//! group.

use std::net::IpAddr;
use std::time::Duration;

use clap::{ArgAction, Args};

use crate::document::scalar;
use crate::extproc::BodyMode;
use crate::plugins::{REGISTRY, Registry};
use crate::transport::PROXIES;

/// Flags of `pointsman serve`. `--flag value` and `--flag=value` mean the same, and so do `--flag`, `--flag=true` and
/// `--flag true`.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Serving")]
pub struct ServeFlags {
    /// Plugin types that a configuration may name; no flag.
    #[arg(skip = REGISTRY)]
    pub(super) registry: Registry,
    /// Port of the ext_proc service; 0 lets the system choose.
    #[arg(long, default_value_t = 9002)]
    pub grpc_port: u16,
    /// Port of the gRPC health service; 0 lets the system choose.
    #[arg(long, default_value_t = 9003)]
    pub grpc_health_port: u16,
    /// Port of metrics and debug pages; 0 lets the system choose.
    #[arg(long, default_value_t = 9090)]
    pub metrics_port: u16,
    /// Port of the KEDA external scaler; 0 lets the system choose. Without it there is none.
    #[arg(long)]
    pub keda_scaler_port: Option<u16>,
    /// Address that all ports listen on; by default every address of the machine.
    #[arg(long)]
    pub bind_address: Option<IpAddr>,
    /// Prints a line `SERVICE ADDRESS` on standard output for each port once all of them listen.
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, default_value_t = false, default_missing_value = "true")]
    pub print_addresses: bool,
    /// Time for streams to finish after SIGTERM; 0s does not wait.
    #[arg(long, default_value = "30s", value_parser = duration)]
    pub drain_timeout: Duration,
    /// Time for open streams to end after the drain; then they are cut off.
    #[arg(long, default_value = "90s", value_parser = duration)]
    pub linger_timeout: Duration,
    /// Accepted for the reference's sake: the health service is always served on the ext_proc port too.
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, default_value_t = false, default_missing_value = "true")]
    pub health_checking: bool,
    /// Largest gRPC message taken (quantity, as 10MiB); empty means 4MiB, or as much as --max-request-body needs.
    #[arg(long, default_value = "", value_parser = message_size)]
    pub grpc_max_recv_msg_size: MessageSize,
    /// Largest gRPC message sent (quantity); empty means no bound.
    #[arg(long, default_value = "", value_parser = message_size)]
    pub grpc_max_send_msg_size: MessageSize,
    /// Largest request body (quantity); larger ones get 413. 0 means no bound.
    #[arg(long, default_value = "64Mi", value_parser = bytes)]
    pub max_request_body: u64,
    /// Memory for all request bodies being received, decided or sent on (quantity); beyond it requests get 503. 0 means
    /// no bound.
    #[arg(long, default_value = "512Mi", value_parser = bytes)]
    pub max_buffered_bodies: u64,
    /// Streams open at once; beyond it requests get 503. 0 means no bound.
    #[arg(long, default_value_t = 100_000)]
    pub max_concurrent_streams: u64,
    /// Time without a message after which a stream is ended; 0s means never.
    #[arg(long, default_value = "1h", value_parser = duration)]
    pub stream_idle_timeout: Duration,
    /// Connections open at once on the ext_proc port; beyond it the longest idle one is closed for a new one.
    #[arg(long, default_value_t = PROXIES)]
    pub max_connections: usize,
    /// Silence on a connection of any port after which its client is asked whether it still lives, by TCP and by a ping
    /// of HTTP/2; 0s means never.
    #[arg(long, default_value = "20s", value_parser = duration)]
    pub keepalive_interval: Duration,
    /// How long the answer may take; then the connection is closed, and what its requests held is free.
    #[arg(long, default_value = "10s", value_parser = duration)]
    pub keepalive_timeout: Duration,
    /// Request body mode of proxies that do not tell theirs: full-duplex-streamed, streamed, buffered, buffered-partial
    /// or none.
    #[arg(long, default_value = "full-duplex-streamed")]
    pub request_body_mode: BodyMode,
    /// Response body mode of proxies that do not tell theirs.
    #[arg(long, default_value = "full-duplex-streamed")]
    pub response_body_mode: BodyMode,
    /// Threads that serve; 0 means one a core.
    #[arg(long, default_value_t = 0)]
    pub threads: usize,

    /// TLS on the ext_proc port.
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, default_value_t = true, default_missing_value = "true", help_heading = "TLS")]
    pub secure_serving: bool,
    /// Folder with tls.crt and tls.key; empty makes a self-signed certificate.
    #[arg(long, default_value = "", help_heading = "TLS")]
    pub cert_path: String,
    /// Read the certificate again when its files change; needs --cert-path.
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, default_value_t = false, default_missing_value = "true", help_heading = "TLS")]
    pub enable_cert_reload: bool,
    /// Oldest TLS version: VersionTLS12 or VersionTLS13 (VersionTLS10 and VersionTLS11 mean VersionTLS12).
    #[arg(long, default_value = "", help_heading = "TLS")]
    pub tls_min_version: String,
    /// TLS 1.2 cipher suites by their Go names, with commas.
    #[arg(long, value_delimiter = ',', help_heading = "TLS")]
    pub tls_cipher_suites: Vec<String>,

    /// Configuration file (EndpointPickerConfig, YAML or JSON).
    #[arg(long, default_value = "", help_heading = "Configuration")]
    pub config_file: String,
    /// Configuration as text, instead of a file.
    #[arg(long, default_value = "", help_heading = "Configuration")]
    pub config_text: String,
    /// Allow plugins of Alpha stability.
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, default_value_t = false, default_missing_value = "true", help_heading = "Configuration")]
    pub allow_experimental_plugins: bool,
    /// Start without the plugins whose type this version does not have yet, instead of refusing the configuration.
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, default_value_t = false, default_missing_value = "true", help_heading = "Configuration")]
    pub allow_missing_plugins: bool,
    /// Feature gates as NAME, NAME=true or NAME=false, with commas; they count over those of the configuration.
    #[arg(long, value_delimiter = ',', help_heading = "Configuration")]
    pub feature_gates: Vec<String>,
    /// Engine of pods that do not say theirs, over core-metrics-extractor's defaultEngine; empty leaves that one.
    #[arg(long, default_value = "", help_heading = "Configuration")]
    pub default_engine: String,
    /// Seed of all random choices; 0 takes one from the system.
    #[arg(long, default_value_t = 0, help_heading = "Configuration")]
    pub seed: u64,

    /// Name of the InferencePool.
    #[arg(long, default_value = "", help_heading = "Pool")]
    pub pool_name: String,
    /// Namespace of the InferencePool; empty takes the environment's NAMESPACE, else "default".
    #[arg(long, default_value = "", help_heading = "Pool")]
    pub pool_namespace: String,
    /// API group of the InferencePool.
    #[arg(long, default_value = "inference.networking.k8s.io", help_heading = "Pool")]
    pub pool_group: String,
    /// File that says where the Kubernetes API server is; empty takes the environment's KUBECONFIG, then the pod's
    /// service account.
    #[arg(long, default_value = "", help_heading = "Pool")]
    pub kubeconfig: String,
    /// Label selector of pods, in place of an InferencePool.
    #[arg(long, default_value = "", help_heading = "Pool")]
    pub endpoint_selector: String,
    /// Ports of the selected pods, with commas.
    #[arg(long, value_delimiter = ',', help_heading = "Pool")]
    pub endpoint_target_ports: Vec<u16>,
    /// Only the leader of several replicas says that it is ready; the others stand by.
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, default_value_t = false, default_missing_value = "true", help_heading = "Pool")]
    pub ha_enable_leader_election: bool,
    /// Time after which another replica may take the place of a leader that has gone silent; at least 3s.
    #[arg(long, default_value = "15s", value_parser = duration, help_heading = "Pool")]
    pub ha_lease_duration: Duration,
    /// Label KEY=VALUE that the leader puts on its own pod and takes from every other, so that a Service can select the
    /// leader; empty means none.
    #[arg(long, default_value = "", help_heading = "Pool")]
    pub ha_leader_label: String,

    /// Choose among the whole pool whatever subset the proxy asks for.
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, default_value_t = false, default_missing_value = "true", help_heading = "Requests")]
    pub disable_endpoint_subset_filter: bool,
    /// Leave out endpoints whose metrics port does not answer at all, as long as another one does.
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, default_value_t = true, default_missing_value = "true", help_heading = "Requests")]
    pub avoid_unreachable: bool,
    /// Send the scores of all candidates as dynamic metadata.
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, default_value_t = false, default_missing_value = "true", help_heading = "Requests")]
    pub emit_endpoint_scores: bool,
    /// Remove control headers (fairness id, objective, routing) that clients send, before the model server sees them.
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, default_value_t = true, default_missing_value = "true", help_heading = "Requests")]
    pub strip_control_headers: bool,
    /// Let clients choose the target model with the header x-llm-d-model-name-rewrite; if not, the header is ignored
    /// and removed.
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, default_value_t = true, default_missing_value = "true", help_heading = "Requests")]
    pub model_rewrite_header: bool,

    /// Responses and conversations whose model server is remembered, so that requests which refer to them go there; 0
    /// remembers none.
    #[arg(long, default_value_t = 100_000, help_heading = "Requests")]
    pub max_response_bindings: usize,

    /// Memory of all prefix indexes together (quantity); beyond it the oldest entries are forgotten.
    #[arg(long, default_value = "256Mi", value_parser = bytes, help_heading = "Requests")]
    pub prefix_index_memory: u64,

    /// Time between scrapes of an endpoint, at least 50ms.
    #[arg(long, default_value = "50ms", value_parser = duration, help_heading = "Model server metrics")]
    pub refresh_metrics_interval: Duration,
    /// Time between updates of the pool's own metrics.
    #[arg(long, default_value = "5s", value_parser = duration, help_heading = "Model server metrics")]
    pub refresh_prometheus_metrics_interval: Duration,
    /// Age from which an endpoint's metrics count as stale.
    #[arg(long, default_value = "2s", value_parser = duration, help_heading = "Model server metrics")]
    pub metrics_staleness_threshold: Duration,
    /// Ask model servers for the needed series alone where they can give them.
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, default_value_t = true, default_missing_value = "true", help_heading = "Model server metrics")]
    pub filtered_scrapes: bool,
    /// Largest metrics page read (quantity).
    #[arg(long, default_value = "8Mi", value_parser = bytes, help_heading = "Model server metrics")]
    pub max_metrics_page: u64,

    /// Series on the metrics page of this program, buckets of histograms included. Beyond it the busiest tenants and
    /// models keep their own label.
    #[arg(long, default_value_t = 30_000, help_heading = "Logs and traces")]
    pub max_metric_series: usize,
    /// Size of the metrics page of this program (quantity).
    #[arg(long, default_value = "10Mi", value_parser = bytes, help_heading = "Logs and traces")]
    pub max_metrics_bytes: u64,

    /// Fairness ids with a label of their own on the metrics page, up to 10000; 0 counts all of them as `other`.
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
    /// Log level, over --v: info, error, debug, or a number.
    #[arg(long, help_heading = "Logs and traces")]
    pub zap_log_level: Option<String>,
    /// Log format: json or console.
    #[arg(long, default_value = "json", help_heading = "Logs and traces")]
    pub zap_encoder: String,
    /// Accepted for the reference's sake; has no effect.
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, default_missing_value = "true", hide = true)]
    pub zap_devel: Option<bool>,
    /// Accepted for the reference's sake; has no effect.
    #[arg(long, hide = true)]
    pub zap_stacktrace_level: Option<String>,
    /// Accepted for the reference's sake; has no effect.
    #[arg(long, hide = true)]
    pub zap_time_encoding: Option<String>,
    /// Take part in traces; exporting is set up by the OTEL_ variables of the environment.
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, default_value_t = true, default_missing_value = "true", help_heading = "Logs and traces")]
    pub tracing: bool,

    /// Ask the API server whether the bearer token of who reads metrics may; with file discovery there is nobody to
    /// ask, and metrics are open.
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, default_value_t = true, default_missing_value = "true", help_heading = "Metrics port")]
    pub metrics_endpoint_auth: bool,
    /// Folder with tls.crt and tls.key for the metrics port; empty serves plain HTTP.
    #[arg(long, default_value = "", help_heading = "Metrics port")]
    pub metrics_cert_dir: String,
    /// Authorities of client certificates for the metrics port; needs --metrics-cert-dir.
    #[arg(long, default_value = "", help_heading = "Metrics port")]
    pub metrics_client_ca_file: String,
    /// Let the log level be changed from other addresses than loopback ones where nobody asks clients who they are.
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, default_value_t = false, default_missing_value = "true", help_heading = "Metrics port")]
    pub remote_log_level: bool,
    /// Count ext_proc streams by outcome and duration.
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, default_value_t = false, default_missing_value = "true", help_heading = "Metrics port")]
    pub enable_grpc_stream_metrics: bool,
    /// Accepted for the reference's sake: profiles of a Go program do not exist here.
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, default_value_t = true, default_missing_value = "true", hide = true)]
    pub enable_pprof: bool,
}

/// A message size; `None` is the library's default.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MessageSize(pub(super) Option<usize>);

fn duration(text: &str) -> Result<Duration, String> {
    scalar::go_duration(text)
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
    // One trailing B, as in 10MiB, is no part of a Kubernetes quantity.
    scalar::quantity(text.strip_suffix(['B', 'b']).unwrap_or(text))
}

fn message_size(text: &str) -> Result<MessageSize, String> {
    if text.is_empty() {
        return Ok(MessageSize(None));
    }
    let size = usize::try_from(bytes(text)?).map_err(|error| error.to_string())?;
    Ok(MessageSize(Some(size)))
}
