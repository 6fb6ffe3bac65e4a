//! Turns what was said into settings. Every problem names its flag, and all are told at once.

use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use super::values::{Values, boolean};
use crate::document::{nearest, scalar};
use crate::sidecar::{
    Connector, EncodeConnector, Limits, Moriio, OnPrefillFailure, PerStage, Settings, Stage,
};
use crate::telemetry::LogLevel;

/// Ranks of a pod, at most.
const MOST_RANKS: u16 = 1024;

/// What the command needs.
#[derive(Clone, Debug)]
pub(super) struct Options {
    /// The way of requests.
    pub(super) settings: Settings,
    /// TLS on the ports that clients call; the certificate's folder.
    pub(super) tls: ServingTls,
    /// Whom the sidecar may ask.
    pub(super) allowed: AllowedBy,
    /// Port of the metrics page.
    pub(super) metrics: Option<(Option<IpAddr>, u16)>,
    /// Make spans.
    pub(super) tracing: bool,
    /// Address to listen on.
    pub(super) bind: Option<IpAddr>,
    /// Print addresses.
    pub(super) print_addresses: bool,
    /// Threads.
    pub(super) threads: usize,
}

/// TLS on the ports that clients call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ServingTls {
    /// None.
    Off,
    /// With a certificate of our own making.
    SelfSigned,
    /// With the certificate in this folder.
    Files(PathBuf),
}

/// Who says which servers may be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum AllowedBy {
    /// Nobody: all may.
    Nobody,
    /// A file.
    File(PathBuf),
    /// An InferencePool.
    Pool {
        /// Its namespace; `None` is this pod's.
        namespace: Option<String>,
        /// Its name.
        name: String,
        /// Its API group.
        group: String,
        /// How the API server is found; empty is the pod's own way.
        kubeconfig: String,
    },
}

/// The level and form of the log.
pub(super) fn log_level(values: &Values) -> Result<LogLevel, String> {
    let text = values.one("zap-log-level");
    if !text.is_empty() {
        return text.parse().map_err(|error| format!("--zap-log-level: {error}"));
    }
    match values.one("v").as_str() {
        "" => Ok(LogLevel::Info),
        text => text
            .parse()
            .map(LogLevel::from_verbosity)
            .map_err(|_| format!("--v: got {text:?}, expected a number such as 4")),
    }
}

/// Reads settings and gathers problems.
struct Reader<'v> {
    values: &'v Values,
    problems: Vec<String>,
}

