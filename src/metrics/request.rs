//! Series of requests and their responses.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use prometheus::{Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry};

use super::RequestLabels;
use super::buckets::{
    INPUT_TOKENS, ITL_SECONDS, NTPOT_SECONDS, OUTPUT_TOKENS, REQUEST_BYTES, REQUEST_SECONDS, RESPONSE_BYTES,
    TPOT_SECONDS, TTFT_SECONDS,
};
use super::family::{Definition, Family, LegacyLabels, Twin, Vector};
use crate::request::Usage;

/// Fairness id of requests that name none.
pub(super) const DEFAULT_FLOW: &str = "default-flow";

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
    failed: Family<IntCounterVec, 1>,
    requests: Family<IntCounterVec, 4>,
    errors: Family<IntCounterVec, 5>,
    duration: Family<HistogramVec, 4>,
    request_size: Family<HistogramVec, 4>,
    response_size: Family<HistogramVec, 4>,
    input: Family<HistogramVec, 4>,
    output: Family<HistogramVec, 4>,
    cached: Family<HistogramVec, 4>,
    running: Family<IntGaugeVec, 4>,
    ntpot: Family<HistogramVec, 4>,
    ttft: Family<HistogramVec, 5>,
    tpot: Family<HistogramVec, 4>,
    itl: Family<HistogramVec, 4>,
}

impl RequestFamilies {
    pub(super) fn register(registry: &Registry) -> Self {
        let failed = Family::<IntCounterVec, 1>::register(FAILED, registry);
        for code in CODES {
            failed.child([code]);
        }
        let running = Family::<IntGaugeVec, 4>::register(RUNNING, registry);
        // Requests without a model are not counted, so it stays 0: a sum over the series is never empty, not even before the first request.
        drop(running.child(["", "", DEFAULT_FLOW, "0"]));
        Self {
            failed,
            requests: Family::register(REQUESTS, registry),
            errors: Family::register(ERRORS, registry),
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
    model: Box<str>,
    target_model: Box<str>,
    fairness_id: Box<str>,
    priority: i32,
    priority_text: Box<str>,
    requests: OnceLock<Twin<IntCounter>>,
    duration: OnceLock<Twin<Histogram>>,
    request_size: OnceLock<Twin<Histogram>>,
    response_size: OnceLock<Twin<Histogram>>,
    input: OnceLock<Twin<Histogram>>,
    output: OnceLock<Twin<Histogram>>,
    cached: OnceLock<Twin<Histogram>>,
    running: OnceLock<Twin<IntGauge>>,
    ntpot: OnceLock<Twin<Histogram>>,
    /// Without and with streaming.
    ttft: [OnceLock<Twin<Histogram>>; 2],
    tpot: OnceLock<Twin<Histogram>>,
    itl: OnceLock<Twin<Histogram>>,
}

impl LabelSet {
    pub(super) fn new(families: Arc<RequestFamilies>, labels: RequestLabels<'_>) -> Self {
        Self {
            families,
            model: labels.model.into(),
            target_model: labels.target_model.into(),
            fairness_id: labels.fairness_id.into(),
            priority: labels.priority,
            priority_text: labels.priority.to_string().into(),
            requests: OnceLock::new(),
            duration: OnceLock::new(),
            request_size: OnceLock::new(),
            response_size: OnceLock::new(),
            input: OnceLock::new(),
            output: OnceLock::new(),
            cached: OnceLock::new(),
            running: OnceLock::new(),
            ntpot: OnceLock::new(),
            ttft: [OnceLock::new(), OnceLock::new()],
            tpot: OnceLock::new(),
            itl: OnceLock::new(),
        }
    }

    pub(super) fn key(&self) -> RequestLabels<'_> {
        RequestLabels {
            model: &self.model,
            target_model: &self.target_model,
            fairness_id: &self.fairness_id,
            priority: self.priority,
        }
    }

    fn values(&self) -> [&str; 4] {
        [&self.model, &self.target_model, &self.fairness_id, &self.priority_text]
    }

    fn values_and<'s>(&'s self, last: &'s str) -> [&'s str; 5] {
        let [model, target, fairness, priority] = self.values();
        [model, target, fairness, priority, last]
    }

    fn child<'s, V: Vector>(
        &self,
        cell: &'s OnceLock<Twin<V::Child>>,
        family: &Family<V, 4>,
    ) -> &'s Twin<V::Child> {
        cell.get_or_init(|| family.child(self.values()))
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
        &self.set.fairness_id
    }

    /// Counts a request that was given an endpoint; its body, as sent on, has `size_bytes` bytes.
    pub fn requested(&self, size_bytes: u64) {
        let set = &*self.set;
        set.child(&set.requests, &set.families.requests).inc();
        set.child(&set.request_size, &set.families.request_size).observe(size_bytes as f64);
    }

    /// Counts the request as running until the guard is dropped. Requests without a model are not counted.
    #[must_use = "dropping the guard ends the request"]
    pub fn running_guard(&self) -> RunningGuard {
        let counted = !self.set.model.is_empty();
        if counted {
            self.set.running().add(1);
        }
        RunningGuard { set: counted.then(|| Arc::clone(&self.set)) }
    }

    /// Records a response that has ended. Time spans that run backwards, and token counts of zero, are left out; a cached count of zero is not.
    pub fn response_done(&self, stats: ResponseStats) {
        let set = &*self.set;
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
        let set = &*self.set;
        set.child(&set.itl, &set.families.itl).observe(gap.as_secs_f64());
    }

    /// Counts a failure. `code` comes from the closed set of error codes; an empty one counts nothing.
    pub fn error(&self, code: &str) {
        if !code.is_empty() {
            self.set.families.failed.child([code]).inc();
            self.set.families.errors.child(self.set.values_and(code)).inc();
        }
    }
}

impl LabelSet {
    fn running(&self) -> &Twin<IntGauge> {
        self.child(&self.running, &self.families.running)
    }

    fn ttft(&self, streaming: bool) -> &Twin<Histogram> {
        let text = if streaming { "true" } else { "false" };
        let [whole, streamed] = &self.ttft;
        let cell = if streaming { streamed } else { whole };
        cell.get_or_init(|| self.families.ttft.child(self.values_and(text)))
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
