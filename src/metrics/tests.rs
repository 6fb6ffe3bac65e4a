//! The page once every handle was used.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, UNIX_EPOCH};

use super::exercise::{exercise_events, exercise_latency, exercise_peers, exercise_shadow, exercise_split};
use super::*;
use crate::flow::Outcome;
use crate::pool::{EndpointId, EndpointSpec, Pool, Reading};
use crate::request::{MediaKind, Usage};

const LABELS: RequestLabels<'_> =
    RequestLabels { model: "m", target_model: "t", fairness_id: "default-flow", priority: 0 };

fn stats(received: Instant) -> ResponseStats {
    ResponseStats {
        received,
        first_byte: Some(received + Duration::from_secs(1)),
        completed: received + Duration::from_secs(5),
        response_bytes: 100,
        usage: Some(Usage {
            prompt_tokens: 10,
            completion_tokens: 5,
            total_tokens: 15,
            cached_tokens: Some(0),
        }),
        streaming: true,
    }
}

pub(super) fn exercised() -> (Metrics, Arc<Pool>) {
    let now = Instant::now();
    let metrics = Metrics::new();
    metrics.enable_grpc_stream_metrics();
    metrics.info("abc", "v1");
    metrics.missing_plugin("latency-scorer", "latency");
    metrics.model_rewrite("rewrite", "m", "t");
    let request = metrics.request(LABELS);
    request.requested(300);
    drop(request.running_guard());
    request.response_done(stats(now));
    request.inter_token(Duration::from_millis(20));
    request.error("Internal");
    metrics.plugin_timer(ExtensionPoint::Scorer, "queue-scorer", "queue").time(|| ());
    let prefix = metrics.prefix_index("approx-prefix-cache-producer", "prefix");
    prefix.observe_hit(1, 2, 64);
    prefix.set_size(1);
    prefix.set_memory(1, 2, 0);
    metrics.disaggregation("disagg-profile-handler", "disagg").count("t", StagesRun::default());
    metrics.prefill_decode("pd-profile-handler", "pd").count("t", StagesRun::default());
    let pool = Arc::new(Pool::new("ns", "pool", now));
    let spec = EndpointSpec::new(EndpointId::new("ns", "a"), SocketAddr::from(([10, 0, 0, 1], 8000)));
    pool.replace_endpoints(vec![spec]);
    let snapshot = pool.snapshot();
    let endpoint = &snapshot.endpoints()[0];
    endpoint.load().record(Reading { waiting: Some(1), ..Reading::default() }, 0, now);
    metrics.pool_collector(&pool).refresh(now, Duration::from_secs(2));
    let encoder_cache = metrics.encoder_cache("mm-embeddings-cache-producer", "media");
    encoder_cache.query(MediaKind::Image);
    encoder_cache.hits(endpoint, MediaKind::Image, 1);
    encoder_cache.ratio(0.5);
    exercise_events(&metrics);
    exercise_latency(&metrics);
    exercise_peers(&metrics);
    exercise_shadow(&metrics);
    exercise_split(&metrics);
    let preparer = metrics.preparer("token-producer", "token-producer");
    preparer.outcome(Preparation::Done);
    preparer.took(0.01);
    preparer.waited(0.01);
    preparer.suspend(false);
    drop(metrics.inflight("load").begin(endpoint, "default-flow", 0, 5));
    metrics.scheduler().success("t", endpoint);
    metrics.scheduler().failure("t");
    metrics.scheduler().e2e_duration(Duration::from_micros(100));
    metrics.processing().request(Duration::from_millis(1));
    metrics.processing().response(Duration::from_millis(1));
    let datalayer = metrics.datalayer();
    datalayer.poll_error("metrics-data-source");
    datalayer.extract_error("metrics-data-source", "core-metrics-extractor");
    datalayer.scraped(Duration::from_millis(1), 100);
    datalayer.set_state("healthy", 1);
    datalayer.filter_probe("adopted");
    datalayer.set_filtered_endpoints(1);
    let extproc = metrics.extproc();
    extproc.stream_started(now).finish("OK");
    extproc.refusal("rejected-saturated", 429);
    extproc.add_buffered_bytes(10);
    extproc.set_buffered_bytes_limit(100);
    extproc.bound_hit("request_body");
    extproc.stream_panicked();
    extproc.producer_error("approx-prefix-cache-producer", "prefix");
    metrics.port("grpc").opened();
    extproc.unread_body("chat_completions", "shape");
    metrics.discovery().reloaded("file", UNIX_EPOCH);
    metrics.discovery().reload_failed("file");
    let kubernetes = metrics.kubernetes();
    let watch = kubernetes.watch("pods", "");
    watch.show(Some(1.0));
    watch.failed("unavailable");
    kubernetes.snapshot();
    kubernetes.leader_changed(true);
    kubernetes.status_write("inferenceobjectives", "success");
    kubernetes.label_write("success");
    kubernetes.access("allowed");
    metrics.watch_lines("stderr", || (0, 0));
    exercise_flow(&metrics.flow("pool", [0]));
    (metrics, pool)
}

