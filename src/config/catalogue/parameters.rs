//! The schema of a plugin's parameters as rows: path, type, default, meaning.

use schemars::generate::SchemaSettings;
use serde_json::Value;

use crate::plugins::PluginType;

/// One parameter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Parameter {
    /// Path below `parameters`, as `a.b[].c`.
    pub(super) path: String,
    /// What it holds, for people.
    pub(super) kind: String,
    /// The default as it would be written; `None` if it has none of its own.
    pub(super) default: Option<String>,
    /// What it means; empty if nothing says so.
    pub(super) meaning: String,
}

/// The schema of the parameters of `plugin`, with what it refers to in its own `$defs`; `None` if it takes none. Only a
/// type that holds itself is referred to.
pub(super) fn schema(plugin: &PluginType) -> Option<Value> {
    let mut generator =
        SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = true).into_generator();
    let schema = plugin.parameters()?(&mut generator);
    let mut schema = schema.to_value();
    let inner = generator.take_definitions(true);
    if !inner.is_empty() {
        schema["$defs"] = Value::Object(inner);
    }
    tidy(&mut schema);
    let has_fields = schema["properties"].as_object().is_some_and(|fields| !fields.is_empty());
    has_fields.then_some(schema)
}

/// Takes out what names Rust types, and line breaks of doc comments.
fn tidy(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            for name in ["title", "format"] {
                if fields.get(name).is_some_and(Value::is_string) {
                    fields.remove(name);
                }
            }
            if let Some(Value::String(text)) = fields.get_mut("description") {
                *text = one_line(text);
            }
            fields.values_mut().for_each(tidy);
        }
        Value::Array(list) => list.iter_mut().for_each(tidy),
        _ => {}
    }
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The parameters of `plugin`.
pub(super) fn parameters(plugin: &PluginType) -> Vec<Parameter> {
    let mut rows = Vec::new();
    if let Some(schema) = schema(plugin) {
        fields_of(&schema, "", &mut rows);
    }
    rows
}

/// Rows of the fields of an object, those of nested objects behind their own.
fn fields_of(schema: &Value, parent: &str, rows: &mut Vec<Parameter>) {
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        let path = if parent.is_empty() { name.clone() } else { format!("{parent}.{name}") };
        let inner = without_null(field);
        let (path, element) = match inner.get("items") {
            Some(items) => (format!("{path}[]"), without_null(items)),
            None => (path, inner),
        };
        let nested = element.get("properties").is_some();
        rows.push(Parameter {
            kind: kind(inner),
            default: field.get("default").filter(|_| !nested).and_then(shown),
            meaning: meaning(field, element),
            path: path.clone(),
        });
        if nested {
            fields_of(element, &path, rows);
        }
    }
}

/// What an optional value holds if it is there.
fn without_null(schema: &Value) -> &Value {
    let choices = schema["anyOf"].as_array().into_iter().flatten();
    choices.into_iter().find(|choice| choice["type"] != "null").unwrap_or(schema)
}

/// A default as it would be written. What is empty or `null` stands for something that the meaning tells.
fn shown(default: &Value) -> Option<String> {
    match default {
        Value::Null => None,
        Value::String(text) if text.is_empty() => None,
        Value::String(text) => Some(text.clone()),
        Value::Array(list) if list.is_empty() => None,
        Value::Object(fields) if fields.is_empty() => None,
        Value::Number(number) => Some(match number.as_f64() {
            Some(float) if float.fract() == 0.0 && float.abs() < 1e15 => format!("{float:.0}"),
            _ => number.to_string(),
        }),
        other => Some(other.to_string()),
    }
}

/// What the doc comment of the field says, and those of the values that it may have.
fn meaning(field: &Value, element: &Value) -> String {
    let mut text = field["description"].as_str().unwrap_or_default().to_owned();
    let values = element["oneOf"].as_array().into_iter().flatten();
    let told: Vec<String> = values
        .filter_map(|value| {
            Some(format!("`{}`: {}", value["const"].as_str()?, value["description"].as_str()?))
        })
        .collect();
    if !told.is_empty() {
        if !text.is_empty() {
            text.push(' ');
        }
        text.push_str(&told.join(" "));
    }
    text
}

/// The type of a value, for people.
fn kind(schema: &Value) -> String {
    let values: Vec<&str> = schema["oneOf"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|value| value["const"].as_str())
        .chain(schema["enum"].as_array().into_iter().flatten().filter_map(Value::as_str))
        .collect();
    if !values.is_empty() {
        return values.join(" | ");
    }
    if schema.get("$ref").is_some() {
        return "mapping".to_owned();
    }
    let types: Vec<&str> = match &schema["type"] {
        Value::String(one) => vec![one],
        Value::Array(several) => {
            several.iter().filter_map(Value::as_str).filter(|kind| *kind != "null").collect()
        }
        _ => Vec::new(),
    };
    let named = types.iter().map(|kind| match *kind {
        "integer" => "whole number".to_owned(),
        "object" => "mapping".to_owned(),
        "array" => match schema.get("items").map(|items| self::kind(without_null(items))) {
            Some(element) if element != "any" => format!("list of {element}s"),
            _ => "list".to_owned(),
        },
        other => other.to_owned(),
    });
    let named = named.collect::<Vec<_>>().join(" or ");
    if named.is_empty() { "any".to_owned() } else { named }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugins::{REGISTRY, scorers};

    #[test]
    fn every_parameter_of_a_built_in_type_says_what_it_means() {
        for plugin in REGISTRY {
            for parameter in parameters(plugin) {
                assert!(!parameter.meaning.is_empty(), "{}: {}", plugin.name, parameter.path);
            }
        }
    }

    #[test]
    fn a_row_has_the_name_the_type_and_the_default_that_the_plugin_reads() {
        let rows = parameters(&scorers::load_aware::TYPE);
        assert_eq!(rows.len(), 3, "{rows:?}");
        assert_eq!(
            (&*rows[2].path, &*rows[2].kind, rows[2].default.as_deref()),
            ("threshold", "whole number", Some("128"))
        );
        let paths: Vec<String> =
            parameters(&scorers::session_affinity::TYPE).into_iter().map(|row| row.path).collect();
        assert!(paths.contains(&"sessionIdConfig.sources[].header".to_owned()), "{paths:?}");
    }
}
