//! Flow control that a configuration may ask for at any time.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::holding::Holding;
use crate::admin::Queues;
use crate::flow::FlowSettings;
use crate::metrics::Metrics;
use crate::pool::Pool;

/// Flow control of a pool: none, until a configuration asks for it. Then it stays, because what waits is let go even if
/// a later configuration does without.
pub(super) struct Queueing {
    pool: Arc<Pool>,
    metrics: Arc<Metrics>,
    holding: ArcSwapOption<Holding>,
    /// True once there is some.
    begun: watch::Sender<bool>,
}

impl Queueing {
    /// By these settings; none without settings.
    pub(super) fn new(settings: Option<FlowSettings>, pool: &Arc<Pool>, metrics: &Arc<Metrics>) -> Arc<Self> {
        let queueing = Self {
            pool: Arc::clone(pool),
            metrics: Arc::clone(metrics),
            holding: ArcSwapOption::empty(),
            begun: watch::Sender::new(false),
        };
        queueing.follow(settings);
        Arc::new(queueing)
    }

    /// These settings are in force from now on. What waits goes on waiting.
    pub(super) fn follow(&self, settings: Option<FlowSettings>) {
        let Some(settings) = settings else { return };
        if let Some(holding) = self.current() {
            holding.reconfigure(settings);
            return;
        }
        let holding = Holding::new(settings, &self.pool, &self.metrics);
        holding.provision();
        self.holding.store(Some(Arc::new(holding)));
        self.begun.send_replace(true);
    }

    /// Flow control, once a configuration has asked for it.
    pub(super) fn current(&self) -> Option<Arc<Holding>> {
        self.holding.load_full()
    }

    /// The load of the pool, or its endpoints, changed.
    pub(super) fn notify_load(&self) {
        if let Some(holding) = &*self.holding.load() {
            holding.controller.notify_load();
        }
    }

    /// What the page for people shows of what waits; `None` without flow control.
    pub(super) fn shown(self: &Arc<Self>) -> Arc<dyn Fn() -> Option<Queues> + Send + Sync> {
        let queueing = Arc::clone(self);
        Arc::new(move || queueing.current().map(|holding| holding.shown()))
    }

    /// Resolves with flow control, once there is some.
    pub(super) async fn begun(&self) -> Arc<Holding> {
        let mut begun = self.begun.subscribe();
        loop {
            if let Some(holding) = self.current() {
                return holding;
            }
            // The sender lives as long as `self`.
            _ = begun.changed().await;
        }
    }

    /// Runs it, until told to stop.
    pub(super) async fn run(self: Arc<Self>, stop: CancellationToken) {
        tokio::select! {
            () = stop.cancelled() => {}
            holding = self.begun() => Holding::clone(&holding).run(stop.clone()).await,
        }
    }
}
