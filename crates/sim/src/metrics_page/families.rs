//! The series of a vLLM engine: their names, help texts and labels, and the sources of their values.

use crate::engine::EngineValues;
use crate::engine::stats::{Histogram, Stats};

/// Reads one number.
pub(super) type Read = fn(&EngineValues) -> f64;
/// Reads one histogram.
pub(super) type ReadHistogram = fn(&Stats) -> &Histogram;

/// The kind of a family.
#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
    /// A counter, whose name ends in `_total`. Each row has the value of the extra label (empty without one) and the
    /// function that reads the number.
    Counter(&'static [(&'static str, Read)]),
    /// A gauge with the same form of rows.
    Gauge(&'static [(&'static str, Read)]),
    /// A histogram.
    Histogram(ReadHistogram),
}

/// A family that has a set of rows for each engine.
#[derive(Debug, Clone, Copy)]
pub(super) struct EngineFamily {
    pub(super) name: &'static str,
    pub(super) help: &'static str,
    /// The name of the extra label; empty without one.
    pub(super) label: &'static str,
    pub(super) kind: Kind,
}

/// A family that describes the process. Its values do not change.
#[derive(Debug, Clone, Copy)]
pub(super) struct ProcessFamily {
    pub(super) name: &'static str,
    pub(super) help: &'static str,
    pub(super) counter: bool,
    /// For each row, the text of its labels with braces (may be empty) and its value.
    pub(super) rows: &'static [(&'static str, f64)],
}

const GENERATIONS: [&str; 3] = ["{generation=\"0\"}", "{generation=\"1\"}", "{generation=\"2\"}"];

/// The families of the Python runtime and the process, in the order of the page. The template fills in the start time.
pub(super) const PROCESS_FAMILIES: &[ProcessFamily] = &[
    ProcessFamily {
        name: "python_gc_objects_collected_total",
        help: "Objects collected during gc",
        counter: true,
        rows: &[(GENERATIONS[0], 15_020.0), (GENERATIONS[1], 3_104.0), (GENERATIONS[2], 612.0)],
    },
    ProcessFamily {
        name: "python_gc_objects_uncollectable_total",
        help: "Uncollectable objects found during GC",
        counter: true,
        rows: &[(GENERATIONS[0], 0.0), (GENERATIONS[1], 0.0), (GENERATIONS[2], 0.0)],
    },
    ProcessFamily {
        name: "python_gc_collections_total",
        help: "Number of times this generation was collected",
        counter: true,
        rows: &[(GENERATIONS[0], 1_604.0), (GENERATIONS[1], 145.0), (GENERATIONS[2], 11.0)],
    },
    ProcessFamily {
        name: "python_info",
        help: "Python platform information",
        counter: false,
        rows: &[(
            "{implementation=\"CPython\",major=\"3\",minor=\"12\",patchlevel=\"11\",version=\"3.12.11\"}",
            1.0,
        )],
    },
    ProcessFamily {
        name: "process_virtual_memory_bytes",
        help: "Virtual memory size in bytes.",
        counter: false,
        rows: &[("", 4_718_592_000.0)],
    },
    ProcessFamily {
        name: "process_resident_memory_bytes",
        help: "Resident memory size in bytes.",
        counter: false,
        rows: &[("", 961_544_192.0)],
    },
    ProcessFamily {
        name: "process_start_time_seconds",
        help: "Start time of the process since unix epoch in seconds.",
        counter: false,
        rows: &[("", f64::NAN)],
    },
    ProcessFamily {
        name: "process_cpu_seconds_total",
        help: "Total user and system CPU time spent in seconds.",
        counter: true,
        rows: &[("", 7.04)],
    },
    ProcessFamily {
        name: "process_open_fds",
        help: "Number of open file descriptors.",
        counter: false,
        rows: &[("", 36.0)],
    },
    ProcessFamily {
        name: "process_max_fds",
        help: "Maximum number of open file descriptors.",
        counter: false,
        rows: &[("", 65_536.0)],
    },
];

const NEVER: &[(&str, Read)] = &[("", |_| 0.0)];

const fn counter(
    name: &'static str,
    help: &'static str,
    label: &'static str,
    rows: &'static [(&'static str, Read)],
) -> EngineFamily {
    EngineFamily { name, help, label, kind: Kind::Counter(rows) }
}

const fn gauge(
    name: &'static str,
    help: &'static str,
    label: &'static str,
    rows: &'static [(&'static str, Read)],
) -> EngineFamily {
    EngineFamily { name, help, label, kind: Kind::Gauge(rows) }
}

