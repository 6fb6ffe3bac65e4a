//! `prefill-wait-scorer`: prefers endpoints where the first token would come soonest.
//!
//! The estimate in milliseconds is `(P + u) / peakPrefillThroughput · 1000 + waitingPenaltyMs · w`. `P` are the uncached
//! prompt tokens of the requests that this process sent there and whose response has not begun, `u` those of this
//! request, and `w` the waiting requests at the last reading plus what was sent since minus what ended since. Tokens are
//! uncached if their blocks are not matched there; without matches whole prompts count. The score is
//! `(max − estimate) / (max − min)` over the endpoints in the running, 1 if all are within `indifferenceMs` of the best;
//! endpoints within it are a random tie for the picker.
//!
//! For it: a cached prefix and an empty queue are weighed in one unit, time, so that no weights are to be tuned, and a
//! prefix yields when the wait for it costs more than to compute it elsewhere. Against it: it must be told how fast a
//! server computes prompts, and of other replicas it sees the readings alone. Cost: two passes over the candidates, a
//! look-up under a lock that is shared by readers for each, and a prefix index.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use hashbrown::HashMap;
use parking_lot::RwLock;
use schemars::JsonSchema;
use serde::Deserialize;

use super::uncached_tokens;
use crate::plugins::producers::approx_prefix_cache;
use crate::plugins::{BuildCx, BuildError, PluginType, Roles, Stability};
use crate::prefix::PrefixMatch;
use crate::scheduling::{
    Call, Category, Column, DecidedCall, HeaderEdits, PluginState, PreRequest, PreRequestError, ResponseCall,
    ResponseHeaderHook, Scorer,
};

/// Registry row.
pub static TYPE: PluginType = PluginType::new("prefill-wait-scorer", Stability::Beta, build).about(
    "Prefers endpoints where the first token would come soonest, by uncached tokens and waiting requests.",
    "Use it alone in a profile, where prompts differ much in length or share prefixes. It costs two passes over the \
         candidates with a look-up for each, and keeps a prefix index.",
);

/// Endpoints that are remembered beyond those of the pool.
const SPARE: usize = 64;

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Params {
    /// Prompt tokens a second that an endpoint computes at most, above 0.
    peak_prefill_throughput: f64,
    /// Milliseconds for each waiting request, at least 0.
    waiting_penalty_ms: f64,
    /// Endpoints whose estimates differ from the best by at most this many milliseconds are equally good.
    indifference_ms: f64,
    /// Instance that produces the matches.
    prefix_match_info_producer_name: String,
}

impl Default for Params {
    fn default() -> Self {
        Self {
            peak_prefill_throughput: 9000.0,
            waiting_penalty_ms: 200.0,
            indifference_ms: 0.0,
            prefix_match_info_producer_name: approx_prefix_cache::TYPE.name.to_owned(),
        }
    }
}

fn build(cx: &mut BuildCx<'_>) -> Result<Roles, BuildError> {
    let params: Params = cx.params()?;
    if !params.peak_prefill_throughput.is_finite() || params.peak_prefill_throughput <= 0.0 {
        return Err(BuildError::at("peakPrefillThroughput", "must be a number above 0"));
    }
    for (name, value) in
        [("waitingPenaltyMs", params.waiting_penalty_ms), ("indifferenceMs", params.indifference_ms)]
    {
        if !value.is_finite() || value < 0.0 {
            return Err(BuildError::at(name, format!("is {value}, expected a number of at least 0")));
        }
    }
    let plugin = Arc::new(PrefillWait {
        matches: cx.consumes(&params.prefix_match_info_producer_name, Some(approx_prefix_cache::TYPE.name)),
        ms_per_token: 1e3 / params.peak_prefill_throughput,
        waiting_penalty: params.waiting_penalty_ms,
        indifference: params.indifference_ms,
        pending: RwLock::default(),
    });
    let roles = Roles::default().scorer(Arc::clone(&plugin) as _);
    Ok(roles.pre_request(Arc::clone(&plugin) as _).response_headers(plugin))
}

#[derive(Debug)]
struct PrefillWait {
    matches: Column<PrefixMatch>,
    ms_per_token: f64,
    /// Milliseconds.
    waiting_penalty: f64,
    /// Milliseconds.
    indifference: f64,
    /// Uncached tokens without a response, by incarnation.
    pending: RwLock<HashMap<u64, Arc<AtomicU64>>>,
}

/// A request's share of the pending tokens, given back when it is dropped.
struct Pending {
    of: Arc<AtomicU64>,
    tokens: u64,
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.of.fetch_sub(self.tokens, Relaxed);
    }
}

