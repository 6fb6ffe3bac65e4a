//! `p2p-source-producer`: names an endpoint that holds much of the prompt, from which the one that processes it can
//! fetch the cache.
//!
//! Of all candidates, those within one block of the longest cached prefix may be the source; one of them is taken at
//! random, in proportion to `1 / (1 + waiting requests)`, and equal request ids take the same one. The header
//! `x-kv-cache-source-host-port` names it if it is another one than the endpoint that processes the prompt and holds at
//! least `minCachedTokenDelta` tokens more than that. What a client sends under that name is removed.
//!
//! Use it where engines can pull cache blocks from each other (`--enable-p2p-pull` of the routing sidecar). It costs
//! two passes over the candidates.

use std::sync::Arc;

use schemars::JsonSchema;

use serde::Deserialize;

use super::approx_prefix_cache;
use crate::plugins::routing_headers::{KV_SOURCE, put};
use crate::plugins::{BuildCx, BuildError, PluginType, Roles, Stability};
use crate::pool::Endpoint;
use crate::prefix::PrefixMatch;
use crate::scheduling::{Column, DecidedCall, HeaderEdits, PluginState, PreRequest, PreRequestError};

/// Registry row.
pub static TYPE: PluginType = PluginType::new("p2p-source-producer", Stability::Alpha, build).about(
    "Names an endpoint that holds much of the prompt, from which another one can fetch its cache.",
    "Use it where engines can pull cache blocks from each other. It costs two passes over the \
         candidates.",
);

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Params {
    /// Instance that produces the prefix matches.
    prefix_match_info_producer_name: String,
    /// Tokens that the source must hold beyond those of the endpoint that processes the prompt, at least 1.
    min_cached_token_delta: i64,
    /// Profile whose target processes the prompt; by default the one that the profile handler takes for prefill.
    prefill_profile_name: String,
}

impl Default for Params {
    fn default() -> Self {
        Self {
            prefix_match_info_producer_name: approx_prefix_cache::TYPE.name.to_owned(),
            min_cached_token_delta: 1,
            prefill_profile_name: String::new(),
        }
    }
}

fn build(cx: &mut BuildCx<'_>) -> Result<Roles, BuildError> {
    let params: Params = cx.params()?;
    let Some(least_gain) = u64::try_from(params.min_cached_token_delta).ok().filter(|delta| *delta > 0)
    else {
        let message = format!("is {}; expected at least 1 token", params.min_cached_token_delta);
        return Err(BuildError::at("minCachedTokenDelta", message));
    };
    let matches = cx.consumes(&params.prefix_match_info_producer_name, Some(approx_prefix_cache::TYPE.name));
    let prefill = Some(params.prefill_profile_name).filter(|name| !name.is_empty());
    Ok(Roles::default().pre_request(Arc::new(P2pSource { matches, least_gain, prefill })))
}

#[derive(Debug)]
struct P2pSource {
    matches: Column<PrefixMatch>,
    /// Tokens.
    least_gain: u64,
    prefill: Option<String>,
}

fn cached_tokens(held: &PrefixMatch) -> u64 {
    u64::from(held.cached) * u64::from(held.block_size)
}

/// FNV-1a of 32 bits.
fn fnv1a(id: &str) -> u32 {
    id.bytes().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

/// Where in the row of candidates a request id points, 0..1.
fn point(id: &str) -> f64 {
    f64::from(fnv1a(id)) / 2f64.powi(32)
}

/// The source, and the tokens it holds; `None` if nobody holds anything.
fn source<'e>(
    candidates: impl Iterator<Item = (&'e Arc<Endpoint>, &'e PrefixMatch)> + Clone,
    point: f64,
) -> Option<(&'e Arc<Endpoint>, u64)> {
    let (_, best) = candidates.clone().max_by_key(|(_, held)| cached_tokens(held))?;
    let most = cached_tokens(best);
    if most == 0 {
        return None;
    }
    let least = most.saturating_sub(u64::from(best.block_size)).max(1);
    let eligible = candidates.filter(|(_, held)| cached_tokens(held) >= least);
    let weight = |endpoint: &Endpoint| 1.0 / (1.0 + endpoint.load().waiting() as f64);
    let total: f64 = eligible.clone().map(|(endpoint, _)| weight(endpoint)).sum();
    let mut left = point * total;
    let mut chosen = None;
    for (endpoint, held) in eligible {
        chosen = Some((endpoint, cached_tokens(held)));
        left -= weight(endpoint);
        if left < 0.0 {
            break;
        }
    }
    chosen
}

impl P2pSource {
    /// Address of the source, if fetching from it pays.
    fn address<'d>(&self, decided: &DecidedCall<'d>) -> Option<&'d str> {
        let matches = decided.call.columns().slice(self.matches)?;
        let candidates = decided.call.candidates();
        if matches.len() != candidates.len() {
            return None;
        }
        let all = (0..candidates.len() as u32).map(|slot| candidates.at(slot)).zip(matches);
        let (source, held) = source(all.clone(), point(decided.call.request.id))?;
        let decision = decided.decision;
        let prefill = match &self.prefill {
            Some(name) => {
                let index = decided.profiles.iter().position(|profile| **profile == **name);
                decision.stage_targets(index).first()
            }
            None => decision.prefill_target(),
        };
        let computes = prefill.or(decision.targets().first())?;
        let own = all.clone().find(|(endpoint, _)| Arc::ptr_eq(endpoint, computes));
        let own = own.map_or(0, |(_, held)| cached_tokens(held));
        let pays = !Arc::ptr_eq(source, computes) && held >= own.saturating_add(self.least_gain);
        pays.then(|| source.target())
    }
}

