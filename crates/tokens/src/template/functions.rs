//! The functions, filters and tests of chat templates that the template engine does not have.

use minijinja::value::{Kwargs, Rest, ValueKind};
use minijinja::{Environment, Error, ErrorKind, State, Value};

use super::methods::is_space;
use super::print::write_str;
use super::{dump, print};

/// Adds all of them to the environment.
pub(super) fn add(environment: &mut Environment<'static>) {
    environment.add_filter("tojson", dump::tojson);
    environment.add_filter("trim", trim);
    environment.add_filter("string", string);
    environment.add_function("raise_exception", raise_exception);
    environment.add_function("dict", dict);
    environment.add_function("strftime_now", strftime_now);
    environment.add_test("sequence", |value: &Value| {
        matches!(value.kind(), ValueKind::Seq | ValueKind::String | ValueKind::Map)
    });
    environment.add_test("iterable", |value: &Value| {
        let kind = value.kind();
        !value.is_none()
            && (kind == ValueKind::Undefined || kind == ValueKind::String || value.try_iter().is_ok())
    });
}

fn trim(value: &Value, chars: Option<&str>) -> Result<Value, Error> {
    let mut text = String::new();
    print::write_str(&mut text, value)?;
    Ok(Value::from(match chars {
        Some(chars) => text.trim_matches(|char| chars.contains(char)),
        None => text.trim_matches(is_space),
    }))
}

fn string(value: &Value) -> Result<Value, Error> {
    if value.as_str().is_some() {
        return Ok(value.clone());
    }
    let mut text = String::new();
    write_str(&mut text, value)?;
    Ok(Value::from(text))
}

fn raise_exception(message: &Value) -> Result<Value, Error> {
    Err(Error::new(ErrorKind::InvalidOperation, message.to_string()))
}

/// The present time in UTC, which is the time zone of servers in containers.
fn strftime_now(format: &str) -> Result<String, Error> {
    let failed =
        |error: jiff::Error| Error::new(ErrorKind::InvalidOperation, format!("strftime_now: {error}"));
    let now = jiff::Timestamp::try_from(std::time::SystemTime::now()).map_err(failed)?;
    jiff::fmt::strtime::format(format, &now.to_zoned(jiff::tz::TimeZone::UTC)).map_err(failed)
}

#[allow(clippy::needless_pass_by_value, reason = "functions get their arguments by value")]
/// Python's `dict`: a mapping or a list of pairs, and keyword arguments.
fn dict(_state: &State<'_, '_>, args: Rest<Value>, kwargs: Kwargs) -> Result<Value, Error> {
    let mut entries = super::Dict::default();
    let mut set = |key: &Value, value: Value| {
        let key = key.as_str().ok_or_else(|| Error::new(ErrorKind::InvalidOperation, "a key is text"))?;
        entries.set(key, value);
        Ok::<_, Error>(())
    };
    if args.len() > 1 {
        return Err(Error::new(ErrorKind::TooManyArguments, "dict takes one positional argument"));
    }
    if let Some(source) = args.first() {
        for item in source.try_iter()? {
            if source.kind() == ValueKind::Map {
                set(&item, source.get_item(&item)?)?;
            } else {
                set(&item.get_item_by_index(0)?, item.get_item_by_index(1)?)?;
            }
        }
    }
    for name in kwargs.args() {
        set(&Value::from(name), kwargs.peek(name)?)?;
    }
    Ok(Value::from_object(entries))
}
