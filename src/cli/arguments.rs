//! Makes a command line of the reference's readable, of any released version: Go's spellings, names and flags of
//! earlier versions, quotes that a template left in values, empty values, stray words.

use std::ffi::OsString;

use clap::{Arg, ArgAction, Command};

use super::commands::COMMANDS;
use super::older_flags::{OlderFlag, Takes, todays_name};
use crate::document::nearest;

/// A command line made readable.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Readable {
    /// The arguments that are left for the parser, program name first.
    pub(super) arguments: Vec<OsString>,
    /// Values of flags that there are no more, by name.
    pub(super) older: Vec<(OlderFlag, String)>,
    /// Warnings for the operator.
    pub(super) warnings: Vec<String>,
    /// Why it cannot be meant as it stands.
    pub(super) problems: Vec<String>,
}

/// Reads `arguments` (program name first) against the flags of `command`.
pub(super) fn make_readable(arguments: impl IntoIterator<Item = OsString>, command: &Command) -> Readable {
    let known: Vec<&str> = command.get_arguments().filter_map(Arg::get_long).collect();
    let mut arguments = arguments.into_iter().peekable();
    let mut readable = Readable { arguments: arguments.next().into_iter().collect(), ..Readable::default() };
    while let Some(argument) = arguments.next() {
        let Some(text) = argument.to_str() else {
            readable.arguments.push(argument);
            continue;
        };
        let text = unquoted(text).filter(|inside| inside.starts_with('-')).unwrap_or(text);
        let Some((spelled, value)) = flag(text) else {
            stray(text, &mut readable);
            continue;
        };
        let value = value.map(str::to_owned);
        let Some(name) = todays_name(spelled, &known) else {
            let value = value.map_or_else(String::new, |value| format!("={value}"));
            readable.arguments.push(format!("--{spelled}{value}").into());
            continue;
        };
        let given = Given { name, spelled, value };
        match OlderFlag::named(name) {
            Some(older) => take_older(older, given, &mut arguments, &mut readable),
            None => take(given, command, &mut arguments, &mut readable),
        }
    }
    readable
}

/// A flag of the line.
struct Given<'g> {
    /// Today's name.
    name: &'g str,
    /// Its name in the line.
    spelled: &'g str,
    /// The value behind its equals sign.
    value: Option<String>,
}

type Words<I> = std::iter::Peekable<I>;

/// A flag that there is no more leaves the line; what it still does is done later.
fn take_older(
    older: &OlderFlag,
    given: Given<'_>,
    words: &mut Words<impl Iterator<Item = OsString>>,
    readable: &mut Readable,
) {
    let value = match (given.value, older.takes) {
        (Some(value), _) => value,
        (None, Takes::Text) => {
            words.next_if(|next| !starts_flag(next)).map_or_else(String::new, |word| lossy(&word))
        }
        (None, Takes::Switch) => {
            words.next_if(is_boolean).map_or_else(|| "true".to_owned(), |word| lossy(&word))
        }
    };
    let value = without_quotes(&value, given.spelled, readable);
    let value = match older.takes {
        Takes::Text => value,
        Takes::Switch => boolean(&value).map_or(value, |value| value.to_string()),
    };
    if older.takes == Takes::Switch && value.is_empty() {
        readable.warnings.push(left_out(given.spelled));
        return;
    }
    readable.warnings.extend(older.warning(given.spelled, &value));
    readable.older.push((*older, value));
}

/// A flag of today goes on to the parser under its name of today.
fn take(
    given: Given<'_>,
    command: &Command,
    words: &mut Words<impl Iterator<Item = OsString>>,
    readable: &mut Readable,
) {
    let Given { name, spelled, value } = given;
    if name != spelled {
        readable.warnings.push(renamed(name, spelled));
    }
    let Some(argument) = command.get_arguments().find(|argument| argument.get_long() == Some(name)) else {
        readable.arguments.push(format!("--{name}").into());
        return;
    };
    let switch = is_switch(argument);
    let value = match value {
        Some(value) => value,
        None if switch => words.next_if(is_boolean).map_or_else(|| "true".to_owned(), |word| lossy(&word)),
        // The parser says that the value is missing.
        None => match words.next() {
            None => return readable.arguments.push(format!("--{name}").into()),
            Some(word) => match word.into_string() {
                Ok(text) => text,
                Err(raw) => return readable.arguments.extend([format!("--{name}").into(), raw]),
            },
        },
    };
    let value = if name == TEXT_AS_IT_IS { value } else { without_quotes(&value, spelled, readable) };
    if value.is_empty() && !takes_nothing(argument) {
        readable.warnings.push(left_out(spelled));
        return;
    }
    let value = if switch { boolean(&value).map_or(value, |value| value.to_string()) } else { value };
    readable.arguments.push(format!("--{name}={value}").into());
}

