//! Generated loads, each of which answers one question.

use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;

use super::workload::{Condition, Event, Request, STRANGERS_PROMPT, Start, Workload, mix};

/// A generated load, with the question that it answers.
#[derive(Debug, Clone, Copy)]
pub struct Generator {
    /// The name on the command line.
    pub name: &'static str,
    /// The description of the load.
    pub about: &'static str,
    make: fn(&mut Making),
}

/// All generated loads.
pub const GENERATORS: [Generator; 8] = [
    Generator {
        name: "chat",
        about: "conversations that share system prompts of 2000 tokens; a turn follows the answer and a pause",
        make: chat,
    },
    Generator {
        name: "lora",
        about: "requests for 24 adapters by Zipf's law, of which 4 fit a batch",
        make: lora,
    },
    Generator {
        name: "batch",
        about: "chats of priority 10 beside floods of long requests of priority -10",
        make: batch,
    },
    Generator {
        name: "shared-server",
        about: "chats; the last server is kept busy by strangers from the second minute on",
        make: shared_server,
    },
    Generator {
        name: "slow-server",
        about: "chats; the last server works at half speed from the second minute on",
        make: slow_server,
    },
    Generator {
        name: "restarts",
        about: "chats; servers restart with empty caches, leave the pool and come back",
        make: restarts,
    },
    Generator {
        name: "bursts",
        about: "chats that begin in bursts, with silence between them",
        make: bursts,
    },
    Generator {
        name: "demo",
        about: "the 400 requests of `make demo`; strangers keep the last server busy; for --engine demo --servers 4",
        make: demo,
    },
];

impl Generator {
    /// The load with this name.
    pub fn named(name: &str) -> Option<Self> {
        GENERATORS.into_iter().find(|generator| generator.name == name)
    }

    /// Makes the load for `servers` servers over the time `length`.
    pub fn workload(self, servers: usize, length: Duration, seed: u64) -> Workload {
        let mut making = Making {
            random: Rng::with_seed(mix(seed)),
            servers,
            length,
            workload: Workload { name: self.name.to_owned(), block_tokens: BLOCK, ..Workload::default() },
        };
        (self.make)(&mut making);
        let mut workload = making.workload;
        workload.conditions.retain(|condition| condition.at < length);
        workload
    }
}

/// The tokens in a block.
const BLOCK: u32 = 64;
/// The conversations that begin each second, for each server.
const STARTS: f64 = 0.45;
/// The blocks of a system prompt: 2048 tokens.
const SYSTEM: u64 = 32;
/// The number of different system prompts.
const SYSTEMS: usize = 40;

struct Making {
    random: Rng,
    servers: usize,
    length: Duration,
    workload: Workload,
}

impl Making {
    /// A random time from an exponential distribution with the mean `mean` seconds.
    fn gap(&mut self, mean: f64) -> Duration {
        Duration::from_secs_f64(-(1.0 - self.random.f64()).ln() * mean)
    }

    /// A random number below `count`. Number k has a probability in proportion to 1 / (k + 1).
    fn zipf(&mut self, count: usize) -> usize {
        let all: f64 = (1..=count).map(|rank| 1.0 / rank as f64).sum();
        let mut left = self.random.f64() * all;
        (1..=count)
            .find(|rank| {
                left -= 1.0 / *rank as f64;
                left <= 0.0
            })
            .map_or(0, |rank| rank - 1)
    }

    /// A random length with the median `median` and a long tail.
    fn length(&mut self, median: f64) -> u32 {
        // The sum of twelve uniform numbers is nearly normal.
        let normal = (0..12).map(|_| self.random.f64()).sum::<f64>() - 6.0;
        (median * (0.8 * normal).exp()).clamp(1.0, 16.0 * median) as u32
    }

    /// Adds a request and returns its index. The prompt has these blocks, then blocks of its own up to `input` tokens.
    fn add(&mut self, start: Start, mut blocks: Vec<u64>, input: u32, output: u32, session: u32) -> usize {
        let own = mix(self.random.u64(..));
        let count = input.div_ceil(BLOCK) as usize;
        blocks.extend((blocks.len()..count).map(|place| mix(own ^ place as u64)));
        self.workload.requests.push(Request {
            start,
            input: input.max(1),
            output: output.max(1),
            blocks: blocks.into(),
            session,
            adapter: None,
            objective: None,
            streamed: true,
        });
        self.workload.requests.len() - 1
    }

    /// Adds a conversation of up to eight turns. Each turn sends everything before it again.
    fn conversation(&mut self, at: Duration, session: u32) {
        let system = self.zipf(SYSTEMS) as u64;
        let mut known: Vec<u64> = (0..SYSTEM).map(|place| mix((system << 32) ^ place ^ (1 << 62))).collect();
        let mut start = Start::At(at);
        let mut input = SYSTEM as u32 * BLOCK;
        for _ in 0..self.random.u32(1..=8) {
            input += self.length(120.0);
            let output = self.length(160.0);
            let place = self.add(start, known, input, output, session);
            let whole = (input / BLOCK) as usize;
            known = self.workload.requests[place].blocks.iter().take(whole).copied().collect();
            input += output;
            start = Start::After(place, self.gap(12.0) + Duration::from_secs(2));
        }
    }

    /// Adds conversations that begin at random times from `from` to `to`, `starts` each second for each server.
    fn conversations(&mut self, from: Duration, to: Duration, starts: f64) {
        let mut at = from;
        loop {
            at += self.gap(1.0 / (starts * self.servers as f64));
            if at >= to {
                return;
            }
            let session = self.workload.requests.len() as u32;
            self.conversation(at, session);
        }
    }

