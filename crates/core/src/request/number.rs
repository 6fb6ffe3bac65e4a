//! JSON numbers as counts.

/// A JSON number as a count: whole and not negative, in any notation (`16`, `16.0`, `1.6e1`). Counts beyond 64 bits
/// saturate.
pub(super) fn whole_number(number: &[u8]) -> Option<u64> {
    let mut count = 0_u64;
    for byte in number {
        if !byte.is_ascii_digit() {
            return real_number(number)
                .filter(|real| *real >= 0.0 && real.fract() == 0.0)
                .map(|real| real as u64);
        }
        count = count.saturating_mul(10).saturating_add(u64::from(byte - b'0'));
    }
    Some(count)
}

/// A JSON number as a double; `None` if it is beyond a double's range.
pub(super) fn real_number(number: &[u8]) -> Option<f64> {
    std::str::from_utf8(number).ok()?.parse::<f64>().ok().filter(|real| real.is_finite())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_numbers_are_read_in_any_notation() {
        for (number, expected) in [
            ("0", Some(0)),
            ("-0", Some(0)),
            ("16", Some(16)),
            ("16.0", Some(16)),
            ("1.6e1", Some(16)),
            ("16.5", None),
            ("-1", None),
            ("1e400", None),
            ("18446744073709551616", Some(u64::MAX)),
            ("1e30", Some(u64::MAX)),
        ] {
            assert_eq!(whole_number(number.as_bytes()), expected, "{number}");
        }
    }
}
