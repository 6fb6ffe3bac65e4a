//! Token counts as responses report them, and how several reports of one response become one.

use std::sync::LazyLock;

use memchr::memmem::Finder;

use super::error::ScanError;
use super::number::whole_number;
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
    /// SGLang's own: `meta_info` in every event, each with the counts so far.
    Sglang,
}

impl Dialect {
    /// The dialect of an API; `None` if its responses report no usage.
    pub(super) fn of(api: Api) -> Option<Self> {
        match api {
            Api::Opaque | Api::CountTokens => None,
            Api::Messages => Some(Self::Anthropic),
            Api::SglangGenerate => Some(Self::Sglang),
            _ => Some(Self::OpenAi),
        }
    }
}

/// Largest count that is believed, about a million million tokens. A larger one is a fault or a lie, and would drown
/// all others in sums that live as long as the process.
pub(super) const MAX_COUNT: u64 = 1 << 40;

/// The counts of one `usage` object.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Report {
    pub(super) prompt: u64,
    pub(super) completion: u64,
    pub(super) total: u64,
    pub(super) cached: Option<u64>,
    /// Counts that were left out because they are beyond [`MAX_COUNT`].
    pub(super) unbelievable: u32,
}

/// The facts that one event of a stream reports.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Event {
    /// The usage at the top of the event.
    pub(super) top: Option<Report>,
    /// The usage inside of the `response` or `message` that the event carries.
    pub(super) nested: Option<Report>,
    /// The event says that the answer failed.
    pub(super) failed: bool,
    /// The event is the last one of the answer, apart from a mark of the end.
    pub(super) last: bool,
    /// The event holds a piece of the answer behind which more must follow.
    pub(super) goes_on: bool,
}

impl Event {
    /// Its reports in the order in which they count.
    pub(super) fn reports(self, dialect: Dialect) -> impl Iterator<Item = Report> {
        let [first, second] = match dialect {
            Dialect::OpenAi | Dialect::Sglang => [self.top.or(self.nested), None],
            // What the start says about output is a placeholder.
            Dialect::Anthropic => [self.nested.map(|start| Report { completion: 0, ..start }), self.top],
        };
        first.into_iter().chain(second)
    }
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

/// Name of the member of an event that may hold the answer as a whole.
pub(super) fn carrier(dialect: Dialect) -> &'static str {
    match dialect {
        Dialect::OpenAi | Dialect::Sglang => "response",
        Dialect::Anthropic => "message",
    }
}

/// Types of events that say that the answer failed.
const FAILURES: [&[u8]; 2] = [b"error", b"response.failed"];

/// True for the types of events that say that the answer failed.
pub(super) fn is_failure(kind: &[u8]) -> bool {
    FAILURES.contains(&kind)
}

/// Types of events that end an answer.
const LAST: [&[u8]; 4] = [b"message_stop", b"response.completed", b"response.incomplete", b"response.failed"];

/// True for the types of events that end an answer.
pub(super) fn is_last(kind: &[u8]) -> bool {
    LAST.contains(&kind)
}

/// Reads one event's data. Anthropic's start and delta may both be in it.
pub(super) fn read_event(dialect: Dialect, data: &[u8]) -> Result<Event, ScanError> {
    let mut cursor = Cursor::new(data)?;
    let mut event = Event::default();
    let (mut ends_choices, mut stopped) = (false, false);
    let mut object = cursor.open_object()?;
    while let Some(name) = cursor.member(&mut object)? {
        match cursor.value(name).as_ref() {
            b"usage" => event.top = read(dialect, &mut cursor)?,
            b"meta_info" if dialect == Dialect::Sglang => event.top = read(dialect, &mut cursor)?,
            b"error" => event.failed |= says_something(&mut cursor)?,
            b"type" | b"object" => read_type(&mut cursor, &mut event)?,
            b"choices" => {
                let range = cursor.skip()?;
                let value = data.get(range.start as usize..range.end as usize).unwrap_or_default();
                ends_choices = is_end_of_choices(value);
                event.goes_on = !ends_choices;
            }
            b"delta" if dialect == Dialect::Anthropic => stopped = says_why_it_stopped(&mut cursor)?,
            name if name == carrier(dialect).as_bytes() => read_within(dialect, &mut cursor, &mut event)?,
            _ => {
                cursor.skip()?;
            }
        }
    }
    cursor.finish()?;
    // Servers may report usage in every event; the last report has no choices, or the end of one.
    event.last |= stopped || (ends_choices && event.top.is_some());
    Ok(event)
}

