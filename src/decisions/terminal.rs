//! Text of others, made safe for a terminal.

use std::fmt::Write as _;

use serde_json::Value;

use crate::telemetry::acts_on_terminals;

/// `text` with every character that a terminal acts on, or that turns the direction of writing, shown as `\u{…}`.
pub fn shown(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        if acts_on_terminals(character) {
            // Writing to a string cannot fail.
            let _ = write!(shown, "{}", character.escape_unicode());
        } else {
            shown.push(character);
        }
    }
    shown
}

/// The same document with every text made safe, names of fields too.
pub fn shown_all(value: Value) -> Value {
    match value {
        Value::String(text) => Value::String(shown(&text)),
        Value::Array(items) => Value::Array(items.into_iter().map(shown_all).collect()),
        Value::Object(fields) => {
            Value::Object(fields.into_iter().map(|(name, value)| (shown(&name), shown_all(value))).collect())
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_a_terminal_acts_on_is_shown_and_other_text_stays() {
        assert_eq!(shown("\u{1b}[2J\r\nx"), "\\u{1b}[2J\\u{d}\\u{a}x");
        assert_eq!(shown("a\u{202e}b\u{9b}1m"), "a\\u{202e}b\\u{9b}1m");
        assert_eq!(shown("<script>é模型</script>"), "<script>é模型</script>");
    }

    proptest! {
        #[test]
        fn nothing_that_is_shown_acts(text in any::<String>()) {
            prop_assert!(!shown(&text).chars().any(acts_on_terminals));
        }
    }
}
