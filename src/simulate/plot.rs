//! The plotted lines of a run, reduced to few points.

use super::record::{Fate, Notes};
use super::report::Plot;

/// The number of points in a line.
const POINTS: usize = 120;

/// Makes the plotted lines of a run.
pub(super) fn plot(name: &str, notes: &Notes) -> Plot {
    let answered = notes.records.iter().filter(|record| record.fate == Fate::Answered);
    let mut firsts: Vec<f64> =
        answered.filter_map(|record| Some(record.first_token()?.as_secs_f64() * 1e3)).collect();
    firsts.sort_by(f64::total_cmp);
    let last = firsts.len().saturating_sub(1);
    let ttft_ms = (0..=POINTS).filter_map(|point| firsts.get(last * point / POINTS).copied()).collect();
    let step = notes.samples.len().div_ceil(POINTS).max(1);
    let samples: Vec<_> = notes.samples.iter().step_by(step).collect();
    let servers = samples.first().map_or(0, |sample| sample.load.len());
    let load = (0..servers).map(|server| {
        let load = |count: Option<&Option<usize>>| count.copied().flatten().unwrap_or(0) as f64;
        samples.iter().map(|sample| load(sample.load.get(server))).collect()
    });
    let mut rates: Vec<f64> = Vec::with_capacity(samples.len());
    let mut before = (0, 0);
    for sample in &samples {
        let (looked, found) = (sample.cache.0 - before.0, sample.cache.1 - before.1);
        rates.push(if looked == 0 { 0.0 } else { found as f64 / looked as f64 });
        before = sample.cache;
    }
    Plot {
        name: name.to_owned(),
        ttft_ms,
        seconds: samples.iter().map(|sample| sample.at.as_secs_f64()).collect(),
        load: load.collect(),
        hit_rate: rates,
    }
}