/// True for the value of `choices` if the list is empty, or a choice in it says why it ends.
fn is_end_of_choices(value: &[u8]) -> bool {
    // In a text the quote behind the name would be escaped.
    static REASON: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"\"finish_reason\""));
    let inner = value.strip_prefix(b"[").and_then(|rest| rest.strip_suffix(b"]"));
    let says_why = |at: usize| {
        let behind = value.get(at + REASON.needle().len()..).unwrap_or_default().trim_ascii_start();
        behind.strip_prefix(b":").is_some_and(|reason| reason.trim_ascii_start().starts_with(b"\""))
    };
    inner.is_some_and(|inner| inner.trim_ascii().is_empty()) || REASON.find_iter(value).any(says_why)
}

/// Reads the type of an event: whether it is that of a failure or of an end.
fn read_type(cursor: &mut Cursor<'_>, event: &mut Event) -> Result<(), ScanError> {
    let Some(kind) = cursor.string_or_skip()? else { return Ok(()) };
    // No other type is looked at: this is done for every event.
    let length = (kind.end - kind.start) as usize;
    if FAILURES.iter().chain(&LAST).any(|known| known.len() == length) {
        let kind = cursor.value(kind);
        event.failed |= is_failure(&kind);
        event.last |= is_last(&kind);
    }
    Ok(())
}

/// Passes over the `delta` of an event; true if it holds a `stop_reason`.
fn says_why_it_stopped(cursor: &mut Cursor<'_>) -> Result<bool, ScanError> {
    let mut stopped = false;
    if cursor.peek()? != Kind::Object {
        cursor.skip()?;
        return Ok(stopped);
    }
    let mut object = cursor.open()?;
    while let Some(name) = cursor.member(&mut object)? {
        stopped |= cursor.value(name).as_ref() == b"stop_reason" && cursor.peek()? == Kind::String;
        cursor.skip()?;
    }
    Ok(stopped)
}

fn read_within(dialect: Dialect, cursor: &mut Cursor<'_>, event: &mut Event) -> Result<(), ScanError> {
    if cursor.peek()? != Kind::Object {
        cursor.skip()?;
        return Ok(());
    }
    let mut object = cursor.open()?;
    while let Some(name) = cursor.member(&mut object)? {
        match cursor.value(name).as_ref() {
            b"usage" => event.nested = read(dialect, cursor)?,
            b"error" => event.failed |= says_something(cursor)?,
            b"status" if dialect == Dialect::OpenAi => {
                let status = cursor.string_or_skip()?;
                event.failed |= status.is_some_and(|status| cursor.value(status).as_ref() == b"failed");
            }
            _ => {
                cursor.skip()?;
            }
        }
    }
    Ok(())
}

/// Passes over the value of an `error` member; true unless it is a way to say that there is none.
fn says_something(cursor: &mut Cursor<'_>) -> Result<bool, ScanError> {
    let kind = cursor.peek()?;
    let start = cursor.offset();
    cursor.skip()?;
    let is_empty_string = kind == Kind::String && cursor.offset() - start == 2;
    Ok(!is_empty_string && !matches!(kind, Kind::Null | Kind::False))
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
    let mut unbelievable = 0;
    let mut object = cursor.open()?;
    while let Some(name) = cursor.member(&mut object)? {
        match cursor.value(name).as_ref() {
            b"prompt_tokens" => prompt = count(cursor, &mut unbelievable)?,
            b"completion_tokens" => completion = count(cursor, &mut unbelievable)?,
            b"total_tokens" => total = count(cursor, &mut unbelievable)?,
            b"input_tokens" => input = count(cursor, &mut unbelievable)?,
            b"output_tokens" => output = count(cursor, &mut unbelievable)?,
            b"prompt_tokens_details" => prompt_cached = cached(cursor, &mut unbelievable)?,
            b"input_tokens_details" => input_cached = cached(cursor, &mut unbelievable)?,
            b"cached_tokens" if dialect == Dialect::Sglang => {
                prompt_cached = count(cursor, &mut unbelievable)?;
            }
            b"cache_read_input_tokens" => cache_read = count(cursor, &mut unbelievable)?,
            _ => {
                cursor.skip()?;
            }
        }
    }
    Ok(Some(match dialect {
        Dialect::OpenAi | Dialect::Sglang => Report {
            prompt: prompt.or(input).unwrap_or_default(),
            completion: completion.or(output).unwrap_or_default(),
            total: total.unwrap_or_default(),
            cached: input_cached.or(prompt_cached),
            unbelievable,
        },
        Dialect::Anthropic => Report {
            prompt: input.unwrap_or_default(),
            completion: output.unwrap_or_default(),
            total: 0,
            cached: cache_read,
            unbelievable,
        },
    }))
}

