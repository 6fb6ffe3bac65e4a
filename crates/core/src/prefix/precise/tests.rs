use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;
use crate::pool::{Endpoint, EndpointId, EndpointSpec, Pool, Snapshot};
use crate::prefix::PrefixMemory;
use crate::request::TokenizedPrompt;

const SIZE: u32 = 4;

fn pool(count: u16) -> Pool {
    let pool = Pool::new("ns", "pool", Instant::now());
    set(&pool, 0..count);
    pool
}

fn set(pool: &Pool, names: impl IntoIterator<Item = u16>) {
    let spec = |name: u16| {
        let address: SocketAddr = ([10, 0, 0, 1], 1000 + name).into();
        EndpointSpec::new(EndpointId::new("ns", &format!("pod-{name}")), address)
    };
    pool.replace_endpoints(names.into_iter().map(spec).collect());
}

fn index(snapshot: &Snapshot) -> PreciseIndex {
    let index = PreciseIndex::new(PrefixMemory::new(u64::MAX), "", TierWeights::default(), 7);
    index.follow(snapshot);
    index
}

fn prompt(tokens: &[u32]) -> TokenizedPrompt {
    TokenizedPrompt { ids: tokens.to_vec(), media: Vec::new() }
}

/// The engine's hashes of the blocks of a prompt: any function of all tokens so far.
fn hashes(tokens: &[u32]) -> Vec<u64> {
    let mut hash = 1_469_598_103_934_665_603_u64;
    let blocks = tokens.chunks_exact(SIZE as usize);
    blocks
        .map(|block| {
            for token in block {
                hash = (hash ^ u64::from(*token)).wrapping_mul(1_099_511_628_211);
            }
            hash
        })
        .collect()
}

fn stored(tokens: &[u32], from: usize, tier: Tier) -> KvEvent {
    let all = hashes(tokens);
    KvEvent::Stored(StoredBlocks {
        parent: from.checked_sub(1).map(|before| all[before]),
        hashes: all[from..].to_vec(),
        tokens: tokens[from * SIZE as usize..all.len() * SIZE as usize].to_vec(),
        block_size: SIZE,
        tier,
        ..StoredBlocks::default()
    })
}

fn held(index: &PreciseIndex, snapshot: &Snapshot, name: &str, tokens: &[u32]) -> Vec<HeldPrefix> {
    let endpoints: Vec<&Endpoint> = snapshot.endpoints().iter().map(AsRef::as_ref).collect();
    let keys = index.keys().of_prompt(index.adapter(name), &prompt(tokens), "", SIZE);
    index.lookup(&endpoints, &[keys])
}

fn blocks(index: &PreciseIndex, snapshot: &Snapshot, tokens: &[u32]) -> Vec<u32> {
    held(index, snapshot, "m", tokens).into_iter().map(|held| held.blocks).collect()
}

fn incarnation(snapshot: &Snapshot, place: usize) -> u64 {
    snapshot.endpoints()[place].incarnation()
}

#[test]
fn a_prompt_is_held_as_far_as_the_engine_has_told_without_a_gap() {
    let pool = pool(2);
    let snapshot = pool.snapshot();
    let index = index(&snapshot);
    let tokens: Vec<u32> = (0..20).collect();
    let [a, b] = [incarnation(&snapshot, 0), incarnation(&snapshot, 1)];
    assert_eq!(index.apply(a, &stored(&tokens, 0, Tier::Gpu)), Taken::Whole);
    assert_eq!(index.apply(b, &stored(&tokens[..8], 0, Tier::Gpu)), Taken::Whole);
    assert_eq!(blocks(&index, &snapshot, &tokens), [5, 2]);
    assert_eq!(blocks(&index, &snapshot, &tokens[..18]), [4, 2]);
    let removed = KvEvent::Removed { hashes: vec![hashes(&tokens)[1]], tier: Tier::Gpu };
    index.apply(a, &removed);
    assert_eq!(blocks(&index, &snapshot, &tokens), [1, 2], "what lies behind a gap does not count");
    index.apply(a, &KvEvent::Cleared);
    assert_eq!((blocks(&index, &snapshot, &tokens), index.entries()), (vec![0, 2], 2));
}

