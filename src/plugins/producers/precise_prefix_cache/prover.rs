//! Comparing what was predicted about a request with what its answer and the engine's events say.
//!
//! | check | compared | when |
//! |---|---|---|
//! | count | `usage.prompt_tokens` with the number of computed tokens | at the end of the answer |
//! | events | the blocks that the engine has told of with those of the computed tokens | 2 s later |
//! | hit | `cached_tokens` with the tokens that the index said were cached, give or take a block | 2 s later |
//!
//! The later two are left out where the engine removed blocks meanwhile, or told nothing.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tracing::Level;

use crate::metrics::ProofMetrics;
use crate::pool::{Endpoint, Snapshot};
use crate::prefix::precise::{Difference, Marks, PreciseIndex, PromptKeys, Watch};
use crate::prefix::proof::{Change, Check, Mismatch, ProofRow, ProofState, ProofTable, Subject};
use crate::request::{Api, Tokenized, Usage};
use crate::scheduling::EndedCall;

/// Time that an engine has to tell of the blocks of a request.
const LAG: Duration = Duration::from_secs(2);
/// Requests whose events are waited for, and their blocks, at most.
const MAX_WAITING: usize = 4096;
const MAX_WAITING_BLOCKS: usize = 1 << 20;
/// Labels of pods that change with every change of what they run.
const VERSION_LABELS: [&str; 3] =
    ["pod-template-hash", "controller-revision-hash", "leaderworkerset.sigs.k8s.io/template-revision-hash"];

/// The version of the server behind an endpoint: the revision of its pod; "" if there is none.
pub(super) fn version(endpoint: &Endpoint) -> &str {
    VERSION_LABELS.iter().find_map(|label| endpoint.label(label)).unwrap_or_default()
}

/// The name of the state that a request counts for. The Responses API of a model has one of its own: its rules are
/// others than those of chats, so that a fault in one says nothing about the other.
pub(super) fn subject(model: &str, api: Api) -> Cow<'_, str> {
    match api {
        Api::Responses => Cow::Owned(format!("{model} (responses)")),
        _ => Cow::Borrowed(model),
    }
}

/// What is predicted about a decided request.
pub(super) struct Prediction<'a> {
    pub(super) model: &'a str,
    pub(super) api: Api,
    pub(super) endpoint: &'a Arc<Endpoint>,
    pub(super) tokens: &'a Tokenized,
    /// Keys of its prompts; none if no events will tell of them.
    pub(super) keys: Vec<PromptKeys>,
    pub(super) block_size: u32,
    /// The name that stands for the model in keys.
    pub(super) adapter: &'a str,
    /// Blocks that the endpoint holds; `None` if that was not looked up.
    pub(super) cached: Option<u32>,
}

/// What was predicted, until the answer is there.
#[derive(Debug)]
pub(super) struct Expected {
    model: Box<str>,
    /// Whose state it counts for.
    subject: Box<str>,
    version: Box<str>,
    incarnation: u64,
    server: Box<str>,
    tokens: u64,
    keys: Vec<PromptKeys>,
    adapter: Box<str>,
    block_size: u32,
    /// Tokens that should come from the cache.
    hit: Option<u64>,
    marks: Option<Marks>,
    watch: Option<Arc<Watch>>,
}

/// An answer whose events are waited for.
#[derive(Debug)]
struct Waiting {
    due: Instant,
    expected: Expected,
    cached: Option<u64>,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<Waiting>,
    blocks: usize,
}

/// Compares, and keeps the states.
#[derive(Debug)]
pub(super) struct Prover {
    table: ProofTable,
    index: Arc<PreciseIndex>,
    metrics: ProofMetrics,
    queue: Mutex<Queue>,
    /// Version of the snapshot that was seen last.
    seen: Mutex<u64>,
}

impl Prover {
    pub(super) fn new(index: Arc<PreciseIndex>, metrics: ProofMetrics, retry: Duration) -> Self {
        let (queue, seen) = (Mutex::default(), Mutex::default());
        Self { table: ProofTable::new(retry), index, metrics, queue, seen }
    }

    /// True unless exact tokens of this model are known to be wrong on servers of this version.
    pub(super) fn trusts(&self, model: &str, version: &str) -> bool {
        self.table.trusts(Subject { model, version })
    }

    /// The states, to be shown.
    pub(super) fn rows(&self) -> Vec<ProofRow> {
        self.table.rows()
    }

    /// Answers whose events are waited for.
    pub(super) fn waiting(&self) -> usize {
        self.queue.lock().waiting.len()
    }

