//! `token-load-scorer`: prefers endpoints with fewer tokens in flight of the requests that this process sent.
//!
//! With the threshold `T` and `t` tokens, those in flight and those of this request that the endpoint would have to
//! prefill: `1 − min(t, T) / T`. The tokens to prefill are the blocks that are not matched there, or the whole prompt
//! where nothing produces matches; all of them are estimates. It reads the ledger of leases, which is exact at once and
//! needs no scrape.
//!
//! Use it where prompts differ much in length, so that a count of requests says little. It costs one pass over the
//! candidates.

use std::sync::Arc;

use schemars::JsonSchema;

use serde::Deserialize;

use super::uncached_tokens;
use crate::plugins::load_producer::note_load_producer;
use crate::plugins::producers::approx_prefix_cache;
use crate::plugins::{BuildCx, BuildError, PluginType, Roles, Stability};
use crate::prefix::PrefixMatch;
use crate::scheduling::{Call, Category, Column, Scorer};

/// Registry row.
pub static TYPE: PluginType = PluginType::new("token-load-scorer", Stability::Beta, build).about(
    "Prefers endpoints with fewer tokens in flight of the requests that this process sent.",
    "Use it where prompts differ much in length, so that a count of requests says little. It costs one \
         pass over the candidates.",
);

/// Tokens in flight at which an endpoint scores 0, unless set: 4 Mi.
const DEFAULT_THRESHOLD: i64 = 4_194_304;

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Params {
    /// Tokens in flight at which an endpoint scores 0; 0 and less mean the default.
    queue_threshold_tokens: i64,
    /// Without effect: the ledger is always there.
    in_flight_load_producer_name: Option<String>,
}

impl Default for Params {
    fn default() -> Self {
        Self { queue_threshold_tokens: DEFAULT_THRESHOLD, in_flight_load_producer_name: None }
    }
}

fn build(cx: &mut BuildCx<'_>) -> Result<Roles, BuildError> {
    let params: Params = cx.params()?;
    note_load_producer(cx, params.in_flight_load_producer_name.as_deref());
    let given = params.queue_threshold_tokens;
    if given < 1 {
        cx.warn(format!("queueThresholdTokens: {given} is below 1, using {DEFAULT_THRESHOLD}"));
    }
    let threshold = if given < 1 { DEFAULT_THRESHOLD } else { given } as f64;
    let matches = cx.may_consume(approx_prefix_cache::TYPE.name);
    Ok(Roles::default().scorer(Arc::new(TokenLoad { threshold, matches })))
}

#[derive(Debug)]
struct TokenLoad {
    threshold: f64,
    matches: Column<PrefixMatch>,
}

impl Scorer for TokenLoad {
    fn category(&self) -> Category {
        Category::Distribution
    }

    fn score(&self, call: &Call<'_>, out: &mut [f64]) {
        uncached_tokens(call, self.matches, out);
        for (score, endpoint) in out.iter_mut().zip(call.endpoints()) {
            let tokens = endpoint.load().in_flight_tokens() as f64 + *score;
            *score = 1.0 - tokens.min(self.threshold) / self.threshold;
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::plugins::fixture::{Fleet, pod, request};
    use crate::pool::Lease;
    use crate::scheduling::Columns;

    #[test]
    fn the_share_of_the_threshold_that_is_in_flight_or_to_prefill_is_taken_off() {
        let mut fleet = Fleet::new([pod("a"), pod("b"), pod("c")]);
        let built = fleet.build(&TYPE, Some(json!({"queueThresholdTokens": 1000}))).unwrap();
        let snapshot = fleet.snapshot();
        let leases: Vec<Lease> = [(1, 250), (2, 5000)]
            .into_iter()
            .map(|(place, tokens)| Lease::take(&snapshot.endpoints()[place], tokens))
            .collect();
        let scores = |request, columns: &Columns| fleet.scores(&built.roles, request, columns);
        let (empty, long) = (request("m"), request("m").prompt(&"x".repeat(400)));
        assert_eq!(scores(&empty, &Columns::new()), [1.0, 0.75, 0.0]);
        assert_eq!(scores(&long, &Columns::new()), [0.9, 0.65, 0.0]);
        drop(leases);
        assert_eq!(scores(&empty, &Columns::new()), [1.0; 3]);
    }

    #[test]
    fn exact_tokens_count_instead_of_the_estimate() {
        let mut fleet = Fleet::new([pod("a")]);
        let built = fleet.build(&TYPE, Some(json!({"queueThresholdTokens": 1000}))).unwrap();
        let request = request("m").prompt(&"x".repeat(400)).tokens(0..250);
        assert_eq!(fleet.scores(&built.roles, &request, &Columns::new()), [0.75]);
    }

    #[test]
    fn matched_blocks_need_no_prefill() {
        let mut fleet = Fleet::new([pod("a"), pod("b")]);
        let built = fleet.build(&TYPE, Some(json!({"queueThresholdTokens": 6400}))).unwrap();
        let columns = fleet.matches(&[10, 0], 10);
        assert_eq!(fleet.scores(&built.roles, &request("m"), &columns), [1.0, 0.9]);
    }

    #[test]
    fn no_candidates_get_no_scores_and_a_threshold_below_one_is_the_default() {
        let mut fleet = Fleet::new([]);
        let built = fleet.build(&TYPE, Some(json!({"queueThresholdTokens": 0}))).unwrap();
        assert!(built.warnings[0].contains("4194304"), "{:?}", built.warnings);
        assert!(fleet.scores(&built.roles, &request("m"), &Columns::new()).is_empty());
    }
}
