//! Which requests count as slow: those beyond a running estimate of the 99th percentile.

use std::time::Duration;

/// An estimate that each measured time moves by a step: up if the time is above it, down by a 99th of that if it is
/// not. It settles where one time of a hundred is above it (stochastic approximation of a quantile, Robbins and Monro
/// 1951).
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct SlowBar {
    seconds: f64,
}

/// Share by which a time above the estimate raises it.
const STEP: f64 = 0.05;
/// How much more than the estimate is slow: where all take as long as each other, none is.
const CLEAR: f64 = 1.1;
/// The share of times that shall lie above it.
const ABOVE: f64 = 0.01;

impl SlowBar {
    /// A request took this long.
    pub(super) fn note(&mut self, took: Duration) {
        let took = took.as_secs_f64();
        if self.seconds <= 0.0 {
            self.seconds = took;
        } else if took > self.seconds {
            self.seconds *= 1.0 + STEP * (1.0 - ABOVE);
        } else {
            self.seconds *= 1.0 - STEP * ABOVE;
        }
    }

    /// True if a request that took this long counts as slow.
    pub(super) fn is_slow(self, took: Duration) -> bool {
        self.seconds > 0.0 && took.as_secs_f64() > self.seconds * CLEAR
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn at_most_about_one_request_of_a_hundred_counts_as_slow() {
        let mut rng = fastrand::Rng::with_seed(1);
        let mut bar = SlowBar::default();
        let mut slow = 0;
        for index in 0..60_000 {
            let took = Duration::from_secs_f64(rng.f64() * 10.0);
            slow += u32::from(index >= 20_000 && bar.is_slow(took));
            bar.note(took);
        }
        assert!(slow < 800, "{slow} of 40,000");
        assert!(bar.is_slow(Duration::from_secs(12)));
        let mut steady = SlowBar::default();
        (0..500).for_each(|_| steady.note(Duration::from_millis(10)));
        assert!(!steady.is_slow(Duration::from_millis(10)) && steady.is_slow(Duration::from_millis(20)));
    }
}
