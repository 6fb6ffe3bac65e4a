//! The clock of the engines: a task that wakes when the next step ends, and tickets that callers wait on.

use std::sync::Arc;
use std::time::Duration;

use hashbrown::HashMap;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::engine::{
    Engine, EngineLimits, EngineValues, Event, FinishReason, RequestId, Submission, SubmitError,
};

/// The progress of a request.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Progress {
    /// The number of tokens so far.
    pub(crate) tokens: u32,
    /// The prompt tokens that were cached. The number is known from the first token on.
    pub(crate) cached_tokens: usize,
    /// Why the request ended; set with the last token.
    pub(crate) finished: Option<FinishReason>,
}

type Key = (usize, RequestId);

#[derive(Debug)]
struct State {
    engines: Vec<Engine>,
    /// One sender for each unfinished request.
    listeners: HashMap<Key, watch::Sender<Progress>>,
}

/// The engines of one server in real time.
#[derive(Debug)]
pub(crate) struct Driver {
    state: Mutex<State>,
    /// Tells the task that the time of the next event may have changed.
    changed: Notify,
    origin: Instant,
}

impl Driver {
    /// Makes `engines` idle engines whose time starts now. They do nothing until [`Driver::run`] is polled.
    pub(crate) fn new(limits: &EngineLimits, engines: usize) -> Self {
        let engines = (0..engines.max(1)).map(|_| Engine::new(limits.clone())).collect();
        Self {
            state: Mutex::new(State { engines, listeners: HashMap::new() }),
            changed: Notify::new(),
            origin: Instant::now(),
        }
    }

    /// Gives a request to the engine with the least load.
    pub(crate) fn submit(self: &Arc<Self>, submission: Submission) -> Result<Ticket, SubmitError> {
        let now = self.now();
        let mut state = self.state.lock();
        state.play(now);
        let (index, engine) = state
            .engines
            .iter_mut()
            .enumerate()
            .min_by_key(|(_, engine)| engine.load())
            .ok_or(SubmitError::QueueFull)?;
        let id = engine.submit(submission, now)?;
        let (listener, progress) = watch::channel(Progress::default());
        state.listeners.insert((index, id), listener);
        state.play(now);
        drop(state);
        self.changed.notify_one();
        Ok(Ticket { driver: Arc::clone(self), key: (index, id), progress })
    }

    /// The most tokens of prompt and answer together.
    pub(crate) fn context_tokens(&self) -> usize {
        self.state.lock().engines.first().map_or(0, Engine::context_tokens)
    }

    /// The most tokens of a prompt that any engine has in its cache.
    pub(crate) fn cached_tokens(&self, submission: &Submission) -> usize {
        let state = self.state.lock();
        let (prompt, adapter) = (&submission.prompt, submission.adapter.as_deref());
        let uncached = state.engines.iter().map(|engine| engine.uncached_tokens(prompt, adapter)).min();
        uncached.map_or(0, |uncached| prompt.len() - uncached)
    }

    /// The present state of all engines.
    pub(crate) fn values(&self) -> Vec<EngineValues> {
        let now = self.now();
        let mut state = self.state.lock();
        state.play(now);
        state.engines.iter().map(Engine::values).collect()
    }

    /// The version of the state, which grows with each change.
    pub(crate) fn version(&self) -> u64 {
        let now = self.now();
        let mut state = self.state.lock();
        state.play(now);
        state.engines.iter().map(Engine::version).sum()
    }

    /// Advances the engines at the time of each event, for ever.
    pub(crate) async fn run(&self) {
        loop {
            let changed = self.changed.notified();
            let next = {
                let now = self.now();
                let mut state = self.state.lock();
                state.play(now);
                state.engines.iter().filter_map(Engine::next_event_time).min()
            };
            match next {
                Some(at) => {
                    tokio::select! {
                        () = changed => {}
                        () = tokio::time::sleep_until(self.origin + at) => {}
                    }
                }
                None => changed.await,
            }
        }
    }

    fn cancel(&self, key: Key) {
        let now = self.now();
        let mut state = self.state.lock();
        state.play(now);
        if state.listeners.remove(&key).is_some()
            && let Some(engine) = state.engines.get_mut(key.0)
        {
            engine.cancel(key.1, now);
        }
        drop(state);
        self.changed.notify_one();
    }

    fn now(&self) -> Duration {
        self.origin.elapsed()
    }
}

impl State {
    fn play(&mut self, now: Duration) {
        for (index, engine) in self.engines.iter_mut().enumerate() {
            for event in engine.advance(now) {
                let key = (index, event.id());
                if let Event::Finished { reason, .. } = event {
                    if let Some(listener) = self.listeners.remove(&key) {
                        listener.send_modify(|progress| progress.finished = Some(reason));
                    }
                } else if let Some(listener) = self.listeners.get(&key) {
                    listener.send_modify(|progress| {
                        progress.tokens += 1;
                        if let Event::FirstToken { cached_tokens, .. } = event {
                            progress.cached_tokens = cached_tokens;
                        }
                    });
                }
            }
        }
    }
}

/// A request in an engine. Dropping the ticket before the end cancels the request.
#[derive(Debug)]
pub(crate) struct Ticket {
    driver: Arc<Driver>,
    key: Key,
    progress: watch::Receiver<Progress>,
}

impl Ticket {
    /// Waits until there are more than `tokens` tokens or the request is over.
    pub(crate) async fn past(&mut self, tokens: u32) -> Progress {
        let reached = |progress: &Progress| progress.tokens > tokens || progress.finished.is_some();
        // The sender is dropped only after the last event, so an error means that the request is over.
        let reached = self.progress.wait_for(reached).await.map(|progress| *progress);
        reached.unwrap_or_else(|_| *self.progress.borrow())
    }

    /// Waits until the request is over.
    pub(crate) async fn end(&mut self) -> Progress {
        self.past(u32::MAX).await
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if self.progress.borrow().finished.is_none() {
            self.driver.cancel(self.key);
        }
    }
}
