//! The results of a run.

use std::time::Duration;

use serde::Serialize;

use super::record::{Fate, Notes, Record};
use super::workload::Workload;

/// The objective by which goodput is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Objective {
    /// The longest time to the first token.
    pub first_token: Duration,
    /// The longest mean time between the tokens of an answer.
    pub between_tokens: Duration,
}

/// Times in milliseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Times {
    /// The mean.
    pub mean: f64,
    /// The median.
    pub p50: f64,
    /// The 90th percentile.
    pub p90: f64,
    /// The 95th percentile.
    pub p95: f64,
    /// The 99th percentile.
    pub p99: f64,
}

/// The results of one run.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Figures {
    /// The number of requests in the workload, without those that warm it up.
    pub requests: usize,
    /// The number of requests that were answered.
    pub answered: usize,
    /// The number of requests that the picker refused.
    pub refused: usize,
    /// The number of requests that failed, because their server was gone or could never run them.
    pub failed: usize,
    /// The number of requests that had not ended when the simulation did.
    pub unfinished: usize,
    /// The virtual seconds until the last request ended.
    pub seconds: f64,
    /// The time from sending a request to its first token, for streamed answers.
    pub ttft_ms: Times,
    /// The time between two tokens of an answer.
    pub tbt_ms: Times,
    /// The share of all requests that were answered within the objective.
    pub goodput: f64,
    /// The share of the prompt tokens that the servers' caches had.
    pub hit_rate: f64,
    /// The share that one cache of unlimited size would have had.
    pub infinite_hit_rate: f64,
    /// The load of the busiest server divided by the mean load, as a mean over time. 1 means that the load is even.
    pub imbalance: f64,
    /// The mean of the estimated time to the first token minus that at the best server.
    pub regret_ms: f64,
    /// The share of requests that each server got.
    pub shares: Vec<f64>,
    /// Mean absolute error of the predicted times to the first token, over the last 100 requests of the first replica,
    /// as a share of their mean; `None` if nobody predicts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prediction_error: Option<f64>,
}

/// One figure by which choosers are compared.
#[derive(Debug, Clone, Copy)]
pub struct Measure {
    /// The name of the figure in JSON.
    pub name: &'static str,
    /// Reads the figure.
    pub of: fn(&Figures) -> f64,
}

/// All figures by which choosers are compared.
pub const MEASURES: [Measure; 13] = [
    Measure { name: "ttft_mean_ms", of: |figures| figures.ttft_ms.mean },
    Measure { name: "ttft_p50_ms", of: |figures| figures.ttft_ms.p50 },
    Measure { name: "ttft_p90_ms", of: |figures| figures.ttft_ms.p90 },
    Measure { name: "ttft_p95_ms", of: |figures| figures.ttft_ms.p95 },
    Measure { name: "ttft_p99_ms", of: |figures| figures.ttft_ms.p99 },
    Measure { name: "tbt_mean_ms", of: |figures| figures.tbt_ms.mean },
    Measure { name: "tbt_p50_ms", of: |figures| figures.tbt_ms.p50 },
    Measure { name: "tbt_p90_ms", of: |figures| figures.tbt_ms.p90 },
    Measure { name: "tbt_p99_ms", of: |figures| figures.tbt_ms.p99 },
    Measure { name: "goodput", of: |figures| figures.goodput },
    Measure { name: "hit_rate", of: |figures| figures.hit_rate },
    Measure { name: "imbalance", of: |figures| figures.imbalance },
    Measure { name: "regret_ms", of: |figures| figures.regret_ms },
];

