//! From text to tree. YAML, of which JSON is a part.
//!
//! YAML readers differ in some points, which are settled here and tested below:
//!
//! * only `true` and `false` are booleans; `yes`, `no`, `on`, `off`, `y`, `n` are text, which whoever expects a boolean
//!   reads as one, as the reference does (YAML 1.1), see [`yaml_bool`](super::scalar::yaml_bool);
//! * `010` is text, for readers disagree whether it is 8 or 10; `0o10` and `0x10` are numbers;
//! * repeated keys are kept, so that all of them can be reported;
//! * aliases and merge keys work, within a budget that no useful document comes near.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::Number;
use serde_saphyr::Spanned;

use super::{Key, Node, NodeValue};

/// Largest document that is read, in bytes.
pub const MAX_DOCUMENT_BYTES: usize = 1 << 20;

/// Deepest nesting; the reader recurses, so it is the stack's bound too.
const MAX_DEPTH: usize = 48;

/// Why a text is no document.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct SyntaxError {
    /// Line, from 1; 0 if unknown.
    pub line: u32,
    /// The fault.
    pub message: String,
}

/// Reads one document. `None` if the text holds nothing but blanks and comments.
pub fn parse(text: &str) -> Result<Option<Node>, SyntaxError> {
    if text.len() > MAX_DOCUMENT_BYTES {
        let message = format!("{} bytes are too many: at most {MAX_DOCUMENT_BYTES} are read", text.len());
        return Err(SyntaxError { line: 0, message });
    }
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let blank = |line: &str| line.trim().is_empty() || line.trim_start().starts_with('#');
    if text.lines().all(blank) {
        return Ok(None);
    }
    match serde_saphyr::from_str_with_options::<Located>(text, options()) {
        Ok(Located(node)) => Ok(Some(node)),
        Err(error) => {
            let line = error.location().map_or(0, |location| location.line() as u32);
            if let Some(tab) = tab_before(text, line) {
                let message = "the line begins with a tab: YAML is indented with spaces only".to_owned();
                return Err(SyntaxError { line: tab, message });
            }
            Err(SyntaxError { line, message: plain(error.without_snippet()) })
        }
    }
}

fn options() -> serde_saphyr::Options {
    serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_events: 200_000,
            max_nodes: 100_000,
            max_depth: MAX_DEPTH,
            max_aliases: 1_000,
            max_anchors: 1_000,
            max_documents: 1,
            max_merge_keys: 1_000,
            max_total_scalar_bytes: 4 * MAX_DOCUMENT_BYTES,
        },
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: 50_000,
            max_replay_stack_depth: 16,
        },
        duplicate_keys: serde_saphyr::DuplicateKeyPolicy::PassThrough,
        leading_zero_numbers_as_strings: true,
        strict_booleans: true,
        emit_comments: false,
    }
}

/// First line at or before the fault whose indentation holds a tab.
fn tab_before(text: &str, fault: u32) -> Option<u32> {
    let indented_by_tab = |line: &str| {
        let indent = &line[..line.len() - line.trim_start_matches([' ', '\t']).len()];
        indent.contains('\t') && indent.len() < line.trim_end().len()
    };
    // The parser may notice one line late.
    let numbered = text.lines().zip(1u32..).take_while(|(_, number)| fault == 0 || *number <= fault + 1);
    numbered.into_iter().find(|(line, _)| indented_by_tab(line)).map(|(_, number)| number)
}

/// The parser's message without the position, which is told apart.
fn plain(error: &serde_saphyr::Error) -> String {
    let text = error.to_string();
    let first = text.lines().next().unwrap_or_default();
    if first.starts_with("budget breached: Documents") {
        return "holds more than one document: a second one begins with `---`; leave it out".to_owned();
    }
    let cut = first.rfind(" at line ").unwrap_or(first.len());
    first[..cut].trim_end_matches([':', ' ', '.']).to_owned()
}

struct Located(Node);

impl<'de> Deserialize<'de> for Located {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<Bare>::deserialize(deserializer)?;
        Ok(Self(Node { line: spanned.referenced.line() as u32, value: spanned.value.0 }))
    }
}

struct Bare(NodeValue);

impl<'de> Deserialize<'de> for Bare {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(BareVisitor).map(Self)
    }
}

struct BareVisitor;

impl<'de> Visitor<'de> for BareVisitor {
    type Value = NodeValue;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E: Error>(self) -> Result<NodeValue, E> {
        Ok(NodeValue::Null)
    }

    fn visit_none<E: Error>(self) -> Result<NodeValue, E> {
        Ok(NodeValue::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<NodeValue, E> {
        Ok(NodeValue::Bool(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<NodeValue, E> {
        Ok(NodeValue::Number(value.into()))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<NodeValue, E> {
        Ok(NodeValue::Number(value.into()))
    }

    fn visit_i128<E: Error>(self, value: i128) -> Result<NodeValue, E> {
        self.visit_f64(value as f64)
    }

    fn visit_u128<E: Error>(self, value: u128) -> Result<NodeValue, E> {
        self.visit_f64(value as f64)
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<NodeValue, E> {
        Number::from_f64(value).map(NodeValue::Number).ok_or_else(|| E::custom("expected a finite number"))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<NodeValue, E> {
        Ok(NodeValue::Text(value.to_owned()))
    }

    fn visit_string<E: Error>(self, value: String) -> Result<NodeValue, E> {
        Ok(NodeValue::Text(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<NodeValue, A::Error> {
        let mut nodes = Vec::new();
        while let Some(Located(node)) = list.next_element()? {
            nodes.push(node);
        }
        Ok(NodeValue::List(nodes))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<NodeValue, A::Error> {
        let mut entries = Vec::new();
        while let Some(key) = map.next_key::<Spanned<String>>()? {
            let Located(node) = map.next_value()?;
            let line = key.referenced.line() as u32;
            entries.push((Key { line: if line == 0 { node.line } else { line }, text: key.value }, node));
        }
        Ok(NodeValue::Map(entries))
    }
}
