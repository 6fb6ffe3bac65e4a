//! Continuous batching.
//!
//! The engine works in steps. A step gives each decoding request one token, and spends the rest of its token budget on
//! prefill, the oldest request first. A request waits until a step has tokens left for it, as in vLLM. A step lasts the
//! decode time (if any request decodes) plus the prefill time of its prompt tokens. A long uncached prompt therefore
//! delays all requests in the batch. Requests join and leave between steps. When blocks run out, the youngest running
//! request loses its blocks and starts again.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::adapters::Adapters;
use super::blocks::BlockPool;
use super::request::{Request, Running, prompt_hashes};
use super::stats::Stats;
use super::types::{
    EngineLimits, EngineValues, Event, Fetch, Glance, Prompt, RequestId, Submission, SubmitError,
};

#[derive(Debug)]
struct Step {
    ends: Duration,
    /// For each running request of the step, its key in `running` and the prompt tokens computed for it. Zero means a
    /// decode.
    plan: Vec<(u64, usize)>,
}

/// One engine. `now` counts from an origin that the caller chooses, and never goes back.
#[derive(Debug)]
pub(crate) struct Engine {
    limits: EngineLimits,
    pool: BlockPool,
    waiting: VecDeque<Request>,
    /// The running requests, by the order of admission.
    running: BTreeMap<u64, Running>,
    adapters: Adapters,
    step: Option<Step>,
    events: Vec<Event>,
    stats: Stats,
    next_id: RequestId,
    next_place: u64,
    version: u64,
    /// The factor on the speed of the steps; `None` for the plain speed.
    speed: Option<f64>,
}

impl Engine {
    /// Makes an idle engine. A limit of zero counts as one.
    pub(crate) fn new(mut limits: EngineLimits) -> Self {
        limits.max_running = limits.max_running.max(1);
        limits.max_adapters = limits.max_adapters.map(|max| max.max(1));
        limits.max_step_tokens = limits.max_step_tokens.max(1);
        limits.block_size = limits.block_size.max(1);
        Self {
            pool: BlockPool::new(limits.blocks),
            limits,
            waiting: VecDeque::new(),
            running: BTreeMap::new(),
            adapters: Adapters::default(),
            step: None,
            events: Vec::new(),
            stats: Stats::default(),
            next_id: 0,
            next_place: 0,
            version: 0,
            speed: None,
        }
    }

    /// The most tokens of prompt and answer together.
    pub(crate) fn context_tokens(&self) -> usize {
        self.pool.capacity() * self.limits.block_size
    }

    /// The number of requests that wait or run.
    pub(crate) fn load(&self) -> usize {
        self.waiting.len() + self.running.len()
    }

    /// The version of the state, which grows with each change.
    pub(crate) fn version(&self) -> u64 {
        self.version
    }

    /// Queues a request.
    pub(crate) fn submit(&mut self, submission: Submission, now: Duration) -> Result<RequestId, SubmitError> {
        self.catch_up(now);
        if submission.prompt.is_empty() {
            return Err(SubmitError::EmptyPrompt);
        }
        let limit = self.context_tokens();
        if submission.prompt.len().saturating_add(submission.max_tokens.max(1) as usize) > limit {
            return Err(SubmitError::TooLong { limit });
        }
        self.version += 1;
        // Waiting requests that will get a free place at the next step do not count as queued.
        let places = self.limits.max_running - self.running.len();
        if self.waiting.len() >= self.limits.max_waiting.saturating_add(places) {
            self.stats.queue_rejections += 1;
            return Err(SubmitError::QueueFull);
        }
        let id = self.next_id;
        self.next_id += 1;
        let mut request = Request::new(id, submission, self.limits.block_size, now);
        let cached = self.pool.cached(&request.hashes).min(request.blocks_reusable());
        request.to_compute = request.tokens() - cached * self.limits.block_size;
        self.adapters.waits(request.adapter.as_ref());
        self.waiting.push_back(request);
        if self.step.is_none() {
            self.schedule(now);
        }
        self.note_adapters(now);
        Ok(id)
    }

    /// Cancels a request. Nothing happens if it is over already.
    pub(crate) fn cancel(&mut self, id: RequestId, now: Duration) {
        self.catch_up(now);
        if let Some(index) = self.waiting.iter().position(|request| request.id == id) {
            if let Some(request) = self.waiting.remove(index) {
                self.adapters.waits_no_more(request.adapter.as_ref());
            }
        } else if let Some(place) =
            self.running.iter().find(|(_, running)| running.request.id == id).map(|(place, _)| *place)
        {
            self.leave(place);
        } else {
            return;
        }
        self.version += 1;
        self.stats.aborted += 1;
        self.events.retain(|event| event.id() != id);
        if self.step.is_none() {
            self.schedule(now);
        }
        self.note_adapters(now);
    }

