//! A simulated server, its requests and its faults.

use std::time::Duration;

use hashbrown::HashMap;
use pointsman_sim::{EngineProfile, Glance, VirtualEvent, VirtualRequest, VirtualServer};

use super::picker::Answer;
use super::workload::{mix, unique_blocks};

/// The tokens of the answer in requests of other clients.
const STRANGERS_ANSWER: u32 = 400;

/// The sender of a request: the workload, or another client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Owner {
    Request(usize),
    Stranger,
}

/// What happened to a request of the workload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Happened {
    First { request: usize, cached: usize },
    Token { request: usize },
    Finished { request: usize },
}

/// One simulated server.
#[derive(Debug)]
pub(super) struct Server {
    engine: VirtualServer,
    owners: HashMap<u64, Owner>,
    down: bool,
    speed: f64,
    strangers: u32,
    /// Tokens of their prompts.
    strangers_prompt: u32,
    strangers_sent: u64,
    number: usize,
    /// A buffer that is empty between calls.
    events: Vec<VirtualEvent>,
}

impl Server {
    pub(super) fn new(number: usize, profile: &'static EngineProfile, max_adapters: Option<usize>) -> Self {
        Self {
            engine: VirtualServer::new(profile, max_adapters),
            owners: HashMap::new(),
            down: false,
            speed: 1.0,
            strangers: 0,
            strangers_prompt: 1,
            strangers_sent: 0,
            number,
            events: Vec::new(),
        }
    }

    pub(super) fn is_down(&self) -> bool {
        self.down
    }

    pub(super) fn next_event(&self) -> Option<Duration> {
        self.engine.next_event()
    }

    /// The number of requests that wait or run, with those of other clients.
    pub(super) fn load(&self) -> usize {
        self.engine.load()
    }

    pub(super) fn glance(&self) -> Glance {
        self.engine.glance()
    }

    /// The metrics page of the server, made from `glance`.
    pub(super) fn answer<'g>(&self, glance: &'g Glance) -> Answer<'g> {
        let profile = self.engine.profile();
        Answer {
            glance,
            block_size: profile.block_size,
            blocks: profile.blocks,
            max_adapters: self.engine.max_adapters(),
        }
    }

    /// The estimated time to the first token; `None` while the server is down.
    pub(super) fn outlook(&self, request: &VirtualRequest) -> Option<Duration> {
        (!self.down).then(|| self.engine.outlook(request))
    }

    /// Sends a request of the workload to the server. Returns false if the request fails at once.
    pub(super) fn submit(&mut self, number: usize, request: &VirtualRequest, now: Duration) -> bool {
        if self.down {
            return false;
        }
        match self.engine.submit(request, now, mix(number as u64)) {
            Ok(id) => {
                self.owners.insert(id, Owner::Request(number));
                true
            }
            Err(_) => false,
        }
    }

    /// Stops a request of the workload.
    pub(super) fn cancel(&mut self, number: usize, now: Duration) {
        let id = self.owners.iter().find(|(_, owner)| **owner == Owner::Request(number)).map(|(id, _)| *id);
        if let Some(id) = id {
            self.engine.cancel(id, now);
            self.owners.remove(&id);
        }
    }

    /// Plays all events up to `now`.
    pub(super) fn advance(&mut self, now: Duration, happened: &mut Vec<Happened>) {
        let mut events = std::mem::take(&mut self.events);
        self.engine.advance(now, &mut events);
        for event in events.drain(..) {
            let (VirtualEvent::FirstToken { id, .. }
            | VirtualEvent::Token { id }
            | VirtualEvent::Finished { id }) = event;
            let Some(Owner::Request(request)) = self.owners.get(&id).copied() else {
                if matches!(event, VirtualEvent::Finished { .. }) {
                    self.owners.remove(&id);
                    self.fill_with_strangers(now);
                }
                continue;
            };
            happened.push(match event {
                VirtualEvent::FirstToken { cached_tokens: cached, .. } => Happened::First { request, cached },
                VirtualEvent::Token { .. } => Happened::Token { request },
                VirtualEvent::Finished { .. } => {
                    self.owners.remove(&id);
                    Happened::Finished { request }
                }
            });
        }
        self.events = events;
    }

    /// Takes the server down. Returns the requests that fail with it, in their order.
    pub(super) fn fall(&mut self) -> Vec<usize> {
        self.down = true;
        let mut failed: Vec<usize> = self
            .owners
            .drain()
            .filter_map(|(_, owner)| match owner {
                Owner::Request(request) => Some(request),
                Owner::Stranger => None,
            })
            .collect();
        failed.sort_unstable();
        self.engine = VirtualServer::new(self.engine.profile(), self.engine.max_adapters());
        failed
    }

    /// Brings the server back, with an empty cache.
    pub(super) fn rise(&mut self, now: Duration) {
        self.down = false;
        self.engine.set_speed(self.speed);
        self.fill_with_strangers(now);
    }

    pub(super) fn set_speed(&mut self, speed: f64) {
        self.speed = speed;
        self.engine.set_speed(speed);
    }

    pub(super) fn set_strangers(&mut self, count: u32, prompt: u32, now: Duration) {
        self.strangers = count;
        self.strangers_prompt = prompt.max(1);
        self.fill_with_strangers(now);
    }

    fn fill_with_strangers(&mut self, now: Duration) {
        let here = self.owners.values().filter(|owner| **owner == Owner::Stranger).count();
        for _ in here..self.strangers as usize {
            if self.down {
                return;
            }
            self.strangers_sent += 1;
            let own = mix(((self.number as u64) << 40) ^ self.strangers_sent ^ (1 << 61));
            let request = VirtualRequest {
                blocks: unique_blocks(own, self.strangers_prompt, 512),
                block_tokens: 512,
                prompt_tokens: self.strangers_prompt,
                max_tokens: STRANGERS_ANSWER,
                adapter: None,
            };
            if let Ok(id) = self.engine.submit(&request, now, own) {
                self.owners.insert(id, Owner::Stranger);
            }
        }
    }
}