/// Computes the figures of a run. `infinite` is the number of blocks of all prompts, and the number that a cache of
/// unlimited size would have had.
pub(super) fn figures(
    workload: &Workload,
    notes: &Notes,
    objective: Objective,
    infinite: (u64, u64),
) -> Figures {
    let (counted, records) = (
        workload.requests.get(workload.warm_up..).unwrap_or_default(),
        notes.records.get(workload.warm_up..).unwrap_or_default(),
    );
    let count = |fate| records.iter().filter(|record| record.fate == fate).count();
    let answered = || records.iter().filter(|record| record.fate == Fate::Answered);
    let streamed = counted
        .iter()
        .zip(records)
        .filter(|(request, record)| request.streamed && record.fate == Fate::Answered);
    let mut firsts: Vec<f64> =
        streamed.filter_map(|(_, record)| Some(millis(record.first_token()?))).collect();
    firsts.sort_by(f64::total_cmp);
    let gap = |share| notes.gaps.quantile(share) * 1e3;
    let cached: u64 = records.iter().map(|record| u64::from(record.cached)).sum();
    let begun = |record: &&Record| record.first.is_some();
    // Requests that never began looked for nothing in a cache.
    let blocks: u64 = counted
        .iter()
        .zip(records)
        .filter(|(_, record)| begun(record))
        .map(|(request, _)| request.blocks.len() as u64)
        .sum();
    let servers = notes.samples.first().map_or(0, |sample| sample.load.len());
    let mut sent = vec![0_usize; servers];
    for server in records.iter().filter_map(|record| record.server) {
        if let Some(count) = sent.get_mut(server) {
            *count += 1;
        }
    }
    let all: usize = sent.iter().sum();
    let regrets = records.iter().filter(|record| record.server.is_some());
    let kept = |record: &&Record| {
        record.first_token().is_some_and(|first| first <= objective.first_token)
            && record.between_tokens().is_none_or(|between| between <= objective.between_tokens)
    };
    Figures {
        requests: records.len(),
        answered: count(Fate::Answered),
        refused: count(Fate::Refused),
        failed: count(Fate::Failed),
        unfinished: count(Fate::Unfinished),
        seconds: notes.end.as_secs_f64(),
        ttft_ms: times(&firsts),
        tbt_ms: Times {
            mean: notes.gaps.mean() * 1e3,
            p50: gap(0.5),
            p90: gap(0.9),
            p95: gap(0.95),
            p99: gap(0.99),
        },
        goodput: share(answered().filter(kept).count() as f64, records.len() as f64),
        hit_rate: share(cached as f64, blocks as f64 * f64::from(workload.block_tokens)),
        infinite_hit_rate: share(infinite.1 as f64, infinite.0 as f64),
        imbalance: imbalance(notes),
        regret_ms: share(regrets.map(|record| millis(record.regret)).sum(), all as f64),
        shares: sent.iter().map(|count| share(*count as f64, all as f64)).collect(),
        prediction_error: notes.prediction_error,
    }
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

fn share(part: f64, of: f64) -> f64 {
    if of > 0.0 { part / of } else { 0.0 }
}

/// The mean and the percentiles (nearest rank) of sorted values.
fn times(sorted: &[f64]) -> Times {
    let rank = |share: f64| {
        let rank = (share * sorted.len() as f64).ceil().max(1.0) as usize;
        sorted.get(rank - 1).copied().unwrap_or_default()
    };
    Times {
        mean: share(sorted.iter().sum(), sorted.len() as f64),
        p50: rank(0.5),
        p90: rank(0.9),
        p95: rank(0.95),
        p99: rank(0.99),
    }
}

/// Computes the imbalance. Samples with fewer requests than servers are left out, because they say nothing of the
/// balance.
fn imbalance(notes: &Notes) -> f64 {
    let (mut sum, mut count) = (0.0, 0.0);
    for sample in &notes.samples {
        let loads: Vec<usize> = sample.load.iter().flatten().copied().collect();
        let all: usize = loads.iter().sum();
        if all >= loads.len().max(1) {
            let most = loads.iter().max().copied().unwrap_or_default();
            sum += most as f64 * loads.len() as f64 / all as f64;
            count += 1.0;
        }
    }
    share(sum, count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_take_the_nearest_rank() {
        let values: Vec<f64> = (1..=100).map(f64::from).collect();
        let times = times(&values);
        assert_eq!((times.p50, times.p90, times.p99), (50.0, 90.0, 99.0));
        assert_eq!(super::times(&[]), Times::default());
    }
}
