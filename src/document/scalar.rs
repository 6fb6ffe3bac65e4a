//! Scalars with a syntax of their own: Go durations and Kubernetes quantities.

use std::time::Duration;

/// Reads a Go duration: `1h2m3.5s`, `100ms`, `-1s`, `0`. Nanoseconds; the sign is kept for the caller to judge.
pub fn go_duration_ns(text: &str) -> Result<i64, String> {
    let fault =
        || format!("got \"{}\", expected a duration such as \"2s\", \"100ms\" or \"1h30m\"", shorten(text));
    let (negative, mut rest) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    if rest == "0" {
        return Ok(0);
    }
    if rest.is_empty() {
        return Err(fault());
    }
    let mut total: i128 = 0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(fault)?;
        let (number, after) = rest.split_at(digits);
        let end = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (unit, after) = after.split_at(end);
        let scale: i128 = match unit {
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return Err(fault()),
        };
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if whole.is_empty() && fraction.is_empty() || fraction.contains('.') || whole.len() > 19 {
            return Err(fault());
        }
        let whole: i128 = if whole.is_empty() { 0 } else { whole.parse().map_err(|_| fault())? };
        total += whole * scale + fraction_of(fraction, scale);
        if total > i128::from(i64::MAX) {
            return Err(fault());
        }
        rest = after;
    }
    Ok(if negative { -(total as i64) } else { total as i64 })
}

/// `0.digits` of `scale`, cut off below one. Digits beyond the 18th carry less than a nanosecond even of an hour.
fn fraction_of(digits: &str, scale: i128) -> i128 {
    let digits = &digits[..digits.len().min(18)];
    let value: i128 = digits.parse().unwrap_or(0);
    value * scale / 10i128.pow(digits.len() as u32)
}

/// The boolean that YAML 1.1 takes a word for: `yes`, `on`, `y` and their opposites, in lower case, upper case, or with
/// a capital.
pub fn yaml_bool(text: &str) -> Option<bool> {
    match text {
        "y" | "Y" | "yes" | "Yes" | "YES" | "on" | "On" | "ON" => Some(true),
        "n" | "N" | "no" | "No" | "NO" | "off" | "Off" | "OFF" => Some(false),
        _ => None,
    }
}

/// A Go duration that must not be negative.
pub fn go_duration(text: &str) -> Result<Duration, String> {
    let nanoseconds = go_duration_ns(text)?;
    let nanoseconds = u64::try_from(nanoseconds)
        .map_err(|_| format!("got \"{}\", expected a duration of at least 0", shorten(text)))?;
    Ok(Duration::from_nanos(nanoseconds))
}

/// Prints a duration the way Go does, as far as whole units of h, m, s, ms, µs and ns allow.
pub fn format_go_duration(duration: Duration) -> String {
    let total = duration.as_nanos();
    if total == 0 {
        return "0s".to_owned();
    }
    if total < 1_000_000_000 {
        let (scale, unit) = match total {
            0..1_000 => (1, "ns"),
            1_000..1_000_000 => (1_000, "µs"),
            _ => (1_000_000, "ms"),
        };
        return format!("{}{unit}", decimal(total, scale));
    }
    let (hours, rest) = (total / 3_600_000_000_000, total % 3_600_000_000_000);
    let (minutes, seconds) = (rest / 60_000_000_000, decimal(rest % 60_000_000_000, 1_000_000_000));
    match (hours, minutes) {
        (0, 0) => format!("{seconds}s"),
        (0, _) => format!("{minutes}m{seconds}s"),
        _ => format!("{hours}h{minutes}m{seconds}s"),
    }
}

