//! `precise-prefix-cache-producer`: says how much of the prompt each endpoint holds, by what the engines tell of their
//! caches. `precise-prefix-cache-scorer`: the same with a scorer of its own, as earlier releases have it.
//!
//! The engines publish each block that they store and remove; the index keeps them ([`crate::prefix::precise`]). The
//! request's exact tokens, which a `token-producer` finds out before or the prompt itself gives, are cut into blocks of
//! the engine's own size, so
//! that `blockSizeTokens` counts only for engines that have told nothing yet.
//!
//! Answers and events show whether the tokens are those of the servers (`prover`). Where they are not, and where there
//! are none, the approximate index decides (`approximate`).
//!
//! Produces [`PrefixMatch`] for each candidate: the blocks it holds from the beginning of the prompt on, those outside
//! of the accelerator's memory by the weight of their tier. Cost: hashing the tokens, and a probe a block until none of
//! the candidates holds one.

mod approximate;
mod page;
mod params;
mod prover;

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use smallvec::SmallVec;

use self::approximate::Approximate;
use self::page::{Page, TIERS};
use self::params::{Params, event_settings, weights};
use self::prover::{Expected, Prediction, Prover};
use super::prefix_metrics::{observe_chosen, show_size};
use crate::kvevents::{Ages, EventListener};
use crate::metrics::{PrefixIndexMetrics, ProofMetrics};
use crate::plugins::{BuildCx, BuildError, PluginType, Roles, Stability, StateReader};
use crate::pool::{Endpoint, Snapshot};
use crate::prefix::PrefixMatch;
use crate::prefix::precise::{PreciseIndex, PromptKeys};
use crate::request::{Piece, Tokenized, TokenizedPrompt, token_ids};
use crate::scheduling::{
    Call, Category, Column, DecidedCall, EndedCall, HeaderEdits, PluginState, PreRequest, PreRequestError,
    Produced, Producer, RequestView, ResponseEndHook, Scorer,
};

/// Registry row.
pub static TYPE: PluginType = PluginType::new("precise-prefix-cache-producer", Stability::Beta, build).about(
    "Says how much of the prompt each endpoint holds, by the cache events that the engines publish.",
    "Use it, with prefix-cache-scorer and a token-producer that makes exact tokens, where engines publish \
     their cache events and caches turn over fast. It costs memory for every cached block of the pool, and a \
     probe a block of the prompt.",
);

/// Registry row of the bundle with a scorer.
pub static SCORER: PluginType = PluginType::new("precise-prefix-cache-scorer", Stability::Beta, build_scorer)
    .about(
        "Prefers endpoints that hold more of the prompt, by the cache events that the engines publish.",
        "Use precise-prefix-cache-producer and prefix-cache-scorer in new configurations; this is both in one. \
         It costs what they cost.",
    );

/// Different block sizes among the candidates that are looked at.
const MAX_SIZES: usize = 4;
/// Prompts of a request that are looked at, and tokens of those that the client sends as ids.
const MAX_PROMPTS: usize = 1024;
const MAX_TOKENS: usize = 1 << 20;

fn build(cx: &mut BuildCx<'_>) -> Result<Roles, BuildError> {
    Ok(roles(cx, TYPE.reports_as)?.0)
}

fn build_scorer(cx: &mut BuildCx<'_>) -> Result<Roles, BuildError> {
    let (roles, matches) = roles(cx, SCORER.reports_as)?;
    Ok(roles.scorer(Arc::new(ByMatch(matches))))
}

