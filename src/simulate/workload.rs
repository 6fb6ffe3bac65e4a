//! The requests of a simulation, and the faults of its servers.

use std::sync::Arc;
use std::time::Duration;

/// A sequence of requests.
#[derive(Debug, Clone, Default)]
pub struct Workload {
    /// The name in reports.
    pub name: String,
    /// The tokens in a block of [`Request::blocks`]; at least one.
    pub block_tokens: u32,
    /// The requests, in the order of their start. A request that follows another request comes after it.
    pub requests: Vec<Request>,
    /// The objectives and their priorities.
    pub objectives: Vec<(String, i32)>,
    /// The most LoRA adapters in one batch of a server; `None` without adapters.
    pub max_adapters: Option<usize>,
    /// The faults of servers.
    pub conditions: Vec<Condition>,
    /// So many of the first requests fill the caches and do not count in the figures.
    pub warm_up: usize,
}

/// One request.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// The time at which the request is sent.
    pub start: Start,
    /// The tokens of the prompt; at least one.
    pub input: u32,
    /// The tokens of the answer; at least one.
    pub output: u32,
    /// The ids of the prompt's blocks. Equal ids at equal places mean equal text.
    pub blocks: Arc<[u64]>,
    /// The number of the client's session or tenant.
    pub session: u32,
    /// The LoRA adapter that the request asks for.
    pub adapter: Option<Arc<str>>,
    /// The objective that the request names.
    pub objective: Option<Arc<str>>,
    /// The answer comes token by token, and not in one piece.
    pub streamed: bool,
}

/// The time at which a request is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// This time after the begin of the simulation.
    At(Duration),
    /// This long after the request with this index was answered.
    After(usize, Duration),
}

/// A change of a server at a point in time.
#[derive(Debug, Clone, PartialEq)]
pub struct Condition {
    /// The time of the change.
    pub at: Duration,
    /// The number of the server, from 0.
    pub server: usize,
    /// The change.
    pub what: Event,
}

/// Tokens of the prompt of other clients' requests, unless something else is said.
pub const STRANGERS_PROMPT: u32 = 600;

/// A change of a server.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Event {
    /// The server goes down. Its requests fail, and it does not answer.
    Down,
    /// The server comes back with an empty cache.
    Up,
    /// The server leaves the pool. Its running requests go on.
    Leaves,
    /// The server joins the pool.
    Joins,
    /// The server works at this multiple of its speed from now on.
    Speed(f64),
    /// Other clients keep requests there from now on.
    Strangers {
        /// How many at once.
        count: u32,
        /// Tokens of each of their prompts, at least one.
        prompt: u32,
    },
}

impl Workload {
    /// The tokens of all prompts.
    pub fn input_tokens(&self) -> u64 {
        self.requests.iter().map(|request| u64::from(request.input)).sum()
    }

    /// Makes the requests come `rate` times as fast. All times between arrivals, and all pauses, are divided by `rate`.
    #[must_use]
    pub fn at_rate(mut self, rate: f64) -> Self {
        for request in &mut self.requests {
            request.start = match request.start {
                Start::At(at) => Start::At(at.div_f64(rate)),
                Start::After(before, pause) => Start::After(before, pause.div_f64(rate)),
            };
        }
        self
    }

    /// Keeps the first `most` requests.
    #[must_use]
    pub fn first(mut self, most: usize) -> Self {
        self.requests.truncate(most);
        self
    }

    /// Returns the number of blocks of all prompts, and the number of them that a cache of unlimited size would have
    /// had. Those are the first blocks of a prompt that an earlier prompt began with too. Adapters do not share blocks.
    pub fn infinite_cache(&self) -> (u64, u64) {
        let mut seen = hashbrown::HashSet::new();
        let (mut all, mut found) = (0, 0);
        for (place, request) in self.requests.iter().enumerate() {
            let counts = place >= self.warm_up;
            let mut chain = request
                .adapter
                .as_deref()
                .map_or(0, |name| name.bytes().fold(1, |hash, byte| mix(hash ^ u64::from(byte))));
            let mut unbroken = true;
            for id in request.blocks.iter() {
                chain = mix(chain ^ mix(*id));
                unbroken &= !seen.insert(chain);
                found += u64::from(unbroken && counts);
            }
            all += if counts { request.blocks.len() as u64 } else { 0 };
        }
        (all, found)
    }
}

/// The finalizer of the splitmix64 generator (<https://prng.di.unimi.it/splitmix64.c>).
pub(super) fn mix(number: u64) -> u64 {
    let mut x = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// Makes the block ids of a prompt with `input` tokens. Prompts with different `own` share no block.
pub(super) fn unique_blocks(own: u64, input: u32, block_tokens: u32) -> Arc<[u64]> {
    (0..u64::from(input.div_ceil(block_tokens))).map(|block| mix(mix(own) ^ block)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(blocks: &[u64]) -> Request {
        Request {
            start: Start::At(Duration::from_secs(3)),
            input: 10,
            output: 1,
            blocks: Arc::from(blocks),
            session: 0,
            adapter: None,
            objective: None,
            streamed: true,
        }
    }

    #[test]
    fn an_infinite_cache_finds_unbroken_beginnings_alone() {
        let requests =
            vec![request(&[1, 2, 3]), request(&[1, 2, 4]), request(&[9, 2, 3]), request(&[1, 7, 3])];
        let workload = Workload { requests, ..Workload::default() };
        assert_eq!(workload.infinite_cache(), (12, 3));
    }

    #[test]
    fn a_higher_rate_shrinks_all_times() {
        let requests =
            vec![request(&[1]), Request { start: Start::After(0, Duration::from_secs(6)), ..request(&[1]) }];
        let faster = Workload { requests, ..Workload::default() }.at_rate(1.5);
        assert_eq!(faster.requests[0].start, Start::At(Duration::from_secs(2)));
        assert_eq!(faster.requests[1].start, Start::After(0, Duration::from_secs(4)));
    }
}
