//! Forms that no release took, and that templates and habit produce all the same: a name where a mapping or a list
//! belongs, numbers in quotes, a parameter beside the reference to its plugin.

use serde_json::Number;

use super::tree::{self, Map};
use crate::document::scalar::yaml_bool;
use crate::document::{Key, Node, NodeValue, Problems, parse};
use crate::plugins::REGISTRY;

const REFERENCE: &str = "pluginRef";

/// Sections of the document that refer to one plugin.
const REFERENCES: &[&[&str]] = &[
    &["saturationDetector"],
    &["parser"],
    &["dataLayer", "discovery"],
    &["dataLayer", "discovery", "endpoints"],
    &["dataLayer", "peerDiscovery"],
    &["flowControl", "saturationDetector"],
];

/// Lists of references.
const LISTS: &[&[&str]] = &[&["dataLayer", "sources"], &["requestHandler", "parsers"]];

/// Sections with a boolean or a number, and its name.
const SCALARS: &[(&[&str], &str)] = &[
    (&["dataLayer"], "injectDefaults"),
    (&["flowControl"], "enableEviction"),
    (&["flowControl", "saturationDetector"], "kvCacheUtilThreshold"),
    (&["flowControl", "saturationDetector"], "queueDepthThreshold"),
    (&["saturationDetector"], "kvCacheUtilThreshold"),
    (&["saturationDetector"], "queueDepthThreshold"),
    (&["requestHandler"], "propagatePriority"),
];

/// Translates a document whose sections stand where they do today.
pub(super) fn translate(document: &mut Map, problems: &mut Problems) {
    gates(document, problems);
    if let Some(rows) = list_mut(document, &["plugins"]) {
        wrap_all(rows, "plugins", "type", problems);
        for (index, row) in rows.iter_mut().enumerate() {
            parameters(row, &format!("plugins[{index}]"), problems);
            kind(row, &format!("plugins[{index}]"), problems);
        }
    }
    for path in REFERENCES {
        if let Some(node) = at_mut(document, path) {
            wrap(node, &path.join("."), REFERENCE, problems);
        }
    }
    for path in LISTS {
        if let Some(rows) = list_mut(document, path) {
            wrap_all(rows, &path.join("."), REFERENCE, problems);
        }
    }
    for (path, name) in SCALARS {
        let section = at_mut(document, path).map(|node| &mut node.value);
        if let Some(NodeValue::Map(section)) = section {
            unquote(section, name, &path.join("."), problems);
        }
    }
    sources(document, problems);
    profiles(document, problems);
    bands(document, problems);
}

/// `featureGates` as one text with commas, or as a mapping from names to booleans.
fn gates(document: &mut Map, problems: &mut Problems) {
    let Some(node) = tree::get_mut(document, "featureGates") else { return };
    let line = node.line;
    let gates: Vec<Node> = match &node.value {
        NodeValue::Text(text) => {
            let names = text.split(',').map(str::trim).filter(|name| !name.is_empty());
            names.map(|name| tree::text(line, name)).collect()
        }
        NodeValue::Map(map) => map.iter().map(gate).collect(),
        _ => return,
    };
    let shown: Vec<String> = gates.iter().map(|gate| gate.as_text().unwrap_or_default().to_owned()).collect();
    node.value = NodeValue::List(gates);
    problems.warning(
        line,
        "featureGates",
        format!("is a list; write `featureGates: [{}]`", shown.join(", ")),
    );
}

/// A gate of a mapping. What is no boolean stays in the text, to be refused there.
fn gate((key, value): &(Key, Node)) -> Node {
    let text = match &value.value {
        NodeValue::Null | NodeValue::Bool(true) => key.text.clone(),
        NodeValue::Text(text) => format!("{}={text}", key.text),
        _ => format!("{}={value}", key.text),
    };
    tree::text(key.line, &text)
}

/// Parameters under the name `config`, as some pages of the reference had them, and parameters as a text.
fn parameters(row: &mut Node, path: &str, problems: &mut Problems) {
    let NodeValue::Map(row) = &mut row.value else { return };
    if let Some(node) = tree::get_mut(row, "parameters")
        && let Some(Ok(Some(Node { value: value @ NodeValue::Map(_), .. }))) = node.as_text().map(parse)
    {
        node.value = value;
        let message = "is a text with a mapping in it; write the mapping itself";
        problems.warning(node.line, format!("{path}.parameters"), message);
    }
    if tree::get(row, "parameters").is_some() || tree::map_of(row, "config").is_none() {
        return;
    }
    if let Some((key, node)) = tree::take(row, "config") {
        tree::put(row, key.line, "parameters", node);
        problems.warning(key.line, format!("{path}.config"), "is `parameters`; write that");
    }
}

