//! Records of a simulation.

use std::time::Duration;

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Fate {
    /// It was never sent, or had not ended when the simulation did.
    #[default]
    Unfinished,
    /// It was answered.
    Answered,
    /// The picker refused it.
    Refused,
    /// Its server was gone, or could never run it.
    Failed,
}

/// One request.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(super) struct Record {
    /// When it was sent.
    pub(super) sent: Duration,
    /// Its server.
    pub(super) server: Option<usize>,
    /// When its first token came.
    pub(super) first: Option<Duration>,
    /// When its last token came.
    pub(super) last: Option<Duration>,
    /// Tokens so far.
    pub(super) tokens: u32,
    /// Prompt tokens that the server's cache had.
    pub(super) cached: u32,
    /// Estimated time to first token at its server minus that at the best server, when the request was sent.
    pub(super) regret: Duration,
    /// How the request ended.
    pub(super) fate: Fate,
}

impl Record {
    /// Time to first token.
    pub(super) fn first_token(&self) -> Option<Duration> {
        self.first.map(|first| first.saturating_sub(self.sent))
    }

    /// Mean time between tokens; `None` for answers of one token.
    pub(super) fn between_tokens(&self) -> Option<Duration> {
        let gaps = self.tokens.checked_sub(1).filter(|gaps| *gaps > 0)?;
        Some(self.last?.saturating_sub(self.first?) / gaps)
    }
}

/// Times in buckets of 2 % each, from a microsecond on.
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

    /// Mean in seconds; 0 without any.
    pub(super) fn mean(&self) -> f64 {
        self.sum / self.count.max(1) as f64
    }

    /// The time in seconds below which this share lies, within 2 %; 0 without any.
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

/// The servers at one time.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Sample {
    /// The time.
    pub(super) at: Duration,
    /// Waiting and running requests by server; `None` while it is down.
    pub(super) load: Vec<Option<usize>>,
    /// Prompt tokens that were looked for and found in caches so far.
    pub(super) cache: (u64, u64),
}

/// All records of a run.
#[derive(Debug, Clone, Default)]
pub(super) struct Notes {
    /// By place in the workload.
    pub(super) records: Vec<Record>,
    /// Times between tokens, of all answers.
    pub(super) gaps: Histogram,
    /// One a second.
    pub(super) samples: Vec<Sample>,
    /// Time at which the last request ended.
    pub(super) end: Duration,
    /// Why requests were refused, with how many.
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