fn roles(cx: &mut BuildCx<'_>, kind: &'static str) -> Result<(Roles, Column<PrefixMatch>), BuildError> {
    let params: Params = cx.params()?;
    let events = event_settings(cx, &params.kv_events_config)?;
    let weights = weights(cx, &params.indexer_config)?;
    let (seed, retry) = (params.hash_seed()?, params.retry_after()?);
    let index = Arc::new(PreciseIndex::new(cx.prefix_memory(), seed, weights, cx.seed()));
    let (ages, seen) = (Ages::default(), Arc::<Mutex<Option<Arc<Snapshot>>>>::default());
    let metrics = cx.metrics().proof(cx.name());
    let prover =
        params.proof.enabled.then(|| Arc::new(Prover::new(Arc::clone(&index), metrics.clone(), retry)));
    let tick = {
        let (index, prover, metrics) = (Arc::clone(&index), prover.clone(), metrics.clone());
        let seen = Arc::clone(&seen);
        move |snapshot: &Arc<Snapshot>, now: Instant| {
            *seen.lock() = Some(Arc::clone(snapshot));
            for (tier, blocks) in TIERS.into_iter().zip(index.blocks_by_place()) {
                metrics.blocks(tier, blocks);
            }
            if let Some(prover) = &prover {
                prover.settle(snapshot, now);
            }
        }
    };
    let kv_events = cx.metrics().kv_events();
    let listener = EventListener::new(events, Arc::clone(&index), kv_events, ages.clone(), Box::new(tick));
    let matches = cx.produces();
    let approximate = params
        .proof
        .approximate_fallback
        .then(|| Approximate::new(cx.produces(), cx.prefix_memory(), cx.seed()));
    let plugin = Arc::new(PrecisePrefixCache {
        matches,
        index,
        approximate,
        prover,
        block_size: params.block_size(),
        speculation: params.speculation()?,
        metrics: cx.metrics().prefix_index(kind, cx.name()),
        proof: metrics,
    });
    plugin.report();
    let page = Page {
        index: Arc::clone(&plugin.index),
        prover: plugin.prover.clone(),
        approximates: plugin.approximate.is_some(),
        ages,
        snapshot: seen,
    };
    let mut roles =
        Roles { follows_endpoints: true, kv_events: Some(Arc::new(listener)), ..Roles::default() };
    roles.prefix = Some(StateReader::new(move || page.read()));
    if plugin.prover.is_some() {
        roles = roles.response_end(Arc::clone(&plugin) as _);
    }
    Ok((roles.producer(Arc::clone(&plugin) as _).pre_request(plugin), matches))
}

#[derive(Debug)]
struct PrecisePrefixCache {
    matches: Column<PrefixMatch>,
    index: Arc<PreciseIndex>,
    /// Decides where exact tokens cannot.
    approximate: Option<Approximate>,
    /// Compares with what servers say.
    prover: Option<Arc<Prover>>,
    /// Of engines that have told nothing yet.
    block_size: u32,
    /// How long what was sent counts, if it does.
    speculation: Option<Duration>,
    metrics: PrefixIndexMetrics,
    proof: ProofMetrics,
}

impl PrecisePrefixCache {
    fn report(&self) {
        show_size(&self.metrics, self.index.entries(), self.index.memory());
    }

    /// Keys of the request's prompts in blocks of this size.
    fn keys(&self, request: &RequestView<'_>, tokens: &Tokenized, block_size: u32) -> Vec<PromptKeys> {
        let salt = request.inference.cache_salt.as_ref().map(|salt| salt.text(request.body));
        let name = self.index.adapter(request.target_model);
        let salt = salt.unwrap_or_default();
        let keys = self.index.keys();
        let prompts = tokens.prompts.iter().take(MAX_PROMPTS);
        prompts.map(|prompt| keys.of_prompt(name, prompt, &salt, block_size)).collect()
    }

    /// Tokens of a block of each of these endpoints.
    fn sizes(&self, endpoints: &[&Endpoint]) -> Vec<u32> {
        let told = self.index.block_sizes(endpoints).into_iter();
        told.map(|size| size.unwrap_or(self.block_size)).collect()
    }

    /// The request was decided: its blocks will soon be on the endpoints that process it.
    fn expect(&self, decided: &DecidedCall<'_>, tokens: &Tokenized, until: Instant) {
        let request = &decided.call.request;
        let endpoints: SmallVec<[&Endpoint; 2]> =
            super::caching_targets(decided).map(AsRef::as_ref).collect();
        for (endpoint, size) in endpoints.iter().zip(self.sizes(&endpoints)) {
            self.index.sent(endpoint, &self.keys(request, tokens, size), until);
        }
    }

