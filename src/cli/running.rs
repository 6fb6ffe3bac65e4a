//! The last stage of serving: the servers and threads that run, until a signal or a fault, and the order in which they
//! end.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use anyhow::bail;
use tokio_util::sync::CancellationToken;

use super::drain::Work;
use super::queueing::Queueing;
use super::stop::stop_signal;
use super::thread::Thread;
use crate::telemetry::Tracing;

/// A server that runs until its token is cancelled.
pub(super) type Server = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The tokens that end what runs, each on its own.
#[derive(Clone, Debug, Default)]
pub(super) struct Stops {
    /// A leader gives the lease back first of all, so that another replica takes over while this one still serves. The
    /// scaler ends at the same time.
    pub(super) resign: CancellationToken,
    /// ext_proc takes no more streams.
    pub(super) grpc: CancellationToken,
    /// Health goes on saying "not serving" until the last stream has ended.
    pub(super) health: CancellationToken,
    /// Discovery, scraping and the pool's figures.
    pub(super) background: CancellationToken,
    /// The metrics port.
    pub(super) admin: CancellationToken,
}

/// Longest time for each part of the end.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// New streams are still served.
    pub(super) drain: Duration,
    /// Open streams may end.
    pub(super) linger: Duration,
}

/// The servers and threads that run.
pub(super) struct Running {
    pub(super) grpc: Server,
    pub(super) health: Server,
    pub(super) scaler: Server,
    pub(super) background: Thread,
    pub(super) election: Option<Thread>,
    pub(super) peers: Option<Thread>,
    pub(super) admin: Thread,
    pub(super) stops: Stops,
    /// Health says "not serving" once this is true.
    pub(super) draining: Arc<AtomicBool>,
    pub(super) work: Work,
    pub(super) queueing: Arc<Queueing>,
    pub(super) patience: Patience,
    pub(super) tracing: Tracing,
}

impl Running {
    /// Runs until a signal, drains, and ends everything in order. A server or thread that ends by itself ends the rest
    /// without a drain.
    pub(super) async fn run(mut self) -> anyhow::Result<()> {
        let ended = self.until_told().await;
        self.stops.resign.cancel();
        self.draining.store(true, Relaxed);
        let outcome = match ended {
            Ok(()) => self.drain().await,
            Err(broken) => Err(broken),
        };
        self.stops.health.cancel();
        self.stops.background.cancel();
        self.background.join();
        for thread in [self.election, self.peers].into_iter().flatten() {
            thread.join();
        }
        self.stops.admin.cancel();
        self.admin.join();
        self.tracing.shutdown().await;
        tracing::info!("stopped");
        outcome
    }

    /// Resolves at the first signal, or with the name of what ended by itself.
    async fn until_told(&mut self) -> anyhow::Result<()> {
        tokio::select! {
            () = &mut self.grpc => bail!("the ext_proc server ended"),
            () = &mut self.health => bail!("the health server ended"),
            () = &mut self.scaler => bail!("the scaler server ended"),
            // Without it readings grow old, and nobody would notice.
            () = self.background.ended() => bail!("the background thread ended"),
            // Without it this replica never leads.
            () = ended(self.election.as_mut()) => bail!("the election thread ended"),
            // Without it peers count what this replica has under way for nothing.
            () = ended(self.peers.as_mut()) => bail!("the peers thread ended"),
            () = stop_signal() => Ok(()),
        }
    }

    /// New requests are still served for the drain time, because balancers take a while to notice; then open streams
    /// finish.
    async fn drain(&mut self) -> anyhow::Result<()> {
        let scaler = &mut self.scaler;
        // The autoscaler's streams end at once, and with them the server: that is no end of the drain.
        let scaler = async {
            scaler.await;
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = empty(&self.work, self.patience, &self.stops.grpc, &self.queueing) => Ok(()),
            // It ends by itself once it takes no more and the last connection is gone.
            () = &mut self.grpc => Ok(()),
            () = &mut self.health => bail!("the health server ended"),
            () = scaler => Ok(()),
            () = stop_signal() => bail!("a second signal ended the drain"),
        }
    }
}

/// Waits for open streams, in two steps: while new ones are still taken, and after that.
async fn empty(work: &Work, patience: Patience, grpc: &CancellationToken, queueing: &Queueing) {
    tracing::info!(timeout = ?patience.drain, streams = work.streams.load(Relaxed), "draining");
    work.until_gone(patience.drain).await;
    // What has waited until now is told that it waits in vain.
    if let Some(holding) = queueing.current() {
        holding.controller.close();
    }
    grpc.cancel();
    if !work.until_idle(patience.linger).await {
        let streams = work.streams.load(Relaxed);
        tracing::warn!(streams, timeout = ?patience.linger, "streams did not end in time and are cut off");
    }
}

/// Resolves when this thread's work has ended; never without a thread.
async fn ended(thread: Option<&mut Thread>) {
    match thread {
        Some(thread) => thread.ended().await,
        None => std::future::pending().await,
    }
}
