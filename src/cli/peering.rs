//! Peers, wired: who they are, where this replica is followed, and what peers' load wakes.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use anyhow::Context;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::holding::Holding;
use super::settings::Settings;
use super::thread::Thread;
use crate::config::Plan;
use crate::discovery::ServiceSlices;
use crate::kubernetes::Connection;
use crate::metrics::Metrics;
use crate::peers::{PeerName, Peers, PeersSettings, resolve};
use crate::pool::Pool;
use crate::transport::Port;

/// Longest time for which a replica that starts waits for what its peers know.
const CATCH_UP: Duration = Duration::from_secs(3);
/// Time between two looks at whether it has all of it.
const LOOK: Duration = Duration::from_millis(10);
/// Name of the peers' port in the headless Service.
const PORT_NAME: &str = "peers";

/// Where peers are found.
enum Found {
    Names(Vec<PeerName>),
    Service(ServiceSlices, Box<Connection>),
}

/// This replica among its peers, before it runs.
pub(super) struct Peering {
    peers: Peers,
    port: Port,
    found: Found,
    metrics: Arc<Metrics>,
}

impl Peering {
    /// Sets it up; `None` without a port for peers. `connection` leads to the API server, if there is one.
    pub(super) fn new(
        settings: &Settings,
        (port, connection): (Option<Port>, Option<Connection>),
        (pool, plan): (&Arc<Pool>, &Plan),
        holding: Option<&Holding>,
        metrics: &Arc<Metrics>,
    ) -> anyhow::Result<Option<Self>> {
        let (Some(port), Some(others)) = (port, &settings.peers) else { return Ok(None) };
        let found = if others.names.is_empty() {
            let connection =
                connection.context("--peer-service needs Kubernetes; --peers names replicas without it")?;
            let slices = ServiceSlices {
                namespace: settings.pool_namespace.clone(),
                service: others.service.clone(),
                port: PORT_NAME,
                without: "this replica does not find its peers",
            };
            Found::Service(slices, Box::new(connection))
        } else {
            Found::Names(others.names.clone())
        };
        let controller = holding.map(|holding| Arc::clone(&holding.controller));
        let wake = move || {
            if let Some(controller) = &controller {
                controller.notify_load();
            }
        };
        let who = PeersSettings {
            pool: format!("{}/{}", settings.pool_namespace, settings.pool_name),
            name: settings.host(),
            tls: others.tls()?,
        };
        let peers = Peers::new(who, pool, &plan.shared_indexes, metrics.peers(), wake);
        Ok(Some(Self { peers, port, found, metrics: Arc::clone(metrics) }))
    }

    /// The replica among its peers.
    pub(super) fn peers(&self) -> Peers {
        self.peers.clone()
    }

    /// Runs it on a thread of its own until told to stop. `ready` becomes true once it knows what its peers know, or
    /// has waited for that long enough.
    pub(super) fn start(self, ready: Arc<AtomicBool>, stop: CancellationToken) -> anyhow::Result<Thread> {
        Thread::start("peers", async move {
            let (to, addresses) = watch::channel(None);
            let catching_up = catch_up(self.peers.clone(), ready);
            let running = self.peers.run(self.port, addresses, stop.clone());
            tokio::join!(find(self.found, &self.metrics, to, stop), running, catching_up);
        })
    }
}

async fn find(
    found: Found,
    metrics: &Metrics,
    to: watch::Sender<Option<BTreeSet<SocketAddr>>>,
    stop: CancellationToken,
) {
    match found {
        Found::Names(names) => resolve(names, to, stop).await,
        Found::Service(slices, connection) => slices.run(*connection, metrics.kubernetes(), to, stop).await,
    }
}

async fn catch_up(peers: Peers, ready: Arc<AtomicBool>) {
    let waiting = async {
        while !peers.is_caught_up() {
            tokio::time::sleep(LOOK).await;
        }
    };
    if tokio::time::timeout(CATCH_UP, waiting).await.is_err() {
        tracing::info!(waited = ?CATCH_UP, "ready without all that the peers know");
    }
    ready.store(true, Relaxed);
}
