//! What loads as it is, with a warning that says how it is written today.

use crate::config::former::tree::{self, Map};
use crate::config::former::{is_former_api_version, why_gate_is_gone};
use crate::config::schema::API_VERSION;
use crate::document::{Node, NodeValue, Problems};
use crate::plugins::filters::label_selector;

/// Plugin types that have another name today and are otherwise the same.
const RENAMED: &[(&str, &str)] =
    &[("by-label-selector", "label-selector-filter"), ("tokenizer", "token-producer")];

/// Parameters of `disagg-profile-handler`, and where they stand today.
const STAGES: &[(&str, [&str; 2])] = &[
    ("decodeProfile", ["profiles", "decode"]),
    ("prefillProfile", ["profiles", "prefill"]),
    ("encodeProfile", ["profiles", "encode"]),
    ("prefillDeciderPluginName", ["deciders", "prefill"]),
    ("deciderPluginName", ["deciders", "prefill"]),
    ("encodeDeciderPluginName", ["deciders", "encode"]),
];

const DETECTOR: &str = "utilization-detector";

/// Translates the tree of a document that has been through the translations of loading.
pub(super) fn translate(root: &mut Node, problems: &mut Problems) {
    let NodeValue::Map(document) = &mut root.value else { return };
    version(document, problems);
    gates(document, problems);
    parser(document, problems);
    detector(document, problems);
    thresholds(document, problems);
    let Some(NodeValue::List(plugins)) = tree::get_mut(document, "plugins").map(|node| &mut node.value)
    else {
        return;
    };
    for (index, row) in plugins.iter_mut().enumerate() {
        let NodeValue::Map(row) = &mut row.value else { continue };
        let path = format!("plugins[{index}]");
        by_label(row, &path, problems);
        renamed(row, &path, problems);
        stages(row, &path, problems);
        attribute(row, &path, problems);
        block_size(row, &path, problems);
        if tree::map_of(row, "parameters").is_some_and(Vec::is_empty) {
            tree::take(row, "parameters");
        }
    }
}

fn version(document: &mut Map, problems: &mut Problems) {
    let Some(node) = tree::get_mut(document, "apiVersion") else { return };
    let Some(former) = node.as_text().filter(|version| is_former_api_version(version)) else { return };
    problems.warning(
        node.line,
        "apiVersion",
        format!("\"{former}\" is a former group; write \"{API_VERSION}\""),
    );
    node.value = NodeValue::Text(API_VERSION.to_owned());
}

fn gates(document: &mut Map, problems: &mut Problems) {
    let Some(NodeValue::List(gates)) = tree::get_mut(document, "featureGates").map(|node| &mut node.value)
    else {
        return;
    };
    let before = gates.len();
    gates.retain(|gate| {
        let Some(text) = gate.as_text() else { return true };
        let (name, value) = text.split_once('=').unwrap_or((text, "true"));
        let said =
            matches!(value.trim().to_ascii_lowercase().as_str(), "1" | "t" | "true" | "0" | "f" | "false");
        let Some(why) = why_gate_is_gone(name).filter(|_| said) else { return true };
        let message = format!("the feature gate \"{name}\" is gone: {why}; leave it out");
        problems.warning(gate.line, "featureGates", message);
        false
    });
    if gates.is_empty() && before > 0 {
        tree::take(document, "featureGates");
    }
}

fn parser(document: &mut Map, problems: &mut Problems) {
    let listed = tree::map_of(document, "requestHandler")
        .and_then(|handler| tree::get(handler, "parsers"))
        .is_some_and(|list| list.as_list().is_none_or(|list| !list.is_empty()));
    let Some((key, node)) = tree::take(document, "parser") else { return };
    let message = "is deprecated; use `requestHandler.parsers`";
    problems.warning(key.line, "parser", message);
    if listed || node.is_null() {
        return;
    }
    if let Some(handler) = tree::section(document, key.line, "requestHandler") {
        tree::take(handler, "parsers");
        tree::put(handler, key.line, "parsers", Node { line: key.line, value: NodeValue::List(vec![node]) });
    }
}

