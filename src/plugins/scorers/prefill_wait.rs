//! `prefill-wait-scorer`: prefers endpoints where the first token would come soonest.
//!
//! The estimate in milliseconds is `(P + recomputeWeight · u) · t · s + waitingPenaltyMs · w + runningPenaltyMs · r`:
//!
//! - `P` are the uncached prompt tokens of requests that were sent there and are not computed: those of this process
//!   until the first byte of their answer, and the prompt tokens of peers whose answers have not begun, times the share
//!   of uncached tokens that this process sees. Nothing tells when a prompt is computed whose answer comes in one
//!   piece: it counts until the estimate says so, or until a later one is computed.
//! - `u` are the uncached tokens of this request. Tokens are uncached if their blocks are not matched there; without
//!   matches whole prompts count.
//! - `t` are the milliseconds for a token, `1000 / peakPrefillThroughput` at the start. With `measure` the times to the
//!   first byte of streamed answers replace it. `s` is the endpoint's own time as a multiple of what the pool takes,
//!   measured in the same way, and 1 within a quarter. Half of it is forgotten in 10 s without a sample.
//! - `w` are the waiting requests of the last reading that this process did not send: the others are in `P`.
//! - `r` are waiting and running requests at the last reading, plus those that were sent and less those that ended
//!   since. Each makes the steps of the batch longer, for the first token and for all others.
//!
//! The score is `(max − estimate) / (max − min)` over the endpoints in the running, 1 if all are within
//! `indifferenceMs` of the best; endpoints within it are a random tie for the picker. The estimate is that of a queue
//! which is served in its order (vLLM's default): the time of the work before a request, and of its own.
//!
//! For it: a cached prefix and a queue are weighed in one unit, time, and what the picker knows at once needs no
//! reading. Against it: load of replicas that are no peers, and of others, shows in the readings alone. Cost: two
//! passes over the candidates, a look-up under a lock that is shared by readers for each, and a prefix index.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use hashbrown::HashMap;
use parking_lot::RwLock;
use schemars::JsonSchema;
use serde::Deserialize;

use super::uncached_tokens;
use crate::clock;
use crate::plugins::producers::approx_prefix_cache;
use crate::plugins::prompt_size::prompt_size;
use crate::plugins::{BuildCx, BuildError, PluginType, Roles, Stability};
use crate::pool::Endpoint;
use crate::prefix::PrefixMatch;
use crate::scheduling::{
    Call, Category, Column, DecidedCall, HeaderEdits, PluginState, PreRequest, PreRequestError,
    ResponseEndHook, Scorer,
};

mod ledger;
mod pace;

use ledger::{Ledger, Sending, Sent};
use pace::Pace;

/// Registry row.
pub static TYPE: PluginType = PluginType::new("prefill-wait-scorer", Stability::Beta, build).about(
    "Prefers endpoints where the first token would come soonest, by uncached tokens and waiting requests.",
    "Use it alone in a profile, where prompts differ much in length or share prefixes. It costs two passes over the \
         candidates with a look-up for each, and keeps a prefix index.",
);

/// Endpoints that are remembered beyond those of the pool.
const SPARE: usize = 64;
/// Share of a new request in the share of uncached tokens.
const MISS_STEP: f64 = 1.0 / 64.0;

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Params {
    /// Prompt tokens a second that an endpoint computes at most, above 0. With `measure` it is where measuring starts.
    peak_prefill_throughput: f64,
    /// Measure the throughput, and how much slower than others an endpoint is, by the first bytes of streamed answers.
    measure: bool,
    /// Milliseconds for each waiting request of others, at least 0.
    waiting_penalty_ms: f64,
    /// Milliseconds for each request that an endpoint has, at least 0: by so much its first token may come later than
    /// elsewhere for a batch that is smaller by one. With 0 a prefix that most requests share keeps one home.
    running_penalty_ms: f64,
    /// Weight of the request's own uncached tokens, at least 0. 1 counts its own wait alone. To compute a prefix once
    /// more also delays others at that endpoint, and takes room in its cache: more than 1 counts that.
    recompute_weight: f64,
    /// Endpoints whose estimates differ from the best by at most this many milliseconds are equally good.
    indifference_ms: f64,
    /// Instance that produces the matches.
    prefix_match_info_producer_name: String,
}

