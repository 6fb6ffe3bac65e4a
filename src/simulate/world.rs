//! The main loop, which plays one event after the other in virtual time.
//!
//! Events at the same time come in this order: tokens, planned events (requests, readings, changes of servers),
//! scrapes, the timers of flow control. A run therefore depends only on its inputs and its seed.

use std::time::{Duration, Instant};

use fastrand::Rng;
use pointsman_sim::{EngineProfile, VirtualRequest};

use super::body;
use super::figures::Objective;
use super::picker::{Brain, Page, Replica, Verdict, server_of};
use super::queue::Queue;
use super::record::{Fate, Notes, Record, Sample};
use super::server::{Happened, Server};
use super::workload::{Condition, Event, Request, Start, Workload, mix};
use crate::clock;
use crate::director::ResponseSide;

/// The longest virtual time that a simulation goes on after the last request whose time is known.
const LONGEST_TAIL: Duration = Duration::from_hours(2);
/// The time between two samples of the servers.
const SAMPLE: Duration = Duration::from_secs(1);

/// The settings of one run.
#[derive(Debug, Clone)]
pub(super) struct Setting {
    /// The number of servers.
    pub(super) servers: usize,
    /// The profile of the servers' engine.
    pub(super) profile: &'static EngineProfile,
    /// The number of replicas of the picker. The replicas get the requests in turn.
    pub(super) replicas: usize,
    /// The time between two readings of a server's metrics.
    pub(super) interval: Duration,
    /// The time from the request for a metrics page until it is read.
    pub(super) latency: Duration,
    /// The largest random addition to that time.
    pub(super) jitter: Duration,
    /// The seed of all random choices.
    pub(super) seed: u64,
    /// The faults of servers, in addition to those of the workload.
    pub(super) conditions: Vec<Condition>,
    /// The objective that every request names.
    pub(super) objective: Objective,
}

/// The chooser of servers.
#[derive(Debug)]
pub(super) enum Chooser {
    /// The replicas of a picker choose.
    Pickers(Vec<Brain>),
    /// The servers get the requests in turn, whatever their state.
    RoundRobin,
}

/// The progress of a simulation.
#[derive(Debug, Clone, Copy)]
pub struct Progress {
    /// The virtual time.
    pub now: Duration,
    /// The number of requests that have ended.
    pub over: usize,
    /// The number of all requests.
    pub of: usize,
}

/// A planned event.
#[derive(Debug)]
enum Planned {
    Arrival(usize),
    Page(Box<Page>),
    Condition(Condition),
}

struct World<'w> {
    workload: &'w Workload,
    setting: &'w Setting,
    origin: Instant,
    now: Duration,
    planned: Queue<Planned>,
    servers: Vec<Server>,
    replicas: Vec<Replica>,
    /// The number of the server that gets the next request in turn.
    turn: usize,
    random: Rng,
    /// For each request, the requests that follow it.
    followers: Vec<Vec<usize>>,
    /// For each request, the replica that got it.
    replica_of: Vec<usize>,
    over: usize,
    cache: (u64, u64),
    next_sample: Duration,
    notes: Notes,
}

/// Plays the workload. `progress` is called after every 4096 events.
pub(super) fn run(
    workload: &Workload,
    setting: &Setting,
    choosers: impl FnOnce() -> anyhow::Result<Chooser>,
    progress: &mut dyn FnMut(Progress),
) -> anyhow::Result<Notes> {
    let origin = Instant::now();
    let _virtual = clock::stand_still(origin);
    let chooser = choosers()?;
    let mut world = World::new(workload, setting, chooser, origin);
    world.play(progress);
    world.notes.end = world.now;
    world.notes.prediction_error =
        world.replicas.first().and_then(|replica| (replica.brain.prediction_error)());
    Ok(world.notes)
}

