//! The alerts pass their tests, and both they and the dashboard ask for what exists.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::{documents, list, read, run, tool};

pub(super) fn dashboard() -> Value {
    serde_json::from_str(&read("deploy/monitoring/dashboard.json")).unwrap()
}

fn promtool(args: &[&str]) {
    let tool = tool(&["target/prometheus/usr/bin/promtool", "/usr/bin/promtool"]);
    let (good, out, error) = run(&tool, args);
    assert!(good, "{out}{error}");
}

fn rules() -> Vec<Value> {
    let alerts = &documents(&read("deploy/monitoring/alerts.yaml"))[0];
    list(&alerts["groups"]).iter().flat_map(|group| list(&group["rules"]).to_vec()).collect()
}

#[test]
fn alerts_pass_their_tests_and_each_is_tested() {
    promtool(&["check", "rules", "deploy/monitoring/alerts.yaml"]);
    promtool(&["test", "rules", "deploy/monitoring/alerts.test.yaml"]);
    let tests = &documents(&read("deploy/monitoring/alerts.test.yaml"))[0];
    let cases = list(&tests["tests"]).iter().flat_map(|test| list(&test["alert_rule_test"]));
    let fired: BTreeSet<&str> = cases
        .filter(|case| !list(&case["exp_alerts"]).is_empty())
        .map(|case| case["alertname"].as_str().unwrap())
        .collect();
    for rule in rules() {
        assert!(fired.contains(rule["alert"].as_str().unwrap()), "no test in which {} fires", rule["alert"]);
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
fn series(query: &str) -> Vec<(String, Vec<String>)> {
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
        ["process_cpu_seconds_total", "process_resident_memory_bytes"]
            .map(|name| (name.to_owned(), BTreeSet::new())),
    );
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