fn decimal(value: u128, scale: u128) -> String {
    let width = scale.ilog10() as usize;
    if width == 0 {
        return value.to_string();
    }
    let text = format!("{}.{:0width$}", value / scale, value % scale);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// Reads a Kubernetes quantity (`1Gi`, `500M`, `1e3`, `1500m`) as a whole number, rounded up as Kubernetes does.
pub fn quantity(text: &str) -> Result<u64, String> {
    let shown = shorten(text);
    let fault = || format!("got \"{shown}\", expected a quantity such as \"5000\", \"500M\" or \"1Gi\"");
    if let Some(rest) = text.strip_prefix('-') {
        // A minus sign before something that is no quantity is no negative quantity.
        return match quantity(rest) {
            Ok(0) => Ok(0),
            Ok(_) => Err(format!("got \"{shown}\", expected a quantity of at least 0")),
            Err(_) => Err(fault()),
        };
    }
    let text = text.strip_prefix('+').unwrap_or(text);
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() || fraction.contains('.') || whole.len() + fraction.len() > 24
    {
        return Err(fault());
    }
    // value = digits × 10^exponent × 2^binary, digits without the point
    let digits: u128 = format!("{whole}{fraction}").parse().map_err(|_| fault())?;
    let (exponent, binary): (i32, u32) = match suffix {
        "" => (0, 0),
        "n" => (-9, 0),
        "u" => (-6, 0),
        "m" => (-3, 0),
        "k" => (3, 0),
        "M" => (6, 0),
        "G" => (9, 0),
        "T" => (12, 0),
        "P" => (15, 0),
        "E" => (18, 0),
        "Ki" => (0, 10),
        "Mi" => (0, 20),
        "Gi" => (0, 30),
        "Ti" => (0, 40),
        "Pi" => (0, 50),
        "Ei" => (0, 60),
        _ => {
            let power = suffix.strip_prefix(['e', 'E']).ok_or_else(fault)?;
            (power.parse().ok().filter(|power| (-30..=30).contains(power)).ok_or_else(fault)?, 0)
        }
    };
    let exponent = exponent - i32::try_from(fraction.len()).map_err(|_| fault())?;
    let too_big = || format!("got \"{shown}\", which is more than 64 bits hold");
    if digits == 0 {
        return Ok(0);
    }
    let value = digits.checked_mul(1 << binary).ok_or_else(too_big)?;
    let value = match u32::try_from(exponent) {
        Ok(up) => 10u128.checked_pow(up).and_then(|scale| value.checked_mul(scale)).ok_or_else(too_big)?,
        // Below 10^-38 anything that fits 128 bits rounds up to one.
        Err(_) => 10u128.checked_pow(exponent.unsigned_abs()).map_or(1, |scale| value.div_ceil(scale)),
    };
    i64::try_from(value).ok().and_then(|value| u64::try_from(value).ok()).ok_or_else(too_big)
}

fn shorten(text: &str) -> String {
    text.chars().take(60).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn go_durations_read_as_go_reads_them() {
        let cases = [
            ("0", 0),
            ("+0", 0),
            ("1ns", 1),
            ("1.5us", 1_500),
            ("100ms", 100_000_000),
            ("2s", 2_000_000_000),
            (".5s", 500_000_000),
            ("1.s", 1_000_000_000),
            ("1h2m3.5s", 3_723_500_000_000),
            ("-1s", -1_000_000_000),
        ];
        for (text, nanoseconds) in cases {
            assert_eq!(go_duration_ns(text), Ok(nanoseconds), "{text}");
        }
        for text in ["", "-", "1", "s", ".s", "1d", "1 s", "1s ", "1.2.3s", "99999999999h", "1e3s"] {
            assert!(go_duration_ns(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_duration_below_zero_is_refused_where_only_time_spans_make_sense() {
        assert_eq!(go_duration("1m").map(|duration| duration.as_secs()), Ok(60));
        assert!(go_duration("-1m").is_err_and(|message| message.contains("at least 0")));
    }

    #[test]
    fn quantities_read_as_kubernetes_reads_them() {
        let cases = [
            ("0", 0),
            ("5000", 5_000),
            ("1k", 1_000),
            ("1G", 1_000_000_000),
            ("1Gi", 1 << 30),
            ("1.5Gi", 3 << 29),
            ("1500m", 2),
            ("1e3", 1_000),
            ("2E", 2_000_000_000_000_000_000),
            ("1E2", 100),
            ("0.1", 1),
            ("-0", 0),
            ("1e-30", 1),
        ];
        for (text, value) in cases {
            assert_eq!(quantity(text), Ok(value), "{text}");
        }
        for text in ["", "Gi", "1g", "1KB", "1 G", "--1", "1e", "16E", "1e30", "1.1.1"] {
            assert!(quantity(text).is_err(), "{text}");
        }
        assert!(quantity("-5").is_err_and(|message| message.contains("at least 0")));
    }

    proptest! {
        #[test]
        fn a_printed_duration_reads_back(nanoseconds in 0u64..=i64::MAX as u64) {
            let duration = Duration::from_nanos(nanoseconds);
            prop_assert_eq!(go_duration(&format_go_duration(duration)), Ok(duration));
        }

        #[test]
        fn no_text_upsets_the_readers(text in "[-+0-9.a-zA-Zµ ]{0,30}") {
            let _ = go_duration(&text);
            let _ = quantity(&text);
        }
    }
}
