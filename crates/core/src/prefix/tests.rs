//! The approximate index against a slow, obvious one.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::SocketAddr;
use std::time::Instant;

use proptest::prelude::*;

use super::*;
use crate::pool::{EndpointId, EndpointSpec, Pool};
use crate::prefix::BlockHasher;

fn pool_of(names: impl IntoIterator<Item = u16>) -> Pool {
    let pool = Pool::new("default", "pool", Instant::now());
    set(&pool, names);
    pool
}

fn set(pool: &Pool, names: impl IntoIterator<Item = u16>) {
    let spec = |name: u16| {
        let address = SocketAddr::from(([10, 0, (name / 250) as u8, (name % 250) as u8], 8000));
        EndpointSpec::new(EndpointId::new("default", &format!("pod-{name}")), address)
    };
    pool.replace_endpoints(names.into_iter().map(spec).collect());
}

fn index() -> ApproxIndex {
    ApproxIndex::new(PrefixMemory::new(u64::MAX), 7)
}

/// Blocks of one token for each character, for each prompt.
fn blocks(prompts: &[&str]) -> BlockHashes {
    let mut hasher = BlockHasher::new("m", "", 1, usize::MAX, 0);
    for prompt in prompts {
        for character in prompt.chars() {
            hasher.write_token(character as u32);
        }
        hasher.end_prompt();
    }
    hasher.finish()
}

fn held(index: &ApproxIndex, pool: &Pool, prompts: &[&str]) -> Vec<u32> {
    let snapshot = pool.snapshot();
    let held = index.lookup(&snapshot, &blocks(prompts));
    (0..snapshot.len()).map(|place| held.at(place)).collect()
}

fn record(index: &ApproxIndex, pool: &Pool, place: usize, capacity: usize, prompts: &[&str]) {
    let snapshot = pool.snapshot();
    index.lookup(&snapshot, &BlockHashes::default());
    index.record(&snapshot.endpoints()[place], capacity, &blocks(prompts));
}

#[test]
fn a_prompt_matches_as_far_as_it_was_sent_before() {
    let pool = pool_of([0, 1, 2]);
    let index = index();
    record(&index, &pool, 0, 100, &["abcdef"]);
    record(&index, &pool, 1, 100, &["abcxyz"]);
    assert_eq!(held(&index, &pool, &["abcdeg"]), [5, 3, 0]);
    assert_eq!(held(&index, &pool, &["xabc"]), [0, 0, 0]);
    assert!(index.lookup(&pool.snapshot(), &blocks(&["zzz"])).is_empty());
}

#[test]
fn several_prompts_add_up() {
    let pool = pool_of([0, 1]);
    let index = index();
    record(&index, &pool, 0, 100, &["abc", "xyz"]);
    record(&index, &pool, 1, 100, &["xy"]);
    assert_eq!(held(&index, &pool, &["ab", "xyz", "nothing"]), [5, 2]);
    assert_eq!(held(&index, &pool, &["ab", "ab"]), [4, 0]);
}

#[test]
fn blocks_behind_a_gap_count_while_somebody_holds_the_gap() {
    let pool = pool_of([0, 1]);
    let index = index();
    // Endpoint 0 forgets the first blocks of a prompt for another.
    record(&index, &pool, 0, 6, &["abcdef"]);
    record(&index, &pool, 0, 6, &["xyz"]);
    assert_eq!(held(&index, &pool, &["abcdef"]), [0, 0]);
    record(&index, &pool, 1, 100, &["abcd"]);
    assert_eq!(held(&index, &pool, &["abcdef"]), [3, 4]);
}

#[test]
fn sending_again_refreshes_and_looking_up_does_not() {
    let pool = pool_of([0]);
    let index = index();
    record(&index, &pool, 0, 4, &["ab"]);
    record(&index, &pool, 0, 4, &["xy"]);
    assert_eq!(held(&index, &pool, &["ab"]), [2]);
    record(&index, &pool, 0, 4, &["p"]);
    // The oldest entry was the first block of "ab"; behind it nothing is found.
    assert_eq!(held(&index, &pool, &["ab"]), [0]);
    record(&index, &pool, 0, 4, &["xy"]);
    record(&index, &pool, 0, 4, &["q"]);
    assert_eq!(held(&index, &pool, &["xy"]), [2]);
}