const fn histogram(name: &'static str, help: &'static str, read: ReadHistogram) -> EngineFamily {
    EngineFamily { name, help, label: "", kind: Kind::Histogram(read) }
}

/// The families of an engine, in the order of the page. All rows have the labels `engine` and `model_name`.
pub(super) const ENGINE_FAMILIES: &[EngineFamily] = &[
    counter(
        "vllm:estimated_flops_per_gpu_total",
        "Estimated number of floating point operations per GPU (for Model Flops Utilization calculations).",
        "",
        NEVER,
    ),
    counter(
        "vllm:estimated_read_bytes_per_gpu_total",
        "Estimated number of bytes read from memory per GPU (for Model Flops Utilization calculations).",
        "",
        NEVER,
    ),
    counter(
        "vllm:estimated_write_bytes_per_gpu_total",
        "Estimated number of bytes written to memory per GPU (for Model Flops Utilization calculations).",
        "",
        NEVER,
    ),
    gauge(
        "vllm:num_requests_running",
        "Number of requests in model execution batches.",
        "",
        &[("", |engine| engine.running as f64)],
    ),
    gauge(
        "vllm:num_requests_waiting",
        "Number of requests waiting to be processed.",
        "",
        &[("", |engine| engine.waiting as f64)],
    ),
    gauge(
        "vllm:num_requests_waiting_by_reason",
        "Number of waiting requests by reason. Reason labels: 'capacity' = waiting for scheduling capacity; 'deferred' = deferred by transient constraints (LoRA budget, KV transfer, blocked status). Sum of all reasons equals vllm:num_requests_waiting.",
        "reason",
        &[
            ("capacity", |engine| engine.waiting.saturating_sub(engine.deferred) as f64),
            ("deferred", |engine| engine.deferred as f64),
        ],
    ),
    gauge(
        "vllm:engine_sleep_state",
        "Engine sleep state; awake = 0 means engine is sleeping; awake = 1 means engine is awake; weights_offloaded = 1 means sleep level 1; discard_all = 1 means sleep level 2.",
        "sleep_state",
        &[("awake", |_| 1.0), ("weights_offloaded", |_| 0.0), ("discard_all", |_| 0.0)],
    ),
    gauge(
        "vllm:kv_cache_usage_perc",
        "KV-cache usage. 1 means 100 percent usage.",
        "",
        &[("", |engine| engine.kv_usage)],
    ),
    counter(
        "vllm:prefix_cache_queries_total",
        "Prefix cache queries, in terms of number of queried tokens.",
        "",
        &[("", |engine| engine.stats.cache_queries as f64)],
    ),
    counter(
        "vllm:prefix_cache_hits_total",
        "Prefix cache hits, in terms of number of cached tokens.",
        "",
        &[("", |engine| engine.stats.cache_hits as f64)],
    ),
    counter(
        "vllm:external_prefix_cache_queries_total",
        "External prefix cache queries from KV connector cross-instance cache sharing, in terms of number of queried tokens.",
        "",
        NEVER,
    ),
    counter(
        "vllm:external_prefix_cache_hits_total",
        "External prefix cache hits from KV connector cross-instance cache sharing, in terms of number of cached tokens.",
        "",
        NEVER,
    ),
    counter(
        "vllm:mm_cache_queries_total",
        "Multi-modal cache queries, in terms of number of queried items.",
        "",
        NEVER,
    ),
    counter(
        "vllm:mm_cache_hits_total",
        "Multi-modal cache hits, in terms of number of cached items.",
        "",
        NEVER,
    ),
    counter(
        "vllm:num_preemptions_total",
        "Cumulative number of preemption from the engine.",
        "",
        &[("", |engine| engine.stats.preemptions as f64)],
    ),
    counter(
        "vllm:prompt_tokens_total",
        "Number of prefill tokens processed.",
        "",
        &[("", |engine| engine.stats.prompt_tokens as f64)],
    ),
    counter(
        "vllm:prompt_tokens_by_source_total",
        "Number of prompt tokens by source.",
        "source",
        &[
            ("local_compute", |engine| {
                engine.stats.prompt_tokens.saturating_sub(engine.stats.cached_tokens) as f64
            }),
            ("local_cache_hit", |engine| engine.stats.cached_tokens as f64),
            ("external_kv_transfer", |_| 0.0),
        ],
    ),
    counter(
        "vllm:prompt_tokens_cached_total",
        "Number of cached prompt tokens (local + external).",
        "",
        &[("", |engine| engine.stats.cached_tokens as f64)],
    ),
    counter(
        "vllm:prompt_tokens_cached_by_source_total",
        "Prefix-cache hit tokens by the cache tier that supplied them: device (local HBM), host (offloaded to DRAM), disk, p2p (transferred from another vLLM instance) or external_unspecified. Counted at admission; sums to vllm:prefix_cache_hits + vllm:external_prefix_cache_hits.",
        "source",
        &[
            ("device", |engine| engine.stats.cache_hits as f64),
            ("host", |_| 0.0),
            ("p2p", |_| 0.0),
            ("disk", |_| 0.0),
            ("external_unspecified", |_| 0.0),
        ],
    ),
    counter(
        "vllm:generation_tokens_total",
        "Number of generation tokens processed.",
        "",
        &[("", |engine| engine.stats.generation_tokens as f64)],
    ),
    counter(
        "vllm:request_success_total",
        "Count of successfully processed requests.",
        "finished_reason",
        &[
            ("stop", |engine| engine.stats.stopped as f64),
            ("length", |engine| engine.stats.limited as f64),
            ("abort", |engine| engine.stats.aborted as f64),
            ("error", |_| 0.0),
            ("repetition", |_| 0.0),
        ],
    ),
    counter(
        ADMISSION_REJECTIONS,
        "Number of admission attempts rejected by a queue limit, by reason.",
        "reason",
        &[
            ("max_num_queued_reqs", |engine| engine.stats.queue_rejections as f64),
            ("max_num_queued_tokens", |_| 0.0),
        ],
    ),
    histogram("vllm:request_prompt_tokens", "Number of prefill tokens processed.", |stats| {
        &stats.request_prompt_tokens
    }),
    histogram("vllm:request_generation_tokens", "Number of generation tokens processed.", |stats| {
        &stats.request_generation_tokens
    }),
    histogram("vllm:iteration_tokens_total", "Histogram of number of tokens per engine_step.", |stats| {
        &stats.iteration_tokens
    }),
    histogram(
        "vllm:request_max_num_generation_tokens",
        "Histogram of maximum number of requested generation tokens.",
        |stats| &stats.max_generation_tokens,
    ),
    histogram("vllm:request_params_n", "Histogram of the n request parameter.", |stats| &stats.params_n),
    histogram("vllm:request_params_max_tokens", "Histogram of the max_tokens request parameter.", |stats| {
        &stats.params_max_tokens
    }),
    histogram("vllm:time_to_first_token_seconds", "Histogram of time to first token in seconds.", |stats| {
        &stats.time_to_first_token
    }),
    histogram("vllm:inter_token_latency_seconds", "Histogram of inter-token latency in seconds.", |stats| {
        &stats.inter_token_latency
    }),
    histogram(
        "vllm:request_time_per_output_token_seconds",
        "Histogram of time_per_output_token_seconds per request.",
        |stats| &stats.time_per_output_token,
    ),
    histogram("vllm:e2e_request_latency_seconds", "Histogram of e2e request latency in seconds.", |stats| {
        &stats.e2e_latency
    }),
    histogram(
        "vllm:request_queue_time_seconds",
        "Histogram of time spent in WAITING phase for request.",
        |stats| &stats.queue_time,
    ),
    histogram(
        "vllm:request_inference_time_seconds",
        "Histogram of time spent in RUNNING phase for request.",
        |stats| &stats.inference_time,
    ),
    histogram(
        "vllm:request_prefill_time_seconds",
        "Histogram of time spent in PREFILL phase for request.",
        |stats| &stats.prefill_time,
    ),
    histogram(
        "vllm:request_decode_time_seconds",
        "Histogram of time spent in DECODE phase for request.",
        |stats| &stats.decode_time,
    ),
    histogram(
        "vllm:request_num_preemptions",
        "Histogram of the number of times a request was preempted.",
        |stats| &stats.request_preemptions,
    ),
    histogram(
        "vllm:request_prefill_kv_computed_tokens",
        "Histogram of new KV tokens computed during prefill (excluding cached tokens).",
        |stats| &stats.prefill_computed_tokens,
    ),
];

/// The one engine family whose rows belong to the server and do not have the label `engine`.
pub(super) const ADMISSION_REJECTIONS: &str = "vllm:admission_rejections_total";
