//! This replica among its peers, as the other modules use it.

use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use serde_json::Value;
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use super::link;
use super::page;
use super::service::Replicas;
use super::settings::PeersSettings;
use super::shared::Shared;
use super::status::Standing;
use crate::flow::Controller;
use crate::metrics::PeerMetrics;
use crate::pool::Pool;
use crate::prefix::SharedIndex;
use crate::transport::{Http2Settings, Port, serve_grpc};

/// The most addresses that are followed.
const ADDRESSES: usize = 64;

/// This replica and its peers. Clones share all state.
#[derive(Clone)]
pub struct Peers(Arc<Shared>);

impl Peers {
    /// Makes a replica of `pool` without followers. `queues` hold the requests that wait at this replica.
    pub fn new(
        settings: PeersSettings,
        pool: &Arc<Pool>,
        indexes: &[Arc<dyn SharedIndex>],
        metrics: PeerMetrics,
        queues: Option<Arc<Controller>>,
    ) -> Self {
        Self(Arc::new(Shared::new(settings, pool, indexes, metrics, queues)))
    }

    /// Serves followers on `port` and follows the peers at `addresses`, until it is told to stop. `addresses` is `None`
    /// while the peers are not known.
    pub async fn run(
        self,
        port: Port,
        addresses: watch::Receiver<Option<BTreeSet<SocketAddr>>>,
        stop: CancellationToken,
    ) {
        let shared = self.0;
        let serving = serve_grpc(
            port,
            Http2Settings::default(),
            Replicas::new(Arc::clone(&shared)),
            stop.clone().cancelled_owned(),
        );
        let ending = async {
            stop.cancelled().await;
            shared.closing.cancel();
        };
        let others = async {
            tokio::select! {
                () = stop.cancelled() => {}
                () = shared.look() => {}
                () = shared.refresh() => {}
                () = shared.follow_pool() => {}
                () = follow(Arc::clone(&shared), addresses) => {}
            }
        };
        tokio::join!(serving, ending, others);
    }

    /// True once each peer that this replica is told of has reported everything that it knew, or cannot be reached.
    pub fn is_caught_up(&self) -> bool {
        let statuses = self.0.statuses.lock();
        let merged = self.0.merged.lock();
        statuses.told
            && statuses.by_address.values().all(|status| match status.standing {
                Standing::Begins => false,
                Standing::Following(link) => {
                    merged.fleet.links().get(&link).is_some_and(|peer| peer.complete)
                }
                Standing::Missing(_) | Standing::Alias(_) => true,
            })
    }

    /// Returns the knowledge of this replica as the content of a file.
    pub fn save(&self) -> Vec<u8> {
        self.0.save()
    }

    /// Takes over the knowledge that [`Peers::save`] returned in another process. Returns the number of requests in it.
    ///
    /// # Errors
    ///
    /// Returns the reason why the bytes cannot be used.
    pub fn restore(&self, bytes: &[u8]) -> Result<u64, String> {
        self.0.restore(bytes)
    }

    /// Writes the totals into endpoints that are added, even for a replica without peers.
    pub async fn follow_pool(&self) {
        self.0.follow_pool().await;
    }

    /// The content of the page `/debug/peers`.
    pub fn page(&self) -> Value {
        let statuses = self.0.statuses.lock();
        let merged = self.0.merged.lock();
        let own = self.0.own.lock();
        page::page(
            &self.0.settings,
            &own,
            self.0.followers.load(Relaxed),
            &statuses,
            &merged.fleet,
            Instant::now(),
        )
    }
}

impl std::fmt::Debug for Peers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Peers").field("settings", &self.0.settings).finish_non_exhaustive()
    }
}

/// Follows exactly the peers at the present addresses.
async fn follow(shared: Arc<Shared>, mut addresses: watch::Receiver<Option<BTreeSet<SocketAddr>>>) {
    let mut tasks: JoinSet<()> = JoinSet::new();
    let mut followed = HashMap::new();
    loop {
        let told = addresses.borrow_and_update().clone();
        if let Some(told) = told {
            if told.len() > ADDRESSES {
                tracing::warn!(
                    addresses = told.len(),
                    most = ADDRESSES,
                    "too many peers; only the first are followed"
                );
            }
            let told: BTreeSet<SocketAddr> = told.into_iter().take(ADDRESSES).collect();
            followed.retain(|address, task: &mut AbortHandle| {
                let stays = told.contains(address);
                if !stays {
                    task.abort();
                }
                stays
            });
            shared.told(&told);
            for address in told {
                followed
                    .entry(address)
                    .or_insert_with(|| tasks.spawn(link::keep(Arc::clone(&shared), address)));
            }
        }
        tokio::select! {
            changed = addresses.changed() => if changed.is_err() { break },
            Some(_) = tasks.join_next(), if !tasks.is_empty() => {}
        }
    }
    // The list of addresses will not change any more, so the known peers are followed to the end.
    while tasks.join_next().await.is_some() {}
}
