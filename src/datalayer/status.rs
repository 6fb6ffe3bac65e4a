//! The state of scraping one endpoint, for debug pages.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde::Serialize;

use super::exposition::{Figure, Figures};
use super::{ScrapeError, Variant};

/// State of one endpoint's scraping at one moment.
#[derive(Clone, Debug, Serialize)]
pub struct EndpointStatus {
    /// `namespace/name`.
    pub endpoint: String,
    /// Number of this life of the endpoint.
    pub incarnation: u64,
    /// Address of the page.
    pub address: SocketAddr,
    /// Engine whose series are looked for.
    pub engine: String,
    /// Form of the page in use.
    pub form: &'static str,
    /// Pages read.
    pub scrapes: u64,
    /// Rounds that failed since the last page.
    pub failures: u32,
    /// Body size of the last page, in bytes.
    pub bytes: usize,
    /// Duration of the last successful round, in microseconds.
    pub took_us: u64,
    /// Figures that the last page lacked.
    pub missing: Vec<&'static str>,
    /// Malformed lines of needed series on the last page.
    pub malformed: u32,
    /// The last error.
    pub last_error: Option<String>,
    /// Age of the last error, in milliseconds.
    pub last_error_age_ms: Option<u64>,
}

/// The same, as the scraping task writes it.
#[derive(Debug)]
pub(super) struct StatusCell {
    endpoint: String,
    incarnation: u64,
    address: SocketAddr,
    engine: String,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    form: Variant,
    scrapes: u64,
    failures: u32,
    bytes: usize,
    took: Duration,
    missing: Figures,
    malformed: u32,
    last_error: Option<(String, Instant)>,
}

impl StatusCell {
    pub(super) fn new(endpoint: String, incarnation: u64, address: SocketAddr, engine: String) -> Self {
        let inner = Inner {
            form: Variant::Full,
            scrapes: 0,
            failures: 0,
            bytes: 0,
            took: Duration::ZERO,
            missing: Figures::NONE,
            malformed: 0,
            last_error: None,
        };
        Self { endpoint, incarnation, address, engine, inner: Mutex::new(inner) }
    }

    /// A page was read. Returns the number of failed rounds before it.
    pub(super) fn succeeded(&self, bytes: usize, took: Duration, missing: Figures, malformed: u32) -> u32 {
        let mut inner = self.inner.lock();
        inner.scrapes += 1;
        inner.bytes = bytes;
        inner.took = took;
        inner.missing = missing;
        inner.malformed = malformed;
        std::mem::take(&mut inner.failures)
    }

    /// A round failed. Returns the number of failed rounds in a row.
    pub(super) fn failed(&self, error: &ScrapeError, now: Instant) -> u32 {
        let mut inner = self.inner.lock();
        inner.failures = inner.failures.saturating_add(1);
        inner.last_error = Some((error.to_string(), now));
        inner.failures
    }

    pub(super) fn set_form(&self, form: Variant) {
        self.inner.lock().form = form;
    }

    pub(super) fn form(&self) -> Variant {
        self.inner.lock().form
    }

    pub(super) fn read(&self, now: Instant) -> EndpointStatus {
        let inner = self.inner.lock();
        let age = inner.last_error.as_ref().map(|(_, at)| now.saturating_duration_since(*at));
        EndpointStatus {
            endpoint: self.endpoint.clone(),
            incarnation: self.incarnation,
            address: self.address,
            engine: self.engine.clone(),
            form: inner.form.name(),
            scrapes: inner.scrapes,
            failures: inner.failures,
            bytes: inner.bytes,
            took_us: inner.took.as_micros() as u64,
            missing: inner.missing.iter().map(Figure::name).collect(),
            malformed: inner.malformed,
            last_error: inner.last_error.as_ref().map(|(text, _)| text.clone()),
            last_error_age_ms: age.map(|age| age.as_millis() as u64),
        }
    }
}
