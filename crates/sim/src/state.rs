//! The state that the connections of one server share.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;
use serde::Serialize;
use tokio::sync::watch;

use super::config::{SimConfig, unix_seconds};
use super::driver::Driver;
use super::engine::tokens;
use super::faults::{FakeMetrics, Faults};
use super::metrics_page::{self, HttpStats, PageValues, Template};
use super::received::ReceivedLog;

/// The figures of a server, for tests and demos.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SimStats {
    /// The name of the server.
    pub name: String,
    /// The requests in the batch.
    pub running: usize,
    /// The requests that wait for a place in the batch.
    pub waiting: usize,
    /// The share of the KV-cache blocks that requests use, 0 to 1, as the mean over the engines.
    pub kv_usage: f64,
    /// The requests that ended with all their tokens.
    pub finished: u64,
    /// The requests that their client cancelled.
    pub aborted: u64,
    /// The requests that were refused because the queue was full.
    pub rejected: u64,
    /// The requests on all paths except `/metrics` and `/sim/` that were read to their end.
    pub received: u64,
    /// The requests for the whole metrics page.
    pub scrapes: u64,
    /// The requests for a filtered metrics page.
    pub filtered_scrapes: u64,
}

/// The state of one server.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) config: SimConfig,
    pub(crate) driver: Arc<Driver>,
    pub(crate) received: Mutex<ReceivedLog>,
    pub(crate) scrapes: AtomicU64,
    pub(crate) filtered_scrapes: AtomicU64,
    faults: watch::Sender<Faults>,
    template: Arc<Template>,
    http: Mutex<Arc<HttpStats>>,
    pins: Mutex<Pins>,
    page: Mutex<Option<(u64, Bytes)>>,
    /// The number of random draws so far, for `error_rate` and for ids.
    draws: AtomicU64,
}

/// The faults that make the metrics page wrong.
#[derive(Debug, Default)]
struct Pins {
    fake: FakeMetrics,
    /// The numbers at the time when `stale_metrics` was turned on.
    frozen: Option<PageValues>,
    /// The version, which grows with each change.
    version: u64,
}

impl State {
    /// Makes the state of a new server. `template` must come from a configuration with the same page.
    pub(crate) fn new(config: SimConfig, template: Arc<Template>) -> Self {
        Self {
            driver: Arc::new(Driver::new(&config.engine_limits(), config.engines)),
            received: Mutex::default(),
            scrapes: AtomicU64::new(0),
            filtered_scrapes: AtomicU64::new(0),
            faults: watch::Sender::new(Faults::default()),
            template,
            http: Mutex::default(),
            pins: Mutex::default(),
            page: Mutex::default(),
            draws: AtomicU64::new(0),
            config,
        }
    }

    pub(crate) fn faults(&self) -> watch::Receiver<Faults> {
        self.faults.subscribe()
    }

    /// Replaces all faults, at once and for running requests too.
    pub(crate) fn set_faults(&self, faults: Faults) {
        let values = self.live_values();
        let mut pins = self.pins.lock();
        if faults.stale_metrics {
            if pins.frozen.is_none() {
                let mut values = values;
                pins.fake.apply(&mut values);
                pins.frozen = Some(values);
            }
        } else {
            pins.frozen = None;
        }
        pins.version += 1;
        drop(pins);
        self.faults.send_replace(faults);
    }

    pub(crate) fn fake_metrics(&self) -> FakeMetrics {
        self.pins.lock().fake
    }

    pub(crate) fn set_fake_metrics(&self, fake: FakeMetrics) {
        let mut pins = self.pins.lock();
        pins.fake = fake;
        pins.version += 1;
    }

    pub(crate) fn record(&self, served: &metrics_page::Served) {
        Arc::make_mut(&mut self.http.lock()).record(served);
    }

    /// The whole metrics page. It is formatted only if a number changed since the last time.
    pub(crate) fn whole_page(&self) -> Bytes {
        let version = self.driver.version() + self.http.lock().version() + self.pins.lock().version;
        let mut page = self.page.lock();
        if let Some((known, bytes)) = &*page
            && *known == version
        {
            return bytes.clone();
        }
        let bytes = Bytes::from(metrics_page::whole(&self.template, &self.shown_values()));
        *page = Some((version, bytes.clone()));
        bytes
    }

    /// The page with only the samples of these names.
    pub(crate) fn filtered_page(&self, names: &[String]) -> Bytes {
        Bytes::from(metrics_page::filtered(&self.template, &self.shown_values(), names))
    }

    /// Returns true for the share `rate` of the requests. The sequence depends only on the seed.
    pub(crate) fn draw(&self, rate: f64) -> bool {
        let number = self.draws.fetch_add(1, Ordering::Relaxed);
        let random = tokens::mix(self.config.seed ^ tokens::mix(number));
        // The top 53 bits make a number from 0 up to, but without, 1.
        ((random >> 11) as f64 / (1_u64 << 53) as f64) < rate
    }

    /// A text that is different for each request.
    pub(crate) fn unique(&self) -> String {
        let number = self.draws.fetch_add(1, Ordering::Relaxed);
        let name = self.config.name.bytes().fold(0, |hash, byte| tokens::mix(hash ^ u64::from(byte)));
        format!("{:016x}{:016x}", tokens::mix(name ^ unix_seconds().to_bits()), tokens::mix(number))
    }

    pub(crate) fn stats(&self) -> SimStats {
        let engines = self.driver.values();
        let sum = |read: fn(&super::engine::EngineValues) -> u64| engines.iter().map(read).sum::<u64>();
        SimStats {
            name: self.config.name.clone(),
            running: engines.iter().map(|engine| engine.running).sum(),
            waiting: engines.iter().map(|engine| engine.waiting).sum(),
            kv_usage: engines.iter().map(|engine| engine.kv_usage).sum::<f64>() / engines.len().max(1) as f64,
            finished: sum(|engine| engine.stats.stopped + engine.stats.limited),
            aborted: sum(|engine| engine.stats.aborted),
            rejected: sum(|engine| engine.stats.queue_rejections),
            received: self.received.lock().total(),
            scrapes: self.scrapes.load(Ordering::Relaxed),
            filtered_scrapes: self.filtered_scrapes.load(Ordering::Relaxed),
        }
    }

    fn live_values(&self) -> PageValues {
        PageValues { engines: self.driver.values(), http: Arc::clone(&self.http.lock()) }
    }

    fn shown_values(&self) -> PageValues {
        let pins = self.pins.lock();
        if let Some(frozen) = &pins.frozen {
            return frozen.clone();
        }
        let fake = pins.fake;
        drop(pins);
        let mut values = self.live_values();
        fake.apply(&mut values);
        values
    }
}

impl FakeMetrics {
    fn apply(&self, values: &mut PageValues) {
        for engine in &mut values.engines {
            engine.waiting = self.waiting.unwrap_or(engine.waiting);
            engine.running = self.running.unwrap_or(engine.running);
            engine.kv_usage = self.kv.unwrap_or(engine.kv_usage);
        }
    }
}
