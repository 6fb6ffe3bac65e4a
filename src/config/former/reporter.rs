//! The first form of the parameters of `request-attribute-reporter`: one `metric`, with its namespace and name beside the
//! expression.

use super::tree::{self, Map};
use crate::document::{Node, NodeValue, Problems};

/// The only source of data that there ever was.
const USAGE: &str = "usage";

/// Turns `metric` into the one attribute of today.
pub(super) fn translate(row: &mut Map, path: &str, problems: &mut Problems) {
    if tree::text_of(row, "type") != Some("request-attribute-reporter") {
        return;
    }
    let Some(NodeValue::Map(parameters)) = tree::get_mut(row, "parameters").map(|node| &mut node.value)
    else {
        return;
    };
    if tree::has_any_case(parameters, "attributes") {
        return;
    }
    let Some((name, metric)) = tree::take_any_case(parameters, "metric") else { return };
    let NodeValue::Map(mut metric) = metric.value else {
        tree::put(parameters, name.line, &name.text, metric);
        return;
    };
    let line = name.line;
    let map = |entries: Map| Node { line, value: NodeValue::Map(entries) };
    let mut key = Map::new();
    for field in ["namespace", "name"] {
        if let Some((_, value)) = tree::take_any_case(&mut metric, field) {
            tree::put(&mut key, line, field, value);
        }
    }
    if let Some((field, value)) = tree::take_any_case(&mut metric, "dataSource")
        && value.as_text().is_none_or(|text| !text.is_empty() && text != USAGE)
    {
        let message = format!("has no effect: expressions see `{USAGE}`; leave it out");
        problems.warning(field.line, format!("{path}.parameters.metric.{}", field.text), message);
    }
    // The expression and the condition keep their names.
    let mut attribute = metric;
    tree::put(&mut attribute, line, "key", map(key));
    let attributes = Node { line, value: NodeValue::List(vec![map(attribute)]) };
    tree::put(parameters, line, "attributes", attributes);
    let message = "is the former form; write `attributes: [{key: {namespace, name}, expression, condition}]`";
    problems.warning(line, format!("{path}.parameters.{}", name.text), message);
}
