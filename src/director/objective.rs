//! Priority and fairness id of a request.

use std::borrow::Cow;

use xxhash_rust::xxh64::xxh64;

use crate::pool::Pool;
use crate::request::{Headers, cut};

use super::names::{FAIRNESS_ID, OBJECTIVE};

/// Fairness id of requests that name none.
pub use crate::flow::DEFAULT_FLOW;

/// Priority of the objective that the request names: 0 for none and for unknown ones.
pub(super) fn priority(pool: &Pool, headers: &Headers) -> i32 {
    OBJECTIVE.value(headers).map_or(0, |name| pool.objectives().priority(&name))
}

/// Longest fairness id that is kept, in bytes. Queues, accounts and series keep ids, so a longer one is cut and told apart by a digest of the
/// whole.
pub(super) const MAX_FAIRNESS_ID: usize = 256;

/// Fairness id of the request: never empty, at most [`MAX_FAIRNESS_ID`] bytes long.
pub(super) fn fairness_id(headers: &Headers) -> String {
    match FAIRNESS_ID.value(headers) {
        Some(id) if !id.is_empty() => bounded(id),
        _ => DEFAULT_FLOW.to_owned(),
    }
}

fn bounded(id: Cow<'_, str>) -> String {
    if id.len() <= MAX_FAIRNESS_ID {
        return id.into_owned();
    }
    let digest = format!("~{:016x}", xxh64(id.as_bytes(), 0));
    cut(&id, MAX_FAIRNESS_ID - digest.len()).to_owned() + &digest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_current_header_hides_the_older_name() {
        let older = [("x-gateway-inference-fairness-id", "b")];
        assert_eq!(fairness_id(&Headers::from(older)), "b");
        let both = [("x-llm-d-inference-fairness-id", ""), older[0]];
        assert_eq!(fairness_id(&Headers::from(both)), DEFAULT_FLOW);
    }

    #[test]
    fn a_fairness_id_of_any_length_becomes_a_short_one_and_stays_apart_from_others() {
        let id = |end: &str| {
            let value = "\u{e9}".repeat(25_000) + end;
            fairness_id(&Headers::from([("x-llm-d-inference-fairness-id", &*value)]))
        };
        let (one, other) = (id("a"), id("b"));
        assert!(one != other && one == id("a"));
        assert!((200..=MAX_FAIRNESS_ID).contains(&one.len()), "{} bytes", one.len());
        let exact = "x".repeat(MAX_FAIRNESS_ID);
        assert_eq!(fairness_id(&Headers::from([("x-llm-d-inference-fairness-id", &*exact)])), exact);
    }

    #[test]
    fn a_fairness_id_of_any_bytes_is_an_id() {
        let mut headers = Headers::new();
        headers.push("x-llm-d-inference-fairness-id".into(), vec![0xff, 0xfe].into());
        assert_eq!(fairness_id(&headers), "\u{fffd}\u{fffd}");
    }
}
