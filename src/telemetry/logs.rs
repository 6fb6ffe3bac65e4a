//! Logs: where they go, how they look, and a level that can be changed while the program runs.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::sync::Arc;

use parking_lot::Mutex;
use tracing::Subscriber;
use tracing::subscriber::SetGlobalDefaultError;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::{Registry, reload};

use super::level::LogLevel;
use super::line::{LogFormat, Members};
use super::lines::LineQueue;

/// Changes the level of a running program. Clones change the same level.
#[derive(Clone, Debug)]
pub struct LogHandle {
    level: Arc<Mutex<LogLevel>>,
    filter: reload::Handle<Targets, Registry>,
}

impl LogHandle {
    /// The level now.
    pub fn level(&self) -> LogLevel {
        *self.level.lock()
    }

    /// Writes events of `level` and worse from now on. False if logging has ended.
    pub fn set_level(&self, level: LogLevel) -> bool {
        let mut current = self.level.lock();
        let changed = self.filter.reload(level.targets()).is_ok();
        if changed {
            *current = level;
        }
        changed
    }
}

/// Logs to `lines` from now on, for the whole process, panics included. Fails if something already logs.
pub fn init(
    level: LogLevel,
    format: LogFormat,
    lines: &LineQueue,
) -> Result<LogHandle, SetGlobalDefaultError> {
    let (subscriber, handle) = subscriber(level, format, lines.clone());
    tracing::subscriber::set_global_default(subscriber)?;
    log_panics(format, lines.clone());
    Ok(handle)
}

/// A queue of log lines in front of standard error.
pub fn lines(format: LogFormat) -> std::io::Result<LineQueue> {
    LineQueue::stderr(move |lost| {
        let at = (Some(file!()), Some(line!()));
        format.line(LogLevel::Warn, at, "log lines were lost", &[("lines", &lost.to_string())])
    })
}

/// Panics become log lines. The standard library's hook would write to standard error itself, and wait for whoever
/// reads it.
fn log_panics(format: LogFormat, lines: LineQueue) {
    std::panic::set_hook(Box::new(move |panic| {
        let backtrace = Backtrace::capture();
        let trace = match backtrace.status() {
            BacktraceStatus::Captured => backtrace.to_string(),
            _ => String::new(),
        };
        let thread = std::thread::current();
        let mut members = vec![
            ("thread", thread.name().unwrap_or("unnamed")),
            ("panic", panic.payload_as_str().unwrap_or("?")),
        ];
        if !trace.is_empty() {
            members.push(("backtrace", &trace));
        }
        let at = panic.location().map_or((None, None), |at| (Some(at.file()), Some(at.line())));
        let line = format.line(LogLevel::Error, at, "a bug: a thread panicked", &members);
        lines.push(line.as_bytes(), true);
    }));
}

/// A subscriber that writes to `writer`, and the handle of its level.
pub fn subscriber<W>(
    level: LogLevel,
    format: LogFormat,
    writer: W,
) -> (impl Subscriber + Send + Sync, LogHandle)
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let (filter, reload) = reload::Layer::new(level.targets());
    let lines = tracing_subscriber::fmt::layer()
        .fmt_fields(Members)
        .event_format(format)
        .with_writer(writer)
        // They would go to standard error, past the writer.
        .log_internal_errors(false);
    let subscriber = tracing_subscriber::registry().with(filter).with(lines);
    (subscriber, LogHandle { level: Arc::new(Mutex::new(level)), filter: reload })
}

#[cfg(test)]
mod tests {
    use std::io::{self, Write};

    use serde_json::Value;
    use tracing::{debug, error, info, info_span, trace, warn};

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn text(level: LogLevel, format: LogFormat, events: impl FnOnce(&LogHandle)) -> String {
        let lines = Lines::default();
        let writer = lines.clone();
        let (subscriber, handle) = subscriber(level, format, move || writer.clone());
        tracing::subscriber::with_default(subscriber, || events(&handle));
        let bytes = lines.0.lock().clone();
        String::from_utf8(bytes).unwrap()
    }

