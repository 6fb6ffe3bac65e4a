//! Flow control, wired: the pool's load for the gate, what happens for the metrics, and the tasks around both.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tokio_util::sync::CancellationToken;

use crate::admin::{BandRow, FlowRow, Queues};
use crate::flow::detector::Detector;
use crate::flow::usage_limit::Ceilings;
use crate::flow::{
    BandUsage, Controller, Fill, FlowSettings, FlowWait, Load, Observer, Unplaced, saturation,
};
use crate::metrics::{FlowMetrics, Metrics};
use crate::pool::Pool;

/// Time between two updates of the gauges of saturation and capacity.
const REFRESH: Duration = Duration::from_secs(1);
/// A flow in which nothing has waited for this long has no series any more.
const FLOW_IDLE: Duration = Duration::from_mins(5);
/// Flows that the page for people shows.
const FLOWS_SHOWN: usize = 20;

/// Flow control of one pool.
#[derive(Clone)]
pub(super) struct Holding {
    pub(super) controller: Arc<Controller>,
    pub(super) metrics: FlowMetrics,
    gauges: Arc<Gauges>,
}

struct Gauges {
    pool: Arc<Pool>,
    rules: ArcSwap<Rules>,
}

/// What the settings say of how full the pool and the queues are.
struct Rules {
    detector: Detector,
    max_requests: Option<u64>,
    max_bytes: Option<u64>,
    cap: f64,
}

impl Rules {
    fn of(settings: &FlowSettings) -> Self {
        Self {
            detector: settings.detector.clone(),
            max_requests: settings.max_requests,
            max_bytes: settings.max_bytes,
            cap: Ceilings::new(settings.usage_limit.clone()).score_cap(),
        }
    }
}

impl Holding {
    /// Queues for `pool`.
    pub(super) fn new(settings: FlowSettings, pool: &Arc<Pool>, metrics: &Metrics) -> Self {
        let bands: Vec<i32> = settings.bands.keys().copied().chain([0]).collect();
        let metrics = metrics.flow(pool.name(), bands);
        let rules = ArcSwap::from_pointee(Rules::of(&settings));
        let gauges = Arc::new(Gauges { pool: Arc::clone(pool), rules });
        let load = PoolLoad { gauges: Arc::clone(&gauges) };
        let controller = Controller::new(settings, load, FlowSeries { metrics: metrics.clone() });
        Self { controller, metrics, gauges }
    }

    /// These settings are in force from now on. What waits goes on waiting.
    pub(super) fn reconfigure(&self, settings: FlowSettings) {
        for priority in settings.bands.keys() {
            self.metrics.add_band(*priority);
        }
        self.gauges.rules.store(Arc::new(Rules::of(&settings)));
        self.controller.reconfigure(settings);
        self.provision();
    }

    /// Gives every priority that an objective states a band.
    pub(super) fn provision(&self) {
        let levels = self.gauges.pool.objectives().levels();
        for priority in &levels {
            self.metrics.add_band(*priority);
        }
        self.controller.provision(&levels);
    }

    /// What the page for people shows of what waits.
    pub(super) fn shown(&self) -> Queues {
        let band = |band: BandUsage| BandRow {
            priority: band.priority,
            requests: band.queued.requests,
            bytes: band.queued.bytes,
            max_requests: band.max_requests,
            max_bytes: band.max_bytes,
        };
        let flow = |flow: FlowWait| FlowRow { priority: flow.priority, id: flow.id, oldest: flow.oldest };
        Queues {
            bands: self.controller.bands().into_iter().map(band).collect(),
            flows: self.controller.longest_waits(FLOWS_SHOWN).into_iter().map(flow).collect(),
        }
    }

    /// Runs the timer, wakes the queues when the pool changes, and keeps gauges up to date; until told to stop.
    pub(super) async fn run(self, stop: CancellationToken) {
        let mut changes = self.gauges.pool.subscribe();
        let pool = async {
            while changes.changed().await.is_ok() {
                self.provision();
                self.controller.notify_load();
            }
        };
        let gauges = async {
            let mut tick = tokio::time::interval(REFRESH);
            loop {
                tick.tick().await;
                self.show();
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = Arc::clone(&self.controller).run() => {}
            () = pool => {}
            () = gauges => {}
        }
    }

    fn show(&self) {
        let now = Instant::now();
        let fill = self.gauges.fill(self.controller.unplaced(), now);
        let raw = |stage: Option<Fill>| stage.map(|stage| stage.raw);
        self.metrics.saturation(raw(fill.prefill), raw(fill.decode), fill.effective.raw);
        let rules = self.gauges.rules.load();
        self.metrics.stale_endpoints(&rules.detector.name, fill.stale);
        for band in self.controller.bands() {
            let requests = share(band.queued.requests, band.max_requests);
            self.metrics.band_use(band.priority, requests, share(band.queued.bytes, band.max_bytes));
        }
        let queued = self.controller.queued();
        self.metrics.global_use(
            rules.max_requests.map(|max| share(queued.requests, max)),
            rules.max_bytes.map(|max| share(queued.bytes, max)),
        );
        if let Some((wanted, pending)) = self.controller.reclaim() {
            self.metrics.reclaim(wanted, pending);
        }
        self.metrics.prune(now, FLOW_IDLE);
    }
}

fn share(used: u64, of: u64) -> f64 {
    if of == 0 { 0.0 } else { used as f64 / of as f64 }
}

impl Gauges {
    fn fill(&self, unplaced: Unplaced, now: Instant) -> saturation::PoolFill {
        let rules = self.rules.load();
        saturation::pool(&rules.detector, self.pool.snapshot().endpoints(), unplaced, rules.cap, now)
    }
}

/// The pool as the gate sees it.
struct PoolLoad {
    gauges: Arc<Gauges>,
}

impl Load for PoolLoad {
    fn is_empty(&self) -> bool {
        self.gauges.pool.snapshot().is_empty()
    }

    fn size(&self) -> usize {
        self.gauges.pool.snapshot().endpoints().len()
    }

    fn fill(&self, unplaced: Unplaced, now: Instant) -> Fill {
        self.gauges.fill(unplaced, now).effective
    }
}

/// Turns events of the gate into series. Requests themselves are counted where they wait.
struct FlowSeries {
    metrics: FlowMetrics,
}

impl Observer for FlowSeries {
    fn cycle(&self, took: Duration) {
        self.metrics.dispatch_cycle(took);
    }

    fn revocation_issued(&self, demand: i32) {
        self.metrics.revocation_issued(demand);
    }

    fn revocation_ended(&self, confirmed: bool, took: Duration) {
        self.metrics.revocation_ended(confirmed, took);
    }
}
