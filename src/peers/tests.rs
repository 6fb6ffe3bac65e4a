//! Replicas in virtual time, over links that lose, repeat and reorder messages.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::fleet::{Effects, Fault, Fleet};
use super::own::{Cursor, EndpointKey, Own};
use super::wire::{AssignmentRow, BandRow, EndpointRow, ShareRow, Update};
use crate::pool::{EndpointId, EndpointSpec, Lease, Pool, Share};
use crate::prefix::{BlockHashes, Journal};

const REPLICAS: usize = 3;
const ENDPOINTS: u8 = 4;

fn spec(endpoint: u8) -> EndpointSpec {
    let address = SocketAddr::from(([10, 0, 0, endpoint], 8000));
    EndpointSpec::new(EndpointId::new("ns", &format!("pod-{endpoint}")), address)
}

fn key(endpoint: u8) -> EndpointKey {
    let spec = spec(endpoint);
    (spec.id, spec.address)
}

fn pool(endpoints: impl IntoIterator<Item = u8>) -> Pool {
    let pool = Pool::new("ns", "pool", Instant::now());
    pool.replace_endpoints(endpoints.into_iter().map(spec).collect());
    pool
}

/// One life of a process.
struct Replica {
    pool: Pool,
    own: Own,
    fleet: Fleet,
    journal: Journal,
    leases: Vec<(u8, Lease)>,
    /// Endpoints that its discovery sees now.
    sees: [bool; ENDPOINTS as usize],
}

impl Replica {
    fn new(epoch: u64) -> Self {
        Self {
            pool: pool(0..ENDPOINTS),
            own: Own::new(epoch, "replica", vec!["index".to_owned()]),
            fleet: Fleet::new(epoch),
            journal: Journal::new(10_000),
            leases: Vec::new(),
            sees: [true; ENDPOINTS as usize],
        }
    }

    /// What the shell does with the effects of a message.
    fn settle(&self, effects: &Effects) {
        for endpoint in self.pool.snapshot().endpoints() {
            let key = (endpoint.id().clone(), endpoint.spec().address);
            let sent = effects.endpoints.get(&key).copied().unwrap_or(0);
            endpoint.load().set_elsewhere(self.fleet.total(&key), sent);
        }
    }

    fn look(&mut self) {
        let seen = (0..ENDPOINTS).filter(|endpoint| self.sees[usize::from(*endpoint)]);
        self.pool.replace_endpoints(seen.map(spec).collect());
        self.settle(&Effects::default());
    }
}

/// What `from` tells `to`: messages under way, and how far each end has come.
struct Link {
    id: u64,
    cursor: Cursor,
    under_way: VecDeque<Update>,
}

struct World {
    replicas: Vec<Replica>,
    links: Vec<Vec<Link>>,
    next: u64,
    now: Instant,
}

