//! What scraping meets, as series.

use std::sync::Arc;
use std::time::Duration;

use super::queueing::Queueing;
use crate::datalayer::exposition::Figures;
use crate::datalayer::{Observer, ScrapeError, Variant};
use crate::metrics::DataLayerMetrics;
use crate::pool::Endpoint;

/// Turns what scraping met into series.
pub(super) struct Counting {
    pub(super) metrics: DataLayerMetrics,
    /// Requests may wait for what a scrape tells.
    pub(super) queueing: Arc<Queueing>,
}

/// Type strings of the two plugins that scraping is configured by.
pub(super) const SOURCE: &str = "metrics-data-source";
pub(super) const EXTRACTOR: &str = "core-metrics-extractor";

impl Counting {
    /// Tells those who wait that the load may have changed.
    fn wake(&self) {
        self.queueing.notify_load();
    }
}

impl Observer for Counting {
    fn scraped(&self, _: &Endpoint, bytes: usize, took: Duration) {
        self.metrics.scraped(took, bytes as u64);
        self.wake();
    }

    fn poll_error(&self, endpoint: &Endpoint, error: &ScrapeError) {
        self.metrics.poll_error(SOURCE);
        // A reading that got too old changes how full the pool counts, too.
        self.wake();
        tracing::debug!(endpoint = %endpoint.id(), %error, "scrape failed");
    }

    fn extract_error(&self, endpoint: &Endpoint, missing: Figures, malformed: u32) {
        self.metrics.extract_error(SOURCE, EXTRACTOR);
        tracing::debug!(endpoint = %endpoint.id(), ?missing, malformed, "metrics page lacks figures");
    }

    fn adopted(&self, endpoint: &Endpoint, variant: Variant) {
        self.metrics.filter_probe("adopted");
        tracing::debug!(endpoint = %endpoint.id(), ?variant, "asking for the needed series only");
    }

    fn refused(&self, endpoint: &Endpoint) {
        self.metrics.filter_probe("refused");
        tracing::debug!(endpoint = %endpoint.id(), "asking for the whole page");
    }
}