impl<'w> World<'w> {
    fn new(workload: &'w Workload, setting: &'w Setting, chooser: Chooser, origin: Instant) -> Self {
        let brains = match chooser {
            Chooser::Pickers(brains) => brains,
            Chooser::RoundRobin => Vec::new(),
        };
        let replicas = brains
            .into_iter()
            .enumerate()
            .map(|(number, brain)| Replica::new(brain, number, setting.servers, setting.interval, origin));
        let server = |number| Server::new(number, setting.profile, workload.max_adapters);
        let mut world = Self {
            workload,
            setting,
            origin,
            now: Duration::ZERO,
            planned: Queue::new(),
            servers: (0..setting.servers).map(server).collect(),
            replicas: replicas.collect(),
            turn: 0,
            random: Rng::with_seed(mix(setting.seed)),
            followers: vec![Vec::new(); workload.requests.len()],
            replica_of: vec![0; workload.requests.len()],
            over: 0,
            cache: (0, 0),
            next_sample: Duration::ZERO,
            notes: Notes { records: vec![Record::default(); workload.requests.len()], ..Notes::default() },
        };
        world.read_all();
        for condition in workload.conditions.iter().chain(&setting.conditions) {
            world.planned.push(condition.at, Planned::Condition(condition.clone()));
        }
        for (number, request) in workload.requests.iter().enumerate() {
            match request.start {
                Start::At(at) => world.planned.push(at, Planned::Arrival(number)),
                Start::After(before, _) => {
                    if let Some(followers) = world.followers.get_mut(before) {
                        followers.push(number);
                    }
                }
            }
        }
        world
    }

    /// Lets each replica read each server before the first request comes, as a picker does before it is ready.
    fn read_all(&mut self) {
        let now = self.instant();
        for replica in &mut self.replicas {
            for (number, server) in self.servers.iter().enumerate() {
                let glance = server.glance();
                if let Some(page) = replica.scrape(number, Some(server.answer(&glance)), now) {
                    replica.read(page, now);
                }
            }
        }
    }

    fn play(&mut self, progress: &mut dyn FnMut(Progress)) {
        let known = self.workload.requests.iter().filter_map(|request| match request.start {
            Start::At(at) => Some(at),
            Start::After(..) => None,
        });
        let mut last = known.max().unwrap_or_default();
        let mut happened = Vec::new();
        let mut steps = 0_u32;
        while self.over < self.workload.requests.len() {
            let Some((at, what)) = self.next() else { return };
            // While requests end, further requests may follow them, so the limit moves on.
            if at > last + LONGEST_TAIL {
                return;
            }
            let before = self.over;
            self.sample_until(at);
            self.set_now(at);
            match what {
                Next::Server(server) => {
                    self.servers[server].advance(at, &mut happened);
                    for event in happened.drain(..) {
                        self.note(event);
                    }
                }
                Next::Planned => self.do_planned(),
                Next::Scrape(replica) => self.scrape(replica),
                Next::Look(replica) => self.replicas[replica].look(),
            }
            self.settle();
            if self.over > before {
                last = last.max(at);
            }
            steps = steps.wrapping_add(1);
            if steps.is_multiple_of(4096) {
                progress(Progress { now: self.now, over: self.over, of: self.workload.requests.len() });
            }
        }
    }

    /// Returns the next event and its time.
    fn next(&self) -> Option<(Duration, Next)> {
        let mut best: Option<(Duration, Next)> = None;
        let mut offer = |at: Option<Duration>, what: Next| {
            if let Some(at) = at
                && best.is_none_or(|(first, _)| at < first)
            {
                best = Some((at, what));
            }
        };
        for (number, server) in self.servers.iter().enumerate() {
            offer(server.next_event(), Next::Server(number));
        }
        offer(self.planned.next(), Next::Planned);
        let since = |at: Instant| at.saturating_duration_since(self.origin);
        for (number, replica) in self.replicas.iter().enumerate() {
            offer(replica.next_scrape().map(since), Next::Scrape(number));
        }
        for (number, replica) in self.replicas.iter().enumerate() {
            offer(replica.next_look().map(since), Next::Look(number));
        }
        best.map(|(at, what)| (at.max(self.now), what))
    }