fn exercise_flow(flow: &FlowMetrics) {
    let guard = flow.enqueued(LABELS, 10, Instant::now());
    guard.queueing_took(0, None, Duration::ZERO);
    guard.finish(0, Outcome::Dispatched, Duration::ZERO);
    flow.dispatch_cycle(Duration::ZERO);
    flow.saturation(None, Some(0.5), 0.5);
    flow.stale_endpoints("utilization-detector", 0);
    flow.global_use(Some(0.0), Some(0.0));
    flow.revocation_issued(0);
    flow.revocation_ended(true, Duration::ZERO);
    flow.reclaim(0.0, 0.0);
    flow.programs_fairness(1.0);
    flow.program("p", Duration::ZERO, 0.0);
}

#[test]
fn help_texts_carry_the_stage_and_point_from_legacy_to_current_names() {
    let (metrics, _pool) = exercised();
    let page = metrics.encode(Format::Text);
    let helps: Vec<&str> = page.lines().filter_map(|line| line.strip_prefix("# HELP ")).collect();
    assert!(helps.len() > 50, "{page}");
    for line in helps {
        let (name, help) = line.split_once(' ').unwrap();
        if name.starts_with("pointsman_") || name.starts_with("process_") {
            assert!(!help.starts_with('['), "{line}");
        } else if name.starts_with("llm_d_epp_") || name.ends_with("_info") || name.contains("model_rewrite")
        {
            assert!(help.starts_with("[ALPHA] ") && !help.contains("Deprecated"), "{line}");
        } else {
            assert!(help.starts_with("[ALPHA] [Deprecated: Use llm_d_epp_"), "{line}");
        }
    }
}

#[test]
fn nothing_about_requests_shows_before_the_first_one() {
    let metrics = Metrics::new();
    metrics.request(LABELS);
    let page = metrics.encode(Format::Text);
    assert!(!page.contains("_request_total"), "{page}");
    assert!(!page.contains("llm_d_epp_extproc_"), "{page}");
    assert!(page.contains("process_resident_memory_bytes "), "{page}");
}

fn value(metrics: &Metrics, series: &str) -> Option<f64> {
    let page = metrics.encode(Format::Text);
    page.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok())
}

const MFP: &str = "{fairness_id=\"default-flow\",model_name=\"m\",priority=\"0\",target_model_name=\"t\"}";
const M: &str = "{model_name=\"m\",target_model_name=\"t\"}";

#[test]
fn a_streamed_response_is_recorded_under_both_names() {
    let metrics = Metrics::new();
    metrics.request(LABELS).response_done(stats(Instant::now()));
    let expected = [
        (format!("llm_d_epp_request_duration_seconds_sum{MFP}"), 5.0),
        (format!("inference_objective_request_duration_seconds_sum{M}"), 5.0),
        (format!("llm_d_epp_response_size_bytes_sum{MFP}"), 100.0),
        (format!("llm_d_epp_request_input_tokens_sum{MFP}"), 10.0),
        (format!("inference_objective_output_tokens_sum{M}"), 5.0),
        (format!("inference_objective_prompt_cached_tokens_count{M}"), 1.0),
        (format!("llm_d_epp_request_ntpot_seconds_sum{MFP}"), 1.0),
        (format!("llm_d_epp_request_streaming_tpot_seconds_sum{MFP}"), 1.0),
        (
            "llm_d_epp_request_ttft_seconds_sum{fairness_id=\"default-flow\",model_name=\"m\",priority=\"0\",\
             streaming=\"true\",target_model_name=\"t\"}"
                .to_owned(),
            1.0,
        ),
    ];
    for (series, expected) in expected {
        assert_eq!(value(&metrics, &series), Some(expected), "{series}");
    }
}

#[test]
fn a_response_without_usage_or_body_records_neither_tokens_nor_first_byte() {
    let metrics = Metrics::new();
    let now = Instant::now();
    let stats =
        ResponseStats { usage: None, first_byte: None, completed: now, streaming: false, ..stats(now) };
    metrics.request(LABELS).response_done(stats);
    let page = metrics.encode(Format::Text);
    for absent in ["tokens", "ttft", "tpot", "request_duration"] {
        assert!(!page.contains(absent), "{absent}: {page}");
    }
}

