//! What `/debug/prefix` shows of the precise index.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{PrecisePrefixCache, TIERS};
use crate::prefix::proof::{Check, ProofRow, ProofState};

/// The models with their states and last mismatches, the engines with what the index has of them, and the index.
pub(super) fn page(plugin: &PrecisePrefixCache) -> Value {
    let now = Instant::now();
    let models = plugin.prover.as_ref().map(|prover| prover.rows()).unwrap_or_default();
    let (index, memory) = (&plugin.index, plugin.index.memory());
    let blocks: serde_json::Map<String, Value> = TIERS
        .into_iter()
        .zip(index.blocks_by_place())
        .map(|(tier, blocks)| (tier.to_owned(), blocks.into()))
        .collect();
    json!({
        "models": models.iter().map(|row| model(row, now)).collect::<Vec<Value>>(),
        "proof": if plugin.prover.is_some() { "on" } else { "off" },
        "fallback": if plugin.approximate.is_some() { "approximate" } else { "none" },
        "waiting_checks": plugin.prover.as_ref().map_or(0, |prover| prover.waiting()),
        "engines": engines(plugin, now),
        "index": {
            "entries": index.entries(),
            "blocks": blocks,
            "memory_bytes": memory.used(),
            "memory_limit_bytes": memory.limit(),
            "forgotten_for_memory": memory.forgotten(),
        },
    })
}

fn model(row: &ProofRow, now: Instant) -> Value {
    let mismatch = |mismatch: &crate::prefix::proof::Mismatch| {
        json!({
            "check": mismatch.check.name(),
            "server": mismatch.server,
            "predicted": mismatch.predicted,
            "observed": mismatch.observed,
            "age_seconds": seconds(now.saturating_duration_since(mismatch.at)),
        })
    };
    let checks: serde_json::Map<String, Value> = Check::ALL
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

fn engines(plugin: &PrecisePrefixCache, now: Instant) -> Vec<Value> {
    let Some(snapshot) = plugin.snapshot.lock().clone() else { return Vec::new() };
    let engine = |endpoint: &std::sync::Arc<crate::pool::Endpoint>| {
        let row = plugin.index.row(endpoint.incarnation())?;
        Some(json!({
            "endpoint": endpoint.target(),
            "server_version": super::prover::version(endpoint),
            "block_size": row.block_size,
            "blocks": row.blocks,
            "events": row.marks.heard,
            "losses": row.marks.lost,
            "last_event_age_seconds": plugin.ages.of(endpoint.target(), now).map(seconds),
        }))
    };
    snapshot.endpoints().iter().filter_map(engine).collect()
}

fn seconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 1000.0).round() / 1000.0
}
