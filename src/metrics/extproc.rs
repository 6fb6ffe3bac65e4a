//! Series of the ext_proc server.

use std::sync::{Arc, OnceLock};
use std::time::Instant;

use prometheus::{Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry};

use super::buckets::STREAM_SECONDS;
use super::family::{Definition, Family, Twin};

const INFLIGHT: Definition<0> =
    Definition::new("llm_d_epp_extproc_streams_inflight", "ext_proc streams that are open.", []);

const DURATION: Definition<0> = Definition::new(
    "llm_d_epp_extproc_stream_duration_seconds",
    "Life of an ext_proc stream, in seconds.",
    [],
)
.buckets(STREAM_SECONDS);

const ENDED: Definition<1> = Definition::new(
    "llm_d_epp_extproc_streams_total",
    "ext_proc streams that ended, by gRPC code.",
    ["code"],
);

const STREAMS: Definition<0> = Definition::new("pointsman_streams", "ext_proc streams that are open.", []);

const REFUSALS: Definition<2> = Definition::new(
    "pointsman_extproc_refusals_total",
    "Requests that were answered instead of sent on, by reason and HTTP status.",
    ["reason", "code"],
);

const BUFFERED: Definition<0> =
    Definition::new("pointsman_buffered_body_bytes", "Bytes of bodies that are held in memory.", []);

const BUFFERED_LIMIT: Definition<0> = Definition::new(
    "pointsman_buffered_body_bytes_limit",
    "Bound of the bytes of bodies that may be held in memory; 0 without a bound.",
    [],
);

const BOUND_HITS: Definition<1> =
    Definition::new("pointsman_bound_hits_total", "Times that a bound was reached, by bound.", ["bound"]);

const PANICS: Definition<0> =
    Definition::new("pointsman_stream_panics_total", "Streams that ended in a panic of this program.", []);

const UNREAD_BODIES: Definition<2> = Definition::new(
    "pointsman_unread_bodies_total",
    "Requests that went on although their body, or a part of it, was not understood, by API and reason.",
    ["api", "reason"],
);

const PRODUCER_ERRORS: Definition<2> = Definition::new(
    "pointsman_producer_errors_total",
    "Data producers that failed for one request; scheduling went on without their data.",
    ["plugin_type", "plugin_name"],
);

/// Handles of the ext_proc server. Made once; each stream takes a [`StreamGuard`].
#[derive(Clone)]
pub struct ExtProcMetrics {
    series: Arc<Series>,
}

struct Series {
    optional: OnceLock<OptionalStreams>,
    streams: Twin<IntGauge>,
    refusals: Family<IntCounterVec, 2>,
    buffered: Twin<IntGauge>,
    buffered_limit: Twin<IntGauge>,
    bound_hits: Family<IntCounterVec, 1>,
    panics: Twin<IntCounter>,
    producer_errors: Family<IntCounterVec, 2>,
    unread_bodies: Family<IntCounterVec, 2>,
}

/// Families of the reference that exist only with `--enable-grpc-stream-metrics`.
struct OptionalStreams {
    inflight: Twin<IntGauge>,
    duration: Twin<Histogram>,
    ended: Family<IntCounterVec, 1>,
}

impl ExtProcMetrics {
    pub(super) fn register(registry: &Registry) -> Self {
        let series = Series {
            optional: OnceLock::new(),
            streams: Family::<IntGaugeVec, 0>::register(STREAMS, registry).child([]),
            refusals: Family::register(REFUSALS, registry),
            buffered: Family::<IntGaugeVec, 0>::register(BUFFERED, registry).child([]),
            buffered_limit: Family::<IntGaugeVec, 0>::register(BUFFERED_LIMIT, registry).child([]),
            bound_hits: Family::register(BOUND_HITS, registry),
            panics: Family::<IntCounterVec, 0>::register(PANICS, registry).child([]),
            producer_errors: Family::register(PRODUCER_ERRORS, registry),
            unread_bodies: Family::register(UNREAD_BODIES, registry),
        };
        Self { series: Arc::new(series) }
    }

    /// Adds the optional families, once.
    pub(super) fn enable_streams(&self, registry: &Registry) {
        self.series.optional.get_or_init(|| OptionalStreams {
            inflight: Family::<IntGaugeVec, 0>::register(INFLIGHT, registry).child([]),
            duration: Family::<HistogramVec, 0>::register(DURATION, registry).child([]),
            ended: Family::register(ENDED, registry),
        });
    }

