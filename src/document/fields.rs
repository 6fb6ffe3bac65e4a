//! Reading a mapping field by field.

use super::scalar::yaml_bool;
use super::{Key, Level, Node, NodeValue, Problems, nearest};

/// A mapping under reading. Each getter notes the field's name; [`Fields::finish`] reports what nobody asked for.
///
/// Names are case-sensitive. `null` is the same as absent.
#[derive(Debug)]
pub struct Fields<'d> {
    entries: &'d [(Key, Node)],
    line: u32,
    path: String,
    known: Vec<&'static str>,
}

impl<'d> Fields<'d> {
    /// The fields of `node`, which lies at `path`. A `null` has none; anything but a mapping is an error.
    pub fn of(node: &'d Node, path: &str, problems: &mut Problems) -> Option<Self> {
        let entries = match &node.value {
            NodeValue::Map(entries) => entries.as_slice(),
            NodeValue::Null => &[],
            _ => {
                problems.error(node.line, path, format!("got {node}, expected a mapping"));
                return None;
            }
        };
        Some(Self { entries, line: node.line, path: path.to_owned(), known: Vec::new() })
    }

    /// Line of the mapping.
    pub fn line(&self) -> u32 {
        self.line
    }

    /// Path of the field `name`.
    pub fn path(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }

    /// Line of the field `name`; of the mapping if it is absent.
    pub fn line_of(&self, name: &str) -> u32 {
        self.entry(name).map_or(self.line, |(key, _)| key.line)
    }

    fn entry(&self, name: &str) -> Option<&'d (Key, Node)> {
        self.entries.iter().rev().find(|(key, _)| key.text == name)
    }

    /// The field `name`, unless it is absent or `null`.
    pub fn get(&mut self, name: &'static str) -> Option<&'d Node> {
        if !self.known.contains(&name) {
            self.known.push(name);
        }
        self.entry(name).map(|(_, node)| node).filter(|node| !node.is_null())
    }

    /// A string.
    pub fn text(&mut self, name: &'static str, problems: &mut Problems) -> Option<&'d str> {
        let node = self.get(name)?;
        let text = node.as_text();
        if text.is_none() {
            let quoting = match node.value {
                NodeValue::Bool(_) | NodeValue::Number(_) => " (write it in quotes)",
                _ => "",
            };
            self.refuse(name, node, &format!("a string{quoting}"), problems);
        }
        text
    }

    /// `true` or `false`, or a word that YAML 1.1 takes for one of them.
    pub fn boolean(&mut self, name: &'static str, problems: &mut Problems) -> Option<bool> {
        let node = self.get(name)?;
        let value = match &node.value {
            NodeValue::Bool(value) => Some(*value),
            NodeValue::Text(text) => yaml_bool(text),
            _ => None,
        };
        if value.is_none() {
            self.refuse(name, node, "true or false", problems);
        }
        value
    }

    /// Any finite number.
    pub fn number(&mut self, name: &'static str, problems: &mut Problems) -> Option<f64> {
        let node = self.get(name)?;
        let number = match &node.value {
            NodeValue::Number(number) => number.as_f64().filter(|number| number.is_finite()),
            _ => None,
        };
        if number.is_none() {
            self.refuse(name, node, "a number", problems);
        }
        number
    }

    /// A whole number in 32 bits.
    pub fn integer(&mut self, name: &'static str, problems: &mut Problems) -> Option<i32> {
        let node = self.get(name)?;
        let whole = match &node.value {
            NodeValue::Number(number) => number.as_i64().and_then(|number| i32::try_from(number).ok()),
            _ => None,
        };
        if whole.is_none() {
            let range = format!("a whole number from {} to {}", i32::MIN, i32::MAX);
            self.refuse(name, node, &range, problems);
        }
        whole
    }

    /// A list; absent is empty.
    pub fn list(&mut self, name: &'static str, problems: &mut Problems) -> &'d [Node] {
        let Some(node) = self.get(name) else { return &[] };
        node.as_list().unwrap_or_else(|| {
            self.refuse(name, node, "a list", problems);
            &[]
        })
    }

    /// A value that `read` makes of a string or a number, both given as text.
    pub fn scalar<T>(
        &mut self,
        name: &'static str,
        problems: &mut Problems,
        read: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        let node = self.get(name)?;
        let text = match &node.value {
            NodeValue::Text(text) => text.clone(),
            NodeValue::Number(number) => number.to_string(),
            _ => {
                self.refuse(name, node, "a string", problems);
                return None;
            }
        };
        match read(&text) {
            Ok(value) => Some(value),
            Err(message) => {
                problems.error(self.line_of(name), self.path(name), message);
                None
            }
        }
    }

    fn refuse(&self, name: &str, node: &Node, expected: &str, problems: &mut Problems) {
        problems.error(self.line_of(name), self.path(name), format!("got {node}, expected {expected}"));
    }

    /// Reports repeated fields as errors and unknown ones at `level`, with the nearest known name.
    pub fn finish(self, level: Level, problems: &mut Problems) {
        for (index, (key, _)) in self.entries.iter().enumerate() {
            let (line, path) = (key.line, self.path(&key.text));
            if let Some((first, _)) =
                self.entries[..index].iter().find(|(earlier, _)| earlier.text == key.text)
            {
                problems.error(line, path, format!("is given twice; first in line {}", first.line));
            } else if !self.known.contains(&key.text.as_str()) {
                let message = format!("unknown field{}", nearest::hint(&key.text, &self.known));
                match level {
                    Level::Error => problems.error(line, path, message),
                    Level::Warning => problems.warning(line, path, message),
                    Level::Note => problems.note(line, path, message),
                }
            }
        }
    }
}
