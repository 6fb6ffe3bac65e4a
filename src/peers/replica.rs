//! This replica among its peers, as the other modules use it.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use serde_json::Value;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::page;
use super::redis::{RedisSettings, Server};
use super::settings::PeersSettings;
use super::shared::Shared;
use super::status::Standing;
use super::transport::{Streams, Transport};
use crate::flow::Controller;
use crate::metrics::PeerMetrics;
use crate::pool::Pool;
use crate::prefix::SharedIndex;
use crate::transport::Port;

/// How replicas reach each other.
pub enum Way {
    /// By streams: where this replica is followed, and whom it follows (`None` while that is not known).
    Streams(Port, watch::Receiver<Option<BTreeSet<SocketAddr>>>),
    /// Over a server.
    Server(RedisSettings),
}

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

    /// Tells the others what this replica does, and hears what they do, in this way until told to stop.
    pub async fn run(self, way: Way, stop: CancellationToken) {
        let shared = self.0;
        let carrying = async {
            match way {
                Way::Streams(port, addresses) => {
                    Streams { port, addresses }.carry(Arc::clone(&shared), stop.clone()).await;
                }
                Way::Server(settings) => {
                    Server::new(settings).carry(Arc::clone(&shared), stop.clone()).await;
                }
            }
        };
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
            }
        };
        tokio::join!(carrying, ending, others);
    }

    /// True once each peer that this replica is told of has reported everything that it knew, or cannot be reached.
    pub fn is_caught_up(&self) -> bool {
        let statuses = self.0.statuses.lock();
        let merged = self.0.merged.lock();
        statuses.told
            && statuses.by_peer.values().all(|status| match status.standing {
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
            self.0.server.lock().as_ref(),
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
