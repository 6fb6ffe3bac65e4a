//! Everything together: servers, picker, Envoy.

use std::path::Path;

use super::client::{Client, Reply};
use super::endpoints::EndpointsFile;
use super::envoy::{BodyMode, Envoy};
use super::fleet::Fleet;
use super::pointsman::Pointsman;
use super::poll::holds;

/// Plugins that spread by load alone.
pub(crate) const SCORERS: &[(&str, u32)] = &[("queue-scorer", 2), ("kv-cache-utilization-scorer", 2)];

/// Simulated servers behind the program behind Envoy.
pub(crate) struct Stack {
    /// In front.
    pub(crate) envoy: Envoy,
    /// Asked by it.
    pub(crate) pointsman: Pointsman,
    /// Where the requests go.
    pub(crate) fleet: Fleet,
    /// What the program reads its endpoints from.
    pub(crate) endpoints: EndpointsFile,
}

impl Stack {
    /// `count` servers that share a process, behind Envoy with the users' file.
    pub(crate) async fn start(count: usize) -> Self {
        Self::of(Fleet::start(count, &[]).await, BodyMode::FullDuplexStreamed, &[]).await
    }

    /// These servers behind the program with these flags behind Envoy in this mode.
    pub(crate) async fn of(fleet: Fleet, mode: BodyMode, flags: &[&str]) -> Self {
        Self::scoring(fleet, mode, SCORERS, flags).await
    }

    /// The same with one profile of these scorers.
    pub(crate) async fn scoring(
        fleet: Fleet,
        mode: BodyMode,
        scorers: &[(&str, u32)],
        flags: &[&str],
    ) -> Self {
        let endpoints = EndpointsFile::with(fleet.list());
        let pointsman = Pointsman::start(&config(&endpoints.path(), scorers), flags).await;
        let count = fleet.servers.len();
        holds("every server was scraped", async || {
            pointsman.metric("llm_d_epp_ready_endpoints", &[]).await == Some(count as f64)
        })
        .await;
        let tls = !flags.contains(&"--secure-serving=false");
        let envoy = Envoy::start(pointsman.grpc, tls, mode).await;
        Self { envoy, pointsman, fleet, endpoints }
    }

    /// A client of the pool that speaks HTTP/1.1.
    pub(crate) fn client(&self) -> Client {
        self.envoy.http1()
    }

    /// Fails unless the server that answered is the one that the picker named in the metadata.
    pub(crate) fn assert_picked(&self, reply: &Reply) {
        let server = reply.header("x-sim-server");
        assert_eq!(reply.header("x-picked"), self.fleet.named(server).addr.to_string(), "{reply:?}");
    }

    /// Waits until no exchange is left, at Envoy and at the picker, and nothing that belonged to one.
    pub(crate) async fn assert_idle(&self) {
        for gauge in [
            "llm_d_epp_request_running",
            "pointsman_streams",
            "pointsman_endpoint_in_flight_requests",
            "pointsman_endpoint_in_flight_tokens",
            "pointsman_buffered_body_bytes",
        ] {
            holds(&format!("{gauge} is back to zero"), async || {
                self.pointsman.metric(gauge, &[]).await.unwrap_or(0.0) == 0.0
            })
            .await;
        }
        holds("envoy has no stream to the picker", async || {
            self.envoy.stat("cluster.ext_proc.upstream_rq_active").await == 0
        })
        .await;
    }
}

/// A configuration with file discovery and one profile of these scorers and their weights.
pub(crate) fn config(endpoints: &Path, scorers: &[(&str, u32)]) -> String {
    let mut text = format!(
        "apiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerConfig\nplugins:\n- type: file-discovery\n  \
         parameters: {{path: {}, watchFile: true}}\n",
        endpoints.display()
    );
    for (scorer, _) in scorers {
        text += &format!("- type: {scorer}\n");
    }
    text += "- type: max-score-picker\n- type: single-profile-handler\nschedulingProfiles:\n- name: default\n  plugins:\n";
    for (scorer, weight) in scorers {
        text += &format!("  - pluginRef: {scorer}\n    weight: {weight}\n");
    }
    text += "  - pluginRef: max-score-picker\ndataLayer:\n  discovery:\n    pluginRef: file-discovery\n";
    text
}
