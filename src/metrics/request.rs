//! Series of requests and their responses.

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use prometheus::{HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry};

use super::RequestLabels;
use super::buckets::{
    INPUT_TOKENS, ITL_SECONDS, NTPOT_SECONDS, OUTPUT_TOKENS, REQUEST_BYTES, REQUEST_SECONDS, RESPONSE_BYTES,
    TPOT_SECONDS, TTFT_SECONDS,
};
use super::cardinality::Gate;
use super::family::{Definition, Family, LegacyLabels, Twin};
use super::histogram_set::{HistogramSet, Labels};
use crate::flow::DEFAULT_FLOW;
use crate::request::Usage;

const MODEL: &str = "model_name";
const TARGET: &str = "target_model_name";
const FAIRNESS: &str = "fairness_id";
const PRIORITY: &str = "priority";
const ALL: [&str; 4] = [MODEL, TARGET, FAIRNESS, PRIORITY];
const LEGACY: LegacyLabels = &[(MODEL, MODEL), (TARGET, TARGET)];

const REQUESTS: Definition<4> = Definition::new(
    "llm_d_epp_request_total",
    "Requests that were parsed and given an endpoint, by model and target model.",
    ALL,
)
.legacy("inference_objective_request_total", &[(MODEL, MODEL), (TARGET, TARGET), (PRIORITY, PRIORITY)]);

const ERRORS: Definition<5> = Definition::new(
    "llm_d_epp_request_error_total",
    "Requests that failed, by error code.",
    [MODEL, TARGET, FAIRNESS, PRIORITY, "error_code"],
)
.legacy(
    "inference_objective_request_error_total",
    &[(MODEL, MODEL), (TARGET, TARGET), ("error_code", "error_code")],
);

const DURATION: Definition<4> = Definition::new(
    "llm_d_epp_request_duration_seconds",
    "Time from the request headers to the end of the response, in seconds.",
    ALL,
)
.legacy("inference_objective_request_duration_seconds", LEGACY)
.buckets(REQUEST_SECONDS);

const REQUEST_SIZE: Definition<4> = Definition::new(
    "llm_d_epp_request_size_bytes",
    "Size of the request body as it is sent on, in bytes.",
    ALL,
)
.legacy("inference_objective_request_sizes", LEGACY)
.buckets(REQUEST_BYTES);

const RESPONSE_SIZE: Definition<4> = Definition::new(
    "llm_d_epp_response_size_bytes",
    "Size of the response body as the model server sent it, in bytes.",
    ALL,
)
.legacy("inference_objective_response_sizes", LEGACY)
.buckets(RESPONSE_BYTES);

const INPUT: Definition<4> =
    Definition::new("llm_d_epp_request_input_tokens", "Prompt tokens that the response reports.", ALL)
        .legacy("inference_objective_input_tokens", LEGACY)
        .buckets(INPUT_TOKENS);

const OUTPUT: Definition<4> =
    Definition::new("llm_d_epp_request_output_tokens", "Generated tokens that the response reports.", ALL)
        .legacy("inference_objective_output_tokens", LEGACY)
        .buckets(OUTPUT_TOKENS);

const CACHED: Definition<4> = Definition::new(
    "llm_d_epp_request_cached_tokens",
    "Prompt tokens that the response reports as found in the cache.",
    ALL,
)
.legacy("inference_objective_prompt_cached_tokens", LEGACY)
.buckets(INPUT_TOKENS);

const RUNNING: Definition<4> =
    Definition::new("llm_d_epp_request_running", "Requests that were sent on and are not finished.", ALL)
        .legacy("inference_objective_running_requests", &[(MODEL, MODEL)]);

const NTPOT: Definition<4> = Definition::new(
    "llm_d_epp_request_ntpot_seconds",
    "Duration of the request divided by its generated tokens, in seconds.",
    ALL,
)
.legacy("inference_objective_normalized_time_per_output_token_seconds", LEGACY)
.buckets(NTPOT_SECONDS);

const TTFT: Definition<5> = Definition::new(
    "llm_d_epp_request_ttft_seconds",
    "Time from the request headers to the first byte of the response body, in seconds.",
    [MODEL, TARGET, FAIRNESS, PRIORITY, "streaming"],
)
.buckets(TTFT_SECONDS);

const TPOT: Definition<4> = Definition::new(
    "llm_d_epp_request_streaming_tpot_seconds",
    "Mean time for each token after the first of a streamed response, in seconds.",
    ALL,
)
.buckets(TPOT_SECONDS);

const ITL: Definition<4> = Definition::new(
    "llm_d_epp_request_streaming_itl_seconds",
    "Time between two chunks of a streamed response, in seconds.",
    ALL,
)
.buckets(ITL_SECONDS);

const FAILED: Definition<1> = Definition::new(
    "pointsman_request_errors_total",
    "Requests that failed, by error code alone: each code is there from the start, so that the first failure of any tenant is an increase.",
    ["error_code"],
);

