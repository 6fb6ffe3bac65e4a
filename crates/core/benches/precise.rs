//! The index of what engines say that they hold: taking events in, looking a prompt up, and memory.

#![allow(missing_docs, reason = "criterion generates public items")]
#![allow(clippy::unwrap_used, reason = "a bench may panic")]
#![allow(clippy::print_stdout, reason = "the memory of an entry is a figure too")]

use std::hint::black_box;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use pointsman_core::pool::{Endpoint, EndpointId, EndpointSpec, Pool, Snapshot};
use pointsman_core::prefix::PrefixMemory;
use pointsman_core::prefix::precise::{KvEvent, PreciseIndex, StoredBlocks, TierWeights};
use pointsman_core::request::TokenizedPrompt;

const BLOCK: usize = 16;
/// Blocks of a prompt of 100,000 tokens.
const PROMPT: usize = 6250;
const ENGINES: u16 = 100;
/// Blocks of an event.
const EVENT: usize = 32;

fn pool(count: u16) -> Arc<Snapshot> {
    let pool = Pool::new("ns", "pool", Instant::now());
    let spec = |number: u16| {
        let address = SocketAddr::from(([10, 0, 0, 1], 1000 + number));
        EndpointSpec::new(EndpointId::new("ns", &format!("pod-{number}")), address)
    };
    pool.replace_endpoints((0..count).map(spec).collect());
    pool.snapshot()
}

fn index(snapshot: &Snapshot) -> PreciseIndex {
    let index = PreciseIndex::new(PrefixMemory::new(u64::MAX), "", TierWeights::default(), 7);
    index.follow(snapshot);
    index
}

/// Events that tell of a prompt of random tokens.
fn events(seed: u64, blocks: usize) -> (Vec<u32>, Vec<KvEvent>) {
    let mut rng = fastrand::Rng::with_seed(seed);
    let tokens: Vec<u32> = (0..blocks * BLOCK).map(|_| rng.u32(..150_000)).collect();
    let hashes: Vec<u64> = (0..blocks).map(|_| rng.u64(..)).collect();
    let event = |(number, hashes): (usize, &[u64])| {
        let from = number * EVENT;
        KvEvent::Stored(StoredBlocks {
            parent: from.checked_sub(1).map(|before| all_of(seed, blocks, before)),
            hashes: hashes.to_vec(),
            tokens: tokens[from * BLOCK..(from + hashes.len()) * BLOCK].to_vec(),
            block_size: BLOCK as u32,
            ..StoredBlocks::default()
        })
    };
    let made = hashes.chunks(EVENT).enumerate().map(event).collect();
    (tokens, made)
}

/// The hash of one block of such a prompt.
fn all_of(seed: u64, blocks: usize, block: usize) -> u64 {
    let mut rng = fastrand::Rng::with_seed(seed);
    for _ in 0..blocks * BLOCK {
        rng.u32(..150_000);
    }
    for _ in 0..block {
        rng.u64(..);
    }
    rng.u64(..)
}

fn ingestion(criterion: &mut Criterion) {
    let snapshot = pool(1);
    let engine = snapshot.endpoints()[0].incarnation();
    let (_, events) = events(1, PROMPT);
    let mut group = criterion.benchmark_group("precise/ingestion");
    group.throughput(Throughput::Elements(PROMPT as u64));
    group.bench_function("6250 blocks", |bencher| {
        bencher.iter_batched_ref(
            || index(&snapshot),
            |index| {
                for event in &events {
                    black_box(index.apply(engine, event));
                }
            },
            BatchSize::LargeInput,
        );
    });
    group.finish();
}

fn lookup(criterion: &mut Criterion) {
    let snapshot = pool(ENGINES);
    let index = index(&snapshot);
    let (tokens, shared) = events(1, PROMPT);
    for (number, endpoint) in snapshot.endpoints().iter().enumerate() {
        // All hold the prompt, and each a prompt of its own.
        let (_, own) = events(number as u64 + 2, PROMPT);
        for event in shared.iter().chain(&own) {
            index.apply(endpoint.incarnation(), event);
        }
    }
    let bytes = index.memory().used() as f64 / index.entries() as f64;
    println!(
        "{} entries, {bytes:.1} bytes for a block and a holder, half of them of 100 holders",
        index.entries()
    );
    let endpoints: Vec<&Endpoint> = snapshot.endpoints().iter().map(AsRef::as_ref).collect();
    let prompt = TokenizedPrompt { ids: tokens, media: Vec::new() };
    let keys = [index.keys().of_prompt("", &prompt, "", BLOCK as u32)];
    let held = index.lookup(&endpoints, &keys);
    assert!(held.iter().all(|held| held.blocks as usize == PROMPT));
    let mut group = criterion.benchmark_group("precise/lookup");
    group.bench_function("6250 blocks on 100 engines", |bencher| {
        bencher.iter(|| black_box(index.lookup(&endpoints, black_box(&keys))));
    });
    group.finish();
}

criterion_group!(benches, ingestion, lookup);
criterion_main!(benches);