/// A row that has the name of a type and no type.
fn kind(row: &mut Node, path: &str, problems: &mut Problems) {
    let NodeValue::Map(row) = &mut row.value else { return };
    let Some(name) = tree::text_of(row, "name").filter(|_| tree::text_of(row, "type").is_none()) else {
        return;
    };
    if REGISTRY.iter().any(|plugin| plugin.name == name) {
        let name = name.to_owned();
        let Some((key, _)) = tree::take(row, "name") else { return };
        tree::take(row, "type");
        tree::put(row, key.line, "type", tree::text(key.line, &name));
        problems.warning(key.line, format!("{path}.name"), format!("is a type; write `type: {name}`"));
    }
}

/// Names in place of rows.
fn wrap_all(rows: &mut [Node], path: &str, field: &str, problems: &mut Problems) {
    for (index, row) in rows.iter_mut().enumerate() {
        wrap(row, &format!("{path}[{index}]"), field, problems);
    }
}

/// A name in place of a mapping with one field.
fn wrap(node: &mut Node, path: &str, field: &str, problems: &mut Problems) {
    let Some(name) = node.as_text().filter(|name| !name.is_empty()).map(str::to_owned) else { return };
    let line = node.line;
    let mut map = Map::new();
    tree::put(&mut map, line, field, tree::text(line, &name));
    node.value = NodeValue::Map(map);
    problems.warning(line, path, format!("is a name alone; write `{field}: {name}` there"));
}

/// Rows of `dataLayer.sources`: extractors by their names, and the interval that is a parameter of the source.
fn sources(document: &mut Map, problems: &mut Problems) {
    let Some(rows) = list_mut(document, &["dataLayer", "sources"]) else { return };
    let mut moved = Vec::new();
    for (index, row) in rows.iter_mut().enumerate() {
        let NodeValue::Map(row) = &mut row.value else { continue };
        let path = format!("dataLayer.sources[{index}]");
        if let Some(extractors) = list_mut(row, &["extractors"]) {
            wrap_all(extractors, &format!("{path}.extractors"), REFERENCE, problems);
        }
        let Some(source) = tree::text_of(row, REFERENCE).map(str::to_owned) else { continue };
        if let Some((key, node)) = tree::take(row, "interval").filter(|(_, node)| !node.is_null()) {
            moved.push((format!("{path}.interval"), source, key, node));
        }
    }
    for (path, source, key, node) in moved {
        let Some(rows) = plugins_mut(document, key.line) else { return };
        let found = rows.iter().position(|row| tree::is_named(row, &source));
        let index = found.unwrap_or_else(|| {
            let mut row = Map::new();
            tree::put(&mut row, key.line, "type", tree::text(key.line, &source));
            rows.push(Node { line: key.line, value: NodeValue::Map(row) });
            rows.len() - 1
        });
        let row = tree::row_mut(rows, index);
        let Some(parameters) = row.and_then(|row| tree::section(row, key.line, "parameters")) else { return };
        if tree::has_any_case(parameters, "interval") {
            let message = format!("has no effect beside the parameter `interval` of \"{source}\"");
            problems.warning(key.line, path, message);
        } else {
            let message = format!("is a parameter of \"{source}\"; write `interval: {node}` there");
            problems.warning(key.line, path, message);
            tree::take_any_case(parameters, "interval");
            tree::put(parameters, key.line, "interval", node);
        }
    }
}

/// The rows of `plugins`, added empty if there are none.
fn plugins_mut(document: &mut Map, line: u32) -> Option<&mut Vec<Node>> {
    if tree::get(document, "plugins").is_none() {
        tree::put(document, line, "plugins", Node { line, value: NodeValue::List(Vec::new()) });
    }
    list_mut(document, &["plugins"])
}

