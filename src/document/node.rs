//! The tree of a document, with lines.

use std::fmt;

use serde_json::{Map, Number, Value};

/// A value and the line it begins on.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// Line, from 1. In a document with aliases: where the value is used.
    pub line: u32,
    /// The value.
    pub value: NodeValue,
}

/// A key of a mapping and its line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// Line, from 1.
    pub line: u32,
    /// The key as written.
    pub text: String,
}

/// The content of a node.
#[derive(Clone, Debug, PartialEq)]
pub enum NodeValue {
    /// `null`, `~`, or nothing.
    Null,
    /// A boolean.
    Bool(bool),
    /// A finite number.
    Number(Number),
    /// Text.
    Text(String),
    /// A sequence.
    List(Vec<Node>),
    /// A mapping in document order; repeated keys are all there.
    Map(Vec<(Key, Node)>),
}

impl Node {
    /// True for `null`, `~`, or nothing.
    pub fn is_null(&self) -> bool {
        matches!(self.value, NodeValue::Null)
    }

    /// The text of a string.
    pub fn as_text(&self) -> Option<&str> {
        match &self.value {
            NodeValue::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The elements of a sequence.
    pub fn as_list(&self) -> Option<&[Node]> {
        match &self.value {
            NodeValue::List(list) => Some(list),
            _ => None,
        }
    }

    /// The entries of a mapping.
    pub fn as_map(&self) -> Option<&[(Key, Node)]> {
        match &self.value {
            NodeValue::Map(map) => Some(map),
            _ => None,
        }
    }

    /// The value without lines. Of repeated keys the last counts.
    pub fn to_json(&self) -> Value {
        match &self.value {
            NodeValue::Null => Value::Null,
            NodeValue::Bool(value) => Value::Bool(*value),
            NodeValue::Number(number) => Value::Number(number.clone()),
            NodeValue::Text(text) => Value::String(text.clone()),
            NodeValue::List(list) => Value::Array(list.iter().map(Self::to_json).collect()),
            NodeValue::Map(map) => {
                let entries = map.iter().map(|(key, node)| (key.text.clone(), node.to_json()));
                Value::Object(entries.collect::<Map<_, _>>())
            }
        }
    }

    /// Line of the field at `path` (`a.b[0]`) below this node, keys in any letter case; of the deepest part that
    /// exists.
    pub fn line_of(&self, path: &str) -> u32 {
        let mut line = self.line;
        let mut node = self;
        let mut rest = path;
        while !rest.is_empty() {
            if let Some(inner) = rest.strip_prefix('[') {
                let Some((index, after)) = inner.split_once(']') else { break };
                let element = index.parse::<usize>().ok().zip(node.as_list());
                let Some(next) = element.and_then(|(index, list)| list.get(index)) else { break };
                (node, line, rest) = (next, next.line, after.strip_prefix('.').unwrap_or(after));
                continue;
            }
            let Some(map) = node.as_map() else { break };
            // A key may itself hold dots, so the longest key that fits is taken, not the text before the next dot.
            let fits = |key: &str| {
                let head = rest.get(..key.len())?;
                let after = &rest[key.len()..];
                let ends = after.is_empty() || after.starts_with(['.', '[']);
                (ends && head.eq_ignore_ascii_case(key)).then_some(after)
            };
            let best = map
                .iter()
                .rev()
                .filter_map(|(key, next)| fits(&key.text).map(|after| (key, next, after)))
                .max_by_key(|(key, ..)| key.text.len());
            let Some((key, next, after)) = best else { break };
            (node, line, rest) = (next, key.line, after.strip_prefix('.').unwrap_or(after));
            if key.text.is_empty() {
                break;
            }
        }
        line
    }
}

impl fmt::Display for Node {
    /// The value as an error text quotes it: JSON, shortened.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.value {
            NodeValue::List(_) => f.write_str("a list"),
            NodeValue::Map(_) => f.write_str("a mapping"),
            NodeValue::Text(text) if text.chars().count() > 60 => {
                let start: String = text.chars().take(60).collect();
                write!(f, "{}…", Value::String(start))
            }
            _ => write!(f, "{}", self.to_json()),
        }
    }
}
