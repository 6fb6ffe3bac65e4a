//! What the ring keeps when there is more than it holds.

use super::*;
use crate::decisions::names::PolicyNames;
use crate::decisions::{Draft, Ended, Known, Query, Verdict};
use crate::metrics::Metrics;

fn ring(bytes: u64) -> (Decisions, Metrics) {
    let metrics = Metrics::new();
    (Decisions::new(bytes, metrics.records()), metrics)
}

/// A request that was given up (0), refused (1) or routed (2).
fn record(sequence: u64, way: u8, at: Instant) -> Record {
    let known = Known { id: format!("r-{sequence}"), model: "m".into(), ..Known::default() };
    let draft = Draft::new(&Arc::new(PolicyNames(Vec::new())), sequence, sequence, at);
    let verdict = match way {
        0 => Verdict::Abandoned,
        1 => Verdict::Refused { reason: "saturated", status: 429, message: "full".into() },
        _ => return draft.routed(known, smallvec::SmallVec::new(), 0),
    };
    draft.finish(known, verdict)
}

fn took(millis: u64) -> Outcome {
    Outcome { ended: Ended("complete"), duration: Duration::from_millis(millis), ..Outcome::default() }
}

#[test]
fn the_ring_never_holds_more_bytes_than_it_may_and_says_how_much_it_holds() {
    let (ring, metrics) = ring(64 << 10);
    let now = Instant::now();
    for sequence in 0..5000 {
        ring.push(record(sequence, u8::try_from(sequence % 3).unwrap(), now));
        let lanes = ring.0.lanes.lock();
        assert!(lanes.used() <= 64 << 10, "{} bytes", lanes.used());
        for queue in [&lanes.sampled, &lanes.pending, &lanes.first] {
            assert_eq!(queue.bytes, queue.held.iter().map(|held| held.bytes).sum::<usize>());
        }
    }
    assert!(ring.count() > 50);
    let page = metrics.encode(crate::metrics::Format::negotiate(None));
    assert!(page.contains(&format!("pointsman_decision_records {}", ring.count())), "{page}");
}

#[test]
fn requests_that_come_too_fast_are_sampled_evenly() {
    let (ring, _metrics) = ring(256 << 10);
    for sequence in 0..20_000 {
        let ticket = ring.push(record(sequence, 2, Instant::now()));
        ticket.conclude(took(10));
    }
    let one_in = ring.one_in();
    assert!(one_in > 8, "one in {one_in}");
    let kept: Vec<u64> = {
        let lanes = ring.0.lanes.lock();
        lanes.sampled.held.iter().map(|held| held.record.sequence).collect()
    };
    assert!(
        kept.first().is_some_and(|first| *first < one_in),
        "the beginning is still there: {:?}",
        kept.first()
    );
    assert!(kept.windows(2).all(|pair| pair[1] - pair[0] == one_in), "each gap is as wide as the next");
}

#[test]
fn refused_and_slow_requests_stay_when_others_go() {
    let (ring, _metrics) = ring(256 << 10);
    for sequence in 0..20_000 {
        let way = if sequence % 1000 == 500 { 1 } else { 2 };
        let ticket = ring.push(record(sequence, way, Instant::now()));
        if way == 2 {
            ticket.conclude(took(if sequence % 1000 == 777 { 5000 } else { 10 }));
        }
    }
    let ids = |parameter: (&str, &str)| {
        let parameters =
            [(parameter.0.to_owned(), parameter.1.to_owned()), ("limit".to_owned(), "1000".to_owned())];
        let query = Query::read(&parameters, std::time::SystemTime::now()).unwrap();
        ring.list(&query).decisions
    };
    let refused = ids(("outcome", "refused"));
    assert!(refused.len() >= 15, "{} of 20 refused ones are left", refused.len());
    assert_eq!(ids(("outcome", "429")).len(), refused.len());
    let slowest = ids(("sort", "slowest"));
    let slow = slowest.iter().filter(|row| row.outcome.duration_ms == Some(5000.0)).count();
    assert!(slow >= 10, "{slow} of 20 slow ones are left");
    assert_eq!(slowest[0].outcome.duration_ms, Some(5000.0), "they come first");
}

#[test]
fn the_newest_record_of_an_id_is_found_and_an_outcome_reaches_it() {
    let (ring, _metrics) = ring(64 << 10);
    let now = Instant::now();
    ring.push(record(1, 2, now));
    let mut again = record(7, 2, now);
    again.known.id = "r-1".into();
    let ticket = ring.push(again);
    assert_eq!(ring.find("r-1").unwrap().outcome.state, "running");
    ticket.conclude(took(12));
    let found = ring.find("r-1").unwrap();
    assert_eq!((found.sequence, found.outcome.state.as_str()), (7, "complete"));
    assert_eq!(found.outcome.duration_ms, Some(12.0));
    assert_eq!(ring.numbered(1).unwrap().id, "r-1");
    assert!(ring.find("r-2").is_none());
}