/// Plugins of profiles by their names, and weights in quotes.
fn profiles(document: &mut Map, problems: &mut Problems) {
    let Some(profiles) = list_mut(document, &["schedulingProfiles"]) else { return };
    for (index, profile) in profiles.iter_mut().enumerate() {
        let NodeValue::Map(profile) = &mut profile.value else { continue };
        let path = format!("schedulingProfiles[{index}].plugins");
        let Some(rows) = list_mut(profile, &["plugins"]) else { continue };
        wrap_all(rows, &path, REFERENCE, problems);
        for (index, row) in rows.iter_mut().enumerate() {
            if let NodeValue::Map(row) = &mut row.value {
                unquote(row, "weight", &format!("{path}[{index}]"), problems);
            }
        }
    }
}

/// Bands of priorities: their names, which were for people, and priorities in quotes.
fn bands(document: &mut Map, problems: &mut Problems) {
    for name in ["defaultPriorityBand", "defaultNegativePriorityBand"] {
        if let Some(node) = at_mut(document, &["flowControl", name]) {
            band(node, &format!("flowControl.{name}"), problems);
        }
    }
    if let Some(rows) = list_mut(document, &["flowControl", "priorityBands"]) {
        for (index, node) in rows.iter_mut().enumerate() {
            band(node, &format!("flowControl.priorityBands[{index}]"), problems);
        }
    }
}

fn band(node: &mut Node, path: &str, problems: &mut Problems) {
    let NodeValue::Map(band) = &mut node.value else { return };
    if let Some((key, _)) = tree::take(band, "priorityName") {
        let message = "has no effect: a band goes by its priority; leave it out";
        problems.warning(key.line, format!("{path}.priorityName"), message);
    }
    unquote(band, "priority", path, problems);
}

/// A number or a boolean in quotes as what it stands for. What is neither stays, to be refused.
fn unquote(section: &mut Map, name: &str, path: &str, problems: &mut Problems) {
    let Some(node) = tree::get_mut(section, name) else { return };
    let Some(text) = node.as_text().map(|text| text.trim().to_owned()) else { return };
    let value = match text.to_ascii_lowercase().as_str() {
        "" => NodeValue::Null,
        "true" => NodeValue::Bool(true),
        "false" => NodeValue::Bool(false),
        _ if yaml_bool(&text).is_some() => return,
        _ => match serde_json::from_str::<Number>(&text) {
            Ok(number) => NodeValue::Number(number),
            Err(_) => return,
        },
    };
    node.value = value;
    if !node.is_null() {
        problems.warning(node.line, format!("{path}.{name}"), format!("is in quotes; write {node}"));
    }
}

/// The value at a path of names.
fn at_mut<'m>(map: &'m mut Map, path: &[&str]) -> Option<&'m mut Node> {
    let (first, rest) = path.split_first()?;
    let node = tree::get_mut(map, first)?;
    if rest.is_empty() {
        return Some(node);
    }
    match &mut node.value {
        NodeValue::Map(section) => at_mut(section, rest),
        _ => None,
    }
}

