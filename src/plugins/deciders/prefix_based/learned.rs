//! The number of uncached tokens from which prefill on a server of its own is faster, learned from times to the first
//! token.
//!
//! For requests served by one server, and for those whose prompt a prefill server processed, the time to the first
//! token is taken to be a line over the uncached tokens: `base + tokens · slope`. The base of the second line holds the
//! transfer's fixed part and the further call, its slope the prefill server's speed and the transfer of each token.
//! Both lines are fitted by least squares in which each sample counts 0.99 times as much as the next one. The threshold
//! is where they cross.

/// How much an older sample counts beside the next one: about the last hundred matter.
const DECAY: f64 = 0.99;
/// Samples of each kind before a line is believed.
const ENOUGH: f64 = 16.0;
/// The threshold before both lines are known.
pub(super) const FIRST_GUESS: u64 = 512;
/// Least and largest threshold, in tokens.
const RANGE: (u64, u64) = (64, 65_536);
/// One request in so many goes the other way, to learn what that takes: before the lines are known, and after.
const TRIALS: (u64, u64) = (8, 32);
/// Only requests within this factor of the threshold go the other way.
const NEAR: u64 = 4;
/// Seconds from which a sample says more about a queue than about a prompt.
const LONGEST: f64 = 60.0;

/// A line through samples, of which older ones fade.
#[derive(Clone, Copy, Debug, Default)]
struct Line {
    weight: f64,
    tokens: f64,
    seconds: f64,
    tokens_squared: f64,
    product: f64,
}

impl Line {
    fn note(&mut self, tokens: f64, seconds: f64) {
        for (sum, sample) in [
            (&mut self.weight, 1.0),
            (&mut self.tokens, tokens),
            (&mut self.seconds, seconds),
            (&mut self.tokens_squared, tokens * tokens),
            (&mut self.product, tokens * seconds),
        ] {
            *sum = *sum * DECAY + sample;
        }
    }

    /// Base in seconds and slope in seconds a token, which is not negative. Nothing while too little is known, or all
    /// samples have about the same number of tokens.
    fn fit(&self) -> Option<(f64, f64)> {
        if self.weight < ENOUGH {
            return None;
        }
        let mean = self.tokens / self.weight;
        let variance = self.tokens_squared / self.weight - mean * mean;
        if variance.max(0.0).sqrt() < 0.1 * mean.max(1.0) {
            return None;
        }
        let covariance = self.product / self.weight - mean * self.seconds / self.weight;
        let slope = (covariance / variance).max(0.0);
        Some((self.seconds / self.weight - slope * mean, slope))
    }
}

/// What was measured, and the threshold that follows from it.
#[derive(Debug)]
pub(super) struct Learned {
    local: Line,
    split: Line,
    threshold: u64,
    known: bool,
}

impl Default for Learned {
    fn default() -> Self {
        Self { local: Line::default(), split: Line::default(), threshold: FIRST_GUESS, known: false }
    }
}

impl Learned {
    /// Takes one request into account: its uncached tokens, the seconds to its first token, and whether a prefill server
    /// processed its prompt.
    pub(super) fn note(&mut self, tokens: u64, seconds: f64, split: bool) {
        if !(0.0..=LONGEST).contains(&seconds) {
            return;
        }
        let line = if split { &mut self.split } else { &mut self.local };
        line.note(tokens as f64, seconds);
        if let (Some(local), Some(split)) = (self.local.fit(), self.split.fit()) {
            (self.threshold, self.known) = (crossing(local, split), true);
        }
    }

    /// Tokens from which a prompt is prefilled apart.
    pub(super) fn threshold(&self) -> u64 {
        self.threshold
    }

    /// True if both lines are known.
    pub(super) fn is_known(&self) -> bool {
        self.known
    }
}

/// The tokens at which the second line falls below the first.
fn crossing((base, slope): (f64, f64), (split_base, split_slope): (f64, f64)) -> u64 {
    let (least, most) = RANGE;
    if slope <= split_slope {
        return if split_base < base { least } else { most };
    }
    // A float beyond the range of the integer saturates.
    (((split_base - base) / (slope - split_slope)).ceil() as u64).clamp(least, most)
}

/// Whether a prompt with so many uncached tokens is prefilled apart. `number` counts requests: some go the other way.
pub(super) fn decide(tokens: u64, threshold: u64, known: bool, number: u64) -> bool {
    let every = if known { TRIALS.1 } else { TRIALS.0 };
    let near = tokens.saturating_mul(NEAR) >= threshold && tokens <= threshold.saturating_mul(NEAR);
    (tokens >= threshold) != (near && number % every == every - 1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Seconds to the first token: one server alone takes 50 µs a token, split serving 100 ms and 10 µs a token.
    fn measured(tokens: u64, split: bool) -> f64 {
        if split { 0.1 + 1e-5 * tokens as f64 } else { 0.01 + 5e-5 * tokens as f64 }
    }

    #[test]
    fn the_threshold_is_where_the_lines_cross() {
        let mut learned = Learned::default();
        for round in 0..40 {
            let tokens = 500 + 300 * (round % 10);
            for split in [false, true] {
                learned.note(tokens, measured(tokens, split), split);
            }
        }
        // 0.09 s at 40 µs a token.
        assert!(learned.is_known());
        assert!((2249..=2251).contains(&learned.threshold()), "{}", learned.threshold());
    }

    #[test]
    fn it_follows_a_network_that_becomes_slow() {
        let mut learned = Learned::default();
        for (round, slower) in (0..1200).map(|round| (round, if round < 400 { 0.0 } else { 0.08 })) {
            let tokens = 500 + 300 * (round % 10);
            learned.note(tokens, measured(tokens, false), false);
            learned.note(tokens, measured(tokens, true) + slower, true);
        }
        assert!((4200..=4260).contains(&learned.threshold()), "{}", learned.threshold());
    }

    #[test]
    fn what_never_pays_and_what_always_pays_end_at_the_bounds() {
        assert_eq!(crossing((0.0, 1e-5), (0.1, 2e-5)), RANGE.1);
        assert_eq!(crossing((0.2, 1e-5), (0.1, 1e-5)), RANGE.0);
        assert_eq!(crossing((0.2, 2e-5), (0.1, 1e-5)), RANGE.0);
        assert_eq!(crossing((0.0, 1.1e-9), (10.0, 1e-9)), RANGE.1);
    }

    #[test]
    fn samples_of_one_size_and_too_few_teach_nothing() {
        let mut learned = Learned::default();
        for _ in 0..100 {
            learned.note(1000, 0.05, false);
            learned.note(1000, 0.09, true);
        }
        assert_eq!((learned.threshold(), learned.is_known()), (FIRST_GUESS, false));
    }

    #[test]
    fn some_prompts_near_the_threshold_go_the_other_way_and_no_others() {
        let split =
            |tokens: u64, known: bool| (0..320).filter(|number| decide(tokens, 512, known, *number)).count();
        assert_eq!((split(511, true), split(512, true)), (10, 310));
        assert_eq!((split(511, false), split(512, false)), (40, 280));
        assert_eq!((split(100, true), split(5000, true)), (0, 320));
    }

    proptest! {
        #[test]
        fn any_samples_leave_the_threshold_in_its_range(
            samples in prop::collection::vec((any::<u64>(), any::<f64>(), any::<bool>()), 0..200),
        ) {
            let mut learned = Learned::default();
            for (tokens, seconds, split) in samples {
                learned.note(tokens, seconds, split);
                prop_assert!((RANGE.0..=RANGE.1).contains(&learned.threshold()));
            }
        }
    }
}