impl Scorer for PrefillWait {
    fn category(&self) -> Category {
        Category::Balance
    }

    fn score(&self, call: &Call<'_>, out: &mut [f64]) {
        uncached_tokens(call, self.matches, out);
        let pending = self.pending.read();
        for (estimate, endpoint) in out.iter_mut().zip(call.endpoints()) {
            let ahead = pending.get(&endpoint.incarnation()).map_or(0, |tokens| tokens.load(Relaxed));
            let waiting = endpoint.load().waiting_by_now() as f64;
            *estimate = (*estimate + ahead as f64) * self.ms_per_token + waiting * self.waiting_penalty;
        }
        drop(pending);
        let best = out.iter().copied().fold(f64::INFINITY, f64::min);
        for estimate in out.iter_mut().filter(|estimate| **estimate <= best + self.indifference) {
            *estimate = best;
        }
        super::lowest_is_best(out);
    }
}

impl PreRequest for PrefillWait {
    fn before_forward(
        &self,
        decided: &DecidedCall<'_>,
        _headers: &mut HeaderEdits,
    ) -> Result<PluginState, PreRequestError> {
        let Some(target) = decided.decision.targets().first() else { return Ok(None) };
        let mut uncached = vec![0.0; decided.call.len()];
        uncached_tokens(&decided.call, self.matches, &mut uncached);
        let same = |endpoint: &Arc<crate::pool::Endpoint>| endpoint.incarnation() == target.incarnation();
        let place = decided.call.endpoints().position(same);
        let tokens = place.and_then(|place| uncached.get(place)).map_or(0, |tokens| *tokens as u64);
        let known = self.pending.read().get(&target.incarnation()).map(Arc::clone);
        let of = known.unwrap_or_else(|| {
            let mut pending = self.pending.write();
            if pending.len() >= 2 * decided.call.len() + SPARE {
                // Whoever has nothing pending is remembered by nobody else.
                pending.retain(|_, tokens| Arc::strong_count(tokens) > 1);
            }
            Arc::clone(pending.entry(target.incarnation()).or_default())
        });
        of.fetch_add(tokens, Relaxed);
        Ok(Some(Box::new(Pending { of, tokens })))
    }
}

impl ResponseHeaderHook for PrefillWait {
    fn on_response_headers(
        &self,
        _call: &ResponseCall<'_>,
        state: &mut PluginState,
        _headers: &mut HeaderEdits,
    ) {
        // The prompt has been computed.
        *state = None;
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::plugins::fixture::{Fleet, pod, request};

    #[test]
    fn a_prefix_yields_when_the_wait_for_it_costs_more_than_to_compute_it_elsewhere() {
        let mut fleet = Fleet::new([pod("a"), pod("b").waiting(1), pod("c").waiting(4)]);
        let params = json!({"peakPrefillThroughput": 1000, "waitingPenaltyMs": 100});
        let built = fleet.build(&TYPE, Some(params)).unwrap();
        let columns = fleet.matches(&[0, 10, 10], 10);
        let scores = fleet.scores(&built.roles, &request("m"), &columns);
        // 640 ms to compute, against waits of 100 and 400 ms.
        assert_eq!(scores, [0.0, 1.0, 240.0 / 540.0]);
    }

    #[test]
    fn estimates_within_the_indifference_are_equally_good() {
        let mut fleet = Fleet::new([pod("a"), pod("b").waiting(1), pod("c").waiting(9)]);
        let params = json!({"waitingPenaltyMs": 10, "indifferenceMs": 10});
        let built = fleet.build(&TYPE, Some(params)).unwrap();
        let columns = fleet.matches(&[0, 0, 0], 10);
        assert_eq!(fleet.scores(&built.roles, &request("m"), &columns), [1.0, 1.0, 0.0]);
    }

    #[test]
    fn tokens_are_pending_until_the_response_begins_or_the_request_goes() {
        let mut fleet = Fleet::new([pod("a"), pod("b")]);
        let built = fleet.build(&TYPE, Some(json!({}))).unwrap();
        let columns = fleet.matches(&[0, 0], 10);
        let scores = |fleet: &Fleet| fleet.scores(&built.roles, &request("m"), &columns);
        let states = fleet.forwarded(&built.roles, &request("m"), &columns, &[Some(0)], &[0, 1]);
        assert_eq!(scores(&fleet), [0.0, 1.0]);
        drop(states);
        assert_eq!(scores(&fleet), [1.0, 1.0]);
    }
}
