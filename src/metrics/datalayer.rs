//! Series of reading model servers.

use std::time::Duration;

use prometheus::{Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry};

use super::buckets::SCRAPE_SECONDS;
use super::family::{Definition, Family, Twin};

const POLL_ERRORS: Definition<1> = Definition::new(
    "llm_d_epp_datalayer_poll_errors_total",
    "Polls of an endpoint that could not be fetched or read, by type of source.",
    ["source_type"],
)
.legacy("llm_d_inference_scheduler_datalayer_poll_errors_total", &[("source_type", "source_type")]);

const EXTRACT_ERRORS: Definition<2> = Definition::new(
    "llm_d_epp_datalayer_extract_errors_total",
    "Polled pages that lacked what an extractor looks for, by types of source and extractor.",
    ["source_type", "extractor_type"],
)
.legacy(
    "llm_d_inference_scheduler_datalayer_extract_errors_total",
    &[("source_type", "source_type"), ("extractor_type", "extractor_type")],
);

const SCRAPE_DURATION: Definition<0> = Definition::new(
    "pointsman_scrape_duration_seconds",
    "Time from sending a scrape until its page was read, in seconds.",
    [],
)
.buckets(SCRAPE_SECONDS);

const SCRAPE_BYTES: Definition<0> =
    Definition::new("pointsman_scrape_bytes_total", "Bytes of metrics pages that were received.", []);

const SCRAPE_STATE: Definition<1> = Definition::new(
    "pointsman_scrape_state",
    "Endpoints by the state of their scraping; each counts in one state.",
    ["state"],
);

const FILTER_PROBES: Definition<1> = Definition::new(
    "pointsman_scrape_filter_probes_total",
    "Attempts to ask a model server for only the needed series, by outcome.",
    ["outcome"],
);

const FILTERED: Definition<0> = Definition::new(
    "pointsman_scrape_filtered_endpoints",
    "Endpoints that are asked for only the needed series.",
    [],
);

/// Handles of the data layer.
#[derive(Clone)]
pub struct DataLayerMetrics {
    poll_errors: Family<IntCounterVec, 1>,
    extract_errors: Family<IntCounterVec, 2>,
    duration: Twin<Histogram>,
    bytes: Twin<IntCounter>,
    state: Family<IntGaugeVec, 1>,
    probes: Family<IntCounterVec, 1>,
    filtered: Twin<IntGauge>,
}

impl DataLayerMetrics {
    pub(super) fn register(registry: &Registry) -> Self {
        Self {
            poll_errors: Family::register(POLL_ERRORS, registry),
            extract_errors: Family::register(EXTRACT_ERRORS, registry),
            duration: Family::<HistogramVec, 0>::register(SCRAPE_DURATION, registry).child([]),
            bytes: Family::<IntCounterVec, 0>::register(SCRAPE_BYTES, registry).child([]),
            state: Family::register(SCRAPE_STATE, registry),
            probes: Family::register(FILTER_PROBES, registry),
            filtered: Family::<IntGaugeVec, 0>::register(FILTERED, registry).child([]),
        }
    }

    /// Endpoints are polled from now on: the counts of failures of `source_type` and of its `extractor_type`, and of
    /// all outcomes of probes, show 0.
    pub fn polls(&self, source_type: &str, extractor_type: &str) {
        self.poll_errors.child([source_type]);
        self.extract_errors.child([source_type, extractor_type]);
        for outcome in ["adopted", "refused"] {
            self.probes.child([outcome]);
        }
    }

    /// Counts a poll of one endpoint that failed. `source_type` is a type of the plugin catalogue.
    pub fn poll_error(&self, source_type: &str) {
        self.poll_errors.child([source_type]).inc();
    }

    /// Counts a page that an extractor could not use; once for each page, however much was missing.
    pub fn extract_error(&self, source_type: &str, extractor_type: &str) {
        self.extract_errors.child([source_type, extractor_type]).inc();
    }

    /// Records a scrape that brought a page of `bytes` bytes.
    pub fn scraped(&self, duration: Duration, bytes: u64) {
        self.duration.observe(duration.as_secs_f64());
        self.bytes.inc_by(bytes);
    }

    /// Sets how many endpoints are in `state`. States come from a closed set; set each of them, also to 0.
    pub fn set_state(&self, state: &'static str, endpoints: u64) {
        self.state.child([state]).set(endpoints);
    }

    /// Counts an attempt to get a filtered page. Outcomes come from a closed set.
    pub fn filter_probe(&self, outcome: &'static str) {
        self.probes.child([outcome]).inc();
    }

    /// Sets how many endpoints are asked for a filtered page.
    pub fn set_filtered_endpoints(&self, endpoints: u64) {
        self.filtered.set(endpoints);
    }
}

impl std::fmt::Debug for DataLayerMetrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DataLayerMetrics").finish_non_exhaustive()
    }
}
