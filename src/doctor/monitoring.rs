//! The series that dashboards and alerts need, and the names that they use for them.

use serde_json::Value;

use super::page::Page;
use super::{Family, Finding, Rule};

const FAMILY: Family = Family::Monitoring;

const ABSENT: Rule = Rule::warning(
    "series-absent",
    FAMILY,
    "A series that the shipped dashboard and alerts need is not on the picker's metrics page.",
    "Panels stay empty, and alerts never fire.",
);
const OLDER_NAME: Rule = Rule::warning(
    "series-renamed",
    FAMILY,
    "A dashboard or an alert uses the older name of a series.",
    "A later version will not export it, and the panel or the alert then shows nothing.",
);

/// The rules of this file.
pub const RULES: &[&Rule] = &[&ABSENT, &OLDER_NAME];

/// The time from which a series exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum From {
    /// From the start of the process.
    Start,
    /// From the time when the pool first has an endpoint.
    Endpoint,
    /// From the time when a request was first answered.
    Request,
    /// From the start of a process with flow control.
    FlowControl,
}

/// The series that the shipped dashboard and alerts read, and the time from which each exists.
const NEEDED: &[(&str, From)] = &[
    ("llm_d_epp_info", From::Start),
    ("llm_d_epp_ready_endpoints", From::Start),
    ("llm_d_epp_request_running", From::Start),
    ("pointsman_bound_hits_total", From::Start),
    ("pointsman_extproc_refusals_total", From::Start),
    ("pointsman_metric_labels_folded_total", From::Start),
    ("pointsman_pool_endpoints", From::Start),
    ("pointsman_request_errors_total", From::Start),
    ("pointsman_responses_total", From::Start),
    ("pointsman_stream_panics_total", From::Start),
    ("pointsman_streams", From::Start),
    ("llm_d_epp_average_kv_cache_utilization", From::Endpoint),
    ("llm_d_epp_average_queue_size", From::Endpoint),
    ("llm_d_epp_per_endpoint_queue_size", From::Endpoint),
    ("pointsman_endpoint_in_flight_requests", From::Endpoint),
    ("llm_d_epp_request_total", From::Request),
    ("llm_d_epp_scheduler_e2e_duration_seconds", From::Request),
    ("llm_d_epp_flow_control_pool_saturation", From::FlowControl),
    ("llm_d_epp_flow_control_queue_size", From::FlowControl),
    ("llm_d_epp_flow_control_requests_total", From::FlowControl),
];

/// The older names of series, with their present names.
const OLDER: &[(&str, &str)] = &[
    (
        "inference_extension_flow_control_dispatch_cycle_duration_seconds",
        "llm_d_epp_flow_control_dispatch_cycle_duration_seconds",
    ),
    ("inference_extension_flow_control_pool_saturation", "llm_d_epp_flow_control_pool_saturation"),
    ("inference_extension_flow_control_queue_bytes", "llm_d_epp_flow_control_queue_bytes"),
    ("inference_extension_flow_control_queue_size", "llm_d_epp_flow_control_queue_size"),
    (
        "inference_extension_flow_control_request_enqueue_duration_seconds",
        "llm_d_epp_flow_control_request_enqueue_duration_seconds",
    ),
    (
        "inference_extension_flow_control_request_queue_duration_seconds",
        "llm_d_epp_flow_control_request_queue_duration_seconds",
    ),
    ("inference_extension_plugin_duration_seconds", "llm_d_epp_plugin_duration_seconds"),
    ("inference_extension_prefix_indexer_hit_bytes", "llm_d_epp_prefix_indexer_hit_bytes"),
    ("inference_extension_prefix_indexer_hit_ratio", "llm_d_epp_prefix_indexer_hit_ratio"),
    ("inference_extension_prefix_indexer_size", "llm_d_epp_prefix_indexer_size"),
    ("inference_extension_scheduler_attempts_total", "llm_d_epp_scheduler_attempts_total"),
    ("inference_extension_scheduler_e2e_duration_seconds", "llm_d_epp_scheduler_e2e_duration_seconds"),
    ("inference_objective_inference_request_metric", "llm_d_epp_inference_request_metric"),
    ("inference_objective_input_tokens", "llm_d_epp_request_input_tokens"),
    ("inference_objective_normalized_time_per_output_token_seconds", "llm_d_epp_request_ntpot_seconds"),
    ("inference_objective_output_tokens", "llm_d_epp_request_output_tokens"),
    ("inference_objective_prompt_cached_tokens", "llm_d_epp_request_cached_tokens"),
    ("inference_objective_request_duration_seconds", "llm_d_epp_request_duration_seconds"),
    ("inference_objective_request_error_total", "llm_d_epp_request_error_total"),
    ("inference_objective_request_predicted_tpot_seconds", "llm_d_epp_request_predicted_tpot_seconds"),
    ("inference_objective_request_predicted_ttft_seconds", "llm_d_epp_request_predicted_ttft_seconds"),
    ("inference_objective_request_sizes", "llm_d_epp_request_size_bytes"),
    ("inference_objective_request_slo_violation_total", "llm_d_epp_request_slo_violation_total"),
    ("inference_objective_request_total", "llm_d_epp_request_total"),
    (
        "inference_objective_request_tpot_prediction_duration_seconds",
        "llm_d_epp_request_tpot_prediction_duration_seconds",
    ),
    ("inference_objective_request_tpot_seconds", "llm_d_epp_request_streaming_tpot_seconds"),
    (
        "inference_objective_request_ttft_prediction_duration_seconds",
        "llm_d_epp_request_ttft_prediction_duration_seconds",
    ),
    ("inference_objective_request_ttft_seconds", "llm_d_epp_request_ttft_seconds"),
    ("inference_objective_response_sizes", "llm_d_epp_response_size_bytes"),
    ("inference_objective_running_requests", "llm_d_epp_request_running"),
    ("inference_pool_average_kv_cache_utilization", "llm_d_epp_average_kv_cache_utilization"),
    ("inference_pool_average_queue_size", "llm_d_epp_average_queue_size"),
    ("inference_pool_average_running_requests", "llm_d_epp_average_running_requests"),
    ("inference_pool_per_pod_queue_size", "llm_d_epp_per_endpoint_queue_size"),
    ("inference_pool_ready_pods", "llm_d_epp_ready_endpoints"),
    ("llm_d_inference_scheduler_datalayer_extract_errors_total", "llm_d_epp_datalayer_extract_errors_total"),
    ("llm_d_inference_scheduler_datalayer_poll_errors_total", "llm_d_epp_datalayer_poll_errors_total"),
    ("llm_d_inference_scheduler_disagg_decision_total", "llm_d_epp_disagg_decision_total"),
    ("llm_d_inference_scheduler_pd_decision_total", "llm_d_epp_pd_decision_total"),
];

