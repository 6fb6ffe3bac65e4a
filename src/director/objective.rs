//! Priority and fairness id of a request.

use crate::pool::Pool;
use crate::request::{Headers, cut};

use super::names::{FAIRNESS_ID, OBJECTIVE};

/// Fairness id of requests that name none.
pub const DEFAULT_FAIRNESS_ID: &str = "default-flow";

/// Priority of the objective that the request names: 0 for none and for unknown ones.
pub(super) fn priority(pool: &Pool, headers: &Headers) -> i32 {
    OBJECTIVE.value(headers).map_or(0, |name| pool.objectives().priority(&name))
}

/// Longest fairness id that is kept, in bytes.
pub(super) const MAX_FAIRNESS_ID: usize = 256;

/// Fairness id of the request, never empty. Of an id longer than [`MAX_FAIRNESS_ID`] the beginning counts.
pub(super) fn fairness_id(headers: &Headers) -> String {
    match FAIRNESS_ID.value(headers) {
        Some(id) if !id.is_empty() => cut(&id, MAX_FAIRNESS_ID).to_owned(),
        _ => DEFAULT_FAIRNESS_ID.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_current_header_hides_the_older_name() {
        let older = [("x-gateway-inference-fairness-id", "b")];
        assert_eq!(fairness_id(&Headers::from(older)), "b");
        let both = [("x-llm-d-inference-fairness-id", ""), older[0]];
        assert_eq!(fairness_id(&Headers::from(both)), DEFAULT_FAIRNESS_ID);
    }

    #[test]
    fn of_a_long_fairness_id_the_beginning_counts() {
        let long = "t".repeat(50_000);
        let id = fairness_id(&Headers::from([("x-llm-d-inference-fairness-id", long.as_str())]));
        assert_eq!(id, "t".repeat(MAX_FAIRNESS_ID));
    }

    #[test]
    fn a_fairness_id_of_any_bytes_is_an_id() {
        let mut headers = Headers::new();
        headers.push("x-llm-d-inference-fairness-id".into(), vec![0xff, 0xfe].into());
        assert_eq!(fairness_id(&headers), "\u{fffd}\u{fffd}");
    }
}