#[test]
fn what_follows_an_unknown_block_is_not_taken_in() {
    let pool = pool(1);
    let snapshot = pool.snapshot();
    let index = index(&snapshot);
    let tokens: Vec<u32> = (0..20).collect();
    let one = incarnation(&snapshot, 0);
    assert_eq!(index.apply(one, &stored(&tokens, 2, Tier::Gpu)), Taken::UnknownParent);
    assert_eq!(index.apply(99, &stored(&tokens, 0, Tier::Gpu)), Taken::UnknownEndpoint);
    let odd = KvEvent::Stored(StoredBlocks {
        hashes: vec![1, 2],
        tokens: vec![1, 2, 3],
        block_size: 2,
        ..StoredBlocks::default()
    });
    assert_eq!(index.apply(one, &odd), Taken::Malformed);
    assert_eq!(index.entries(), 0);
}

#[test]
fn a_block_counts_by_the_best_tier_that_holds_it() {
    let pool = pool(2);
    let snapshot = pool.snapshot();
    let index = index(&snapshot);
    let tokens: Vec<u32> = (0..12).collect();
    let [a, b] = [incarnation(&snapshot, 0), incarnation(&snapshot, 1)];
    index.apply(a, &stored(&tokens, 0, Tier::Cpu));
    index.apply(b, &stored(&tokens, 0, Tier::Gpu));
    let weights = |index: &PreciseIndex| {
        held(index, &snapshot, "m", &tokens)
            .into_iter()
            .map(|held| (held.weight * 10.0).round() as i64)
            .collect::<Vec<_>>()
    };
    assert_eq!(weights(&index), [24, 30]);
    // A known block in another tier comes without its tokens.
    let hash = hashes(&tokens)[0];
    index.apply(a, &KvEvent::Stored(StoredBlocks { hashes: vec![hash], ..StoredBlocks::default() }));
    assert_eq!(weights(&index), [26, 30]);
    index.apply(a, &KvEvent::Removed { hashes: vec![hash], tier: Tier::Cpu });
    assert_eq!(weights(&index), [26, 30]);
    index.apply(a, &KvEvent::Removed { hashes: vec![hash], tier: Tier::Gpu });
    assert_eq!(weights(&index), [0, 30]);
}

#[test]
fn adapters_salts_and_media_tell_blocks_apart() {
    let pool = pool(1);
    let snapshot = pool.snapshot();
    let index = index(&snapshot);
    let tokens: Vec<u32> = (0..8).collect();
    let one = incarnation(&snapshot, 0);
    let extras =
        vec![vec![Extra::from(&b"ad1"[..]), Extra::from(&b"salt"[..])], vec![Extra::from(&b"ad1"[..])]];
    let KvEvent::Stored(plain) = stored(&tokens, 0, Tier::Gpu) else { unreachable!() };
    index.apply(one, &KvEvent::Stored(StoredBlocks { adapter: Some("ad1".into()), extras, ..plain }));
    assert_eq!(blocks(&index, &snapshot, &tokens), [0]);
    // The adapter's name among the extras says nothing new.
    let endpoints: Vec<&Endpoint> = snapshot.endpoints().iter().map(AsRef::as_ref).collect();
    assert_eq!((index.adapter("ad1"), index.adapter("base")), ("ad1", ""));
    let salted = index.keys().of_prompt("ad1", &prompt(&tokens), "salt", SIZE);
    assert_eq!(index.lookup(&endpoints, &[salted])[0].blocks, 2);
    let unsalted = index.keys().of_prompt("ad1", &prompt(&tokens), "", SIZE);
    assert_eq!(index.lookup(&endpoints, &[unsalted])[0].blocks, 0);
}

#[test]
fn what_was_sent_counts_until_its_time_is_up() {
    let pool = pool(2);
    let snapshot = pool.snapshot();
    let index = index(&snapshot);
    let tokens: Vec<u32> = (0..8).collect();
    let now = Instant::now();
    let keys = index.keys().of_prompt("", &prompt(&tokens), "", SIZE);
    index.sent(&snapshot.endpoints()[1], std::slice::from_ref(&keys), now + Duration::from_secs(2));
    index.sent(&snapshot.endpoints()[1], &[keys], now + Duration::from_secs(3));
    assert_eq!(blocks(&index, &snapshot, &tokens), [0, 2]);
    index.expire(now + Duration::from_secs(2));
    assert_eq!(blocks(&index, &snapshot, &tokens), [0, 0]);
    index.apply(incarnation(&snapshot, 1), &stored(&tokens, 0, Tier::Gpu));
    index.expire(now + Duration::from_secs(4));
    assert_eq!(blocks(&index, &snapshot, &tokens), [0, 2]);
}

