//! `prefix-based-pd-decider`: a prompt is processed by a prefill server if the decode server holds too little of it.
//!
//! With `L` tokens in the prompt, of which the chosen decode server holds `hit`: yes if `L ≥ promptTokens`, `L ≥
//! nonCachedTokens` and `L − hit ≥ nonCachedTokens`. `nonCachedTokens: 0` is never. Without a decode server (the order
//! `prefill-first`), and without matches of a prefix producer, the answer is no. Tokens are estimated, four bytes of
//! text each, as the approximate prefix index estimates them.
//!
//! Use it where short or mostly cached prompts are faster on the decode server alone. It costs one pass over the prompt
//! to count its tokens, and keeps the approximate prefix index.

use std::sync::Arc;

use schemars::JsonSchema;

use serde::Deserialize;

use crate::plugins::producers::approx_prefix_cache;
use crate::plugins::{BuildCx, BuildError, PluginType, Roles, Stability};
use crate::pool::Endpoint;
use crate::prefix::{PrefixMatch, prompt_tokens};
use crate::request::Tokenized;
use crate::scheduling::{Call, Column, Decider};

/// Registry row.
pub static TYPE: PluginType = PluginType::new("prefix-based-pd-decider", Stability::Beta, build)
    .about(
        "Sends a prompt to a prefill server if the decode server holds too little of it.",
        "Use it where short or mostly cached prompts are faster on the decode server alone. It costs one \
         pass over the prompt to count its tokens, and it keeps a prefix index.",
    )
    .with_example("nonCachedTokens: 512");

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Params {
    /// Tokens that the decode server does not hold, from which a prompt is prefilled apart; 0 is never.
    non_cached_tokens: i64,
    /// Tokens that a prompt must have to be prefilled apart; 0 is no bound.
    prompt_tokens: i64,
}

fn build(cx: &mut BuildCx<'_>) -> Result<Roles, BuildError> {
    let params: Params = cx.params()?;
    let count = |parameter: &str, value: i64| {
        u64::try_from(value)
            .map_err(|_| BuildError::at(parameter, format!("is {value}; expected 0 or a number of tokens")))
    };
    let plugin = PrefixBased {
        non_cached: count("nonCachedTokens", params.non_cached_tokens)?,
        shortest: count("promptTokens", params.prompt_tokens)?,
        matches: cx.consumes(approx_prefix_cache::TYPE.name, Some(approx_prefix_cache::TYPE.name)),
    };
    if plugin.non_cached == 0 {
        cx.warn("never says yes: nonCachedTokens is 0; give the uncached tokens from which prefill pays");
    }
    Ok(Roles::default().decider(Arc::new(plugin)))
}

#[derive(Debug)]
struct PrefixBased {
    non_cached: u64,
    shortest: u64,
    matches: Column<PrefixMatch>,
}

impl Decider for PrefixBased {
    fn decide(&self, call: &Call<'_>, target: Option<&Arc<Endpoint>>) -> bool {
        let (1.., Some(target)) = (self.non_cached, target) else { return false };
        let Some(matches) = call.columns().slice(self.matches) else { return false };
        let same = |(endpoint, _): &(&Arc<Endpoint>, _)| Arc::ptr_eq(endpoint, target);
        let Some((_, held)) = call.candidates().iter().zip(matches).find(same) else { return false };
        let request = &call.request;
        let estimate = || prompt_tokens(request.inference, request.body, request.media_rules());
        let tokens = request.tokens.map_or_else(estimate, Tokenized::count);
        let cached = u64::from(held.cached) * u64::from(held.block_size);
        tokens >= self.shortest && tokens.saturating_sub(cached) >= self.non_cached
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::plugins::fixture::{Fleet, pod, request};
    use crate::scheduling::Columns;

    /// A prompt of `tokens` tokens; decode servers `a` and `b`, of which `a` holds `cached` blocks of 64.
    #[track_caller]
    fn check(params: &Value, tokens: usize, cached: u32, expected: bool) {
        let mut fleet = Fleet::new([pod("a"), pod("b")]);
        let built = fleet.build(&TYPE, Some(params.clone())).unwrap();
        let columns = fleet.matches(&[cached, 0], 100);
        let request = request("m").prompt(&"x".repeat(4 * tokens));
        let target = Arc::clone(&fleet.snapshot().endpoints()[0]);
        let decided = fleet.decides(&built.roles, &request, &columns, Some(&target));
        assert_eq!(decided, expected, "{params} {tokens} {cached}");
    }

    #[test]
    fn a_prompt_is_prefilled_apart_from_as_many_uncached_tokens_as_configured() {
        let at = |tokens: u64| json!({"nonCachedTokens": tokens});
        for (params, tokens, cached, expected) in [
            (json!({}), 100_000, 0, false),
            (at(0), 100_000, 0, false),
            (at(100), 99, 0, false),
            (at(100), 100, 0, true),
            (at(100), 163, 1, false),
            (at(100), 164, 1, true),
            // Whole blocks may be more than the prompt has.
            (at(1), 100, 2, false),
            (at(16), 0, 0, false),
            (json!({"nonCachedTokens": 10, "promptTokens": 200}), 199, 0, false),
            (json!({"nonCachedTokens": 10, "promptTokens": 200}), 200, 0, true),
            (json!({"nonCachedTokens": 300, "promptTokens": 200}), 250, 0, false),
        ] {
            check(&params, tokens, cached, expected);
        }
    }

    #[test]
    fn exact_tokens_count_instead_of_the_estimate() {
        let mut fleet = Fleet::new([pod("a")]);
        let built = fleet.build(&TYPE, Some(json!({"nonCachedTokens": 100}))).unwrap();
        let target = Arc::clone(&fleet.snapshot().endpoints()[0]);
        let columns = fleet.matches(&[0], 10);
        for (tokens, expected) in [(99, false), (100, true)] {
            let request = request("m").prompt("short").tokens(0..tokens);
            assert_eq!(fleet.decides(&built.roles, &request, &columns, Some(&target)), expected, "{tokens}");
        }
    }

    #[test]
    fn without_a_target_or_matches_the_answer_is_no() {
        let mut fleet = Fleet::new([pod("a")]);
        let built = fleet.build(&TYPE, Some(json!({"nonCachedTokens": 1}))).unwrap();
        let request = request("m").prompt("a long prompt");
        let target = Arc::clone(&fleet.snapshot().endpoints()[0]);
        assert!(!fleet.decides(&built.roles, &request, &fleet.matches(&[0], 1), None));
        assert!(!fleet.decides(&built.roles, &request, &Columns::new(), Some(&target)));
        let stranger = Fleet::new([pod("z")]).snapshot().endpoints()[0].clone();
        assert!(!fleet.decides(&built.roles, &request, &fleet.matches(&[0], 1), Some(&stranger)));
    }

    #[test]
    fn negative_numbers_of_tokens_are_refused_by_name() {
        for parameter in ["nonCachedTokens", "promptTokens"] {
            let error = Fleet::new([]).build(&TYPE, Some(json!({parameter: -1}))).unwrap_err();
            assert_eq!(error.path, parameter);
        }
    }
}
