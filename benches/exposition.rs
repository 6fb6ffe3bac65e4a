//! Reading metrics pages: a captured one, its data-parallel sibling, one of the size most pods serve, and a filtered
//! one.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use pointsman::datalayer::EngineTable;
use pointsman::datalayer::exposition::{Figures, PageReader, WantedSeries};

const CAPTURED: &[u8] = include_bytes!("../tests/data/vllm-0.32.0/metrics.txt");
const TWO_ENGINES: &[u8] = include_bytes!("../tests/data/vllm-0.32.0/metrics_dp2.txt");

/// The rows that a filtering server would send, and behind them other rows of the captured page, up to `bytes`.
fn page_of(bytes: usize) -> Vec<u8> {
    let needed = |line: &&[u8]| {
        [
            &b"vllm:num_requests_running"[..],
            b"vllm:num_requests_waiting{",
            b"vllm:kv_cache_usage",
            b"vllm:cache_config",
        ]
        .iter()
        .any(|name| line.starts_with(name))
    };
    let (mut rows, others): (Vec<&[u8]>, Vec<&[u8]>) =
        CAPTURED.split_inclusive(|byte| *byte == b'\n').partition(needed);
    let mut size: usize = rows.iter().map(|row| row.len()).sum();
    for row in others {
        size += row.len();
        if size > bytes {
            break;
        }
        rows.push(row);
    }
    rows.concat()
}

fn read_pages(criterion: &mut Criterion) {
    let wanted = WantedSeries::new(&EngineTable::builtin().engines["vllm"], Figures::ALL);
    let mut group = criterion.benchmark_group("exposition");
    for (name, page) in [
        ("captured page, 56 KB", CAPTURED.to_vec()),
        ("captured page, two engines, 64 KB", TWO_ENGINES.to_vec()),
        ("usual page, 25 KB", page_of(25 * 1024)),
        ("filtered page", page_of(0)),
    ] {
        group.throughput(Throughput::Bytes(page.len() as u64));
        group.bench_function(name, |bencher| {
            let mut reader = PageReader::new();
            bencher.iter(|| {
                reader.feed(&wanted, black_box(&page));
                reader.finish(&wanted, false)
            });
        });
    }
    group.finish();
}

criterion_group!(benches, read_pages);
criterion_main!(benches);
