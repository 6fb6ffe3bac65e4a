//! Azure 2023: times and lengths. No prompt shares anything with another.

use std::time::Duration;

use anyhow::{Context as _, ensure};

use super::lines;
use crate::simulate::workload::{Request, Start, Workload, unique_blocks};

/// Tokens in a block; any number will do.
const BLOCK_TOKENS: u32 = 512;
const COLUMNS: [&str; 3] = ["TIMESTAMP", "ContextTokens", "GeneratedTokens"];

/// Reads the lines.
pub(super) fn read(text: &str) -> anyhow::Result<Workload> {
    let mut rows = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let columns = lines::columns(rows.next().map_or("", |(_, header)| header), COLUMNS)?;
    let mut requests: Vec<Request> = Vec::new();
    let mut begin = None;
    for (number, line) in rows {
        let row = || format!("line {}", number + 1);
        let [time, context, generated] = columns;
        let seconds = seconds(lines::value(line, time, COLUMNS[0]).with_context(row)?).with_context(row)?;
        let begin = *begin.get_or_insert(seconds);
        let count = |column: usize, name: &str| -> anyhow::Result<u32> {
            let value = lines::value(line, column, name)?;
            lines::tokens(name, value.parse().with_context(|| format!("{name}: is {value:?}"))?)
        };
        let input = count(context, COLUMNS[1]).with_context(row)?;
        requests.push(Request {
            start: Start::At(Duration::from_secs_f64(
                (seconds - begin).clamp(0.0, lines::LONGEST.as_secs_f64()),
            )),
            input,
            output: count(generated, COLUMNS[2]).with_context(row)?,
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

/// Seconds since some midnight of `2023-11-16 18:15:46.6805900`. Days count, months do not: no trace is that long.
fn seconds(text: &str) -> anyhow::Result<f64> {
    let fault = || format!("TIMESTAMP: is {text:?}, expected a time such as \"2023-11-16 18:15:46.68\"");
    let (date, time) = text.split_once([' ', 'T']).with_context(fault)?;
    let day: f64 = date.rsplit('-').next().unwrap_or_default().parse().with_context(fault)?;
    let time = time.split(['+', 'Z']).next().unwrap_or_default();
    let parts: Vec<f64> = time.split(':').map(str::parse).collect::<Result<_, _>>().with_context(fault)?;
    ensure!(parts.len() == 3 && parts.iter().all(|part| part.is_finite()), fault());
    Ok(day * 86_400.0 + parts[0] * 3600.0 + parts[1] * 60.0 + parts[2])
}
