//! `lmetric-scorer`: prefers endpoints where few uncached prompt tokens meet few requests.
//!
//! `v = uncached tokens · (in flight + 1)`; the score is `(max − v) / (max − min)` over the endpoints in the running, 1
//! if all are equal. Uncached tokens are the blocks of the prompt that are not matched there, or the whole prompt where
//! nothing produces matches. In flight are the requests of this process and its peers. The formula and the name are
//! the reference's; it multiplies because a miss costs most where many wait behind it.
//!
//! For it: it needs no weights and no scrape. Against it: a wholly cached prompt makes `v` 0 however busy the endpoint
//! is, and load that others bring is not seen. Cost: two passes over the candidates.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::Deserialize;

use super::{lowest_is_best, uncached_tokens};
use crate::plugins::producers::approx_prefix_cache;
use crate::plugins::{BuildCx, BuildError, PluginType, Roles, Stability};
use crate::prefix::PrefixMatch;
use crate::scheduling::{Call, Category, Column, Scorer};

/// Registry row.
pub static TYPE: PluginType = PluginType::new("lmetric-scorer", Stability::Alpha, build).about(
    "Prefers endpoints where few uncached prompt tokens meet few requests in flight.",
    "Use it alone, where prompts share prefixes and this process sends all the load. It costs two passes over the \
         candidates and keeps a prefix index.",
);

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Params {
    /// Instance that produces the matches.
    prefix_match_info_producer_name: String,
}

impl Default for Params {
    fn default() -> Self {
        Self { prefix_match_info_producer_name: approx_prefix_cache::TYPE.name.to_owned() }
    }
}

fn build(cx: &mut BuildCx<'_>) -> Result<Roles, BuildError> {
    let params: Params = cx.params()?;
    let matches = cx.consumes(&params.prefix_match_info_producer_name, Some(approx_prefix_cache::TYPE.name));
    Ok(Roles::default().scorer(Arc::new(Lmetric { matches })))
}

#[derive(Debug)]
struct Lmetric {
    matches: Column<PrefixMatch>,
}

impl Scorer for Lmetric {
    fn category(&self) -> Category {
        Category::Balance
    }

    fn score(&self, call: &Call<'_>, out: &mut [f64]) {
        uncached_tokens(call, self.matches, out);
        for (value, endpoint) in out.iter_mut().zip(call.endpoints()) {
            *value *= endpoint.load().in_flight() as f64 + 1.0;
        }
        lowest_is_best(out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugins::fixture::{Fleet, pod, request};
    use crate::pool::Lease;

    #[test]
    fn uncached_tokens_count_as_often_as_requests_are_in_flight() {
        let mut fleet = Fleet::new([pod("a"), pod("b"), pod("c")]);
        let built = fleet.build(&TYPE, None).unwrap();
        let columns = fleet.matches(&[8, 4, 0], 10);
        let score = |fleet: &Fleet| fleet.scores(&built.roles, &request("m"), &columns);
        // 2, 6 and 10 blocks are missing.
        assert_eq!(score(&fleet), [1.0, 0.5, 0.0]);
        let snapshot = fleet.snapshot();
        let _leases: Vec<Lease> = (0..4).map(|_| Lease::take(&snapshot.endpoints()[0], 1)).collect();
        // 2 · 5, 6 and 10.
        assert_eq!(score(&fleet), [0.0, 1.0, 0.0]);
    }
}
