//! The table of the demo.

use std::fmt::Write as _;
use std::io::Write as _;
use std::time::Duration;

use super::client::Measured;

/// One run of the load.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Run {
    /// Name of the way in which servers were chosen.
    pub(super) name: &'static str,
    /// Answers.
    pub(super) answered: Vec<Measured>,
    /// Requests that failed.
    pub(super) failed: usize,
    /// Share of prompt tokens that the servers' caches had, 0 to 1.
    pub(super) cached: f64,
}

/// The runs side by side. `servers` are all names, the last of which is the busy one.
pub(super) fn write(servers: &[String], runs: &[Run]) -> String {
    let mut text = String::new();
    let width = servers.len() * 8;
    let _ = writeln!(
        text,
        "{:14}{:>width$}{:>9}{:>21}{:>21}{:>11}",
        "", "requests by server", "", "first token, ms", "whole answer, ms", "prompt"
    );
    let _ = write!(text, "{:14}", "");
    for (at, server) in servers.iter().enumerate() {
        let mark = if at + 1 == servers.len() { "*" } else { "" };
        let _ = write!(text, "{:>8}", format!("{server}{mark}"));
    }
    let _ =
        writeln!(text, "{:>9}{:>12}{:>9}{:>12}{:>9}{:>11}", "failed", "p50", "p95", "p50", "p95", "cached");
    for run in runs {
        let _ = write!(text, "{:14}", run.name);
        for server in servers {
            let _ =
                write!(text, "{:>8}", run.answered.iter().filter(|answer| answer.server == *server).count());
        }
        let first: Vec<Duration> = run.answered.iter().filter_map(|answer| answer.first).collect();
        let whole: Vec<Duration> = run.answered.iter().map(|answer| answer.whole).collect();
        let _ = writeln!(
            text,
            "{:>9}{:>12}{:>9}{:>12}{:>9}{:>10.0}%",
            run.failed,
            millis(&first, 50),
            millis(&first, 95),
            millis(&whole, 50),
            millis(&whole, 95),
            run.cached * 100.0
        );
    }
    if let Some(busy) = servers.last() {
        let _ = writeln!(
            text,
            "* {busy} was kept busy by other clients in all runs. Times to the first token are those of streamed answers."
        );
    }
    text
}

/// Tells the user.
pub(super) fn say(text: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{text}")?;
    out.flush()?;
    Ok(())
}

/// A percentile by the nearest rank, in milliseconds.
pub(super) fn millis(times: &[Duration], percent: usize) -> String {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).map_or_else(|| "-".to_owned(), |time| time.as_millis().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(server: &str, ms: u64) -> Measured {
        Measured {
            server: server.to_owned(),
            first: (server != "c").then(|| Duration::from_millis(ms)),
            whole: Duration::from_millis(ms * 10),
            gaps: Vec::new(),
        }
    }

    #[test]
    fn percentiles_take_the_nearest_rank() {
        let times: Vec<Duration> = (1..=20).rev().map(Duration::from_millis).collect();
        assert_eq!(millis(&times, 50), "10");
        assert_eq!(millis(&times, 95), "19");
        assert_eq!(millis(&times[..1], 95), "20");
        assert_eq!(millis(&[], 50), "-");
    }

    #[test]
    fn a_run_is_one_line_under_its_headings() {
        let run = Run {
            name: "Pointsman",
            answered: vec![measured("a", 1), measured("a", 2), measured("b", 3), measured("c", 500)],
            failed: 4,
            cached: 0.5,
        };
        // The answer of c came in one piece.
        let text = write(&["a".to_owned(), "c".to_owned(), "b".to_owned()], &[run]);
        let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines[1], ["a", "c", "b*", "failed", "p50", "p95", "p50", "p95", "cached"]);
        assert_eq!(lines[2], ["Pointsman", "2", "1", "1", "4", "2", "3", "20", "5000", "50%"]);
    }
}
