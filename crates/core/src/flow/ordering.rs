//! The order of the requests of one flow.

use std::time::Duration;

use super::settings::Ordering;

/// Nanoseconds since the gate was made.
pub(super) type Nanos = u64;

/// The deadline of requests without a deadline, which sorts last.
pub(super) const NEVER: Nanos = Nanos::MAX;

/// The place of a request among those of its flow. The smallest rank goes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rank {
    deadline: Nanos,
    since: Nanos,
    /// The number of the request in the order of arrival, so that no two ranks are equal.
    sequence: u64,
}

/// The figures of a request that the orderings compare.
#[derive(Clone, Copy, Debug)]
pub(super) struct Due {
    /// The time at which the request headers came.
    pub(super) received: Nanos,
    /// The time at which the request was submitted.
    pub(super) enqueued: Nanos,
    /// The longest wait of the request.
    pub(super) ttl: Option<Duration>,
    /// The objective for the time to the first token.
    pub(super) slo_ttft: Option<Duration>,
}

/// The rank of a request. `None` if requests are served in the order of arrival.
pub(super) fn rank(ordering: Ordering, due: Due, sequence: u64) -> Option<Rank> {
    let after = |start: Nanos, wait: Option<Duration>| wait.map_or(NEVER, |wait| later(start, wait));
    match ordering {
        Ordering::Fcfs => None,
        Ordering::Edf => Some(Rank { deadline: after(due.enqueued, due.ttl), since: due.enqueued, sequence }),
        Ordering::SloDeadline => {
            Some(Rank { deadline: after(due.received, due.slo_ttft), since: due.received, sequence })
        }
    }
}

/// The time `wait` after `start`, at most [`NEVER`].
pub(super) fn later(start: Nanos, wait: Duration) -> Nanos {
    start.saturating_add(Nanos::try_from(wait.as_nanos()).unwrap_or(NEVER))
}

/// Reads the objective for the time to the first token from its header. The value is a whole number of milliseconds in
/// base 10; space around it is allowed. `None` if the header is missing, is not a number, is negative, or does not fit
/// into 63 bits as nanoseconds.
pub fn slo_ttft(header: Option<&str>) -> Option<Duration> {
    let millis: i64 = header?.trim().parse().ok()?;
    let largest = i64::MAX / 1_000_000;
    (0..=largest).contains(&millis).then(|| Duration::from_millis(millis.unsigned_abs()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Nanos = 1_000_000_000;

    fn due(received: Nanos, enqueued: Nanos) -> Due {
        Due { received, enqueued, ttl: None, slo_ttft: None }
    }

    #[test]
    fn requests_without_a_deadline_come_last_in_order_of_their_start() {
        let soon = Due { ttl: Some(Duration::from_secs(5)), ..due(0, 9 * SECOND) };
        let ranked = |due, sequence| rank(Ordering::Edf, due, sequence);
        assert!(ranked(soon, 3) < ranked(due(0, 0), 1));
        assert!(ranked(due(5, 0), 2) < ranked(due(0, 1), 1));
        assert_eq!(ranked(due(0, 0), 1).map(|rank| rank.deadline), Some(NEVER));
    }

    #[test]
    fn slo_deadlines_count_from_receipt() {
        let early = Due { slo_ttft: Some(Duration::from_secs(1)), ..due(0, 5) };
        let late = Due { slo_ttft: Some(Duration::from_millis(500)), ..due(SECOND, SECOND) };
        assert!(rank(Ordering::SloDeadline, early, 2) < rank(Ordering::SloDeadline, late, 1));
    }

    #[test]
    fn an_slo_header_is_a_whole_number_of_milliseconds_in_range() {
        let check = |text, expected: Option<u64>| {
            assert_eq!(slo_ttft(text), expected.map(Duration::from_millis), "{text:?}");
        };
        check(None, None);
        check(Some(" 250 "), Some(250));
        check(Some("+7"), Some(7));
        check(Some("0"), Some(0));
        check(Some("-1"), None);
        check(Some("1.5"), None);
        check(Some(""), None);
        check(Some("9223372036854"), Some(9_223_372_036_854));
        check(Some("9223372036855"), None);
        check(Some("99999999999999999999"), None);
    }
}
