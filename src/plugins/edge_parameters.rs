//! Parameters at the edges: what templates write for what they do not set, for every string parameter of every type, and
//! values that one reader takes and another refuses.

use serde_json::{Value, json};

use super::fixture::{Fleet, pod, request};
use super::{PluginType, REGISTRY, filters, flow_control, scorers, sources};

/// String parameters for which an empty string is no way to leave them out, as `type: parameter`.
const MEANT: &[&str] = &[
    // The label must have a name.
    "context-length-aware: label",
    // It asks for every topic.
    "precise-prefix-cache-producer: kvEventsConfig.topicFilter",
    "precise-prefix-cache-scorer: kvEventsConfig.topicFilter",
];

/// The schema of a type's parameters, with its definitions.
fn schema(plugin: &PluginType) -> Option<Value> {
    let mut generator = schemars::SchemaGenerator::default();
    let mut schema = plugin.parameters()?(&mut generator).to_value();
    schema["$defs"] = Value::Object(generator.take_definitions(true));
    Some(schema)
}

/// Paths of the string parameters that stand in mappings, without those in lists.
fn strings(schema: &Value, root: &Value, path: &str, depth: u8, out: &mut Vec<String>) {
    if depth > 8 {
        return;
    }
    if let Some(target) =
        schema["$ref"].as_str().and_then(|target| root.pointer(target.trim_start_matches('#')))
    {
        return strings(target, root, path, depth + 1, out);
    }
    for key in ["anyOf", "oneOf", "allOf"] {
        for inner in schema[key].as_array().into_iter().flatten() {
            strings(inner, root, path, depth + 1, out);
        }
    }
    let is_string = schema["type"] == "string"
        || schema["type"].as_array().is_some_and(|all| all.contains(&json!("string")));
    if (is_string || schema["enum"].is_array() || schema["const"].is_string())
        && !out.iter().any(|known| known == path)
    {
        out.push(path.to_owned());
    }
    for (name, inner) in schema["properties"].as_object().into_iter().flatten() {
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        strings(inner, root, &path, depth + 1, out);
    }
}

/// `base` with an empty string at the path, whose mappings are added.
fn emptied(base: &Value, path: &str) -> Value {
    let mut all = base.clone();
    let mut place = &mut all;
    for name in path.split('.') {
        if !place.is_object() {
            *place = json!({});
        }
        place = &mut place[name];
    }
    *place = json!("");
    all
}

/// `base` without what stands at the path.
fn without(base: &Value, path: &str) -> Value {
    let mut all = emptied(base, path);
    let (parent, name) = path.rsplit_once('.').unwrap_or(("", path));
    let pointer = if parent.is_empty() { String::new() } else { format!("/{}", parent.replace('.', "/")) };
    if let Some(Value::Object(parent)) = all.pointer_mut(&pointer) {
        parent.remove(name);
    }
    all
}

/// What building says: the columns and roles that came of it with the warnings, or the fault.
fn outcome(plugin: &'static PluginType, parameters: Value) -> String {
    match Fleet::new([pod("a")]).build(plugin, Some(parameters)) {
        Ok(built) => {
            let read: Vec<&str> = built.consumed.iter().map(|used| used.key.producer.as_str()).collect();
            format!("{:?} reads {read:?} {:?}", built.roles.names(), built.warnings)
        }
        Err(error) => format!("{}: {}", error.path, error.message),
    }
}

#[test]
fn an_empty_string_is_the_same_as_no_parameter_everywhere() {
    let (mut tried, mut wrong) = (0, Vec::new());
    for plugin in REGISTRY {
        let Some(schema) = schema(plugin) else { continue };
        let example =
            crate::document::parse(plugin.example).unwrap().map_or(json!({}), |node| node.to_json());
        let mut paths = Vec::new();
        strings(&schema, &schema, "", 0, &mut paths);
        for path in paths.iter().filter(|path| !path.is_empty()) {
            let name = format!("{}: {path}", plugin.name);
            if MEANT.contains(&&*name) {
                continue;
            }
            tried += 1;
            for base in [&example, &json!({})] {
                let (empty, none) =
                    (outcome(plugin, emptied(base, path)), outcome(plugin, without(base, path)));
                if empty != none {
                    wrong.push(format!("{name}: {empty} instead of {none}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(tried > 90, "only {tried} parameters were found");
}

#[test]
fn names_left_empty_by_templates_start_with_the_default() {
    for (plugin, parameters) in [
        (&scorers::prefix_cache::TYPE, json!({"prefixMatchInfoProducerName": ""})),
        (&scorers::no_hit_lru::TYPE, json!({"prefixMatchInfoProducerName": ""})),
        (&scorers::session_affinity::TYPE, json!({"encodedEndpointHeaderConfig": {"header": ""}})),
        (&flow_control::concurrency_detector::TYPE, json!({"concurrencyMode": ""})),
        (&sources::METRICS_DATA_SOURCE, json!({"scheme": "", "path": ""})),
    ] {
        assert_eq!(outcome(plugin, parameters), outcome(plugin, json!({})), "{}", plugin.name);
    }
}

#[test]
fn values_that_the_reference_refuses_and_that_are_clear_are_taken() {
    let scale = json!({"matchLengthWeight": 0.5, "matchLengthScaleTokens": 1.5});
    assert!(Fleet::new([]).build(&scorers::prefix_cache::TYPE, Some(scale)).is_ok());
    let spec = |spec: &str| json!({"engineConfigs": [{"name": "own", "queuedRequestsSpec": spec}]});
    for text in [r#"q{a="b",a="b"}"#, "q{a=}", r#"q{a="b",}"#, r#"q{a="b}"}"#] {
        assert!(Fleet::new([]).build(&sources::CORE_METRICS_EXTRACTOR, Some(spec(text))).is_ok(), "{text}");
    }
}

#[test]
fn the_older_name_of_the_selector_reports_itself_under_its_own_name() {
    let names = [&filters::label_selector::TYPE, &filters::label_selector::BY_LABEL_SELECTOR];
    assert_eq!(names.map(|row| row.reports_as), ["label-selector-filter", "by-label-selector"]);
}

#[test]
fn a_request_sent_since_the_reading_waits_for_the_detector_as_a_filter_too() {
    let detector = &flow_control::utilization_detector::TYPE;
    let mut fleet = Fleet::new([pod("a").waiting(0).kv(0.1).in_flight(1), pod("b").waiting(0).kv(0.1)]);
    let built = fleet.build(detector, Some(json!({"queueDepthThreshold": 1}))).unwrap();
    assert_eq!(fleet.kept(&built.roles, &request("m")), ["b"]);
    let built = fleet.build(detector, Some(json!({"queueDepthThreshold": 2}))).unwrap();
    assert_eq!(fleet.kept(&built.roles, &request("m")), ["a", "b"]);
}