    fn set_now(&mut self, now: Duration) {
        self.now = now;
        clock::simulate(Some(self.instant()));
    }

    fn instant(&self) -> Instant {
        self.origin + self.now
    }

    fn do_planned(&mut self) {
        match self.planned.pop() {
            Some(Planned::Arrival(request)) => self.arrive(request),
            Some(Planned::Page(page)) => {
                let now = self.instant();
                if let Some(replica) = self.replicas.get_mut(page.replica) {
                    replica.read(*page, now);
                }
            }
            Some(Planned::Condition(condition)) => self.befall(&condition),
            None => {}
        }
    }

    fn arrive(&mut self, number: usize) {
        let Some(request) = self.workload.requests.get(number) else { return };
        self.notes.records[number].sent = self.now;
        if self.replicas.is_empty() {
            let server = self.turn % self.servers.len();
            self.turn += 1;
            self.send(number, request, server);
            return;
        }
        let replica = number % self.replicas.len();
        self.replica_of[number] = replica;
        let ask = body::ask(request, number, self.workload.block_tokens, self.setting.objective);
        let now = self.instant();
        if let Some(verdict) = self.replicas[replica].arrive(number, ask, now) {
            self.decide(number, verdict);
        }
    }

    /// Handles the decisions on requests that waited, and on those that have to stop.
    fn settle(&mut self) {
        for replica in 0..self.replicas.len() {
            for (number, verdict) in self.replicas[replica].decided() {
                if let Some(verdict) = verdict {
                    self.decide(number, verdict);
                } else {
                    if let Some(server) = self.notes.records[number].server {
                        self.servers[server].cancel(number, self.now);
                    }
                    self.refuse(number, "evicted");
                }
            }
        }
    }

    fn decide(&mut self, number: usize, verdict: Verdict) {
        let routed = match verdict {
            Ok(routed) => routed,
            Err(refusal) => return self.refuse(number, refusal.reason.dropped().unwrap_or("refused")),
        };
        let server = server_of(&routed.destination).filter(|server| *server < self.servers.len());
        let (Some(server), Some(request)) = (server, self.workload.requests.get(number)) else {
            return self.fail(number);
        };
        let replica = self.replica_of[number];
        self.replicas[replica].place(number, routed.exchange);
        self.send(number, request, server);
        if self.replicas[replica].is_revoked(number) {
            self.servers[server].cancel(number, self.now);
            self.refuse(number, "evicted");
        }
    }

    fn send(&mut self, number: usize, request: &Request, server: usize) {
        let virtual_request = VirtualRequest {
            blocks: request.blocks.clone(),
            block_tokens: self.workload.block_tokens,
            prompt_tokens: request.input,
            max_tokens: request.output,
            adapter: request.adapter.clone(),
        };
        let outlooks = self.servers.iter().filter_map(|server| server.outlook(&virtual_request));
        let best = outlooks.min().unwrap_or_default();
        let chosen = self.servers[server].outlook(&virtual_request);
        let record = &mut self.notes.records[number];
        record.regret = chosen.map_or(Duration::ZERO, |chosen| chosen.saturating_sub(best));
        record.server = Some(server);
        if !self.servers[server].submit(number, &virtual_request, self.now) {
            self.fail(number);
        }
    }

