//! The data layer as the rest of the program sees it.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::exposition::{Figures, Wanted};
use super::request::filter_query;
use super::status::StatusCell;
use super::target::{Engine, Site};
use super::tls::TlsClient;
use super::worker::{self, Share};
use super::{EndpointStatus, EngineSpecs, EngineTable, Observer, Pace, SourceSpec, TlsError, Variant};
use crate::pool::{Endpoint, Pool};

/// Shortest interval between scrapes of one endpoint.
pub const SHORTEST_INTERVAL: Duration = Duration::from_millis(50);

/// How to scrape.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where pages are.
    pub source: SourceSpec,
    /// What is on them.
    pub engines: EngineTable,
    /// Figures that somebody reads; series of others are not looked for, and without any nothing is scraped.
    pub needs: Figures,
    /// Base time between scrapes of one endpoint (`--refresh-metrics-interval`); the source's own interval becomes a
    /// multiple of it.
    pub interval: Duration,
    /// Longest pause between attempts at an endpoint that does not answer.
    pub backoff_cap: Duration,
    /// Limit of one round, from connecting to the last byte.
    pub timeout: Duration,
    /// Limit of connecting, TLS included.
    pub connect_timeout: Duration,
    /// Longest page, in bytes.
    pub body_limit: usize,
    /// Whether servers may be asked for the needed series only.
    pub filtered: bool,
    /// Tasks that share the endpoints. One can drive more than a thousand; more of them wake up more often.
    pub workers: usize,
}

impl Default for Settings {
    /// The reference's behaviour: every 50 ms, one second to answer; bodies up to 8 MiB.
    fn default() -> Self {
        Self {
            source: SourceSpec::default(),
            engines: EngineTable::builtin(),
            needs: Figures::ALL,
            interval: SHORTEST_INTERVAL,
            backoff_cap: Duration::from_secs(1),
            timeout: Duration::from_secs(1),
            connect_timeout: Duration::from_secs(1),
            body_limit: 8 * 1024 * 1024,
            filtered: true,
            workers: 1,
        }
    }
}

impl Settings {
    /// Interval and pauses in force. A source interval lowers the base, but never below 50 ms, and counts in whole
    /// multiples of it.
    pub fn pace(&self) -> Pace {
        let own = self.source.interval.filter(|own| !own.is_zero());
        let base = own.map_or(self.interval, |own| own.min(self.interval)).max(SHORTEST_INTERVAL);
        let ticks = own.map_or(1.0, |own| (own.as_secs_f64() / base.as_secs_f64()).round().max(1.0));
        let interval = base.mul_f64(ticks);
        Pace { backoff_cap: self.backoff_cap.max(interval), ..Pace::every(interval) }
    }
}

/// Reads the metrics of every endpoint of a pool into its load.
pub struct DataLayer {
    pub(super) pool: Arc<Pool>,
    pub(super) settings: Arc<Settings>,
    pub(super) observer: Arc<dyn Observer>,
    /// `None` until the first endpoint asks for it, if the source does not; its inside is `None` if it cannot be had.
    tls: OnceLock<Option<Arc<TlsClient>>>,
    /// Incarnation → state, for [`Self::statuses`].
    pub(super) statuses: Mutex<HashMap<u64, Arc<StatusCell>>>,
    engines: BTreeMap<String, Arc<Engine>>,
    /// For pods whose engine nobody knows; looks for nothing.
    unknown: Arc<Engine>,
}

impl DataLayer {
    /// Compiles the engine table and reads TLS files.
    ///
    /// # Errors
    ///
    /// If the source uses TLS and its files cannot be used.
    pub fn new(
        pool: Arc<Pool>,
        settings: Settings,
        observer: Arc<dyn Observer>,
    ) -> Result<Arc<Self>, TlsError> {
        let https = settings.source.https.then(|| TlsClient::new(&settings.source, Instant::now()));
        let tls = https.transpose()?.map_or_else(OnceLock::new, |tls| OnceLock::from(Some(Arc::new(tls))));
        let compile = |name: &str, specs: &EngineSpecs| {
            let wanted = Wanted::new(specs, settings.needs);
            Arc::new(Engine { name: name.to_owned(), filter: filter_query(&wanted), wanted })
        };
        let engines = settings.engines.engines.iter();
        let engines = engines.map(|(name, specs)| (name.clone(), compile(name, specs))).collect();
        Ok(Arc::new(Self {
            pool,
            observer,
            tls,
            statuses: Mutex::default(),
            engines,
            unknown: compile("", &EngineSpecs::default()),
            settings: Arc::new(settings),
        }))
    }

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

    /// State of every endpoint's scraping, ordered by name, for debug pages.
    pub fn statuses(&self, now: Instant) -> Vec<EndpointStatus> {
        let cells: Vec<_> = self.statuses.lock().values().cloned().collect();
        let mut statuses: Vec<_> = cells.iter().map(|cell| cell.read(now)).collect();
        statuses.sort_by(|a, b| a.endpoint.cmp(&b.endpoint));
        statuses
    }

    /// Number of endpoints that are asked for a filtered page.
    pub fn filtered_endpoints(&self) -> usize {
        self.statuses.lock().values().filter(|cell| cell.form() != Variant::Full).count()
    }

    pub(super) fn engine_for(&self, endpoint: &Endpoint) -> Arc<Engine> {
        let name = self.settings.engines.engine_for(&endpoint.spec().labels);
        Arc::clone(name.and_then(|name| self.engines.get(name)).unwrap_or(&self.unknown))
    }

    /// Where and how `endpoint` is asked. What discovery says of it comes before the source.
    pub(super) fn site_of(&self, endpoint: &Endpoint) -> Site {
        let spec = endpoint.spec();
        let mut address = spec.metrics_address;
        if let Some(port) = spec.metrics.port.or(self.settings.source.port) {
            address.set_port(port);
        }
        Site {
            address,
            https: spec.metrics.https.unwrap_or(self.settings.source.https),
            host: spec.metrics.host.clone(),
        }
    }

    /// TLS by the settings of the source; `None` if it cannot be had, which is told once.
    pub(super) fn tls(&self) -> Option<&Arc<TlsClient>> {
        let made = self.tls.get_or_init(|| {
            let made = TlsClient::new(&self.settings.source, Instant::now());
            made.map(Arc::new)
                .map_err(|error| tracing::error!(%error, "endpoints with https metrics cannot be read"))
                .ok()
        });
        made.as_ref()
    }
}

impl fmt::Debug for DataLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DataLayer").field("settings", &self.settings).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(base_ms: u64, own_ms: Option<u64>, expected_ms: u64) {
        let source = SourceSpec { interval: own_ms.map(Duration::from_millis), ..SourceSpec::default() };
        let settings = Settings { source, interval: Duration::from_millis(base_ms), ..Settings::default() };
        assert_eq!(settings.pace().interval, Duration::from_millis(expected_ms), "{base_ms} {own_ms:?}");
    }

    #[test]
    fn the_interval_is_a_multiple_of_the_base_and_never_below_50_ms() {
        check(50, None, 50);
        check(10, None, 50);
        check(200, None, 200);
        check(50, Some(0), 50);
        check(50, Some(1000), 1000);
        check(50, Some(120), 100);
        check(100, Some(60), 60);
        check(100, Some(20), 50);
    }
}
