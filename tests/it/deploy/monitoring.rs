//! The alerts pass their tests, and both they and the dashboard ask for what exists.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::{documents, list, read, run, tool};
use crate::support::{EndpointsFile, Pointsman, SCORERS, config};

pub(super) fn dashboard() -> Value {
    serde_json::from_str(&read("deploy/monitoring/dashboard.json")).unwrap()
}

pub(super) fn promtool(args: &[&str]) {
    let tool = tool(&["target/prometheus/usr/bin/promtool", "/usr/bin/promtool"]);
    let (good, out, error) = run(&tool, args);
    assert!(good, "{out}{error}");
}

fn rules() -> Vec<Value> {
    let alerts = &documents(&read("deploy/monitoring/alerts.yaml"))[0];
    list(&alerts["groups"]).iter().flat_map(|group| list(&group["rules"]).to_vec()).collect()
}

#[test]
fn alerts_pass_their_tests_and_each_fires_in_one_and_keeps_quiet_in_others() {
    promtool(&["check", "rules", "deploy/monitoring/alerts.yaml"]);
    promtool(&["test", "rules", "deploy/monitoring/alerts.test.yaml"]);
    let tests = &documents(&read("deploy/monitoring/alerts.test.yaml"))[0];
    let cases = |test: &Value| list(&test["alert_rule_test"]).to_vec();
    let named = |case: &Value| case["alertname"].as_str().unwrap().to_owned();
    let all = list(&tests["tests"]).iter().flat_map(cases);
    let fired: BTreeSet<String> =
        all.filter(|case| !list(&case["exp_alerts"]).is_empty()).map(|case| named(&case)).collect();
    let quiet = list(&tests["tests"])
        .iter()
        .filter(|test| test["name"].as_str().unwrap().contains("alerts nobody"))
        .map(|test| cases(test).iter().map(named).collect::<BTreeSet<_>>());
    let quiet: Vec<BTreeSet<String>> = quiet.filter(|silent| silent.len() > 10).collect();
    assert_eq!(quiet.len(), 2, "a pool that is well, and one at zero");
    for rule in rules() {
        let name = rule["alert"].as_str().unwrap();
        assert!(fired.contains(name), "no test in which {name} fires");
        assert!(quiet.iter().all(|silent| silent.contains(name)), "nobody tests that {name} keeps quiet");
    }
}

#[test]
fn an_alert_tells_pickers_and_namespaces_apart_and_none_waits_for_all_pickers_to_be_gone() {
    for rule in rules() {
        let (name, query) = (rule["alert"].as_str().unwrap(), rule["expr"].as_str().unwrap());
        let lists: Vec<&str> = query
            .match_indices("by (")
            .map(|(at, by)| query[at + by.len()..].split_once(')').unwrap().0)
            .collect();
        assert!(!lists.is_empty(), "{name}");
        for labels in lists {
            let labels: BTreeSet<&str> = labels.split(", ").collect();
            assert!(labels.is_superset(&["namespace", "job"].into()), "{name}: {labels:?}");
        }
        // Alone, it needs every picker of every pool gone.
        assert!(!query.trim_start().starts_with("absent"), "{name}: {query}");
    }
}

#[test]
fn panels_have_ids_of_their_own_and_ask_the_data_source_that_is_chosen() {
    let board = dashboard();
    let panels = list(&board["panels"]);
    let ids: BTreeSet<u64> = panels.iter().map(|panel| panel["id"].as_u64().unwrap()).collect();
    assert_eq!(ids.len(), panels.len());
    let variables: BTreeSet<&str> = list(&board["templating"]["list"])
        .iter()
        .map(|variable| variable["name"].as_str().unwrap())
        .collect();
    assert!(variables.contains("datasource"));
    for panel in panels {
        for asks in std::iter::once(panel).chain(list(&panel["targets"])) {
            assert_eq!(asks["datasource"]["uid"], "${datasource}", "{}", panel["title"]);
        }
    }
    // Prometheus reads every query, with something in the place of Grafana's own words.
    let records: Vec<Value> = queries()
        .iter()
        .filter(|query| !query.starts_with("label_values"))
        .enumerate()
        .map(|(number, query)| {
            json!({"record": format!("query:{number}"), "expr": query.replace("$__rate_interval", "5m")})
        })
        .collect();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("rules.yaml");
    std::fs::write(&file, json!({"groups": [{"name": "dashboard", "rules": records}]}).to_string()).unwrap();
    promtool(&["check", "rules", file.to_str().unwrap()]);
}