    fn note(&mut self, event: Happened) {
        match event {
            Happened::First { request: number, cached } => {
                let request = &self.workload.requests[number];
                let record = &mut self.notes.records[number];
                record.first = Some(self.now);
                record.last = Some(self.now);
                record.tokens = 1;
                record.cached = cached as u32;
                self.cache.0 += u64::from(request.input);
                self.cache.1 += cached as u64;
                if !request.streamed {
                    return;
                }
                if let Some(exchange) = self.exchange(number) {
                    exchange.on_headers(&body::response_headers(true), None, false);
                    exchange.on_chunk(body::first_chunk(), false);
                }
            }
            Happened::Token { request: number } => {
                let record = &mut self.notes.records[number];
                let gap = self.now.saturating_sub(record.last.unwrap_or(self.now));
                record.last = Some(self.now);
                record.tokens += 1;
                if self.workload.requests[number].streamed {
                    self.notes.gaps.add(gap);
                }
            }
            Happened::Finished { request: number } => {
                let request = &self.workload.requests[number];
                let (input, cached) = (request.input, self.notes.records[number].cached);
                let tokens = self.notes.records[number].tokens;
                let streamed = request.streamed;
                if !streamed {
                    // Its client sees the first token with the last one.
                    self.notes.records[number].first = Some(self.now);
                }
                if let Some(exchange) = self.exchange(number) {
                    if streamed {
                        exchange.on_chunk(body::last_chunk(input, tokens, cached), true);
                    } else {
                        exchange.on_headers(&body::response_headers(false), None, false);
                        exchange.on_chunk(body::whole(input, tokens, cached), true);
                    }
                }
                self.end(number, Fate::Answered);
            }
        }
    }

    fn exchange(&mut self, number: usize) -> Option<&mut crate::director::Exchange> {
        self.replicas.get_mut(self.replica_of[number])?.exchange(number)
    }

    fn refuse(&mut self, number: usize, why: &'static str) {
        *self.notes.refusals.entry(why).or_default() += 1;
        self.end(number, Fate::Refused);
    }

    fn fail(&mut self, number: usize) {
        self.end(number, Fate::Failed);
    }

    fn end(&mut self, number: usize, fate: Fate) {
        if self.notes.records[number].fate != Fate::Unfinished {
            return;
        }
        self.notes.records[number].fate = fate;
        self.over += 1;
        if let Some(replica) = self.replicas.get_mut(self.replica_of[number]) {
            replica.end(number);
        }
        for follower in std::mem::take(&mut self.followers[number]) {
            if let Some(Start::After(_, pause)) = self.workload.requests.get(follower).map(|next| next.start)
            {
                self.planned.push(self.now + pause, Planned::Arrival(follower));
            }
        }
    }

    fn scrape(&mut self, number: usize) {
        let now = self.instant();
        let latency = self.setting.latency + self.setting.jitter.mul_f64(self.random.f64());
        let Some(server) = self.replicas[number].take_due(now) else { return };
        let Some(asked) = self.servers.get(server) else { return };
        let glance = asked.glance();
        let answer = (!asked.is_down()).then(|| asked.answer(&glance));
        let Some(page) = self.replicas[number].scrape(server, answer, now) else { return };
        if latency.is_zero() {
            self.replicas[number].read(page, now);
        } else {
            self.planned.push(self.now + latency, Planned::Page(Box::new(page)));
        }
    }

    fn befall(&mut self, condition: &Condition) {
        let (number, now) = (condition.server, self.instant());
        let Some(server) = self.servers.get_mut(number) else { return };
        match condition.what {
            Event::Down => {
                for failed in server.fall() {
                    self.fail(failed);
                }
            }
            Event::Up => server.rise(self.now),
            Event::Speed(speed) => server.set_speed(speed),
            Event::Strangers { count, prompt } => server.set_strangers(count, prompt, self.now),
            Event::Leaves | Event::Joins => {
                let member = condition.what == Event::Joins;
                for replica in &mut self.replicas {
                    replica.set_member(number, member, now);
                }
            }
        }
    }

    fn sample_until(&mut self, at: Duration) {
        while self.next_sample <= at {
            let load = self.servers.iter().map(|server| (!server.is_down()).then(|| server.load())).collect();
            self.notes.samples.push(Sample { at: self.next_sample, load, cache: self.cache });
            self.next_sample += SAMPLE;
        }
    }
}

/// The source of the next event.
#[derive(Debug, Clone, Copy)]
enum Next {
    Server(usize),
    Planned,
    Scrape(usize),
    Look(usize),
}
