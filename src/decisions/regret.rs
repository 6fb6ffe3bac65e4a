//! How much worse the choice of one configuration looks to another one.

use serde::Serialize;

/// Sum of such differences.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Regret {
    /// Sum over the decisions that differ, in units of totals.
    pub sum: f64,
    /// The largest.
    pub most: f64,
    /// Decisions whose choice it would not have allowed at all.
    pub ruled_out: u64,
}

impl Regret {
    /// One decision more that differs; `None` if the choice was ruled out.
    pub fn add(&mut self, regret: Option<f64>) {
        match regret {
            Some(regret) => {
                self.sum += regret;
                self.most = self.most.max(regret);
            }
            None => self.ruled_out += 1,
        }
    }
}

/// By how much the total of `instead` is below that of `chosen`, both places in the pool; `None` if one of them has no
/// total, because it did not survive the filters.
pub fn regret(total: impl Fn(u32) -> Option<f64>, chosen: u32, instead: u32) -> Option<f64> {
    Some(total(chosen)? - total(instead)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regret_is_the_difference_of_totals_and_there_is_none_of_what_was_ruled_out() {
        let totals = [Some(2.5), Some(1.0), None];
        let total = |place: u32| totals[place as usize];
        assert_eq!(regret(total, 0, 1), Some(1.5));
        assert_eq!(regret(total, 1, 0), Some(-1.5), "a picker may choose another one than the best");
        assert_eq!((regret(total, 0, 2), regret(total, 2, 0)), (None, None));
        let mut sum = Regret::default();
        for regret in [Some(1.5), None, Some(0.5)] {
            sum.add(regret);
        }
        assert_eq!(sum, Regret { sum: 2.0, most: 1.5, ruled_out: 1 });
    }
}
