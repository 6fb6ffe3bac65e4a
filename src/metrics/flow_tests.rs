//! The series of waiting requests on the page.

use super::*;
use crate::flow::Outcome;
use crate::metrics::cardinality::VALUES;
use crate::metrics::{FlowMetrics, Format, Metrics};

const SIZE: &str = "flow_control_queue_size";

fn labels<'l>(fairness_id: &'l str, model: &'l str, priority: i32) -> RequestLabels<'l> {
    RequestLabels { model, target_model: model, fairness_id, priority }
}

/// Lines of the page that hold `part`, under the current name.
fn lines(metrics: &Metrics, part: &str) -> Vec<String> {
    let page = metrics.encode(Format::Text);
    let wanted = page.lines().filter(|line| line.starts_with("llm_d_epp_") && line.contains(part));
    wanted.map(str::to_owned).collect()
}

fn flow() -> (Metrics, FlowMetrics) {
    let metrics = Metrics::new();
    let flow = metrics.flow("pool", [0, -1]);
    (metrics, flow)
}

#[test]
fn configured_bands_show_zero_from_the_start_under_both_names() {
    let (metrics, _flow) = flow();
    let page = metrics.encode(Format::Text);
    for prefix in ["llm_d_epp", "inference_extension"] {
        for name in ["queue_size", "queue_bytes"] {
            for priority in [0, -1] {
                let line = format!(
                    "{prefix}_flow_control_{name}{{fairness_id=\"default-flow\",inference_pool=\"pool\",model_name=\"\",priority=\"{priority}\",target_model_name=\"\"}} 0\n"
                );
                assert!(page.contains(&line), "{line}");
            }
        }
    }
    assert_eq!(lines(&metrics, "capacity_utilization_requests{").len(), 2);
    assert_eq!(lines(&metrics, "global_capacity").len(), 0);
}

#[test]
fn a_request_counts_until_it_is_finished() {
    let (metrics, flow) = flow();
    let guard = flow.enqueued(labels("f", "m", 0), 300, Instant::now());
    guard.queueing_took(0, None, Duration::from_micros(10));
    let waiting =
        "{fairness_id=\"f\",inference_pool=\"pool\",model_name=\"m\",priority=\"0\",target_model_name=\"m\"}";
    assert_eq!(lines(&metrics, &format!("queue_size{waiting}")), [format!("llm_d_epp_{SIZE}{waiting} 1")]);
    assert!(lines(&metrics, &format!("queue_bytes{waiting}"))[0].ends_with(" 300"));
    guard.finish(0, Outcome::Dispatched, Duration::from_millis(20));
    assert!(lines(&metrics, &format!("queue_size{waiting}"))[0].ends_with(" 0"));
    assert!(lines(&metrics, &format!("queue_bytes{waiting}"))[0].ends_with(" 0"));
    let total =
        "flow_control_requests_total{inference_pool=\"pool\",outcome=\"Dispatched\",priority=\"0\"} 1";
    assert_eq!(lines(&metrics, total).len(), 1);
    assert_eq!(lines(&metrics, "request_queue_duration_seconds_count{fairness_id=\"f\"").len(), 1);
    let admitted = "request_enqueue_duration_seconds_count{fairness_id=\"f\",outcome=\"NotYetFinalized\",priority=\"0\"} 1";
    assert_eq!(lines(&metrics, admitted).len(), 1);
}

#[test]
fn a_guard_dropped_unfinished_counts_as_cancelled() {
    let (metrics, flow) = flow();
    drop(flow.enqueued(labels("f", "m", -1), 1, Instant::now()));
    let total =
        "requests_total{inference_pool=\"pool\",outcome=\"EvictedContextCancelled\",priority=\"-1\"} 1";
    assert_eq!(lines(&metrics, total).len(), 1);
    let sizes = lines(&metrics, SIZE);
    assert!(!sizes.is_empty() && sizes.iter().all(|line| line.ends_with(" 0")), "{sizes:?}");
}

#[test]
fn a_priority_without_a_band_waits_in_another_one_and_says_so() {
    let (metrics, flow) = flow();
    let guard = flow.enqueued(labels("f", "m", 7), 1, Instant::now());
    assert_eq!(
        lines(&metrics, &format!("{SIZE}{{fairness_id=\"f\""))[0].matches("priority=\"7\"").count(),
        1
    );
    guard.finish(0, Outcome::Dispatched, Duration::ZERO);
    let duration = lines(&metrics, "request_queue_duration_seconds_count{fairness_id=\"f\"");
    assert!(duration.len() == 1 && duration[0].contains("priority=\"0\""), "{duration:?}");
    let counted = "requests_total{inference_pool=\"pool\",outcome=\"Dispatched\",priority=\"7\"} 1";
    assert_eq!(lines(&metrics, counted).len(), 1);
}

