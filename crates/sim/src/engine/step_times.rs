//! The time that a step of the batch takes.

use std::time::Duration;

use crate::profile::EngineProfile;

/// The rule for the time of a step.
#[derive(Debug, Clone, Copy)]
pub(crate) enum StepTimes {
    /// A step takes the time of a decode step, if a request decodes, plus a time for each prompt token.
    Linear {
        /// The time of each prompt token that the cache does not have.
        prefill_per_token: Duration,
        /// The time of a decode step.
        inter_token: Duration,
    },
    /// Measured times. A step takes the prefill time of all its prompt and answer tokens, but at least the time of a
    /// decode step of its batch.
    Measured(&'static EngineProfile),
}

impl StepTimes {
    /// The time of a step that gives `decoding` requests one token each and computes `prefill` prompt tokens.
    pub(crate) fn step(self, decoding: usize, prefill: usize) -> Duration {
        match self {
            Self::Linear { prefill_per_token, inter_token } => {
                let decode = if decoding == 0 { Duration::ZERO } else { inter_token };
                decode
                    .saturating_add(prefill_per_token.saturating_mul(prefill.try_into().unwrap_or(u32::MAX)))
            }
            Self::Measured(profile) => {
                let decode = if decoding == 0 { 0.0 } else { along(profile.decode, decoding as f64) };
                let compute =
                    if prefill == 0 { 0.0 } else { along(profile.prefill, (prefill + decoding) as f64) };
                Duration::from_secs_f64(decode.max(compute) / 1e3)
            }
        }
    }

    /// The time of `prefill` prompt tokens that are computed alone, in steps of at most `step_tokens`.
    pub(crate) fn prefill(self, prefill: usize, step_tokens: usize) -> Duration {
        let step_tokens = step_tokens.max(1);
        let steps = u32::try_from(prefill / step_tokens).unwrap_or(u32::MAX);
        self.step(0, step_tokens).saturating_mul(steps).saturating_add(self.step(0, prefill % step_tokens))
    }
}

/// The value at `x` on the line through `points`, whose x ascend. Below the first point it is the value of the first
/// point. Beyond the last point the last segment is continued.
fn along(points: &[(f64, f64)], x: f64) -> f64 {
    let after = points.partition_point(|(at, _)| *at < x);
    let pair = |end: usize| Some((points.get(end.checked_sub(1)?)?, points.get(end)?));
    match (after, pair(after.min(points.len().saturating_sub(1)))) {
        (0, _) | (_, None) => points.first().map_or(0.0, |(_, y)| *y),
        (_, Some(((x0, y0), (x1, y1)))) => y0 + (y1 - y0) * (x - x0) / (x1 - x0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_lie_on_the_line_and_beyond_its_ends() {
        let points = [(10.0, 1.0), (20.0, 3.0), (40.0, 4.0)];
        for (x, y) in [(0.0, 1.0), (10.0, 1.0), (15.0, 2.0), (20.0, 3.0), (30.0, 3.5), (60.0, 5.0)] {
            assert!((along(&points, x) - y).abs() < 1e-12, "{x}");
        }
        assert!(along(&[], 1.0).abs() < 1e-12);
    }

    #[test]
    fn a_measured_step_takes_at_least_as_long_as_its_decoding() {
        for profile in EngineProfile::ALL {
            let times = StepTimes::Measured(profile);
            for decoding in [1, 8, 64, 256] {
                assert!(times.step(decoding, 1) >= times.step(decoding, 0), "{}", profile.name);
                assert!(times.step(decoding, 4096) > times.step(decoding, 256), "{}", profile.name);
            }
            assert_eq!(times.step(0, 0), Duration::ZERO);
            let whole = times.prefill(3 * 8192, 8192);
            assert_eq!(whole, times.step(0, 8192) * 3);
        }
    }
}