/// Queries of the dashboard and the alerts.
fn queries() -> Vec<String> {
    let board = dashboard();
    let panels = list(&board["panels"]).iter().flat_map(|panel| list(&panel["targets"]));
    let panels = panels.map(|target| target["expr"].clone());
    let variables = list(&board["templating"]["list"]).iter().map(|variable| variable["definition"].clone());
    let alerts = rules().into_iter().map(|rule| rule["expr"].clone());
    panels.chain(variables).chain(alerts).filter_map(|query| query.as_str().map(str::to_owned)).collect()
}

/// Series that a query names, each with the labels that it matches on.
pub(super) fn series(query: &str) -> Vec<(String, Vec<String>)> {
    const LISTS: &[&str] = &["by", "without", "on", "ignoring", "group_left", "group_right"];
    const OPERATORS: &[&str] = &["and", "or", "unless", "bool", "offset"];
    let mut found = Vec::new();
    let mut rest = query;
    while let Some(first) = rest.chars().next() {
        let is_word = |letter: char| letter.is_ascii_alphanumeric() || letter == '_' || letter == ':';
        match first {
            '[' => rest = rest.split_once(']').unwrap().1,
            '0'..='9' => rest = rest.trim_start_matches(|letter: char| is_word(letter) || letter == '.'),
            'a'..='z' | 'A'..='Z' | '_' => {
                let (word, behind) =
                    rest.split_at(rest.find(|letter| !is_word(letter)).unwrap_or(rest.len()));
                let behind = behind.trim_start();
                rest = behind;
                if LISTS.contains(&word) {
                    rest = behind.split_once(')').unwrap().1;
                } else if word == "label_values" {
                    // The label is no series.
                    rest = behind.rsplit_once(',').unwrap().0;
                } else if let Some(inside) = behind.strip_prefix('{') {
                    let (matchers, behind) = inside.split_once('}').unwrap();
                    let labels =
                        matchers.split(',').map(|one| one.split(['=', '!']).next().unwrap().to_owned());
                    found.push((word.to_owned(), labels.collect()));
                    rest = behind;
                } else if !behind.starts_with('(')
                    && !LISTS.contains(&behind.split(' ').next().unwrap())
                    && !OPERATORS.contains(&word)
                {
                    found.push((word.to_owned(), Vec::new()));
                }
            }
            _ => rest = &rest[first.len_utf8()..],
        }
    }
    found
}

/// Series of the program and of a real vLLM, each with its labels.
fn known() -> BTreeMap<String, BTreeSet<String>> {
    let mut known: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for line in include_str!("../../data/metrics_golden.txt").lines() {
        let (kind, rest) = line.split_once(' ').unwrap();
        let (name, labels) = rest.split_once('{').unwrap();
        let labels: BTreeSet<String> =
            labels.split_once('}').unwrap().0.split(',').map(str::to_owned).collect();
        let endings: &[&str] = if kind == "histogram" { &["_bucket", "_sum", "_count"] } else { &[""] };
        known.extend(endings.iter().map(|ending| (format!("{name}{ending}"), labels.clone())));
        if kind == "histogram" {
            known.entry(format!("{name}_bucket")).or_default().insert("le".to_owned());
        }
    }
    for line in
        include_str!("../../data/vllm-0.32.0/metrics.txt").lines().filter(|line| !line.starts_with('#'))
    {
        let Some((name, labels)) = line.split_once('{') else { continue };
        let labels = labels.split("\",").filter_map(|pair| Some(pair.split_once('=')?.0.to_owned()));
        known.entry(name.to_owned()).or_default().extend(labels);
    }
    // Of every process, by the metrics library.
    known.extend(
        ["process_cpu_seconds_total", "process_resident_memory_bytes", "process_start_time_seconds"]
            .map(|name| (name.to_owned(), BTreeSet::new())),
    );
    // Of every target, by Prometheus.
    known.insert("up".to_owned(), BTreeSet::new());
    known
}

