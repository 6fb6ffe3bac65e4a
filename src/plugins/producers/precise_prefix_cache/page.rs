//! What `/debug/prefix` shows of the precise index.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde_json::{Map, Value, json};

use super::prover::{self, Prover};
use crate::kvevents::Ages;
use crate::pool::{Endpoint, Snapshot};
use crate::prefix::precise::PreciseIndex;
use crate::prefix::proof::{Check, Mismatch, ProofRow, ProofState};

/// Names of the places that the index tells apart.
pub(super) const TIERS: [&str; 4] = ["gpu", "cpu", "other", "sent"];

/// The sources of the page.
pub(super) struct Page {
    pub(super) index: Arc<PreciseIndex>,
    pub(super) prover: Option<Arc<Prover>>,
    /// The approximate index decides where exact tokens cannot.
    pub(super) approximates: bool,
    /// When engines were heard last.
    pub(super) ages: Ages,
    /// The endpoints.
    pub(super) snapshot: Arc<Mutex<Option<Arc<Snapshot>>>>,
}

impl Page {
    /// The models with their states and last mismatches, the engines with what the index has of them, and the index.
    pub(super) fn read(&self) -> Value {
        let now = Instant::now();
        let models = self.prover.as_ref().map(|prover| prover.rows()).unwrap_or_default();
        let memory = self.index.memory();
        let blocks: Map<String, Value> = TIERS
            .into_iter()
            .zip(self.index.blocks_by_place())
            .map(|(tier, blocks)| (tier.to_owned(), blocks.into()))
            .collect();
        json!({
            "models": models.iter().map(|row| model(row, now)).collect::<Vec<Value>>(),
            "proof": if self.prover.is_some() { "on" } else { "off" },
            "fallback": if self.approximates { "approximate" } else { "none" },
            "waiting_checks": self.prover.as_ref().map_or(0, |prover| prover.waiting()),
            "engines": self.engines(now),
            "index": {
                "entries": self.index.entries(),
                "blocks": blocks,
                "memory_bytes": memory.used(),
                "memory_limit_bytes": memory.limit(),
                "forgotten_for_memory": memory.forgotten(),
            },
        })
    }

    fn engines(&self, now: Instant) -> Vec<Value> {
        let Some(snapshot) = self.snapshot.lock().clone() else { return Vec::new() };
        let engine = |endpoint: &Arc<Endpoint>| {
            let row = self.index.row(endpoint.incarnation())?;
            Some(json!({
                "endpoint": endpoint.target(),
                "server_version": prover::version(endpoint),
                "block_size": row.block_size,
                "blocks": row.blocks,
                "events": row.marks.heard,
                "losses": row.marks.lost,
                "last_event_age_seconds": self.ages.of(endpoint.target(), now).map(seconds),
            }))
        };
        snapshot.endpoints().iter().filter_map(engine).collect()
    }
}

fn model(row: &ProofRow, now: Instant) -> Value {
    let mismatch = |mismatch: &Mismatch| {
        json!({
            "check": mismatch.check.name(),
            "server": mismatch.server,
            "predicted": mismatch.predicted,
            "observed": mismatch.observed,
            "age_seconds": seconds(now.saturating_duration_since(mismatch.at)),
        })
    };
    let checks: Map<String, Value> = Check::ALL
        .into_iter()
        .zip(row.checks)
        .map(|(check, [matched, mismatched])| {
            (check.name().to_owned(), json!({ "matched": matched, "mismatched": mismatched }))
        })
        .collect();
    json!({
        "model": row.model,
        "server_version": row.version,
        "state": row.state.name(),
        "state_age_seconds": seconds(now.saturating_duration_since(row.since)),
        "decides": if row.state == ProofState::Off { "approximate" } else { "exact" },
        "checks": checks,
        "mismatches": row.mismatches.iter().map(mismatch).collect::<Vec<Value>>(),
    })
}

fn seconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 1000.0).round() / 1000.0
}
