//! The data layer as the rest of the program sees it.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use parking_lot::Mutex;

use super::exposition::WantedSeries;
use super::request::filter_query;
use super::status::StatusCell;
use super::target::{Engine, Site};
use super::tls::TlsClient;
use super::{EndpointStatus, EngineSpecs, Observer, Settings, TlsError, Variant};
use crate::pool::{Endpoint, Pool};

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
            let wanted = WantedSeries::new(specs, settings.needs);
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

    /// The address and manner of asking `endpoint`. Settings from discovery override those of the source.
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
