//! Makes a command line of the reference's readable: Go's spellings, flags that are gone, stray words.

use std::ffi::OsString;

use clap::{ArgAction, Command};

use crate::document::nearest;

/// A command line made readable.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Readable {
    /// What is left for the parser, program name first.
    pub(super) arguments: Vec<OsString>,
    /// Values of flags that the reference has dropped, by name.
    pub(super) dropped: Vec<(Dropped, String)>,
    /// What the operator should know.
    pub(super) warnings: Vec<String>,
    /// Why it cannot be meant as it stands.
    pub(super) problems: Vec<String>,
}

/// Commands, as people write them and miswrite them.
const COMMANDS: [&str; 5] = ["serve", "check", "sim", "demo", "help"];

/// A flag that the reference has dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Dropped {
    /// Its name.
    pub(super) name: &'static str,
    /// What takes its place.
    pub(super) replacement: &'static str,
}

/// Flags of earlier versions of the reference. Those that name a series or a page still work; the others are heeded no more.
pub(super) const DROPPED: &[Dropped] = &[
    Dropped {
        name: "total-queued-requests-metric",
        replacement: "engineConfigs[].queuedRequestsSpec of core-metrics-extractor",
    },
    Dropped {
        name: "total-running-requests-metric",
        replacement: "engineConfigs[].runningRequestsSpec of core-metrics-extractor",
    },
    Dropped {
        name: "kv-cache-usage-percentage-metric",
        replacement: "engineConfigs[].kvUsageSpec of core-metrics-extractor",
    },
    Dropped { name: "lora-info-metric", replacement: "engineConfigs[].loraSpec of core-metrics-extractor" },
    Dropped {
        name: "cache-info-metric",
        replacement: "engineConfigs[].cacheInfoSpec of core-metrics-extractor",
    },
    Dropped { name: "model-server-metrics-port", replacement: "port of metrics-data-source" },
    Dropped { name: "model-server-metrics-path", replacement: "path of metrics-data-source" },
    Dropped { name: "model-server-metrics-scheme", replacement: "scheme of metrics-data-source" },
    Dropped {
        name: "model-server-metrics-https-insecure-skip-verify",
        replacement: "insecureSkipVerify of metrics-data-source",
    },
    Dropped {
        name: "destination-endpoint-hint-key",
        replacement: "nothing: the key is always x-gateway-destination-endpoint",
    },
    Dropped {
        name: "destination-endpoint-hint-metadata-namespace",
        replacement: "nothing: the namespace is always envoy.lb",
    },
];

/// Reads `arguments` (program name first) against the flags of `command`.
pub(super) fn make_readable(arguments: impl IntoIterator<Item = OsString>, command: &Command) -> Readable {
    let mut arguments = arguments.into_iter().peekable();
    let mut readable = Readable { arguments: arguments.next().into_iter().collect(), ..Readable::default() };
    while let Some(argument) = arguments.next() {
        let Some(text) = argument.to_str() else {
            readable.arguments.push(argument);
            continue;
        };
        let Some((name, value)) = flag(text) else {
            stray(text, &mut readable);
            continue;
        };
        if let Some(dropped) = DROPPED.iter().find(|dropped| dropped.name == name) {
            let value = match value {
                Some(value) => value.to_owned(),
                None => arguments
                    .next_if(|next| !starts_flag(next))
                    .unwrap_or_default()
                    .to_string_lossy()
                    .into_owned(),
            };
            readable.warnings.push(format!("flag --{name} is deprecated; use {}", dropped.replacement));
            readable.dropped.push((*dropped, value));
            continue;
        }
        match (value, kind_of(command, name)) {
            (None, Kind::Switch) => {
                let next =
                    arguments.next_if(|next| next.to_str().is_some_and(|next| boolean(next).is_some()));
                let value = next.and_then(|next| next.to_str().and_then(boolean)).unwrap_or(true);
                readable.arguments.push(format!("{}={value}", spelled(name)).into());
            }
            (Some(value), Kind::Switch) => {
                let value = boolean(value).map_or_else(|| value.to_owned(), |value| value.to_string());
                readable.arguments.push(format!("{}={value}", spelled(name)).into());
            }
            (None, Kind::Value) => {
                readable.arguments.push(spelled(name).into());
                readable.arguments.extend(arguments.next());
            }
            (Some(value), Kind::Value | Kind::Unknown) => {
                readable.arguments.push(format!("{}={value}", spelled(name)).into());
            }
            (None, Kind::Unknown) => readable.arguments.push(spelled(name).into()),
        }
    }
    readable
}

