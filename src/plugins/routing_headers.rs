//! Headers that tell the routing sidecar of the decode server which servers do the other stages. What a client sends
//! under these names never reaches it: it is replaced, or removed.

use std::sync::Arc;

use bytes::Bytes;

use crate::scheduling::{DecidedCall, HeaderEdits};

/// `ip:port` of the server that processes the prompt; with commas, of those that may, the best first.
const PREFILL: &str = "x-prefiller-host-port";
/// `ip:port` of each server that encodes images, videos and sounds, with commas.
const ENCODE: &str = "x-encoder-hosts-ports";
/// `ip:port` of the engine rank that serves, where the proxy reaches all ranks on one port.
const DATA_PARALLEL: &str = "x-data-parallel-host-port";
/// `ip:port` of a server from which the one that processes the prompt may fetch the cache.
pub(in crate::plugins) const KV_SOURCE: &str = "x-kv-cache-source-host-port";

/// Writes the targets of the prefill and the encode profile, by index. `candidates` is how many prefill servers are
/// named at most: the profile's targets, then those with the next best totals.
pub(in crate::plugins) fn write_stages(
    decided: &DecidedCall<'_>,
    prefill: Option<usize>,
    encode: Option<usize>,
    candidates: usize,
    headers: &mut HeaderEdits,
) {
    let prefill = match candidates {
        0 | 1 => decided.decision.stage_targets(prefill).first().map(|target| copy(target.target())),
        most => ordered(decided, prefill, most),
    };
    put(decided, PREFILL, prefill, headers);
    let encoders: Vec<&str> =
        decided.decision.stage_targets(encode).iter().map(|target| target.target()).collect();
    let encoders = (!encoders.is_empty()).then(|| copy(&encoders.join(",")));
    put(decided, ENCODE, encoders, headers);
}

/// Up to `most` endpoints of a stage with commas: its targets, then what else its filters left, by total, the highest
/// first; equal ones in the order of the pool.
fn ordered(decided: &DecidedCall<'_>, profile: Option<usize>, most: usize) -> Option<Bytes> {
    let targets = decided.decision.stage_targets(profile);
    let result = decided.decision.profiles.get(profile?)?.as_ref().filter(|_| !targets.is_empty())?;
    let candidates = decided.call.candidates();
    let mut rest: Vec<_> = result
        .scored
        .iter()
        .filter(|(slot, _)| (*slot as usize) < candidates.len())
        .map(|(slot, total)| (candidates.at(*slot), *total))
        .filter(|(endpoint, _)| !targets.iter().any(|target| Arc::ptr_eq(target, endpoint)))
        .collect();
    rest.sort_by(|a, b| b.1.total_cmp(&a.1));
    let all = targets.iter().chain(rest.into_iter().map(|(endpoint, _)| endpoint));
    let names: Vec<&str> = all.take(most).map(|endpoint| endpoint.target()).collect();
    Some(copy(&names.join(",")))
}

/// Writes the address of the primary profile's first target.
pub(in crate::plugins) fn write_rank(decided: &DecidedCall<'_>, headers: &mut HeaderEdits) {
    let rank = decided.decision.targets().first();
    put(decided, DATA_PARALLEL, rank.map(|target| copy(target.target())), headers);
}

/// Sets a header, or removes what the client sent under its name. What another plugin set stays if there is no value.
pub(in crate::plugins) fn put(
    decided: &DecidedCall<'_>,
    name: &str,
    value: Option<Bytes>,
    headers: &mut HeaderEdits,
) {
    match value {
        Some(value) => headers.set(name, value),
        None if headers.sets(name) || decided.call.request.headers.get(name).is_none() => {}
        None => headers.remove(name),
    }
}

fn copy(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}
