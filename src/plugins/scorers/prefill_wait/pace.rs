//! How fast the endpoints of a pool compute prompts, as measured.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use parking_lot::Mutex;

/// Tokens from which a sample tells of the time for each token. Below, it tells of the fixed time.
const LONG: f64 = 512.0;
/// Tokens by which the given throughput counts as measured.
const GIVEN: f64 = 16_384.0;
/// Share of the past that a new sample leaves.
const KEEP: f64 = 1.0 - 1.0 / 64.0;
/// Most by which one sample may differ from what was measured before.
const FARTHEST: f64 = 4.0;
/// Fixed time at the start, in milliseconds.
const FIXED: f64 = 20.0;

/// A first token that came.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sample {
    /// Tokens that had to be computed before it.
    pub(super) tokens: f64,
    /// Milliseconds from sending the request on.
    pub(super) elapsed: f64,
}

/// The measurement: a fixed time, and a time for each token. Floats are stored as their bits.
#[derive(Debug)]
pub(super) struct Pace {
    per_token: AtomicU64,
    fixed: AtomicU64,
    /// Milliseconds and tokens of the samples, which fade.
    sums: Mutex<(f64, f64)>,
}

impl Pace {
    /// Nothing is measured yet; `throughput` tokens a second are assumed.
    pub(super) fn new(throughput: f64) -> Self {
        let per_token = 1e3 / throughput;
        Self {
            per_token: AtomicU64::new(per_token.to_bits()),
            fixed: AtomicU64::new(FIXED.to_bits()),
            sums: Mutex::new((GIVEN * per_token, GIVEN)),
        }
    }

    /// Milliseconds for each token.
    pub(super) fn per_token(&self) -> f64 {
        f64::from_bits(self.per_token.load(Relaxed))
    }

    /// Milliseconds that the first token takes beside.
    pub(super) fn fixed(&self) -> f64 {
        f64::from_bits(self.fixed.load(Relaxed))
    }

    /// Milliseconds until so many tokens are computed and a token has come.
    pub(super) fn expected(&self, tokens: f64) -> f64 {
        self.fixed() + tokens * self.per_token()
    }

    /// Learns.
    pub(super) fn learn(&self, sample: Sample) {
        let Sample { tokens, elapsed } = sample;
        if !elapsed.is_finite() || !tokens.is_finite() || elapsed <= 0.0 {
            return;
        }
        let mut sums = self.sums.lock();
        let (per_token, fixed) = (self.per_token(), self.fixed());
        if tokens >= LONG {
            let rest = (elapsed - fixed).max(0.0) / tokens;
            let rest = rest.clamp(per_token / FARTHEST, per_token * FARTHEST);
            *sums = (sums.0 * KEEP + rest * tokens, sums.1 * KEEP + tokens);
            self.per_token.store((sums.0 / sums.1).max(1e-6).to_bits(), Relaxed);
        } else {
            let rest = (elapsed - tokens * per_token).clamp(fixed / FARTHEST, fixed * FARTHEST);
            let fixed = fixed + (rest - fixed) * (1.0 - KEEP) * 2.0;
            self.fixed.store(fixed.clamp(1.0, 60_000.0).to_bits(), Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_throughput_is_measured_whatever_was_given() {
        for given in [1000.0, 4000.0, 40_000.0] {
            let pace = Pace::new(given);
            for round in 0..600 {
                let tokens = f64::from(round % 7) * 900.0 + 20.0;
                pace.learn(Sample { tokens, elapsed: 15.0 + tokens / 4.0 });
            }
            let (throughput, fixed) = (1e3 / pace.per_token(), pace.fixed());
            assert!((throughput - 4000.0).abs() < 400.0, "{given}: {throughput}");
            assert!((fixed - 15.0).abs() < 5.0, "{given}: {fixed}");
        }
    }

    #[test]
    fn one_stuck_request_changes_little_and_nonsense_nothing() {
        let pace = Pace::new(1000.0);
        pace.learn(Sample { tokens: 600.0, elapsed: 3_600_000.0 });
        assert!(pace.per_token() < 1.2, "{}", pace.per_token());
        let before = (pace.per_token(), pace.fixed());
        for (tokens, elapsed) in [(f64::NAN, 1.0), (1.0, f64::INFINITY), (1.0, -1.0)] {
            pace.learn(Sample { tokens, elapsed });
        }
        assert_eq!((pace.per_token(), pace.fixed()), before);
    }
}