impl Reader<'_> {
    fn wrong(&mut self, name: &str, got: &str, expected: &str) {
        self.problems.push(format!("--{name}: got {got:?}, expected {expected}"));
    }

    fn number<N: FromStr + PartialOrd + Default + Copy>(
        &mut self,
        name: &'static str,
        least: N,
        expected: &str,
    ) -> N {
        let text = self.values.one(name);
        match text.parse::<N>() {
            Ok(number) if number >= least => number,
            _ => {
                self.wrong(name, &text, expected);
                N::default()
            }
        }
    }

    fn port(&mut self, name: &'static str) -> u16 {
        let least = u16::from(!self.switch("print-addresses"));
        self.number(name, least, "a port from 1 to 65535")
    }

    fn switch(&mut self, name: &'static str) -> bool {
        let text = self.values.one(name);
        boolean(&text).unwrap_or_else(|| {
            self.wrong(name, &text, "true or false");
            false
        })
    }

    fn duration(&mut self, name: &'static str) -> Duration {
        let text = self.values.one(name);
        scalar::go_duration(&text).unwrap_or_else(|_| {
            self.wrong(name, &text, "a duration such as 200ms, 30s or 5m");
            Duration::ZERO
        })
    }

    fn limit(&mut self, name: &'static str) -> Option<Duration> {
        Some(self.duration(name)).filter(|limit| !limit.is_zero())
    }

    fn stages(&mut self, name: &'static str, switches: [(&'static str, Stage); 2]) -> PerStage {
        let mut stages = PerStage::default();
        for text in self.values.all(name) {
            let all = [Stage::Encode, Stage::Prefill, Stage::Decode];
            match all.into_iter().find(|stage| stage.server() == text) {
                Some(stage) => stages.choose(stage),
                None => self.wrong(name, &text, "prefiller, decoder or encoder, with commas in between"),
            }
        }
        for (older, stage) in switches {
            if self.switch(older) {
                stages.choose(stage);
            }
        }
        stages
    }

    fn connector(&mut self) -> Connector {
        let older = self.values.is_given("connector") && !self.values.is_given("kv-connector");
        let name = if older { "connector" } else { "kv-connector" };
        let text = self.values.one(name);
        Connector::named(&text).unwrap_or_else(|| {
            let names = Connector::ALL.map(Connector::name);
            let near =
                nearest(&text, names).map_or_else(String::new, |near| format!("; did you mean {near}?"));
            self.wrong(name, &text, &format!("one of {}{near}", names.join(", ")));
            Connector::NixlV2
        })
    }

    fn encode(&mut self) -> Option<EncodeConnector> {
        let text = self.values.one("ec-connector");
        if text.is_empty() {
            return None;
        }
        let known = EncodeConnector::named(&text);
        if known.is_none() {
            self.wrong("ec-connector", &text, "ec-example, ec-nixl or nothing");
        }
        known
    }

    fn engine_port(&mut self) -> u16 {
        // The file's newer name goes before its older one, and the command line before both.
        let older = self.values.is_given("vllm-port") && !self.values.is_given("model-server-port")
            || !self.values.is_said("model-server-port") && self.values.is_said("vllm-port");
        let name = if older { "vllm-port" } else { "model-server-port" };
        self.number(name, 1, "a port from 1 to 65535")
    }

    fn fits(&mut self, name: &str, first: u16, ranks: u16) {
        if ranks > 0 && first.checked_add(ranks - 1).is_none() {
            self.wrong(
                name,
                &first.to_string(),
                "a port that leaves room for --data-parallel-size ports up to 65535",
            );
        }
    }
}

/// Environment variables that no flag has.
const POD_IP: &str = "POD_IP";
const SGLANG_PORT: &str = "SGLANG_BOOTSTRAP_PORT";

/// Reads the settings.
pub(super) fn read(
    values: &Values,
    environment: impl Fn(&str) -> Option<String>,
) -> Result<Options, Vec<String>> {
    let mut reader = Reader { values, problems: Vec::new() };
    let r = &mut reader;
    let port = r.port("port");
    let engine_port = r.engine_port();
    let ranks = r.number("data-parallel-size", 1, "a number from 1 to 1024");
    if ranks > MOST_RANKS {
        r.wrong("data-parallel-size", &ranks.to_string(), "a number from 1 to 1024");
    }
    let p2p_port = r.number("p2p-connector-port", 1, "a port from 1 to 65535");
    r.fits("port", port, ranks);
    r.fits("model-server-port", engine_port, ranks);
    r.fits("p2p-connector-port", p2p_port, ranks);
    let connector = r.connector();
    let retries = r.number::<i64>("prefill-max-retries", i64::MIN, "a number").clamp(0, 100) as u32;
    let backoff = r.duration("prefill-retry-backoff");
    if retries > 0 && backoff.is_zero() {
        r.wrong(
            "prefill-retry-backoff",
            &values.one("prefill-retry-backoff"),
            "more than 0 with --prefill-max-retries",
        );
    }
    let p2p_pull = r.switch("enable-p2p-pull");
    if p2p_pull && connector != Connector::NixlV2 {
        r.wrong("enable-p2p-pull", "true", "false, or --kv-connector=nixlv2");
    }
    let on_prefill_failure = on_prefill_failure(r);
    let settings = Settings {
        port,
        engine_port,
        ranks,
        pod_ip: environment(POD_IP).and_then(|text| text.trim().parse().ok()),
        connector,
        encode: r.encode(),
        sampling: sampling(r),
        retries,
        backoff,
        on_prefill_failure,
        local_body_bytes: r.number("local-fallback-max-bytes", 0, "a number of bytes"),
        local_per_second: r.number("local-fallback-per-second", 0, "a number of requests"),
        chunk_size: r.number("decode-chunk-size", 0, "a number of tokens"),
        p2p_pull,
        p2p_port,
        mooncake_port: r.number("mooncake-bootstrap-port", 1, "a port from 1 to 65535"),
        sglang_port: environment(SGLANG_PORT).and_then(|text| text.trim().parse().ok()).unwrap_or(8998),
        moriio: moriio(r, connector),
        tls: r.stages(
            "enable-tls",
            [("prefiller-use-tls", Stage::Prefill), ("decoder-use-tls", Stage::Decode)],
        ),
        skip_verify: r.stages(
            "tls-insecure-skip-verify",
            [
                ("prefiller-tls-insecure-skip-verify", Stage::Prefill),
                ("decoder-tls-insecure-skip-verify", Stage::Decode),
            ],
        ),
        limits: limits(r),
        trust_client: r.switch("trust-client-transfer-params"),
        outcomes_in_metrics: r.switch("outcomes-in-metrics"),
        body_bytes: r.number("max-body-bytes", 1, "a number of bytes"),
        buffer_bytes: r.number("max-buffered-bytes", 1, "a number of bytes"),
        idle_connections: idle(r),
    };
    let options = Options {
        settings,
        tls: serving_tls(r),
        allowed: allowed(r),
        metrics: metrics(r, &environment),
        tracing: r.switch("tracing"),
        bind: bind(r),
        print_addresses: r.switch("print-addresses"),
        threads: r.number("threads", 0, "a number of threads"),
    };
    if reader.problems.is_empty() { Ok(options) } else { Err(reader.problems) }
}

