//! What one second shows.

use std::collections::{HashMap, VecDeque};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use serde_json::{Value, json};

use super::rows::{Hits, Shares, figures, list};
use super::warnings::{Warning, warnings};
use crate::admin::page_sources::Queues;
use crate::admin::state::AdminState;

/// Decisions that are listed.
const DECISIONS: usize = 30;
/// Seconds between two looks at what costs more.
const SLOW: u32 = 5;
/// Seconds over which refusals are counted.
const MINUTE: usize = 60;

/// The events of one second.
#[derive(Clone, Debug)]
pub(super) struct Tick {
    /// Number of the list.
    pub(super) list_number: u64,
    /// The event with the list of endpoints.
    pub(super) list: Bytes,
    /// The event with the figures.
    pub(super) figures: Bytes,
}

/// What is remembered from one second to the next.
#[derive(Default)]
pub(super) struct Memory {
    seconds: u32,
    version: Option<u64>,
    list_number: u64,
    list: Bytes,
    shares: Shares,
    hits: HashMap<String, Hits>,
    warnings: Vec<Warning>,
    generation: u64,
    shadow: Value,
    /// Refusals by reason and code, second by second.
    refusals: VecDeque<Vec<(String, String, u64)>>,
}

impl Memory {
    /// What this second shows.
    pub(super) fn tick(&mut self, state: &AdminState) -> Tick {
        let now = Instant::now();
        let snapshot = state.pool.snapshot();
        if self.version != Some(snapshot.version()) {
            self.version = Some(snapshot.version());
            self.list_number += 1;
            let pool = json!({
                "name": state.pool.name(),
                "namespace": state.pool.namespace(),
                "program": env!("CARGO_PKG_VERSION"),
                "endpoints": list(&snapshot),
            });
            self.list = event("pool", &pool.to_string());
        }
        let queues = (state.page.queues)();
        if self.seconds.is_multiple_of(SLOW) {
            self.look_closer(state, now);
        }
        self.seconds = self.seconds.wrapping_add(1);
        let (counts, all, last) = self.shares.count(&snapshot);
        let rows = figures(&snapshot, &counts, &self.hits, now, state.page.staleness);
        let rest = json!({
            "time": SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64),
            "generation": self.generation,
            "minute": all,
            "second": last,
            "queues": queues.map(|queues| shown(&queues)),
            "refusals": self.refused(state),
            "decisions": decisions(state),
            "shadow": self.shadow,
            "warnings": self.warnings.iter().map(Warning::to_json).collect::<Vec<_>>(),
        });
        let rest = rest.to_string();
        // The rows are written by hand: there may be a thousand.
        let open = rest.strip_suffix('}').unwrap_or(&rest);
        let figures = event("figures", &format!("{open},\"rows\":{rows}}}"));
        Tick { list_number: self.list_number, list: self.list.clone(), figures }
    }

    fn look_closer(&mut self, state: &AdminState, now: Instant) {
        if let Some(decisions) = &state.decisions {
            self.hits = Hits::recent(decisions);
        }
        let config = state.reloading.as_ref().map_or(Value::Null, |reloading| (reloading.show)());
        self.generation = config["generation"].as_u64().unwrap_or(0);
        self.shadow = config["shadow"].clone();
        if let Some(shadow) = self.shadow.as_object_mut() {
            // Its text is on the page of the configuration.
            shadow.remove("effective");
        }
        self.warnings = warnings(state, &config, now);
    }

    /// Refusals by reason: in all, and within the last minute.
    fn refused(&mut self, state: &AdminState) -> Value {
        self.refusals.push_back(state.metrics.extproc().refusals());
        if self.refusals.len() > MINUTE + 1 {
            self.refusals.pop_front();
        }
        let (Some(first), Some(last)) = (self.refusals.front(), self.refusals.back()) else {
            return json!([]);
        };
        let before = |reason: &str| first.iter().find(|row| row.0 == reason).map_or(0, |row| row.2);
        let rows = last.iter().filter(|row| row.2 > 0);
        rows.map(|(reason, code, count)| json!([reason, code, count, count.saturating_sub(before(reason))]))
            .collect()
    }
}

fn decisions(state: &AdminState) -> Value {
    match &state.decisions {
        Some(records) => json!({
            "kept": records.count(),
            "one_in": records.one_in(),
            "rows": records.newest(DECISIONS),
        }),
        None => Value::Null,
    }
}

fn shown(queues: &Queues) -> Value {
    let bands: Vec<Value> = queues
        .bands
        .iter()
        .map(|band| json!([band.priority, band.requests, band.bytes, band.max_requests, band.max_bytes]))
        .collect();
    let flows: Vec<Value> = queues
        .flows
        .iter()
        .map(|flow| json!([flow.priority, &*flow.id, flow.oldest.as_millis() as u64]))
        .collect();
    json!({ "bands": bands, "flows": flows })
}

/// An event of a stream of events. The document has no line breaks: JSON escapes them.
fn event(name: &str, document: &str) -> Bytes {
    format!("event: {name}\ndata: {document}\n\n").into()
}
