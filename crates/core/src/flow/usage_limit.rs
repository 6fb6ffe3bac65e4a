//! How full the pool may be for each band. Each band has a ceiling. No request of a band is released while the
//! saturation is at or above the band's ceiling.

use super::settings::{HoldbackDomain, UsageLimit};

/// Computes the ceilings. The result depends only on the arguments, except for [`UsageLimit::SoftReflectiveCeiling`],
/// which also counts the calls.
#[derive(Clone, Debug)]
pub struct Ceilings {
    limit: UsageLimit,
    calls: u64,
}

impl Ceilings {
    /// A calculator of the ceilings that `limit` describes.
    pub fn new(limit: UsageLimit) -> Self {
        Self { limit, calls: 0 }
    }

    /// The cap on an endpoint's score in [`super::saturation::pool`]: the highest ceiling that is possible, and at
    /// least 1. A pool whose endpoints are all full is then above every ceiling.
    pub fn score_cap(&self) -> f64 {
        match self.limit {
            UsageLimit::Static { threshold } => threshold.max(1.0),
            UsageLimit::PriorityHoldback { .. } | UsageLimit::SoftReflectiveCeiling => 1.0,
        }
    }

    /// True if a later call with the same arguments may give higher ceilings. The caller should then check again soon,
    /// even if nothing happens.
    pub fn alternates(&self, saturation: f64) -> bool {
        self.limit == UsageLimit::SoftReflectiveCeiling && reflects(saturation)
    }

    /// Writes one ceiling for each of `priorities`, which must fall, into `ceilings`. Call this once for each dispatch.
    ///
    /// With `N` bands, which `i` counts from 0 at the highest priority:
    /// - static: the threshold;
    /// - holdback by rank: `max - i * (max - min) / (N - 1)`; by value: `min + (p - p_min) / (p_max - p_min) * (max -
    ///   min)`; `max` for a single band;
    /// - soft reflective: 1 for the first band. For the other bands, with `r = 1 - i * s / (N - 1)` at the saturation `s`:
    ///   1 while `s < r`; 0 from `s >= 1`; in between 1 at every `max(1, round(s / (1 - s)))`-th call, else 0.
    pub fn write(&mut self, saturation: f64, priorities: &[i32], ceilings: &mut Vec<f64>) {
        // The ceilings of the static policy do not change, so they are usually there already.
        if let UsageLimit::Static { threshold } = self.limit
            && ceilings.len() == priorities.len()
            && ceilings.iter().all(|ceiling| ceiling.to_bits() == threshold.to_bits())
        {
            return;
        }
        ceilings.clear();
        let last = priorities.len().saturating_sub(1) as f64;
        match self.limit {
            UsageLimit::Static { threshold } => ceilings.resize(priorities.len(), threshold),
            UsageLimit::PriorityHoldback { min_ceiling: min, max_ceiling: max, domain } => {
                let highest = priorities.first().map_or(0.0, |p| f64::from(*p));
                let span = highest - priorities.last().map_or(0.0, |p| f64::from(*p));
                ceilings.extend(priorities.iter().enumerate().map(|(rank, priority)| {
                    let below = match domain {
                        HoldbackDomain::Rank if last > 0.0 => rank as f64 / last,
                        HoldbackDomain::Value if span > 0.0 => (highest - f64::from(*priority)) / span,
                        _ => 0.0,
                    };
                    max - below * (max - min)
                }));
            }
            UsageLimit::SoftReflectiveCeiling => {
                let open = self.is_open_turn(saturation);
                ceilings.extend((0..priorities.len()).map(|rank| {
                    let reflection = 1.0 - rank as f64 * saturation / last.max(1.0);
                    if rank == 0 || saturation < reflection || (saturation < 1.0 && open) { 1.0 } else { 0.0 }
                }));
            }
        }
    }

    /// Counts a call. Returns true if this call releases limited bands.
    fn is_open_turn(&mut self, saturation: f64) -> bool {
        if !reflects(saturation) {
            return saturation < 1.0;
        }
        self.calls = self.calls.wrapping_add(1);
        // The summand 1e-9 bounds the quotient by 1e9 when the saturation is just below 1.
        let period = (saturation / (1.0 - saturation + 1e-9)).round().max(1.0) as u64;
        self.calls.is_multiple_of(period)
    }
}