fn on_prefill_failure(r: &mut Reader<'_>) -> OnPrefillFailure {
    let text = r.values.one("on-prefill-failure");
    OnPrefillFailure::named(&text).unwrap_or_else(|| {
        r.wrong("on-prefill-failure", &text, "error, next or local");
        OnPrefillFailure::Error
    })
}

/// The reference takes an environment variable that is no boolean for `false`.
fn sampling(r: &mut Reader<'_>) -> bool {
    let text = r.values.one("enable-prefiller-sampling");
    if r.values.is_given("enable-prefiller-sampling") {
        return r.switch("enable-prefiller-sampling");
    }
    boolean(&text).unwrap_or(false)
}

fn idle(r: &mut Reader<'_>) -> usize {
    let idle: i64 = r.number("max-idle-conns-per-host", i64::MIN, "a number");
    usize::try_from(idle).ok().filter(|idle| *idle > 0).unwrap_or(1024)
}

fn limits(r: &mut Reader<'_>) -> Limits {
    let connect = r.duration("connect-timeout");
    if connect.is_zero() {
        r.wrong("connect-timeout", "0s", "more than 0");
    }
    Limits {
        connect,
        prefill: r.limit("prefill-timeout"),
        encode: r.limit("encode-timeout"),
        decode: r.limit("decode-first-byte-timeout"),
        idle: r.duration("pool-idle-timeout"),
        drain: r.duration("drain-timeout"),
    }
}

fn moriio(r: &mut Reader<'_>, connector: Connector) -> Moriio {
    let wait = r.duration("moriio-parallel-decode-wait-timeout");
    let moriio = Moriio {
        write_mode: r.switch("moriio-write-mode"),
        parallel: r.switch("moriio-parallel-dispatch"),
        wait: if wait.is_zero() { Duration::from_secs(30) } else { wait },
        local_ip: r.values.one("moriio-local-pod-ip"),
        decode_ports: (
            r.number("moriio-decode-handshake-port", 1, "a port"),
            r.number("moriio-decode-notify-port", 1, "a port"),
        ),
        prefill_ports: (
            r.number("moriio-prefill-handshake-port", 1, "a port"),
            r.number("moriio-prefill-notify-port", 1, "a port"),
        ),
        tp_size: r.number("moriio-tp-size", 1, "a number from 1 on"),
        dp_size: r.number("moriio-dp-size", 1, "a number from 1 on"),
        dp_size_local: r.number("moriio-dp-size-local", 0, "a number from 0 on"),
        remote_hosts: r.values.all("moriio-remote-hosts"),
        decode_hosts: r.values.all("moriio-decode-hosts"),
    };
    if moriio.write_mode && connector != Connector::NixlV2 {
        r.wrong("moriio-write-mode", "true", "false, or --kv-connector=nixlv2");
    }
    if moriio.write_mode && moriio.local_ip.is_empty() {
        r.wrong("moriio-local-pod-ip", "", "this pod's address: --moriio-write-mode needs it");
    }
    if moriio.parallel && !moriio.write_mode {
        r.wrong("moriio-parallel-dispatch", "true", "false, or --moriio-write-mode");
    }
    for (name, hosts) in
        [("moriio-remote-hosts", &moriio.remote_hosts), ("moriio-decode-hosts", &moriio.decode_hosts)]
    {
        let (all, local) = (moriio.dp_size, moriio.dp_size_local);
        let fits = local > 0 && all % local == 0 && (all / local) as usize == hosts.len();
        if hosts.len() > 1 && !fits {
            r.wrong(
                name,
                &hosts.join(","),
                "as many hosts as --moriio-dp-size is times --moriio-dp-size-local",
            );
        }
    }
    moriio
}

