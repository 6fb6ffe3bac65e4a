//! Writes JSON as Python's `json.dumps` does.

use std::fmt::Write as _;

/// The parameters of `json.dumps`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DumpStyle {
    /// Escapes all characters beyond ASCII.
    pub(crate) ensure_ascii: bool,
    /// The indentation of one level; `None` writes everything on one line.
    pub(crate) indent: Option<String>,
    /// The text between two items.
    pub(crate) item: String,
    /// The text between a key and its value.
    pub(crate) key: String,
    /// Sorts the keys.
    pub(crate) sort_keys: bool,
}

impl DumpStyle {
    /// The parameters of `json.dumps(x, ensure_ascii=...)`.
    pub(crate) fn plain(ensure_ascii: bool) -> Self {
        Self { ensure_ascii, indent: None, item: ", ".into(), key: ": ".into(), sort_keys: false }
    }
}

/// Writes a text in quotes.
pub(crate) fn write_string(out: &mut String, text: &str, ensure_ascii: bool) {
    out.push('"');
    for char in text.chars() {
        match char {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\0'..='\u{1f}' => {
                let _ = write!(out, "\\u{:04x}", u32::from(char));
            }
            char if ensure_ascii && !char.is_ascii() => {
                for unit in char.encode_utf16(&mut [0; 2]) {
                    let _ = write!(out, "\\u{unit:04x}");
                }
            }
            char => out.push(char),
        }
    }
    out.push('"');
}
