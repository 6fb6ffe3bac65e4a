//! BurstGPT: times and lengths by model. A failed request has no response tokens and is left out.

use anyhow::{Context as _, ensure};

use super::lines;
use crate::simulate::workload::{Request, Start, Workload, unique_blocks};

/// Tokens in a block; any number will do.
const BLOCK_TOKENS: u32 = 512;
const COLUMNS: [&str; 3] = ["Timestamp", "Request tokens", "Response tokens"];

/// Reads the lines.
pub(super) fn read(text: &str) -> anyhow::Result<Workload> {
    let mut rows = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let columns = lines::columns(rows.next().map_or("", |(_, header)| header), COLUMNS)?;
    let mut requests: Vec<Request> = Vec::new();
    let mut begin = None;
    for (number, line) in rows {
        let number_of = |column: usize, name: &str| -> anyhow::Result<f64> {
            let value = lines::value(line, column, name).with_context(|| format!("line {}", number + 1))?;
            value.parse().with_context(|| format!("line {}: {name}: is {value:?}", number + 1))
        };
        let [time, asked, answered] = columns;
        let seconds = number_of(time, COLUMNS[0])?;
        let begin = *begin.get_or_insert(seconds);
        let output = number_of(answered, COLUMNS[2])?;
        if output < 1.0 {
            continue;
        }
        let input = lines::tokens(COLUMNS[1], number_of(asked, COLUMNS[1])? as u64)?;
        requests.push(Request {
            start: Start::At(lines::time(COLUMNS[0], (seconds - begin).max(0.0))?),
            input,
            output: lines::tokens(COLUMNS[2], output as u64)?,
            blocks: unique_blocks(requests.len() as u64, input, BLOCK_TOKENS),
            session: requests.len() as u32,
            adapter: None,
            objective: None,
            streamed: true,
        });
        ensure!(requests.len() <= lines::MOST_REQUESTS, "has more than {} requests", lines::MOST_REQUESTS);
    }
    requests.sort_by_key(|request| match request.start {
        Start::At(at) | Start::After(_, at) => at,
    });
    Ok(Workload { block_tokens: BLOCK_TOKENS, requests, ..Workload::default() })
}
