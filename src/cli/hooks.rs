//! The commands that a pod's hooks may call in the image, which holds this program alone: `sleep`, and a shell that
//! knows
//! nothing but `sleep`. The name by which the program was called says which of them is meant.

use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

/// Exit code of `sleep` for operands that it does not understand.
const BAD_OPERAND: u8 = 1;
/// Exit code of a shell that does not find a command.
const NO_SUCH_COMMAND: u8 = 127;

/// Another program that this one stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tool {
    /// `sleep N…`
    Sleep,
    /// `sh -c 'sleep N…'`
    Shell,
}

impl Tool {
    /// The tool that `program`, the first word of the command line, names; `None` for any other name, by which
    /// Pointsman is meant.
    pub(super) fn called(program: &OsStr) -> Option<Self> {
        match Path::new(program).file_name()?.to_str()? {
            "sleep" => Some(Self::Sleep),
            "sh" => Some(Self::Shell),
            _ => None,
        }
    }

    /// Does what the tool does, with these words behind its name.
    #[expect(clippy::disallowed_methods, reason = "the pause is what was asked for, and nothing else runs")]
    pub(super) fn run(self, words: &[OsString]) -> ExitCode {
        let words: Vec<String> = words.iter().map(|word| word.to_string_lossy().into_owned()).collect();
        let (pause, code) = match self {
            Self::Sleep => (pause(&words), BAD_OPERAND),
            Self::Shell => (pause_of_shell(&words), NO_SUCH_COMMAND),
        };
        match pause {
            Ok(pause) => {
                thread::sleep(pause);
                ExitCode::SUCCESS
            }
            Err(problem) => {
                eprintln!("{problem}");
                ExitCode::from(code)
            }
        }
    }
}

/// The pause that the operands of `sleep` add up to: numbers of seconds, or with one of `s`, `m`, `h`, `d` behind them;
/// `infinity` is without end.
fn pause<W: AsRef<str>>(operands: &[W]) -> Result<Duration, String> {
    if operands.is_empty() {
        return Err("sleep: expected a time, as in `sleep 5` or `sleep 1m`".to_owned());
    }
    let mut sum = Duration::ZERO;
    for operand in operands {
        sum = sum.saturating_add(one_pause(operand.as_ref())?);
    }
    Ok(sum)
}

fn one_pause(operand: &str) -> Result<Duration, String> {
    let wrong =
        || format!("sleep: got {operand:?}, expected seconds, or a number with s, m, h or d behind it");
    if matches!(operand, "infinity" | "inf") {
        return Ok(Duration::MAX);
    }
    let (number, unit) = match operand.char_indices().last() {
        Some((at, 's')) => (&operand[..at], 1.0),
        Some((at, 'm')) => (&operand[..at], 60.0),
        Some((at, 'h')) => (&operand[..at], 3600.0),
        Some((at, 'd')) => (&operand[..at], 86_400.0),
        _ => (operand, 1.0),
    };
    if !number.chars().all(|letter| letter.is_ascii_digit() || letter == '.') {
        return Err(wrong());
    }
    let seconds: f64 = number.parse().map_err(|_| wrong())?;
    Ok(Duration::try_from_secs_f64(seconds * unit).unwrap_or(Duration::MAX))
}

/// The pause of `sh -c COMMAND`, whose command may only be `sleep`.
fn pause_of_shell(words: &[String]) -> Result<Duration, String> {
    let [options, command, ..] = words else { return Err(refusal(&words.join(" "))) };
    let letters = options.strip_prefix('-').unwrap_or_default();
    if !letters.contains('c') || !letters.chars().all(|letter| matches!(letter, 'c' | 'e' | 'u' | 'x')) {
        return Err(refusal(&words.join(" ")));
    }
    let simple = command.trim().trim_end_matches(';');
    let mut parts = simple.split_whitespace().map(without_quotes).peekable();
    parts.next_if_eq(&"exec");
    match parts.next() {
        Some("sleep" | "/bin/sleep" | "/usr/bin/sleep") => {
            let operands: Vec<&str> = parts.collect();
            pause(&operands).map_err(|_| refusal(command))
        }
        _ => Err(refusal(command)),
    }
}

fn without_quotes(word: &str) -> &str {
    let inside = |quote: char| word.strip_prefix(quote)?.strip_suffix(quote);
    inside('"').or_else(|| inside('\'')).unwrap_or(word)
}

fn refusal(command: &str) -> String {
    format!(
        "sh: got {command:?}, but this image holds no shell: `sh -c 'sleep N'` is all that is understood here, for hooks of a pod; \
         `kubectl debug` brings a container with a shell"
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shell(line: &[&str]) -> Result<Duration, String> {
        pause_of_shell(&line.iter().map(|&word| word.to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn the_name_that_the_program_is_called_by_says_what_it_does() {
        for (name, tool) in [
            ("/bin/sleep", Some(Tool::Sleep)),
            ("sleep", Some(Tool::Sleep)),
            ("/bin/sh", Some(Tool::Shell)),
            ("/epp", None),
            ("/app/epp", None),
            ("/manager", None),
            ("/pointsman", None),
            ("sleepy", None),
            ("", None),
        ] {
            assert_eq!(Tool::called(OsStr::new(name)), tool, "{name}");
        }
    }

    #[test]
    fn times_add_up_and_have_units() {
        for (operands, seconds) in [
            (&["5"][..], 5.0),
            (&["0.25"], 0.25),
            (&["1m", "2s"], 62.0),
            (&["1h"], 3600.0),
            (&["1d"], 86_400.0),
        ] {
            assert_eq!(pause(operands), Ok(Duration::from_secs_f64(seconds)), "{operands:?}");
        }
        assert_eq!(pause(&["infinity", "5"]), Ok(Duration::MAX));
        assert_eq!(pause(&["9".repeat(400)]), Ok(Duration::MAX));
        for operands in [&[][..], &["five"], &["-1"], &[""], &["s"], &["5", "x"], &["1e3"], &["nan"], &["ö"]]
        {
            assert!(pause(operands).unwrap_err().starts_with("sleep: "), "{operands:?}");
        }
    }

    #[test]
    fn the_shell_knows_sleep() {
        for line in [
            ["-c", "sleep 5"],
            ["-c", " /bin/sleep  5s; "],
            ["-c", "exec sleep 5"],
            ["-ec", "sleep \"5\""],
            ["-c", "sleep '2' 3"],
        ] {
            assert_eq!(shell(&line), Ok(Duration::from_secs(5)), "{line:?}");
        }
    }

    #[test]
    fn the_shell_refuses_all_else_and_says_what_it_knows() {
        for line in [
            &[][..],
            &["-c"],
            &["sleep 5"],
            &["script", "sleep 5"],
            &["-i", "sleep 5"],
            &["-c", ""],
            &["-c", "exec"],
            &["-c", "kill 1"],
            &["-c", "sleep"],
            &["-c", "sleep 5 && kill 1"],
            &["-c", "sleep 5; rm x"],
            &["-c", "sleep $TIME"],
            &["-c", "sleep 5 &"],
        ] {
            assert!(shell(line).unwrap_err().contains("`sh -c 'sleep N'` is all"), "{line:?}");
        }
    }

    proptest! {
        #[test]
        fn whatever_is_asked_for_is_a_time_or_a_refusal(words in prop::collection::vec(".{0,12}", 0..4)) {
            let _ = pause(&words);
            let _ = pause_of_shell(&words);
        }
    }
}
