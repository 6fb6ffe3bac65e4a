//! `no-hit-lru-scorer`: spreads prompts that nobody has cached over the endpoints that got such prompts longest ago.
//!
//! A request is cold if no endpoint in the running holds a block of its prompt. A warm one scores 0.5 everywhere. For a
//! cold one with `N` endpoints: a lone one gets 1; those that never got a cold prompt get `1 − j/(N−1)`, `j` counting
//! them in order; the others get `max(0, 1 − (never + i)/(N−1))`, where `never` is the number of the former and `i` the
//! rank in the list of all endpoints that did, oldest first.
//!
//! When a cold request is decided, its endpoint and that of a profile named `prefill` become the newest of that list,
//! which holds `lruSize` endpoint names. No match data counts as cold. Whether it was cold is worked out again from the
//! data of the request, so nothing is kept between the two calls. Cost: nothing but a look at the matches for warm
//! requests; for cold ones a look-up an endpoint, and a walk through the list, under a lock.

use std::hash::BuildHasher;
use std::sync::{Arc, OnceLock};

use hashbrown::DefaultHashBuilder;
use parking_lot::Mutex;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::plugins::producers::{self, approx_prefix_cache};
use crate::plugins::{BuildCx, BuildError, PluginType, Roles, Stability};
use crate::pool::{Endpoint, EndpointId, Snapshot};
use crate::prefix::{BlockHashes, Journal, PrefixMatch, Recency, RecencyKey, SharedIndex};
use crate::scheduling::{
    Call, Category, Column, DecidedCall, HeaderEdits, PluginState, PreRequest, PreRequestError, Scorer,
};

/// Registry row.
pub static TYPE: PluginType = PluginType::new("no-hit-lru-scorer", Stability::Beta, build).about(
    "Spreads prompts that nobody has cached over the endpoints that got such prompts longest ago.",
    "Use it beside prefix-cache-scorer, so that new prefixes do not gather on one endpoint. It costs a \
         look at the matches, and for new prompts a walk through a list of endpoints under a lock.",
);

/// Endpoints remembered, unless configured.
const DEFAULT_LRU_SIZE: i64 = 1024;

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Params {
    /// Endpoints that are remembered; below 1 means the default.
    lru_size: i64,
    /// Instance that produces the matches.
    prefix_match_info_producer_name: String,
    /// Without effect.
    prefix_plugin_type: Option<String>,
    /// Without effect.
    prefix_plugin_name: Option<String>,
}

impl Default for Params {
    fn default() -> Self {
        Self {
            lru_size: DEFAULT_LRU_SIZE,
            prefix_match_info_producer_name: approx_prefix_cache::TYPE.name.to_owned(),
            prefix_plugin_type: None,
            prefix_plugin_name: None,
        }
    }
}

fn build(cx: &mut BuildCx<'_>) -> Result<Roles, BuildError> {
    let mut params: Params = cx.params()?;
    if params.lru_size < 1 {
        cx.warn(format!("lruSize: {} is below 1, using {DEFAULT_LRU_SIZE}", params.lru_size));
        params.lru_size = DEFAULT_LRU_SIZE;
    }
    for (name, value) in
        [("prefixPluginType", &params.prefix_plugin_type), ("prefixPluginName", &params.prefix_plugin_name)]
    {
        if value.is_some() {
            cx.warn(format!("{name} has no effect, prefixMatchInfoProducerName names the source of matches"));
        }
    }
    let matches = cx.consumes(&params.prefix_match_info_producer_name, Some(approx_prefix_cache::TYPE.name));
    let plugin = Arc::new(NoHitLru {
        matches,
        size: usize::try_from(params.lru_size).unwrap_or(usize::MAX),
        hasher: DefaultHashBuilder::default(),
        used: Mutex::default(),
        name: cx.name().into(),
        journal: OnceLock::new(),
    });
    let shared_index: Option<Arc<dyn SharedIndex>> = Some(Arc::clone(&plugin) as _);
    Ok(Roles { shared_index, ..Roles::default() }.scorer(Arc::clone(&plugin) as _).pre_request(plugin))
}