/// True if the saturation is in the range in which limited bands are released at some calls and not at others.
fn reflects(saturation: f64) -> bool {
    (1.0 - saturation..1.0).contains(&saturation)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ceilings(limit: UsageLimit, saturation: f64, priorities: &[i32]) -> Vec<f64> {
        let mut out = Vec::new();
        Ceilings::new(limit).write(saturation, priorities, &mut out);
        out
    }

    fn holdback(domain: HoldbackDomain) -> UsageLimit {
        UsageLimit::PriorityHoldback { min_ceiling: 0.4, max_ceiling: 0.9, domain }
    }

    #[track_caller]
    fn check(got: &[f64], expected: &[f64]) {
        let close = got.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-9);
        assert!(close && got.len() == expected.len(), "got {got:?}, expected {expected:?}");
    }

    #[test]
    fn the_static_ceiling_is_the_same_for_all() {
        check(&ceilings(UsageLimit::default(), 0.3, &[5, 0, -5]), &[1.0; 3]);
        check(&ceilings(UsageLimit::Static { threshold: 1.5 }, 0.3, &[0]), &[1.5]);
        let cap = |threshold| Ceilings::new(UsageLimit::Static { threshold }).score_cap();
        check(&[cap(1.5), cap(0.5)], &[1.5, 1.0]);
    }

    #[test]
    fn holdback_falls_by_rank_or_by_value() {
        let bands = [100, 0, -10];
        check(&ceilings(holdback(HoldbackDomain::Rank), 0.5, &bands), &[0.9, 0.65, 0.4]);
        check(&ceilings(holdback(HoldbackDomain::Value), 0.5, &bands), &[0.9, 0.4 + 10.0 / 110.0 * 0.5, 0.4]);
        check(&ceilings(holdback(HoldbackDomain::Rank), 0.5, &[0]), &[0.9]);
        check(&ceilings(holdback(HoldbackDomain::Value), 0.5, &[0]), &[0.9]);
        check(&ceilings(holdback(HoldbackDomain::Rank), 0.5, &[]), &[]);
    }

    /// The number of 1000 calls at which the last of three bands is open.
    fn open_calls(saturation: f64) -> usize {
        let mut limit = Ceilings::new(UsageLimit::SoftReflectiveCeiling);
        let mut out = Vec::new();
        let open = (0..900).filter(|_| {
            limit.write(saturation, &[1, 0, -1], &mut out);
            assert!(out[0] > 0.5);
            out[2] > 0.5
        });
        open.count()
    }

    #[test]
    fn soft_ceilings_open_more_rarely_the_fuller_the_pool_is() {
        assert_eq!(open_calls(0.3), 900);
        assert_eq!(open_calls(0.6), 900);
        assert_eq!(open_calls(0.75), 300);
        assert_eq!(open_calls(0.9), 100);
        assert_eq!(open_calls(1.0), 0);
        assert_eq!(open_calls(1.7), 0);
    }

    #[test]
    fn the_middle_band_is_free_longer_than_the_last() {
        let mut limit = Ceilings::new(UsageLimit::SoftReflectiveCeiling);
        let mut out = Vec::new();
        limit.write(0.65, &[1, 0, -1], &mut out);
        check(&out, &[1.0, 1.0, 0.0]);
        assert!(limit.alternates(0.65) && !limit.alternates(0.2) && !limit.alternates(1.0));
        assert!(!Ceilings::new(UsageLimit::default()).alternates(0.65));
        check(&ceilings(UsageLimit::SoftReflectiveCeiling, 0.99, &[0]), &[1.0]);
    }

    proptest! {
        #[test]
        fn ceilings_never_rise_with_falling_priority(
            saturation in 0.0f64..3.0, mut bands in prop::collection::vec(any::<i32>(), 0..8), which in 0usize..4, calls in 1usize..9
        ) {
            bands.sort_unstable_by(|a, b| b.cmp(a));
            bands.dedup();
            let limit = [UsageLimit::default(), holdback(HoldbackDomain::Rank), holdback(HoldbackDomain::Value), UsageLimit::SoftReflectiveCeiling][which].clone();
            let mut ceilings = Ceilings::new(limit);
            let mut out = Vec::new();
            for _ in 0..calls {
                ceilings.write(saturation, &bands, &mut out);
                prop_assert_eq!(out.len(), bands.len());
                prop_assert!(out.windows(2).all(|pair| pair[0] >= pair[1]));
                prop_assert!(out.iter().all(|ceiling| ceiling.is_finite()));
            }
        }
    }
}