/// Its value is a whole document, in which quotes mean something.
const TEXT_AS_IT_IS: &str = "config-text";

fn renamed(name: &str, spelled: &str) -> String {
    // Pools moved to another group after the versions with these spellings.
    let group = if name == "pool-name" {
        "; pools of the versions with that spelling are of the group inference.networking.x-k8s.io, which --pool-group names"
    } else {
        ""
    };
    format!("flag --{spelled} is spelled --{name} today{group}")
}

fn left_out(spelled: &str) -> String {
    format!("flag --{spelled} has an empty value and counts as left out")
}

/// `value` without the quotes around it that a template left there.
fn without_quotes(value: &str, spelled: &str, readable: &mut Readable) -> String {
    let Some(inside) = unquoted(value) else { return value.to_owned() };
    readable.warnings.push(format!("flag --{spelled}: the quotes around {value} are no part of the value"));
    inside.to_owned()
}

/// The text between two equal quotes, if these are around the whole of `text`.
fn unquoted(text: &str) -> Option<&str> {
    let quote = text.chars().next().filter(|first| matches!(first, '"' | '\''))?;
    let inside = text.strip_prefix(quote)?.strip_suffix(quote)?;
    (!inside.contains(quote)).then_some(inside)
}

fn lossy(word: &OsString) -> String {
    word.to_string_lossy().into_owned()
}

fn is_boolean(word: &OsString) -> bool {
    word.to_str().is_some_and(|word| boolean(unquoted(word).unwrap_or(word)).is_some())
}

/// Letters that a miswritten command has more or less than the command. `serverless` is no miswritten `serve`.
const MISWRITTEN: usize = 2;