/// Reports the series that should be on the page of a running picker and are not.
pub fn absent(url: &str, page: &Page, pool: &Value) -> Vec<Finding> {
    let endpoints = pool["endpoints"].as_array().is_some_and(|endpoints| !endpoints.is_empty());
    let answered = page.sum("pointsman_responses_total", Some(("end", "complete"))).unwrap_or(0.0) > 0.0;
    let flow_control = page.has("llm_d_epp_flow_control_capacity_utilization_requests");
    let due = |from: From| match from {
        From::Start => true,
        From::Endpoint => endpoints,
        From::Request => answered,
        From::FlowControl => flow_control,
    };
    let absent: Vec<&str> =
        NEEDED.iter().filter(|(name, from)| due(*from) && !page.has(name)).map(|(name, _)| *name).collect();
    if absent.is_empty() {
        return Vec::new();
    }
    vec![ABSENT.found(
        url,
        format!("{} are absent", absent.join(", ")),
        "`--max-metric-series` and `--max-metrics-bytes` large enough, and a picker of the version that the dashboard came with",
    )]
}

/// Reports the older names in a file of alerts or a dashboard.
pub fn older_names(file: &str, text: &str) -> Vec<Finding> {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b':';
    let mut found: Vec<(usize, &str, &str)> = Vec::new();
    for (number, line) in text.lines().enumerate() {
        for name in line.split(|character: char| !character.is_ascii() || !word(character as u8)) {
            let base =
                ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name);
            let row = OLDER.iter().find(|(older, _)| *older == name || *older == base);
            if let Some((older, new)) =
                row.filter(|(older, _)| found.iter().all(|(_, seen, _)| seen != older))
            {
                found.push((number + 1, older, new));
            }
        }
    }
    found
        .into_iter()
        .map(|(line, older, new)| {
            OLDER_NAME.found(
                format!("{file}:{line}"),
                format!("{older} is called {new} today"),
                format!("`{new}`"),
            )
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const SHIPPED: [&str; 2] = [
        include_str!("../../deploy/monitoring/alerts.yaml"),
        include_str!("../../deploy/monitoring/dashboard.json"),
    ];

    #[test]
    fn each_needed_series_is_one_that_the_shipped_dashboard_or_alerts_read() {
        for (name, _) in NEEDED {
            assert!(SHIPPED.iter().any(|text| text.contains(name)), "{name}");
        }
    }

    #[test]
    fn the_older_names_are_those_of_the_page_of_metrics() {
        let page = include_str!("../../docs/metrics.md");
        let mut told = Vec::new();
        for section in page.split("\n### `").skip(1) {
            let name = section.split('`').next().unwrap();
            for older in section.split("Older name: `").skip(1) {
                told.push((older.split('`').next().unwrap(), name));
            }
        }
        told.sort_unstable();
        assert_eq!(told, OLDER);
    }

    #[test]
    fn older_names_are_told_once_with_their_line_and_new_name() {
        let text = "a\nexpr: rate(inference_objective_request_sizes_bucket[5m]) + x_inference_pool_ready_pods\n\
                    b: inference_pool_ready_pods{name=\"p\"} + inference_pool_ready_pods\n";
        let found = older_names("f", text);
        let told: Vec<(&str, &str)> =
            found.iter().map(|it| (it.subject.as_str(), it.mend.as_str())).collect();
        assert_eq!(told, [("f:2", "`llm_d_epp_request_size_bytes`"), ("f:3", "`llm_d_epp_ready_endpoints`")]);
    }

    #[test]
    fn what_is_absent_is_told_only_once_it_is_due() {
        let all: Vec<String> = NEEDED.iter().map(|(name, _)| format!("{name}{{}} 1\n")).collect();
        let all = all.concat();
        let pool = json!({"endpoints": [{}]});
        assert!(absent("u", &Page::new(all.clone()), &pool).is_empty());
        let without = all.replace("llm_d_epp_per_endpoint_queue_size{} 1\n", "");
        assert_eq!(absent("u", &Page::new(without.clone()), &pool).len(), 1);
        assert!(absent("u", &Page::new(without), &json!({"endpoints": []})).is_empty());
    }
}
