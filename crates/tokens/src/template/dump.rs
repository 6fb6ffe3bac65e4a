//! The filter `tojson`, which is Python's `json.dumps` in chat templates.

use minijinja::value::{Kwargs, ValueKind};
use minijinja::{Error, ErrorKind, State, Value};

use super::print::write_number;
use crate::json::{DumpStyle, write_string};

#[allow(clippy::needless_pass_by_value, reason = "filters get their arguments by value")]
/// `tojson(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False)`
pub(super) fn tojson(
    state: &State<'_, '_>,
    value: &Value,
    positional: Option<Value>,
    kwargs: Kwargs,
) -> Result<Value, Error> {
    let mut style = DumpStyle::plain(false);
    let ensure: Option<Value> = positional.or(kwargs.get("ensure_ascii")?);
    style.ensure_ascii = ensure.is_some_and(|value| value.is_true());
    if let Some(indent) = kwargs.get::<Option<Value>>("indent")?.filter(|value| !value.is_none()) {
        style.indent = Some(match (indent.as_str(), indent.as_i64()) {
            (Some(text), _) => text.to_owned(),
            (None, Some(width @ ..=64)) => " ".repeat(usize::try_from(width).unwrap_or(0)),
            _ => return Err(invalid("indent is a text or a number of at most 64")),
        });
        style.item = ",".into();
    }
    if let Some(separators) = kwargs.get::<Option<Value>>("separators")?.filter(|value| !value.is_none()) {
        let part = |index| -> Result<String, Error> {
            let part = separators.get_item_by_index(index)?;
            part.as_str().map(str::to_owned).ok_or_else(|| invalid("separators are two texts"))
        };
        (style.item, style.key) = (part(0)?, part(1)?);
    }
    style.sort_keys = kwargs.get::<Option<bool>>("sort_keys")?.unwrap_or(false);
    kwargs.assert_all_used()?;
    let mut out = String::new();
    write(state, &mut out, value, &style, 0)?;
    Ok(Value::from(out))
}

fn invalid(text: &'static str) -> Error {
    Error::new(ErrorKind::InvalidOperation, text)
}

/// The deepest value that is written.
const MAX_DEPTH: usize = 128;

fn write(
    state: &State<'_, '_>,
    out: &mut String,
    value: &Value,
    style: &DumpStyle,
    level: usize,
) -> Result<(), Error> {
    if level > MAX_DEPTH {
        return Err(invalid("too deep to be dumped"));
    }
    let before = out.len();
    match value.kind() {
        ValueKind::None => out.push_str("null"),
        ValueKind::Bool => out.push_str(if value.is_true() { "true" } else { "false" }),
        ValueKind::Number => write_number(out, value, true)?,
        ValueKind::String => write_string(out, value.as_str().unwrap_or_default(), style.ensure_ascii),
        ValueKind::Seq => {
            let items: Vec<Value> = value.try_iter()?.collect();
            write_items(out, ['[', ']'], style, level, items.len(), |out, index| {
                items.get(index).map_or(Ok(()), |item| write(state, out, item, style, level + 1))
            })?;
        }
        ValueKind::Map => {
            let mut keys: Vec<Value> = value.try_iter()?.collect();
            if style.sort_keys {
                keys.sort_by(|left, right| left.as_str().cmp(&right.as_str()));
            }
            write_items(out, ['{', '}'], style, level, keys.len(), |out, index| {
                let Some(key) = keys.get(index) else { return Ok(()) };
                write_key(out, key, style)?;
                out.push_str(&style.key);
                write(state, out, &value.get_item(key)?, style, level + 1)
            })?;
        }
        other => return Err(Error::new(ErrorKind::InvalidOperation, format!("{other} has no JSON form"))),
    }
    state.consume_fuel(1 + ((out.len() - before) / 64) as u64)
}

fn write_key(out: &mut String, key: &Value, style: &DumpStyle) -> Result<(), Error> {
    match key.kind() {
        ValueKind::String => write_string(out, key.as_str().unwrap_or_default(), style.ensure_ascii),
        ValueKind::None => out.push_str("\"null\""),
        ValueKind::Bool => out.push_str(if key.is_true() { "\"true\"" } else { "\"false\"" }),
        ValueKind::Number => {
            out.push('"');
            write_number(out, key, true)?;
            out.push('"');
        }
        _ => return Err(invalid("a key of an object is text")),
    }
    Ok(())
}

/// Writes a list or an object of `count` entries. An empty one stays on its line.
fn write_items(
    out: &mut String,
    brackets: [char; 2],
    style: &DumpStyle,
    level: usize,
    count: usize,
    mut entry: impl FnMut(&mut String, usize) -> Result<(), Error>,
) -> Result<(), Error> {
    let newline = |out: &mut String, level: usize| {
        if let Some(indent) = &style.indent {
            out.push('\n');
            (0..level).for_each(|_| out.push_str(indent));
        }
    };
    out.push(brackets[0]);
    for index in 0..count {
        if index > 0 {
            out.push_str(&style.item);
        }
        newline(out, level + 1);
        entry(out, index)?;
    }
    if count > 0 {
        newline(out, level);
    }
    out.push(brackets[1]);
    Ok(())
}