    /// Keeps what an answer shall be compared with.
    pub(super) fn expect(&self, prediction: Prediction<'_>) -> Expected {
        let Prediction { model, api, endpoint, tokens, keys, block_size, adapter, cached } = prediction;
        let size = u64::from(block_size.max(1));
        // The last token is always computed, so that its block is no hit.
        let most = |tokens: u64| tokens.saturating_sub(1) / size * size;
        let hit = match (cached, tokens.prompts.as_slice()) {
            (Some(cached), [only]) => Some((u64::from(cached) * size).min(most(only.ids.len() as u64))),
            _ => None,
        };
        Expected {
            watch: self.watch(endpoint, tokens, &keys, block_size, adapter),
            marks: self.index.marks(endpoint.incarnation()),
            incarnation: endpoint.incarnation(),
            server: endpoint.target().into(),
            version: version(endpoint).into(),
            model: model.into(),
            subject: subject(model, api).into(),
            tokens: tokens.count(),
            adapter: adapter.into(),
            keys,
            block_size,
            hit,
        }
    }

    /// Watches for the first token that differs, for people who debug.
    fn watch(
        &self,
        endpoint: &Endpoint,
        tokens: &Tokenized,
        keys: &[PromptKeys],
        block_size: u32,
        adapter: &str,
    ) -> Option<Arc<Watch>> {
        if !tracing::enabled!(Level::DEBUG) {
            return None;
        }
        let ([keys], [prompt]) = (keys, tokens.prompts.as_slice()) else { return None };
        let held = self.index.told(endpoint.incarnation(), std::slice::from_ref(keys));
        let ids = prompt.ids.get(held as usize * block_size as usize..)?;
        self.index.watch(endpoint, adapter, keys, held, ids)
    }

    /// An answer is there.
    pub(super) fn compare(&self, expected: Expected, call: &EndedCall<'_>, now: Instant) {
        // Where the proxy tried another server, only the count is that of this request.
        let same = call.endpoint.incarnation() == expected.incarnation;
        if let Some(usage) = call.usage
            && let Some(observed) = prompt_tokens(call.api, usage, expected.tokens)
        {
            let (incarnation, server) = (call.endpoint.incarnation(), call.endpoint.target());
            let subject = Subject { model: &expected.subject, version: version(call.endpoint) };
            let at = Place { subject, incarnation, server };
            self.outcome(&at, Check::Count, expected.tokens, observed, now);
        }
        let speaks = expected.marks.is_some() && !expected.keys.is_empty();
        if !same || !speaks || expected.keys.iter().all(|keys| keys.0.is_empty()) {
            return;
        }
        let Some(due) = now.checked_add(LAG) else { return };
        let cached = call.usage.and_then(|usage| usage.cached_tokens);
        let blocks: usize = expected.keys.iter().map(|keys| keys.0.len()).sum();
        let mut queue = self.queue.lock();
        if queue.waiting.len() >= MAX_WAITING || queue.blocks + blocks > MAX_WAITING_BLOCKS {
            drop(queue);
            self.metrics.checked(&expected.subject, Check::Events.name(), "lost");
            return;
        }
        queue.blocks += blocks;
        queue.waiting.push_back(Waiting { due, expected, cached });
    }

    /// Compares with the events what has had its time. Called twice a second.
    pub(super) fn settle(&self, snapshot: &Snapshot, now: Instant) {
        self.follow(snapshot);
        loop {
            let mut queue = self.queue.lock();
            if queue.waiting.front().is_none_or(|waiting| waiting.due > now) {
                return;
            }
            let Some(waiting) = queue.waiting.pop_front() else { return };
            queue.blocks -= waiting.expected.keys.iter().map(|keys| keys.0.len()).sum::<usize>();
            drop(queue);
            self.settle_one(&waiting, now);
        }
    }

    fn settle_one(&self, Waiting { expected, cached, .. }: &Waiting, now: Instant) {
        let model = &*expected.subject;
        let skip = |why| self.metrics.checked(model, Check::Events.name(), why);
        let (Some(before), Some(after)) = (expected.marks, self.index.marks(expected.incarnation)) else {
            return;
        };
        if before.lost != after.lost {
            return skip("evicted");
        }
        // An adapter is known from its first event on; what was predicted before counted as the base model.
        if self.index.adapter(&expected.model) != &*expected.adapter {
            return skip("silent");
        }
        let told = u64::from(self.index.told(expected.incarnation, &expected.keys));
        let blocks: u64 = expected.keys.iter().map(|keys| keys.0.len() as u64).sum();
        if told < blocks && (after.heard == 0 || after.heard == before.heard) {
            return skip("silent");
        }
        let subject = Subject { model, version: &expected.version };
        let at = Place { subject, incarnation: expected.incarnation, server: &expected.server };
        if told < blocks
            && let Some(watch) = &expected.watch
            && let Some(difference) = watch.difference()
        {
            show_difference(model, &expected.server, &difference);
        }
        self.outcome(&at, Check::Events, blocks, told, now);
        if let (Some(hit), Some(cached)) = (expected.hit, *cached) {
            self.metrics.cached(model, hit, cached);
            let block = u64::from(expected.block_size);
            if cached > hit + block {
                // Another request with the same beginning was faster. Nothing wrong was claimed.
                self.metrics.checked(model, Check::Hit.name(), "more");
            } else {
                let observed = if cached + block >= hit { hit } else { cached };
                self.outcome(&at, Check::Hit, hit, observed, now);
            }
        }
    }

