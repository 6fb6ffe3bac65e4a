//! Token counts as responses report them, and how several reports of one response become one.

use super::error::ScanError;
use super::number::{real_number, whole_number};
use super::pieces::string_in;
use super::scan::{Cursor, Kind};
use super::types::{Api, Usage};

/// How a response reports usage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dialect {
    /// OpenAI and what follows it: one `usage` at the end, in the Responses API inside of `response`.
    OpenAi,
    /// Anthropic: input in `message_start`, output in `message_delta`; the counts never have a total.
    Anthropic,
}

impl Dialect {
    /// The dialect of an API; `None` if its responses report no usage.
    pub(super) fn of(api: Api) -> Option<Self> {
        match api {
            Api::Opaque | Api::CountTokens => None,
            Api::Messages => Some(Self::Anthropic),
            _ => Some(Self::OpenAi),
        }
    }
}

/// The counts of one `usage` object.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Report {
    prompt: u64,
    completion: u64,
    total: u64,
    cached: Option<u64>,
}

/// Adds a report: counts that are not zero and details that are present replace earlier ones. The total is the
/// reported one if that report was complete, else the sum.
pub(super) fn merge(usage: &mut Option<Usage>, report: Report) {
    let merged = usage.get_or_insert_default();
    if report.prompt != 0 {
        merged.prompt_tokens = report.prompt;
    }
    if report.completion != 0 {
        merged.completion_tokens = report.completion;
    }
    merged.cached_tokens = report.cached.or(merged.cached_tokens);
    let complete = report.prompt != 0 && report.completion != 0 && report.total != 0;
    merged.total_tokens =
        if complete { report.total } else { merged.prompt_tokens.saturating_add(merged.completion_tokens) };
}

/// Reads a `usage` object that lies alone in `bytes`.
pub(super) fn read_alone(dialect: Dialect, bytes: &[u8]) -> Result<Option<Report>, ScanError> {
    let mut cursor = Cursor::new(bytes)?;
    let report = read(dialect, &mut cursor)?;
    cursor.finish()?;
    Ok(report)
}

/// Reads the usage of one event's data. Anthropic's start and delta may both be in it.
pub(super) fn read_event(dialect: Dialect, data: &[u8]) -> Result<[Option<Report>; 2], ScanError> {
    let mut cursor = Cursor::new(data)?;
    let (mut top, mut nested) = (None, None);
    let within: &[u8] = match dialect {
        Dialect::OpenAi => b"response",
        Dialect::Anthropic => b"message",
    };
    let mut event = cursor.open_object()?;
    while let Some(name) = cursor.member(&mut event)? {
        match cursor.value(name).as_ref() {
            b"usage" => top = read(dialect, &mut cursor)?,
            name if name == within => nested = read_within(dialect, &mut cursor)?,
            _ => {
                cursor.skip()?;
            }
        }
    }
    cursor.finish()?;
    Ok(match dialect {
        Dialect::OpenAi => [top.or(nested), None],
        // What the start says about output is a placeholder.
        Dialect::Anthropic => [nested.map(|start| Report { completion: 0, ..start }), top],
    })
}

fn read_within(dialect: Dialect, cursor: &mut Cursor<'_>) -> Result<Option<Report>, ScanError> {
    let mut report = None;
    if cursor.peek()? != Kind::Object {
        cursor.skip()?;
        return Ok(report);
    }
    let mut object = cursor.open()?;
    while let Some(name) = cursor.member(&mut object)? {
        if cursor.value(name).as_ref() == b"usage" {
            report = read(dialect, cursor)?;
        } else {
            cursor.skip()?;
        }
    }
    Ok(report)
}

/// Reads the `usage` value that comes next; `None` if it is no object.
fn read(dialect: Dialect, cursor: &mut Cursor<'_>) -> Result<Option<Report>, ScanError> {
    if cursor.peek()? != Kind::Object {
        cursor.skip()?;
        return Ok(None);
    }
    let (mut prompt, mut completion, mut total) = (None, None, None);
    let (mut input, mut output) = (None, None);
    let (mut prompt_cached, mut input_cached, mut cache_read) = (None, None, None);
    let mut object = cursor.open()?;
    while let Some(name) = cursor.member(&mut object)? {
        match cursor.value(name).as_ref() {
            b"prompt_tokens" => prompt = Some(count(cursor)?),
            b"completion_tokens" => completion = Some(count(cursor)?),
            b"total_tokens" => total = Some(count(cursor)?),
            b"input_tokens" => input = Some(count(cursor)?),
            b"output_tokens" => output = Some(count(cursor)?),
            b"prompt_tokens_details" => prompt_cached = cached(cursor)?,
            b"input_tokens_details" => input_cached = cached(cursor)?,
            b"cache_read_input_tokens" => cache_read = present_count(cursor)?,
            _ => {
                cursor.skip()?;
            }
        }
    }
    Ok(Some(match dialect {
        Dialect::OpenAi => Report {
            prompt: prompt.or(input).unwrap_or_default(),
            completion: completion.or(output).unwrap_or_default(),
            total: total.unwrap_or_default(),
            cached: input_cached.or(prompt_cached),
        },
        Dialect::Anthropic => Report {
            prompt: input.unwrap_or_default(),
            completion: output.unwrap_or_default(),
            total: 0,
            cached: cache_read,
        },
    }))
}