    /// Counts a stream as open until the guard is dropped.
    pub fn stream_started(&self, now: Instant) -> StreamGuard {
        self.series.streams.add(1);
        if let Some(optional) = self.series.optional.get() {
            optional.inflight.add(1);
        }
        StreamGuard { series: Arc::clone(&self.series), started: now, code: None }
    }

    /// Requests are served from now on: the counts of these refusals, by reason and HTTP status, and of the bounds that
    /// belong to streams show 0, so that the first of a kind is an increase.
    pub fn serves(&self, refusals: impl IntoIterator<Item = (&'static str, u16)>) {
        for (reason, code) in refusals {
            self.series.refusals.child([reason, &code.to_string()]);
        }
        for bound in
            ["request_body", "buffered_bodies", "streams", "idle", "unfinished_message", "unread_answers"]
        {
            self.series.bound_hits.child([bound]);
        }
    }

    /// This data producer runs from now on: the count of its failures shows 0.
    pub fn produces(&self, plugin_type: &str, plugin_name: &str) {
        self.series.producer_errors.child([plugin_type, plugin_name]);
    }

    /// Counts a request that was refused with HTTP status `code`. Reasons come from a closed set.
    pub fn refusal(&self, reason: &'static str, code: u16) {
        self.series.refusals.child([reason, &code.to_string()]).inc();
    }

    /// Refusals so far: reason, HTTP status and count.
    pub fn refusals(&self) -> Vec<(String, String, u64)> {
        let counts = self.series.refusals.counts().into_iter();
        counts
            .map(|(labels, count)| {
                let label = |wanted: &str| {
                    let found = labels.iter().find(|(name, _)| name == wanted);
                    found.map(|(_, value)| value.clone()).unwrap_or_default()
                };
                (label("reason"), label("code"), count)
            })
            .collect()
    }

    /// Changes the number of body bytes in memory.
    pub fn add_buffered_bytes(&self, change: i64) {
        self.series.buffered.add(change);
    }

    /// Sets the bound on body bytes in memory; 0 without a bound.
    pub fn set_buffered_bytes_limit(&self, bytes: u64) {
        self.series.buffered_limit.set(bytes);
    }

    /// Counts that a bound was reached: `request_body`, `buffered_bodies`, `streams`, `idle`, `unfinished_message`,
    /// `unread_answers`, and
    /// whatever else has one.
    pub fn bound_hit(&self, bound: &'static str) {
        self.series.bound_hits.child([bound]).inc();
    }

    /// Counts a stream that ended in a panic.
    pub fn stream_panicked(&self) {
        self.series.panics.inc();
    }

    /// Counts a request whose body was not understood. APIs and reasons come from closed sets.
    pub fn unread_body(&self, api: &'static str, reason: &'static str) {
        self.series.unread_bodies.child([api, reason]).inc();
    }

    /// Counts a data producer that failed for one request.
    pub fn producer_error(&self, plugin_type: &str, plugin_name: &str) {
        self.series.producer_errors.child([plugin_type, plugin_name]).inc();
    }
}

impl std::fmt::Debug for ExtProcMetrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ExtProcMetrics").finish_non_exhaustive()
    }
}

/// An open stream. Dropping it ends the stream; without [`StreamGuard::finish`] it counts as `Canceled`, because a
/// future that is dropped was reset by the proxy.
#[must_use = "dropping the guard ends the stream"]
pub struct StreamGuard {
    series: Arc<Series>,
    started: Instant,
    code: Option<&'static str>,
}

impl StreamGuard {
    /// Ends the stream with a gRPC code by its Go name: `OK`, `Internal`, `DeadlineExceeded` and so on.
    pub fn finish(mut self, code: &'static str) {
        self.code = Some(code);
    }
}

impl std::fmt::Debug for StreamGuard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StreamGuard")
            .field("started", &self.started)
            .field("code", &self.code)
            .finish_non_exhaustive()
    }
}

impl Drop for StreamGuard {
    fn drop(&mut self) {
        self.series.streams.add(-1);
        if let Some(optional) = self.series.optional.get() {
            optional.inflight.add(-1);
            optional.duration.observe(self.started.elapsed().as_secs_f64());
            optional.ended.child([self.code.unwrap_or("Canceled")]).inc();
        }
    }
}
