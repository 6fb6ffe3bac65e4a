//! The Kubernetes side, wired: discovery, the election of a leader, and who may read metrics.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio::net::UdpSocket;
use tokio_util::sync::CancellationToken;

use super::settings::Settings;
use crate::admin::Access;
use crate::discovery::{Discovery, KubernetesDiscovery, ObjectWatches, Scope};
use crate::kubernetes::{Connection, Election, ElectionSettings, LeaderLabel, Leadership, TokenReviews};
use crate::metrics::Metrics;
use crate::pool::Pool;

/// Longest wait for the addresses of the API server's name.
const LOOKUP: Duration = Duration::from_secs(2);

/// Pause before discovery begins again.
const BEGIN_AGAIN: Duration = Duration::from_secs(1);

/// Everything that needs the API server.
pub(super) struct Cluster {
    connection: Connection,
    scope: Scope,
    election: Option<Election>,
    label: Option<LeaderLabel>,
    leadership: Leadership,
    /// Replicas that do not lead know the pool as well.
    warm: bool,
    auth: bool,
    metrics: Arc<Metrics>,
}

impl Cluster {
    /// Finds the API server. Nothing is asked of it yet: it may be away while we start.
    pub(super) async fn connect(
        settings: &Settings,
        scope: Scope,
        warm: bool,
        metrics: &Arc<Metrics>,
    ) -> anyhow::Result<Self> {
        let label = settings.cluster.leader_label.clone().map_err(anyhow::Error::msg)?;
        let label = label.map(|label| LeaderLabel::new(label, metrics.kubernetes()));
        let connection = match &settings.cluster.kubeconfig {
            None => Connection::from_environment().await?,
            Some(path) => Connection::from_file(path).await?,
        };
        // That a client can be made of it is found out here, and not by a thread that has begun.
        connection.client()?;
        let election = settings.cluster.lease.map(|duration| {
            let settings = ElectionSettings {
                name: format!("epp-{}-{}.llm-d.ai", settings.pool_namespace, settings.pool_name),
                namespace: settings.pool_namespace.clone(),
                identity: format!("{}_{:016x}", settings.host(), fastrand::u64(..)),
                duration,
                health: None,
            };
            Election::new(settings, metrics.kubernetes())
        });
        let leadership = election.as_ref().map_or_else(
            || {
                metrics.kubernetes().set_leader(true);
                Leadership::everyone()
            },
            Election::leadership,
        );
        Ok(Self {
            connection,
            scope,
            election,
            label,
            leadership,
            warm,
            auth: settings.cluster.auth,
            metrics: Arc::clone(metrics),
        })
    }

    /// A handle that says whether this replica leads.
    pub(super) fn leadership(&self) -> Leadership {
        self.leadership.clone()
    }

    /// The way to the API server.
    pub(super) fn connection(&self) -> Connection {
        self.connection.clone()
    }

    /// Watches of objects for plugins.
    pub(super) fn watches(&self, namespace: &str) -> ObjectWatches {
        ObjectWatches {
            connection: self.connection.clone(),
            namespace: namespace.to_owned(),
            leadership: self.leadership.clone(),
            metrics: Arc::clone(&self.metrics),
        }
    }

    /// Makes the judge of the metrics port's callers; `None` if everyone may read it. Call it in the runtime of the
    /// metrics port.
    pub(super) fn access(&self) -> Option<impl FnOnce() -> anyhow::Result<Arc<dyn Access>> + Send + 'static> {
        let (connection, metrics) = (self.connection.clone(), self.metrics.kubernetes());
        self.auth.then_some(move || {
            let access: Arc<dyn Access> = Arc::new(TokenReviews::new(connection.client()?, metrics));
            Ok(access)
        })
    }

    /// This replica's name in the election; `None` without one.
    pub(super) fn identity(&self) -> Option<&str> {
        self.election.as_ref().map(Election::identity)
    }

    /// This replica's part in the election until `resign`, and the label of the leader's pod; `None` without an
    /// election. It wants a thread of its own: renewals may not wait until a page of pods is read. The health port
    /// listens at `health`.
    pub(super) fn electing(
        &mut self,
        health: SocketAddr,
        resign: CancellationToken,
    ) -> Option<impl Future<Output = ()> + Send + 'static> {
        let (mut election, label) = (self.election.take()?, self.label.take());
        let (connection, leadership) = (self.connection.clone(), self.leadership.clone());
        Some(async move {
            let client = match connection.client().context("election") {
                Ok(client) => client,
                Err(error) => {
                    return tracing::error!(error = format!("{error:#}"), "no part in the election");
                }
            };
            election.reached_at(reachable(&connection, health).await);
            let labelling = async {
                if let Some(label) = label {
                    label.run(client.clone(), leadership, resign.clone()).await;
                }
            };
            tokio::join!(election.run(client.clone(), resign.clone()), labelling);
        })
    }

    /// Fills the pool until `stop`. `resign` says that leadership is being given up.
    pub(super) async fn run(self, pool: Arc<Pool>, stop: CancellationToken, resign: CancellationToken) {
        let Self { connection, scope, leadership, warm, metrics, .. } = self;
        while !stop.is_cancelled() {
            if !warm {
                let mut leads = leadership.clone();
                tokio::select! {
                    () = leads.until(true) => {}
                    () = stop.cancelled() => return,
                }
            }
            let discovery = KubernetesDiscovery {
                connection: connection.clone(),
                scope: scope.clone(),
                leadership: leadership.clone(),
                metrics: Arc::clone(&metrics),
            };
            tokio::select! {
                ended = discovery.run(Arc::clone(&pool), stop.clone()) => {
                    if let Err(error) = ended {
                        tracing::error!(%error, "discovery ended; the last good state stays in force");
                    }
                }
                () = lost(&leadership, &resign), if !warm => pool.forget_endpoints(),
            }
            tokio::select! {
                () = tokio::time::sleep(BEGIN_AGAIN) => {}
                () = stop.cancelled() => {}
            }
        }
    }
}

/// Where other replicas reach a port that listens at `bound`: a port that listens everywhere has the address from which
/// this machine speaks to the API server. Nothing is sent. `None` if there is no such address.
async fn reachable(connection: &Connection, bound: SocketAddr) -> Option<SocketAddr> {
    if !bound.ip().is_unspecified() {
        return Some(bound);
    }
    let (host, port) = connection.host()?;
    let found = tokio::time::timeout(LOOKUP, tokio::net::lookup_host((host, port))).await.ok()?.ok()?;
    for server in found {
        let any: IpAddr =
            if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        if bound.is_ipv4() && server.is_ipv6() {
            continue;
        }
        let Ok(socket) = UdpSocket::bind((any, 0)).await else { continue };
        if socket.connect(server).await.is_ok()
            && let Ok(own) = socket.local_addr()
        {
            return Some(SocketAddr::new(own.ip(), bound.port()));
        }
    }
    None
}

/// Resolves when another may lead. Not when this replica gave the lease back itself: it ends, and serves until then.
async fn lost(leadership: &Leadership, resign: &CancellationToken) {
    leadership.clone().until(false).await;
    if resign.is_cancelled() {
        std::future::pending::<()>().await;
    }
}