    /// The time at which [`Engine::advance`] next has something to do. `None` while no request runs.
    pub(crate) fn next_event_time(&self) -> Option<Duration> {
        match &self.step {
            Some(step) => Some(step.ends),
            None => self.running.values().map(|running| running.ready_at).min(),
        }
    }

    /// Plays all events up to `now`, and returns those since the last call in order.
    pub(crate) fn advance(&mut self, now: Duration) -> Vec<Event> {
        self.catch_up(now);
        std::mem::take(&mut self.events)
    }

    /// The state that a metrics page shows.
    pub(crate) fn values(&self) -> EngineValues {
        let max = self.limits.max_adapters.unwrap_or(usize::MAX);
        EngineValues {
            running: self.running.len(),
            waiting: self.waiting.len(),
            deferred: match self.limits.max_adapters {
                Some(_) => {
                    self.waiting.iter().filter(|r| !self.adapters.fits(r.adapter.as_ref(), max)).count()
                }
                None => 0,
            },
            kv_usage: self.pool.used() as f64 / self.pool.capacity() as f64,
            stats: self.stats.clone(),
            adapter_rows: self.adapters.rows().cloned().collect(),
        }
    }

    /// Sets the factor on the speed of all steps that begin from now on.
    pub(crate) fn set_speed(&mut self, speed: f64) {
        self.speed = Some(speed);
    }

    /// The load that a metrics page shows, without counters.
    pub(crate) fn glance(&self) -> Glance {
        let (adapters_running, adapters_waiting) = self.adapters.names();
        Glance {
            running: self.running.len(),
            waiting: self.waiting.len(),
            kv_usage: self.pool.used() as f64 / self.pool.capacity() as f64,
            adapters_running,
            adapters_waiting,
        }
    }

    /// The prompt tokens of waiting and running requests that are not computed. For a waiting request the tokens that
    /// the cache had when it came do not count.
    pub(crate) fn uncomputed_tokens(&self) -> usize {
        let waiting: usize = self.waiting.iter().map(|request| request.to_compute).sum();
        waiting + self.running.values().map(|running| running.uncomputed).sum::<usize>()
    }

    /// The tokens of a prompt that would have to be computed now.
    pub(crate) fn uncached_tokens(&self, prompt: &Prompt, adapter: Option<&str>) -> usize {
        let block_size = self.limits.block_size;
        let (hashes, _) = prompt_hashes(prompt, adapter, block_size);
        let reusable = prompt.len().saturating_sub(1) / block_size;
        prompt.len() - self.pool.cached(&hashes).min(reusable) * block_size
    }

    fn catch_up(&mut self, now: Duration) {
        while let Some(at) = self.next_event_time().filter(|at| *at <= now) {
            self.version += 1;
            if let Some(step) = self.step.take() {
                self.finish_step(&step.plan, at);
                self.note_adapters(at);
            }
            self.schedule(at);
        }
    }

    /// Runs between two steps: admits the requests that fit, and starts the next step if a request is ready.
    fn schedule(&mut self, now: Duration) {
        self.admit(now);
        self.start_step(now);
    }

    /// Tokens of a step that those who run leave to others. Who decodes takes one.
    fn budget_left(&self) -> usize {
        let taken = self.running.values().map(|running| running.uncomputed.max(1)).sum();
        self.limits.max_step_tokens.saturating_sub(taken)
    }

    fn admit(&mut self, now: Duration) {
        let max_adapters = self.limits.max_adapters.unwrap_or(usize::MAX);
        let mut index = 0;
        let mut budget = self.budget_left();
        while self.running.len() < self.limits.max_running && budget > 0 {
            let Some(request) = self.waiting.get(index) else { break };
            if !self.adapters.fits(request.adapter.as_ref(), max_adapters) {
                index += 1;
                continue;
            }
            let needed = request.blocks_needed();
            let Some((blocks, cached)) = self.pool.take(&request.hashes, request.blocks_reusable(), needed)
            else {
                break;
            };
            let Some(mut request) = self.waiting.remove(index) else { break };
            for (block, hash) in blocks.iter().zip(&request.hashes) {
                self.pool.seal(*block, *hash);
            }
            self.adapters.waits_no_more(request.adapter.as_ref());
            self.adapters.runs(request.adapter.as_ref());
            let first = request.start(cached, now, &mut self.stats);
            let mut ready_at = if first { now + self.limits.first_token_base } else { now };
            let mut present = cached;
            if first && request.fetch != Fetch::Nothing {
                present = request.blocks_reusable().max(cached);
                ready_at += self.transfer(
                    request.fetch,
                    request.tokens(),
                    (present - cached) * self.limits.block_size,
                );
                request.fetched(present);
            }
            let uncomputed = request.tokens() - present * self.limits.block_size;
            budget = budget.saturating_sub(uncomputed.max(1));
            self.running.insert(self.next_place, Running { request, blocks, uncomputed, ready_at });
            self.next_place += 1;
        }
    }

