//! One event as one line.

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
            if let Some(formatted) = span.extensions().get::<FormattedFields<N>>() {
                outer.push_str(&formatted.fields);
            }
        }
        let metadata = event.metadata();
        let level = LogLevel::of(*metadata.level());
        let caller = Caller(metadata.file(), metadata.line());
        let now = SystemTime::now();
        match self {
            Self::Json => {
                let seconds = now.duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64());
                write!(writer, "{{\"level\":\"{level}\",\"ts\":{seconds:.6},\"logger\":")?;
                writer.write_str(&quoted(metadata.target()))?;
                writer.write_str(",\"caller\":")?;
                writer.write_str(&quoted(&caller.to_string()))?;
                writer.write_str(",\"msg\":")?;
                writer.write_str(&quoted(&fields.message))?;
                writeln!(writer, "{outer}{}}}", fields.members)
            }
            Self::Console => {
                let target = metadata.target();
                write!(writer, "{}\t{level}\t{target}\t{caller}\t{}", rfc3339(now), fields.message)?;
                let members = format!("{outer}{}", fields.members);
                match members.strip_prefix(',') {
                    Some(members) => writeln!(writer, "\t{{{members}}}"),
                    None => writeln!(writer),
                }
            }
        }
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
}

impl Fields {
    fn member(&mut self, field: &Field, json: &str) {
        self.members.push(',');
        self.members.push_str(&quoted(field.name()));
        self.members.push(':');
        self.members.push_str(json);
    }
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            value.clone_into(&mut self.message);
        } else {
            self.member(field, &quoted(value));
        }
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.member(field, if value { "true" } else { "false" });
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.member(field, &value.to_string());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.member(field, &value.to_string());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        // JSON knows no NaN.
        let text = value.to_string();
        self.member(field, &if value.is_finite() { text } else { quoted(&text) });
    }

    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        let mut text = value.to_string();
        let mut source = value.source();
        while let Some(cause) = source {
            // A message that is cut short is better than none; writing to a string does not fail.
            let _ = write!(text, ": {cause}");
            source = cause.source();
        }
        self.member(field, &quoted(&text));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.record_str(field, &format!("{value:?}"));
    }
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

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
