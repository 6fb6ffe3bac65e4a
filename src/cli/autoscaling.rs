//! KEDA's scaler, wired: what it reads of the pool, and whether this replica answers.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::queueing::Queueing;
use crate::flow::detector::Detector;
use crate::flow::saturation;
use crate::kubernetes::Leadership;
use crate::pool::{Age, Endpoint, Pool};
use crate::scaler::{self, KedaScaler, Role, ScalerSettings, ScalerSource};
use crate::transport::Port;

/// Time between two looks at whether the servers of a pool have been scraped.
const LOOK: Duration = Duration::from_millis(20);
/// Longest wait for that: a server that is up and gives no page has none to wait for.
const FIRST_SCRAPES: Duration = Duration::from_secs(5);

/// The figures of a pool that the KEDA scaler reads.
pub(super) struct Demand {
    pool: Arc<Pool>,
    queueing: Arc<Queueing>,
    detector: ArcSwap<Detector>,
    /// Age up to which a reading of a server counts; `None` if servers are not scraped.
    staleness: Option<Duration>,
    waiting: watch::Sender<u64>,
}

impl Demand {
    /// The demand on `pool`; without flow control nothing ever waits.
    pub(super) fn new(
        pool: &Arc<Pool>,
        queueing: &Arc<Queueing>,
        detector: Detector,
        staleness: Option<Duration>,
    ) -> Arc<Self> {
        Arc::new(Self {
            pool: Arc::clone(pool),
            queueing: Arc::clone(queueing),
            detector: ArcSwap::from_pointee(detector),
            staleness,
            waiting: watch::Sender::new(0),
        })
    }

    /// The configuration has another detector from now on.
    pub(super) fn judge_by(&self, detector: Detector) {
        self.detector.store(Arc::new(detector));
    }

    /// Passes on whether requests wait, until told to stop.
    pub(super) async fn run(self: Arc<Self>, stop: CancellationToken) {
        let Some(holding) = stop.run_until_cancelled(self.queueing.begun()).await else { return };
        let mut waiting = holding.controller.waiting();
        loop {
            let some = *waiting.borrow_and_update();
            // Between the wake-up and this look the queue may have emptied; that it was there must not get lost.
            self.waiting.send_replace(if some { self.queue_depth().max(1) } else { 0 });
            tokio::select! {
                () = stop.cancelled() => return,
                changed = waiting.changed() => if changed.is_err() { return },
            }
        }
    }

    /// Waits until the numbers are those of the pool: its servers are known, and each was scraped or does not answer.
    async fn known(&self) {
        while !self.pool.is_synced() {
            tokio::time::sleep(LOOK).await;
        }
        if self.staleness.is_none() {
            return;
        }
        let scraped = async {
            while self.pool.snapshot().endpoints().iter().any(|endpoint| is_unread(endpoint)) {
                tokio::time::sleep(LOOK).await;
            }
        };
        // Either way the numbers are as good as they get.
        let _: Result<(), _> = tokio::time::timeout(FIRST_SCRAPES, scraped).await;
    }

    /// Requests that run on a server: those of this replica, or as many as the server itself says. What a former
    /// leader, or one that drains, has sent there still runs.
    fn running_on(&self, endpoint: &Endpoint, now: Instant) -> u64 {
        let load = endpoint.load();
        let read = self.staleness.filter(|staleness| load.age(now).is_fresh(*staleness));
        let told = read.map_or(0, |_| load.running().saturating_add(load.waiting()));
        load.in_flight().max(told)
    }
}

fn is_unread(endpoint: &Endpoint) -> bool {
    endpoint.load().is_reachable() && endpoint.load().age(Instant::now()) == Age::Never
}

impl ScalerSource for Demand {
    fn queue_depth(&self) -> u64 {
        self.queueing.current().map_or(0, |holding| holding.controller.queued().requests)
    }

    fn queued_bytes(&self) -> u64 {
        self.queueing.current().map_or(0, |holding| holding.controller.queued().bytes)
    }

    fn queued_tokens(&self) -> u64 {
        self.queueing.current().map_or(0, |holding| holding.controller.queued().tokens)
    }

    fn running(&self) -> u64 {
        let now = Instant::now();
        let snapshot = self.pool.snapshot();
        let running = snapshot.endpoints().iter().map(|endpoint| self.running_on(endpoint, now));
        running.fold(0, u64::saturating_add)
    }

    fn saturation(&self) -> f64 {
        let snapshot = self.pool.snapshot();
        saturation::demand(&self.detector.load(), snapshot.endpoints(), Instant::now())
    }

    fn subscribe(&self) -> watch::Receiver<u64> {
        self.waiting.subscribe()
    }
}

/// Serves the autoscaler, if it has a port, until `ends`; without a port it never resolves. With `leadership` only the
/// leader answers, once it knows the pool.
pub(super) async fn serve(
    port: Option<Port>,
    demand: Arc<Demand>,
    pool: String,
    leadership: Option<Leadership>,
    ends: CancellationToken,
) {
    let Some(port) = port else { return std::future::pending().await };
    let service = KedaScaler::new(
        Arc::clone(&demand) as Arc<dyn ScalerSource>,
        ScalerSettings { pool, ..ScalerSettings::default() },
    );
    let following = async {
        if let Some(leadership) = leadership {
            follow(&service, leadership, &demand).await;
        }
        std::future::pending::<()>().await;
    };
    // The role comes first: nobody is answered in the wrong one.
    tokio::select! {
        biased;
        () = following => {}
        () = scaler::serve(port, service.clone(), ends.cancelled()) => {}
    }
}

async fn follow(service: &KedaScaler, mut leadership: Leadership, demand: &Demand) {
    loop {
        service.set_role(Role::Standby);
        leadership.until(true).await;
        let mut lost = leadership.clone();
        tokio::select! {
            () = demand.known() => {}
            () = lost.until(false) => continue,
        }
        service.set_role(Role::Answering);
        tracing::info!("answering the autoscaler");
        leadership.until(false).await;
        tracing::info!("leaving the autoscaler to the next leader");
    }
}
