//! What runs beside serving: discovery, scraping, and the pool's own figures. It has a thread of its own, so that
//! reading pages never delays a request, nor a flood of requests the reading of pages.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::autoscaling::Demand;
use super::kubernetes::Cluster;
use super::queueing::Queueing;
use super::scraping::{Beside, fetch_pages, listen, scrape, watch_objects};
use super::settings::Settings;
use crate::discovery::{Discovery, FileDiscovery, ObjectWatches};
use crate::kubernetes::Connection;
use crate::metrics::{DataLayerMetrics, Metrics, PoolCollector};
use crate::plugins::producers::inflight_load;
use crate::pool::{Age, Pool};
use crate::sidecar::SidecarWatch;

/// Longest time after the start until the pool has figures.
const FIRST_REFRESH: Duration = Duration::from_millis(500);

/// The source that finds endpoints.
pub(super) enum Finder {
    /// A file, loaded once already.
    File(Box<FileDiscovery>),
    /// The Kubernetes API.
    Kubernetes(Box<Cluster>),
}

impl Finder {
    /// The way to the API server, if there is one.
    pub(super) fn connection(&self) -> Option<Connection> {
        match self {
            Self::File(_) => None,
            Self::Kubernetes(cluster) => Some(cluster.connection()),
        }
    }

    /// Watches of objects for plugins, where there is an API server.
    fn watches(&self, namespace: &str) -> Option<ObjectWatches> {
        match self {
            Self::File(_) => None,
            Self::Kubernetes(cluster) => Some(cluster.watches(namespace)),
        }
    }
}

/// The tasks beside serving.
pub(super) struct Background {
    pool: Arc<Pool>,
    metrics: Arc<Metrics>,
    finder: Finder,
    beside: watch::Receiver<Beside>,
    collector: PoolCollector,
    queueing: Arc<Queueing>,
    demand: Arc<Demand>,
    refresh: Duration,
    staleness: Duration,
}

impl Background {
    /// Sets the tasks up. `beside` says what the running configuration has beside serving.
    pub(super) fn new(
        settings: &Settings,
        metrics: &Arc<Metrics>,
        pool: &Arc<Pool>,
        finder: Finder,
        queueing: &Arc<Queueing>,
        demand: &Arc<Demand>,
        beside: watch::Receiver<Beside>,
    ) -> Self {
        Self {
            collector: metrics.pool_collector(pool),
            pool: Arc::clone(pool),
            metrics: Arc::clone(metrics),
            finder,
            queueing: Arc::clone(queueing),
            demand: Arc::clone(demand),
            beside,
            refresh: settings.scraping.pool_figures,
            staleness: settings.scraping.staleness,
        }
    }

    /// Runs all of it until told to stop. `resign` says that leadership is being given up: the pool stays known until
    /// then.
    pub(super) async fn run(self, stop: CancellationToken, resign: CancellationToken) {
        let pool = Arc::clone(&self.pool);
        let watches = self.finder.watches(pool.namespace());
        let discovery = async {
            match self.finder {
                Finder::File(file) => {
                    if let Err(error) = file.run(pool, stop.clone()).await {
                        tracing::error!(%error, "discovery ended; the last good state stays in force");
                    }
                }
                Finder::Kubernetes(cluster) => Box::pin(cluster.run(pool, stop.clone(), resign)).await,
            }
        };
        let scraping = scrape(self.beside.clone(), stop.clone());
        let figures = async {
            // The first figures come soon: a pool that looks empty for seconds after each start alarms people.
            let first = tokio::time::Instant::now() + self.refresh.min(FIRST_REFRESH);
            let mut tick = tokio::time::interval_at(first, self.refresh);
            let mut sidecars = SidecarWatch::new(self.metrics.split());
            loop {
                tokio::select! {
                    () = stop.cancelled() => return,
                    _ = tick.tick() => {}
                }
                let now = Instant::now();
                self.collector.refresh(now, self.staleness);
                self.metrics.elect(&self.pool.objectives().levels());
                let snapshot = self.pool.snapshot();
                self.metrics.scheduler().prune_endpoints(&snapshot);
                self.metrics.inflight(inflight_load::TYPE.name).prune_endpoints(&snapshot);
                self.metrics.prune_encoder_caches(&snapshot);
                sidecars.look(&snapshot, now);
                let layer = self.beside.borrow().layer.clone();
                if let Some(layer) = layer {
                    let datalayer = self.metrics.datalayer();
                    count_states(&self.pool, &datalayer, now, self.staleness);
                    datalayer.set_filtered_endpoints(layer.filtered_endpoints() as u64);
                }
            }
        };
        let waits = Arc::clone(&self.queueing).run(stop.clone());
        let demand = Arc::clone(&self.demand).run(stop.clone());
        let events = listen(self.beside.clone(), Arc::clone(&self.pool), stop.clone());
        let pages = fetch_pages(self.beside.clone(), stop.clone());
        let objects = watch_objects(self.beside.clone(), watches, stop.clone());
        tokio::join!(discovery, scraping, figures, waits, demand, events, pages, objects);
    }
}

fn count_states(pool: &Pool, metrics: &DataLayerMetrics, now: Instant, staleness: Duration) {
    let (mut fresh, mut stale, mut never, mut unreachable) = (0, 0, 0, 0);
    for endpoint in pool.snapshot().endpoints() {
        match endpoint.load().age(now) {
            _ if !endpoint.load().is_reachable() => unreachable += 1,
            Age::Never => never += 1,
            age if age.is_fresh(staleness) => fresh += 1,
            Age::Since(_) => stale += 1,
        }
    }
    metrics.set_state("fresh", fresh);
    metrics.set_state("stale", stale);
    metrics.set_state("never", never);
    metrics.set_state("unreachable", unreachable);
}
