//! Numbers of a trace, bounded.

use std::time::Duration;

use anyhow::{Context as _, ensure};

use super::{LONGEST, MOST_TOKENS};

/// A count of tokens as requests have them: at least one.
pub(super) fn tokens(field: &str, value: u64) -> anyhow::Result<u32> {
    ensure!(value <= MOST_TOKENS, "{field}: is {value}, at most {MOST_TOKENS} tokens are simulated");
    Ok(value.max(1) as u32)
}

/// A time since the beginning.
pub(super) fn time(field: &str, seconds: f64) -> anyhow::Result<Duration> {
    let longest = LONGEST.as_secs_f64();
    ensure!((0.0..=longest).contains(&seconds), "{field}: is {seconds}, expected seconds in 0..={longest}");
    Ok(Duration::from_secs_f64(seconds))
}

/// Positions of these columns in a line of names with commas.
pub(super) fn columns<const N: usize>(header: &str, names: [&str; N]) -> anyhow::Result<[usize; N]> {
    let mut found = [0; N];
    for (place, name) in found.iter_mut().zip(names) {
        let at = header.split(',').position(|column| column.trim().eq_ignore_ascii_case(name));
        *place = at.with_context(|| format!("has no column {name:?}"))?;
    }
    Ok(found)
}

/// The value at a position of a line with commas.
pub(super) fn value<'l>(line: &'l str, column: usize, name: &str) -> anyhow::Result<&'l str> {
    line.split(',').nth(column).map(str::trim).with_context(|| format!("{name}: is missing"))
}