#[test]
fn series_are_found_in_a_query() {
    let found = series(r#"1e3 * sum by (a, b) (rate(x:y{c="1",d!~"2"}[5m])) or on (e) z_total > 0.5"#);
    assert_eq!(
        found,
        [("x:y".to_owned(), vec!["c".to_owned(), "d".to_owned()]), ("z_total".to_owned(), vec![])]
    );
}

#[test]
fn the_dashboard_and_the_alerts_ask_for_series_that_exist() {
    // What a scrape adds.
    const OF_THE_TARGET: &[&str] = &["namespace", "job"];
    let known = known();
    let mut wrong = BTreeSet::new();
    for query in queries() {
        for (name, labels) in series(&query) {
            let Some(has) = known.get(&name) else {
                wrong.insert(format!("there is no {name}: {query}"));
                continue;
            };
            let unknown = labels
                .iter()
                .filter(|&label| !has.contains(label) && !OF_THE_TARGET.contains(&label.as_str()));
            wrong.extend(unknown.map(|label| format!("{name} has no label {label}: {query}")));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_alerts_count_is_there_before_the_first_request() {
    // Of clients, and of the Kubernetes side, which does not run here.
    const NOT_YET: [&str; 2] = ["model_name", "fairness_id"];
    const OF_KUBERNETES: [&str; 3] = ["pointsman_leader", "pointsman_discovery", "pointsman_status"];
    // It is there where the precise prefix cache is configured, and the test of that looks for it.
    const OF_A_PLUGIN: &str = "pointsman_prefix_fallbacks_total";
    let endpoints = EndpointsFile::with([("a", "127.0.0.1:9".parse().unwrap())]);
    let pointsman = Pointsman::start(&config(&endpoints.path(), SCORERS), &[]).await;
    let known = known();
    let mut counted = BTreeSet::from(["process_start_time_seconds".to_owned()]);
    for rule in rules() {
        for (name, _) in series(rule["expr"].as_str().unwrap()) {
            let of_clients = NOT_YET.iter().any(|label| known[&name].contains(*label));
            let of_kubernetes = OF_KUBERNETES.iter().any(|start| name.starts_with(start));
            if name.ends_with("_total") && !of_clients && !of_kubernetes && name != OF_A_PLUGIN {
                counted.insert(name);
            }
        }
    }
    assert!(counted.len() > 5, "{counted:?}");
    for name in counted {
        assert!(pointsman.metric(&name, &[]).await.is_some(), "{name}");
    }
    // The labels that rules ask for.
    for (name, label, value) in [
        ("pointsman_extproc_refusals_total", "reason", "no_endpoints"),
        ("pointsman_extproc_refusals_total", "reason", "ttl_expired"),
        ("pointsman_extproc_refusals_total", "reason", "client_gone"),
        ("pointsman_request_errors_total", "error_code", "Internal"),
        ("pointsman_responses_total", "end", "error_status"),
        ("pointsman_responses_total", "end", "error_event"),
        ("pointsman_reloads_total", "outcome", "failure"),
    ] {
        assert_eq!(pointsman.metric(name, &[(label, value)]).await, Some(0.0), "{name} {label} {value}");
    }
}