fn detector(document: &mut Map, problems: &mut Problems) {
    let Some((key, node)) = tree::take(document, "saturationDetector") else { return };
    problems.warning(key.line, "saturationDetector", "is deprecated; use `flowControl.saturationDetector`");
    let Some(flow) = tree::section(document, key.line, "flowControl") else { return };
    if tree::get(flow, "saturationDetector").is_none() && !node.is_null() {
        tree::put(flow, key.line, "saturationDetector", node);
    }
    if tree::map_of(document, "flowControl").is_some_and(Vec::is_empty) {
        tree::take(document, "flowControl");
    }
}

/// Thresholds in the section of the detector, where they stood before it was a plugin.
fn thresholds(document: &mut Map, problems: &mut Problems) {
    const FIELDS: [&str; 3] = ["queueDepthThreshold", "kvCacheUtilThreshold", "metricsStalenessThreshold"];
    let Some(NodeValue::Map(flow)) = tree::get_mut(document, "flowControl").map(|node| &mut node.value)
    else {
        return;
    };
    let Some(section) = tree::get_mut(flow, "saturationDetector") else { return };
    let line = section.line;
    let NodeValue::Map(section) = &mut section.value else { return };
    let given: Map = FIELDS.iter().filter_map(|field| tree::take(section, field)).collect();
    let given: Map = given.into_iter().filter(|(_, node)| !node.is_null()).collect();
    if given.is_empty() {
        return;
    }
    let message = "has thresholds itself, which is deprecated; they are parameters of the detector";
    problems.warning(line, "flowControl.saturationDetector", message);
    let name = tree::text_of(section, "pluginRef").unwrap_or(DETECTOR).to_owned();
    if tree::text_of(section, "pluginRef").is_none() {
        tree::take(section, "pluginRef");
        tree::put(section, line, "pluginRef", tree::text(line, &name));
    }
    if tree::get(document, "plugins").is_none() {
        tree::put(document, line, "plugins", Node { line, value: NodeValue::List(Vec::new()) });
    }
    let Some(NodeValue::List(plugins)) = tree::get_mut(document, "plugins").map(|node| &mut node.value)
    else {
        return;
    };
    let place = plugins.iter().position(|row| tree::is_named(row, &name)).unwrap_or_else(|| {
        let mut row = Map::new();
        tree::put(&mut row, line, "type", tree::text(line, DETECTOR));
        if name != DETECTOR {
            tree::put(&mut row, line, "name", tree::text(line, &name));
        }
        plugins.push(Node { line, value: NodeValue::Map(row) });
        plugins.len() - 1
    });
    let Some(row) = tree::row_mut(plugins, place).filter(|row| tree::text_of(row, "type") == Some(DETECTOR))
    else {
        return;
    };
    let Some(parameters) = tree::section(row, line, "parameters") else { return };
    for (key, node) in given {
        // What stands in the section counts over the parameters.
        tree::take_any_case(parameters, &key.text);
        tree::put(parameters, key.line, &key.text, node);
    }
}

fn renamed(row: &mut Map, path: &str, problems: &mut Problems) {
    let Some(former) = tree::text_of(row, "type") else { return };
    let Some((former, today)) = RENAMED.iter().find(|(name, _)| *name == former) else { return };
    rename(row, former, today, path, problems);
}

/// Gives the type its name of today, and the row the name that it had by its type.
fn rename(row: &mut Map, former: &str, today: &str, path: &str, problems: &mut Problems) {
    let Some((key, _)) = tree::take(row, "type") else { return };
    if tree::text_of(row, "name").is_none() {
        tree::take(row, "name");
        tree::put(row, key.line, "name", tree::text(key.line, former));
    }
    tree::put(row, key.line, "type", tree::text(key.line, today));
    let message = format!("\"{former}\" is deprecated; write `type: {today}`");
    problems.warning(key.line, format!("{path}.type"), message);
}

