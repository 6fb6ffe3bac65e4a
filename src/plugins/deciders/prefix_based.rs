//! `prefix-based-pd-decider`: a prompt is processed by a prefill server if the decode server holds too little of it.
//!
//! With `L` tokens in the prompt, of which the chosen decode server holds `hit`: yes if `L ≥ promptTokens`, `L ≥
//! nonCachedTokens` and `L − hit ≥ nonCachedTokens`. `nonCachedTokens: 0` is never. Without a decode server (the order
//! `prefill-first`), and without matches of a prefix producer, the answer is no. Tokens are estimated, four bytes of
//! text each, as the approximate prefix index estimates them.
//!
//! `nonCachedTokens: auto` learns the threshold from the times to the first token of streamed answers (`learned.rs`): with
//! and without a prefill server. It begins at 512. Of the prompts near the threshold one in 32 goes the other way, or one
//! in 8 while little is known. `/debug/plugins/state` shows what was learned.
//!
//! Use it where short or mostly cached prompts are faster on the decode server alone. It costs one pass over the prompt
//! to count its tokens, and keeps the approximate prefix index.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use parking_lot::Mutex;
use schemars::JsonSchema;

use serde::{Deserialize, Serialize};

use crate::plugins::producers::approx_prefix_cache;
use crate::plugins::prompt_size::prompt_size;
use crate::plugins::{BuildCx, BuildError, PluginType, Roles, Stability};
use crate::pool::Endpoint;
use crate::prefix::PrefixMatch;
use crate::scheduling::{
    Call, Column, DecidedCall, Decider, HeaderEdits, PluginState, PreRequest, PreRequestError,
    ResponseEndHook,
};

mod learned;

use learned::Learned;

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
    /// Tokens that the decode server does not hold, from which a prompt is prefilled apart; 0 is never, `auto` learns it
    /// from times to the first token.
    non_cached_tokens: Threshold,
    /// Tokens that a prompt must have to be prefilled apart; 0 is no bound.
    prompt_tokens: i64,
}

/// A number of tokens, or a word.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(untagged, expecting = "expected 0, a number of tokens or `auto`")]
enum Threshold {
    /// So many tokens.
    Tokens(i64),
    /// `auto`.
    Word(String),
}

impl Default for Threshold {
    fn default() -> Self {
        Self::Tokens(0)
    }
}

fn build(cx: &mut BuildCx<'_>) -> Result<Roles, BuildError> {
    let params: Params = cx.params()?;
    let count = |parameter: &str, value: i64| {
        u64::try_from(value)
            .map_err(|_| BuildError::at(parameter, format!("is {value}; expected 0 or a number of tokens")))
    };
    let (non_cached, auto) = match &params.non_cached_tokens {
        Threshold::Tokens(tokens) => (count("nonCachedTokens", *tokens)?, None),
        Threshold::Word(word) if word.eq_ignore_ascii_case("auto") => {
            (learned::FIRST_GUESS, Some(Auto::default()))
        }
        Threshold::Word(word) => {
            let message = format!("is \"{word}\"; expected 0, a number of tokens or `auto`");
            return Err(BuildError::at("nonCachedTokens", message));
        }
    };
    let plugin = PrefixBased {
        non_cached,
        auto,
        shortest: count("promptTokens", params.prompt_tokens)?,
        matches: cx.consumes(approx_prefix_cache::TYPE.name, Some(approx_prefix_cache::TYPE.name)),
    };
    if plugin.non_cached == 0 {
        cx.warn("never says yes: nonCachedTokens is 0; give the uncached tokens from which prefill pays");
    }
    let plugin = Arc::new(plugin);
    let roles = Roles::default().decider(Arc::clone(&plugin) as Arc<dyn Decider>);
    if plugin.auto.is_none() {
        return Ok(roles);
    }
    let watched = Arc::clone(&plugin);
    let roles = roles.pre_request(Arc::clone(&plugin) as Arc<dyn PreRequest>).response_end(plugin);
    Ok(roles.state(move || watched.state()))
}

#[derive(Debug)]
struct PrefixBased {
    non_cached: u64,
    shortest: u64,
    matches: Column<PrefixMatch>,
    /// Where the threshold is learned.
    auto: Option<Auto>,
}

/// What learns the threshold. Deciding reads numbers; the lock is held while a first token is taken down.
#[derive(Debug)]
struct Auto {
    learned: Mutex<Learned>,
    threshold: AtomicU64,
    /// 1 as soon as the threshold is no guess.
    known: AtomicU64,
    requests: AtomicU64,
}

impl Default for Auto {
    fn default() -> Self {
        Self {
            learned: Mutex::default(),
            threshold: AtomicU64::new(learned::FIRST_GUESS),
            known: AtomicU64::new(0),
            requests: AtomicU64::new(0),
        }
    }
}

impl Auto {
    fn decide(&self, uncached: u64) -> bool {
        let number = self.requests.fetch_add(1, Ordering::Relaxed);
        let known = self.known.load(Ordering::Relaxed) > 0;
        learned::decide(uncached, self.threshold.load(Ordering::Relaxed), known, number)
    }

    fn note(&self, sent: &Sent, now: Instant) {
        let seconds = now.saturating_duration_since(sent.began).as_secs_f64();
        let mut learned = self.learned.lock();
        learned.note(sent.uncached, seconds, sent.split);
        self.threshold.store(learned.threshold(), Ordering::Relaxed);
        self.known.store(u64::from(learned.is_known()), Ordering::Relaxed);
    }
}