#[test]
fn running_requests_return_to_zero_and_unnamed_models_are_not_counted() {
    let metrics = Metrics::new();
    let request = metrics.request(LABELS);
    let guards = [request.running_guard(), request.running_guard()];
    assert_eq!(value(&metrics, "inference_objective_running_requests{model_name=\"m\"}"), Some(2.0));
    drop(guards);
    assert_eq!(value(&metrics, &format!("llm_d_epp_request_running{MFP}")), Some(0.0));
    let unnamed = metrics.request(RequestLabels { model: "", ..LABELS }).running_guard();
    assert_eq!(value(&metrics, "inference_objective_running_requests{model_name=\"\"}"), Some(0.0));
    drop(unnamed);
}

#[test]
fn a_model_beyond_the_bounds_is_other() {
    let metrics =
        Metrics::bounded(MetricBounds { series: 40_000_000, bytes: usize::MAX, ..MetricBounds::default() });
    metrics.pin_models(["pinned"]);
    for index in 0..1001 {
        let model = format!("model-{index}");
        metrics.request(RequestLabels { model: &model, target_model: &model, ..LABELS }).error("NotFound");
    }
    metrics.request(RequestLabels { model: "pinned", target_model: "", ..LABELS }).error("NotFound");
    let errors = |model: &str, target: &str| {
        value(
            &metrics,
            &format!(
                "inference_objective_request_error_total{{error_code=\"NotFound\",model_name=\"{model}\",target_model_name=\"{target}\"}}"
            ),
        )
    };
    assert_eq!(errors("model-999", "model-999"), Some(1.0));
    assert_eq!(errors("other", "other"), Some(1.0));
    assert_eq!(errors("pinned", ""), Some(1.0));
    assert_eq!(value(&metrics, "pointsman_metric_labels_folded_total{label=\"model_name\"}"), Some(2.0));
}

/// The series that a request leaves on the page.
fn whole_request(metrics: &Metrics, labels: RequestLabels<'_>, now: Instant) {
    let request = metrics.request(labels);
    request.requested(300);
    drop(request.running_guard());
    request.response_done(stats(now));
    request.inter_token(Duration::from_millis(20));
    request.error("Internal");
}

#[test]
fn a_flood_of_tenants_and_models_stays_within_the_page_and_busy_ones_keep_their_label() {
    let metrics = Metrics::new();
    let pool = Pool::new("ns", "pool", Instant::now());
    let spec =
        |name: &str| EndpointSpec::new(EndpointId::new("ns", name), SocketAddr::from(([10, 0, 0, 1], 8000)));
    pool.replace_endpoints(vec![spec("a"), spec("b"), spec("c")]);
    let snapshot = pool.snapshot();
    let (inflight, flow, scheduler) =
        (metrics.inflight("load"), metrics.flow("pool", [0]), metrics.scheduler());
    let now = Instant::now();
    let mut shares = Vec::new();
    for index in 0..10_000 {
        let (tenant, model) = (format!("tenant-{index}"), format!("\"model\"-{}", index * 7 % 10_000));
        let labels = RequestLabels {
            model: &model,
            target_model: &tenant,
            fairness_id: &tenant,
            priority: index % 300 - 150,
        };
        whole_request(&metrics, labels, now);
        let endpoint = &snapshot.endpoints()[index as usize % 3];
        shares.push(inflight.begin(endpoint, metrics.request(labels).fairness_id(), labels.priority, 5));
        scheduler.success(&model, endpoint);
        metrics.model_rewrite("rewrite", &model, &tenant);
        let guard = flow.enqueued(labels, 10, now);
        guard.queueing_took(0, None, Duration::ZERO);
        guard.finish(0, Outcome::Dispatched, Duration::ZERO);
        flow.program(&tenant, Duration::ZERO, 0.0);
        // A busy tenant that comes when every place is taken.
        if index > 5000 && index % 10 == 0 {
            let busy = RequestLabels {
                model: "busy-model",
                target_model: "busy-model",
                fairness_id: "busy",
                priority: 0,
            };
            whole_request(&metrics, busy, now);
        }
        if index % 500 == 0 {
            metrics.elect(&[]);
        }
    }
    for format in [Format::Text, Format::OpenMetrics100] {
        let page = metrics.encode(format);
        let series = page.lines().filter(|line| !line.starts_with('#')).count();
        assert!(series <= 30_000 && page.len() <= 10 << 20, "{series} series in {} bytes", page.len());
        let mut names: Vec<&str> = page
            .lines()
            .filter_map(|line| line.rsplit_once(' '))
            .map(|(name, _)| name)
            .filter(|name| !name.starts_with('#'))
            .collect();
        names.sort_unstable();
        let all = names.len();
        names.dedup();
        assert_eq!(names.len(), all, "a series stands on the page twice");
    }
    let page = metrics.encode(Format::Text);
    assert!(
        page.contains("llm_d_epp_request_total{fairness_id=\"busy\",model_name=\"busy-model\""),
        "no label for the busy tenant"
    );
    assert!(
        page.contains(
            "llm_d_epp_request_duration_seconds_count{fairness_id=\"other\",model_name=\"busy-model\""
        ),
        "no histograms for the busy model"
    );
    let left_out = value(&metrics, "pointsman_metric_labels_folded_total{label=\"page\"}");
    assert_eq!(left_out, Some(0.0), "the bounds of the kinds make up the bound of the page");
    let folded = value(&metrics, "pointsman_metric_labels_folded_total{label=\"fairness_id\"}");
    assert!(folded.unwrap() > 5000.0, "{folded:?}");
    drop(shares);
}

