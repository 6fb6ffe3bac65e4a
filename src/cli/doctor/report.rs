//! Prints what was found: for a person, or as a document.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::process::ExitCode;

use serde_json::json;

use super::gathered::Gathered;
use crate::decisions::terminal::shown;
use crate::doctor::{Finding, Severity};

/// What was found, gravest first.
pub(super) struct Report(Gathered);

impl Report {
    /// Of what was gathered.
    pub(super) fn of(mut gathered: Gathered) -> Self {
        gathered.findings.sort_by_key(|finding| std::cmp::Reverse(finding.rule.severity));
        Self(gathered)
    }

    /// Prints to standard output. The exit code says how grave the gravest finding is.
    pub(super) fn print(&self, as_json: bool) -> io::Result<ExitCode> {
        let text = if as_json { self.json() } else { self.text() };
        match io::stdout().lock().write_all(text.as_bytes()) {
            // Nobody left to read the output is no fault.
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error),
            _ => {
                Ok(self.gravest().map_or(ExitCode::SUCCESS, |severity| ExitCode::from(severity.exit_code())))
            }
        }
    }

    fn gravest(&self) -> Option<Severity> {
        self.0.findings.iter().map(|finding| finding.rule.severity).max()
    }

    fn json(&self) -> String {
        let Gathered { findings, looked_at, skipped, .. } = &self.0;
        let document = json!({
            "severity": self.gravest().map_or("sound", Severity::name),
            "findings": findings.iter().map(Finding::to_json).collect::<Vec<_>>(),
            "looked_at": looked_at,
            "skipped": skipped,
        });
        format!("{document:#}\n")
    }

    /// Names come from anywhere: nothing in them reaches the terminal that it would act on.
    fn text(&self) -> String {
        let Gathered { findings, looked_at, skipped, .. } = &self.0;
        let mut out = String::new();
        for finding in findings {
            // Writing to a string cannot fail.
            let _ = writeln!(
                out,
                "{:<7} {}  {}",
                finding.rule.severity.name(),
                finding.rule.name,
                shown(&finding.subject)
            );
            let _ = writeln!(out, "  what  {}", shown(&finding.problem));
            let _ = writeln!(out, "  why   {}", finding.rule.why);
            let _ = writeln!(out, "  mend  {}", shown(&finding.mend));
        }
        let count = |severity: Severity| findings.iter().filter(|it| it.rule.severity == severity).count();
        let counted = [Severity::Error, Severity::Warning].map(|severity| match count(severity) {
            1 => format!("1 {}", severity.name()),
            count => format!("{count} {}s", severity.name()),
        });
        let verdict = if findings.is_empty() { "nothing is wrong".to_owned() } else { counted.join(", ") };
        let looked = if looked_at.is_empty() { "nothing".to_owned() } else { looked_at.join(", ") };
        let _ = writeln!(out, "{verdict}; looked at {}", shown(&looked));
        for skipped in skipped {
            let _ = writeln!(out, "not looked at: {}", shown(skipped));
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::picker::UNREACHABLE;

    #[test]
    fn nothing_that_a_terminal_acts_on_is_printed_and_the_json_holds_the_text_itself() {
        let hostile = "a\u{1b}[2Jb\r\n<script>";
        let findings = vec![UNREACHABLE.found(hostile, hostile, hostile)];
        let report = Report::of(Gathered {
            findings,
            looked_at: vec![hostile.into()],
            skipped: vec![hostile.into()],
            ..Gathered::default()
        });
        let text = report.text();
        assert!(
            !text.contains(['\u{1b}', '\r']) && text.contains("a\\u{1b}[2Jb\\u{d}\\u{a}<script>"),
            "{text}"
        );
        let json: serde_json::Value = serde_json::from_str(&report.json()).unwrap();
        assert_eq!(json["findings"][0]["subject"], hostile);
        assert_eq!(json["severity"], "error");
    }
}
