//! Mooncake: a request a line, with ids of 512-token blocks that are equal across sessions.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde::Deserialize;

use super::lines;
use crate::simulate::workload::{Request, Start, Workload};

/// Tokens in a block.
const BLOCK_TOKENS: u32 = 512;
/// The conversation trace rounds its times to this.
const GRAIN: Duration = Duration::from_secs(3);

#[derive(Deserialize)]
struct Line {
    timestamp: f64,
    input_length: u64,
    output_length: u64,
    hash_ids: Vec<u64>,
}

/// Reads the lines.
pub(super) fn read(text: &str, seed: u64) -> anyhow::Result<Workload> {
    let mut requests = Vec::new();
    for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        requests.push(request(line, requests.len()).with_context(|| format!("line {}", number + 1))?);
        ensure!(requests.len() <= lines::MOST_REQUESTS, "has more than {} requests", lines::MOST_REQUESTS);
    }
    requests.sort_by_key(|request| match request.start {
        Start::At(at) | Start::After(_, at) => at,
    });
    let mut workload = Workload { block_tokens: BLOCK_TOKENS, requests, ..Workload::default() };
    lines::spread(&mut workload, GRAIN, seed);
    Ok(workload)
}

fn request(line: &str, number: usize) -> anyhow::Result<Request> {
    let Line { timestamp, input_length, output_length, hash_ids } = serde_json::from_str(line)?;
    let input = lines::tokens("input_length", input_length)?;
    let covered = hash_ids.len() as u64 * u64::from(BLOCK_TOKENS);
    ensure!(
        u64::from(input) <= covered,
        "hash_ids: {} blocks of {BLOCK_TOKENS} tokens do not hold {input} tokens",
        hash_ids.len()
    );
    Ok(Request {
        start: Start::At(lines::time("timestamp", timestamp / 1e3)?),
        input,
        output: lines::tokens("output_length", output_length)?,
        blocks: hash_ids.into(),
        session: number as u32,
        adapter: None,
        objective: None,
        streamed: true,
    })
}