    fn json(level: LogLevel, events: impl FnOnce(&LogHandle)) -> Vec<Value> {
        text(level, LogFormat::Json, events).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    #[test]
    fn a_json_line_has_the_known_members_in_order_and_then_the_fields() {
        let line = text(LogLevel::Info, LogFormat::Json, |_| {
            let failure = io::Error::other("no \"route\"");
            error!(error = &failure as &dyn std::error::Error, endpoint = %"ns/a", ratio = 0.5, nan = f64::NAN, "scrape failed");
        });
        let prefix = "{\"level\":\"error\",\"ts\":";
        assert!(line.starts_with(prefix), "{line}");
        let value: Value = serde_json::from_str(&line).unwrap();
        assert!(value["ts"].as_f64().unwrap() > 1.6e9, "{line}");
        assert!(value["logger"].as_str().unwrap().ends_with("telemetry::logs::tests"), "{line}");
        assert!(value["caller"].as_str().unwrap().starts_with("src/telemetry/logs.rs:"), "{line}");
        assert_eq!(value["msg"], "scrape failed");
        assert_eq!(value["error"], "no \"route\"");
        assert_eq!(value["endpoint"], "ns/a");
        assert_eq!(value["ratio"], 0.5);
        assert_eq!(value["nan"], "NaN");
    }

    #[test]
    fn values_of_megabytes_are_cut_and_the_line_is_still_json() {
        let long = "\u{1}".repeat(1 << 20);
        let lines = json(LogLevel::Info, |_| {
            error!(long, debug = ?long, short = 1, "{long}");
            let failure = io::Error::other(long.clone());
            error!(error = &failure as &dyn std::error::Error, "short");
        });
        assert!(lines.iter().all(|line| line.to_string().len() < 100_000));
        assert_eq!((&lines[0]["cut"], &lines[0]["short"]), (&Value::from(true), &Value::from(1)));
        assert!(lines[0]["msg"].as_str().unwrap().len() > 4000);
        assert_eq!(lines[1]["msg"], "short");
    }

    #[test]
    fn fields_of_the_spans_around_an_event_come_with_it() {
        let lines = json(LogLevel::Info, |_| {
            let span = info_span!("request", id = "r-1", late = tracing::field::Empty);
            let _entered = span.enter();
            span.record("late", 3);
            info!("received");
        });
        assert_eq!((&lines[0]["id"], &lines[0]["late"]), (&Value::from("r-1"), &Value::from(3)));
    }

    #[test]
    fn the_level_decides_what_is_written_and_can_change() {
        let events = || {
            warn!("warn");
            info!("info");
            debug!("debug");
            trace!("trace");
            info!(target: "h2::frame", "foreign");
            warn!(target: "h2::frame", "foreign warning");
        };
        let lines = json(LogLevel::Info, |handle| {
            events();
            assert!(handle.set_level(LogLevel::Debug));
            assert_eq!(handle.level(), LogLevel::Debug);
            events();
        });
        let messages: Vec<&str> = lines.iter().map(|line| line["msg"].as_str().unwrap()).collect();
        let expected =
            ["warn", "info", "foreign warning", "warn", "info", "debug", "foreign", "foreign warning"];
        assert_eq!(messages, expected);
    }

    #[test]
    fn a_console_line_has_tabs_between_its_parts() {
        let line = text(LogLevel::Info, LogFormat::Console, |_| {
            info!(port = 9002, "listening");
            info!("ready");
        });
        let parts: Vec<Vec<&str>> = line.lines().map(|line| line.split('\t').collect()).collect();
        assert_eq!((parts[0][1], parts[0][4], parts[0][5]), ("info", "listening", "{\"port\":9002}"));
        assert_eq!(parts[1].len(), 5);
    }
}
