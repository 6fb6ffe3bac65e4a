//! The series of requests and their responses, defined, and their families.

use prometheus::{HistogramVec, IntCounterVec, IntGaugeVec, Registry};

use super::buckets::{
    INPUT_TOKENS, ITL_SECONDS, NTPOT_SECONDS, OUTPUT_TOKENS, REQUEST_BYTES, REQUEST_SECONDS, RESPONSE_BYTES,
    TPOT_SECONDS, TTFT_SECONDS,
};
use super::cardinality::Gate;
use super::family::{Definition, Family, LegacyLabels};
use crate::flow::DEFAULT_FLOW;

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
pub(super) const CODES: [&str; 8] = [
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
