//! How much is logged.

use std::fmt;
use std::str::FromStr;

use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;

/// Crates whose events follow the level; the others are held one step lower, so that a trace of ours is not drowned in
/// HTTP/2 frames.
const OURS: &str = "pointsman";

/// Least severe events that are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// An operator must act.
    Error,
    /// Degraded, recovered or retrying.
    Warn,
    /// Life cycle and configuration.
    Info,
    /// Single requests.
    Debug,
    /// Single candidates.
    Trace,
}

/// A text that is no log level.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no log level: use error, warn, info, debug, trace, or a verbosity such as 4")]
pub struct UnknownLevel(String);

impl LogLevel {
    /// The level that a verbosity (`-v`) stands for: up to 3 info, 4 debug, from 5 trace.
    pub fn from_verbosity(verbosity: i64) -> Self {
        match verbosity {
            ..=3 => Self::Info,
            4 => Self::Debug,
            5.. => Self::Trace,
        }
    }

    /// Name as it stands in log lines.
    pub fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }

    pub(super) fn of(level: tracing::Level) -> Self {
        match level {
            tracing::Level::ERROR => Self::Error,
            tracing::Level::WARN => Self::Warn,
            tracing::Level::INFO => Self::Info,
            tracing::Level::DEBUG => Self::Debug,
            tracing::Level::TRACE => Self::Trace,
        }
    }

    pub(super) fn targets(self) -> Targets {
        let (ours, others) = match self {
            Self::Error => (LevelFilter::ERROR, LevelFilter::ERROR),
            Self::Warn => (LevelFilter::WARN, LevelFilter::WARN),
            Self::Info => (LevelFilter::INFO, LevelFilter::WARN),
            Self::Debug => (LevelFilter::DEBUG, LevelFilter::INFO),
            Self::Trace => (LevelFilter::TRACE, LevelFilter::DEBUG),
        };
        // What these two complain of, each failed request, we tell ourselves: what it means, and not each time.
        let told = if self < Self::Debug { LevelFilter::OFF } else { others };
        Targets::new()
            .with_default(others)
            .with_target(OURS, ours)
            .with_target("kube_runtime", told)
            .with_target("kube_client", told)
    }
}

impl fmt::Display for LogLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for LogLevel {
    type Err = UnknownLevel;

    /// Reads a name in any case, or a number, which counts as a verbosity. `panic`, `fatal` and `dpanic` of the
    /// reference's logger read as error.
    fn from_str(text: &str) -> Result<Self, UnknownLevel> {
        let text = text.trim();
        match text.to_ascii_lowercase().as_str() {
            "error" | "panic" | "dpanic" | "fatal" => Ok(Self::Error),
            "warn" | "warning" => Ok(Self::Warn),
            "info" => Ok(Self::Info),
            "debug" => Ok(Self::Debug),
            "trace" => Ok(Self::Trace),
            number => number.parse().map(Self::from_verbosity).map_err(|_| UnknownLevel(text.to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_read_from_names_and_verbosities() {
        let cases = [
            ("info", LogLevel::Info),
            ("DEBUG", LogLevel::Debug),
            (" warn ", LogLevel::Warn),
            ("panic", LogLevel::Error),
            ("-3", LogLevel::Info),
            ("2", LogLevel::Info),
            ("4", LogLevel::Debug),
            ("5", LogLevel::Trace),
            ("99", LogLevel::Trace),
        ];
        for (text, level) in cases {
            assert_eq!(text.parse(), Ok(level), "{text}");
        }
        assert_eq!("loud".parse::<LogLevel>(), Err(UnknownLevel("loud".into())));
    }

    #[test]
    fn a_level_reads_back_from_its_name() {
        for level in [LogLevel::Error, LogLevel::Warn, LogLevel::Info, LogLevel::Debug, LogLevel::Trace] {
            assert_eq!(level.to_string().parse(), Ok(level));
        }
    }
}
