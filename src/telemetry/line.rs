//! One event as one line.

use std::borrow::Cow;
use std::error::Error;
use std::fmt::{self, Write};
use std::time::{SystemTime, UNIX_EPOCH};

use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, FormattedFields};
use tracing_subscriber::registry::LookupSpan;

use super::level::LogLevel;
use super::timestamp::rfc3339;

/// Bytes of a message or of a value; what is longer is cut.
const VALUE_BYTES: usize = 4 << 10;

/// Bytes of the fields of an event, and of those of the spans around it. Fields that have no room are left out, and the
/// line says `"cut":true`.
const MEMBERS_BYTES: usize = 16 << 10;

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// A JSON object: `level`, `ts` (seconds since the epoch), `logger`, `caller`, `msg`, then the fields.
    #[default]
    Json,
    /// The same for eyes: time, level, logger, caller and message with tabs between, and the fields as JSON.
    Console,
}

impl<S, N> FormatEvent<S, N> for LogFormat
where
    S: Subscriber + for<'l> LookupSpan<'l>,
    N: for<'w> FormatFields<'w> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut fields = Fields::default();
        event.record(&mut fields);
        // Fields of the spans around the event, the outermost first.
        let mut outer = String::new();
        for span in context.event_scope().into_iter().flat_map(tracing_subscriber::registry::Scope::from_root)
        {
            if let Some(formatted) = span.extensions().get::<FormattedFields<N>>()
                && outer.len() + formatted.fields.len() <= MEMBERS_BYTES
            {
                outer.push_str(&formatted.fields);
            }
        }
        let metadata = event.metadata();
        let head = Head {
            level: LogLevel::of(*metadata.level()),
            logger: metadata.target(),
            caller: Caller(metadata.file(), metadata.line()),
            message: &fields.message,
        };
        self.write(&mut writer, &head, &outer, &fields.members)
    }
}

/// The fields of every line.
struct Head<'h> {
    level: LogLevel,
    logger: &'h str,
    caller: Caller<'h>,
    message: &'h str,
}

impl LogFormat {
    /// Writes a line that happens now. `outer` and `members` are JSON members, each after a comma.
    fn write(self, writer: &mut dyn Write, head: &Head<'_>, outer: &str, members: &str) -> fmt::Result {
        let Head { level, logger, caller, message } = head;
        let now = SystemTime::now();
        match self {
            Self::Json => {
                let seconds = now.duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64());
                write!(writer, "{{\"level\":\"{level}\",\"ts\":{seconds:.6},\"logger\":")?;
                writer.write_str(&quoted(logger))?;
                writer.write_str(",\"caller\":")?;
                writer.write_str(&quoted(&caller.to_string()))?;
                writer.write_str(",\"msg\":")?;
                writer.write_str(&quoted(message))?;
                writeln!(writer, "{outer}{members}}}")
            }
            Self::Console => {
                let message = plain(message);
                write!(writer, "{}\t{level}\t{logger}\t{caller}\t{message}", rfc3339(now))?;
                let members = format!("{outer}{members}");
                match members.strip_prefix(',') {
                    Some(members) => writeln!(writer, "\t{{{members}}}"),
                    None => writeln!(writer),
                }
            }
        }
    }

    /// A line that no event stands behind: this module's own news, and panics, which may happen in the midst of an
    /// event. `at` is file and line.
    pub(super) fn line(
        self,
        level: LogLevel,
        at: (Option<&str>, Option<u32>),
        message: &str,
        members: &[(&str, &str)],
    ) -> String {
        let mut fields = Fields::default();
        for (name, value) in members {
            fields.member(name, &quoted(&clipped(value)));
        }
        let head = Head { level, logger: "pointsman::telemetry", caller: Caller(at.0, at.1), message };
        let mut line = String::new();
        // Writing to a string does not fail.
        let _ = self.write(&mut line, &head, "", &fields.members);
        line
    }
}

/// Writes the fields of spans as JSON members, each after a comma, so that they can be put into a line as they are.
#[derive(Clone, Copy, Debug)]
pub(super) struct Members;

impl<'w> FormatFields<'w> for Members {
    fn format_fields<R: RecordFields>(&self, mut writer: Writer<'w>, source: R) -> fmt::Result {
        let mut fields = Fields::default();
        source.record(&mut fields);
        writer.write_str(&fields.members)
    }
}

#[derive(Default)]
struct Fields {
    message: String,
    /// JSON members, each after a comma.
    members: String,
    cut: bool,
}

impl Fields {
    fn member(&mut self, name: &str, json: &str) {
        let name = quoted(name);
        if self.members.len() + name.len() + json.len() + 2 > MEMBERS_BYTES {
            if !std::mem::replace(&mut self.cut, true) {
                self.members.push_str(",\"cut\":true");
            }
            return;
        }
        self.members.push(',');
        self.members.push_str(&name);
        self.members.push(':');
        self.members.push_str(json);
    }

