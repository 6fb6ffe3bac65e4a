//! Several gates that release into one pool and hear of each other a little late.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use proptest::prelude::*;

use crate::flow::{Arrival, Fill, FlowSettings, Gate, GateDecision, Load, Queued, Rivals, Ticket, Unplaced};

/// Time between two words of a replica.
const EXCHANGE: Duration = Duration::from_millis(5);
/// Longest time that a word is under way.
const WIRE: Duration = Duration::from_millis(1);
const TICK: Duration = Duration::from_millis(1);

/// The pool as one replica knows it.
struct Known {
    room: u64,
    in_flight: u64,
}

impl Load for Known {
    fn is_empty(&self) -> bool {
        false
    }

    fn fill(&self, unplaced: Unplaced, _: Instant) -> Fill {
        let fill = (self.in_flight + unplaced.requests) as f64 / self.room as f64;
        Fill { raw: fill, gating: fill }
    }
}

/// What a replica says.
#[derive(Clone, Copy, Default)]
struct Word {
    in_flight: u64,
    sent: u64,
    waits: bool,
}

struct Replica {
    gate: Gate,
    own: Word,
    /// Ends of what runs.
    running: Vec<(Instant, Ticket)>,
    /// Last words of the others.
    heard: BTreeMap<usize, Word>,
    under_way: VecDeque<(Instant, usize, Word)>,
    /// Time of its first look, so that the replicas do not speak together.
    offset: Duration,
}

struct World {
    replicas: Vec<Replica>,
    room: u64,
    now: Instant,
    start: Instant,
    lasts: Duration,
    seed: u64,
    most: u64,
    /// Requests served by each.
    served: Vec<u64>,
}

fn arrival(now: Instant) -> Arrival {
    Arrival {
        priority: 0,
        fairness_id: "a".into(),
        model: "m".into(),
        target_model: "m".into(),
        size: 1,
        tokens: 1,
        received: now,
        ttl: None,
        slo_ttft: None,
    }
}

impl World {
    fn new(count: usize, room: u64, lasts: Duration, seed: u64) -> Self {
        let now = Instant::now();
        let replica = |number: usize| Replica {
            gate: Gate::new(FlowSettings::default(), now),
            own: Word::default(),
            running: Vec::new(),
            heard: BTreeMap::new(),
            under_way: VecDeque::new(),
            offset: Duration::from_millis((seed >> (number % 16)) % 5),
        };
        let replicas = (0..count).map(replica).collect();
        Self { replicas, room, now, start: now, lasts, seed, most: 0, served: vec![0; count] }
    }

    fn wire(&mut self) -> Duration {
        self.seed = self.seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        WIRE.mul_f64((self.seed >> 40) as f64 / f64::from(1 << 24))
    }

    fn act(&mut self, number: usize, what: impl FnOnce(&mut Gate, Instant, &Known, &mut Vec<GateDecision>)) {
        let now = self.now;
        let replica = &mut self.replicas[number];
        let others: u64 = replica.heard.values().map(|word| word.in_flight).sum();
        let known = Known { room: self.room, in_flight: others + replica.own.in_flight };
        let mut decisions = Vec::new();
        what(&mut replica.gate, now, &known, &mut decisions);
        let mut placed = 0;
        for decision in decisions {
            if let GateDecision::Release { ticket, .. } = decision {
                placed += 1;
                replica.own.in_flight += 1;
                replica.own.sent += 1;
                replica.running.push((now + self.lasts, ticket));
                self.served[number] += 1;
            }
        }
        for _ in 0..placed {
            let known = Known { room: self.room, in_flight: others + replica.own.in_flight };
            // More is not released: what is placed was counted before.
            replica.gate.placed(1, now, &known, &mut Vec::new());
        }
        let all: u64 = self.replicas.iter().map(|replica| replica.own.in_flight).sum();
        self.most = self.most.max(all);
    }

    /// As `Fleet::rivals` has it.
    fn tell_rivals(&mut self, number: usize) {
        let replica = &mut self.replicas[number];
        let sent = replica.heard.values().fold(replica.own.sent, |sum, word| sum + word.sent);
        let waiting: Vec<usize> =
            replica.heard.iter().filter(|(_, word)| word.waits).map(|(other, _)| *other).collect();
        let line = waiting.len() as u64 + 1;
        let earlier = waiting.iter().filter(|other| **other < number).count() as u64;
        replica.gate.set_rivals(Rivals {
            others: replica.heard.len() as u32,
            before: ((earlier + line - sent % line) % line) as u32,
            waiting: waiting.len() as u32,
            sent,
        });
    }

