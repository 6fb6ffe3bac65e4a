//! What the dashboard's panels show: asked of Prometheus' own evaluation, with series as several pickers export them.

use serde_json::{Value, json};

use super::list;
use super::monitoring::{dashboard, promtool, series};

/// Panels with the title of their row.
fn panels(board: &Value) -> Vec<(String, &Value)> {
    let mut row = String::new();
    let mut found = Vec::new();
    for panel in list(&board["panels"]) {
        if panel["type"] == "row" {
            panel["title"].as_str().unwrap().clone_into(&mut row);
        } else {
            found.push((row.clone(), panel));
        }
    }
    found
}

/// A panel by its row and title, and one of its queries by its letter.
type Asked = (&'static str, &'static str, &'static str);

fn query(board: &Value, (row, title, letter): Asked) -> String {
    let panels = panels(board);
    let (_, panel) = panels.iter().find(|(of, panel)| of == row && panel["title"] == title).unwrap();
    let target = list(&panel["targets"]).iter().find(|target| target["refId"] == letter).unwrap();
    target["expr"].as_str().unwrap().to_owned()
}

/// Asserts what panels show after ten minutes, with one namespace chosen or all (`.*`). Series have a value each half
/// minute, in promtool's words.
fn assert_shown(namespace: &str, input: &[(&str, &str)], expected: &[(Asked, &[(&str, f64)])]) {
    let board = dashboard();
    let input: Vec<Value> =
        input.iter().map(|(series, values)| json!({"series": series, "values": values})).collect();
    let cases: Vec<Value> = expected
        .iter()
        .map(|(asked, samples)| {
            let expr = query(&board, *asked)
                .replace("$__rate_interval", "5m")
                .replace("$namespace", namespace)
                .replace("$job", ".*")
                .replace("$model", ".*");
            let samples: Vec<Value> = samples
                .iter()
                .map(|(labels, value)| json!({"labels": format!("{{{labels}}}"), "value": value}))
                .collect();
            json!({"expr": expr, "eval_time": "10m", "exp_samples": samples})
        })
        .collect();
    let test = json!({"rule_files": [], "evaluation_interval": "30s", "tests": [
        {"interval": "30s", "input_series": input, "promql_expr_test": cases}
    ]});
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("panels.test.yaml");
    std::fs::write(&file, test.to_string()).unwrap();
    promtool(&["test", "rules", file.to_str().unwrap()]);
}

#[test]
fn refused_is_the_share_that_load_or_an_empty_pool_turned_away() {
    let share = ("Now", "Refused", "A");
    let of = |code: &str, reason: &str| {
        format!(
            r#"pointsman_extproc_refusals_total{{namespace="a",job="epp",code="{code}",reason="{reason}"}}"#
        )
    };
    let (wrong, left, full) = (of("400", "invalid_body"), of("503", "client_gone"), of("429", "saturated"));
    let (broken, done) =
        (of("500", "panic"), r#"pointsman_responses_total{namespace="a",job="epp",end="complete"}"#);
    // Clients whose requests are wrong, or who leave, are no trouble of the pool.
    let healthy = [(wrong.as_str(), "0+50x20"), (&left, "0+10x20"), (&full, "0x20"), (done, "0+40x20")];
    assert_shown(".*", &healthy, &[(share, &[("", 0.0)])]);
    let loaded = [(wrong.as_str(), "0+50x20"), (&full, "0+15x20"), (&broken, "0+5x20"), (done, "0+30x20")];
    assert_shown(".*", &loaded, &[(share, &[("", 0.2)])]);
    // Everything is refused, and nothing was ever sent on.
    assert_shown(".*", &[(full.as_str(), "0+15x20")], &[(share, &[("", 1.0)])]);
}

#[test]
fn what_is_counted_now_is_zero_and_not_missing_without_traffic() {
    const COUNTED: [&str; 4] = ["Requests", "Refused", "Running", "Waiting"];
    let zeros = COUNTED.map(|title| (("Now", title, "A"), &[("", 0.0)][..]));
    // Nothing at all is there yet; then counters that nothing has moved.
    assert_shown(".*", &[], &zeros);
    let idle = [
        (
            r#"pointsman_extproc_refusals_total{namespace="a",job="epp",code="429",reason="saturated"}"#,
            "0x20",
        ),
        (r#"pointsman_responses_total{namespace="a",job="epp",end="complete"}"#, "0x20"),
        (r#"pointsman_request_errors_total{namespace="a",job="epp",error_code="Internal"}"#, "0x20"),
    ];
    assert_shown(".*", &idle, &zeros);
    let errors = ("Requests and latency", "Errors, by code", "A");
    assert_shown(".*", &idle, &[(errors, &[(r#"error_code="Internal""#, 0.0)])]);
}

#[test]
fn tenants_that_come_once_show() {
    let tenant = |name: &str, series: &str| {
        format!(
            r#"{series}{{namespace="a",job="epp",model_name="m",target_model_name="t",fairness_id="{name}",error_code="Internal"}}"#
        )
    };
    let tenants: Vec<String> = ["a", "b", "c"]
        .iter()
        .flat_map(|name| {
            ["llm_d_epp_request_total", "llm_d_epp_request_error_total"].map(|of| tenant(name, of))
        })
        .collect();
    let mut input: Vec<(&str, &str)> = tenants.iter().map(|tenant| (tenant.as_str(), "_x15 1x5")).collect();
    input.extend([
        (r#"pointsman_request_errors_total{namespace="a",job="epp",error_code="Internal"}"#, "0x14 3x6"),
        (
            r#"inference_objective_request_total{namespace="a",job="epp",model_name="m",target_model_name="t",priority="0"}"#,
            "0x14 3x6",
        ),
    ]);
    // Three in five minutes.
    let row = "Requests and latency";
    assert_shown(
        ".*",
        &input,
        &[
            ((row, "Errors, by code", "A"), &[(r#"error_code="Internal""#, 0.01)]),
            ((row, "Requests, by model", "A"), &[(r#"model_name="m",target_model_name="t""#, 0.01)]),
            ((row, "Requests, by priority", "A"), &[(r#"priority="0""#, 0.01)]),
        ],
    );
}

#[test]
fn pools_of_one_name_in_two_namespaces_have_lines_of_their_own() {
    let known = |namespace: &str| {
        format!(r#"pointsman_pool_endpoints{{namespace="{namespace}",job="epp",pod="x",name="pool"}}"#)
    };
    let waiting = |namespace: &str| {
        format!(r#"llm_d_epp_average_queue_size{{namespace="{namespace}",job="epp",pod="x",name="pool"}}"#)
    };
    let saturation = |namespace: &str| {
        format!(
            r#"llm_d_epp_flow_control_pool_saturation{{namespace="{namespace}",job="epp",inference_pool="pool",stage="effective"}}"#
        )
    };
    let series = [known("a"), known("b"), waiting("a"), waiting("b"), saturation("a"), saturation("b")];
    let input: Vec<(&str, &str)> =
        series.iter().map(String::as_str).zip(["4x20", "1x20", "2x20", "9x20", "0.5x20", "1x20"]).collect();
    let (a, b) = (r#"namespace="a",job="epp",name="pool""#, r#"namespace="b",job="epp",name="pool""#);
    let full = |namespace: &str| {
        format!(r#"namespace="{namespace}",job="epp",inference_pool="pool",stage="effective""#)
    };
    assert_shown(
        ".*",
        &input,
        &[
            (("Now", "Endpoints", "A"), &[("", 5.0)]),
            (("Pool", "Endpoints", "A"), &[(a, 4.0), (b, 1.0)]),
            (("Pool", "Waiting in the servers, mean", "A"), &[(a, 2.0), (b, 9.0)]),
            (("Flow control", "Saturation", "A"), &[(&full("a"), 0.5), (&full("b"), 1.0)]),
        ],
    );
    assert_shown("b", &input, &[(("Pool", "Endpoints", "A"), &[(b, 1.0)])]);
}

#[test]
fn no_panel_takes_the_extreme_of_several_namespaces() {
    let board = dashboard();
    let mut seen = 0;
    for (row, panel) in panels(&board) {
        for target in list(&panel["targets"]) {
            let query = target["expr"].as_str().unwrap();
            for word in ["max", "min", "avg"] {
                for (at, _) in query.match_indices(word) {
                    let behind = &query[at + word.len()..];
                    let Some(by) = behind.strip_prefix(" by (") else {
                        assert!(
                            behind.starts_with(|next: char| next.is_ascii_alphanumeric() || next == '_'),
                            "{row}: {query}"
                        );
                        continue;
                    };
                    let labels = by.split_once(')').unwrap().0;
                    assert!(labels.split(", ").any(|label| label == "namespace"), "{row}: {query}");
                    seen += 1;
                    // Two lines of one name are told apart.
                    let legend = target["legendFormat"].as_str().unwrap_or_default();
                    assert!(at > 0 || legend.contains("{{namespace}}"), "{row}: {legend}: {query}");
                }
            }
        }
    }
    assert!(seen > 20, "{seen}");
}

#[test]
fn every_query_keeps_to_the_namespace_and_the_picker_that_are_chosen() {
    let board = dashboard();
    for (row, panel) in panels(&board) {
        for target in list(&panel["targets"]) {
            let query = target["expr"].as_str().unwrap();
            for (name, labels) in series(query) {
                assert!(labels.iter().any(|label| label == "namespace"), "{row}: {name}: {query}");
                // Model servers have a job of their own.
                let is_picker = !name.starts_with("vllm:");
                assert!(!is_picker || labels.iter().any(|label| label == "job"), "{row}: {name}: {query}");
            }
        }
    }
}

#[test]
fn model_servers_of_other_namespaces_are_left_out_and_pods_of_one_name_stay_apart() {
    let running = ("Model servers (vLLM's own metrics)", "Running", "A");
    let input = [
        (r#"vllm:num_requests_running{namespace="a",pod="server-0",model_name="m"}"#, "3x20"),
        (r#"vllm:num_requests_running{namespace="b",pod="server-0",model_name="m"}"#, "8x20"),
    ];
    let (a, b) = (r#"namespace="a",pod="server-0""#, r#"namespace="b",pod="server-0""#);
    assert_shown("a", &input, &[(running, &[(a, 3.0)])]);
    assert_shown(".*", &input, &[(running, &[(a, 3.0), (b, 8.0)])]);
}

#[test]
fn a_standby_neither_doubles_the_endpoints_nor_hides_what_the_leader_sees() {
    let leader = r#"namespace="a",job="epp",pod="leader""#;
    let standby = r#"namespace="a",job="epp",pod="standby""#;
    let series = [
        (format!("pointsman_leader{{{leader}}}"), "1x20"),
        (format!("pointsman_leader{{{standby}}}"), "0x20"),
        (format!("pointsman_pool_endpoints{{{leader},name=\"pool\"}}"), "4x20"),
        (format!("pointsman_pool_endpoints{{{standby},name=\"pool\"}}"), "4x20"),
        (format!("llm_d_epp_ready_endpoints{{{leader},name=\"pool\"}}"), "1x20"),
        (format!("llm_d_epp_ready_endpoints{{{standby},name=\"pool\"}}"), "4x20"),
        (format!("pointsman_scrape_state{{{leader},state=\"fresh\"}}"), "1x20"),
        (format!("pointsman_scrape_state{{{leader},state=\"failing\"}}"), "3x20"),
        (format!("pointsman_scrape_state{{{standby},state=\"fresh\"}}"), "4x20"),
        (format!("pointsman_scrape_state{{{standby},state=\"failing\"}}"), "0x20"),
    ];
    let input: Vec<(&str, &str)> = series.iter().map(|(series, values)| (series.as_str(), *values)).collect();
    let pool = r#"namespace="a",job="epp",name="pool""#;
    let states = [(r#"state="fresh""#, 1.0), (r#"state="failing""#, 3.0)];
    let expected: &[(Asked, &[(&str, f64)])] = &[
        (("Now", "Endpoints", "A"), &[("", 4.0)]),
        (("Now", "… with fresh metrics", "A"), &[("", 1.0)]),
        (("Pool", "Endpoints", "B"), &[(pool, 1.0)]),
        (("Data layer", "Endpoints, by state of their scraping", "A"), &states),
    ];
    assert_shown(".*", &input, expected);
    // Without an election, and without Kubernetes, there is no leader to ask.
    let alone: Vec<(&str, &str)> =
        input.iter().skip(2).copied().filter(|(series, _)| series.contains("leader")).collect();
    assert_shown(".*", &alone, expected);
}
