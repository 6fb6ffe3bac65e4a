//! What the readers share: numbers of a trace, bounded, and rounded times.

use std::time::Duration;

use anyhow::{Context as _, ensure};

use crate::simulate::workload::{Start, Workload};

/// Most requests of a trace.
pub(super) const MOST_REQUESTS: usize = 20_000_000;
/// Most tokens of a prompt, or of an answer.
const MOST_TOKENS: u64 = 16 << 20;
/// Longest trace.
pub(super) const LONGEST: Duration = Duration::from_hours(24 * 366);

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

/// Spreads requests that carry the same time over the time until the next one, but at most over `longest`: traces round
/// their times. The order stays.
pub(super) fn spread(workload: &mut Workload, longest: Duration, seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    let at =
        |workload: &Workload, index: usize| match workload.requests.get(index).map(|request| request.start) {
            Some(Start::At(at)) => Some(at),
            _ => None,
        };
    let mut first = 0;
    while let Some(time) = at(workload, first) {
        let mut end = first + 1;
        while at(workload, end) == Some(time) {
            end += 1;
        }
        let room = at(workload, end).map_or(longest, |next| next.saturating_sub(time).min(longest));
        let mut offsets: Vec<f64> = (first..end).map(|_| random.f64()).collect();
        offsets.sort_by(f64::total_cmp);
        for (request, offset) in workload.requests[first..end].iter_mut().zip(offsets) {
            request.start = Start::At(time + room.mul_f64(offset));
        }
        first = end;
    }
}
