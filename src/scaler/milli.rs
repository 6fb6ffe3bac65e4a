//! Numbers as KEDA holds them: thousandths in 64 bits, cut off behind the third decimal.

/// Smallest number above 0 that KEDA can hold.
pub(super) const LEAST: f64 = 0.001;
/// Largest number, in the metric's unit: what an integer in a double holds exactly. Its thousandths fit 64 bits.
pub(super) const MOST: f64 = 9_007_199_254_740_992.0;

/// What differs from a whole number of thousandths by less, of them or in proportion, was meant as one.
const NOISE: f64 = 1e-6;
/// The same in proportion: a decimal is read, multiplied and divided with an error of a unit each.
const PROPORTION: f64 = 4.0 * f64::EPSILON;

/// The least number of thousandths that is not below `number`, in a form from which KEDA, which multiplies and cuts
/// off, gets just that.
///
/// `number` is from 0 to [`MOST`].
pub(super) fn round_up(number: f64) -> f64 {
    let thousandths = number * 1000.0;
    // Beyond this there are no decimals left to lose.
    if thousandths >= MOST {
        return number;
    }
    let whole = (thousandths - NOISE - thousandths * PROPORTION).ceil().max(0.0);
    let rounded = whole / 1000.0;
    if (rounded * 1000.0).trunc() < whole { rounded.next_up() } else { rounded }
}

/// A measured value within what KEDA can hold: one above 0 does not become 0.
pub(super) fn held(value: f64) -> f64 {
    if value > 0.0 { value.clamp(LEAST, MOST) } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// KEDA's rendering of a number.
    fn kept(number: f64) -> i64 {
        (number * 1000.0) as i64
    }

    #[test]
    fn what_keda_keeps_of_a_number_is_that_number_rounded_up() {
        for (number, thousandths) in [
            (0.001, 1),
            (0.0011, 2),
            (0.8, 800),
            // Times a thousand, these are a little less than whole.
            (1.001, 1001),
            (4.35, 4350),
            (0.57, 570),
            (250.0, 250_000),
            (0.3333, 334),
            (MOST, 9_007_199_254_740_992_000),
        ] {
            assert_eq!(kept(round_up(number)), thousandths, "{number}");
        }
    }

    #[test]
    fn a_value_above_nothing_stays_above_nothing_and_none_overflows() {
        assert_eq!(kept(held(0.0)), 0);
        assert_eq!(kept(held(0.000_04)), 1);
        assert_eq!(kept(held(1e300)), 9_007_199_254_740_992_000);
        assert_eq!(kept(held(-1.0)), 0);
    }

    proptest! {
        #[test]
        fn every_thousandth_survives(thousandths in 1i64..1_000_000_000_000) {
            prop_assert_eq!(kept(round_up(thousandths as f64 / 1000.0)), thousandths);
        }

        #[test]
        fn no_number_is_rounded_down_or_by_more_than_a_thousandth(number in LEAST..1e9) {
            let rounded = round_up(number);
            let noise = NOISE / 1000.0 + number * (PROPORTION + f64::EPSILON);
            prop_assert!(rounded >= number - noise && rounded < number + 0.001 + noise, "{rounded}");
        }
    }
}