#[test]
fn the_capacity_is_that_of_the_first_call() {
    let pool = pool_of([0]);
    let index = index();
    record(&index, &pool, 0, 2, &["ab"]);
    record(&index, &pool, 0, 100, &["xyz"]);
    assert_eq!(index.entries(), 2);
}

#[test]
fn a_prompt_longer_than_the_capacity_leaves_nothing_behind() {
    let pool = pool_of([0]);
    let memory = PrefixMemory::new(u64::MAX);
    let index = ApproxIndex::new(Arc::clone(&memory), 7);
    let long: String = (0..5000u32).filter_map(|n| char::from_u32(0x4e00 + n)).collect();
    record(&index, &pool, 0, 10, &[&long]);
    assert_eq!(index.entries(), 10);
    // The first blocks stay, for a prompt matches from its beginning.
    assert_eq!(held(&index, &pool, &[&long]), [10]);
    assert!(index.shards.iter().all(|shard| shard.read().bytes() <= 18 * 16));
    assert!(memory.used() < 4096, "{}", memory.used());
}

#[test]
fn a_prompt_one_block_beyond_the_capacity_matches_as_far_as_one_that_fits() {
    let pool = pool_of([0]);
    for (blocks, matched) in [(20, 20), (21, 20), (22, 20), (100, 20)] {
        let index = index();
        let prompt: String = (0..blocks).filter_map(|n| char::from_u32(0x4e00 + n)).collect();
        record(&index, &pool, 0, 20, &[&prompt]);
        assert_eq!(held(&index, &pool, &[&prompt]), [matched], "{blocks} blocks");
    }
}

#[test]
fn an_endpoint_that_leaves_takes_its_entries_with_it() {
    let pool = pool_of([0, 1]);
    let memory = PrefixMemory::new(u64::MAX);
    let index = ApproxIndex::new(Arc::clone(&memory), 7);
    let long: String = (0..10_000u32).filter_map(|n| char::from_u32(0x4e00 + n)).collect();
    record(&index, &pool, 0, 20_000, &[&long]);
    record(&index, &pool, 1, 20_000, &["abc"]);
    set(&pool, [1]);
    // Held by an endpoint that is gone is held by nobody, from the first request on.
    assert_eq!(held(&index, &pool, &[&long]), [0]);
    for _ in 0..4 {
        assert_eq!(held(&index, &pool, &["abc"]), [3]);
    }
    assert_eq!((index.entries(), index.departed_len.load(Relaxed)), (3, 0));
    assert!(memory.used() < 8192, "{}", memory.used());
    // The name is back, but not what its caches held; the slot is used again.
    set(&pool, [1, 0]);
    assert_eq!(held(&index, &pool, &[&long]), [0, 0]);
    record(&index, &pool, 1, 10, &["abc"]);
    assert_eq!(held(&index, &pool, &["abcd"]), [3, 3]);
    assert_eq!(index.caches.read().view(&pool.snapshot()).live.len(), 1);
}

#[test]
fn a_request_with_an_older_snapshot_still_matches() {
    let pool = pool_of([0, 1]);
    let index = index();
    record(&index, &pool, 1, 10, &["abc"]);
    let older = pool.snapshot();
    set(&pool, [1, 2, 3]);
    assert_eq!(held(&index, &pool, &["abc"]), [3, 0, 0]);
    let held = index.lookup(&older, &blocks(&["abc"]));
    assert_eq!((held.at(0), held.at(1)), (0, 3));
    // And recording for an endpoint that is gone does nothing.
    index.record(&older.endpoints()[0], 10, &blocks(&["xyz"]));
    assert_eq!(index.entries(), 3);
}