/// A word that is no flag and no flag's value. One that looks like a command was meant as one: to serve instead would surprise. Any other is let
/// pass.
fn stray(text: &str, readable: &mut Readable) {
    match nearest(text, COMMANDS) {
        Some(command) if command == text => readable
            .problems
            .push(format!("the command `{command}` comes first, before all flags: pointsman {command}")),
        Some(command) => readable.problems.push(format!(
            "{text:?} is no command; did you mean `{command}`? Commands are {}; without one, pointsman serves",
            COMMANDS.join(", ")
        )),
        None => readable.warnings.push(format!("argument {text:?} is no flag and has no effect")),
    }
}

/// Name and value of a flag in any of Go's spellings: `--name`, `-name`, `--name=value`, `-v5`.
fn flag(text: &str) -> Option<(&str, Option<&str>)> {
    let body = text.strip_prefix("--").or_else(|| text.strip_prefix('-')).filter(|body| !body.is_empty())?;
    if let Some(level) = body.strip_prefix('v').filter(|level| level.parse::<i32>().is_ok()) {
        return Some(("v", Some(level)));
    }
    Some(body.split_once('=').map_or((body, None), |(name, value)| (name, Some(value))))
}

fn starts_flag(argument: &OsString) -> bool {
    argument.to_str().is_some_and(|text| text.starts_with('-') && text.len() > 1)
}

fn spelled(name: &str) -> String {
    format!("--{name}")
}

/// Booleans as Go reads them.
fn boolean(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Switch,
    Value,
    Unknown,
}

fn kind_of(command: &Command, name: &str) -> Kind {
    if matches!(name, "help" | "version" | "h") {
        return Kind::Unknown;
    }
    let known = command.get_arguments().find(|argument| argument.get_long() == Some(name));
    match known {
        None => Kind::Unknown,
        Some(argument) if argument.get_num_args().is_some_and(|count| count.min_values() == 0) => {
            Kind::Switch
        }
        Some(argument) if matches!(argument.get_action(), ArgAction::SetTrue) => Kind::Switch,
        Some(_) => Kind::Value,
    }
}

#[cfg(test)]
mod tests {
    use clap::Args;

    use super::*;
    use crate::cli::flags::ServeFlags;

    fn read(line: &str) -> Readable {
        let command = ServeFlags::augment_args(Command::new("pointsman"));
        make_readable(line.split(' ').map(OsString::from), &command)
    }

    fn check(line: &str, expected: &str) {
        let text: Vec<_> = read(line).arguments.into_iter().map(|word| word.into_string().unwrap()).collect();
        assert_eq!(text.join(" "), expected);
    }

    #[test]
    fn booleans_may_stand_alone_with_an_equals_sign_or_apart() {
        check("p --tracing", "p --tracing=true");
        check("p --tracing=false", "p --tracing=false");
        check("p --tracing false --grpc-port 1", "p --tracing=false --grpc-port 1");
        check("p --tracing=F", "p --tracing=false");
    }

    #[test]
    fn go_spellings_of_other_flags_are_understood() {
        check("p -v 4", "p --v 4");
        check("p -v=4 -grpc-port=1", "p --v=4 --grpc-port=1");
        check("p -v5", "p --v=5");
    }

    #[test]
    fn a_stray_word_is_ignored_with_a_warning() {
        let readable = read("p --grpc-port 1 word --metrics-port 2");
        assert_eq!(readable.warnings, ["argument \"word\" is no flag and has no effect"]);
        assert_eq!(readable.arguments.len(), 5);
    }

    #[test]
    fn a_stray_word_like_a_command_is_an_error_that_names_the_command() {
        for (line, command) in [
            ("p chek --config-file x", "check"),
            ("p Check --config-file x", "check"),
            ("p checks", "check"),
            ("p hepl", "help"),
            ("p seve --grpc-port 1", "serve"),
            ("p demos", "demo"),
            ("p --config-file x chek", "check"),
            ("p --config-file x check", "check"),
        ] {
            let readable = read(line);
            assert_eq!(readable.problems.len(), 1, "{line}");
            assert!(
                readable.problems[0].contains(&format!("`{command}`")),
                "{line}: {:?}",
                readable.problems
            );
            assert!(readable.warnings.is_empty(), "{line}");
        }
        for line in ["p word", "p --grpc-port 1 word", "p --config-file check", "p --tracing true"] {
            assert!(read(line).problems.is_empty(), "{line}");
        }
    }

    #[test]
    fn a_dropped_flag_is_taken_out_with_its_value() {
        let readable = read("p --lora-info-metric --total-queued-requests-metric q --v 1");
        let dropped: Vec<_> =
            readable.dropped.iter().map(|(flag, value)| (flag.name, value.as_str())).collect();
        assert_eq!(dropped, [("lora-info-metric", ""), ("total-queued-requests-metric", "q")]);
        assert_eq!(readable.arguments.len(), 3);
        assert!(readable.warnings[0].contains("loraSpec"), "{}", readable.warnings[0]);
    }
}
