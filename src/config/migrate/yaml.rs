//! A tree as lines of YAML, or as JSON.

use std::fmt::Write;

use serde_json::Value;

use crate::document::{Node, NodeValue, parse};

/// The whole tree as a document.
pub(super) fn document(root: &Node) -> String {
    let mut lines = Vec::new();
    match &root.value {
        NodeValue::Map(map) if !map.is_empty() => {
            for (key, node) in map {
                lines.extend(entry(&key.text, node, 0));
            }
        }
        _ => lines.push(inline(root)),
    }
    lines.join("\n") + "\n"
}

/// An entry of a mapping whose keys stand in the column `indent`.
pub(super) fn entry(key: &str, node: &Node, indent: usize) -> Vec<String> {
    let start = format!("{}{}:", " ".repeat(indent), scalar(key));
    match &node.value {
        NodeValue::Map(map) if !map.is_empty() => {
            let rows = map.iter().flat_map(|(key, node)| entry(&key.text, node, indent + 2));
            std::iter::once(start).chain(rows).collect()
        }
        NodeValue::List(list) if !list.is_empty() => {
            let rows = list.iter().flat_map(|node| element(node, indent));
            std::iter::once(start).chain(rows).collect()
        }
        _ => vec![format!("{start} {}", inline(node))],
    }
}

/// An element of a list whose dashes stand in the column `indent`.
pub(super) fn element(node: &Node, indent: usize) -> Vec<String> {
    let NodeValue::Map(map) = &node.value else {
        return vec![format!("{}- {}", " ".repeat(indent), inline(node))];
    };
    let rows = map.iter().flat_map(|(key, node)| entry(&key.text, node, indent + 2));
    let mut rows: Vec<String> = rows.collect();
    match rows.first_mut() {
        Some(first) => first.replace_range(indent..=indent, "-"),
        None => rows.push(format!("{}- {{}}", " ".repeat(indent))),
    }
    rows
}

/// A value on one line.
pub(super) fn inline(node: &Node) -> String {
    match &node.value {
        NodeValue::Text(text) => scalar(text),
        NodeValue::List(list) => {
            format!("[{}]", list.iter().map(inline).collect::<Vec<_>>().join(", "))
        }
        NodeValue::Map(map) => {
            let entries = map.iter().map(|(key, node)| format!("{}: {}", scalar(&key.text), inline(node)));
            format!("{{{}}}", entries.collect::<Vec<_>>().join(", "))
        }
        _ => node.to_json().to_string(),
    }
}

/// The tree as JSON with indentation, its members in order.
pub(super) fn json(root: &Node) -> String {
    let mut out = String::new();
    write_json(root, 0, &mut out);
    out + "\n"
}

fn write_json(node: &Node, indent: usize, out: &mut String) {
    let gap = " ".repeat(indent + 2);
    let end = " ".repeat(indent);
    // Writing to a string cannot fail.
    match &node.value {
        NodeValue::Map(map) if !map.is_empty() => {
            for (index, (key, node)) in map.iter().enumerate() {
                let mark = if index == 0 { "{" } else { "," };
                let _ = write!(out, "{mark}\n{gap}{}: ", Value::String(key.text.clone()));
                write_json(node, indent + 2, out);
            }
            let _ = write!(out, "\n{end}}}");
        }
        NodeValue::List(list) if !list.is_empty() => {
            for (index, node) in list.iter().enumerate() {
                let _ = write!(out, "{}\n{gap}", if index == 0 { "[" } else { "," });
                write_json(node, indent + 2, out);
            }
            let _ = write!(out, "\n{end}]");
        }
        _ => {
            let _ = write!(out, "{}", node.to_json());
        }
    }
}

/// Text as a scalar: bare if it is read as the same text.
fn scalar(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'/');
    let begins = text.starts_with(|c: char| c.is_ascii_alphanumeric());
    let same = || matches!(parse(text), Ok(Some(node)) if node.as_text() == Some(text));
    // What other readers take for a boolean is quoted for them.
    let doubtful = ["y", "n", "yes", "no", "on", "off"].iter().any(|word| text.eq_ignore_ascii_case(word));
    if begins && !doubtful && text.bytes().all(plain) && same() {
        text.to_owned()
    } else {
        Value::String(text.to_owned()).to_string()
    }
}
