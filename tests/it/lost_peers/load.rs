//! A steady load, and when its requests failed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::task::JoinSet;

use crate::support::{Client, sse_events};

const COMPLETIONS: &str = "/v1/chat/completions";
/// Pause between the starts of two requests.
const EVERY: Duration = Duration::from_millis(10);

/// Requests on their way, one begun each ten milliseconds.
pub(super) struct Load {
    begun: Instant,
    stop: Arc<AtomicBool>,
    task: tokio::task::JoinHandle<Vec<Ended>>,
}

/// How a request ended.
pub(super) struct Ended {
    /// From the beginning of the load.
    pub(super) begun: Duration,
    /// From the beginning of the load.
    pub(super) finished: Duration,
    /// What was wrong; `None` for a whole answer.
    pub(super) fault: Option<String>,
}

impl Load {
    /// Begins; each request asks what `body` says.
    pub(super) fn start(client: Client, body: impl Fn(u64) -> Value + Send + 'static) -> Self {
        let (begun, stop) = (Instant::now(), Arc::new(AtomicBool::new(false)));
        let ends = Arc::clone(&stop);
        let task = tokio::spawn(async move {
            let (mut requests, mut number) = (JoinSet::new(), 0);
            let mut tick = tokio::time::interval(EVERY);
            while !ends.load(Relaxed) {
                tick.tick().await;
                number += 1;
                let body = body(number);
                requests.spawn(async move {
                    let start = begun.elapsed();
                    let fault = fault(client, &body).await;
                    Ended { begun: start, finished: begun.elapsed(), fault }
                });
            }
            requests.join_all().await
        });
        Self { begun, stop, task }
    }

    /// Time since the beginning.
    pub(super) fn age(&self) -> Duration {
        self.begun.elapsed()
    }

    /// Begins no more requests, and waits for those under way.
    pub(super) async fn finish(self) -> Outcome {
        self.stop.store(true, Relaxed);
        Outcome(self.task.await.unwrap())
    }
}

async fn fault(client: Client, body: &Value) -> Option<String> {
    match client.attempt(COMPLETIONS, body).await {
        Err(error) => Some(format!("{error:#}")),
        Ok(reply) if reply.status != 200 => {
            Some(format!("{} {}", reply.status, String::from_utf8_lossy(&reply.body)))
        }
        Ok(reply) if body["stream"] == true => {
            let text = String::from_utf8_lossy(&reply.body).into_owned();
            (sse_events(&text).last() != Some(&"[DONE]")).then(|| "the stream broke off".to_owned())
        }
        Ok(_) => None,
    }
}

/// What became of the requests.
pub(super) struct Outcome(pub(super) Vec<Ended>);

impl Outcome {
    /// Requests that failed.
    pub(super) fn lost(&self) -> usize {
        self.0.iter().filter(|request| request.fault.is_some()).count()
    }

    /// Fails if a request failed before `event`, or later than `limit` after it. Gives when the last one failed,
    /// from the event on.
    pub(super) fn last_failure(&self, event: Duration, limit: Duration) -> Duration {
        let mut last = Duration::ZERO;
        for request in self.0.iter().filter(|request| request.fault.is_some()) {
            let fault = request.fault.as_deref().unwrap_or_default();
            let after = request.finished.checked_sub(event);
            let after = after.unwrap_or_else(|| panic!("failed before the event: {fault}"));
            assert!(after < limit, "begun {:?}, failed {after:?} after the event: {fault}", request.begun);
            last = last.max(after);
        }
        last
    }

    /// One line for the log.
    pub(super) fn told(&self, what: &str, last: Duration) {
        let mut faults: Vec<&str> = self.0.iter().filter_map(|request| request.fault.as_deref()).collect();
        faults.sort_unstable();
        faults.dedup();
        eprintln!(
            "{what}: {} of {} requests lost, the last {last:.1?} after; {faults:?}",
            self.lost(),
            self.0.len()
        );
    }
}
