//! How replicas reach each other: by streams between each two of them, or over a server.

use std::collections::{BTreeSet, HashMap};
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use super::link;
use super::service::Replicas;
use super::shared::Shared;
use crate::transport::{Http2Settings, Port, serve_grpc};

/// Addresses that are followed, at most.
const ADDRESSES: usize = 64;

/// Carries what replicas do from one to the other.
///
/// A transport tells the others whatever [`Shared::update`] gives, hands what it hears to [`Shared::take`], and says with
/// [`Shared::end`] that a peer is heard no more. It owes nobody anything: a peer that it does not reach costs freshness.
pub(super) trait Transport {
    /// Works until told to stop.
    fn carry(self, shared: Arc<Shared>, stop: CancellationToken) -> impl Future<Output = ()> + Send;
}

/// Streams between each two replicas.
pub(super) struct Streams {
    /// Where this replica is followed.
    pub(super) port: Port,
    /// Whom it follows; `None` while that is not known.
    pub(super) addresses: watch::Receiver<Option<BTreeSet<SocketAddr>>>,
}

impl Transport for Streams {
    async fn carry(self, shared: Arc<Shared>, stop: CancellationToken) {
        let replicas = Replicas::new(Arc::clone(&shared));
        let stopped = stop.clone().cancelled_owned();
        let serving = serve_grpc(self.port, Http2Settings::default(), replicas, stopped);
        let following = async {
            tokio::select! {
                () = stop.cancelled() => {}
                () = follow(shared, self.addresses) => {}
            }
        };
        tokio::join!(serving, following);
    }
}

/// Follows whoever is told of, and nobody else.
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
            shared.told(&told.iter().map(ToString::to_string).collect());
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
    // Nobody will tell of others any more; those that are known are followed on.
    while tasks.join_next().await.is_some() {}
}