    fn outcome(&self, at: &Place<'_>, check: Check, predicted: u64, observed: u64, now: Instant) {
        let subject = at.subject;
        let equal = predicted == observed;
        self.metrics.checked(subject.model, check.name(), if equal { "matched" } else { "mismatched" });
        let change = if equal {
            self.table.held(subject, check, at.incarnation, now)
        } else {
            let server = at.server.into();
            tracing::debug!(
                model = subject.model,
                server = at.server,
                check = check.name(),
                predicted,
                observed,
                "a prediction about a prompt was wrong"
            );
            let mismatch = Mismatch { check, server, predicted, observed, at: now };
            self.table.differed(subject, at.incarnation, mismatch)
        };
        if let Some(change) = change {
            self.tell(at, change);
        }
    }

    fn tell(&self, at: &Place<'_>, Change { from, to }: Change) {
        let Subject { model, version } = at.subject;
        self.metrics.state(model, version, to.name(), ProofState::ALL.map(ProofState::name));
        let (from, server) = (from.name(), at.server);
        match to {
            ProofState::Off => tracing::warn!(
                model,
                version,
                server,
                from,
                "exact tokens differ from those of the servers, the approximate prefix index decides"
            ),
            ProofState::Suspect if from == ProofState::Off.name() => tracing::info!(
                model,
                version,
                server,
                "exact tokens equal those of the servers again and are used"
            ),
            ProofState::Suspect => {
                tracing::warn!(model, version, server, from, "exact tokens differed from those of a server");
            }
            ProofState::Unknown | ProofState::Exact => {
                tracing::info!(model, version, from, "exact tokens equal those of the servers");
            }
        }
    }

    /// Servers that are gone are at fault no more.
    fn follow(&self, snapshot: &Snapshot) {
        let mut seen = self.seen.lock();
        if *seen == snapshot.version() {
            return;
        }
        *seen = snapshot.version();
        drop(seen);
        let there: std::collections::HashSet<u64> =
            snapshot.endpoints().iter().map(|endpoint| endpoint.incarnation()).collect();
        self.table.retain_servers(|server| there.contains(&server));
        let versions: std::collections::HashSet<&str> =
            snapshot.endpoints().iter().map(|endpoint| version(endpoint)).collect();
        for row in self.table.forget_versions(|version| versions.contains(version)) {
            self.metrics.forget_version(&row.model, &row.version, ProofState::ALL.map(ProofState::name));
        }
    }
}

/// Whose answer is compared.
struct Place<'a> {
    subject: Subject<'a>,
    incarnation: u64,
    server: &'a str,
}

/// Tokens of the prompt as an answer counts them; `None` if it does not count them all.
fn prompt_tokens(api: Api, usage: &Usage, computed: u64) -> Option<u64> {
    if usage.prompt_tokens == 0 {
        return None;
    }
    if api != Api::Messages {
        return Some(usage.prompt_tokens);
    }
    // Tokens from the cache are counted apart, and so are those that are put there, which nobody reads here.
    let least = usage.prompt_tokens.saturating_add(usage.cached_tokens.unwrap_or(0));
    match computed {
        _ if usage.prompt_tokens == computed => Some(computed),
        _ if least >= computed => Some(least),
        _ => None,
    }
}

fn show_difference(model: &str, server: &str, difference: &Difference) {
    let Difference { at, computed, told } = difference;
    tracing::debug!(
        model,
        server,
        at,
        ?computed,
        ?told,
        "tokens of a prompt differ from those of the engine"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_of_the_messages_api_counts_cached_tokens_apart() {
        let usage = |prompt_tokens, cached_tokens| Usage { prompt_tokens, cached_tokens, ..Usage::default() };
        for (api, usage, computed, counted) in [
            (Api::ChatCompletions, usage(10, Some(4)), 10, Some(10)),
            (Api::ChatCompletions, usage(10, Some(4)), 14, Some(10)),
            (Api::ChatCompletions, usage(0, None), 14, None),
            (Api::Messages, usage(10, Some(4)), 14, Some(14)),
            (Api::Messages, usage(14, None), 14, Some(14)),
            (Api::Messages, usage(14, Some(4)), 14, Some(14)),
            (Api::Messages, usage(10, Some(4)), 13, Some(14)),
            (Api::Messages, usage(10, Some(4)), 20, None),
        ] {
            assert_eq!(prompt_tokens(api, &usage, computed), counted, "{api:?} {usage:?} {computed}");
        }
    }
}