    fn condition(&mut self, seconds: u64, server: usize, what: Event) {
        self.workload.conditions.push(Condition { at: Duration::from_secs(seconds), server, what });
    }

    fn last(&self) -> usize {
        self.servers.saturating_sub(1)
    }
}

fn chat(making: &mut Making) {
    making.conversations(Duration::ZERO, making.length, STARTS);
}

fn lora(making: &mut Making) {
    const ADAPTERS: usize = 24;
    making.workload.max_adapters = Some(4);
    let names: Vec<Arc<str>> = (0..ADAPTERS).map(|number| Arc::from(format!("adapter-{number}"))).collect();
    let mut at = Duration::ZERO;
    loop {
        at += making.gap(0.4 / making.servers as f64);
        if at >= making.length {
            return;
        }
        let (input, output) = (making.length(900.0), making.length(100.0));
        let adapter = making.zipf(ADAPTERS);
        let place = making.add(Start::At(at), Vec::new(), input, output, adapter as u32);
        making.workload.requests[place].adapter = names.get(adapter).cloned();
    }
}

fn batch(making: &mut Making) {
    making.workload.objectives = vec![("interactive".to_owned(), 10), ("batch".to_owned(), -10)];
    let (interactive, flood): (Arc<str>, Arc<str>) = (Arc::from("interactive"), Arc::from("batch"));
    making.conversations(Duration::ZERO, making.length, STARTS * 0.5);
    for request in &mut making.workload.requests {
        request.objective = Some(Arc::clone(&interactive));
    }
    let mut at = Duration::from_secs(30);
    while at < making.length {
        for _ in 0..making.servers * 30 {
            let (input, output) = (making.length(2500.0), making.length(300.0));
            let start = Start::At(at + Duration::from_secs_f64(making.random.f64() * 5.0));
            let place = making.add(start, Vec::new(), input, output, u32::MAX);
            making.workload.requests[place].objective = Some(Arc::clone(&flood));
        }
        at += Duration::from_secs(90);
    }
}

fn shared_server(making: &mut Making) {
    chat(making);
    making.condition(60, making.last(), Event::Strangers { count: 48, prompt: STRANGERS_PROMPT });
}

fn slow_server(making: &mut Making) {
    chat(making);
    making.condition(60, making.last(), Event::Speed(0.5));
}

fn restarts(making: &mut Making) {
    chat(making);
    let last = making.last();
    let seconds = making.length.as_secs();
    for (round, from) in (60..seconds).step_by(90).enumerate() {
        let server = (round * 3 + 1) % making.servers.max(1);
        if round % 2 == 0 {
            making.condition(from, server, Event::Down);
            making.condition(from + 20, server, Event::Up);
        } else {
            making.condition(from, last, Event::Leaves);
            making.condition(from + 45, last, Event::Joins);
        }
    }
}

fn bursts(making: &mut Making) {
    let mut at = Duration::from_secs(5);
    while at < making.length {
        making.conversations(at, at + Duration::from_secs(10), STARTS * 6.0);
        at += Duration::from_mins(2);
    }
}

/// The demo's load: 16 clients send one request after the other, which share 16 prefixes. Half of the answers come in
/// one piece.
fn demo(making: &mut Making) {
    const REQUESTS: usize = 400;
    const WARM_UP: usize = 48;
    const PREFIXES: usize = 16;
    const CLIENTS: usize = 16;
    const PREFIX: u32 = 2000;
    const QUESTION: u32 = 20;
    making.condition(0, making.last(), Event::Strangers { count: 24, prompt: 4 });
    making.workload.warm_up = WARM_UP;
    let mut order: Vec<usize> = Vec::new();
    for count in [WARM_UP, REQUESTS] {
        let mut some: Vec<usize> = (0..count).map(|number| number % PREFIXES).collect();
        making.random.shuffle(&mut some);
        order.append(&mut some);
    }
    let whole = u64::from(PREFIX / BLOCK);
    for (number, prefix) in order.into_iter().enumerate() {
        let known = (0..whole).map(|place| mix(((prefix as u64) << 32) ^ place ^ (1 << 62))).collect();
        // The strangers are there first.
        let start = match number.checked_sub(CLIENTS) {
            None => Start::At(Duration::from_millis(100)),
            Some(before) => Start::After(before, Duration::ZERO),
        };
        let output = making.random.u32(8..40);
        let place = making.add(start, known, PREFIX + QUESTION, output, (number % CLIENTS) as u32);
        making.workload.requests[place].streamed = number % 2 == 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_load_is_the_same_for_its_seed_and_another_for_another() {
        for generator in GENERATORS {
            let make = |seed| generator.workload(4, Duration::from_mins(4), seed);
            let workload = make(1);
            assert!(workload.requests.len() > 100, "{}: {}", generator.name, workload.requests.len());
            assert_eq!(workload.requests, make(1).requests, "{}", generator.name);
            assert_ne!(workload.requests, make(2).requests, "{}", generator.name);
            for (place, request) in workload.requests.iter().enumerate() {
                assert_eq!(request.blocks.len(), request.input.div_ceil(BLOCK) as usize);
                assert!(!matches!(request.start, Start::After(before, _) if before >= place));
            }
        }
    }

    #[test]
    fn chats_share_most_of_their_prompts() {
        let chat = Generator::named("chat").unwrap().workload(8, Duration::from_mins(5), 3);
        let (all, found) = chat.infinite_cache();
        assert!(found * 10 > all * 7, "{found} of {all}");
    }
}