    /// The time until `missing` tokens of a prompt of `tokens` have come from another server.
    fn transfer(&self, fetch: Fetch, tokens: usize, missing: usize) -> Duration {
        let times =
            |one: Duration, count: usize| one.saturating_mul(u32::try_from(count).unwrap_or(u32::MAX));
        let sent = self.limits.transfer_base.saturating_add(times(self.limits.transfer_per_token, missing));
        match fetch {
            Fetch::Nothing => Duration::ZERO,
            Fetch::Now => sent,
            Fetch::WhenPrefilled => {
                let computed = self.limits.step_times.prefill(tokens, self.limits.max_step_tokens);
                sent.saturating_add(self.limits.first_token_base).saturating_add(computed)
            }
        }
    }

    fn start_step(&mut self, now: Duration) {
        let mut budget = self.limits.max_step_tokens;
        let mut plan: Vec<(u64, usize)> = Vec::new();
        let ready = || self.running.iter().filter(|(_, running)| running.ready_at <= now);
        for (place, _) in ready().filter(|(_, running)| running.uncomputed == 0).take(budget) {
            plan.push((*place, 0));
        }
        budget -= plan.len();
        let (decoding, mut prefill) = (plan.len(), 0);
        for (place, running) in ready().filter(|(_, running)| running.uncomputed > 0) {
            let chunk = running.uncomputed.min(budget);
            if chunk == 0 {
                break;
            }
            budget -= chunk;
            plan.push((*place, chunk));
            prefill += chunk;
        }
        if !plan.is_empty() {
            let length = self.limits.step_times.step(decoding, prefill);
            let length = match self.speed {
                None => length,
                Some(speed) => length.div_f64(speed.max(1e-3)),
            };
            self.step = Some(Step { ends: now.saturating_add(length), plan });
        }
    }

    fn finish_step(&mut self, plan: &[(u64, usize)], now: Duration) {
        let mut step_tokens = 0;
        for (place, computed) in plan {
            // The request was cancelled or preempted after the step began.
            let Some(running) = self.running.get_mut(place) else { continue };
            step_tokens += *computed;
            running.uncomputed -= computed;
            if running.uncomputed > 0 {
                continue;
            }
            step_tokens += 1;
            let id = running.request.id;
            self.events.push(match running.request.token(now, &mut self.stats) {
                Some(cached_tokens) => Event::FirstToken { id, cached_tokens },
                None => Event::Token { id },
            });
            if running.request.is_complete() {
                let reason = running.request.finish(now, &mut self.stats);
                self.events.push(Event::Finished { id, reason });
                self.leave(*place);
            } else {
                self.grow(*place);
            }
        }
        self.stats.iteration_tokens.observe(step_tokens as f64);
    }

    /// Adds the newest token of a request to its chain of blocks. If no block is free, a younger request loses its
    /// blocks. If there is no younger one, this request loses its own place.
    fn grow(&mut self, place: u64) {
        let full = self.running.get_mut(&place).and_then(|running| running.request.extend_chain());
        loop {
            let Some(running) = self.running.get_mut(&place) else { return };
            if running.blocks.len() >= running.request.blocks_needed() {
                if let Some((index, hash)) = full
                    && let Some(block) = running.blocks.get(index)
                {
                    self.pool.seal(*block, hash);
                }
                return;
            }
            if let Some(block) = self.pool.take_one() {
                running.blocks.push(block);
            } else {
                self.preempt_youngest();
            }
        }
    }

    fn preempt_youngest(&mut self) {
        let Some(place) = self.running.last_key_value().map(|(place, _)| *place) else { return };
        if let Some(mut request) = self.leave(place) {
            request.preemptions += 1;
            self.stats.preemptions += 1;
            self.adapters.waits(request.adapter.as_ref());
            self.waiting.push_front(request);
        }
    }

    fn leave(&mut self, place: u64) -> Option<Request> {
        let running = self.running.remove(&place)?;
        self.pool.release(&running.blocks);
        self.adapters.runs_no_more(running.request.adapter.as_ref());
        Some(running.request)
    }

    fn note_adapters(&mut self, now: Duration) {
        if self.limits.max_adapters.is_some() {
            self.adapters.note(now);
        }
    }

    /// Panics unless blocks, places and queue agree.
    #[cfg(test)]
    pub(crate) fn check(&self) {
        let held: Vec<&[u32]> = self.running.values().map(|running| running.blocks.as_slice()).collect();
        self.pool.check(&held);
        assert!(self.running.len() <= self.limits.max_running);
        if self.running.is_empty() {
            assert_eq!(self.pool.used(), 0);
            assert!(
                self.waiting.is_empty() || self.step.is_some(),
                "an empty batch with a queue would wait for ever"
            );
        }
    }
}