#[test]
fn memory_stays_within_its_bound_and_comes_back() {
    let pool = pool_of(0..4);
    let limit = 200_000;
    let memory = PrefixMemory::new(limit);
    let index = ApproxIndex::new(Arc::clone(&memory), 7);
    for round in 0..200u32 {
        let prompt: String = (0..200u32).filter_map(|n| char::from_u32(0x4e00 + round * 10 + n)).collect();
        record(&index, &pool, (round % 4) as usize, 1_000_000, &[&prompt]);
        assert!(memory.used() <= limit, "{round}: {}", memory.used());
    }
    assert!(memory.forgotten() > 0);
    assert!(index.entries() * 64 > limit / 2, "{} entries", index.entries());
    // What was sent last is still there, and no endpoint was robbed of everything.
    let lens: Vec<usize> = index.caches.read().iter().map(|cache| cache.len.load(Relaxed)).collect();
    assert!(lens.iter().all(|&len| len * 8 > index.entries() as usize), "{lens:?}");
    drop(index);
    assert_eq!(memory.used(), 0);
}

#[test]
fn no_room_at_all_is_no_error() {
    let pool = pool_of([0]);
    let index = ApproxIndex::new(PrefixMemory::new(0), 7);
    record(&index, &pool, 0, 10, &["abc"]);
    assert_eq!((held(&index, &pool, &["abc"]), index.entries()), (vec![0], 0));
}

#[test]
fn an_entry_takes_at_most_64_bytes() {
    let pool = pool_of(0..10);
    let memory = PrefixMemory::new(u64::MAX);
    let index = ApproxIndex::new(Arc::clone(&memory), 7);
    let snapshot = pool.snapshot();
    index.lookup(&snapshot, &BlockHashes::default());
    let mut worst = 0;
    // Prompts of 860 blocks, until the caches have turned over twice.
    for request in 0..1000u32 {
        let mut hasher = BlockHasher::new("m", "", 1, usize::MAX, 0);
        for token in 0..860 {
            hasher.write_token(request * 1000 + token);
        }
        index.record(&snapshot.endpoints()[request as usize % 10], 31_250, &hasher.finish());
        if request > 20 {
            worst = worst.max(memory.used() / index.entries());
        }
    }
    assert_eq!(index.entries(), 312_500);
    assert!(worst <= 64, "{worst} bytes at worst");
    assert!(memory.used() / index.entries() <= 60, "{} bytes at the end", memory.used() / index.entries());
}

/// What the reference does, without its leak: of a prompt that is longer than the cache the first blocks stay.
#[derive(Default)]
struct Model {
    /// Oldest first.
    caches: BTreeMap<u64, Vec<u64>>,
    capacities: HashMap<u64, usize>,
}

impl Model {
    fn record(&mut self, incarnation: u64, capacity: usize, blocks: &BlockHashes) {
        if blocks.is_empty() {
            return;
        }
        let capacity = *self.capacities.entry(incarnation).or_insert(capacity);
        let cache = self.caches.entry(incarnation).or_default();
        for &hash in blocks.chains().flatten().take(capacity) {
            cache.retain(|known| *known != hash);
            cache.push(hash);
            if cache.len() > capacity {
                cache.remove(0);
            }
        }
    }

    fn lookup(&self, blocks: &BlockHashes) -> BTreeMap<u64, u32> {
        let mut counts = BTreeMap::new();
        for chain in blocks.chains() {
            for hash in chain {
                let holders: Vec<u64> =
                    self.caches.iter().filter(|(_, cache)| cache.contains(hash)).map(|(id, _)| *id).collect();
                if holders.is_empty() {
                    break;
                }
                for holder in holders {
                    *counts.entry(holder).or_default() += 1;
                }
            }
        }
        counts
    }
}

#[derive(Clone, Debug)]
enum Step {
    Record { place: usize, capacity: usize, prompts: Vec<String> },
    Lookup(Vec<String>),
    Change(BTreeSet<u16>),
}

fn prompts() -> impl Strategy<Value = Vec<String>> {
    // Two letters and long runs: shared beginnings, several segments.
    let prompt = prop::collection::vec((prop::sample::select(vec!["a", "b"]), 1usize..50), 0..5)
        .prop_map(|runs| runs.into_iter().map(|(letter, count)| letter.repeat(count)).collect::<String>());
    prop::collection::vec(prompt, 1..3)
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let names =
        prop::collection::btree_set(prop::sample::select((0u16..200).step_by(23).collect::<Vec<_>>()), 1..8);
    let step = prop_oneof![
        6 => (any::<usize>(), prop::sample::select(vec![1usize, 3, 40, 1000]), prompts())
            .prop_map(|(place, capacity, prompts)| Step::Record { place, capacity, prompts }),
        3 => prompts().prop_map(Step::Lookup),
        1 => names.prop_map(Step::Change),
    ];
    prop::collection::vec(step, 0..40)
}

