//! A `ConfigMap` of Kubernetes in place of the document that it holds.
//!
//! Charts keep the document as a text below `data`. Who runs a picker outside the cluster takes the whole object out of
//! it.

use super::former::tree::{self, Map};
use crate::document::{Node, NodeValue, Problems, parse};

/// The text that charts let a picker read unless their user names another one.
const USUAL: &str = "default-plugins.yaml";

/// The document inside `root`, with its text; `None` if `root` is no `ConfigMap`.
///
/// A warning says which text was taken. An error says why none was: there is no configuration, or there are several and
/// none has the usual name.
pub(super) fn inside(root: &Node, problems: &mut Problems) -> Option<Result<String, ()>> {
    let NodeValue::Map(object) = &root.value else { return None };
    if tree::text_of(object, "kind") != Some("ConfigMap") {
        return None;
    }
    let texts: Vec<(&str, &str)> = tree::map_of(object, "data").map(texts).unwrap_or_default();
    let documents: Vec<(&str, &str)> =
        texts.iter().filter(|(_, text)| is_configuration(text)).copied().collect();
    let found = match (documents.as_slice(), texts.as_slice()) {
        ([one], _) | ([], [one]) => Some(*one),
        _ => documents.iter().find(|(name, _)| *name == USUAL).copied(),
    };
    let Some((name, text)) = found else {
        let names: Vec<&str> = documents.iter().map(|(name, _)| *name).collect();
        let message = if names.is_empty() {
            "is a ConfigMap without a configuration below `data`".to_owned()
        } else {
            format!(
                "is a ConfigMap with several configurations ({}); write one of them alone",
                names.join(", ")
            )
        };
        problems.error(root.line, "", message);
        return Some(Err(()));
    };
    let message = format!(
        "is a ConfigMap; its text `{name}` is read, and lines count from the first line of that text; write the text alone"
    );
    problems.warning(root.line, "", message);
    Some(Ok(text.to_owned()))
}

/// Names and values of the texts.
fn texts(data: &Map) -> Vec<(&str, &str)> {
    data.iter().filter_map(|(key, node)| Some((key.text.as_str(), node.as_text()?))).collect()
}

/// True if the text is a mapping of this document's kind, or of none with plugins or profiles.
fn is_configuration(text: &str) -> bool {
    let Ok(Some(Node { value: NodeValue::Map(map), .. })) = parse(text) else { return false };
    match tree::text_of(&map, "kind") {
        Some(kind) => kind == "EndpointPickerConfig",
        None => ["plugins", "schedulingProfiles"].iter().any(|name| tree::get(&map, name).is_some()),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use crate::config::{ConfigSource, LoadOptions, load, migrate};
    use crate::document::Level;
    use crate::metrics::Metrics;

    const QUEUE: &str =
        "    kind: EndpointPickerConfig\n    plugins:\n    - type: queue-scorer  # by queue\n";

    fn object(data: &str) -> ConfigSource {
        ConfigSource::Text(format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: epp}}\ndata:\n{data}"))
    }

    fn outcome(source: &ConfigSource) -> Result<Vec<String>, String> {
        let plan =
            load(source, &LoadOptions::new(Arc::new(Metrics::new()))).map_err(|faults| faults.to_string())?;
        assert!(plan.effective_yaml().contains("queue-scorer"));
        Ok(plan.problems.of(Level::Warning).map(ToString::to_string).collect())
    }

    #[test]
    fn the_only_or_the_usual_configuration_of_the_object_is_read_with_a_warning() {
        let other = QUEUE.replace("queue-scorer", "load-aware-scorer");
        for data in [
            format!("  any.yaml: |\n{QUEUE}"),
            format!("  any.yaml: |\n{QUEUE}  envoy.yaml: |\n    node: {{id: a}}\n  number: \"7\"\n"),
            format!("  default-plugins.yaml: |\n{QUEUE}  other.yaml: |\n{other}"),
        ] {
            let warnings = outcome(&object(&data)).unwrap();
            assert_eq!(warnings.len(), 1, "{warnings:?}");
            assert!(warnings[0].contains("is a ConfigMap; its text `"), "{warnings:?}");
        }
    }

    #[test]
    fn an_object_without_a_configuration_or_with_a_choice_is_refused() {
        let other = QUEUE.replace("queue-scorer", "load-aware-scorer");
        let several = outcome(&object(&format!("  a.yaml: |\n{QUEUE}  b.yaml: |\n{other}"))).unwrap_err();
        assert!(several.contains("several configurations (a.yaml, b.yaml)"), "{several}");
        for data in ["  {}\n", "  a: x\n  b: y\n", "  - a\n"] {
            let none = outcome(&object(data)).unwrap_err();
            assert!(none.contains("without a configuration below `data`"), "{none}");
        }
    }

    #[test]
    fn lines_count_within_the_text_and_migration_prints_it_alone() {
        let fault =
            object("  a.yaml: |\n    kind: EndpointPickerConfig\n    plugins:\n    - type: qeue-scorer\n");
        assert!(outcome(&fault).unwrap_err().contains(":3: plugins[0].type"));
        let migrated = migrate(&object(&format!("  a.yaml: |\n{QUEUE}"))).unwrap();
        assert_eq!(migrated.text, "kind: EndpointPickerConfig\nplugins:\n- type: queue-scorer  # by queue\n");
        assert!(migrated.keeps_comments && migrated.edits.len() == 1, "{:?}", migrated.edits);
    }
}
