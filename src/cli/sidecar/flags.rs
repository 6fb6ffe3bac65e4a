//! The flags of `pointsman sidecar`: those of every released sidecar, and ours.

/// What a flag takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Takes {
    /// One value.
    Value,
    /// `true`, `false`, or nothing, which means `true`.
    Switch,
    /// Values with commas in between; repeated flags add up.
    List,
}

/// A flag.
#[derive(Clone, Copy, Debug)]
pub(super) struct Flag {
    /// Its name without dashes.
    pub(super) name: &'static str,
    /// What it takes.
    pub(super) takes: Takes,
    /// Its value if nobody sets it; empty for none.
    pub(super) default: &'static str,
    /// The environment variable that sets it if the flag is missing.
    pub(super) env: Option<&'static str>,
    /// Whether the configuration file may set it.
    pub(super) in_file: bool,
    /// For a flag of earlier versions: what to write today.
    pub(super) deprecated: Option<&'static str>,
    /// What it does.
    pub(super) about: &'static str,
}

impl Flag {
    const fn file(self) -> Self {
        Self { in_file: true, ..self }
    }

    const fn env(self, name: &'static str) -> Self {
        Self { env: Some(name), ..self }
    }

    const fn deprecated(self, today: &'static str) -> Self {
        Self { deprecated: Some(today), ..self }
    }

    /// The flag of this name.
    pub(super) fn named(name: &str) -> Option<&'static Self> {
        FLAGS.iter().find(|flag| flag.name == name)
    }
}

const fn value(name: &'static str, default: &'static str, about: &'static str) -> Flag {
    Flag { name, takes: Takes::Value, default, env: None, in_file: false, deprecated: None, about }
}

const fn switch(name: &'static str, default: &'static str, about: &'static str) -> Flag {
    Flag { takes: Takes::Switch, ..value(name, default, about) }
}

const fn list(name: &'static str, about: &'static str) -> Flag {
    Flag { takes: Takes::List, ..value(name, "", about) }
}

const NO_EFFECT: &str = "no effect, because the log goes to standard error as lines of JSON";

