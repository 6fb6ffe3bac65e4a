//! One row of figures for each endpoint, and the list of endpoints that they belong to.

use std::collections::{HashMap, VecDeque};
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::decisions::Decisions;
use crate::pool::{Age, Endpoint, ROLE_LABEL, Snapshot};

/// Seconds over which shares are counted.
const MINUTE: usize = 60;
/// Newest decisions in which hits are counted.
const RECENT: usize = 500;

/// What an endpoint got before: how many requests in all, second by second.
#[derive(Debug, Default)]
pub(super) struct Shares {
    seconds: HashMap<u64, VecDeque<u64>>,
}

impl Shares {
    /// Requests of each endpoint, in order, and of all, within the last minute; and of all within the last second.
    pub(super) fn count(&mut self, snapshot: &Snapshot) -> (Vec<u64>, u64, u64) {
        let mut now = HashMap::with_capacity(snapshot.len());
        let (mut counts, mut all, mut last) = (Vec::with_capacity(snapshot.len()), 0, 0);
        for endpoint in snapshot.endpoints() {
            let sent = endpoint.load().dispatched();
            let mut seconds = self.seconds.remove(&endpoint.incarnation()).unwrap_or_default();
            last += seconds.back().map_or(0, |before| sent.saturating_sub(*before));
            seconds.push_back(sent);
            if seconds.len() > MINUTE + 1 {
                seconds.pop_front();
            }
            let count = sent.saturating_sub(seconds.front().copied().unwrap_or(sent));
            counts.push(count);
            all += count;
            now.insert(endpoint.incarnation(), seconds);
        }
        self.seconds = now;
        (counts, all, last)
    }
}

/// Tokens of prompts, and how many of them were cached.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Hits {
    predicted: u64,
    of_predicted: u64,
    observed: u64,
    of_observed: u64,
}

impl Hits {
    /// Of the newest decisions, by the name of the endpoint.
    pub(super) fn recent(decisions: &Decisions) -> HashMap<String, Self> {
        let mut found: HashMap<String, Self> = HashMap::new();
        for summary in decisions.newest(RECENT) {
            let Some(endpoint) = summary.endpoint else { continue };
            let hits = found.entry(endpoint).or_default();
            if let Some(predicted) = summary.outcome.predicted_cached_tokens {
                hits.predicted += predicted.min(summary.prompt_tokens);
                hits.of_predicted += summary.prompt_tokens;
            }
            if let Some((usage, cached)) =
                summary.outcome.usage.as_ref().and_then(|usage| Some((usage, usage.cached_tokens?)))
            {
                hits.observed += cached.min(usage.prompt_tokens);
                hits.of_observed += usage.prompt_tokens;
            }
        }
        found
    }
}

/// What does not change from one second to the next.
pub(super) fn list(snapshot: &Snapshot) -> Value {
    let rows = snapshot.endpoints().iter().map(|endpoint| {
        let (id, spec) = (endpoint.id(), endpoint.spec());
        let role = endpoint.label(ROLE_LABEL).unwrap_or("both");
        json!([id.to_string(), endpoint.target(), role, &*spec.pod, spec.rank])
    });
    rows.collect()
}

/// State of an endpoint's figures.
pub(super) fn state(endpoint: &Endpoint, now: Instant, staleness: Option<Duration>) -> &'static str {
    let load = endpoint.load();
    match (load.age(now), staleness) {
        (_, None) => "unread",
        _ if !load.is_reachable() => "unreachable",
        (Age::Never, _) => "never",
        (Age::Since(age), Some(staleness)) if age > staleness => "stale",
        _ => "ready",
    }
}

/// Figures of each endpoint: state, age in ms, waiting, running, KV usage in per mille, in flight, requests of the last
/// minute, and hits in per cent, predicted and observed; -1 for what is not known.
pub(super) fn figures(
    snapshot: &Snapshot,
    counts: &[u64],
    hits: &HashMap<String, Hits>,
    now: Instant,
    staleness: Option<Duration>,
) -> String {
    let mut out = String::with_capacity(snapshot.len() * 48);
    out.push('[');
    for (place, endpoint) in snapshot.endpoints().iter().enumerate() {
        let load = endpoint.load();
        let age = match load.age(now) {
            Age::Never => -1,
            Age::Since(age) => i64::try_from(age.as_millis()).unwrap_or(i64::MAX),
        };
        let found = if hits.is_empty() { None } else { hits.get(&endpoint.id().to_string()) };
        let share = |part: u64, of: u64| if of == 0 { -1.0 } else { part as f64 * 100.0 / of as f64 };
        let (predicted, observed) = found.map_or((-1.0, -1.0), |hits| {
            (share(hits.predicted, hits.of_predicted), share(hits.observed, hits.of_observed))
        });
        // Writing to a string cannot fail.
        let _ = write!(
            out,
            "{}[\"{}\",{age},{},{},{:.0},{},{},{predicted:.0},{observed:.0}]",
            if place == 0 { "" } else { "," },
            state(endpoint, now, staleness),
            load.waiting(),
            load.running(),
            load.kv_usage() * 1000.0,
            load.in_flight(),
            counts.get(place).copied().unwrap_or(0),
        );
    }
    out.push(']');
    out
}