    /// Whether each of these endpoints may be judged by exact tokens.
    fn trusted(&self, model: &str, endpoints: &[&Endpoint]) -> Vec<bool> {
        let Some(prover) = &self.prover else { return vec![true; endpoints.len()] };
        let mut known: SmallVec<[(&str, bool); 2]> = SmallVec::new();
        let mut all = Vec::with_capacity(endpoints.len());
        for endpoint in endpoints {
            let version = prover::version(endpoint);
            let before = known.iter().find(|(other, _)| *other == version).map(|(_, trusted)| *trusted);
            let trusted = before.unwrap_or_else(|| {
                let trusted = prover.trusts(model, version);
                known.push((version, trusted));
                trusted
            });
            all.push(trusted);
        }
        all
    }

    /// What the index says of those endpoints that are `trusted`.
    fn exact(
        &self,
        request: &RequestView<'_>,
        tokens: &Tokenized,
        candidates: &[&Endpoint],
        trusted: &[bool],
    ) -> Vec<PrefixMatch> {
        let sizes = self.sizes(candidates);
        let mut distinct: SmallVec<[u32; MAX_SIZES]> = SmallVec::new();
        for size in &sizes {
            if !distinct.contains(size) && distinct.len() < MAX_SIZES {
                distinct.push(*size);
            }
        }
        let mut matches = vec![PrefixMatch::default(); candidates.len()];
        for size in distinct {
            let keys = self.keys(request, tokens, size);
            let total = keys.iter().map(|prompt| prompt.0.len() as u32).sum();
            let fits = |at: &usize| sizes[*at] == size && trusted[*at];
            let places: Vec<usize> = (0..candidates.len()).filter(fits).collect();
            let endpoints: Vec<&Endpoint> = places.iter().map(|at| candidates[*at]).collect();
            let held = self.index.lookup(&endpoints, &keys);
            for (at, held) in places.into_iter().zip(held) {
                // Of a block that counts in part, the part is lost, as in the reference.
                let matched = held.weight.clamp(0.0, f64::from(total)) as u32;
                matches[at] = PrefixMatch { matched, total, block_size: size, cached: held.blocks };
            }
        }
        matches
    }

    /// What is to be compared with the answer of the chosen endpoint.
    fn expectation(
        &self,
        prover: &Prover,
        decided: &DecidedCall<'_>,
        tokens: &Tokenized,
    ) -> Option<Expected> {
        let endpoint = decided.decision.targets().first()?;
        let request = &decided.call.request;
        let size = self.sizes(&[endpoint.as_ref()]).first().copied()?;
        let matches = decided.call.columns().slice(self.matches).unwrap_or_default();
        let mut both = decided.call.candidates().iter().zip(matches);
        let matched = both.find(|(candidate, _)| Arc::ptr_eq(candidate, endpoint)).map(|(_, found)| *found);
        // What a stage of its own computes, the index does not see on the server that answers.
        let alone = decided.decision.stage_firsts().next().is_none();
        let keys = if alone { self.keys(request, tokens, size) } else { Vec::new() };
        Some(prover.expect(Prediction {
            model: request.target_model,
            api: request.inference.api,
            endpoint,
            tokens,
            keys,
            block_size: size,
            adapter: self.index.adapter(request.target_model),
            cached: matched.filter(|found| alone && found.block_size == size).map(|found| found.cached),
        }))
    }
}