#[derive(Debug)]
struct NoHitLru {
    matches: Column<PrefixMatch>,
    size: usize,
    hasher: DefaultHashBuilder,
    /// Endpoints that got cold prompts.
    used: Mutex<Recency<Used, ()>>,
    name: Box<str>,
    /// Where peers read who got cold prompts; empty without peers.
    journal: OnceLock<(Arc<Journal>, u16)>,
}

impl NoHitLru {
    /// `id` is the endpoint that got a cold prompt last.
    fn note(&self, used: &mut Recency<Used, ()>, id: &EndpointId) {
        let hash = self.hasher.hash_one(id);
        if let Some(index) = used.find(hash, |known| known.hash == hash && known.id == *id) {
            used.touch(index);
            return;
        }
        if used.len() >= self.size {
            used.pop_oldest();
        }
        used.insert(Used { hash, id: id.clone() }, ());
    }
}

impl SharedIndex for NoHitLru {
    fn name(&self) -> &str {
        &self.name
    }

    fn share(&self, journal: &Arc<Journal>, number: u16) {
        let _ = self.journal.set((Arc::clone(journal), number));
    }

    fn follow(&self, _: &Snapshot) {}

    fn heard(&self, endpoint: &Endpoint, _: &BlockHashes) {
        self.note(&mut self.used.lock(), endpoint.id());
    }
}

/// An endpoint's name with its hash.
#[derive(Debug, PartialEq, Eq)]
struct Used {
    hash: u64,
    id: EndpointId,
}

impl RecencyKey for Used {
    fn spread(&self) -> u64 {
        self.hash
    }
}

impl Scorer for NoHitLru {
    fn category(&self) -> Category {
        Category::Distribution
    }

    fn score(&self, call: &Call<'_>, out: &mut [f64]) {
        let warm = call.column(self.matches).is_some_and(|mut all| all.any(|prefix| prefix.matched > 0));
        if warm {
            out.fill(0.5);
            return;
        }
        if call.len() == 1 {
            out.fill(1.0);
            return;
        }
        let span = (call.len().max(2) - 1) as f64;
        let used = self.used.lock();
        let mut ranks = vec![0u32; used.len()];
        for ((index, ..), rank) in used.iter().zip(0..) {
            ranks[index as usize] = rank;
        }
        // First the rank of those that were used, with a sign that tells them from the others.
        let mut never = 0;
        for (score, endpoint) in out.iter_mut().zip(call.endpoints()) {
            let hash = self.hasher.hash_one(endpoint.id());
            if let Some(index) = used.find(hash, |known| known.hash == hash && known.id == *endpoint.id()) {
                *score = -1.0 - f64::from(ranks[index as usize]);
            } else {
                *score = 1.0 - f64::from(never) / span;
                never += 1;
            }
        }
        drop(used);
        for score in out.iter_mut().filter(|score| **score < 0.0) {
            let rank = -*score - 1.0;
            *score = (1.0 - (f64::from(never) + rank) / span).max(0.0);
        }
    }
}