#[test]
fn an_endpoint_that_leaves_takes_its_blocks_with_it() {
    let pool = pool(2);
    let memory = PrefixMemory::new(u64::MAX);
    let index = PreciseIndex::new(Arc::clone(&memory), "", TierWeights::default(), 7);
    let snapshot = pool.snapshot();
    index.follow(&snapshot);
    let tokens: Vec<u32> = (0..4000).collect();
    index.apply(incarnation(&snapshot, 0), &stored(&tokens, 0, Tier::Gpu));
    assert!(memory.used() > 1000);
    set(&pool, [1]);
    index.follow(&pool.snapshot());
    assert_eq!((index.entries(), memory.used()), (0, 0));
    // A replacement has a cache of its own.
    set(&pool, [0, 1]);
    let snapshot = pool.snapshot();
    index.follow(&snapshot);
    assert_eq!(blocks(&index, &snapshot, &tokens), [0, 0]);
}

#[test]
fn memory_has_a_bound_and_the_oldest_blocks_go_first() {
    let pool = pool(1);
    let memory = PrefixMemory::new(1 << 20);
    let index = PreciseIndex::new(Arc::clone(&memory), "", TierWeights::default(), 7);
    let snapshot = pool.snapshot();
    index.follow(&snapshot);
    for start in 0..40_u32 {
        let tokens: Vec<u32> = (start * 100_000..start * 100_000 + 4000).collect();
        index.apply(incarnation(&snapshot, 0), &stored(&tokens, 0, Tier::Gpu));
        assert!(memory.used() <= memory.limit());
        assert_eq!(blocks(&index, &snapshot, &tokens), [1000], "the newest prompt is there");
    }
    assert!(memory.forgotten() > 0);
}

/// What one engine holds: blocks by the tokens up to their end.
type Held = BTreeMap<Vec<u32>, u32>;

#[derive(Clone, Debug)]
enum Step {
    Store { engine: usize, tokens: Vec<u32>, from: usize },
    Remove { engine: usize, pick: usize },
    Clear { engine: usize },
    Lost { engine: usize },
    Replace { engine: usize },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let tokens = prop::collection::vec(0..2_u32, 0..24);
    let engine = 0..3_usize;
    let step = prop_oneof![
        8 => (engine.clone(), tokens, 0..3_usize).prop_map(|(engine, tokens, from)| Step::Store { engine, tokens, from }),
        5 => (engine.clone(), any::<usize>()).prop_map(|(engine, pick)| Step::Remove { engine, pick }),
        1 => engine.clone().prop_map(|engine| Step::Clear { engine }),
        1 => engine.clone().prop_map(|engine| Step::Lost { engine }),
        1 => engine.prop_map(|engine| Step::Replace { engine }),
    ];
    prop::collection::vec(step, 0..60)
}