#[test]
fn counters_never_fall_while_labels_are_given_and_taken() {
    let metrics = Metrics::new();
    let mut before = std::collections::HashMap::new();
    for round in 0..20 {
        for index in 0..400 {
            let tenant = format!("tenant-{}", (round * 100 + index * index) % 3000);
            metrics.request(RequestLabels { fairness_id: &tenant, ..LABELS }).requested(1);
        }
        metrics.elect(&[0]);
        let page = metrics.encode(Format::Text);
        let lines = page.lines().filter_map(|line| line.rsplit_once(' '));
        let now: std::collections::HashMap<String, f64> = lines
            .filter(|(name, _)| {
                name.starts_with("inference_objective_request_total{")
                    || name.contains("\"other\"") && name.contains("_total{")
            })
            .map(|(name, value)| (name.to_owned(), value.parse().unwrap()))
            .collect();
        for (name, value) in &before {
            assert!(now.get(name).is_some_and(|later| later >= value), "{name}");
        }
        before = now;
    }
    assert!(!before.is_empty());
}

#[test]
fn a_dropped_stream_counts_as_cancelled() {
    let metrics = Metrics::new();
    metrics.enable_grpc_stream_metrics();
    metrics.enable_grpc_stream_metrics();
    let extproc = metrics.extproc();
    let guard = extproc.stream_started(Instant::now());
    assert_eq!(value(&metrics, "llm_d_epp_extproc_streams_inflight"), Some(1.0));
    drop(guard);
    assert_eq!(value(&metrics, "llm_d_epp_extproc_streams_total{code=\"Canceled\"}"), Some(1.0));
    assert_eq!(value(&metrics, "pointsman_streams"), Some(0.0));
}

#[test]
fn in_flight_shares_return_to_zero_and_their_series_leave_with_the_endpoint() {
    let metrics = Metrics::new();
    let pool = Pool::new("ns", "pool", Instant::now());
    let spec = EndpointSpec::new(EndpointId::new("ns", "a"), SocketAddr::from(([10, 0, 0, 1], 8000)));
    pool.replace_endpoints(vec![spec]);
    let inflight = metrics.inflight("load");
    let mut share = inflight.begin(&pool.snapshot().endpoints()[0], "f", 1, 9);
    let labels =
        "{endpoint_name=\"a\",fairness_id=\"f\",namespace=\"ns\",priority=\"1\",producer_name=\"load\"}";
    let read =
        || ["requests", "tokens"].map(|what| value(&metrics, &format!("llm_d_epp_inflight_{what}{labels}")));
    assert_eq!(read(), [Some(1.0), Some(9.0)]);
    share.release_tokens();
    assert_eq!(read(), [Some(1.0), Some(0.0)]);
    drop(share);
    assert_eq!(read(), [Some(0.0), Some(0.0)]);
    inflight.prune_endpoints(&Pool::new("ns", "pool", Instant::now()).snapshot());
    assert_eq!(read(), [None, None]);
}

