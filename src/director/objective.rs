//! Priority and fairness id of a request.

use std::borrow::Cow;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use xxhash_rust::xxh64::xxh64;

use crate::metrics::StateMetrics;
use crate::pool::Pool;
use crate::request::{Headers, cut};
use crate::scheduling::Entry;

use super::names::{FAIRNESS_ID, OBJECTIVE};

/// Fairness id of requests that name none.
pub use crate::flow::DEFAULT_FLOW;

/// Seconds between two warnings of objectives that do not exist.
const QUIET_SECONDS: u64 = 60;

/// Says that requests name objectives which do not exist: each counts, and one a minute is warned of.
#[derive(Debug)]
pub(super) struct UnknownObjectives {
    metrics: StateMetrics,
    epoch: Instant,
    /// Second from which the next warning may come.
    quiet_until: AtomicU64,
}

impl UnknownObjectives {
    pub(super) fn new(metrics: StateMetrics) -> Self {
        Self { metrics, epoch: Instant::now(), quiet_until: AtomicU64::new(0) }
    }

    fn note(&self, name: &str) {
        self.metrics.unknown_objective();
        let name = cut(name, MAX_FAIRNESS_ID);
        tracing::debug!(objective = name, "the objective of a request does not exist; its priority is 0");
        let (now, until) = (self.epoch.elapsed().as_secs(), self.quiet_until.load(Relaxed));
        let mine = |next| self.quiet_until.compare_exchange(until, next, Relaxed, Relaxed).is_ok();
        if now >= until && mine(now + QUIET_SECONDS) {
            tracing::warn!(
                objective = name,
                "requests name an objective that does not exist; their priority is 0 (told once a minute)"
            );
        }
    }
}

/// Priority of the objective that the request names: 0 for none and for unknown ones, which are noted.
pub(super) fn priority(pool: &Pool, headers: &Headers, unknown: &UnknownObjectives) -> i32 {
    let Some(name) = OBJECTIVE.value(headers).filter(|name| !name.is_empty()) else { return 0 };
    let priority = pool.objectives().find(&name);
    if priority.is_none() {
        unknown.note(&name);
        pool.unknown_objectives().note(cut(&name, MAX_FAIRNESS_ID));
    }
    priority.unwrap_or(0)
}

/// Longest fairness id that is kept, in bytes. Queues, accounts and series keep ids, so a longer one is cut and told
/// apart by a digest of the whole.
pub(super) const MAX_FAIRNESS_ID: usize = 256;

/// Fairness id of the request: never empty, at most [`MAX_FAIRNESS_ID`] bytes long. Plugins of `entry` may name one
/// where the client does not.
pub(super) fn fairness_id(headers: &Headers, entry: &Entry) -> String {
    let given = FAIRNESS_ID.value(headers).filter(|id| !id.is_empty());
    given.or_else(|| entry.flow(headers)).map_or_else(|| DEFAULT_FLOW.to_owned(), bounded)
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

    fn fairness_id(headers: &Headers) -> String {
        super::fairness_id(headers, &Entry::default())
    }

    #[test]
    fn a_request_that_names_an_objective_which_does_not_exist_is_counted_and_has_priority_0() {
        let metrics = crate::metrics::Metrics::new();
        let unknown = UnknownObjectives::new(metrics.state());
        let pool = Pool::new("default", "pool", Instant::now());
        pool.set_objectives([("urgent".to_owned(), 10)].into_iter().collect());
        let asked = |name| priority(&pool, &Headers::from([("x-llm-d-inference-objective", name)]), &unknown);
        assert_eq!((asked("urgent"), asked("urgnet"), asked("")), (10, 0, 0));
        assert_eq!(priority(&pool, &Headers::new(), &unknown), 0);
        assert_eq!(pool.unknown_objectives().names(), ["urgnet"]);
        let page = metrics.encode(crate::metrics::Format::Text);
        assert!(page.contains("pointsman_unknown_objectives_total 1\n"), "{page}");
    }

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