impl PreRequest for NoHitLru {
    fn before_forward(
        &self,
        decided: &DecidedCall<'_>,
        _headers: &mut HeaderEdits,
    ) -> Result<PluginState, PreRequestError> {
        let Some(primary) = decided.decision.primary_result() else { return Ok(None) };
        if let Some(cells) = decided.call.columns().slice(self.matches) {
            let warm =
                |(slot, _): &(u32, f64)| cells.get(*slot as usize).is_some_and(|prefix| prefix.matched > 0);
            if primary.scored.iter().any(warm) {
                return Ok(None);
            }
        }
        let mut used = self.used.lock();
        for endpoint in producers::caching_targets(decided) {
            self.note(&mut used, endpoint.id());
            if let Some((journal, number)) = self.journal.get() {
                journal.add(*number, endpoint, &BlockHashes::default());
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugins::fixture::{Built, Fleet, pod, request};

    fn fleet(names: &[&str], params: serde_json::Value) -> (Fleet, Built) {
        let mut fleet = Fleet::new(names.iter().map(|name| pod(name)));
        let built = fleet.build(&TYPE, Some(params)).unwrap();
        (fleet, built)
    }

    #[track_caller]
    fn check(fleet: &Fleet, built: &Built, expected: &[f64]) {
        let columns = fleet.matches(&vec![0; expected.len()], 4);
        let scores = fleet.scores(&built.roles, &request("m"), &columns);
        assert!(scores.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-9), "{scores:?}");
    }

    fn send_cold(fleet: &Fleet, built: &Built, chosen: &[Option<usize>]) {
        let columns = fleet.matches(&vec![0; fleet.snapshot().len()], 4);
        fleet.forward(&built.roles, &request("m"), &columns, chosen);
    }

    #[test]
    fn cold_prompts_go_to_the_endpoint_that_had_none_longest() {
        let (fleet, built) = fleet(&["a", "b", "c"], serde_json::Value::Null);
        check(&fleet, &built, &[1.0, 0.5, 0.0]);
        send_cold(&fleet, &built, &[Some(0)]);
        check(&fleet, &built, &[0.0, 1.0, 0.5]);
        send_cold(&fleet, &built, &[Some(1)]);
        check(&fleet, &built, &[0.5, 0.0, 1.0]);
        send_cold(&fleet, &built, &[Some(2)]);
        check(&fleet, &built, &[1.0, 0.5, 0.0]);
        send_cold(&fleet, &built, &[Some(0)]);
        check(&fleet, &built, &[0.0, 1.0, 0.5]);
    }

    #[test]
    fn warm_prompts_leave_the_order_alone() {
        let (fleet, built) = fleet(&["a", "b"], serde_json::Value::Null);
        let warm = fleet.matches(&[0, 1], 4);
        fleet.forward(&built.roles, &request("m"), &warm, &[Some(0)]);
        check(&fleet, &built, &[1.0, 0.0]);
        // Warm elsewhere is cold here: only what survived the filters counts.
        fleet.forward_out_of(&built.roles, &request("m"), &warm, &[Some(0)], &[0]);
        check(&fleet, &built, &[0.0, 1.0]);
    }

    #[test]
    fn the_prefill_endpoint_counts_too() {
        let (fleet, built) = fleet(&["a", "b", "c"], serde_json::Value::Null);
        send_cold(&fleet, &built, &[Some(0), Some(1)]);
        check(&fleet, &built, &[0.5, 0.0, 1.0]);
        send_cold(&fleet, &built, &[Some(0), None]);
        check(&fleet, &built, &[0.0, 0.5, 1.0]);
    }

    #[test]
    fn ranks_count_endpoints_that_are_gone_and_scores_stop_at_zero() {
        let (fleet, built) = fleet(&["a", "b", "c", "d"], serde_json::Value::Null);
        for place in 0..4 {
            send_cold(&fleet, &built, &[Some(place)]);
        }
        let snapshot = fleet.snapshot();
        let left: Vec<_> = snapshot.endpoints()[2..].iter().map(|endpoint| endpoint.spec().clone()).collect();
        fleet.pool.replace_endpoints(left);
        // Ranks 2 and 3 of the whole list, over a span of 1.
        check(&fleet, &built, &[0.0, 0.0]);
    }

    #[test]
    fn beyond_its_size_the_list_forgets_the_oldest() {
        let (fleet, built) = fleet(&["a", "b", "c"], serde_json::json!({"lruSize": 2}));
        for place in 0..3 {
            send_cold(&fleet, &built, &[Some(place)]);
        }
        // `a` is forgotten, hence never used.
        check(&fleet, &built, &[1.0, 0.5, 0.0]);
    }
}