/// Every error code: those of refusals, and that of a model server's failure.
const CODES: [&str; 8] = [
    "BadRequest",
    "PayloadTooLarge",
    "PreconditionFailed",
    "ResourceExhausted",
    "Internal",
    "ServiceUnavailable",
    "ModelServerError",
    "Unknown",
];

/// The families of this file.
pub(super) struct RequestFamilies {
    pub(super) failed: Family<IntCounterVec, 1>,
    pub(super) requests: Family<IntCounterVec, 4>,
    pub(super) errors: Family<IntCounterVec, 5>,
    pub(super) error_gate: Gate,
    pub(super) duration: Family<HistogramVec, 4>,
    pub(super) request_size: Family<HistogramVec, 4>,
    pub(super) response_size: Family<HistogramVec, 4>,
    pub(super) input: Family<HistogramVec, 4>,
    pub(super) output: Family<HistogramVec, 4>,
    pub(super) cached: Family<HistogramVec, 4>,
    pub(super) running: Family<IntGaugeVec, 4>,
    pub(super) ntpot: Family<HistogramVec, 4>,
    pub(super) ttft: Family<HistogramVec, 5>,
    pub(super) tpot: Family<HistogramVec, 4>,
    pub(super) itl: Family<HistogramVec, 4>,
}

impl std::fmt::Debug for RequestFamilies {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RequestFamilies").finish_non_exhaustive()
    }
}

impl RequestFamilies {
    /// `error_gate` bounds the series of errors.
    pub(super) fn register(registry: &Registry, error_gate: Gate) -> Self {
        let failed = Family::<IntCounterVec, 1>::register(FAILED, registry);
        for code in CODES {
            failed.child([code]);
        }
        let running = Family::<IntGaugeVec, 4>::register(RUNNING, registry);
        // Requests without a model are not counted, so it stays 0: a sum over the series is never empty, not even
        // before the first request.
        drop(running.child(["", "", DEFAULT_FLOW, "0"]));
        Self {
            failed,
            requests: Family::register(REQUESTS, registry),
            errors: Family::register(ERRORS, registry),
            error_gate,
            duration: Family::register(DURATION, registry),
            request_size: Family::register(REQUEST_SIZE, registry),
            response_size: Family::register(RESPONSE_SIZE, registry),
            input: Family::register(INPUT, registry),
            output: Family::register(OUTPUT, registry),
            cached: Family::register(CACHED, registry),
            running,
            ntpot: Family::register(NTPOT, registry),
            ttft: Family::register(TTFT, registry),
            tpot: Family::register(TPOT, registry),
            itl: Family::register(ITL, registry),
        }
    }
}

/// One combination of label values, and its series as far as they were used.
pub(super) struct LabelSet {
    families: Arc<RequestFamilies>,
    labels: Labels,
    requests: OnceLock<Twin<IntCounter>>,
    running: OnceLock<Twin<IntGauge>>,
    /// Those of the set itself, or of one that it shares.
    histograms: ArcSwap<HistogramSet>,
    /// How often it was looked up since the last election.
    pub(super) uses: AtomicU64,
    /// How busy it was at the last election.
    pub(super) activity: AtomicU64,
}

impl LabelSet {
    pub(super) fn new(families: Arc<RequestFamilies>, labels: Labels, histograms: Arc<HistogramSet>) -> Self {
        Self {
            families,
            labels,
            requests: OnceLock::new(),
            running: OnceLock::new(),
            histograms: ArcSwap::new(histograms),
            uses: AtomicU64::new(0),
            activity: AtomicU64::new(0),
        }
    }

    pub(super) fn labels(&self) -> &Labels {
        &self.labels
    }

    pub(super) fn key(&self) -> RequestLabels<'_> {
        self.labels.key()
    }

    pub(super) fn histograms(&self) -> Arc<HistogramSet> {
        self.histograms.load_full()
    }

    pub(super) fn use_histograms(&self, histograms: Arc<HistogramSet>) {
        self.histograms.store(histograms);
    }

    /// Takes the series off the page, but the legacy ones, which have fewer labels, only if none of the `others` has
    /// them.
    pub(super) fn remove(&self, others: &[&Labels]) {
        let families = &*self.families;
        let values = self.labels.values();
        let models = |other: &Labels| {
            (&other.model, &other.target_model) == (&self.labels.model, &self.labels.target_model)
        };
        families.requests.remove_current(values);
        // This one was made at the start, for all time.
        if !(self.labels.model.is_empty() && &*self.labels.fairness_id == DEFAULT_FLOW) {
            families.running.remove_current(values);
        }
        for code in CODES {
            families.errors.remove_current(self.labels.values_and(code));
            families.error_gate.forget(&self.labels.values_and(code));
        }
        if !others.iter().any(|other| models(other) && other.priority_text == self.labels.priority_text) {
            families.requests.remove_legacy(values);
        }
        if !self.labels.model.is_empty() && !others.iter().any(|other| other.model == self.labels.model) {
            families.running.remove_legacy(values);
        }
        if !others.iter().any(|other| models(other)) {
            for code in CODES {
                families.errors.remove_legacy(self.labels.values_and(code));
            }
        }
    }
}

