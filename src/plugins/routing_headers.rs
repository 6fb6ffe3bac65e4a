//! Headers that tell the routing sidecar of the decode server which servers do the other stages. What a client sends
//! under these names never reaches it: it is replaced, or removed.

use bytes::Bytes;

use crate::scheduling::{DecidedCall, HeaderEdits};

/// `ip:port` of the server that processes the prompt.
const PREFILL: &str = "x-prefiller-host-port";
/// `ip:port` of each server that encodes images, videos and sounds, with commas.
const ENCODE: &str = "x-encoder-hosts-ports";
/// `ip:port` of the engine rank that serves, where the proxy reaches all ranks on one port.
const DATA_PARALLEL: &str = "x-data-parallel-host-port";
/// `ip:port` of a server from which the one that processes the prompt may fetch the cache.
pub(in crate::plugins) const KV_SOURCE: &str = "x-kv-cache-source-host-port";

/// Writes the targets of the prefill and the encode profile, by index.
pub(in crate::plugins) fn write_stages(
    decided: &DecidedCall<'_>,
    prefill: Option<usize>,
    encode: Option<usize>,
    headers: &mut HeaderEdits,
) {
    let prefill = decided.decision.stage_targets(prefill).first();
    put(decided, PREFILL, prefill.map(|target| copy(target.target())), headers);
    let encoders: Vec<&str> =
        decided.decision.stage_targets(encode).iter().map(|target| target.target()).collect();
    let encoders = (!encoders.is_empty()).then(|| copy(&encoders.join(",")));
    put(decided, ENCODE, encoders, headers);
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
