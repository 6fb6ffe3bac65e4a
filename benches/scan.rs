//! Reading bodies: chat requests of growing size, responses as event streams and as JSON, and what a rewrite costs.

use std::fmt::Write as _;
use std::hint::black_box;

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use pointsman::request::{Api, ModelRestorer, ParserKind, ResponseReader, parse, splice_model};

const CHAT: &str = "/v1/chat/completions";
const PROSE: &str = "The signalman looked along the line, where the distant light had turned from red to green, and set the points. ";

/// A chat body of about `size` bytes: a system prompt, tools, and turns of `turn` bytes, with a line break and a quote
/// in every `PROSE`-sized stretch if `escapes`.
fn chat_body(size: usize, turn: usize, escapes: bool) -> Vec<u8> {
    let mut body = r#"{"model":"meta-llama/Llama-3.1-8B-Instruct","stream":true,"max_tokens":512,"tools":[{"type":"function","function":{"name":"lookup","parameters":{"type":"object","properties":{"train":{"type":"string"}}}}}],"messages":[{"role":"system","content":"You keep the timetable."}"#.to_owned();
    let mut user = true;
    while body.len() < size {
        let role = if user { "user" } else { "assistant" };
        user = !user;
        let _ = write!(body, r#",{{"role":"{role}","content":""#);
        let end = body.len() + turn.min(size - body.len());
        while body.len() < end {
            body.push_str(PROSE);
            if escapes {
                body.push_str(r#"\"Clear,\" he said.\n"#);
            }
        }
        body.push_str("\"}");
    }
    body.push_str("]}");
    body.into_bytes()
}

/// A body of `size` bytes of token ids.
fn token_body(size: usize) -> Vec<u8> {
    let mut body = r#"{"model":"m","token_ids":[1"#.to_owned();
    let mut token = 1_u32;
    while body.len() < size {
        token = token.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let _ = write!(body, ",{}", token % 128_000);
    }
    body.push_str("]}");
    body.into_bytes()
}

/// Chunks of a streamed chat response: one event each, usage in the last.
fn event_chunks(events: usize) -> Vec<Bytes> {
    let event = |index: usize| {
        format!(
            "data: {{\"id\":\"chatcmpl-4f1c2a\",\"object\":\"chat.completion.chunk\",\"created\":1755763200,\"model\":\"served\",\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\" word{index}\"}},\"logprobs\":null,\"finish_reason\":null}}]}}\n\n"
        )
    };
    let mut chunks: Vec<_> = (0..events).map(|index| Bytes::from(event(index))).collect();
    chunks.push(Bytes::from_static(
        b"data: {\"choices\":[],\"usage\":{\"prompt_tokens\":100,\"completion_tokens\":1000,\"total_tokens\":1100}}\n\ndata: [DONE]\n\n",
    ));
    chunks
}

/// A JSON response with `text` bytes of content and one with `floats` numbers.
fn json_response(text: usize, floats: usize) -> Vec<u8> {
    let content = PROSE.repeat(text / PROSE.len());
    let numbers: Vec<_> = (0..floats).map(|index| format!("-0.{:07}", index * 7919 % 10_000_000)).collect();
    format!(
        r#"{{"id":"x","model":"served","choices":[{{"message":{{"role":"assistant","content":"{content}"}}}}],"data":[{{"embedding":[{}]}}],"usage":{{"prompt_tokens":100,"completion_tokens":1000,"total_tokens":1100}}}}"#,
        numbers.join(",")
    )
    .into_bytes()
}

fn bodies(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("parse");
    let mut bench = |name: &str, kind, path: &str, body: Vec<u8>| {
        group.throughput(Throughput::Bytes(body.len() as u64));
        group.bench_with_input(BenchmarkId::new(name, body.len() / 1000), &body, |bencher, body| {
            bencher.iter(|| parse(kind, path, black_box(body)).is_ok());
        });
    };
    for size in [1_000, 10_000, 100_000, 400_000, 1_000_000] {
        bench("chat", ParserKind::OpenAi, CHAT, chat_body(size, size, false));
    }
    bench("chat_escapes", ParserKind::OpenAi, CHAT, chat_body(400_000, 400_000, true));
    bench("chat_short_turns", ParserKind::OpenAi, CHAT, chat_body(400_000, 200, true));
    bench("tokens", ParserKind::VllmHttp, "/inference/v1/generate", token_body(400_000));
    group.finish();

    let body = Bytes::from(chat_body(400_000, 400_000, false));
    criterion.bench_function("splice_model", |bencher| {
        let inference = parse(ParserKind::OpenAi, CHAT, &body)
            .unwrap_or_else(|_| pointsman::request::Inference::opaque());
        bencher.iter(|| splice_model(black_box(&body), &inference, "other"));
    });
}

fn responses(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("response");
    let chunks = event_chunks(1000);
    group.throughput(Throughput::Elements(chunks.len() as u64));
    group.bench_function("events_usage", |bencher| {
        bencher.iter(|| {
            let mut reader = ResponseReader::new(Api::ChatCompletions, true, 65_536);
            for chunk in &chunks {
                reader.feed(black_box(chunk));
            }
            reader.finish();
            reader.usage()
        });
    });
    group.bench_function("events_restore_model", |bencher| {
        bencher.iter(|| {
            let mut restorer = ModelRestorer::new(Api::ChatCompletions, true, "served", "asked");
            for chunk in &chunks {
                black_box(restorer.feed(chunk.clone()));
            }
        });
    });
    for (name, body) in [("json_text", json_response(400_000, 0)), ("json_numbers", json_response(0, 40_000))]
    {
        let body = Bytes::from(body);
        group.throughput(Throughput::Bytes(body.len() as u64));
        group.bench_with_input(BenchmarkId::new(name, "usage"), &body, |bencher, body| {
            bencher.iter(|| {
                let mut reader = ResponseReader::new(Api::ChatCompletions, false, 65_536);
                reader.feed(black_box(body));
                reader.usage()
            });
        });
        group.bench_with_input(BenchmarkId::new(name, "restore_model"), &body, |bencher, body| {
            bencher.iter(|| {
                let mut restorer = ModelRestorer::new(Api::ChatCompletions, false, "served", "asked");
                black_box(restorer.feed(body.clone()))
            });
        });
    }
    group.finish();
}

criterion_group!(benches, bodies, responses);
criterion_main!(benches);