proptest! {
    #[test]
    fn the_index_equals_the_model(steps in steps(), many in any::<bool>()) {
        // With many endpoints slots need several words.
        let extra = if many { 1000u16..1100 } else { 0..0 };
        let pool = pool_of(extra.clone().chain([0, 23, 46]));
        let index = index();
        let mut model = Model::default();
        index.lookup(&pool.snapshot(), &BlockHashes::default());
        for step in steps {
            let snapshot = pool.snapshot();
            match step {
                Step::Record { place, capacity, prompts } => {
                    let prompts: Vec<&str> = prompts.iter().map(String::as_str).collect();
                    let endpoint = &snapshot.endpoints()[snapshot.len() - 1 - place % snapshot.len().min(7)];
                    index.record(endpoint, capacity, &blocks(&prompts));
                    model.record(endpoint.incarnation(), capacity, &blocks(&prompts));
                }
                Step::Lookup(prompts) => {
                    let prompts: Vec<&str> = prompts.iter().map(String::as_str).collect();
                    let expected = model.lookup(&blocks(&prompts));
                    let held = index.lookup(&snapshot, &blocks(&prompts));
                    for (place, endpoint) in snapshot.endpoints().iter().enumerate() {
                        let expected = expected.get(&endpoint.incarnation()).copied().unwrap_or(0);
                        prop_assert_eq!(held.at(place), expected, "{}", endpoint.id());
                    }
                }
                Step::Change(names) => {
                    set(&pool, extra.clone().chain(names));
                    let snapshot = pool.snapshot();
                    index.lookup(&snapshot, &BlockHashes::default());
                    let live: HashSet<u64> =
                        snapshot.endpoints().iter().map(|endpoint| endpoint.incarnation()).collect();
                    model.caches.retain(|incarnation, _| live.contains(incarnation));
                }
            }
        }
        index.lookup(&pool.snapshot(), &BlockHashes::default());
        let entries: usize = model.caches.values().map(Vec::len).sum();
        prop_assert_eq!(index.entries() as usize, entries);
        let memory = Arc::clone(&index.memory);
        drop(index);
        prop_assert_eq!(memory.used(), 0);
    }
}

#[test]
fn parallel_requests_and_pool_changes_leave_no_entry_behind() {
    let pool = pool_of(0..8);
    let memory = PrefixMemory::new(60_000);
    let index = ApproxIndex::new(Arc::clone(&memory), 7);
    std::thread::scope(|scope| {
        for thread in 0..4u32 {
            let (pool, index) = (&pool, &index);
            scope.spawn(move || {
                for round in 0..300u32 {
                    let snapshot = pool.snapshot();
                    let mut hasher = BlockHasher::new("m", "", 1, usize::MAX, 0);
                    for token in 0..150 {
                        hasher.write_token(round % 7 * 1000 + token);
                    }
                    let blocks = hasher.finish();
                    index.lookup(&snapshot, &blocks);
                    let place = (round * 5 + thread) as usize % snapshot.len();
                    index.record(&snapshot.endpoints()[place], 100, &blocks);
                    if thread == 0 && round % 10 == 0 {
                        set(pool, (0..8).filter(|name| (u32::from(*name) + round / 10) % 3 != 0));
                    }
                }
            });
        }
    });
    set(&pool, [100]);
    for _ in 0..3 {
        index.lookup(&pool.snapshot(), &BlockHashes::default());
    }
    assert_eq!(index.entries(), 0);
    assert_eq!(index.departed_len.load(Relaxed), 0);
    let blocks: usize = index.shards.iter().map(|shard| shard.read().bytes()).sum();
    assert!(blocks < 60_000, "{blocks}");
}