/// `cached_tokens` of the details object that comes next.
fn cached(cursor: &mut Cursor<'_>) -> Result<Option<u64>, ScanError> {
    let mut found = None;
    if cursor.peek()? != Kind::Object {
        cursor.skip()?;
        return Ok(found);
    }
    let mut object = cursor.open()?;
    while let Some(name) = cursor.member(&mut object)? {
        if cursor.value(name).as_ref() == b"cached_tokens" {
            found = present_count(cursor)?;
        } else {
            cursor.skip()?;
        }
    }
    Ok(found)
}

fn present_count(cursor: &mut Cursor<'_>) -> Result<Option<u64>, ScanError> {
    if cursor.peek()? == Kind::Null {
        cursor.skip()?;
        return Ok(None);
    }
    count(cursor).map(Some)
}

/// A count: a number, truncated, or a string that holds one; anything else is 0.
fn count(cursor: &mut Cursor<'_>) -> Result<u64, ScanError> {
    Ok(match cursor.peek()? {
        Kind::Number => truncated(cursor.number()?),
        Kind::String => {
            let string = string_in(cursor, &[])?;
            string.map_or(0, |string| truncated(cursor.value(string).trim_ascii()))
        }
        _ => {
            cursor.skip()?;
            0
        }
    })
}

fn truncated(number: &[u8]) -> u64 {
    if number.is_empty() {
        return 0;
    }
    // The cast saturates: negative counts are 0.
    whole_number(number).unwrap_or_else(|| real_number(number).map_or(0, |real| real as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usage_of(dialect: Dialect, json: &str) -> Option<Usage> {
        let mut usage = None;
        if let Some(report) = read_alone(dialect, json.as_bytes()).unwrap() {
            merge(&mut usage, report);
        }
        usage
    }

    fn usage(prompt: u64, completion: u64, total: u64, cached: Option<u64>) -> Usage {
        Usage {
            prompt_tokens: prompt,
            completion_tokens: completion,
            total_tokens: total,
            cached_tokens: cached,
        }
    }

    #[test]
    fn both_namings_of_the_openai_counts_are_read() {
        for (json, expected) in [
            (r#"{"prompt_tokens":3,"completion_tokens":4,"total_tokens":9}"#, Some(usage(3, 4, 9, None))),
            (r#"{"input_tokens":3,"output_tokens":4,"total_tokens":7}"#, Some(usage(3, 4, 7, None))),
            (r#"{"prompt_tokens":3,"input_tokens":8}"#, Some(usage(3, 0, 3, None))),
            (r#"{"prompt_tokens":8,"total_tokens":9}"#, Some(usage(8, 0, 8, None))),
            (r#"{"prompt_tokens":"3","completion_tokens":4.9}"#, Some(usage(3, 4, 7, None))),
            (
                r#"{"prompt_tokens":-3,"completion_tokens":[4],"total_tokens":"x"}"#,
                Some(usage(0, 0, 0, None)),
            ),
            (
                r#"{"prompt_tokens":" 1e2 ","prompt_tokens_details":{"cached_tokens":2}}"#,
                Some(usage(100, 0, 100, Some(2))),
            ),
            (
                r#"{"input_tokens":3,"input_tokens_details":{"cached_tokens":0},"prompt_tokens_details":{"cached_tokens":2}}"#,
                Some(usage(3, 0, 3, Some(0))),
            ),
            (r#"{"prompt_tokens_details":null}"#, Some(usage(0, 0, 0, None))),
            ("{}", Some(usage(0, 0, 0, None))),
            ("null", None),
        ] {
            assert_eq!(usage_of(Dialect::OpenAi, json), expected, "{json}");
        }
    }

    #[test]
    fn anthropic_counts_have_no_total_of_their_own() {
        let json = r#"{"input_tokens":3,"output_tokens":4,"total_tokens":9,"cache_read_input_tokens":2,"cache_creation_input_tokens":5}"#;
        assert_eq!(usage_of(Dialect::Anthropic, json), Some(usage(3, 4, 7, Some(2))));
    }

    #[test]
    fn later_reports_replace_counts_but_not_with_zero() {
        let mut merged = None;
        for json in [
            r#"{"prompt_tokens":10,"completion_tokens":1,"total_tokens":11,"prompt_tokens_details":{"cached_tokens":4}}"#,
            r#"{"prompt_tokens":0,"completion_tokens":5,"total_tokens":99}"#,
        ] {
            merge(&mut merged, read_alone(Dialect::OpenAi, json.as_bytes()).unwrap().unwrap());
        }
        assert_eq!(merged, Some(usage(10, 5, 15, Some(4))));
    }
}
