//! The autoscaling recipes: what they ask for exists, and a real Prometheus answers it with the right number.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use pointsman::scaler::{Metric, Trigger};
use serde_json::Value;

use crate::support::{Prometheus, Recorder, Target, program};

/// Name of the pool in the recipes.
pub(crate) const POOL: &str = "vllm-llama3-8b-instruct";
const PICKER: &str = "vllm-llama3-8b-instruct-epp";
const MODEL: &str = "meta-llama/Llama-3.1-8B-Instruct";

/// Labels that scraping adds, in one installation or another.
const OF_THE_TARGET: &[&str] =
    &["job", "instance", "namespace", "pod", "service", "top_level_controller_name"];

/// Words of PromQL that look like a series.
const WORDS: &[&str] =
    &["or", "and", "unless", "by", "without", "on", "ignoring", "group_left", "group_right"];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/autoscaling")
}

/// Every YAML document of the recipes, with the file it is in.
fn documents() -> Vec<(String, Value)> {
    let mut found = Vec::new();
    let mut folders = vec![folder()];
    while let Some(inside) = folders.pop() {
        for entry in std::fs::read_dir(&inside).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            if path.extension().is_none_or(|extension| extension != "yaml") {
                continue;
            }
            let name = path.strip_prefix(folder()).unwrap().display().to_string();
            let text = std::fs::read_to_string(&path).unwrap();
            let documents: Vec<Value> =
                serde_saphyr::from_multiple(&text).unwrap_or_else(|error| panic!("{name}: {error}"));
            found.extend(documents.into_iter().map(|document| (name.clone(), document)));
        }
    }
    found.sort_by(|one, other| one.0.cmp(&other.0));
    found
}

fn document(name: &str) -> Value {
    let mut all = documents().into_iter().filter(|(file, _)| file == name).map(|(_, document)| document);
    all.next().unwrap_or_else(|| panic!("no {name}"))
}

fn list<'a>(value: &'a Value, field: &str) -> &'a [Value] {
    value[field].as_array().map_or(&[], Vec::as_slice)
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_else(|| panic!("no text {field} in {value}"))
}

/// A query of a recipe.
pub(crate) struct Query {
    /// File and place. Those that an adapter only looks for series with end in ` series`.
    pub(crate) name: String,
    /// The query.
    pub(crate) promql: String,
}

/// All queries of the recipes.
pub(crate) fn queries() -> Vec<Query> {
    let mut found = Vec::new();
    for (file, document) in documents() {
        for (number, trigger) in list(&document["spec"], "triggers").iter().enumerate() {
            if trigger["type"] == "prometheus" {
                let promql = text(&trigger["metadata"], "query").to_owned();
                found.push(Query { name: format!("{file} {number}"), promql });
            }
        }
        for rule in list(&document["rules"], "external") {
            let name = format!("{file} {}", text(&rule["name"], "as"));
            found
                .push(Query { name: format!("{name} series"), promql: text(rule, "seriesQuery").to_owned() });
            found.push(Query { name, promql: expanded(rule) });
        }
    }
    found
}

/// The query that the adapter makes of a rule for an HPA that selects nothing further.
fn expanded(rule: &Value) -> String {
    let series = text(rule, "seriesQuery").split('{').next().unwrap();
    text(rule, "metricsQuery").replace("<<.Series>>", series).replace("<<.LabelMatchers>>", "")
}

