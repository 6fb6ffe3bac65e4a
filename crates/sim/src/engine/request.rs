//! One request inside an engine.

use std::sync::Arc;
use std::time::Duration;

use super::blocks::{self, BlockId};
use super::stats::Stats;
use super::tokens;
use super::types::{Fetch, FinishReason, Prompt, RequestId, Submission};

/// A request that waits or runs.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) id: RequestId,
    pub(super) adapter: Option<Arc<str>>,
    prompt_tokens: usize,
    max_tokens: u32,
    stops_by_itself: bool,
    answer_seed: u64,
    /// True if the answer consists of words that a client may send back in its next prompt.
    speaks: bool,
    pub(super) fetch: Fetch,
    /// The prompt tokens that the prefix cache did not have when the request came.
    pub(super) to_compute: usize,
    /// The hashes of the full blocks of prompt and answer.
    pub(super) hashes: Vec<u64>,
    /// The tokens after the last full block.
    tail: Vec<u32>,
    block_size: usize,
    generated: u32,
    arrived: Duration,
    /// The time at which the request first ran. A preempted request keeps it.
    started: Option<Duration>,
    first_token: Duration,
    last_token: Duration,
    pub(super) preemptions: u32,
    /// The prompt tokens that the prefix cache had when the request first ran.
    cached_tokens: usize,
}

impl Request {
    pub(super) fn new(id: RequestId, submission: Submission, block_size: usize, now: Duration) -> Self {
        let (hashes, tail) = prompt_hashes(&submission.prompt, submission.adapter.as_deref(), block_size);
        Self {
            id,
            prompt_tokens: submission.prompt.len(),
            max_tokens: submission.max_tokens.max(1),
            stops_by_itself: submission.stops_by_itself,
            answer_seed: submission.answer_seed,
            fetch: submission.fetch,
            to_compute: submission.prompt.len(),
            speaks: matches!(submission.prompt, Prompt::Tokens(_)),
            hashes,
            tail,
            block_size,
            generated: 0,
            arrived: now,
            started: None,
            first_token: now,
            last_token: now,
            preemptions: 0,
            cached_tokens: 0,
            adapter: submission.adapter,
        }
    }

    /// The number of tokens of prompt and answer so far.
    pub(super) fn tokens(&self) -> usize {
        self.prompt_tokens + self.generated as usize
    }

    /// The number of blocks that all tokens so far need.
    pub(super) fn blocks_needed(&self) -> usize {
        self.tokens().div_ceil(self.block_size).max(1)
    }

    /// The most blocks that may come from the cache. At least one token has to be computed, so that there is something
    /// to sample from.
    pub(super) fn blocks_reusable(&self) -> usize {
        self.tokens().saturating_sub(1) / self.block_size
    }

    pub(super) fn is_complete(&self) -> bool {
        self.generated >= self.max_tokens
    }

    /// Notes that the request runs, and that `cached_blocks` of its prompt were cached. Returns true if it runs for the
    /// first time.
    pub(super) fn start(&mut self, cached_blocks: usize, now: Duration, stats: &mut Stats) -> bool {
        if self.started.is_some() {
            return false;
        }
        self.started = Some(now);
        self.cached_tokens = cached_blocks * self.block_size;
        stats.cache_queries += self.prompt_tokens as u64;
        stats.cache_hits += self.cached_tokens as u64;
        true
    }

    /// Notes that the request has this many blocks, now that another server has sent the missing ones.
    pub(super) fn fetched(&mut self, blocks: usize) {
        self.cached_tokens = blocks * self.block_size;
    }

    /// Notes one more token. Returns the cached prompt tokens if it is the first token.
    pub(super) fn token(&mut self, now: Duration, stats: &mut Stats) -> Option<usize> {
        self.generated += 1;
        stats.generation_tokens += 1;
        let first = self.generated == 1;
        if first {
            self.first_token = now;
            stats.prompt_tokens += self.prompt_tokens as u64;
            stats.cached_tokens += self.cached_tokens as u64;
            stats.time_to_first_token.observe((now.saturating_sub(self.arrived)).as_secs_f64());
        } else {
            stats.inter_token_latency.observe(now.saturating_sub(self.last_token).as_secs_f64());
        }
        self.last_token = now;
        first.then_some(self.cached_tokens)
    }