/// A word that is no flag and no flag's value. One that looks like a command was meant as one: to serve instead would
/// surprise. Any other is let pass, without a word if it is empty: templates leave empty words where a condition does
/// not hold.
fn stray(text: &str, readable: &mut Readable) {
    if text.trim().is_empty() {
        return;
    }
    let alike = |command: &&str| command.len().abs_diff(text.len()) <= MISWRITTEN;
    match nearest(text, COMMANDS).filter(alike) {
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

/// Booleans as Go reads them.
fn boolean(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// True for flags that need no value.
fn is_switch(argument: &Arg) -> bool {
    argument.get_num_args().is_some_and(|count| count.min_values() == 0)
        || matches!(argument.get_action(), ArgAction::SetTrue)
}

/// True for flags to which an empty value means something.
fn takes_nothing(argument: &Arg) -> bool {
    argument.get_default_values().first().is_some_and(|value| value.is_empty())
}

#[cfg(test)]
mod tests {
    use clap::Args;
    use proptest::prelude::*;

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
        check("p --tracing false --grpc-port 1", "p --tracing=false --grpc-port=1");
        check("p --tracing=F", "p --tracing=false");
    }

    #[test]
    fn go_spellings_of_other_flags_are_understood() {
        check("p -v 4", "p --v=4");
        check("p -v=4 -grpc-port=1", "p --v=4 --grpc-port=1");
        check("p -v5", "p --v=5");
    }

    #[test]
    fn a_stray_word_is_ignored_with_a_warning() {
        let readable = read("p --grpc-port 1 word --metrics-port 2");
        assert_eq!(readable.warnings, ["argument \"word\" is no flag and has no effect"]);
        assert_eq!(readable.arguments.len(), 3);
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
        for line in [
            "p word",
            "p --grpc-port 1 word",
            "p --config-file check",
            "p --tracing true",
            "p serverless-x",
            "p /app/epp",
        ] {
            assert!(read(line).problems.is_empty(), "{line}");
        }
    }

    #[test]
    fn an_older_flag_is_taken_out_with_its_value() {
        let readable = read("p --lora-info-metric --total-queued-requests-metric q --v 1");
        let older: Vec<_> = readable.older.iter().map(|(flag, value)| (flag.name, value.as_str())).collect();
        assert_eq!(older, [("lora-info-metric", ""), ("total-queued-requests-metric", "q")]);
        assert_eq!(readable.arguments.len(), 2);
        assert!(readable.warnings[0].contains("loraSpec"), "{}", readable.warnings[0]);
    }

    fn older(line: &[&str]) -> Vec<(&'static str, String)> {
        let command = ServeFlags::augment_args(Command::new("pointsman"));
        let readable = make_readable(line.iter().map(OsString::from), &command);
        assert_eq!(readable.arguments, ["p"], "{line:?}");
        readable.older.into_iter().map(|(flag, value)| (flag.name, value)).collect()
    }

    #[test]
    fn older_booleans_may_stand_alone() {
        let name = "model-server-metrics-https-insecure-skip-verify";
        for (line, value) in [
            (&["p", "--model-server-metrics-https-insecure-skip-verify"][..], "true"),
            (&["p", "--modelServerMetricsHttpsInsecureSkipVerify", "false"], "false"),
            (&["p", "--model-server-metrics-https-insecure-skip-verify=F"], "false"),
            (&["p", "-modelServerMetricsHttpsInsecureSkipVerify", "\"true\""], "true"),
        ] {
            assert_eq!(older(line), [(name, value.to_owned())], "{line:?}");
        }
        let line = &["p", "--model-server-metrics-https-insecure-skip-verify", "--enable-latency-predictor"];
        assert_eq!(older(line).len(), 2);
    }

    #[test]
    fn names_of_early_versions_are_taken_with_one_warning_each() {
        let readable = read("p -poolName x --grpcPort 1 --secureServing --configFile=f");
        assert_eq!(
            readable.arguments,
            ["p", "--pool-name=x", "--grpc-port=1", "--secure-serving=true", "--config-file=f"]
        );
        assert_eq!(readable.warnings.len(), 4);
        assert!(readable.warnings[0].contains("--poolName is spelled --pool-name today"));
        assert!(readable.warnings[0].contains("inference.networking.x-k8s.io"));
        let readable = read("p --modelServerMetricsScheme https -kvCacheUsagePercentageMetric u");
        assert_eq!(readable.older.len(), 2);
        assert_eq!(readable.warnings.len(), 2);
        assert!(readable.warnings[0].contains("--modelServerMetricsScheme is deprecated"));
    }

    #[test]
    fn quotes_that_a_template_left_are_taken_off() {
        assert_eq!(
            older(&["p", "--total-queued-requests-metric", "\"sglang:num_queue_reqs\""]),
            [("total-queued-requests-metric", "sglang:num_queue_reqs".to_owned())]
        );
        let readable = read("p --pool-name='a' --v \"4\" \"--grpc-port=1\" --tracing 'false'");
        assert_eq!(readable.arguments, ["p", "--pool-name=a", "--v=4", "--grpc-port=1", "--tracing=false"]);
        assert_eq!(readable.warnings.len(), 3, "{:?}", readable.warnings);
        assert!(readable.warnings[1].contains("--v: the quotes around \"4\""), "{:?}", readable.warnings);
        for value in ["\"a", "'a\"", "\"", "a'", "'a''b'"] {
            assert_eq!(unquoted(value), None, "{value}");
        }
        check("p --config-text=\"{}\"", "p --config-text=\"{}\"");
    }

    #[test]
    fn empty_words_and_values_count_as_left_out() {
        let command = ServeFlags::augment_args(Command::new("pointsman"));
        let line = ["p", "", "--v", "", "--metrics-endpoint-auth=", "--pool-name", "", " ", "--grpc-port=1"];
        let readable = make_readable(line.iter().map(OsString::from), &command);
        assert_eq!(readable.arguments, ["p", "--pool-name=", "--grpc-port=1"]);
        assert_eq!(
            readable.warnings,
            [
                "flag --v has an empty value and counts as left out",
                "flag --metrics-endpoint-auth has an empty value and counts as left out"
            ]
        );
    }

    #[test]
    fn unknown_flags_go_on_to_the_parser_which_refuses_them() {
        check("p --pool_name x", "p --pool_name");
        check("p -nonsense=1", "p --nonsense=1");
        let command = ServeFlags::augment_args(Command::new("pointsman"));
        for line in ["p --nonsense", "p --poolNames x", "p -x", "p --POOL-NAME x"] {
            assert!(command.clone().try_get_matches_from(read(line).arguments).is_err(), "{line}");
        }
    }

    #[test]
    fn help_and_version_stay_what_they_are() {
        for line in ["p --help", "p --version"] {
            check(line, line);
        }
        check("p -h", "p --h");
    }

    proptest! {
        #[test]
        fn whatever_the_line_holds_it_is_read_in_words_no_longer_than_it(
            words in prop::collection::vec("(--?)?[a-zA-Z\"'=-]{0,12}|--poolName|-v|--lora-info-metric|''", 0..12)
        ) {
            let command = ServeFlags::augment_args(Command::new("pointsman"));
            let line = std::iter::once("p".to_owned()).chain(words.iter().cloned()).map(OsString::from);
            let readable = make_readable(line, &command);
            prop_assert!(readable.arguments.len() <= words.len() + 1);
            prop_assert!(readable.warnings.len() <= 3 * words.len());
        }
    }
}