impl Default for Params {
    fn default() -> Self {
        Self {
            peak_prefill_throughput: 9000.0,
            measure: true,
            waiting_penalty_ms: 200.0,
            running_penalty_ms: 0.0,
            recompute_weight: 1.0,
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
    for (name, value) in [
        ("waitingPenaltyMs", params.waiting_penalty_ms),
        ("runningPenaltyMs", params.running_penalty_ms),
        ("recomputeWeight", params.recompute_weight),
        ("indifferenceMs", params.indifference_ms),
    ] {
        if !value.is_finite() || value < 0.0 {
            return Err(BuildError::at(name, format!("is {value}, expected a number of at least 0")));
        }
    }
    let plugin = Arc::new(PrefillWait {
        matches: cx.consumes(&params.prefix_match_info_producer_name, Some(approx_prefix_cache::TYPE.name)),
        measures: params.measure,
        waiting_penalty: params.waiting_penalty_ms,
        running_penalty: params.running_penalty_ms,
        recompute_weight: params.recompute_weight,
        indifference: params.indifference_ms,
        beginning: OnceLock::new(),
        ledgers: RwLock::default(),
        pace: Arc::new(Pace::new(params.peak_prefill_throughput)),
        missing: AtomicU64::new(1_f64.to_bits()),
    });
    let roles = Roles::default().scorer(Arc::clone(&plugin) as _);
    Ok(roles.pre_request(Arc::clone(&plugin) as _).response_end(plugin))
}

#[derive(Debug)]
struct PrefillWait {
    matches: Column<PrefixMatch>,
    measures: bool,
    /// Milliseconds.
    waiting_penalty: f64,
    /// Milliseconds.
    running_penalty: f64,
    recompute_weight: f64,
    /// Milliseconds.
    indifference: f64,
    /// The first time that anybody told. Times are counted from there, so that a replay counts like the original.
    beginning: OnceLock<Instant>,
    /// What is not computed, by incarnation.
    ledgers: RwLock<HashMap<u64, Arc<Ledger>>>,
    pace: Arc<Pace>,
    /// Share of prompt tokens that are not cached where they are sent: the bits of a float.
    missing: AtomicU64,
}

impl PrefillWait {
    /// Nanoseconds since the beginning.
    fn nanos(&self, now: Instant) -> u64 {
        let beginning = self.beginning.get_or_init(|| now);
        u64::try_from(now.saturating_duration_since(*beginning).as_nanos()).unwrap_or(u64::MAX)
    }

    fn missing(&self) -> f64 {
        f64::from_bits(self.missing.load(Relaxed))
    }

    fn ledger(&self, incarnation: u64, endpoints: usize) -> Arc<Ledger> {
        if let Some(known) = self.ledgers.read().get(&incarnation) {
            return Arc::clone(known);
        }
        let mut ledgers = self.ledgers.write();
        if ledgers.len() >= 2 * endpoints + SPARE {
            // Whoever has nothing to compute is remembered by nobody else.
            ledgers.retain(|_, ledger| Arc::strong_count(ledger) > 1);
        }
        Arc::clone(ledgers.entry(incarnation).or_default())
    }

    /// Tokens that are to be computed at an endpoint before anything new.
    fn ahead(&self, endpoint: &Endpoint, ledger: Option<&Arc<Ledger>>, now: u64) -> f64 {
        let own = ledger.map_or(0, |ledger| ledger.pending(now)) as f64;
        own + endpoint.load().tokens_elsewhere() as f64 * self.missing()
    }
}

impl Scorer for PrefillWait {
    fn category(&self) -> Category {
        Category::Balance
    }

    fn score(&self, call: &Call<'_>, out: &mut [f64]) {
        uncached_tokens(call, self.matches, out);
        let (now, per_token) = (self.nanos(call.now), self.pace.per_token());
        let ledgers = self.ledgers.read();
        for (estimate, endpoint) in out.iter_mut().zip(call.endpoints()) {
            let ledger = ledgers.get(&endpoint.incarnation());
            let slowness = ledger.map_or(1.0, |ledger| ledger.slowness(now));
            let tokens = *estimate * self.recompute_weight + self.ahead(endpoint, ledger, now);
            let load = endpoint.load();
            let (waiting, all) = (load.waiting_of_others() as f64, load.outstanding() as f64);
            let others = waiting * self.waiting_penalty + all * self.running_penalty;
            *estimate = tokens * per_token * slowness + others;
        }
        drop(ledgers);
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
        // The prompt is computed where a prefill stage is.
        let stage = decided.decision.prefill_target();
        let Some(target) = stage.or_else(|| decided.decision.targets().first()) else { return Ok(None) };
        let mut uncached = vec![0.0; decided.call.len()];
        uncached_tokens(&decided.call, self.matches, &mut uncached);
        let same = |endpoint: &Arc<Endpoint>| endpoint.incarnation() == target.incarnation();
        let place = decided.call.endpoints().position(same);
        let uncached = place.and_then(|place| uncached.get(place)).copied().unwrap_or_default();
        let all = (prompt_size(&decided.call.request) as f64).max(uncached).max(1.0);
        let missing = self.missing() + (uncached / all - self.missing()) * MISS_STEP;
        self.missing.store(missing.to_bits(), Relaxed);
        let at = clock::now();
        let nanos = self.nanos(at);
        let ledger = self.ledger(target.incarnation(), decided.call.len());
        let work = uncached + self.ahead(target, Some(&ledger), nanos);
        let expected = (self.pace.expected(work) * ledger.slowness(nanos) * 1e6) as u64;
        let whole = !decided.call.request.inference.stream;
        let sending = Sending {
            uncached: uncached as u64,
            work,
            alone: target.load().waiting_of_others() == 0,
            at,
            due: whole.then(|| nanos.saturating_add(expected)),
        };
        Ok(Some(Box::new(Sent::new(ledger, Arc::clone(&self.pace), sending))))
    }
}

impl ResponseEndHook for PrefillWait {
    fn on_first_byte(&self, now: Instant, streamed: bool, state: &mut PluginState) {
        if let Some(sent) = state.as_mut().and_then(|state| state.downcast_mut::<Sent>()) {
            sent.answered(now, self.nanos(now), streamed, self.measures);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::*;
    use crate::plugins::fixture::{Fleet, pod, request};
    use crate::pool::{Lease, Reading};

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
    fn a_weight_makes_it_dearer_to_compute_a_prefix_once_more() {
        let mut fleet = Fleet::new([pod("a"), pod("b").waiting(7)]);
        let params = json!({"peakPrefillThroughput": 1000, "waitingPenaltyMs": 100, "recomputeWeight": 2});
        let built = fleet.build(&TYPE, Some(params)).unwrap();
        let columns = fleet.matches(&[0, 10], 10);
        // 640 ms, which count twice, against a wait of 700 ms.
        assert_eq!(fleet.scores(&built.roles, &request("m"), &columns), [0.0, 1.0]);
    }

    #[test]
    fn a_prefix_gets_another_home_when_the_batch_of_its_home_is_too_large() {
        for (running, expected) in [(50, [0.0, 1.0]), (80, [1.0, 0.0])] {
            let mut fleet = Fleet::new([pod("a"), pod("b").running(running)]);
            let params = json!({"peakPrefillThroughput": 2000, "runningPenaltyMs": 5});
            let built = fleet.build(&TYPE, Some(params)).unwrap();
            // 320 ms to compute, against 250 and 400 ms.
            let columns = fleet.matches(&[0, 10], 10);
            assert_eq!(fleet.scores(&built.roles, &request("m"), &columns), expected, "{running}");
        }
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
    fn what_was_sent_since_a_reading_without_a_queue_is_no_queue() {
        let mut fleet = Fleet::new([pod("a").waiting(0).running(3), pod("b").waiting(0)]);
        let built = fleet.build(&TYPE, None).unwrap();
        let columns = fleet.matches(&[10, 0], 10);
        let snapshot = fleet.snapshot();
        let _leases: Vec<Lease> = (0..8).map(|_| Lease::take(&snapshot.endpoints()[0], 640)).collect();
        assert_eq!(fleet.scores(&built.roles, &request("m"), &columns), [1.0, 0.0]);
        // The next reading counts them all as waiting: they are no load of others.
        let load = snapshot.endpoints()[0].load();
        load.record(Reading { waiting: Some(8), ..Reading::default() }, load.dispatched(), fleet.now);
        assert_eq!(fleet.scores(&built.roles, &request("m"), &columns), [1.0, 0.0]);
    }

    #[test]
    fn uncached_tokens_are_pending_until_the_first_byte_or_until_the_request_goes() {
        let mut fleet = Fleet::new([pod("a"), pod("b")]);
        let built = fleet.build(&TYPE, Some(json!({}))).unwrap();
        let columns = fleet.matches(&[0, 0], 10);
        let mut asked = request("m");
        asked.inference.stream = true;
        let scores = |fleet: &Fleet| fleet.scores(&built.roles, &request("m"), &columns);
        for answered in [true, false] {
            let mut state = fleet.forwarded(&built.roles, &asked, &columns, &[Some(0)], &[0, 1]);
            assert_eq!(scores(&fleet), [0.0, 1.0]);
            if answered {
                let now = fleet.now + Duration::from_millis(80);
                built.roles.response_end.as_ref().unwrap().on_first_byte(now, true, &mut state);
                assert_eq!(scores(&fleet), [1.0, 1.0]);
            }
            drop(state);
            assert_eq!(scores(&fleet), [1.0, 1.0]);
        }
    }

    #[test]
    fn a_prompt_whose_answer_comes_in_one_piece_is_taken_to_be_computed_in_its_time() {
        let mut fleet = Fleet::new([pod("a"), pod("b")]);
        let built = fleet.build(&TYPE, Some(json!({"peakPrefillThroughput": 1000}))).unwrap();
        let columns = fleet.matches(&[0, 0], 10);
        let _still = clock::stand_still(fleet.now);
        let _state = fleet.forwarded(&built.roles, &request("m"), &columns, &[Some(0)], &[0, 1]);
        for (ms, expected) in [(600, [0.0, 1.0]), (700, [1.0, 1.0])] {
            fleet.now += Duration::from_millis(ms);
            assert_eq!(fleet.scores(&built.roles, &request("m"), &columns), expected, "{ms}");
        }
    }

    #[test]
    fn prompts_of_peers_count_by_the_share_that_is_not_cached() {
        let mut fleet = Fleet::new([pod("a"), pod("b"), pod("c")]);
        let built = fleet.build(&TYPE, Some(json!({}))).unwrap();
        let columns = fleet.matches(&[10, 10, 0], 10);
        let share = crate::pool::Share { tokens: 320, ..crate::pool::Share::default() };
        fleet.snapshot().endpoints()[0].load().set_elsewhere(share, 0);
        assert_eq!(fleet.scores(&built.roles, &request("m"), &columns), [0.5, 1.0, 0.0]);
    }

    #[test]
    fn an_endpoint_that_answers_slowly_is_left_to_others() {
        let mut fleet = Fleet::new([pod("a"), pod("b")]);
        let built = fleet.build(&TYPE, Some(json!({}))).unwrap();
        let columns = fleet.matches(&[0, 0], 100);
        let mut asked = request("m");
        asked.inference.stream = true;
        let hook = built.roles.response_end.as_ref().unwrap();
        for _ in 0..12 {
            for (place, ms) in [(0, 700), (1, 1800)] {
                let _still = clock::stand_still(fleet.now);
                let mut state = fleet.forwarded(&built.roles, &asked, &columns, &[Some(place)], &[0, 1]);
                hook.on_first_byte(fleet.now + Duration::from_millis(ms), true, &mut state);
            }
        }
        assert_eq!(fleet.scores(&built.roles, &request("m"), &columns), [1.0, 0.0]);
    }

    #[test]
    fn senseless_parameters_are_refused_by_name() {
        let mut fleet = Fleet::new([]);
        for name in [
            "waitingPenaltyMs",
            "runningPenaltyMs",
            "recomputeWeight",
            "indifferenceMs",
            "peakPrefillThroughput",
        ] {
            let error = fleet.build(&TYPE, Some(json!({name: -1}))).err();
            assert_eq!(error.map(|error| error.path), Some(name.to_owned()));
        }
    }
}
