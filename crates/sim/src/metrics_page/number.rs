//! Writes numbers as `prometheus_client` does: in Python's shortest form, whole numbers with `.0`, and with an exponent
//! from a million on.

use std::fmt::Write as _;

/// Appends `value` to `out`.
pub(super) fn push(out: &mut String, value: f64) {
    if value.fract() == 0.0 && value.is_sign_positive() && value < 1e6 {
        push_small_integer(out, value as u64);
        out.push_str(".0");
    } else if value.is_nan() {
        out.push_str("NaN");
    } else if value.is_infinite() {
        out.push_str(if value > 0.0 { "+Inf" } else { "-Inf" });
    } else {
        push_any(out, value);
    }
}

fn push_small_integer(out: &mut String, value: u64) {
    if value < 10 {
        out.push(char::from(b'0' + value as u8));
    } else {
        // Writing to a string cannot fail.
        let _ = write!(out, "{value}");
    }
}

fn push_any(out: &mut String, value: f64) {
    let magnitude = value.abs();
    let plain = magnitude == 0.0
        || (1e-4..1e6).contains(&magnitude)
        || (value < 0.0 && (1e-4..1e16).contains(&magnitude));
    // Writing to a string cannot fail.
    if plain {
        let _ = write!(out, "{value:?}");
        return;
    }
    let text = format!("{value:e}");
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let _ = if let Some(digits) = exponent.strip_prefix('-') {
        write!(out, "{mantissa}e-{digits:0>2}")
    } else if magnitude < 1e16 {
        // The client library writes this exponent itself, always with one zero in front.
        write!(out, "{mantissa}e+0{exponent}")
    } else {
        write!(out, "{mantissa}e+{exponent}")
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_look_as_python_prints_them() {
        for (value, expected) in [
            (0.0, "0.0"),
            (7.0, "7.0"),
            (14884.0, "14884.0"),
            (999_999.0, "999999.0"),
            (0.92, "0.92"),
            (0.044_968_128_204_345_7, "0.0449681282043457"),
            (7.849_399_935_366_819e-5, "7.849399935366819e-05"),
            (1.795_384_986_567_428_8e9, "1.7953849865674288e+09"),
            (4_614_582_272.0, "4.614582272e+09"),
            (1_500_000.5, "1.5000005e+06"),
            (1e6, "1e+06"),
            (2.5e10, "2.5e+010"),
            (1e16, "1e+16"),
            (-3.0, "-3.0"),
            (-2e6, "-2000000.0"),
            (-0.0, "-0.0"),
            (f64::NAN, "NaN"),
            (f64::INFINITY, "+Inf"),
        ] {
            let mut out = String::new();
            push(&mut out, value);
            assert_eq!(out, expected);
        }
    }
}
