//! Writes the result of a replay as text.

use std::fmt::Write as _;

use super::compare::Comparison;
use super::play::Played;
use crate::decisions::Regret;
use crate::decisions::terminal::shown;

/// The most endpoints in the table.
const ROWS: usize = 40;
/// The most differences that the text lists.
const LISTED: usize = 10;

/// Writes the result for a terminal. `other` is the name of the other configuration.
pub fn table(played: &Played, other: &str) -> String {
    let mut out = String::new();
    let Played { decisions, refused, differing, .. } = played;
    let _ = writeln!(
        out,
        "{decisions} decisions made again; {refused} requests were refused before any profile ran"
    );
    if *differing == 0 {
        let _ = writeln!(out, "the configuration of the capture decides all of them the same, bit for bit");
    } else {
        let _ = writeln!(out, "the configuration of the capture decides {differing} of them differently");
    }
    if let Some(first) = &played.first_difference {
        let _ = writeln!(out, "first difference: {first}");
    }
    if let Some(comparison) = &played.comparison {
        compared(&mut out, comparison, &shown(other));
    }
    for note in &played.notes {
        let _ = writeln!(out, "note: {}", shown(note));
    }
    out
}

fn compared(out: &mut String, comparison: &Comparison, other: &str) {
    let Comparison { decisions, differ, refused_by_other, bound, .. } = comparison;
    let share = *differ as f64 / (*decisions).max(1) as f64 * 100.0;
    let _ = writeln!(
        out,
        "\n{other} chooses another endpoint in {differ} of {decisions} decisions ({share:.1} %)"
    );
    if *refused_by_other > 0 {
        let _ = writeln!(out, "{other} finds no endpoint for {refused_by_other} requests more");
    }
    if *bound > 0 {
        let _ = writeln!(
            out,
            "{bound} requests belong to a conversation that is on a server, and go there anyway"
        );
    }
    for (name, [both, differ]) in &comparison.profiles {
        let _ = writeln!(out, "  profile {}: {differ} of {both} runs choose another endpoint", shown(name));
    }
    let regret = |out: &mut String, whose: &str, under: &str, regret: &Regret| {
        let mean = regret.sum / ((*differ).saturating_sub(regret.ruled_out)).max(1) as f64;
        let _ = writeln!(
            out,
            "regret of {whose} under {under}: {:.4} in sum, {mean:.4} in the mean, {:.4} at most; {} ruled out",
            regret.sum, regret.most, regret.ruled_out
        );
    };
    regret(out, other, "the capture", &comparison.regret_of_other);
    regret(out, "the capture", other, &comparison.regret_of_captured);
    let total = comparison.total();
    let _ = writeln!(
        out,
        "predicted cached tokens: {} with the capture, {} with {other}, of {} prompt tokens",
        total.cached_tokens[0], total.cached_tokens[1], total.tokens[0]
    );
    let _ = writeln!(
        out,
        "\n{:<40} {:>21} {:>25} {:>25}",
        "endpoint", "requests", "prompt tokens", "cached tokens"
    );
    for (name, share) in comparison.endpoints.iter().take(ROWS) {
        let pair = |[before, after]: [u64; 2]| format!("{before} -> {after}");
        let _ = writeln!(
            out,
            "{:<40} {:>21} {:>25} {:>25}",
            shown(name),
            pair(share.requests),
            pair(share.tokens),
            pair(share.cached_tokens)
        );
    }
    if comparison.endpoints.len() > ROWS {
        let _ = writeln!(out, "and {} endpoints more", comparison.endpoints.len() - ROWS);
    }
    for difference in comparison.differences.iter().take(LISTED) {
        let _ = writeln!(
            out,
            "request {:?}: {} -> {}",
            shown(&difference.id),
            shown(&difference.captured),
            shown(&difference.other)
        );
    }
    out.push_str("\nWhat would have happened afterwards is not known: latency is not predicted here.\n");
}
