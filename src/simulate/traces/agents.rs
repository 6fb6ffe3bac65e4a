//! Sessions of coding agents in a closed loop: the next request comes after the answer and the think time. Ids count
//! within a session. A sub-agent's requests run in their own order beside those of the session that started it.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde::Deserialize;

use super::lines;
use crate::simulate::workload::{Request, Start, Workload, mix};

/// Tokens in a block where the session does not say.
const BLOCK_TOKENS: u32 = 64;
/// Mean time between the starts of two sessions: the files do not say when people began.
const BETWEEN_SESSIONS: Duration = Duration::from_secs(15);
/// Depth of sub-agents of sub-agents.
const DEEPEST: u32 = 8;

#[derive(Deserialize)]
struct Session {
    #[serde(default)]
    block_size: Option<u32>,
    requests: Vec<Step>,
}

#[derive(Deserialize)]
struct Step {
    #[serde(default)]
    t: f64,
    #[serde(default)]
    r#in: u64,
    #[serde(default)]
    out: u64,
    #[serde(default)]
    hash_ids: Vec<u64>,
    #[serde(default)]
    api_time: f64,
    think_time: Option<f64>,
    #[serde(default)]
    requests: Vec<Step>,
}

/// Reads sessions. `seed` places their starts.
pub(super) fn read(documents: &[String], seed: u64) -> anyhow::Result<Workload> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut workload = Workload { block_tokens: BLOCK_TOKENS, ..Workload::default() };
    let mut start = Duration::ZERO;
    for (number, document) in documents.iter().enumerate() {
        let what = || format!("session {number}");
        let session: Session = serde_json::from_str(document).with_context(what)?;
        let block_tokens = session.block_size.unwrap_or(BLOCK_TOKENS).max(1);
        ensure!(
            number == 0 || block_tokens == workload.block_tokens,
            "session {number}: block_size is {block_tokens}, the first session has {}",
            workload.block_tokens
        );
        workload.block_tokens = block_tokens;
        let mut thread = Thread { session: number as u32, before: Start::At(start), ended: 0.0 };
        thread.add(&session.requests, &mut workload.requests, block_tokens, 0).with_context(what)?;
        // Exponential gaps: sessions begin independently of each other.
        start += BETWEEN_SESSIONS.mul_f64(-(1.0 - random.f64()).ln());
    }
    Ok(workload)
}

/// Requests that wait for each other.
struct Thread {
    session: u32,
    /// When the next request may start, without its think time.
    before: Start,
    /// Time in the file at which the last answer came.
    ended: f64,
}

impl Thread {
    fn add(
        &mut self,
        steps: &[Step],
        requests: &mut Vec<Request>,
        block: u32,
        depth: u32,
    ) -> anyhow::Result<()> {
        ensure!(depth <= DEEPEST, "has sub-agents deeper than {DEEPEST}");
        for (index, step) in steps.iter().enumerate() {
            if !step.requests.is_empty() {
                // Whoever started it goes on meanwhile, as the times in the file say.
                let pause = lines::time("t", (step.t - self.ended).max(0.0))?;
                let mut below = Thread { before: later(self.before, pause), ended: 0.0, ..*self };
                below.add(&step.requests, requests, block, depth + 1)?;
                continue;
            }
            let input = lines::tokens("in", step.r#in)?;
            let pause = step.think_time.unwrap_or(step.t - self.ended).max(0.0);
            // A session's first request waits for nobody, whatever the file says.
            let pause =
                if index == 0 && depth == 0 { Duration::ZERO } else { lines::time("think_time", pause)? };
            requests.push(Request {
                start: later(self.before, pause),
                input,
                output: lines::tokens("out", step.out)?,
                blocks: self.blocks(&step.hash_ids, input, block, requests.len()),
                session: self.session,
                adapter: None,
                objective: None,
                streamed: true,
            });
            ensure!(
                requests.len() <= lines::MOST_REQUESTS,
                "has more than {} requests",
                lines::MOST_REQUESTS
            );
            self.before = Start::After(requests.len() - 1, Duration::ZERO);
            self.ended = step.t + step.api_time;
        }
        Ok(())
    }

    /// The ids, made unlike those of other sessions. Tokens after the last block are this request's own.
    fn blocks(&self, ids: &[u64], input: u32, block: u32, own: usize) -> Arc<[u64]> {
        let count = input.div_ceil(block) as usize;
        let session = mix(u64::from(self.session) + 1);
        let rest = (ids.len()..count)
            .map(|place| mix(session ^ mix(((own as u64) << 32) ^ place as u64 ^ (1 << 63))));
        ids.iter().take(count).map(|id| mix(session ^ *id)).chain(rest).collect()
    }
}

fn later(start: Start, pause: Duration) -> Start {
    match start {
        Start::At(at) => Start::At(at + pause),
        Start::After(before, already) => Start::After(before, already + pause),
    }
}