/// All of them. Those of the reference come first, then ours, then those of earlier versions.
pub(super) const FLAGS: &[Flag] = &[
    value("port", "8000", "Port that clients call. Rank r of a data-parallel server listens on this port plus r.").file(),
    value("model-server-port", "8200", "Port of the local model server. Rank r of a data-parallel server has this port plus r.").file(),
    value("vllm-port", "", "Means --model-server-port, which takes precedence.").file().deprecated("--model-server-port"),
    value("data-parallel-size", "1", "Ranks of this pod. Each has a port and a model server of its own.").file(),
    value(
        "kv-connector",
        "nixlv2",
        "How KV caches travel: nixlv2, shared-storage, sglang, mooncake or offloading. nixl and lmcache are names of earlier versions.",
    )
    .file(),
    value("ec-connector", "", "How encoded media travel: ec-example or ec-nixl. Without it, no encode server is called.").file(),
    value("mooncake-bootstrap-port", "8998", "Port of Mooncake's bootstrap server in a prefill pod.")
        .file()
        .env("MOONCAKE_BOOTSTRAP_PORT"),
    value("p2p-connector-port", "7777", "Port of the peer-to-peer tier of rank 0.").file().env("P2P_CONNECTOR_PORT"),
    switch("enable-p2p-pull", "false", "Let prefill servers pull a part of the cache from the server that the picker names. Works with nixlv2 only.").file(),
    switch("secure-proxy", "true", "Serve TLS.").file(),
    value("cert-path", "", "Folder with tls.crt and tls.key, which are read again when they change. Without it, the certificate is self-signed.")
        .file(),
    list("enable-tls", "Stages whose servers are called over TLS: prefiller, decoder, encoder.").file(),
    list("tls-insecure-skip-verify", "Stages for which the servers' certificates are not verified: prefiller, decoder, encoder.").file(),
    switch(
        "enable-ssrf-protection",
        "false",
        "Call only servers that --inference-pool or --allowed-endpoints-file lists, by address and port.",
    )
    .file(),
    value("inference-pool", "", "InferencePool of the servers that may be called: NAMESPACE/NAME, or a name in this pod's namespace.")
        .file()
        .env("INFERENCE_POOL"),
    value("pool-group", "inference.networking.k8s.io", "API group of the InferencePool.").file(),
    switch("enable-prefiller-sampling", "false", "Call a random one of the prefill servers that the header names, in place of the first one.")
        .file()
        .env("ENABLE_PREFILLER_SAMPLING"),
    value("max-idle-conns-per-host", "1024", "Most idle connections that are kept to one server.").file(),
    value("prefill-max-retries", "0", "How often a call is repeated to a prefill server that cannot be reached or answers 502, 503 or 504.").file(),
    value("prefill-retry-backoff", "200ms", "Pause between two attempts.").file(),
    value("decode-chunk-size", "0", "Tokens of one call to the model server for a chat. 0 makes one call for the whole answer.").file(),
    switch("tracing", "false", "Take part in traces. The environment variables OTEL_* say where spans go.").file(),
    value("metrics-port", "0", "Port of /metrics. With 0 there is no such port.").file(),
    value("configuration", "", "Configuration as YAML or JSON text. Its keys are the names of flags."),
    value("configuration-file", "", "File with the configuration."),
    switch("moriio-write-mode", "false", "MoRI-IO: prefill servers write the cache to this pod. Works with nixlv2 only."),
    switch("moriio-parallel-dispatch", "false", "MoRI-IO: call both servers at once. Needs --moriio-write-mode."),
    value("moriio-parallel-decode-wait-timeout", "30s", "MoRI-IO: how long the answer waits for the prefill server."),
    value("moriio-local-pod-ip", "", "MoRI-IO: IP address of this pod.").env("POD_IP"),
    value("moriio-decode-handshake-port", "6301", "MoRI-IO: port of this pod's handshakes."),
    value("moriio-decode-notify-port", "61005", "MoRI-IO: port of this pod's notifications."),
    value("moriio-prefill-handshake-port", "6301", "MoRI-IO: port of a prefill pod's handshakes."),
    value("moriio-prefill-notify-port", "61005", "MoRI-IO: port of a prefill pod's notifications."),
    value("moriio-tp-size", "1", "MoRI-IO: tensor parallelism."),
    value("moriio-dp-size", "1", "MoRI-IO: data parallelism of all hosts."),
    value("moriio-dp-size-local", "0", "MoRI-IO: data parallelism of one host. With 0 it is not sent."),
    list("moriio-remote-hosts", "MoRI-IO: hosts of the prefill server's ranks."),
    list("moriio-decode-hosts", "MoRI-IO: hosts of this server's ranks."),
    value("on-prefill-failure", "error", "What follows when a prefill server fails: error (the client gets it), next (the next server of the header) or local (the model server).")
        .file(),
    value("local-fallback-max-bytes", "32768", "Largest body that the model server processes in place of a prefill server.").file(),
    value("local-fallback-per-second", "10", "Most requests in a second that the model server processes in place of a prefill server.").file(),
    value("connect-timeout", "2s", "Longest wait for a connection to a server, TLS included.").file(),
    value("prefill-timeout", "5m", "Longest wait for a prefill server's answer. 0 means no bound.").file(),
    value("encode-timeout", "1m", "Longest wait for an encode server's answer. 0 means no bound.").file(),
    value("decode-first-byte-timeout", "0s", "Longest wait for the first byte of the model server's answer. 0 means no bound.").file(),
    value("pool-idle-timeout", "4s", "How long an idle connection to a server stays open. Model servers close idle connections after 5 s.").file(),
    value("drain-timeout", "60s", "How long running requests may take after SIGTERM. The rest is cut off.").file(),
    switch("trust-client-transfer-params", "false", "Let kv_transfer_params and ec_transfer_params of clients reach the model server.")
        .file(),
    switch("outcomes-in-metrics", "false", "Write the counts of outcomes behind the model server's metrics page, where the endpoint picker reads them.")
        .file(),
    value("max-body-bytes", "67108864", "Largest body of a request that is split, in bytes.").file(),
    value("max-buffered-bytes", "536870912", "Most bytes of all such bodies at once.").file(),
    value("allowed-endpoints-file", "", "Endpoints file of the servers that may be called. It is read again when it changes.").file(),
    value("kubeconfig", "", "Kubeconfig for --inference-pool. Without it, the pod's service account is used."),
    value("bind-address", "", "Address to listen on. Without it, the sidecar listens on all addresses."),
    switch("print-addresses", "false", "Print a line with name and address for each port, once all ports listen. Ports may then be 0."),
    value("threads", "0", "Number of threads that serve. 0 means one for each core."),
    value("zap-log-level", "", "Log level: error, warn, info, debug, trace, or a number such as 4."),
    value("zap-encoder", "json", "Log format: json or console."),
    // Earlier versions.
    value("connector", "", "How caches travel.").deprecated("--kv-connector"),
    switch("prefiller-use-tls", "false", "Call prefill servers over TLS.").deprecated("--enable-tls=prefiller"),
    switch("decoder-use-tls", "false", "Call the model server over TLS.").deprecated("--enable-tls=decoder"),
    switch("prefiller-tls-insecure-skip-verify", "false", "Do not verify prefill servers.")
        .deprecated("--tls-insecure-skip-verify=prefiller"),
    switch("decoder-tls-insecure-skip-verify", "false", "Do not verify the model server.")
        .deprecated("--tls-insecure-skip-verify=decoder"),
    value("inference-pool-namespace", "", "Namespace of the pool.").env("INFERENCE_POOL_NAMESPACE").deprecated("--inference-pool"),
    value("inference-pool-name", "", "Name of the pool.").env("INFERENCE_POOL_NAME").deprecated("--inference-pool"),
    value("v", "", "Verbosity of the log: up to 3 info, 4 debug, from 5 trace.").deprecated("--zap-log-level"),
    switch("zap-devel", "false", "").deprecated(NO_EFFECT),
    value("zap-stacktrace-level", "", "").deprecated(NO_EFFECT),
    value("zap-time-encoding", "", "").deprecated(NO_EFFECT),
    switch("add_dir_header", "false", "").deprecated(NO_EFFECT),
    switch("alsologtostderr", "false", "").deprecated(NO_EFFECT),
    value("log_backtrace_at", "", "").deprecated(NO_EFFECT),
    value("log_dir", "", "").deprecated(NO_EFFECT),
    value("log_file", "", "").deprecated(NO_EFFECT),
    value("log_file_max_size", "", "").deprecated(NO_EFFECT),
    switch("logtostderr", "true", "").deprecated(NO_EFFECT),
    switch("one_output", "false", "").deprecated(NO_EFFECT),
    switch("skip_headers", "false", "").deprecated(NO_EFFECT),
    switch("skip_log_headers", "false", "").deprecated(NO_EFFECT),
    value("stderrthreshold", "", "").deprecated(NO_EFFECT),
    value("vmodule", "", "").deprecated(NO_EFFECT),
];