#[test]
fn idle_flows_go_and_bands_and_waiting_requests_stay() {
    let (metrics, flow) = flow();
    let start = Instant::now();
    let idle = Duration::from_mins(5);
    let waiting = flow.enqueued(labels("waiting", "m", 0), 1, start);
    flow.enqueued(labels("gone", "m", 0), 1, start).finish(0, Outcome::EvictedTtl, Duration::ZERO);
    let enqueued = flow.enqueued(labels("gone", "n", 0), 1, start);
    enqueued.queueing_took(0, None, Duration::ZERO);
    enqueued.finish(0, Outcome::Dispatched, Duration::ZERO);
    flow.prune(start, idle);
    flow.prune(start + Duration::from_secs(299), idle);
    assert!(!lines(&metrics, "\"gone\"").is_empty());
    flow.prune(start + Duration::from_mins(5), idle);
    assert_eq!(lines(&metrics, "\"gone\""), [""; 0]);
    assert_eq!(lines(&metrics, SIZE).len(), 3, "two bands and one flow");
    waiting.finish(0, Outcome::Dispatched, Duration::ZERO);
    flow.prune(start + Duration::from_secs(400), idle);
    // Use starts the time anew.
    drop(flow.enqueued(labels("waiting", "m", 0), 1, start));
    flow.prune(start + Duration::from_secs(700), idle);
    assert!(!lines(&metrics, "\"waiting\"").is_empty());
    flow.prune(start + Duration::from_secs(1000), idle);
    assert_eq!(lines(&metrics, "\"waiting\""), [""; 0]);
    flow.remove_band(-1);
    flow.prune(start + Duration::from_secs(2000), idle);
    flow.prune(start + Duration::from_mins(50), idle);
    let left = lines(&metrics, SIZE);
    assert!(left.len() == 1 && left[0].contains("priority=\"0\""), "{left:?}");
    assert_eq!(lines(&metrics, "capacity_utilization_bytes{").len(), 1);
}

#[test]
fn a_pruned_flow_that_comes_back_counts_from_zero() {
    let (metrics, flow) = flow();
    let start = Instant::now();
    flow.enqueued(labels("f", "m", 0), 9, start).finish(0, Outcome::Dispatched, Duration::ZERO);
    flow.prune(start, Duration::ZERO);
    let guard = flow.enqueued(labels("f", "m", 0), 9, start);
    assert!(lines(&metrics, &format!("{SIZE}{{fairness_id=\"f\""))[0].ends_with(" 1"));
    guard.finish(0, Outcome::Dispatched, Duration::ZERO);
    assert!(lines(&metrics, &format!("{SIZE}{{fairness_id=\"f\""))[0].ends_with(" 0"));
}

#[test]
fn label_values_are_bounded_and_every_gauge_returns_to_zero() {
    let (metrics, flow) = flow();
    let guards: Vec<QueuedGuard> = (0..6000)
        .map(|i| {
            let (fairness, model) = (format!("f{}", i % 3000), format!("m{}", i % 7));
            flow.enqueued(labels(&fairness, &model, i % 2 - 1), 10, Instant::now())
        })
        .collect();
    assert!(lines(&metrics, SIZE).len() <= 30_000 / 100 * 5 / 4 + PRIORITIES + 2);
    assert!(lines(&metrics, &format!("{SIZE}{{fairness_id=\"other\"")).len() > 1);
    drop(guards);
    let sizes = lines(&metrics, SIZE);
    assert!(!sizes.is_empty() && sizes.iter().all(|line| line.ends_with(" 0")), "{sizes:?}");
}

#[test]
fn a_stage_without_endpoints_has_no_series() {
    let (metrics, flow) = flow();
    flow.saturation(Some(1.1), Some(0.4), 1.1);
    assert_eq!(lines(&metrics, "pool_saturation{").len(), 3);
    flow.saturation(None, Some(0.4), 0.4);
    let stages = lines(&metrics, "pool_saturation{");
    assert!(stages.len() == 2 && stages.iter().all(|line| line.ends_with(" 0.4")), "{stages:?}");
}

#[test]
fn programs_beyond_the_bound_share_a_series_and_forgotten_ones_go() {
    let (metrics, flow) = flow();
    flow.program("p", Duration::from_millis(1500), 30.0);
    let wait = "llm_d_epp_program_aware_avg_wait_time_milliseconds{program_id=\"p\"} 1500";
    assert_eq!(lines(&metrics, "avg_wait"), [wait]);
    flow.forget_program("p");
    assert_eq!(lines(&metrics, "program_id"), [""; 0]);
}

#[test]
fn forgetting_a_program_takes_no_place_and_leaves_the_series_of_all_others() {
    let (metrics, flow) = flow();
    for number in 0..VALUES - 1 {
        flow.forget_program(&format!("never seen {number}"));
    }
    for number in 0..VALUES {
        flow.program(&format!("p{number}"), Duration::from_millis(1), 1.0);
    }
    assert_eq!(lines(&metrics, "avg_wait").len(), VALUES, "every program has a place of its own");
    flow.program("one too many", Duration::from_millis(7), 2.0);
    flow.forget_program("one too many");
    assert_eq!(lines(&metrics, "program_id=\"other\"").len(), 2, "others still stand behind it");
    flow.forget_program("p0");
    assert_eq!(lines(&metrics, "program_id=\"p0\""), [""; 0]);
}
