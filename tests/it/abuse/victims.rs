//! Clients that do nothing but stream answers.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::support::{Client, Stack, chat, sse_events};

const COMPLETIONS: &str = "/v1/chat/completions";
/// Tokens of an answer.
const TOKENS: u32 = 15;

/// The clients at work.
pub(super) struct Victims {
    clients: JoinSet<Outcome>,
    streaming: Arc<AtomicUsize>,
}

/// How their requests went.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// Answers that came whole.
    pub(super) whole: usize,
    /// What was wrong with the others.
    pub(super) broken: Vec<String>,
}

impl Victims {
    /// Starts `count` clients, half of them with HTTP/2. Each begins a new request until `end` and sees the last one
    /// through.
    pub(super) fn start(stack: &Stack, count: usize, end: Instant) -> Self {
        let streaming = Arc::new(AtomicUsize::new(0));
        let mut clients = JoinSet::new();
        for number in 0..count {
            let client = if number % 2 == 0 { stack.envoy.http1() } else { stack.envoy.http2() };
            clients.spawn(stream_until(end, client, number, Arc::clone(&streaming)));
        }
        Self { clients, streaming }
    }

    /// Clients whose stream runs now.
    pub(super) fn streaming(&self) -> usize {
        self.streaming.load(Relaxed)
    }

    /// Waits for all of them.
    pub(super) async fn outcome(self) -> Outcome {
        let mut all = Outcome::default();
        for mut one in self.clients.join_all().await {
            all.whole += one.whole;
            all.broken.append(&mut one.broken);
        }
        all
    }
}

async fn stream_until(end: Instant, client: Client, number: usize, streaming: Arc<AtomicUsize>) -> Outcome {
    let mut outcome = Outcome::default();
    let mut round = 0;
    while Instant::now() < end {
        round += 1;
        let body = chat(&format!("client {number}, question {round}"), TOKENS, true);
        streaming.fetch_add(1, Relaxed);
        let reply = client.attempt(COMPLETIONS, &body).await;
        streaming.fetch_sub(1, Relaxed);
        match reply {
            Ok(reply) if reply.status != 200 => {
                outcome.broken.push(format!(
                    "{number}/{round}: {} {}",
                    reply.status,
                    String::from_utf8_lossy(&reply.body)
                ));
            }
            Ok(reply) if sse_events(&String::from_utf8_lossy(&reply.body)).last() != Some(&"[DONE]") => {
                outcome.broken.push(format!("{number}/{round}: no end in {} bytes", reply.body.len()));
            }
            Ok(_) => outcome.whole += 1,
            Err(error) => outcome.broken.push(format!("{number}/{round}: {error:#}")),
        }
    }
    outcome
}
