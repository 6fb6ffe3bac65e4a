//! Python's methods of texts, lists and dictionaries, as far as the sandbox of chat templates allows them.

use minijinja::value::ValueKind;
use minijinja::{Error, ErrorKind, State, Value};

/// True for Python's white space, which has more characters than Unicode's.
pub(crate) fn is_space(char: char) -> bool {
    char.is_whitespace() || matches!(char, '\u{1c}'..='\u{1f}')
}

/// Calls a method that the value itself does not have.
pub(super) fn call(
    state: &mut State<'_, '_>,
    value: &Value,
    method: &str,
    args: &[Value],
) -> Result<Value, Error> {
    match (value.kind(), value.as_str()) {
        (ValueKind::String, Some(text)) => {
            if let Some(result) = text_method(text, method, args)? {
                return Ok(result);
            }
        }
        (ValueKind::Seq, _) if method == "index" => {
            let [wanted] = args else { return Err(wrong(method)) };
            let found = value.try_iter()?.position(|item| item == *wanted);
            return found
                .map(Value::from)
                .ok_or_else(|| Error::new(ErrorKind::InvalidOperation, "is not in list"));
        }
        _ => {}
    }
    minijinja_contrib::pycompat::unknown_method_callback(state, value, method, args)
}

fn wrong(method: &str) -> Error {
    Error::new(ErrorKind::InvalidOperation, format!("arguments of {method}"))
}

fn text_method(text: &str, method: &str, args: &[Value]) -> Result<Option<Value>, Error> {
    let argument = |index: usize| -> Result<&str, Error> {
        args.get(index).and_then(Value::as_str).ok_or_else(|| wrong(method))
    };
    let result = match (method, args.len()) {
        ("strip", 0) => Value::from(text.trim_matches(is_space)),
        ("lstrip", 0) => Value::from(text.trim_start_matches(is_space)),
        ("rstrip", 0) => Value::from(text.trim_end_matches(is_space)),
        ("removeprefix", 1) => Value::from(text.strip_prefix(argument(0)?).unwrap_or(text)),
        ("removesuffix", 1) => Value::from(text.strip_suffix(argument(0)?).unwrap_or(text)),
        ("partition" | "rpartition", 1) => {
            let separator = argument(0)?;
            if separator.is_empty() {
                return Err(wrong(method));
            }
            let parts = if method == "partition" {
                text.split_once(separator).map_or((text, "", ""), |(left, right)| (left, separator, right))
            } else {
                text.rsplit_once(separator).map_or(("", "", text), |(left, right)| (left, separator, right))
            };
            let items = [parts.0, parts.1, parts.2].map(Value::from).to_vec();
            Value::from(minijinja::value::Tuple::from(items))
        }
        ("split", 0) => Value::from(
            text.split(is_space).filter(|part| !part.is_empty()).map(Value::from).collect::<Vec<_>>(),
        ),
        ("rsplit", 1) => Value::from(text.split(argument(0)?).map(Value::from).collect::<Vec<_>>()),
        ("rsplit", 2) => {
            let most = args.get(1).and_then(Value::as_i64).ok_or_else(|| wrong(method))?;
            let parts = usize::try_from(most).map_or(usize::MAX, |most| most.saturating_add(1));
            let mut parts: Vec<Value> = text.rsplitn(parts, argument(0)?).map(Value::from).collect();
            parts.reverse();
            Value::from(parts)
        }
        ("zfill", 1) => {
            let width = args.first().and_then(Value::as_usize).filter(|width| *width <= 4096);
            let missing = width.ok_or_else(|| wrong(method))?.saturating_sub(text.chars().count());
            let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
            let sign = text.get(..text.len() - digits.len()).unwrap_or_default();
            Value::from(format!("{sign}{}{digits}", "0".repeat(missing)))
        }
        ("isspace", 0) => Value::from(!text.is_empty() && text.chars().all(is_space)),
        _ => return Ok(None),
    };
    Ok(Some(result))
}
