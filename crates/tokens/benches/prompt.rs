//! Time for the tokens of a chat, from the body to the ids.
//!
//! `POINTSMAN_BENCH_MODEL` names the folder of a model; without it the small one of the tests is used, whose figures
//! say little: its vocabulary makes more and shorter tokens.
#![allow(clippy::unwrap_used, missing_docs, reason = "a bench ends this way; its macros make public items")]

use std::path::{Path, PathBuf};
use std::time::Duration;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use pointsman_tokens::{Model, ModelLimits, ServerProfile, Stop};
use serde_json::json;

fn model(cache_bytes: usize) -> Model {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data");
    let limits = ModelLimits { cache_bytes, ..ModelLimits::default() };
    if let Some(folder) = std::env::var_os("POINTSMAN_BENCH_MODEL") {
        return Model::load(&PathBuf::from(folder), ServerProfile::default(), limits).unwrap();
    }
    let chat_template = Some(std::fs::read_to_string(data.join("templates/words.jinja")).unwrap());
    Model::load(&data, ServerProfile { chat_template, ..ServerProfile::default() }, limits).unwrap()
}

/// Text of about `tokens` tokens; `seed` makes it another.
fn text(tokens: usize, seed: usize) -> String {
    let lines = [
        "The scheduler moves work between the two servers when the load of one grows",
        "fn main() { let total: usize = items.iter().map(|item| item.len()).sum(); }",
        "In 2024 the river rose by 12.5 metres; nobody had expected that.",
    ];
    let mut out = String::new();
    for at in 0..tokens / 18 {
        out.push_str(lines[(at * 7 + seed) % lines.len()]);
        out.push_str(&format!(" #{}\n", (at * 31 + seed * 977) % 10_007));
    }
    out
}

/// A chat of `turns` messages of `tokens` tokens; the last is made from `last`.
fn chat(turns: usize, tokens: usize, last: usize) -> Vec<u8> {
    let message = |turn: usize| {
        let role = if turn.is_multiple_of(2) { "user" } else { "assistant" };
        let seed = if turn + 1 == turns { last } else { turn };
        json!({"role": role, "content": text(tokens, seed)})
    };
    serde_json::to_vec(&json!({"messages": (0..turns).map(message).collect::<Vec<_>>()})).unwrap()
}

fn prompts(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("prompt");
    group.measurement_time(Duration::from_secs(4)).sample_size(30);
    let path = "/v1/chat/completions";
    let ids = |model: &Model, body: &[u8]| model.prepare(path, body, Stop::NEVER).unwrap().ids;

    let warm = model(64 << 20);
    // Word caches of the encoder and lazily built tables.
    let count = ids(&warm, &chat(21, 4800, 1_000_000))[0].len();
    let mut last = 0;
    group.bench_function(format!("{count} tokens, 95 % cached"), |bencher| {
        bencher.iter_batched(
            || {
                last += 1;
                chat(21, 4800, last * 1000)
            },
            |body| ids(&warm, &body),
            BatchSize::LargeInput,
        );
    });
    let cold = model(0);
    let body = chat(21, 4800, 1);
    ids(&cold, &body);
    group.bench_function(format!("{count} tokens, nothing cached"), |bencher| {
        bencher.iter(|| ids(&cold, &body));
    });
    let short = chat(3, 70, 1);
    let count = ids(&cold, &short)[0].len();
    group.bench_function(format!("{count} tokens"), |bencher| bencher.iter(|| ids(&cold, &short)));
    group.finish();
}

criterion_group!(benches, prompts);
criterion_main!(benches);