impl PreRequest for P2pSource {
    fn before_forward(
        &self,
        decided: &DecidedCall<'_>,
        headers: &mut HeaderEdits,
    ) -> Result<PluginState, PreRequestError> {
        let value = self.address(decided).map(|address| address.to_owned().into());
        put(decided, KV_SOURCE, value, headers);
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::plugins::fixture::{Fleet, Pod, pod, request};
    use crate::scheduling::Columns;

    /// The header, for endpoints that hold so many blocks of 64 tokens, of which decode and prefill chose these.
    fn named(params: Value, pods: Vec<Pod>, cached: &[u32], chosen: &[Option<usize>]) -> Option<String> {
        let mut fleet = Fleet::new(pods);
        let built = fleet.build(&TYPE, Some(params)).unwrap();
        let columns = if cached.is_empty() { Columns::new() } else { fleet.matches(cached, 100) };
        let decision = fleet.decision(chosen, &[]);
        let forged = request("m").header("x-kv-cache-source-host-port", "6.6.6.6:1");
        let edits =
            fleet.edits_with(&built.roles, &forged, &columns, &decision, &["decode".into(), "p".into()]);
        let set = edits.set.iter().find(|(name, _)| name == "x-kv-cache-source-host-port");
        assert_eq!(edits.remove.len(), usize::from(set.is_none()), "what the client sent is gone");
        set.map(|(_, value)| String::from_utf8(value.to_vec()).unwrap())
    }

    #[test]
    fn the_endpoint_that_holds_most_is_named_if_that_pays() {
        let pods = || vec![pod("a"), pod("b"), pod("c")];
        let b = Some("10.0.0.98:8000".to_owned());
        for (params, cached, chosen, expected) in [
            (json!({}), &[0, 9, 2][..], &[Some(0)][..], b.clone()),
            // It processes the prompt itself.
            (json!({}), &[0, 9, 2], &[Some(1)], None),
            // Not decode but prefill processes it.
            (json!({}), &[9, 9, 2], &[Some(0), Some(1)], None),
            (json!({}), &[0, 9, 2], &[Some(1), Some(0)], b.clone()),
            (json!({"prefillProfileName": "p"}), &[0, 9, 2], &[Some(1), Some(0)], b.clone()),
            (json!({"prefillProfileName": "other"}), &[0, 9, 2], &[Some(1), Some(0)], None),
            // 7 blocks more are 448 tokens.
            (json!({"minCachedTokenDelta": 448}), &[0, 9, 2], &[Some(2)], b),
            (json!({"minCachedTokenDelta": 449}), &[0, 9, 2], &[Some(2)], None),
            // Nobody holds anything; nobody knows.
            (json!({}), &[0, 0, 0], &[Some(0)], None),
            (json!({}), &[], &[Some(0)], None),
        ] {
            assert_eq!(
                named(params.clone(), pods(), cached, chosen),
                expected,
                "{params} {cached:?} {chosen:?}"
            );
        }
    }

    #[test]
    fn among_equals_the_request_id_and_the_queues_choose() {
        let fleet = Fleet::new([pod("a"), pod("b").waiting(1), pod("c"), pod("d")]);
        let held = |blocks| PrefixMatch { matched: blocks, total: 9, block_size: 64, cached: blocks };
        // d lacks more than a block; weights are 1, ½ and 1 of 2½.
        let matches = [held(5), held(4), held(5), held(3)];
        let snapshot = fleet.snapshot();
        let at = |point| {
            let (endpoint, tokens) = source(snapshot.endpoints().iter().zip(&matches), point).unwrap();
            (endpoint.id().name().to_owned(), tokens)
        };
        for (point, name, tokens) in [
            (0.0, "a", 320),
            (0.39, "a", 320),
            (0.41, "b", 256),
            (0.59, "b", 256),
            (0.61, "c", 320),
            (0.999, "c", 320),
        ] {
            assert_eq!(at(point), (name.to_owned(), tokens), "{point}");
        }
        assert!(source(std::iter::empty(), 0.5).is_none());
        // The published values.
        assert_eq!((fnv1a(""), fnv1a("a"), fnv1a("foobar")), (0x811c_9dc5, 0xe40c_292c, 0xbf9c_f968));
        assert!((0.0..1.0).contains(&point("any id")));
    }

    #[test]
    fn a_delta_below_one_is_refused() {
        for delta in [0, -5] {
            let error = Fleet::new([]).build(&TYPE, Some(json!({"minCachedTokenDelta": delta}))).unwrap_err();
            assert_eq!(error.path, "minCachedTokenDelta");
        }
    }
}