proptest! {
    /// Whatever engines store, remove and forget, and whatever of it is lost: no block is claimed that the engine lacks.
    /// Where nothing is lost, every block is claimed.
    #[test]
    fn the_index_claims_what_engines_hold_and_nothing_else(steps in steps()) {
        let pool = pool(3);
        let memory = PrefixMemory::new(u64::MAX);
        let index = PreciseIndex::new(Arc::clone(&memory), "", TierWeights::default(), 7);
        let (mut engines, mut whole) = (vec![Held::new(); 3], [true; 3]);
        let mut names = [0, 1, 2];
        index.follow(&pool.snapshot());
        for step in steps {
            let snapshot = pool.snapshot();
            match step {
                Step::Store { engine, tokens, from } => {
                    let count = tokens.len() / SIZE as usize;
                    let from = from.min(count);
                    let known = from == 0 || engines[engine].contains_key(&tokens[..from * SIZE as usize]);
                    if known && from < count {
                        for block in from..count {
                            *engines[engine].entry(tokens[..(block + 1) * SIZE as usize].to_vec()).or_default() += 1;
                        }
                        let taken = index.apply(incarnation(&snapshot, engine), &stored(&tokens, from, Tier::Gpu));
                        if whole[engine] {
                            prop_assert_eq!(taken, Taken::Whole);
                        }
                    }
                }
                Step::Remove { engine, pick } => {
                    let keys: Vec<_> = engines[engine].keys().cloned().collect();
                    if let Some(tokens) = keys.get(pick % keys.len().max(1)) {
                        let count = engines[engine].get_mut(tokens).unwrap();
                        *count -= 1;
                        if *count == 0 {
                            engines[engine].remove(tokens);
                        }
                        let hashes = vec![*hashes(tokens).last().unwrap()];
                        index.apply(incarnation(&snapshot, engine), &KvEvent::Removed { hashes, tier: Tier::Gpu });
                    }
                }
                Step::Clear { engine } => {
                    engines[engine].clear();
                    whole[engine] = true;
                    index.apply(incarnation(&snapshot, engine), &KvEvent::Cleared);
                }
                // An event was missed: the engine is forgotten. It goes on holding what it holds.
                Step::Lost { engine } => {
                    whole[engine] = engines[engine].is_empty();
                    index.forget(incarnation(&snapshot, engine));
                }
                Step::Replace { engine } => {
                    engines[engine].clear();
                    whole[engine] = true;
                    names[engine] += 10;
                    set(&pool, names);
                    index.follow(&pool.snapshot());
                }
            }
        }
        let snapshot = pool.snapshot();
        let by_name: HashMap<String, usize> =
            names.iter().enumerate().map(|(engine, name)| (format!("pod-{name}"), engine)).collect();
        let mut prompts: Vec<Vec<u32>> = engines.iter().flat_map(BTreeMap::keys).cloned().collect();
        prompts.push(vec![1; 16]);
        for tokens in prompts {
            let found = blocks(&index, &snapshot, &tokens);
            for (place, endpoint) in snapshot.endpoints().iter().enumerate() {
                let engine = by_name[endpoint.id().name()];
                let holds = |block: &usize| engines[engine].contains_key(&tokens[..(block + 1) * SIZE as usize]);
                let expected = (0..tokens.len() / SIZE as usize).take_while(holds).count() as u32;
                if whole[engine] {
                    prop_assert_eq!(found[place], expected);
                } else {
                    prop_assert!(found[place] <= expected);
                }
            }
        }
        set(&pool, []);
        index.follow(&pool.snapshot());
        prop_assert_eq!((index.entries(), memory.used()), (0, 0));
    }
}

#[test]
fn what_was_sent_has_a_bound_and_comes_back() {
    let pool = pool(1);
    let memory = PrefixMemory::new(u64::MAX);
    let index = PreciseIndex::new(Arc::clone(&memory), "", TierWeights::default(), 7);
    let snapshot = pool.snapshot();
    index.follow(&snapshot);
    let now = Instant::now();
    for start in 0..8_u32 {
        let tokens: Vec<u32> = (start * 1_000_000..start * 1_000_000 + 400_000).collect();
        let keys = index.keys().of_prompt("", &prompt(&tokens), "", SIZE);
        index.sent(&snapshot.endpoints()[0], &[keys], now + Duration::from_secs(2));
    }
    assert!(memory.used() < 8 << 20, "{}", memory.used());
    index.expire(now + Duration::from_secs(2));
    assert!(memory.used() < 1 << 16, "{}", memory.used());
    assert_eq!(index.block_sizes(&[&*snapshot.endpoints()[0]]), [None]);
    index.apply(incarnation(&snapshot, 0), &stored(&[1; 8], 0, Tier::Gpu));
    assert_eq!(index.block_sizes(&[&*snapshot.endpoints()[0]]), [Some(SIZE)]);
}

#[test]
fn a_block_that_many_engines_hold_takes_few_bytes_for_each_of_them() {
    let snapshot = pool(100).snapshot();
    let bytes = |shared: bool| {
        let index = index(&snapshot);
        for place in 0..100 {
            // Each engine has a prompt of its own, or all have the same.
            let first = if shared { 0 } else { place as u32 * 1_000_000 };
            let tokens: Vec<u32> = (first..first + 6_000 * SIZE).collect();
            index.apply(incarnation(&snapshot, place), &stored(&tokens, 0, Tier::Gpu));
        }
        index.memory().used() as f64 / index.entries() as f64
    };
    let (shared, own) = (bytes(true), bytes(false));
    println!("{shared:.1} bytes for a block and a holder where all hold it, {own:.1} where one does");
    assert!(shared <= 40.0 && own <= 60.0, "{shared} {own}");
}