    fn tick(&mut self) {
        self.now += TICK;
        let now = self.now;
        for number in 0..self.replicas.len() {
            while let Some(at) = self.replicas[number].running.iter().position(|(end, _)| *end <= now) {
                let (_, ticket) = self.replicas[number].running.swap_remove(at);
                self.replicas[number].own.in_flight -= 1;
                self.act(number, |gate, now, load, out| gate.complete(ticket, None, now, load, out));
            }
            let mut heard = false;
            while self.replicas[number].under_way.front().is_some_and(|(at, ..)| *at <= now) {
                let (_, from, word) = self.replicas[number].under_way.pop_front().unwrap();
                self.replicas[number].heard.insert(from, word);
                heard = true;
            }
            let looks = (now - self.start + self.replicas[number].offset)
                .as_millis()
                .is_multiple_of(EXCHANGE.as_millis());
            if looks || heard {
                self.tell_rivals(number);
            }
            let due = self.replicas[number].gate.next_wakeup().is_some_and(|at| at <= now);
            if heard || due {
                self.act(number, |gate, now, load, out| gate.advance(now, load, out));
            }
            if looks {
                let waits = self.replicas[number].gate.queued() != Queued::default();
                let word = Word { waits, ..self.replicas[number].own };
                for other in (0..self.replicas.len()).filter(|other| *other != number) {
                    let at = now + self.wire();
                    self.replicas[other].under_way.push_back((at, number, word));
                }
            }
        }
    }

    fn run(&mut self, time: Duration) {
        for _ in 0..time.as_millis() {
            self.tick();
        }
    }

    fn arrive(&mut self, number: usize) {
        let arrival = arrival(self.now);
        self.act(number, |gate, now, load, out| _ = gate.submit(&arrival, now, load, out).unwrap());
    }
}

proptest! {
    #[test]
    fn replicas_take_no_more_than_one_place_each_that_is_not_there(
        count in prop::sample::select(vec![1_usize, 2, 3, 8]),
        room in 1_u64..40,
        seed in any::<u64>(),
        burst in prop::collection::vec((0_usize..8, 0_u64..12), 1..120),
        lasts in 5_u64..300,
    ) {
        let mut world = World::new(count, room, Duration::from_millis(lasts), seed);
        world.run(Duration::from_millis(40));
        for (replica, pause) in &burst {
            world.arrive(replica % count);
            world.run(Duration::from_millis(*pause));
        }
        let most = room + count as u64 - 1;
        prop_assert!(world.most <= most, "{} in flight where {room} fit", world.most);
        // All are served in the end, and soon.
        let rounds = burst.len() as u64 / room + 1;
        world.run(Duration::from_millis((rounds + 1) * (lasts + 20 * count as u64) + 200));
        prop_assert_eq!(world.served.iter().sum::<u64>(), burst.len() as u64);
    }
}

/// In how many of a hundred bursts more is in flight than fits.
fn overshoots(count: usize, pause: u64) -> usize {
    let overshot = |seed: &u64| {
        let mut world = World::new(count, 12, Duration::from_millis(200), *seed);
        world.run(Duration::from_millis(40));
        for number in 0..60 {
            world.arrive(number % count);
            world.run(Duration::from_millis(pause));
        }
        world.most > 12
    };
    (0..100).filter(overshot).count()
}

#[test]
fn a_burst_seldom_overshoots() {
    for count in [1, 3, 8] {
        for pause in [0, 1, 5, 10] {
            let bursts = overshoots(count, pause);
            assert!(bursts <= 10, "{count} replicas, {pause} ms: {bursts} of 100 bursts");
        }
    }
}

#[test]
fn replicas_with_full_queues_take_turns_and_lose_no_time() {
    let mut world = World::new(3, 6, Duration::from_millis(100), 7);
    world.run(Duration::from_millis(40));
    for number in 0..300 {
        world.arrive(number % 3);
    }
    world.run(Duration::from_secs(3));
    let (least, most) = (world.served.iter().min().unwrap(), world.served.iter().max().unwrap());
    let all: u64 = world.served.iter().sum();
    assert!(world.most <= 6, "{}", world.most);
    assert!(*most - *least <= all / 5, "{:?}", world.served);
    // Without any pause 180 would be served.
    assert!(all >= 140, "{:?}", world.served);
}

#[test]
fn a_replica_that_is_alone_leaves_nothing_to_others() {
    let mut world = World::new(1, 3, Duration::from_millis(50), 1);
    (0..5).for_each(|_| world.arrive(0));
    assert_eq!(world.served, [3]);
}