/// `cached_tokens` of the details object that comes next.
fn cached(cursor: &mut Cursor<'_>, unbelievable: &mut u32) -> Result<Option<u64>, ScanError> {
    let mut found = None;
    if cursor.peek()? != Kind::Object {
        cursor.skip()?;
        return Ok(found);
    }
    let mut object = cursor.open()?;
    while let Some(name) = cursor.member(&mut object)? {
        if cursor.value(name).as_ref() == b"cached_tokens" {
            found = count(cursor, unbelievable)?;
        } else {
            cursor.skip()?;
        }
    }
    Ok(found)
}

/// A count: a number, truncated, or a string that holds one. `null` is none, and so is a count beyond [`MAX_COUNT`],
/// which is noted; anything else is 0.
fn count(cursor: &mut Cursor<'_>, unbelievable: &mut u32) -> Result<Option<u64>, ScanError> {
    let value = match cursor.peek()? {
        Kind::Number => truncated(cursor.number()?),
        Kind::String => {
            let string = string_in(cursor, &[])?;
            string.map_or(Some(0), |string| truncated(cursor.value(string).trim_ascii()))
        }
        Kind::Null => {
            cursor.skip()?;
            return Ok(None);
        }
        _ => {
            cursor.skip()?;
            Some(0)
        }
    };
    if value.is_none() {
        *unbelievable = unbelievable.saturating_add(1);
    }
    Ok(value)
}

/// The number as a count: 0 if it is negative or no number, `None` if it is beyond [`MAX_COUNT`].
fn truncated(number: &[u8]) -> Option<u64> {
    if number.is_empty() {
        return Some(0);
    }
    let real = || std::str::from_utf8(number).ok().and_then(|text| text.parse::<f64>().ok());
    // The cast saturates: negative counts are 0, and so is what is no number; infinity is beyond the bound.
    let count = whole_number(number).unwrap_or_else(|| real().map_or(0, |real| real as u64));
    (count <= MAX_COUNT).then_some(count)
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
            (r#"{"prompt_tokens":null,"input_tokens":9,"output_tokens":1}"#, Some(usage(9, 1, 10, None))),
            (
                r#"{"input_tokens":9,"prompt_tokens":null,"completion_tokens":null}"#,
                Some(usage(9, 0, 9, None)),
            ),
            ("{}", Some(usage(0, 0, 0, None))),
            ("null", None),
        ] {
            assert_eq!(usage_of(Dialect::OpenAi, json), expected, "{json}");
        }
    }

    #[test]
    fn a_count_that_nobody_can_believe_is_left_out_and_noted() {
        let largest = MAX_COUNT.to_string();
        let beyond = (MAX_COUNT + 1).to_string();
        for (count, expected, unbelievable) in [
            (largest.as_str(), MAX_COUNT, 0),
            (beyond.as_str(), 0, 1),
            ("1e30", 0, 1),
            ("1e400", 0, 1),
            ("99999999999999999999999", 0, 1),
            (r#""18446744073709551615""#, 0, 1),
            ("-1e400", 0, 0),
        ] {
            let json = format!(
                r#"{{"prompt_tokens":{count},"completion_tokens":2,"input_tokens_details":{{"cached_tokens":1e13}}}}"#
            );
            let report = read_alone(Dialect::OpenAi, json.as_bytes()).unwrap().unwrap();
            assert_eq!((report.prompt, report.completion), (expected, 2), "{json}");
            assert_eq!((report.cached, report.unbelievable), (None, unbelievable + 1), "{json}");
        }
    }

    #[test]
    fn an_event_that_reports_an_error_is_told_from_one_that_has_a_place_for_it() {
        let failed = |dialect, json: &str| read_event(dialect, json.as_bytes()).unwrap().failed;
        for json in [
            r#"{"error":{"message":"engine died","type":"InternalServerError","code":500}}"#,
            r#"{"error":"engine died"}"#,
            r#"{"choices":[],"error":{}}"#,
            r#"{"object":"error","message":"engine died"}"#,
            r#"{"type":"error","error":{"type":"overloaded_error"}}"#,
            r#"{"response":{"status":"failed","error":{"code":"server_error"}},"type":"response.failed"}"#,
        ] {
            assert!(failed(Dialect::OpenAi, json), "{json}");
        }
        assert!(failed(Dialect::Anthropic, r#"{"type":"error","error":{"type":"overloaded_error"}}"#));
        for json in [
            r#"{"error":null}"#,
            r#"{"error":""}"#,
            r#"{"error":false}"#,
            r#"{"choices":[{"delta":{"content":"\"error\":{}"},"error":{}}]}"#,
            r#"{"type":"response.completed","response":{"error":null}}"#,
        ] {
            assert!(!failed(Dialect::OpenAi, json), "{json}");
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