/// Series that a query names, each with the labels that it matches on.
fn named(promql: &str) -> Vec<(String, BTreeSet<String>)> {
    let mut found = Vec::new();
    let mut rest = promql;
    while let Some(start) = rest.find(|letter: char| letter.is_ascii_alphabetic() || letter == '_') {
        rest = &rest[start..];
        let end = rest
            .find(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_' && letter != ':')
            .unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        rest = after;
        if let Some(inside) = after.strip_prefix('{') {
            let (labels, behind) = matchers(inside);
            found.push((word.to_owned(), labels));
            rest = behind;
        } else if !after.starts_with('(') && !WORDS.contains(&word) {
            found.push((word.to_owned(), BTreeSet::new()));
        }
    }
    found
}

/// Labels of the matchers up to the closing brace, and what is behind it. No value of the recipes has an escaped quote.
fn matchers(mut rest: &str) -> (BTreeSet<String>, &str) {
    let mut labels = BTreeSet::new();
    loop {
        rest = rest.trim_start_matches([',', ' ']);
        if let Some(behind) = rest.strip_prefix('}') {
            return (labels, behind);
        }
        let (label, after) = rest.split_once(['=', '!']).unwrap();
        labels.insert(label.trim().to_owned());
        rest = after.splitn(3, '"').nth(2).unwrap();
    }
}

/// Names and labels of all series of this program and of a real vLLM.
fn known() -> BTreeMap<String, BTreeSet<String>> {
    let mut known: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for line in include_str!("../data/metrics_golden.txt").lines() {
        let (name, labels) = line.split_once(' ').unwrap().1.split_once('{').unwrap();
        let labels = labels.split_once('}').unwrap().0;
        known.insert(
            name.to_owned(),
            labels.split(',').filter(|label| !label.is_empty()).map(str::to_owned).collect(),
        );
    }
    for line in include_str!("../data/vllm-0.32.0/metrics.txt").lines() {
        let Some((name, labels)) = line.split_once('{').filter(|_| !line.starts_with('#')) else { continue };
        let labels = labels.rsplit_once('}').unwrap().0;
        let labels = labels.split("\",").filter_map(|pair| Some(pair.split_once('=')?.0.to_owned()));
        known.entry(name.to_owned()).or_default().extend(labels);
    }
    known
}

#[test]
fn queries_are_taken_apart_as_prometheus_does() {
    let found = named(r#"sum(a:b{x="1{",y=~"(z)?"}) or 0 * sum by (c_d)"#);
    let labels = ["x", "y"].map(str::to_owned).into();
    assert_eq!(found[0], ("a:b".to_owned(), labels));
}

#[test]
fn recipes_ask_only_for_series_that_exist_by_labels_that_they_have() {
    let known = known();
    let mut wrong = Vec::new();
    let queries = queries();
    assert_eq!(queries.len(), 8, "two queries and two series of the adapter, four triggers");
    for query in queries {
        for (series, labels) in named(&query.promql) {
            let Some(has) = known.get(&series) else {
                wrong.push(format!("{}: there is no {series}", query.name));
                continue;
            };
            for label in labels {
                if !has.contains(&label) && !OF_THE_TARGET.contains(&label.as_str()) {
                    wrong.push(format!("{}: {series} has no label {label}", query.name));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_hpa_asks_for_what_the_adapter_computes() {
    let adapter = document("hpa-prometheus-adapter/adapter-values.yaml");
    let served: Vec<&str> =
        list(&adapter["rules"], "external").iter().map(|rule| text(&rule["name"], "as")).collect();
    let hpa = document("hpa-prometheus-adapter/hpa.yaml");
    let asked: Vec<(&str, &str, &str)> = list(&hpa["spec"], "metrics")
        .iter()
        .map(|metric| {
            let target = &metric["external"]["target"];
            let value = target["value"].as_str().or(target["averageValue"].as_str()).unwrap();
            (text(&metric["external"]["metric"], "name"), text(target, "type"), value)
        })
        .collect();
    assert_eq!(asked, [("igw_queue_depth", "Value", "250"), ("igw_running_requests", "AverageValue", "250")]);
    assert_eq!(served, ["igw_queue_depth", "igw_running_requests"]);
}

#[test]
fn the_configuration_of_the_recipes_loads() {
    let file = folder().join("flow-control.yaml");
    let output = std::process::Command::new(program()).arg("check").arg("--config-file").arg(file).output();
    let output = output.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

#[test]
fn the_scaler_takes_the_metadata_of_the_push_recipe() {
    let object = document("keda-push/scaledobject.yaml");
    let mut metrics = Vec::new();
    for trigger in list(&object["spec"], "triggers") {
        assert_eq!(trigger["type"], "external-push");
        let metadata: HashMap<String, String> = serde_json::from_value(trigger["metadata"].clone()).unwrap();
        assert!(metadata["scalerAddress"].starts_with(PICKER));
        metrics.push(Trigger::read(&metadata, POOL).unwrap().metric);
    }
    assert_eq!(metrics, [Metric::QueueDepth, Metric::RunningRequests]);
}

#[test]
fn the_kedify_recipe_names_the_pool_and_its_picker() {
    let object = document("kedify-http/scaledobject.yaml");
    let [trigger] = list(&object["spec"], "triggers") else { panic!("one trigger") };
    assert_eq!(trigger["type"], "kedify-http");
    for (key, value) in
        [("inferencePool", POOL), ("service", PICKER), ("port", "9002"), ("scalingMetric", "requestRate")]
    {
        assert_eq!(trigger["metadata"][key], value);
    }
    let texts = trigger["metadata"].as_object().unwrap();
    assert!(texts.values().all(Value::is_string), "KEDA takes texts only: {texts:?}");
}

/// A page of the picker: three and four requests wait, five and six run.
const PICKER_PAGE: &str = r#"# TYPE inference_extension_flow_control_queue_size gauge
inference_extension_flow_control_queue_size{fairness_id="a",inference_pool="vllm-llama3-8b-instruct",model_name="m",priority="0",target_model_name="m"} 3
inference_extension_flow_control_queue_size{fairness_id="b",inference_pool="vllm-llama3-8b-instruct",model_name="m",priority="-1",target_model_name="m"} 4
# TYPE llm_d_epp_flow_control_queue_size gauge
llm_d_epp_flow_control_queue_size{fairness_id="a",inference_pool="vllm-llama3-8b-instruct",model_name="m",priority="0",target_model_name="m"} 3
llm_d_epp_flow_control_queue_size{fairness_id="b",inference_pool="vllm-llama3-8b-instruct",model_name="m",priority="-1",target_model_name="m"} 4
# TYPE inference_objective_running_requests gauge
inference_objective_running_requests{model_name="m"} 5
inference_objective_running_requests{model_name="n"} 6
# TYPE llm_d_epp_request_running gauge
llm_d_epp_request_running{fairness_id="a",model_name="m",priority="0",target_model_name="m"} 5
llm_d_epp_request_running{fairness_id="a",model_name="n",priority="0",target_model_name="n"} 6
"#;

/// A page of the picker before its first request.
const EARLY_PAGE: &str = r#"# TYPE inference_extension_flow_control_queue_size gauge
inference_extension_flow_control_queue_size{fairness_id="default-flow",inference_pool="vllm-llama3-8b-instruct",model_name="",priority="0",target_model_name=""} 0
# TYPE llm_d_epp_flow_control_queue_size gauge
llm_d_epp_flow_control_queue_size{fairness_id="default-flow",inference_pool="vllm-llama3-8b-instruct",model_name="",priority="0",target_model_name=""} 0
"#;

/// A page of another pool's picker.
const OTHER_PAGE: &str = r#"# TYPE inference_extension_flow_control_queue_size gauge
inference_extension_flow_control_queue_size{fairness_id="a",inference_pool="other",model_name="m",priority="0",target_model_name="m"} 100
# TYPE llm_d_epp_flow_control_queue_size gauge
llm_d_epp_flow_control_queue_size{fairness_id="a",inference_pool="other",model_name="m",priority="0",target_model_name="m"} 100
# TYPE inference_objective_running_requests gauge
inference_objective_running_requests{model_name="m"} 100
# TYPE llm_d_epp_request_running gauge
llm_d_epp_request_running{fairness_id="a",model_name="m",priority="0",target_model_name="m"} 100
"#;

/// A page of a model server with two engines.
const ENGINES_PAGE: &str = r#"# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="meta-llama/Llama-3.1-8B-Instruct"} 2
vllm:num_requests_running{engine="1",model_name="meta-llama/Llama-3.1-8B-Instruct"} 3
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{engine="0",model_name="meta-llama/Llama-3.1-8B-Instruct"} 0
vllm:num_requests_waiting{engine="1",model_name="meta-llama/Llama-3.1-8B-Instruct"} 7
"#;

/// Fails unless every query that asks for the picker's series gives what is expected of it.
async fn assert_of_the_picker(prometheus: &Prometheus, waiting: Option<f64>, running: Option<f64>) {
    for query in queries().iter().filter(|query| !query.promql.contains("vllm:")) {
        if query.name.ends_with(" series") {
            assert_eq!(prometheus.query(&query.promql).await.is_empty(), waiting.is_none(), "{}", query.name);
            continue;
        }
        let runs = query.promql.contains("running");
        let expected = if runs { running } else { waiting };
        assert_eq!(prometheus.value(&query.promql).await, expected, "{}: {}", query.name, query.promql);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn prometheus_answers_the_pickers_queries_with_and_without_the_labels_that_installations_add() {
    let ours = Recorder::start_with_page(PICKER_PAGE).await;
    let other = Recorder::start_with_page(OTHER_PAGE).await;
    let label = |name, value| [(name, value)];
    let [of_ours, of_other] = [PICKER, "other-epp"].map(|name| label("top_level_controller_name", name));
    let google = [
        Target { job: "epp", addr: ours.addr, labels: &of_ours },
        Target { job: "other", addr: other.addr, labels: &of_other },
    ];
    let [of_ours, of_other] = [PICKER, "other-epp"].map(|name| label("service", name));
    let operator = [
        Target { job: "epp", addr: ours.addr, labels: &of_ours },
        Target { job: "other", addr: other.addr, labels: &of_other },
    ];
    let bare = [Target { job: "epp", addr: ours.addr, labels: &[] }];
    let (google, operator, bare) =
        tokio::join!(Prometheus::start(&google), Prometheus::start(&operator), Prometheus::start(&bare));
    for prometheus in [google, operator, bare] {
        assert_of_the_picker(&prometheus, Some(7.0), Some(11.0)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn before_the_first_request_there_is_a_zero_and_without_a_picker_there_is_no_number() {
    let early = Recorder::start_with_page(EARLY_PAGE).await;
    let silent = Recorder::start_with_page("").await;
    let [early_target, silent_target] =
        [early.addr, silent.addr].map(|addr| [Target { job: "epp", addr, labels: &[] }]);
    let (early, silent) = tokio::join!(Prometheus::start(&early_target), Prometheus::start(&silent_target));
    assert_of_the_picker(&early, Some(0.0), Some(0.0)).await;
    assert_of_the_picker(&silent, None, None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn prometheus_adds_up_model_servers_and_their_engines() {
    let servers =
        [Recorder::start_with_page(ENGINES_PAGE).await, Recorder::start_with_page(ENGINES_PAGE).await];
    let targets = servers.each_ref().map(|server| Target { job: "vllm", addr: server.addr, labels: &[] });
    let prometheus = Prometheus::start(&targets).await;
    let mut found = Vec::new();
    for query in queries().iter().filter(|query| query.promql.contains("vllm:")) {
        assert!(query.promql.contains(MODEL));
        found.push(prometheus.value(&query.promql).await.unwrap());
    }
    assert_eq!(found, [10.0, 14.0], "running, waiting");
    assert_eq!(prometheus.query("vllm:num_requests_running").await.len(), 4, "what a bare name gives");
}
