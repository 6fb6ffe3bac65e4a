//! The requests of the demo, and sending them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::json;
use tokio::task::JoinSet;
use tokio_util::task::AbortOnDropHandle;

use super::client::{Measured, ask};

/// Requests of one run that count.
pub(super) const REQUESTS: usize = 400;
/// Requests before them, which fill the caches: a run shows servers that have been running for a while.
pub(super) const WARM_UP: usize = 48;
/// Different long prefixes among them: as many assistants, each with instructions of its own.
pub(super) const PREFIXES: usize = 16;
/// Words of a prefix, each of which is a token to the simulated servers.
const PREFIX_WORDS: usize = 2000;
/// Requests at once.
const AT_ONCE: usize = 16;
/// Requests that keep the busy server busy: more than its batch takes, so that some always wait.
const OTHERS: usize = 24;
/// Tokens in the answer to one of these.
const OTHERS_TOKENS: u32 = 400;
/// Chooses the order and the lengths; any number does.
const SEED: u64 = 20;

/// Bodies of chat requests.
#[derive(Debug, PartialEq)]
pub(super) struct Plan {
    /// They come first, and do not count.
    pub(super) warm_up: Arc<Vec<String>>,
    /// They count.
    pub(super) bodies: Arc<Vec<String>>,
}

/// Shared prefixes in random order, half of the requests streamed.
pub(super) fn plan() -> Plan {
    let mut random = fastrand::Rng::with_seed(SEED);
    let prefixes: Vec<String> = (0..PREFIXES).map(|_| words(&mut random, PREFIX_WORDS)).collect();
    let [warm_up, bodies] = [WARM_UP, REQUESTS].map(|count| Arc::new(some(&mut random, &prefixes, count)));
    Plan { warm_up, bodies }
}

fn some(random: &mut fastrand::Rng, prefixes: &[String], count: usize) -> Vec<String> {
    let mut order: Vec<usize> = (0..count).map(|number| number % PREFIXES).collect();
    random.shuffle(&mut order);
    let bodies = order.iter().enumerate().filter_map(|(number, prefix)| {
        let question = words(random, 20);
        let body = json!({
            "model": "sim-model",
            "messages": [
                {"role": "system", "content": prefixes.get(*prefix)?},
                {"role": "user", "content": question},
            ],
            "max_tokens": random.u32(8..40),
            "stream": number % 2 == 0,
        });
        Some(body.to_string())
    });
    bodies.collect()
}

/// Short words without meaning.
pub(super) fn words(random: &mut fastrand::Rng, count: usize) -> String {
    let mut text = String::with_capacity(count * 5);
    for _ in 0..count {
        text.extend((0..4).map(|_| random.lowercase()));
        text.push(' ');
    }
    text
}

/// The body of a streamed chat with one message.
pub(super) fn chat(text: &str, max_tokens: u32) -> String {
    let messages = json!([{"role": "user", "content": text}]);
    json!({"model": "sim-model", "messages": messages, "max_tokens": max_tokens, "stream": true}).to_string()
}

/// Sends request `i` to `targets[i % n]`, some at once, and gives what became of each.
pub(super) async fn send(bodies: &Arc<Vec<String>>, targets: &[SocketAddr]) -> Vec<anyhow::Result<Measured>> {
    let targets: Arc<[SocketAddr]> = targets.into();
    let next = Arc::new(AtomicUsize::new(0));
    let mut senders = JoinSet::new();
    for _ in 0..AT_ONCE {
        let (bodies, targets, next) = (Arc::clone(bodies), Arc::clone(&targets), Arc::clone(&next));
        senders.spawn(async move {
            let mut results = Vec::new();
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                let Some(body) = bodies.get(number) else { return results };
                let Some(target) = targets.get(number % targets.len().max(1)) else { return results };
                results.push(ask(*target, body.clone()).await);
            }
        });
    }
    senders.join_all().await.into_iter().flatten().collect()
}

/// Other clients of one server, who go on until this is dropped.
pub(super) fn keep_busy(server: SocketAddr) -> Vec<AbortOnDropHandle<()>> {
    let client = |number: usize| {
        AbortOnDropHandle::new(tokio::spawn(async move {
            loop {
                let body = json!({
                    "model": "sim-model",
                    "messages": [{"role": "user", "content": format!("other {number}")}],
                    "max_tokens": OTHERS_TOKENS,
                });
                if ask(server, body.to_string()).await.is_err() {
                    return;
                }
            }
        }))
    };
    (0..OTHERS).map(client).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::Value;

    use super::*;

    #[test]
    fn the_plan_is_the_same_every_time_and_shares_its_prefixes_evenly() {
        let Plan { warm_up, bodies } = plan();
        assert_eq!(Plan { warm_up: Arc::clone(&warm_up), bodies: Arc::clone(&bodies) }, plan());
        assert_eq!((warm_up.len(), bodies.len()), (WARM_UP, REQUESTS));
        let mut prefixes: BTreeMap<String, usize> = BTreeMap::new();
        for body in bodies.iter() {
            let body: Value = serde_json::from_str(body).unwrap();
            *prefixes.entry(body["messages"][0]["content"].to_string()).or_default() += 1;
        }
        assert_eq!(prefixes.len(), PREFIXES);
        assert!(prefixes.values().all(|count| *count == REQUESTS / PREFIXES));
    }
}
