//! The running sidecar.

use std::net::SocketAddr;
use std::path::Path;

use crate::support::process::Process;
use crate::support::{Client, holds, program, series_sum};

use super::stub::Stub;

/// A path on which nothing listens.
pub(super) const NOBODY: &str = "127.0.0.1:1";

/// The process.
pub(super) struct Sidecar {
    /// Itself.
    pub(super) process: Process,
    /// Where clients call it.
    pub(super) addr: SocketAddr,
    /// Where its page is.
    pub(super) metrics: SocketAddr,
}

impl Sidecar {
    /// A sidecar without TLS in front of `engine`, with these further flags.
    pub(super) async fn start(engine: &Stub, flags: &[&str]) -> Self {
        Self::start_in(&[], &engine.port(), flags).await
    }

    /// The same in front of this port, with these further variables in its environment.
    pub(super) async fn start_in(environment: &[(&str, &str)], engine: &str, flags: &[&str]) -> Self {
        let engine = format!("--model-server-port={engine}");
        let usual = ["--port=0", "--secure-proxy=false", &engine];
        Self::launch(environment, &program(), &[&["sidecar"], &usual[..], flags].concat()).await
    }

    /// A sidecar by this path and with these words; its addresses are printed.
    pub(super) async fn launch(environment: &[(&str, &str)], path: &Path, words: &[&str]) -> Self {
        let printing = ["--bind-address=127.0.0.1", "--print-addresses", "--metrics-port=0"];
        let words = [words, &printing].concat();
        let mut process = Process::start_in(environment, "sidecar", path, &words);
        let addr = address(&mut process, "proxy").await;
        let metrics = address(&mut process, "metrics").await;
        Self { process, addr, metrics }
    }

    /// A client that speaks HTTP/1.1.
    pub(super) fn client(&self) -> Client {
        Client::http1(self.addr)
    }

    /// The metrics page.
    pub(super) async fn page(&self) -> String {
        Client::http1(self.metrics).get("/metrics").await.text().to_owned()
    }

    /// Sum of a metric's series that have these labels.
    pub(super) async fn metric(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        series_sum(&self.page().await, name, labels).unwrap_or(0.0)
    }

    /// Requests with this outcome and reason.
    pub(super) async fn outcomes(&self, outcome: &str, reason: &str) -> f64 {
        self.metric("pointsman_sidecar_outcomes_total", &[("outcome", outcome), ("reason", reason)]).await
    }

    /// Waits until so many requests had this outcome.
    pub(super) async fn counted(&self, outcome: &str, reason: &str, count: usize) {
        let what = format!("{count} requests are counted as {outcome}, {reason}");
        holds(&what, async || self.outcomes(outcome, reason).await == count as f64).await;
    }

    /// Waits until no request is under way and nothing of one is held.
    pub(super) async fn is_idle(&self) {
        for gauge in ["pointsman_sidecar_in_flight_requests", "pointsman_sidecar_buffered_bytes"] {
            holds(&format!("{gauge} is zero"), async || self.metric(gauge, &[]).await == 0.0).await;
        }
    }
}

async fn address(process: &mut Process, listener: &str) -> SocketAddr {
    let prefix = format!("{listener} ");
    process.line(listener, |line| line.strip_prefix(&prefix)?.trim().parse().ok()).await
}