    fn text(&mut self, field: &Field, value: &str) {
        let value = clipped(value);
        if field.name() == "message" {
            self.message = value.into_owned();
        } else {
            self.member(field.name(), &quoted(&value));
        }
    }
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.text(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.member(field.name(), if value { "true" } else { "false" });
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.member(field.name(), &value.to_string());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.member(field.name(), &value.to_string());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        // JSON knows no NaN.
        let text = value.to_string();
        self.member(field.name(), &if value.is_finite() { text } else { quoted(&text) });
    }

    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        let mut text = Clipped::default();
        // It fails when the text has no more room, and then nothing more is wanted.
        let mut written = write!(text, "{value}");
        let mut source = value.source();
        while let Some(cause) = source.filter(|_| written.is_ok()) {
            written = write!(text, ": {cause}");
            source = cause.source();
        }
        self.member(field.name(), &quoted(&text.0));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let mut text = Clipped::default();
        // It fails when the text has no more room, and then nothing more is wanted.
        let _ = write!(text, "{value:?}");
        self.text(field, &text.0);
    }
}

/// A text that takes no more than [`VALUE_BYTES`], and then ends whatever is writing to it.
#[derive(Default)]
struct Clipped(String);

impl Write for Clipped {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = VALUE_BYTES.saturating_sub(self.0.len());
        if text.len() <= room {
            self.0.push_str(text);
            return Ok(());
        }
        self.0.push_str(&text[..text.floor_char_boundary(room)]);
        self.0.push_str(CUT);
        Err(fmt::Error)
    }
}

/// How a value that was cut ends.
const CUT: &str = "…";

/// As much of a value as is written.
fn clipped(value: &str) -> Cow<'_, str> {
    if value.len() <= VALUE_BYTES + CUT.len() {
        return Cow::Borrowed(value);
    }
    let mut text = Clipped::default();
    // It fails because the text has no room for the rest.
    let _ = text.write_str(value);
    Cow::Owned(text.0)
}

/// Source file and line, the file from `src/` on.
struct Caller<'c>(Option<&'c str>, Option<u32>);

impl fmt::Display for Caller<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let file = self.0.unwrap_or("unknown");
        let file = file.rfind("src/").and_then(|start| file.get(start..)).unwrap_or(file);
        write!(f, "{file}:{}", self.1.unwrap_or(0))
    }
}

/// `text` as a JSON string in which every character that a terminal acts on is escaped.
fn quoted(text: &str) -> String {
    let quoted = serde_json::Value::from(text).to_string();
    if !quoted.chars().any(acts_on_terminals) {
        return quoted;
    }
    let mut safe = String::with_capacity(quoted.len());
    for character in quoted.chars() {
        if acts_on_terminals(character) {
            for unit in character.encode_utf16(&mut [0; 2]) {
                // Writing to a string does not fail.
                let _ = write!(safe, "\\u{unit:04x}");
            }
        } else {
            safe.push(character);
        }
    }
    safe
}

/// `text` as it is, or as in a JSON string where a terminal would act on it.
fn plain(text: &str) -> Cow<'_, str> {
    if !text.chars().any(acts_on_terminals) {
        return Cow::Borrowed(text);
    }
    let quoted = quoted(text);
    Cow::Owned(quoted.get(1..quoted.len() - 1).unwrap_or_default().to_owned())
}

/// True for control characters, and for those that are not seen but change how others are.
pub fn acts_on_terminals(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}')
        || matches!(character, '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_a_terminal_acts_on_is_escaped_in_both_forms() {
        let text = "a\u{9b}31m\u{202e}b\u{7f}\n\u{e0041}é模";
        let escaped = r"a\u009b31m\u202eb\u007f\n\udb40\udc41é模";
        assert_eq!(quoted(text), format!("\"{escaped}\""));
        assert_eq!((plain(text).as_ref(), plain("é x").as_ref()), (escaped, "é x"));
        for format in [LogFormat::Json, LogFormat::Console] {
            let line = format.line(LogLevel::Info, (None, None), text, &[("name", text)]);
            assert_eq!(line.matches(escaped).count(), 2, "{line}");
            let end = line.strip_suffix('\n').unwrap_or(&line);
            assert!(
                !end.chars().any(|character| character != '\t' && acts_on_terminals(character)),
                "{line}"
            );
        }
    }

    proptest! {
        #[test]
        fn a_quoted_text_is_the_same_text(text in any::<String>()) {
            prop_assert_eq!(serde_json::from_str::<String>(&quoted(&text)).unwrap(), text);
        }
    }
}
