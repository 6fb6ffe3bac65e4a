//! Writes the output of `{{ value }}`, which is that of Python's `str`.

use minijinja::value::ValueKind;
use minijinja::{Error, ErrorKind, Output, State, Value};

use crate::json::float_repr;

/// Writes a value to the output.
pub(super) fn write_value(
    out: &mut Output<'_>,
    _state: &mut State<'_, '_>,
    value: &Value,
) -> Result<(), Error> {
    let written = if let Some(text) = value.as_str() {
        out.write_str(text)
    } else {
        let mut text = String::new();
        write_str(&mut text, value)?;
        out.write_str(&text)
    };
    written.map_err(|_| Error::new(ErrorKind::WriteFailure, "the output is not taken"))
}

/// Writes Python's `str`: a text as it is, and any other value like [`write_repr`].
pub(super) fn write_str(out: &mut String, value: &Value) -> Result<(), Error> {
    match value.as_str() {
        Some(text) => out.push_str(text),
        None if value.is_undefined() => {}
        None => write_repr(out, value, 0)?,
    }
    Ok(())
}

/// Writes a number. `json` chooses JSON's names for numbers that are not finite, and not Python's.
pub(super) fn write_number(out: &mut String, value: &Value, json: bool) -> Result<(), Error> {
    if value.is_integer() {
        out.push_str(&value.to_string());
        return Ok(());
    }
    let number = f64::try_from(value.clone())?;
    out.push_str(&match (json, number.is_nan(), number.is_infinite()) {
        (true, true, _) => "NaN".to_owned(),
        (true, _, true) => if number > 0.0 { "Infinity" } else { "-Infinity" }.to_owned(),
        _ => float_repr(number),
    });
    Ok(())
}

/// The deepest container that is written.
const MAX_DEPTH: usize = 128;

fn write_repr(out: &mut String, value: &Value, level: usize) -> Result<(), Error> {
    if level > MAX_DEPTH {
        return Err(Error::new(ErrorKind::InvalidOperation, "too deep to be printed"));
    }
    match value.kind() {
        ValueKind::None => out.push_str("None"),
        ValueKind::Bool => out.push_str(if value.is_true() { "True" } else { "False" }),
        ValueKind::Number => write_number(out, value, false)?,
        ValueKind::String => write_quoted(out, value.as_str().unwrap_or_default()),
        ValueKind::Seq => {
            let (open, close) = if value.is_tuple() { ('(', ')') } else { ('[', ']') };
            out.push(open);
            let mut count = 0;
            for item in value.try_iter()? {
                out.push_str(if count == 0 { "" } else { ", " });
                write_repr(out, &item, level + 1)?;
                count += 1;
            }
            if value.is_tuple() && count == 1 {
                out.push(',');
            }
            out.push(close);
        }
        ValueKind::Map => {
            out.push('{');
            for (index, key) in value.try_iter()?.enumerate() {
                out.push_str(if index == 0 { "" } else { ", " });
                write_repr(out, &key, level + 1)?;
                out.push_str(": ");
                write_repr(out, &value.get_item(&key)?, level + 1)?;
            }
            out.push('}');
        }
        ValueKind::Undefined => out.push_str("Undefined"),
        // The server's text for these values contains addresses in memory.
        other => return Err(Error::new(ErrorKind::InvalidOperation, format!("{other} has no printed form"))),
    }
    Ok(())
}

/// Writes Python's `repr` of a text.
fn write_quoted(out: &mut String, text: &str) {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    out.push(quote);
    for char in text.chars() {
        match char {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            char if char == quote => {
                out.push('\\');
                out.push(char);
            }
            char if is_printable(char) => out.push(char),
            char => match u32::from(char) {
                code @ ..0x100 => out.push_str(&format!("\\x{code:02x}")),
                code @ ..0x10000 => out.push_str(&format!("\\u{code:04x}")),
                code => out.push_str(&format!("\\U{code:08x}")),
            },
        }
    }
    out.push(quote);
}

/// False for separators, control characters and characters that shape others. Unassigned characters count as printable.
fn is_printable(char: char) -> bool {
    let shaping = matches!(char, '\u{ad}' | '\u{600}'..='\u{605}' | '\u{61c}' | '\u{6dd}' | '\u{70f}' | '\u{180e}'
        | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}'
        | '\u{fff9}'..='\u{fffb}' | '\u{e000}'..='\u{f8ff}' | '\u{e0001}'..='\u{e007f}' | '\u{f0000}'..);
    char == ' ' || !(char.is_control() || char.is_whitespace() || shaping)
}
