//! Qwen-Bailian: a request a line, with ids of 16-token blocks and the request before it in its conversation.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde::Deserialize;

use super::lines;
use crate::simulate::workload::{Request, Start, Workload};

/// Tokens in a block.
const BLOCK_TOKENS: u32 = 16;
/// Times carry milliseconds.
const GRAIN: Duration = Duration::from_millis(10);

#[derive(Deserialize)]
struct Line {
    chat_id: i64,
    #[serde(default)]
    parent_chat_id: i64,
    timestamp: f64,
    input_length: u64,
    output_length: u64,
    hash_ids: Vec<u64>,
}

/// Reads the lines. A conversation keeps the times of the trace.
pub(super) fn read(text: &str, seed: u64) -> anyhow::Result<Workload> {
    let mut requests: Vec<Request> = Vec::new();
    let mut sessions = hashbrown::HashMap::new();
    for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let row = || format!("line {}", number + 1);
        let line: Line = serde_json::from_str(line).with_context(row)?;
        let session = sessions.get(&line.parent_chat_id).copied().unwrap_or(requests.len() as u32);
        sessions.insert(line.chat_id, session);
        let held = line.hash_ids.len() as u64 * u64::from(BLOCK_TOKENS);
        ensure!(line.input_length <= held, "{}: hash_ids do not hold {} tokens", row(), line.input_length);
        requests.push(Request {
            start: Start::At(lines::time("timestamp", line.timestamp).with_context(row)?),
            input: lines::tokens("input_length", line.input_length).with_context(row)?,
            output: lines::tokens("output_length", line.output_length).with_context(row)?,
            blocks: line.hash_ids.into(),
            session,
            adapter: None,
            objective: None,
            streamed: true,
        });
        ensure!(requests.len() <= lines::MOST_REQUESTS, "has more than {} requests", lines::MOST_REQUESTS);
    }
    requests.sort_by_key(|request| match request.start {
        Start::At(at) | Start::After(_, at) => at,
    });
    let mut workload = Workload { block_tokens: BLOCK_TOKENS, requests, ..Workload::default() };
    lines::spread(&mut workload, GRAIN, seed);
    Ok(workload)
}
