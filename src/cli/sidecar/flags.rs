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
    /// Its value where nothing else is said.
    pub(super) default: &'static str,
    /// The environment variable that takes its place.
    pub(super) env: Option<&'static str>,
    /// The configuration file may have it.
    pub(super) in_file: bool,
    /// What is written in its place today, if it is a flag of earlier versions.
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

const NO_EFFECT: &str = "nothing: the log goes to standard error as lines of JSON";

/// All of them. Those of the reference come first, then ours, then those of earlier versions.
pub(super) const FLAGS: &[Flag] = &[
    value("port", "8000", "Port that clients call; rank r of several listens on this port plus r.").file(),
    value("model-server-port", "8200", "Port of the local model server; rank r of several on this port plus r.").file(),
    value("vllm-port", "", "The same as --model-server-port, which goes before it.").file().deprecated("--model-server-port"),
    value("data-parallel-size", "1", "Ranks of this pod. Each has a port and a model server of its own.").file(),
    value(
        "kv-connector",
        "nixlv2",
        "How caches travel: nixlv2, shared-storage, sglang, mooncake, offloading; of earlier versions nixl, lmcache.",
    )
    .file(),
    value("ec-connector", "", "How encoded media travel: ec-example or ec-nixl; empty leaves encode servers alone.").file(),
    value("mooncake-bootstrap-port", "8998", "Port of Mooncake's bootstrap server in a prefill pod.")
        .file()
        .env("MOONCAKE_BOOTSTRAP_PORT"),
    value("p2p-connector-port", "7777", "Port of the peer-to-peer tier of rank 0.").file().env("P2P_CONNECTOR_PORT"),
    switch("enable-p2p-pull", "false", "Prefill servers pull a part of the cache from where the picker says; nixlv2 alone.").file(),
    switch("secure-proxy", "true", "Serve TLS.").file(),
    value("cert-path", "", "Folder with tls.crt and tls.key, read again when they change; empty makes a self-signed certificate.")
        .file(),
    list("enable-tls", "Stages whose servers are called over TLS: prefiller, decoder, encoder.").file(),
    list("tls-insecure-skip-verify", "Stages whose servers' certificates are not verified: prefiller, decoder, encoder.").file(),
    switch(
        "enable-ssrf-protection",
        "false",
        "Ask only servers of the pool of --inference-pool, or of --allowed-endpoints-file, by address and port.",
    )
    .file(),
    value("inference-pool", "", "InferencePool of the servers that may be asked: NAMESPACE/NAME, or a name in this pod's namespace.")
        .file()
        .env("INFERENCE_POOL"),
    value("pool-group", "inference.networking.k8s.io", "API group of the InferencePool.").file(),
    switch("enable-prefiller-sampling", "false", "Any prefill server that the header names is asked, and not the first.")
        .file()
        .env("ENABLE_PREFILLER_SAMPLING"),
    value("max-idle-conns-per-host", "1024", "Idle connections that are kept to one server.").file(),
    value("prefill-max-retries", "0", "Further attempts at a prefill server that is not there or answers 502, 503 or 504.").file(),
    value("prefill-retry-backoff", "200ms", "Pause between two attempts.").file(),
    value("decode-chunk-size", "0", "Tokens of one call to the model server for a chat; 0 answers in one call.").file(),
    switch("tracing", "false", "Make spans, as the OTEL_* variables say.").file(),
    value("metrics-port", "0", "Port of /metrics; 0 has none.").file(),
    value("configuration", "", "Configuration as YAML or JSON; its keys are flags."),
    value("configuration-file", "", "File with the configuration."),
    switch("moriio-write-mode", "false", "MoRI-IO: prefill servers write the cache to this pod; nixlv2 alone."),
    switch("moriio-parallel-dispatch", "false", "MoRI-IO: ask both servers at once; needs --moriio-write-mode."),
    value("moriio-parallel-decode-wait-timeout", "30s", "MoRI-IO: how long the answer waits for the prefill server."),
    value("moriio-local-pod-ip", "", "MoRI-IO: where this pod is reached.").env("POD_IP"),
    value("moriio-decode-handshake-port", "6301", "MoRI-IO: port of this pod's handshakes."),
    value("moriio-decode-notify-port", "61005", "MoRI-IO: port of this pod's notifications."),
    value("moriio-prefill-handshake-port", "6301", "MoRI-IO: port of a prefill pod's handshakes."),
    value("moriio-prefill-notify-port", "61005", "MoRI-IO: port of a prefill pod's notifications."),
    value("moriio-tp-size", "1", "MoRI-IO: tensor parallelism."),
    value("moriio-dp-size", "1", "MoRI-IO: data parallelism of all hosts."),
    value("moriio-dp-size-local", "0", "MoRI-IO: data parallelism of one host; 0 leaves it unsaid."),
    list("moriio-remote-hosts", "MoRI-IO: hosts of the prefill server's ranks."),
    list("moriio-decode-hosts", "MoRI-IO: hosts of this server's ranks."),
    value("on-prefill-failure", "error", "What a failed prefill server means: error, next (server of the header), or local (model server).")
        .file(),
    value("local-fallback-max-bytes", "32768", "Largest body that the model server processes in place of a prefill server.").file(),
    value("local-fallback-per-second", "10", "Most such requests in a second.").file(),
    value("connect-timeout", "2s", "Longest wait for a connection to a server, TLS included.").file(),
    value("prefill-timeout", "5m", "Longest wait for a prefill server's answer; 0 waits for ever.").file(),
    value("encode-timeout", "1m", "Longest wait for an encode server's answer; 0 waits for ever.").file(),
    value("decode-first-byte-timeout", "0s", "Longest wait for the beginning of the model server's answer; 0 waits for ever.").file(),
    value("pool-idle-timeout", "4s", "How long a connection to a server may lie idle. Model servers close theirs after 5 s.").file(),
    value("drain-timeout", "60s", "How long requests may take at the end of the process.").file(),
    switch("trust-client-transfer-params", "false", "Let kv_transfer_params and ec_transfer_params of clients reach the model server.")
        .file(),
    value("max-body-bytes", "67108864", "Largest body of a request that is split.").file(),
    value("max-buffered-bytes", "536870912", "Bytes of such bodies at once.").file(),
    value("allowed-endpoints-file", "", "Endpoints file of the servers that may be asked, read again when it changes.").file(),
    value("kubeconfig", "", "Kubeconfig for --inference-pool; empty takes the pod's service account."),
    value("bind-address", "", "Address to listen on; empty listens on all."),
    switch("print-addresses", "false", "Print one line for each port once all listen: its name and address. Ports may be 0 with it."),
    value("threads", "0", "Threads that serve; 0 takes one a core."),
    value("zap-log-level", "", "Least severe events that are logged: error, warn, info, debug, trace, or a verbosity such as 4."),
    value("zap-encoder", "json", "Form of the log: json or console."),
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