    /// Adds the newest token to the chain of blocks. Returns the index and the hash of a block that became full by it.
    pub(super) fn extend_chain(&mut self) -> Option<(usize, u64)> {
        let index = self.generated - 1;
        self.tail.push(if self.speaks {
            tokens::word_token(self.answer_seed, index)
        } else {
            tokens::mix(self.answer_seed ^ u64::from(index)) as u32
        });
        if self.tail.len() < self.block_size {
            return None;
        }
        let hash = blocks::chain(self.parent(), &self.tail);
        self.tail.clear();
        self.hashes.push(hash);
        Some((self.hashes.len() - 1, hash))
    }

    /// Notes that the request is complete. Returns the reason why it ended.
    pub(super) fn finish(&self, now: Duration, stats: &mut Stats) -> FinishReason {
        let started = self.started.unwrap_or(self.arrived);
        let decode = now.saturating_sub(self.first_token).as_secs_f64();
        stats.request_prompt_tokens.observe(self.prompt_tokens as f64);
        stats.request_generation_tokens.observe(f64::from(self.generated));
        stats.max_generation_tokens.observe(f64::from(self.generated));
        stats.params_n.observe(1.0);
        stats.params_max_tokens.observe(f64::from(self.max_tokens));
        stats.time_per_output_token.observe(decode / f64::from(self.generated.saturating_sub(1).max(1)));
        stats.e2e_latency.observe(now.saturating_sub(self.arrived).as_secs_f64());
        stats.queue_time.observe(started.saturating_sub(self.arrived).as_secs_f64());
        stats.inference_time.observe(now.saturating_sub(started).as_secs_f64());
        stats.prefill_time.observe(self.first_token.saturating_sub(started).as_secs_f64());
        stats.decode_time.observe(decode);
        stats.request_preemptions.observe(f64::from(self.preemptions));
        stats.prefill_computed_tokens.observe((self.prompt_tokens - self.cached_tokens) as f64);
        if self.stops_by_itself {
            stats.stopped += 1;
            FinishReason::Stop
        } else {
            stats.limited += 1;
            FinishReason::Length
        }
    }

    fn parent(&self) -> u64 {
        self.hashes.last().copied().unwrap_or_else(|| blocks::chain_root(self.adapter.as_deref()))
    }
}

/// The hashes of the full blocks of a prompt, and the tokens after the last full block.
pub(super) fn prompt_hashes(
    prompt: &Prompt,
    adapter: Option<&str>,
    block_size: usize,
) -> (Vec<u64>, Vec<u32>) {
    let mut parent = blocks::chain_root(adapter);
    let mut hashes = Vec::with_capacity(prompt.len() / block_size + 1);
    match prompt {
        Prompt::Tokens(tokens) => {
            let mut full = tokens.chunks_exact(block_size);
            for block in full.by_ref() {
                parent = blocks::chain(parent, block);
                hashes.push(parent);
            }
            (hashes, full.remainder().to_vec())
        }
        Prompt::Blocks { ids, block_tokens, tokens } => {
            let id = |at: usize| ids.get(at / block_tokens).copied().unwrap_or_default();
            for block in 0..tokens / block_size {
                let (first, last) = (block * block_size, (block + 1) * block_size - 1);
                // The position in the first named block says where the boundaries between the cache blocks are.
                parent =
                    tokens::mix(parent ^ tokens::mix(id(first)).wrapping_add((first % block_tokens) as u64));
                for at in (first / block_tokens + 1)..=(last / block_tokens) {
                    parent = tokens::mix(parent ^ tokens::mix(id(at * block_tokens)));
                }
                hashes.push(parent);
            }
            let rest = tokens % block_size;
            let tail = (tokens - rest..*tokens).map(|at| tokens::mix(id(at) ^ at as u64) as u32);
            (hashes, tail.collect())
        }
    }
}

/// A request that has a place in the batch.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) request: Request,
    pub(super) blocks: Vec<BlockId>,
    /// The tokens that still need prefill before a token can be sampled.
    pub(super) uncomputed: usize,
    /// The time before which the request takes part in no step.
    pub(super) ready_at: Duration,
}