/// `by-label` as a selector. One that keeps pods without the label stays, for no selector says the same.
fn by_label(row: &mut Map, path: &str, problems: &mut Problems) {
    if tree::text_of(row, "type") != Some("by-label") {
        return;
    }
    let Some(parameters) = tree::map_of(row, "parameters") else { return };
    let find = |name: &str| {
        let found = parameters.iter().rev().find(|(key, _)| key.text.eq_ignore_ascii_case(name));
        found.map(|(_, node)| node).filter(|node| !node.is_null())
    };
    let unlabelled = find("allowsNoLabel").is_some_and(|node| node.value != NodeValue::Bool(false));
    let (Some(label), Some(values)) = (find("label"), find("validValues")) else { return };
    let texts = values.as_list().is_some_and(|values| {
        !values.is_empty() && values.iter().all(|value| value.as_text().is_some_and(|text| !text.is_empty()))
    });
    if unlabelled || !texts || label.as_text().is_none() {
        return;
    }
    let line = label.line;
    let map = |entries: Vec<(&str, Node)>| {
        let mut map = Map::new();
        for (name, node) in entries {
            tree::put(&mut map, line, name, node);
        }
        Node { line, value: NodeValue::Map(map) }
    };
    let operator = tree::text(line, "In");
    let requirement = map(vec![("key", label.clone()), ("operator", operator), ("values", values.clone())]);
    let list = Node { line, value: NodeValue::List(vec![requirement]) };
    if let Some(parameters) = tree::get_mut(row, "parameters") {
        *parameters = map(vec![("matchExpressions", list)]);
    }
    rename(row, "by-label", label_selector::TYPE.name, path, problems);
}

/// The older names of the stages' profiles and deciders.
fn stages(row: &mut Map, path: &str, problems: &mut Problems) {
    if tree::text_of(row, "type") != Some("disagg-profile-handler") {
        return;
    }
    let Some(NodeValue::Map(parameters)) = tree::get_mut(row, "parameters").map(|node| &mut node.value)
    else {
        return;
    };
    if tree::has_any_case(parameters, "profiles") || tree::has_any_case(parameters, "deciders") {
        return;
    }
    for (former, [section, field]) in STAGES {
        let Some((key, node)) = tree::take_any_case(parameters, former) else { continue };
        let message = format!("is the older form of `{section}.{field}`; write that");
        problems.warning(key.line, format!("{path}.parameters.{}", key.text), message);
        let empty = node.is_null() || node.as_text() == Some("");
        if let Some(place) = (!empty).then(|| tree::section(parameters, key.line, section)).flatten()
            && tree::get(place, field).is_none()
        {
            tree::put(place, key.line, field, node);
        }
    }
}

/// An attribute whose name held that of its producer.
fn attribute(row: &mut Map, path: &str, problems: &mut Problems) {
    let name = match tree::text_of(row, "type") {
        Some("endpoint-attribute-filter") => "attribute",
        Some("endpoint-attribute-scorer") => "attributeKey",
        _ => return,
    };
    let Some(NodeValue::Map(parameters)) = tree::get_mut(row, "parameters").map(|node| &mut node.value)
    else {
        return;
    };
    if parameters.iter().any(|(key, _)| key.text.eq_ignore_ascii_case("producer")) {
        return;
    }
    let Some((key, node)) = parameters.iter_mut().rev().find(|(key, _)| key.text.eq_ignore_ascii_case(name))
    else {
        return;
    };
    let Some((attribute, producer)) = node.as_text().and_then(|text| text.rsplit_once('/')) else { return };
    let (attribute, producer) = (attribute.to_owned(), producer.to_owned());
    let message = format!("names the producer too, the older form; write `producer: {producer}` beside it");
    problems.warning(key.line, format!("{path}.parameters.{name}"), message);
    let line = key.line;
    node.value = NodeValue::Text(attribute);
    tree::put(parameters, line, "producer", tree::text(line, &producer));
}

/// `blockSize` of the approximate index.
fn block_size(row: &mut Map, path: &str, problems: &mut Problems) {
    if tree::text_of(row, "type") != Some("approx-prefix-cache-producer") {
        return;
    }
    let Some(NodeValue::Map(parameters)) = tree::get_mut(row, "parameters").map(|node| &mut node.value)
    else {
        return;
    };
    let Some((key, node)) = tree::take_any_case(parameters, "blockSize") else { return };
    problems.warning(
        key.line,
        format!("{path}.parameters.{}", key.text),
        "is deprecated; write `blockSizeTokens`",
    );
    if !tree::has_any_case(parameters, "blockSizeTokens") && !node.is_null() {
        tree::put(parameters, key.line, "blockSizeTokens", node);
    }
}
