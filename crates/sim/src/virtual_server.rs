//! A server without sockets and clock: the engine of `pointsman sim`, which its caller plays in virtual time.

use std::sync::Arc;
use std::time::Duration;

use super::engine::{Engine, EngineLimits, Event, Fetch, Glance, Prompt, StepTimes, Submission, SubmitError};
use super::profile::EngineProfile;

/// A request for a [`VirtualServer`].
#[derive(Debug, Clone)]
pub struct VirtualRequest {
    /// The ids of the prompt's blocks. Equal ids at equal places mean equal text.
    pub blocks: Arc<[u64]>,
    /// The tokens in each of these blocks. The last block may have fewer.
    pub block_tokens: u32,
    /// The tokens of the prompt; at least one.
    pub prompt_tokens: u32,
    /// The tokens to generate; at least one.
    pub max_tokens: u32,
    /// The LoRA adapter; `None` for the base model.
    pub adapter: Option<Arc<str>>,
}

/// An event of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VirtualEvent {
    /// The first token; `cached_tokens` of the prompt came from the prefix cache.
    FirstToken {
        /// The request.
        id: u64,
        /// The tokens that the prefix cache had.
        cached_tokens: usize,
    },
    /// A further token.
    Token {
        /// The request.
        id: u64,
    },
    /// The last token was generated.
    Finished {
        /// The request.
        id: u64,
    },
}

/// One server. Times count from an origin that the caller chooses, and never go back.
#[derive(Debug)]
pub struct VirtualServer {
    engine: Engine,
    profile: &'static EngineProfile,
    max_adapters: Option<usize>,
    speed: f64,
}

impl VirtualServer {
    /// Makes an idle server with an empty cache. `max_adapters` is the most adapters in one batch; `None` without
    /// adapters.
    pub fn new(profile: &'static EngineProfile, max_adapters: Option<usize>) -> Self {
        let limits = EngineLimits {
            max_running: profile.max_running,
            max_waiting: usize::MAX,
            max_adapters,
            max_step_tokens: profile.max_step_tokens,
            block_size: profile.block_size,
            blocks: profile.blocks,
            first_token_base: Duration::ZERO,
            step_times: StepTimes::Measured(profile),
            transfer_base: Duration::ZERO,
            transfer_per_token: Duration::ZERO,
        };
        Self { engine: Engine::new(limits), profile, max_adapters, speed: 1.0 }
    }

    /// The sizes and the speeds of the server.
    pub fn profile(&self) -> &'static EngineProfile {
        self.profile
    }

    /// The most adapters in one batch.
    pub fn max_adapters(&self) -> Option<usize> {
        self.max_adapters
    }

    /// Sets the factor on the speed of the profile, from the next step on.
    pub fn set_speed(&mut self, speed: f64) {
        self.speed = speed;
        self.engine.set_speed(speed);
    }

    /// Queues a request. The error says why it can never run.
    pub fn submit(&mut self, request: &VirtualRequest, now: Duration, answer: u64) -> Result<u64, String> {
        let submission = Submission {
            prompt: prompt(request),
            adapter: request.adapter.clone(),
            max_tokens: request.max_tokens,
            stops_by_itself: true,
            answer_seed: answer,
            fetch: Fetch::Nothing,
        };
        self.engine.submit(submission, now).map_err(|error: SubmitError| error.to_string())
    }

    /// Cancels a request. Nothing happens if it is over already.
    pub fn cancel(&mut self, id: u64, now: Duration) {
        self.engine.cancel(id, now);
    }

    /// The time at which [`VirtualServer::advance`] next has something to do. `None` while no request runs.
    pub fn next_event(&self) -> Option<Duration> {
        self.engine.next_event_time()
    }

    /// Plays all events up to `now`, and appends them to `happened` in order.
    pub fn advance(&mut self, now: Duration, happened: &mut Vec<VirtualEvent>) {
        happened.extend(self.engine.advance(now).into_iter().map(|event| match event {
            Event::FirstToken { id, cached_tokens } => VirtualEvent::FirstToken { id, cached_tokens },
            Event::Token { id } => VirtualEvent::Token { id },
            Event::Finished { id, .. } => VirtualEvent::Finished { id },
        }));
    }

    /// The load that a metrics page would show now.
    pub fn glance(&self) -> Glance {
        self.engine.glance()
    }

    /// The number of requests that wait or run.
    pub fn load(&self) -> usize {
        self.engine.load()
    }

    /// The estimated time to the first token of `request` if no other request came. It is the prefill time of all
    /// prompt tokens that are not computed yet, and then of the request's own uncached tokens.
    pub fn outlook(&self, request: &VirtualRequest) -> Duration {
        let own = self.engine.uncached_tokens(&prompt(request), request.adapter.as_deref());
        let ahead = self.engine.uncomputed_tokens();
        let time = StepTimes::Measured(self.profile).prefill(ahead + own, self.profile.max_step_tokens);
        time.div_f64(self.speed.max(1e-3))
    }
}

fn prompt(request: &VirtualRequest) -> Prompt {
    Prompt::Blocks {
        ids: Arc::clone(&request.blocks),
        block_tokens: request.block_tokens.max(1) as usize,
        tokens: request.prompt_tokens as usize,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(blocks: &[u64], prompt_tokens: u32) -> VirtualRequest {
        VirtualRequest {
            blocks: Arc::from(blocks),
            block_tokens: 512,
            prompt_tokens,
            max_tokens: 2,
            adapter: None,
        }
    }

    fn play(server: &mut VirtualServer, mut now: Duration) -> (Duration, Vec<VirtualEvent>) {
        let mut happened = Vec::new();
        while let Some(at) = server.next_event() {
            now = at;
            server.advance(now, &mut happened);
        }
        (now, happened)
    }

    #[test]
    fn blocks_of_equal_ids_are_found_again_and_the_outlook_knows_it() {
        let profile = EngineProfile::named("h100-70b").unwrap();
        let mut server = VirtualServer::new(profile, None);
        let cold = server.outlook(&request(&[1, 2, 3], 1500));
        server.submit(&request(&[1, 2, 3], 1500), Duration::ZERO, 7).unwrap();
        let (now, happened) = play(&mut server, Duration::ZERO);
        assert_eq!(happened.first(), Some(&VirtualEvent::FirstToken { id: 0, cached_tokens: 0 }));
        assert_eq!(happened.last(), Some(&VirtualEvent::Finished { id: 0 }));
        assert!(server.outlook(&request(&[1, 2, 9], 1500)) < cold);
        server.submit(&request(&[1, 2, 9], 1500), now, 8).unwrap();
        let (_, happened) = play(&mut server, now);
        assert_eq!(happened.first(), Some(&VirtualEvent::FirstToken { id: 1, cached_tokens: 1024 }));
    }

    #[test]
    fn half_the_speed_takes_twice_as_long() {
        let profile = EngineProfile::named("h100-70b").unwrap();
        let ends = [1.0, 0.5].map(|speed| {
            let mut server = VirtualServer::new(profile, None);
            server.set_speed(speed);
            server.submit(&request(&[1], 500), Duration::ZERO, 0).unwrap();
            play(&mut server, Duration::ZERO).0
        });
        assert_eq!(ends[0] * 2, ends[1]);
    }
}