impl Producer for PrecisePrefixCache {
    fn produce(&self, call: &Call<'_>) -> Result<SmallVec<[Produced; 1]>, String> {
        let mut produced = SmallVec::new();
        let request = &call.request;
        let tokens = exact_tokens(request);
        let candidates: Vec<&Endpoint> = call.candidates().iter().map(AsRef::as_ref).collect();
        let trusted = match &tokens {
            Some(_) => {
                let subject = prover::subject(request.target_model, request.inference.api);
                self.trusted(&subject, &candidates)
            }
            None => vec![false; candidates.len()],
        };
        let mut matches = match &tokens {
            Some(tokens) if trusted.contains(&true) => self.exact(request, tokens, &candidates, &trusted),
            _ if self.approximate.is_none() => return Ok(produced),
            _ => vec![PrefixMatch::default(); candidates.len()],
        };
        if let Some(approximate) = &self.approximate {
            let blocks = approximate::blocks(call, tokens.as_deref());
            if trusted.contains(&false) {
                self.proof.fell_back(if tokens.is_some() { "off" } else { "no_tokens" });
                let estimated = approximate.matches(call, &blocks);
                for ((found, estimated), _) in
                    matches.iter_mut().zip(estimated).zip(&trusted).filter(|(_, trusted)| !**trusted)
                {
                    *found = estimated;
                }
            }
            produced.push(approximate.column(blocks));
        }
        produced.push(Produced::new(self.matches, matches));
        Ok(produced)
    }
}

impl PreRequest for PrecisePrefixCache {
    fn before_forward(
        &self,
        decided: &DecidedCall<'_>,
        _headers: &mut HeaderEdits,
    ) -> Result<PluginState, PreRequestError> {
        let tokens = exact_tokens(&decided.call.request);
        let speculation = self.speculation.and_then(|time| Instant::now().checked_add(time));
        if let (Some(until), Some(tokens)) = (speculation, &tokens) {
            self.expect(decided, tokens, until);
        }
        if let Some(approximate) = &self.approximate {
            approximate.record(decided);
        }
        self.report();
        observe_chosen(&self.metrics, decided, self.matches);
        let (Some(prover), Some(tokens)) = (&self.prover, tokens) else { return Ok(None) };
        let expected = self.expectation(prover, decided, &tokens);
        Ok(expected.map(|expected| Box::new(expected) as _))
    }
}

impl ResponseEndHook for PrecisePrefixCache {
    fn on_response_end(&self, call: &EndedCall<'_>, state: &mut PluginState) {
        let expected = state.take().and_then(|state| state.downcast::<Expected>().ok());
        let (Some(prover), Some(expected)) = (&self.prover, expected) else { return };
        if call.succeeded {
            prover.compare(*expected, call, Instant::now());
        }
    }
}

/// The exact tokens of a request: those that somebody found out, or the prompt itself if it is token ids.
fn exact_tokens<'c>(request: &RequestView<'c>) -> Option<Cow<'c, Tokenized>> {
    if let Some(tokens) = request.tokens {
        return Some(Cow::Borrowed(tokens));
    }
    let pieces = &request.inference.prompt.pieces;
    if pieces.is_empty() {
        return None;
    }
    let mut prompts = vec![TokenizedPrompt::default()];
    let mut room = MAX_TOKENS;
    for piece in pieces {
        match piece {
            Piece::Tokens(range) => {
                let prompt = &mut prompts.last_mut()?.ids;
                let before = prompt.len();
                prompt.extend(token_ids(request.body, range.clone()).take(room));
                room -= prompt.len() - before;
            }
            Piece::NextPrompt if prompts.len() == MAX_PROMPTS => break,
            Piece::NextPrompt => prompts.push(TokenizedPrompt::default()),
            _ => return None,
        }
    }
    Some(Cow::Owned(Tokenized { prompts }))
}

/// Prefers endpoints by their share of the prompt.
#[derive(Debug)]
struct ByMatch(Column<PrefixMatch>);

impl Scorer for ByMatch {
    fn category(&self) -> Category {
        Category::Affinity
    }

    fn score(&self, call: &Call<'_>, out: &mut [f64]) {
        let Some(matches) = call.column(self.0) else { return };
        for (score, prefix) in out.iter_mut().zip(matches) {
            *score = prefix.fraction();
        }
    }
}
