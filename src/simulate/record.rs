//! Records of a simulation.

use std::time::Duration;

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Fate {
    /// The request was never sent, or had not ended when the simulation did.
    #[default]
    Unfinished,
    /// The request was answered.
    Answered,
    /// The picker refused the request.
    Refused,
    /// The server of the request was gone, or could never run it.
    Failed,
}

/// The record of one request.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(super) struct Record {
    /// The time at which the request was sent.
    pub(super) sent: Duration,
    /// The server that got the request.
    pub(super) server: Option<usize>,
    /// The time of the first token.
    pub(super) first: Option<Duration>,
    /// The time of the last token.
    pub(super) last: Option<Duration>,
    /// The number of tokens so far.
    pub(super) tokens: u32,
    /// The prompt tokens that the server's cache had.
    pub(super) cached: u32,
    /// The estimated time to the first token at the chosen server minus that at the best server, at the time of
    /// sending.
    pub(super) regret: Duration,
    /// How the request ended.
    pub(super) fate: Fate,
}

impl Record {
    /// The time from sending to the first token.
    pub(super) fn first_token(&self) -> Option<Duration> {
        self.first.map(|first| first.saturating_sub(self.sent))
    }

    /// The mean time between tokens; `None` for an answer of one token.
    pub(super) fn between_tokens(&self) -> Option<Duration> {
        let gaps = self.tokens.checked_sub(1).filter(|gaps| *gaps > 0)?;
        Some(self.last?.saturating_sub(self.first?) / gaps)
    }
}

/// A histogram of times, with buckets that grow by 2 %, from a microsecond on.
#[derive(Debug, Clone)]
pub(super) struct Histogram {
    counts: Vec<u64>,
    sum: f64,
    count: u64,
}

const GROWTH: f64 = 1.02;
const BUCKETS: usize = 1200;

impl Default for Histogram {
    fn default() -> Self {
        Self { counts: vec![0; BUCKETS], sum: 0.0, count: 0 }
    }
}

impl Histogram {
    pub(super) fn add(&mut self, time: Duration) {
        let seconds = time.as_secs_f64();
        let bucket = ((seconds * 1e6).max(1.0).ln() / GROWTH.ln()) as usize;
        if let Some(count) = self.counts.get_mut(bucket.min(BUCKETS - 1)) {
            *count += 1;
        }
        self.sum += seconds;
        self.count += 1;
    }

    /// The mean in seconds; 0 if the histogram is empty.
    pub(super) fn mean(&self) -> f64 {
        self.sum / self.count.max(1) as f64
    }

    /// The time in seconds below which this share of the times lies, within 2 %; 0 if the histogram is empty.
    pub(super) fn quantile(&self, share: f64) -> f64 {
        let rank = (share * self.count as f64).ceil().max(1.0) as u64;
        let mut below = 0;
        let bucket = self.counts.iter().position(|count| {
            below += count;
            below >= rank
        });
        bucket.map_or(0.0, |bucket| GROWTH.powf(bucket as f64 + 0.5) / 1e6)
    }
}

/// The state of the servers at one time.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Sample {
    /// The virtual time of the sample.
    pub(super) at: Duration,
    /// The number of waiting and running requests of each server; `None` while the server is down.
    pub(super) load: Vec<Option<usize>>,
    /// The prompt tokens that were looked for in caches so far, and those that were found.
    pub(super) cache: (u64, u64),
}

/// All records of one run.
#[derive(Debug, Clone, Default)]
pub(super) struct Notes {
    /// The record of each request, by its index in the workload.
    pub(super) records: Vec<Record>,
    /// The times between tokens, of all answers.
    pub(super) gaps: Histogram,
    /// One sample for each virtual second.
    pub(super) samples: Vec<Sample>,
    /// The time at which the last request ended.
    pub(super) end: Duration,
    /// The error of the predicted times to the first token at the end, if somebody predicts.
    pub(super) prediction_error: Option<f64>,
    /// The number of refused requests for each reason.
    pub(super) refusals: std::collections::BTreeMap<&'static str, usize>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_is_within_two_percent() {
        let mut histogram = Histogram::default();
        for ms in 1..=1000 {
            histogram.add(Duration::from_millis(ms));
        }
        for (share, expected) in [(0.5, 0.5), (0.9, 0.9), (0.99, 0.99)] {
            let found = histogram.quantile(share);
            assert!((found / expected - 1.0).abs() < 0.02, "{share}: {found}");
        }
        assert!((histogram.mean() - 0.5005).abs() < 1e-9);
        assert!(Histogram::default().quantile(0.5) <= 1e-5);
    }
}
