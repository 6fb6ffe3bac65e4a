//! Peers, wired: who they are, where this replica is followed, and what peers' load wakes.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use anyhow::Context;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::holding::Holding;
use super::peer_flags::PeerSettings;
use super::settings::Settings;
use super::state_dir;
use super::thread::Thread;
use crate::config::{Plan, RedisServer};
use crate::discovery::ServiceSlices;
use crate::kubernetes::Connection;
use crate::metrics::Metrics;
use crate::peers::{PeerName, Peers, PeersSettings, RedisSettings, Way, resolve};
use crate::pool::Pool;
use crate::transport::{ClientFiles, Port};

/// Longest time for which a replica that starts waits for what its peers know.
const CATCH_UP: Duration = Duration::from_secs(3);
/// Longest time for which a state file waits for the pool that it tells of.
const POOL_KNOWN: Duration = Duration::from_secs(30);
/// Time between two looks at whether it has all of it.
const LOOK: Duration = Duration::from_millis(10);
/// Name of the peers' port in the headless Service.
const PORT_NAME: &str = "peers";

/// Where peers are found.
enum Found {
    Names(Vec<PeerName>),
    Service(ServiceSlices, Box<Connection>),
}

/// How they are reached.
enum Among {
    /// By streams: where this replica is followed, and whom it follows.
    Streams(Port, Found),
    /// Over a server.
    Server(RedisSettings),
}

/// This replica among its peers, before it runs.
pub(super) struct Peering {
    peers: Peers,
    pool: Arc<Pool>,
    /// How it reaches its peers; `None` if it only keeps what it knows.
    among: Option<Among>,
    state_dir: Option<PathBuf>,
    metrics: Arc<Metrics>,
}

impl Peering {
    /// Sets it up; `None` without a port for peers and without a folder to keep what it knows. `connection` leads to the
    /// API server, if there is one.
    pub(super) fn new(
        settings: &Settings,
        (port, connection): (Option<Port>, Option<Connection>),
        (pool, plan): (&Arc<Pool>, &Plan),
        holding: Option<&Holding>,
        metrics: &Arc<Metrics>,
    ) -> anyhow::Result<Option<Self>> {
        if port.is_none() && settings.state_dir.is_none() && plan.redis.is_none() {
            return Ok(None);
        }
        let others = settings.peers.as_ref();
        let among = match (port.zip(others), &plan.redis) {
            (Some(_), Some(_)) => anyhow::bail!(
                "dataLayer.crossReplica.redis and --peers or --peer-service exclude each other: replicas are reached over \
                 a server or by streams"
            ),
            (Some((port, others)), None) => {
                Some(Among::Streams(port, found(others, &settings.pool_namespace, connection)?))
            }
            (None, Some(server)) => Some(Among::Server(over(server))),
            (None, None) => None,
        };
        let queues = holding.map(|holding| Arc::clone(&holding.controller));
        let who = PeersSettings {
            pool: format!("{}/{}", settings.pool_namespace, settings.pool_name),
            name: settings.host(),
            tls: others.map(PeerSettings::tls).transpose()?.flatten(),
        };
        let peers = Peers::new(who, pool, &plan.shared_indexes, metrics.peers(), queues);
        let pool = Arc::clone(pool);
        let state_dir = settings.state_dir.clone();
        Ok(Some(Self { peers, pool, among, state_dir, metrics: Arc::clone(metrics) }))
    }

    /// The replica among its peers.
    pub(super) fn peers(&self) -> Peers {
        self.peers.clone()
    }

    /// Runs it on a thread of its own until told to stop. `ready` becomes true once it knows what its peers know, or
    /// has waited for that long enough.
    pub(super) fn start(self, ready: Arc<AtomicBool>, stop: CancellationToken) -> anyhow::Result<Thread> {
        Thread::start("peers", async move {
            let Self { peers, pool, among, state_dir, metrics } = self;
            let listed = among.is_some();
            let begin = async {
                if let Some(folder) = &state_dir {
                    synced(&pool).await;
                    state_dir::restore(folder, &peers);
                }
                if listed {
                    catch_up(&peers).await;
                }
                ready.store(true, Relaxed);
            };
            let running = async {
                match among {
                    None => {
                        tokio::select! {
                            () = peers.follow_pool() => {}
                            () = stop.cancelled() => {}
                        }
                    }
                    Some(Among::Streams(port, found)) => {
                        let (to, addresses) = watch::channel(None);
                        let running = peers.clone().run(Way::Streams(port, addresses), stop.clone());
                        tokio::join!(find(found, &metrics, to, stop.clone()), running);
                    }
                    Some(Among::Server(server)) => {
                        peers.clone().run(Way::Server(server), stop.clone()).await;
                    }
                }
            };
            let begin = async {
                tokio::select! {
                    () = begin => {}
                    () = stop.cancelled() => {}
                }
            };
            tokio::join!(begin, running);
            if let Some(folder) = &state_dir {
                state_dir::save(folder, &peers);
            }
        })
    }
}

/// Where the flags say that peers are.
fn found(others: &PeerSettings, namespace: &str, connection: Option<Connection>) -> anyhow::Result<Found> {
    if !others.names.is_empty() {
        return Ok(Found::Names(others.names.clone()));
    }
    let connection =
        connection.context("--peer-service needs Kubernetes; --peers names replicas without it")?;
    let slices = ServiceSlices {
        namespace: namespace.to_owned(),
        service: others.service.clone(),
        port: PORT_NAME,
        without: "this replica does not find its peers",
    };
    Ok(Found::Service(slices, Box::new(connection)))
}

/// The server that the configuration names.
fn over(server: &RedisServer) -> RedisSettings {
    let RedisServer { url, password_file, key_prefix, ca_file, identity } = server.clone();
    RedisSettings {
        host: url.host,
        port: url.port,
        tls: url.tls.then_some(ClientFiles { authorities: ca_file, identity }),
        user: url.user,
        password_file,
        database: url.database.into(),
        key_prefix,
    }
}

/// Waits until the pool is known: what a file says is of its endpoints.
async fn synced(pool: &Pool) {
    let waiting = async {
        while !pool.is_synced() {
            tokio::time::sleep(LOOK).await;
        }
    };
    if tokio::time::timeout(POOL_KNOWN, waiting).await.is_err() {
        tracing::info!(waited = ?POOL_KNOWN, "the pool is not known; the state file is of little use");
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

async fn catch_up(peers: &Peers) {
    let waiting = async {
        while !peers.is_caught_up() {
            tokio::time::sleep(LOOK).await;
        }
    };
    if tokio::time::timeout(CATCH_UP, waiting).await.is_err() {
        tracing::info!(waited = ?CATCH_UP, "ready without all that the peers know");
    }
}