fn list_mut<'m>(map: &'m mut Map, path: &[&str]) -> Option<&'m mut Vec<Node>> {
    match &mut at_mut(map, path)?.value {
        NodeValue::List(list) => Some(list),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::assert_translated;

    #[test]
    fn gates_as_a_text_or_a_mapping_are_a_list() {
        let today = "featureGates: [flowControl, haPopulateNonLeaderDatastore=false]\n";
        for former in [
            "featureGates: \"flowControl, haPopulateNonLeaderDatastore=false\"\n",
            "featureGates:\n  flowControl: true\n  haPopulateNonLeaderDatastore: false\n",
            "featureGates: {flowControl: , haPopulateNonLeaderDatastore: \"False\"}\n",
        ] {
            assert_translated(
                former,
                today,
                &["featureGates: is a list; write `featureGates: [flowControl, haPop"],
            );
        }
        assert_translated("featureGates: flowControl\n", "featureGates: [flowControl]\n", &["is a list"]);
    }

    #[test]
    fn names_alone_are_rows_and_references() {
        assert_translated(
            "plugins: [queue-scorer, max-score-picker]\n\
             schedulingProfiles: [{name: default, plugins: [queue-scorer, max-score-picker]}]\n\
             dataLayer: {sources: [{pluginRef: metrics-data-source, extractors: [core-metrics-extractor]}]}\n\
             requestHandler: {parsers: [openai-parser]}\nflowControl: {saturationDetector: utilization-detector}\n",
            "plugins: [{type: queue-scorer}, {type: max-score-picker}]\n\
             schedulingProfiles: [{name: default, plugins: [{pluginRef: queue-scorer}, {pluginRef: max-score-picker}]}]\n\
             dataLayer: {sources: [{pluginRef: metrics-data-source, extractors: [{pluginRef: core-metrics-extractor}]}]}\n\
             requestHandler: {parsers: [{pluginRef: openai-parser}]}\n\
             flowControl: {saturationDetector: {pluginRef: utilization-detector}}\n",
            &[
                "plugins[0]: is a name alone; write `type: queue-scorer` there",
                "plugins[1]: is",
                "schedulingProfiles[0].plugins[0]: is a name alone; write `pluginRef: queue-scorer` there",
                "schedulingProfiles[0].plugins[1]: is",
                "dataLayer.sources[0].extractors[0]: is",
                "requestHandler.parsers[0]: is",
                "flowControl.saturationDetector: is",
            ],
        );
    }

    #[test]
    fn parameters_and_types_under_another_name_count() {
        assert_translated(
            "plugins: [{type: load-aware-scorer, config: {threshold: 3}}]\n",
            "plugins: [{type: load-aware-scorer, parameters: {threshold: 3}}]\n",
            &["plugins[0].config: is `parameters`; write that"],
        );
        assert_translated(
            "plugins:\n- type: load-aware-scorer\n  parameters: |\n    threshold: 3\n",
            "plugins: [{type: load-aware-scorer, parameters: {threshold: 3}}]\n",
            &["plugins[0].parameters: is a text with a mapping in it"],
        );
        assert_translated(
            "plugins: [{name: load-aware-scorer, parameters: {threshold: 3}}]\n",
            "plugins: [{type: load-aware-scorer, parameters: {threshold: 3}}]\n",
            &["plugins[0].name: is a type; write `type: load-aware-scorer`"],
        );
    }

    #[test]
    fn numbers_and_booleans_in_quotes_are_what_they_stand_for() {
        assert_translated(
            "plugins: [{type: queue-scorer}]\nfeatureGates: [flowControl]\n\
             schedulingProfiles: [{name: default, plugins: [{pluginRef: queue-scorer, weight: \"2\"}]}]\n\
             dataLayer: {injectDefaults: \"true\"}\n\
             flowControl: {enableEviction: 'False', priorityBands: [{priority: \"-3\", priorityName: low}]}\n",
            "plugins: [{type: queue-scorer}]\nfeatureGates: [flowControl]\n\
             schedulingProfiles: [{name: default, plugins: [{pluginRef: queue-scorer, weight: 2}]}]\n\
             dataLayer: {injectDefaults: true}\n\
             flowControl: {enableEviction: false, priorityBands: [{priority: -3}]}\n",
            &[
                "schedulingProfiles[0].plugins[0].weight: is in quotes; write 2",
                "dataLayer.injectDefaults: is in quotes; write true",
                "flowControl.enableEviction: is in quotes; write false",
                "flowControl.priorityBands[0].priorityName: has no effect",
                "flowControl.priorityBands[0].priority: is in quotes; write -3",
            ],
        );
    }

    #[test]
    fn an_interval_beside_a_source_is_a_parameter_of_it() {
        let tail = "  extractors: [{pluginRef: dcgm-extractor}]\n";
        for (rows, today) in [
            (
                "- {type: dcgm-data-source, name: gpus}\n",
                "- {type: dcgm-data-source, name: gpus, parameters: {interval: 2s}}\n",
            ),
            (
                "- {type: dcgm-data-source, name: gpus, parameters: {port: 9400}}\n",
                "- {type: dcgm-data-source, name: gpus, parameters: {port: 9400, interval: 2s}}\n",
            ),
        ] {
            let rest = |interval: &str| {
                format!(
                    "- {{type: dcgm-extractor}}\n- {{type: queue-scorer}}\ndataLayer:\n  sources:\n  - pluginRef: gpus\n{interval}  {tail}"
                )
            };
            assert_translated(
                &format!("plugins:\n{rows}{}", rest("    interval: 2s\n")),
                &format!("plugins:\n{today}{}", rest("")),
                &[
                    "dataLayer.sources[0].interval: is a parameter of \"gpus\"; write `interval: \"2s\"` there",
                ],
            );
        }
    }
}