fn serving_tls(r: &mut Reader<'_>) -> ServingTls {
    let folder = r.values.one("cert-path");
    match (r.switch("secure-proxy"), folder.is_empty()) {
        (false, _) => ServingTls::Off,
        (true, true) => ServingTls::SelfSigned,
        (true, false) => ServingTls::Files(PathBuf::from(folder)),
    }
}

fn bind(r: &mut Reader<'_>) -> Option<IpAddr> {
    let text = r.values.one("bind-address");
    if text.is_empty() {
        return None;
    }
    let address = text.parse().ok();
    if address.is_none() {
        r.wrong("bind-address", &text, "an IP address");
    }
    address
}

/// The flag, or else the address in the environment.
fn metrics(
    r: &mut Reader<'_>,
    environment: &impl Fn(&str) -> Option<String>,
) -> Option<(Option<IpAddr>, u16)> {
    let printed = r.switch("print-addresses");
    if r.values.is_said("metrics-port") {
        let port: u16 = r.number("metrics-port", 0, "a port from 0 to 65535");
        return (port > 0 || printed && r.values.is_given("metrics-port")).then_some((None, port));
    }
    let text = environment("MORIIO_METRICS_ADDR").filter(|text| !text.trim().is_empty())?;
    let (host, port) = text.trim().rsplit_once(':')?;
    Some((host.trim_matches(['[', ']']).parse().ok(), port.parse().ok()?))
}

fn allowed(r: &mut Reader<'_>) -> AllowedBy {
    let file = r.values.one("allowed-endpoints-file");
    if !file.is_empty() {
        return AllowedBy::File(PathBuf::from(file));
    }
    if !r.switch("enable-ssrf-protection") {
        return AllowedBy::Nobody;
    }
    let group = r.values.one("pool-group");
    if !["inference.networking.k8s.io", "inference.networking.x-k8s.io"].contains(&group.as_str()) {
        r.wrong("pool-group", &group, "inference.networking.k8s.io or inference.networking.x-k8s.io");
    }
    let kubeconfig = r.values.one("kubeconfig");
    let pool = |namespace: Option<&str>, name: &str| AllowedBy::Pool {
        namespace: namespace.map(str::to_owned),
        name: name.to_owned(),
        group: group.clone(),
        kubeconfig: kubeconfig.clone(),
    };
    let text = r.values.one("inference-pool");
    if !text.is_empty() {
        let (namespace, name) =
            text.split_once('/').map_or((None, text.as_str()), |(space, name)| (Some(space), name));
        if name.is_empty() || name.contains('/') || namespace == Some("") {
            r.wrong("inference-pool", &text, "NAMESPACE/NAME or NAME");
        }
        return pool(namespace, name);
    }
    let (namespace, name) = (r.values.one("inference-pool-namespace"), r.values.one("inference-pool-name"));
    if !namespace.is_empty() && !name.is_empty() {
        return pool(Some(&namespace), &name);
    }
    r.wrong(
        "inference-pool",
        &text,
        "NAMESPACE/NAME: --enable-ssrf-protection needs it, or --allowed-endpoints-file",
    );
    AllowedBy::Nobody
}
