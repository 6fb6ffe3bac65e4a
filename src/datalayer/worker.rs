//! One task that scrapes many endpoints: it begins the rounds that are due and waits for those under way.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio_util::sync::CancellationToken;

use super::DataLayer;
use super::schedule::Schedule;
use super::status::StatusCell;
use super::target::{Engine, ScrapeContext, Site, Target};
use crate::pool::Endpoint;

/// Size of the buffer that sockets are read into. A usual page fits, so that one read gets it all.
const BUFFER_BYTES: usize = 128 * 1024;

/// The state that a worker keeps of an endpoint.
struct ScrapedEndpoint {
    incarnation: u64,
    site: Site,
    engine: Arc<Engine>,
    cancel: CancellationToken,
    /// `None` while a round is under way.
    target: Option<Box<Target>>,
}

/// One worker's share of the pool.
struct Worker {
    layer: Arc<DataLayer>,
    share: Share,
    schedule: Schedule,
    slots: HashMap<u64, ScrapedEndpoint>,
    /// Incarnation → key.
    keys: HashMap<u64, u64>,
    next_key: u64,
}

/// The share of endpoints that belongs to this worker.
#[derive(Clone, Copy, Debug)]
pub(super) struct Share {
    pub(super) index: u64,
    pub(super) of: u64,
}

/// Scrapes until `shutdown`.
pub(super) async fn run(layer: Arc<DataLayer>, share: Share, shutdown: CancellationToken) {
    let mut changes = layer.pool.subscribe();
    let around = Arc::new(layer.scrape_context(BUFFER_BYTES));
    let start = Instant::now();
    let mut worker = Worker {
        schedule: Schedule::new(layer.settings.pace(), start),
        layer,
        share,
        slots: HashMap::new(),
        keys: HashMap::new(),
        // Workers begin apart, or their endpoints would share phases.
        next_key: share.index << 32,
    };
    worker.adjust(start);
    let mut under_way = FuturesUnordered::new();
    let stopped = shutdown.cancelled();
    tokio::pin!(stopped);
    let alarm = tokio::time::sleep_until(start.into());
    tokio::pin!(alarm);
    loop {
        let now = Instant::now();
        while let Some((key, mut target, cancel)) = worker.begin(now) {
            let around = Arc::clone(&around);
            under_way.push(async move {
                // A removed endpoint's round ends here, and its connection with it.
                let round = cancel.run_until_cancelled(target.round(&around)).await;
                (key, target, round.unwrap_or(false))
            });
        }
        if let Some(due) = worker.schedule.next_due()
            && alarm.deadline() != due.into()
        {
            alarm.as_mut().reset(due.into());
        }
        tokio::select! {
            biased;
            () = &mut stopped => return,
            changed = changes.changed() => match changed {
                Ok(()) => worker.adjust(Instant::now()),
                Err(_) => return,
            },
            Some((key, target, succeeded)) = under_way.next() => worker.end(key, target, succeeded),
            () = &mut alarm, if worker.schedule.next_due().is_some() => {}
        }
    }
}

impl Worker {
    /// An endpoint whose round is due.
    fn begin(&mut self, now: Instant) -> Option<(u64, Box<Target>, CancellationToken)> {
        while let Some(key) = self.schedule.take_due(now) {
            if let Some(slot) = self.slots.get_mut(&key)
                && let Some(target) = slot.target.take()
            {
                return Some((key, target, slot.cancel.clone()));
            }
        }
        None
    }

    /// A round has ended. If the endpoint is gone by now, so is its target.
    fn end(&mut self, key: u64, target: Box<Target>, succeeded: bool) {
        if let Some(slot) = self.slots.get_mut(&key) {
            slot.target = Some(target);
            self.schedule.finished(key, succeeded, Instant::now());
        }
    }

    /// Brings the slots in line with the pool.
    fn adjust(&mut self, now: Instant) {
        let snapshot = self.layer.pool.snapshot();
        let mine = |endpoint: &&Arc<Endpoint>| endpoint.incarnation() % self.share.of == self.share.index;
        let mut gone = std::mem::take(&mut self.keys);
        for endpoint in snapshot.endpoints().iter().filter(mine) {
            let incarnation = endpoint.incarnation();
            let engine = self.layer.engine_for(endpoint);
            let site = self.layer.site_of(endpoint);
            let known = gone.get(&incarnation).copied();
            let same = known.filter(|key| {
                let slot = self.slots.get(key);
                slot.is_some_and(|slot| slot.site == site && Arc::ptr_eq(&slot.engine, &engine))
            });
            if let Some(key) = same {
                gone.remove(&incarnation);
                self.keys.insert(incarnation, key);
            } else if !engine.wanted.figures().is_empty() {
                self.keys.insert(incarnation, self.next_key);
                let slot = self.slot(endpoint, engine, site);
                self.slots.insert(self.next_key, slot);
                self.schedule.add(self.next_key, now);
                self.next_key += 1;
            }
        }
        for key in gone.into_values() {
            self.schedule.remove(key);
            if let Some(slot) = self.slots.remove(&key) {
                slot.cancel.cancel();
                if !self.keys.contains_key(&slot.incarnation) {
                    self.layer.statuses.lock().remove(&slot.incarnation);
                }
            }
        }
    }

    fn slot(&self, endpoint: &Arc<Endpoint>, engine: Arc<Engine>, site: Site) -> ScrapedEndpoint {
        let incarnation = endpoint.incarnation();
        let name = endpoint.id().to_string();
        let status = Arc::new(StatusCell::new(name, incarnation, site.address, engine.name.clone()));
        self.layer.statuses.lock().insert(incarnation, Arc::clone(&status));
        let tls = site.https.then(|| self.layer.tls().cloned()).flatten();
        let filtered = self.layer.settings.filtered;
        let target =
            Target::new(Arc::clone(endpoint), Arc::clone(&engine), (site.clone(), tls), filtered, status);
        ScrapedEndpoint {
            incarnation,
            site,
            engine,
            cancel: CancellationToken::new(),
            target: Some(Box::new(target)),
        }
    }
}

impl DataLayer {
    fn scrape_context(&self, buffer: usize) -> ScrapeContext {
        ScrapeContext {
            settings: Arc::clone(&self.settings),
            observer: Arc::clone(&self.observer),
            buffer: parking_lot::Mutex::new(vec![0; buffer].into()),
        }
    }
}
