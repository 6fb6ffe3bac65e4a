//! Prefix matching: hashing a prompt, looking it up, recording it.

#![allow(missing_docs, reason = "criterion generates public items")]
#![allow(clippy::unwrap_used, reason = "a bench may panic")]

use std::hint::black_box;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use pointsman::pool::{EndpointId, EndpointSpec, Pool, Snapshot};
use pointsman::prefix::{ApproxIndex, BlockHashes, BlockShape, PrefixMemory, block_hashes};
use pointsman::request::{Headers, Inference, JsonStr, Piece};

const ENDPOINTS: [usize; 3] = [10, 100, 1000];
const TOKENS: [usize; 2] = [10_000, 100_000];
const SHAPE: BlockShape = BlockShape { block_size: 64, max_blocks: 2048 };

fn snapshot(endpoints: usize) -> Arc<Snapshot> {
    let pool = Pool::new("default", "pool", Instant::now());
    let spec = |number: usize| {
        let address = SocketAddr::from(([10, 0, (number / 250) as u8, (number % 250) as u8], 8000));
        EndpointSpec::new(EndpointId::new("default", &format!("pod-{number}")), address)
    };
    pool.replace_endpoints((0..endpoints).map(spec).collect());
    pool.snapshot()
}

/// A body that is one JSON string of `tokens` pseudo-tokens; with a line break every 80 bytes if `escaped`.
fn body(tokens: usize, escaped: bool) -> (Vec<u8>, Inference) {
    let mut rng = fastrand::Rng::with_seed(3);
    let mut text = vec![b'"'];
    while text.len() <= tokens * 4 {
        text.push(rng.u8(b'a'..=b'z'));
        if escaped && text.len() % 80 == 0 {
            text.extend_from_slice(b"\\n");
        }
    }
    text.push(b'"');
    let mut inference = Inference::opaque();
    let string = JsonStr { start: 1, end: text.len() as u32 - 1, escaped };
    inference.prompt.pieces.push(Piece::Text(string));
    (text, inference)
}

fn hashes(tokens: usize, model: &str) -> BlockHashes {
    let (body, inference) = body(tokens, false);
    block_hashes(model, &inference, &body, &Headers::new(), SHAPE)
}

fn index() -> ApproxIndex {
    ApproxIndex::new(PrefixMemory::new(u64::MAX), 7)
}

fn hashing(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("prefix/hash");
    for tokens in TOKENS {
        for (name, escaped) in [("plain", false), ("escaped", true)] {
            let (body, inference) = body(tokens, escaped);
            group.throughput(Throughput::Bytes(body.len() as u64));
            group.bench_function(BenchmarkId::new(name, tokens), |bencher| {
                bencher.iter(|| block_hashes("model", &inference, black_box(&body), &Headers::new(), SHAPE));
            });
        }
    }
}

fn matching(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("prefix/match");
    for endpoints in ENDPOINTS {
        for tokens in TOKENS {
            let snapshot = snapshot(endpoints);
            let blocks = hashes(tokens, "model");
            let id = format!("{endpoints} endpoints/{tokens} tokens");
            let mut bench = |name: &str, depth: &mut dyn FnMut(usize) -> usize| {
                let index = index();
                index.lookup(&snapshot, &blocks);
                let chain: Vec<u64> = blocks.chains().flatten().copied().collect();
                for (number, endpoint) in snapshot.endpoints().iter().enumerate() {
                    let held = &chain[..depth(number).min(chain.len())];
                    index.record(endpoint, 31_250, &BlockHashes::from_chains(64, &[held]));
                }
                group.bench_function(BenchmarkId::new(name, &id), |bencher| {
                    bencher.iter(|| index.lookup(&snapshot, black_box(&blocks)));
                });
            };
            let all = blocks.len();
            let mut rng = fastrand::Rng::with_seed(5);
            bench("held by all", &mut |_| all);
            bench("held by one", &mut |number| if number == 0 { all } else { 0 });
            bench("held in part", &mut |_| rng.usize(..=all));
            bench("held by none", &mut |_| 0);
        }
    }
}

fn recording(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("prefix/record");
    for tokens in TOKENS {
        let snapshot = snapshot(10);
        let index = index();
        let endpoint = &snapshot.endpoints()[0];
        let prompts: Vec<BlockHashes> = (0..64).map(|n| hashes(tokens, &format!("model-{n}"))).collect();
        index.lookup(&snapshot, &prompts[0]);
        group.bench_function(BenchmarkId::new("known", tokens), |bencher| {
            bencher.iter(|| index.record(endpoint, 31_250, black_box(&prompts[0])));
        });
        // Half of the prompts fit, so that each has been forgotten when its turn comes.
        let (index, capacity) = (self::index(), prompts[0].len() * 32);
        index.lookup(&snapshot, &prompts[0]);
        let mut next = prompts.iter().cycle();
        group.bench_function(BenchmarkId::new("new, full cache", tokens), |bencher| {
            bencher.iter(|| index.record(endpoint, capacity, next.next().unwrap()));
        });
    }
}

criterion_group!(benches, hashing, matching, recording);
criterion_main!(benches);
