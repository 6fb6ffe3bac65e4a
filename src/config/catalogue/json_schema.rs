//! JSON Schema (draft 2020-12) of the whole document, with the parameters of every plugin type.

use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use super::document::EndpointPickerConfig;
use super::entries::{Entry, entries};
use super::parameters;
use crate::plugins::Registry;

/// The schema, as JSON text with a line break at its end.
pub fn json_schema(registry: Registry) -> String {
    let mut schema = SchemaSettings::draft2020_12()
        .into_generator()
        .into_root_schema_for::<EndpointPickerConfig>()
        .to_value();
    let (mut types, mut rules, mut definitions) = (Vec::new(), Vec::new(), Map::new());
    for entry in entries(registry) {
        let name = entry.name();
        if types.iter().any(|known: &Value| known["const"] == name) {
            continue;
        }
        types.push(json!({"const": name, "description": described(&entry)}));
        let Entry::Built(plugin, _) = entry else { continue };
        let mut form = parameters::schema(plugin).unwrap_or_else(
            || json!({"type": ["object", "null"], "description": "This type takes no parameters."}),
        );
        let key = format!("parameters of {name}");
        let place = format!("#/$defs/{}", key.replace(' ', "%20"));
        rebase(&mut form, &place);
        rules.push(json!({
            "if": {"properties": {"type": {"const": name}}, "required": ["type"]},
            "then": {"properties": {"parameters": {"$ref": place}}},
        }));
        definitions.insert(key, nullable(form));
    }
    let row = &mut schema["$defs"]["Plugin"];
    row["properties"]["type"] = json!({
        "description": "Plugin type; `pointsman plugins` lists them.",
        "type": "string",
        "oneOf": types,
    });
    row["allOf"] = Value::Array(rules);
    if let Some(all) = schema["$defs"].as_object_mut() {
        all.extend(definitions);
    }
    format!("{schema:#}\n")
}

/// Makes references into a schema's own `$defs` references from the root, where the schema lies at `place`.
fn rebase(schema: &mut Value, place: &str) {
    match schema {
        Value::Object(fields) => {
            if let Some(Value::String(reference)) = fields.get_mut("$ref")
                && let Some(inner) = reference.strip_prefix('#')
            {
                *reference = format!("{place}{inner}");
            }
            fields.values_mut().for_each(|field| rebase(field, place));
        }
        Value::Array(list) => list.iter_mut().for_each(|element| rebase(element, place)),
        _ => {}
    }
}

/// What editors show of a type.
fn described(entry: &Entry) -> String {
    match entry {
        Entry::Built(plugin, _) => format!("{} {}", plugin.summary, plugin.advice).trim().to_owned(),
        Entry::Missing { without, .. } => format!("Not in force yet: {without}."),
    }
}

/// The schema of a mapping that may be left empty.
fn nullable(mut schema: Value) -> Value {
    if schema["type"] == "object" {
        schema["type"] = json!(["object", "null"]);
    }
    schema
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Arc;

    use super::*;
    use crate::config::{ConfigSource, LoadOptions, load};
    use crate::metrics::Metrics;
    use crate::plugins::REGISTRY;

    #[test]
    fn the_generated_schema_is_what_the_types_say() {
        crate::generated::keep("config/endpointpickerconfig.schema.json", &json_schema(REGISTRY));
    }

    /// What the reader says of a document, errors and warnings.
    fn said(document: &Value) -> Vec<String> {
        let text = document.to_string();
        let options = LoadOptions { allow_missing: true, ..LoadOptions::new(Arc::new(Metrics::new())) };
        let problems = match load(&ConfigSource::Text(text), &options) {
            Ok(plan) => plan.problems,
            Err(problems) => problems,
        };
        problems.iter().map(ToString::to_string).collect()
    }

    /// Follows `$ref`, an optional value and the elements of a list to the object behind them; with it how to put a
    /// value in its place.
    fn object<'s>(root: &'s Value, schema: &'s Value) -> Option<(&'s Value, bool)> {
        if let Some(reference) = schema["$ref"].as_str() {
            return object(root, &root["$defs"][reference.strip_prefix("#/$defs/")?]);
        }
        if let Some(choices) = schema["anyOf"].as_array() {
            return choices.iter().find_map(|choice| object(root, choice));
        }
        if let Some(items) = schema.get("items") {
            return object(root, items).map(|(found, _)| (found, true));
        }
        schema.get("properties").is_some().then_some((schema, false))
    }

    /// Names of sections from the root, and whether each is a list.
    type Place = Vec<(String, bool)>;

    /// Every section of the document: how to write one, and the names of its fields.
    fn sections(root: &Value) -> Vec<(Place, BTreeSet<String>)> {
        let mut found = Vec::new();
        let mut left = vec![(Vec::new(), root)];
        while let Some((path, schema)) = left.pop() {
            let fields = schema["properties"].as_object().unwrap();
            found.push((path.clone(), fields.keys().cloned().collect()));
            for (name, field) in fields.iter().filter(|(name, _)| *name != "parameters") {
                if let Some((inner, list)) = object(root, field) {
                    let mut path = path.clone();
                    path.push((name.clone(), list));
                    left.push((path, inner));
                }
            }
        }
        found
    }

    fn written(path: &[(String, bool)], section: Value) -> Value {
        path.iter().rev().fold(section, |inner, (name, list)| {
            let inner = if *list { json!([inner]) } else { inner };
            json!({ name: inner })
        })
    }

    #[test]
    fn the_schema_has_exactly_the_fields_that_the_reader_knows() {
        let root: Value = serde_json::from_str(&json_schema(REGISTRY)).unwrap();
        let sections = sections(&root);
        assert!(sections.len() > 12, "{sections:?}");
        for (path, fields) in sections {
            for field in &fields {
                let told = said(&written(&path, json!({ field: null })));
                assert!(
                    !told.iter().any(|line| line.contains("unknown field")),
                    "{path:?} {field}: {told:?}"
                );
            }
            let told = said(&written(&path, json!({"0123456789": 1})));
            let line = told.iter().find(|line| line.contains("0123456789: unknown field")).unwrap();
            let named = line.matches('`').count() / 2;
            let others =
                line.split(" and ").nth(1).and_then(|tail| tail.split(' ').next()?.parse::<usize>().ok());
            assert_eq!(named + others.unwrap_or(0), fields.len(), "{path:?}: {line}");
        }
    }
}