/// A request whose first token is awaited.
struct Sent {
    uncached: u64,
    split: bool,
    began: Instant,
}

impl PrefixBased {
    /// Tokens of the prompt, and how many of them `target` does not hold. Nothing without a producer of matches.
    fn count(&self, call: &Call<'_>, target: &Arc<Endpoint>) -> Option<(u64, u64)> {
        let matches = call.columns().slice(self.matches)?;
        let same = |(endpoint, _): &(&Arc<Endpoint>, _)| Arc::ptr_eq(endpoint, target);
        let (_, held) = call.candidates().iter().zip(matches).find(same)?;
        let tokens = prompt_size(&call.request);
        let cached = u64::from(held.cached) * u64::from(held.block_size);
        Some((tokens, tokens.saturating_sub(cached)))
    }

    fn state(&self) -> serde_json::Value {
        let Some(auto) = &self.auto else { return serde_json::Value::Null };
        let known = auto.known.load(Ordering::Relaxed) > 0;
        serde_json::json!({"nonCachedTokens": auto.threshold.load(Ordering::Relaxed), "learned": known})
    }
}

impl Decider for PrefixBased {
    fn decide(&self, call: &Call<'_>, target: Option<&Arc<Endpoint>>) -> bool {
        let (1.., Some(target)) = (self.non_cached, target) else { return false };
        let Some((tokens, uncached)) = self.count(call, target) else { return false };
        let long = tokens >= self.shortest;
        long && self.auto.as_ref().map_or(uncached >= self.non_cached, |auto| auto.decide(uncached))
    }
}

impl PreRequest for PrefixBased {
    fn before_forward(
        &self,
        decided: &DecidedCall<'_>,
        _headers: &mut HeaderEdits,
    ) -> Result<PluginState, PreRequestError> {
        let Some(target) = decided.decision.targets().first() else { return Ok(None) };
        // The time to encode media is no part of either line.
        let counted =
            self.count(&decided.call, target).filter(|_| decided.decision.encode_targets().is_empty());
        let Some((_, uncached)) = counted else { return Ok(None) };
        let split = decided.decision.prefill_target().is_some();
        Ok(Some(Box::new(Sent { uncached, split, began: decided.call.now })))
    }
}

impl ResponseEndHook for PrefixBased {
    fn on_first_byte(&self, now: Instant, streamed: bool, state: &mut PluginState) {
        if !streamed {
            return;
        }
        let sent = state.as_ref().and_then(|state| state.downcast_ref::<Sent>());
        if let (Some(auto), Some(sent)) = (&self.auto, sent) {
            auto.note(sent, now);
        }
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
    fn the_threshold_is_learned_from_first_tokens() {
        let mut fleet = Fleet::new([pod("a"), pod("b")]);
        let built = fleet.build(&TYPE, Some(json!({"nonCachedTokens": "auto"}))).unwrap();
        let columns = fleet.matches(&[0, 0], 1000);
        let target = Arc::clone(&fleet.snapshot().endpoints()[0]);
        let hook = built.roles.response_end.as_ref().unwrap();
        let state = || built.roles.state.as_ref().unwrap().read();
        assert_eq!(state(), json!({"nonCachedTokens": 512, "learned": false}));
        for round in 0..40 {
            let tokens = 500 + 300 * (round % 10);
            let request = request("m").prompt(&"x".repeat(4 * tokens));
            for (chosen, micros) in
                [(vec![Some(0), None], 10_000 + 50 * tokens), (vec![Some(0), Some(1)], 100_000 + 10 * tokens)]
            {
                let decision = fleet.decision(&chosen, &[]);
                fleet.call(&request, &columns, |call| {
                    let profiles = ["decode".into(), "prefill".into()];
                    let decided = DecidedCall { call: *call, decision: &decision, profiles: &profiles };
                    let hooks = built.roles.pre_request.as_ref().unwrap();
                    let mut sent = hooks.before_forward(&decided, &mut HeaderEdits::default()).unwrap();
                    let now = call.now + std::time::Duration::from_micros(micros as u64);
                    hook.on_first_byte(now, true, &mut sent);
                });
            }
        }
        let learned = state()["nonCachedTokens"].as_u64().unwrap();
        assert!((2200..=2300).contains(&learned), "{learned}");
        for (tokens, expected) in [(500, false), (9500, true)] {
            let request = request("m").prompt(&"x".repeat(4 * tokens));
            assert_eq!(fleet.decides(&built.roles, &request, &columns, Some(&target)), expected, "{tokens}");
        }
    }

    #[test]
    fn words_other_than_auto_are_refused_and_numbers_learn_nothing() {
        let error = Fleet::new([]).build(&TYPE, Some(json!({"nonCachedTokens": "many"}))).unwrap_err();
        assert_eq!(error.path, "nonCachedTokens");
        let fixed = Fleet::new([]).build(&TYPE, Some(json!({"nonCachedTokens": 5}))).unwrap();
        assert!(fixed.roles.pre_request.is_none() && fixed.roles.response_headers.is_none());
    }

    #[test]
    fn negative_numbers_of_tokens_are_refused_by_name() {
        for parameter in ["nonCachedTokens", "promptTokens"] {
            let error = Fleet::new([]).build(&TYPE, Some(json!({parameter: -1}))).unwrap_err();
            assert_eq!(error.path, parameter);
        }
    }
}
