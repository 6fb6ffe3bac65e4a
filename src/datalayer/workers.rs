//! The workers of a data layer: as many tasks as the settings say, begun again when one fails.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::DataLayer;
use super::worker::{self, Share};

impl DataLayer {
    /// Scrapes until `shutdown`. Reading pages takes up to some tens of microseconds at a time; on a busy server run it
    /// on a runtime of its own (one thread is enough), away from the threads that serve requests.
    pub async fn run(self: Arc<Self>, shutdown: CancellationToken) {
        let of = self.settings.workers.max(1) as u64;
        let mut workers = JoinSet::new();
        let mut shares: HashMap<_, _> = (0..of)
            .map(|index| {
                let share = Share { index, of };
                (workers.spawn(worker::run(Arc::clone(&self), share, shutdown.clone())).id(), share)
            })
            .collect();
        while let Some(ended) = workers.join_next_with_id().await {
            let Err(error) = ended else { continue };
            let Some(share) = shares.remove(&error.id()).filter(|_| error.is_panic()) else { continue };
            // A fault of ours must not leave endpoints unread; it must not become a busy loop either.
            tracing::error!(worker = share.index, %error, "metrics worker failed and is started again");
            let (layer, shutdown) = (Arc::clone(&self), shutdown.clone());
            let again = workers.spawn(async move {
                tokio::time::sleep(Duration::from_secs(1)).await;
                worker::run(layer, share, shutdown).await;
            });
            shares.insert(again.id(), share);
        }
    }
}