#[test]
fn an_endpoint_that_flaps_keeps_counting_the_requests_it_still_serves() {
    let metrics = Metrics::new();
    let pool = Pool::new("ns", "pool", Instant::now());
    let spec = || EndpointSpec::new(EndpointId::new("ns", "a"), SocketAddr::from(([10, 0, 0, 1], 8000)));
    pool.replace_endpoints(vec![spec()]);
    let inflight = metrics.inflight("load");
    let first = inflight.begin(&pool.snapshot().endpoints()[0], "f", 1, 9);
    pool.replace_endpoints(vec![]);
    inflight.prune_endpoints(&pool.snapshot());
    pool.replace_endpoints(vec![spec()]);
    let second = inflight.begin(&pool.snapshot().endpoints()[0], "f", 1, 9);
    let series = "llm_d_epp_inflight_requests{endpoint_name=\"a\",fairness_id=\"f\",namespace=\"ns\",priority=\"1\",producer_name=\"load\"}";
    assert_eq!(value(&metrics, series), Some(2.0));
    drop((first, second));
    assert_eq!(value(&metrics, series), Some(0.0));
}

#[test]
fn lost_lines_show_at_zero_and_follow_their_queue() {
    let metrics = Metrics::new();
    let lost = Arc::new(std::sync::atomic::AtomicU64::new(0));
    let count = Arc::clone(&lost);
    metrics.watch_lines("stderr", move || (count.load(std::sync::atomic::Ordering::Relaxed), 0));
    let series = "pointsman_log_lines_dropped_total{reason=\"queue_full\",stream=\"stderr\"}";
    assert_eq!(value(&metrics, series), Some(0.0));
    lost.store(7, std::sync::atomic::Ordering::Relaxed);
    assert_eq!([value(&metrics, series), value(&metrics, series)], [Some(7.0), Some(7.0)]);
}

#[test]
fn sums_of_running_requests_are_zero_and_not_empty_before_the_first_request() {
    let metrics = Metrics::new();
    assert_eq!(value(&metrics, "inference_objective_running_requests{model_name=\"\"}"), Some(0.0));
    let series = "llm_d_epp_request_running{fairness_id=\"default-flow\",model_name=\"\",priority=\"0\",target_model_name=\"\"}";
    assert_eq!(value(&metrics, series), Some(0.0));
}

#[test]
fn the_first_failure_of_any_tenant_is_an_increase_of_a_series_without_tenants() {
    let metrics = Metrics::new();
    let series = "pointsman_request_errors_total{error_code=\"Internal\"}";
    assert_eq!(value(&metrics, series), Some(0.0));
    for fairness_id in ["a", "b", "c"] {
        metrics.request(RequestLabels { fairness_id, ..LABELS }).error("Internal");
    }
    assert_eq!(value(&metrics, series), Some(3.0));
}

#[test]
fn counters_whose_first_increase_matters_are_there_from_the_start() {
    let metrics = Metrics::new();
    metrics.extproc().serves([("no_endpoints", 503)]);
    metrics.extproc().produces("type", "name");
    metrics.datalayer().polls("source", "extractor");
    metrics.discovery().reloaded("endpoints_file", UNIX_EPOCH);
    metrics.kubernetes().watch("pods", "");
    metrics.kubernetes().writes_status("objectives");
    metrics.kubernetes().set_leader(true);
    let flow = metrics.flow("pool", [3]);
    let zeros = [
        "pointsman_extproc_refusals_total{code=\"503\",reason=\"no_endpoints\"}",
        "pointsman_bound_hits_total{bound=\"buffered_bodies\"}",
        "pointsman_bound_hits_total{bound=\"unfinished_message\"}",
        "pointsman_response_models_limited_total",
        "pointsman_producer_errors_total{plugin_name=\"name\",plugin_type=\"type\"}",
        "llm_d_epp_datalayer_poll_errors_total{source_type=\"source\"}",
        "pointsman_reloads_total{outcome=\"failure\",source=\"endpoints_file\"}",
        "pointsman_discovery_errors_total{group=\"\",reason=\"forbidden\",resource=\"pods\"}",
        "pointsman_status_writes_total{outcome=\"forbidden\",resource=\"objectives\"}",
        "pointsman_leader_transitions_total",
        "llm_d_epp_flow_control_requests_total{inference_pool=\"pool\",outcome=\"RejectedCapacity\",priority=\"3\"}",
        "llm_d_epp_flow_control_revocations_issued_total{inference_pool=\"pool\",priority=\"3\"}",
        "llm_d_epp_flow_control_revocations_total{inference_pool=\"pool\",outcome=\"timed_out\"}",
    ];
    for series in zeros {
        assert_eq!(value(&metrics, series), Some(0.0), "{series}");
    }
    // A band that went leaves nothing behind.
    flow.remove_band(3);
    for seconds in [0, 100] {
        flow.prune(Instant::now() + Duration::from_secs(seconds), Duration::from_secs(50));
    }
    assert!(!metrics.encode(Format::Text).contains("priority=\"3\""));
}