impl std::fmt::Debug for LabelSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.key().fmt(f)
    }
}

/// How a response went.
#[derive(Clone, Copy, Debug)]
pub struct ResponseStats {
    /// When the request headers came.
    pub received: Instant,
    /// When the first byte of the response body came, if any did.
    pub first_byte: Option<Instant>,
    /// When the response ended.
    pub completed: Instant,
    /// Bytes of the response body, as the model server sent it.
    pub response_bytes: u64,
    /// Token counts, if the response reported them.
    pub usage: Option<Usage>,
    /// The client asked for a stream, or the response was one.
    pub streaming: bool,
}

/// The series of one request. Cheap to clone; look it up once for each request.
#[derive(Clone, Debug)]
pub struct RequestMetrics {
    set: Arc<LabelSet>,
}

impl RequestMetrics {
    pub(super) fn new(set: Arc<LabelSet>) -> Self {
        Self { set }
    }

    /// The fairness id as the series have it: `other` once there are too many.
    pub fn fairness_id(&self) -> &str {
        &self.set.labels.fairness_id
    }

    /// Counts a request that was given an endpoint; its body, as sent on, has `size_bytes` bytes.
    pub fn requested(&self, size_bytes: u64) {
        let set = &*self.set;
        set.requests.get_or_init(|| set.families.requests.child(set.labels.values())).inc();
        let set = set.histograms.load();
        set.child(&set.request_size, &set.families.request_size).observe(size_bytes as f64);
    }

    /// Counts the request as running until the guard is dropped. Requests without a model are not counted.
    #[must_use = "dropping the guard ends the request"]
    pub fn running_guard(&self) -> RunningGuard {
        let counted = !self.set.labels.model.is_empty();
        if counted {
            self.set.running().add(1);
        }
        RunningGuard { set: counted.then(|| Arc::clone(&self.set)) }
    }

    /// Records a response that has ended. Time spans that run backwards, and token counts of zero, are left out; a
    /// cached count of zero is not.
    pub fn response_done(&self, stats: ResponseStats) {
        let histograms = self.set.histograms.load();
        let set = &**histograms;
        let families = &*set.families;
        let total = stats.completed.checked_duration_since(stats.received).filter(|span| !span.is_zero());
        if let Some(total) = total {
            set.child(&set.duration, &families.duration).observe(total.as_secs_f64());
        }
        set.child(&set.response_size, &families.response_size).observe(stats.response_bytes as f64);
        let first = stats.first_byte.and_then(|at| at.checked_duration_since(stats.received));
        if let Some(first) = first {
            set.ttft(stats.streaming).observe(first.as_secs_f64());
        }
        let Some(usage) = stats.usage else { return };
        let tokens = usage.completion_tokens;
        if usage.prompt_tokens > 0 {
            set.child(&set.input, &families.input).observe(usage.prompt_tokens as f64);
        }
        if tokens > 0 {
            set.child(&set.output, &families.output).observe(tokens as f64);
        }
        if let Some(cached) = usage.cached_tokens {
            set.child(&set.cached, &families.cached).observe(cached as f64);
        }
        let Some(total) = total.filter(|_| tokens > 0) else { return };
        set.child(&set.ntpot, &families.ntpot).observe(total.as_secs_f64() / tokens as f64);
        if let Some(first) = first.filter(|first| !first.is_zero() && *first < total)
            && stats.streaming
            && tokens > 1
        {
            let each = total.saturating_sub(first).as_secs_f64() / (tokens - 1) as f64;
            set.child(&set.tpot, &families.tpot).observe(each);
        }
    }

    /// Records the time between two chunks of a streamed response.
    pub fn inter_token(&self, gap: Duration) {
        let set = self.set.histograms.load();
        set.child(&set.itl, &set.families.itl).observe(gap.as_secs_f64());
    }

    /// Counts a failure. `code` comes from the closed set of error codes; an empty one counts nothing.
    pub fn error(&self, code: &str) {
        if !code.is_empty() {
            self.set.families.failed.child([code]).inc();
            let families = &*self.set.families;
            let values = self.set.labels.values_and(code);
            let folded = Labels::other();
            let admitted = families.error_gate.admits(&values);
            families.errors.child(if admitted { values } else { folded.values_and(code) }).inc();
        }
    }
}

impl LabelSet {
    fn running(&self) -> &Twin<IntGauge> {
        self.running.get_or_init(|| self.families.running.child(self.labels.values()))
    }
}

/// A running request. Dropping it ends the request, once.
#[derive(Debug)]
#[must_use = "dropping the guard ends the request"]
pub struct RunningGuard {
    set: Option<Arc<LabelSet>>,
}

impl Drop for RunningGuard {
    fn drop(&mut self) {
        if let Some(set) = &self.set {
            set.running().add(-1);
        }
    }
}
