//! The program under test.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use tonic::transport::Channel;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use super::client::Client;
use super::process::Process;

/// The program's path: the one built with these tests, or the one that `POINTSMAN_BINARY` names. Running the tests of a
/// mend against an older build shows that they fail without it.
pub(crate) fn program() -> PathBuf {
    let other = std::env::var_os("POINTSMAN_BINARY").map(PathBuf::from);
    other.unwrap_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_pointsman")))
}

/// A running picker.
pub(crate) struct Pointsman {
    /// Its process.
    pub(crate) process: Process,
    /// Where it answers ext_proc.
    pub(crate) grpc: SocketAddr,
    /// Where it answers health checks.
    pub(crate) health: SocketAddr,
    /// Where it serves metrics.
    pub(crate) metrics: SocketAddr,
}

impl Pointsman {
    /// Starts the program with this configuration text and these further flags, and waits until it listens.
    pub(crate) async fn start(config: &str, flags: &[&str]) -> Self {
        let usual = ["--config-text", config, "--tracing=false", "--pool-name", "test-pool"];
        Self::start_in(&[], &[&usual, flags].concat()).await
    }

    /// Starts the program with these variables in its environment and these flags, behind those that keep it on ports
    /// of its own on this machine.
    pub(crate) async fn start_in(environment: &[(&str, &str)], flags: &[&str]) -> Self {
        Self::start_with(environment, flags, Stdio::piped()).await
    }

    /// The same with this standard error.
    pub(crate) async fn start_with(environment: &[(&str, &str)], flags: &[&str], stderr: Stdio) -> Self {
        Self::launch(&[], "127.0.0.1", environment, flags, stderr).await
    }

    /// Starts the program on ports of this address; its command stands behind the words of `prefix`.
    pub(crate) async fn start_at(prefix: &[&str], address: &str, flags: &[&str]) -> Self {
        Self::launch(prefix, address, &[], flags, Stdio::piped()).await
    }

    async fn launch(
        prefix: &[&str],
        on: &str,
        environment: &[(&str, &str)],
        flags: &[&str],
        stderr: Stdio,
    ) -> Self {
        let path = program();
        let mut command: Vec<&str> = prefix.to_vec();
        command.extend([path.to_str().unwrap(), "--bind-address", on, "--print-addresses"]);
        command.extend(["--grpc-port", "0", "--grpc-health-port", "0", "--metrics-port", "0"]);
        command.extend(["--refresh-prometheus-metrics-interval", "200ms"]);
        command.extend(flags);
        let mut process =
            Process::start_with(environment, "pointsman", Path::new(command[0]), &command[1..], stderr);
        let grpc = address(&mut process, "grpc").await;
        let health = address(&mut process, "health").await;
        let metrics = address(&mut process, "metrics").await;
        Self { process, grpc, health, metrics }
    }

    /// Where it answers KEDA; it must have been started with `--keda-scaler-port 0`.
    pub(crate) async fn keda(&mut self) -> SocketAddr {
        address(&mut self.process, "keda-scaler").await
    }

    /// The metrics page.
    pub(crate) async fn page(&self) -> String {
        let reply = Client::http1(self.metrics).get("/metrics").await;
        assert_eq!(reply.status, 200);
        reply.text().to_owned()
    }

    /// Sum of a metric's series that have all these labels; `None` if there is none.
    pub(crate) async fn metric(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        series_sum(&self.page().await, name, labels)
    }
}

/// What the health service behind this channel says of a service; `None` if it gives no answer.
pub(crate) async fn health(channel: &Channel, service: &str) -> Option<ServingStatus> {
    let request = HealthCheckRequest { service: service.to_owned() };
    let answer = HealthClient::new(channel.clone()).check(request).await.ok()?;
    Some(answer.into_inner().status())
}

async fn address(process: &mut Process, listener: &str) -> SocketAddr {
    let prefix = format!("{listener} ");
    process
        .line(&format!("address of {listener}"), |line| line.strip_prefix(&prefix)?.trim().parse().ok())
        .await
}

/// Sum of a page's series of this name that have all these labels; `None` if there is none.
pub(crate) fn series_sum(page: &str, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
    let mut total = None;
    for line in page.lines() {
        let Some(rest) = line.strip_prefix(name) else { continue };
        let (set, value) = match rest.strip_prefix('{') {
            Some(rest) => rest.rsplit_once('}').unwrap_or_default(),
            None if rest.starts_with(' ') => ("", rest),
            None => continue,
        };
        if labels.iter().all(|(key, value)| set.contains(&format!("{key}=\"{value}\""))) {
            *total.get_or_insert(0.0) += value.trim().parse::<f64>().unwrap();
        }
    }
    total
}