impl World {
    fn new() -> Self {
        let mut world = Self { replicas: Vec::new(), links: Vec::new(), next: 0, now: Instant::now() };
        for _ in 0..REPLICAS {
            let epoch = world.number();
            world.replicas.push(Replica::new(epoch));
        }
        for _ in 0..REPLICAS {
            let row = (0..REPLICAS).map(|_| world.link()).collect();
            world.links.push(row);
        }
        world
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn link(&mut self) -> Link {
        Link { id: self.number(), cursor: Cursor::default(), under_way: VecDeque::new() }
    }

    /// The stream on which `to` follows `from` ends, and begins anew.
    fn cut(&mut self, from: usize, to: usize) {
        let link = self.link();
        let old = std::mem::replace(&mut self.links[from][to], link);
        let mut effects = Effects::default();
        self.replicas[to].fleet.end(old.id, &mut effects);
        self.replicas[to].settle(&effects);
    }

    /// `from` says what is new, or that it lives.
    fn say(&mut self, from: usize, to: usize, at_least_a_sign: bool) {
        let replica = &mut self.replicas[from];
        replica.own.observe(&replica.pool, self.now);
        let link = &mut self.links[from][to];
        while let Some(update) = replica.own.update(&mut link.cursor, &replica.journal, self.now) {
            link.under_way.push_back(update);
        }
        if at_least_a_sign {
            link.under_way.push_back(replica.own.sign_of_life(&mut link.cursor));
        }
    }

    fn deliver(&mut self, from: usize, to: usize, place: usize, keep: bool) {
        let link = &mut self.links[from][to];
        let id = link.id;
        if link.under_way.is_empty() {
            return;
        }
        let place = place % link.under_way.len();
        let update = if keep { link.under_way.get(place).cloned() } else { link.under_way.remove(place) };
        let Some(update) = update else { return };
        let mut effects = Effects::default();
        let taken = self.replicas[to].fleet.apply(id, update, &mut effects);
        self.replicas[to].settle(&effects);
        match taken {
            Ok(()) => {}
            Err(Fault::Lost) => self.cut(from, to),
            Err(fault) => panic!("{fault:?}"),
        }
    }

    /// The process dies and another one begins. Its connections go with it.
    fn restart(&mut self, replica: usize) {
        let epoch = self.number();
        self.replicas[replica] = Replica::new(epoch);
        for other in (0..REPLICAS).filter(|other| *other != replica) {
            self.cut(replica, other);
            let link = self.link();
            self.links[other][replica] = link;
        }
    }

    fn step(&mut self, step: &Step) {
        let pair = |a: usize, b: usize| (a % REPLICAS, (a + 1 + b % (REPLICAS - 1)) % REPLICAS);
        self.now += Duration::from_millis(1);
        match *step {
            Step::Take(replica, endpoint) => {
                let replica = &mut self.replicas[replica % REPLICAS];
                let id = spec(endpoint).id;
                if let Some(endpoint_now) = replica.pool.snapshot().find(&id) {
                    replica.leases.push((endpoint, Lease::take(endpoint_now, 10)));
                    replica.journal.add(0, endpoint_now, &BlockHashes::from_chains(64, &[&[1, 2, 3]]));
                }
            }
            Step::End(replica, place) => {
                let leases = &mut self.replicas[replica % REPLICAS].leases;
                if !leases.is_empty() {
                    drop(leases.swap_remove(place % leases.len()));
                }
            }
            Step::Say(a, b) => {
                let (from, to) = pair(a, b);
                self.say(from, to, false);
            }
            Step::Deliver(a, b, place) => {
                let (from, to) = pair(a, b);
                self.deliver(from, to, place, false);
            }
            Step::Repeat(a, b, place) => {
                let (from, to) = pair(a, b);
                self.deliver(from, to, place, true);
            }
            Step::Lose(a, b, place) => {
                let (from, to) = pair(a, b);
                let under_way = &mut self.links[from][to].under_way;
                if !under_way.is_empty() {
                    under_way.remove(place % under_way.len());
                }
            }
            Step::Cut(a, b) => {
                let (from, to) = pair(a, b);
                self.cut(from, to);
            }
            Step::Restart(replica) => self.restart(replica % REPLICAS),
            Step::Flap(replica, endpoint) => {
                let replica = &mut self.replicas[replica % REPLICAS];
                let sees = &mut replica.sees[usize::from(endpoint)];
                *sees = !*sees;
                replica.look();
            }
        }
    }

    /// The faults end: all endpoints are seen, and messages arrive.
    fn quiet(&mut self) {
        for replica in &mut self.replicas {
            replica.sees = [true; ENDPOINTS as usize];
            replica.look();
        }
        for _ in 0..4 {
            for from in 0..REPLICAS {
                for to in (0..REPLICAS).filter(|to| *to != from) {
                    self.say(from, to, true);
                    while !self.links[from][to].under_way.is_empty() {
                        self.deliver(from, to, 0, false);
                    }
                }
            }
        }
    }

    fn open(&self, endpoint: u8) -> u64 {
        let leases = self.replicas.iter().flat_map(|replica| &replica.leases);
        leases.filter(|(on, _)| *on == endpoint).count() as u64
    }
}

#[derive(Clone, Debug)]
enum Step {
    Take(usize, u8),
    End(usize, usize),
    Say(usize, usize),
    Deliver(usize, usize, usize),
    Repeat(usize, usize, usize),
    Lose(usize, usize, usize),
    Cut(usize, usize),
    Restart(usize),
    Flap(usize, u8),
}

fn step() -> impl Strategy<Value = Step> {
    let replica = 0..REPLICAS;
    let (some, place) = (0_usize..6, 0_usize..20);
    prop_oneof![
        6 => (replica.clone(), 0..ENDPOINTS).prop_map(|(r, e)| Step::Take(r, e)),
        4 => (replica.clone(), place.clone()).prop_map(|(r, p)| Step::End(r, p)),
        6 => (some.clone(), some.clone()).prop_map(|(a, b)| Step::Say(a, b)),
        6 => (some.clone(), some.clone(), 0_usize..2).prop_map(|(a, b, p)| Step::Deliver(a, b, p)),
        1 => (some.clone(), some.clone(), place.clone()).prop_map(|(a, b, p)| Step::Repeat(a, b, p)),
        1 => (some.clone(), some.clone(), place).prop_map(|(a, b, p)| Step::Lose(a, b, p)),
        1 => (some.clone(), some).prop_map(|(a, b)| Step::Cut(a, b)),
        1 => replica.clone().prop_map(Step::Restart),
        2 => (replica, 0..ENDPOINTS).prop_map(|(r, e)| Step::Flap(r, e)),
    ]
}

proptest! {
    #[test]
    fn all_replicas_agree_with_the_open_streams_whatever_happened(
        steps in prop::collection::vec(step(), 0..250),
    ) {
        let mut world = World::new();
        for step in &steps {
            world.step(step);
            for replica in &world.replicas {
                for endpoint in replica.pool.snapshot().endpoints() {
                    prop_assert!(endpoint.load().in_flight() <= steps.len() as u64, "never negative");
                }
            }
        }
        world.quiet();
        for endpoint in 0..ENDPOINTS {
            let open = world.open(endpoint);
            for replica in &world.replicas {
                let snapshot = replica.pool.snapshot();
                let load = snapshot.find(&spec(endpoint).id).unwrap().load();
                prop_assert_eq!((load.in_flight(), load.in_flight_tokens()), (open, open * 10));
            }
        }
        world.replicas.iter_mut().for_each(|replica| replica.leases.clear());
        world.quiet();
        for replica in &world.replicas {
            for endpoint in replica.pool.snapshot().endpoints() {
                prop_assert_eq!((endpoint.load().in_flight(), endpoint.load().in_flight_tokens()), (0, 0));
            }
        }
    }

    #[test]
    fn no_message_is_a_panic_or_makes_a_peer_large(
        updates in prop::collection::vec(update(), 0..40),
    ) {
        let mut fleet = Fleet::new(1);
        for (sequence, update) in updates.into_iter().enumerate() {
            let mut effects = Effects::default();
            let update = Update { sequence: sequence as u64 + 1, snapshot: sequence == 0 || update.snapshot, ..update };
            let blocks: usize = update.assignments.iter().map(|row| row.blocks.len()).sum();
            if fleet.apply(1, update, &mut effects).is_err() {
                fleet.end(1, &mut effects);
                break;
            }
            let heard: usize = effects.heard.iter().map(|heard| heard.blocks.len()).sum();
            prop_assert!(heard <= blocks);
            for key in effects.endpoints.keys() {
                prop_assert!(fleet.total(key).requests <= crate::pool::MOST_REQUESTS);
            }
        }
    }
}

fn update() -> impl Strategy<Value = Update> {
    let endpoints = (0_u32..4, "[a-z]{0,3}", 0_u8..5).prop_map(|(number, name, end)| EndpointRow {
        number,
        namespace: String::new(),
        name,
        address: if end == 0 { "nowhere".to_owned() } else { format!("10.0.0.{end}:80") },
    });
    let shares = (0_u32..4, any::<u64>(), any::<u64>(), any::<u64>()).prop_map(
        |(endpoint, requests, tokens, dispatched)| ShareRow { endpoint, requests, tokens, dispatched },
    );
    let assignments = (
        0_u32..3,
        0_u32..4,
        prop::collection::vec(any::<u64>(), 0..5),
        prop::collection::vec(any::<u32>(), 0..4),
    )
        .prop_map(|(index, endpoint, blocks, ends)| AssignmentRow {
            index,
            endpoint,
            blocks,
            ends,
            block_size: 64,
        });
    (
        any::<bool>(),
        prop::collection::vec(endpoints, 0..4),
        prop::collection::vec(shares, 0..4),
        prop::collection::vec(assignments, 0..4),
        prop::collection::vec(0_u32..4, 0..2),
    )
        .prop_map(|(snapshot, endpoints, shares, assignments, gone)| Update {
            version: 1,
            epoch: 2,
            snapshot,
            indexes: vec!["index".to_owned()],
            endpoints,
            shares,
            assignments,
            gone,
            ..Update::default()
        })
}

/// Says everything to a fleet, as one link.
fn tell(own: &Own, cursor: &mut Cursor, journal: &Journal, fleet: &mut Fleet) -> (usize, Effects) {
    let mut effects = Effects::default();
    let mut messages = 0;
    while let Some(update) = own.update(cursor, journal, Instant::now()) {
        messages += 1;
        fleet.apply(7, update, &mut effects).unwrap();
    }
    (messages, effects)
}

#[test]
fn a_large_pool_is_told_in_several_messages_also_while_it_changes() {
    let pool = Pool::new("ns", "pool", Instant::now());
    let address = |n: u32| SocketAddr::from(([10, (n >> 16) as u8, (n >> 8) as u8, n as u8], 80));
    pool.replace_endpoints(
        (0..9000).map(|n| EndpointSpec::new(EndpointId::new("ns", &format!("p{n}")), address(n))).collect(),
    );
    let (mut own, journal, mut fleet) = (Own::new(1, "a", Vec::new()), Journal::new(1000), Fleet::new(2));
    let now = Instant::now();
    own.observe(&pool, now);
    let mut cursor = Cursor::default();
    let mut effects = Effects::default();
    let first = own.update(&mut cursor, &journal, now).unwrap();
    assert!(first.more && first.snapshot);
    fleet.apply(7, first, &mut effects).unwrap();
    // One that was not told yet changes, and so comes last.
    let snapshot = pool.snapshot();
    let lease = Lease::take(&snapshot.endpoints()[5000], 1);
    own.observe(&pool, now);
    let (messages, _) = tell(&own, &mut cursor, &journal, &mut fleet);
    assert_eq!((messages, fleet.links()[&7].endpoints(), fleet.links()[&7].requests()), (2, 9000, 1));
    drop(lease);
    own.observe(&pool, now);
    let (messages, _) = tell(&own, &mut cursor, &journal, &mut fleet);
    assert_eq!((messages, fleet.links()[&7].requests()), (1, 0));
}

#[test]
fn whoever_missed_too_many_departures_gets_a_snapshot() {
    let (mut own, journal, mut fleet) = (Own::new(1, "a", Vec::new()), Journal::new(1000), Fleet::new(2));
    let now = Instant::now();
    let mut cursor = Cursor::default();
    let pool = pool([0]);
    own.observe(&pool, now);
    tell(&own, &mut cursor, &journal, &mut fleet);
    for round in 0..2000_u32 {
        let address = SocketAddr::from(([10, 1, (round >> 8) as u8, round as u8], 80));
        pool.replace_endpoints(vec![EndpointSpec::new(EndpointId::new("ns", "p"), address)]);
        own.observe(&pool, now);
    }
    tell(&own, &mut cursor, &journal, &mut fleet);
    assert_eq!(fleet.links()[&7].endpoints(), 1);
}

#[test]
fn assignments_reach_the_peer_with_the_names_of_index_and_endpoint() {
    let (mut own, journal, mut fleet) =
        (Own::new(1, "a", vec!["one".to_owned(), "two".to_owned()]), Journal::new(10_000), Fleet::new(2));
    let pool = pool([3]);
    own.observe(&pool, Instant::now());
    let blocks = BlockHashes::from_chains(64, &[&[1, 2], &[3]]);
    journal.add(1, &pool.snapshot().endpoints()[0], &blocks);
    journal.add(9, &pool.snapshot().endpoints()[0], &blocks);
    let (_, effects) = tell(&own, &mut Cursor::default(), &journal, &mut fleet);
    assert_eq!((effects.heard.len(), effects.unknown), (1, 1));
    let heard = &effects.heard[0];
    assert_eq!((heard.index.as_str(), &heard.endpoint, &heard.blocks), ("two", &key(3), &blocks));
}

#[test]
fn what_waits_is_told_by_band_and_goes_with_the_peer() {
    let (mut own, journal, mut fleet) = (Own::new(1, "a", Vec::new()), Journal::new(1000), Fleet::new(2));
    let mut cursor = Cursor::default();
    let band = |priority, requests| BandRow { priority, requests, bytes: 10 * requests, tokens: requests };
    let waiting = |fleet: &Fleet| -> Vec<(i32, u64)> {
        fleet.waiting().into_iter().map(|(priority, queued)| (priority, queued.requests)).collect()
    };
    assert!(own.note_waiting(vec![band(-1, 3), band(5, 1)], Instant::now()));
    tell(&own, &mut cursor, &journal, &mut fleet);
    assert_eq!(waiting(&fleet), [(-1, 3), (5, 1)]);
    assert!(!own.note_waiting(vec![band(-1, 3), band(5, 1)], Instant::now()));
    assert_eq!(tell(&own, &mut cursor, &journal, &mut fleet).0, 0, "nothing is new");
    assert!(own.note_waiting(Vec::new(), Instant::now()));
    tell(&own, &mut cursor, &journal, &mut fleet);
    assert!(waiting(&fleet).is_empty());
    own.note_waiting(vec![band(0, 2)], Instant::now());
    tell(&own, &mut cursor, &journal, &mut fleet);
    fleet.end(7, &mut Effects::default());
    assert!(waiting(&fleet).is_empty());
}

#[test]
fn a_peer_is_counted_once_and_this_process_not_at_all() {
    let mut fleet = Fleet::new(1);
    let mut effects = Effects::default();
    let first = |epoch| Update { version: 1, epoch, sequence: 1, snapshot: true, ..Update::default() };
    assert_eq!(fleet.apply(1, first(1), &mut effects), Err(Fault::Itself));
    assert_eq!(fleet.apply(2, first(5), &mut effects), Ok(()));
    assert_eq!(fleet.apply(3, first(5), &mut effects), Err(Fault::Known));
    fleet.end(2, &mut effects);
    assert_eq!(fleet.apply(4, first(5), &mut effects), Ok(()));
    assert_eq!(fleet.total(&key(0)), Share::default());
}

#[test]
fn a_message_of_a_later_version_is_read_as_far_as_it_is_known() {
    use prost::Message;
    let mut bytes =
        Update { version: 9, epoch: 5, sequence: 1, snapshot: true, ..Update::default() }.encode_to_vec();
    // Field 1000, of bytes.
    bytes.extend([0xc2, 0x3e, 0x03, b'n', b'e', b'w']);
    let update = Update::decode(bytes.as_slice()).unwrap();
    assert_eq!(Fleet::new(1).apply(1, update, &mut Effects::default()), Ok(()));
}
