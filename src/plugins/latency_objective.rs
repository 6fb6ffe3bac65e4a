//! The latencies that a client asks for in its headers.

use crate::latency::Objective;
use crate::request::Headers;

/// The header of each latency, and its former name.
const FIRST: [&str; 2] = ["x-llm-d-slo-ttft-ms", "x-slo-ttft-ms"];
const BETWEEN: [&str; 2] = ["x-llm-d-slo-tpot-ms", "x-slo-tpot-ms"];

/// The objective of a request. A header that is no number above 0 counts as absent, so that its former name is asked.
pub(super) fn objective(headers: &Headers) -> Objective {
    Objective { first: milliseconds(headers, FIRST), between: milliseconds(headers, BETWEEN) }
}

fn milliseconds(headers: &Headers, names: [&str; 2]) -> f64 {
    let read = |name: &str| -> Option<f64> {
        let text = std::str::from_utf8(headers.get(name)?).ok()?;
        text.trim().parse::<f64>().ok().filter(|value| value.is_finite() && *value > 0.0)
    };
    names.into_iter().find_map(read).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn objectives_are_read_under_both_names_and_nonsense_counts_as_absent() {
        for (headers, first, between) in [
            (vec![], 0.0, 0.0),
            (vec![("x-llm-d-slo-ttft-ms", "200"), ("x-slo-tpot-ms", "30.5")], 200.0, 30.5),
            (vec![("x-llm-d-slo-ttft-ms", ""), ("x-slo-ttft-ms", " 100 ")], 100.0, 0.0),
            (vec![("x-slo-ttft-ms", "-5"), ("x-slo-tpot-ms", "NaN")], 0.0, 0.0),
            (vec![("x-slo-ttft-ms", "1e400"), ("x-slo-tpot-ms", "fast")], 0.0, 0.0),
        ] {
            let mut all = Headers::new();
            for (name, value) in &headers {
                all.push(Bytes::from_static(name.as_bytes()), Bytes::from_static(value.as_bytes()));
            }
            assert_eq!(objective(&all), Objective { first, between }, "{headers:?}");
        }
    }
}
