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

/// Requests on their way, begun at a steady pace.
pub(crate) struct Load {
    begun: Instant,
    stop: Arc<AtomicBool>,
    task: tokio::task::JoinHandle<Vec<Ended>>,
}

/// How a request ended.
pub(crate) struct Ended {
    /// From the beginning of the load.
    pub(crate) begun: Duration,
    /// From the beginning of the load.
    pub(crate) finished: Duration,
    /// Number of the request, from 1.
    pub(crate) number: u64,
    /// Name of the simulated server that answered.
    pub(crate) server: String,
    /// What was wrong; `None` for a whole answer.
    pub(crate) fault: Option<String>,
}

impl Load {
    /// Begins; each request asks what `body` says.
    pub(crate) fn start(client: Client, body: impl Fn(u64) -> Value + Send + 'static) -> Self {
        Self::paced(client, EVERY, body)
    }

    /// The same with this pause between the starts of two requests.
    pub(crate) fn paced(
        client: Client,
        every: Duration,
        body: impl Fn(u64) -> Value + Send + 'static,
    ) -> Self {
        let (begun, stop) = (Instant::now(), Arc::new(AtomicBool::new(false)));
        let ends = Arc::clone(&stop);
        let task = tokio::spawn(async move {
            let (mut requests, mut number) = (JoinSet::new(), 0);
            let mut tick = tokio::time::interval(every);
            while !ends.load(Relaxed) {
                tick.tick().await;
                number += 1;
                let body = body(number);
                requests.spawn(async move {
                    let start = begun.elapsed();
                    let (server, fault) = asked(client, &body).await;
                    Ended { begun: start, finished: begun.elapsed(), number, server, fault }
                });
            }
            requests.join_all().await
        });
        Self { begun, stop, task }
    }

    /// Time since the beginning.
    pub(crate) fn age(&self) -> Duration {
        self.begun.elapsed()
    }

    /// Begins no more requests, and waits for those under way.
    pub(crate) async fn finish(self) -> Outcome {
        self.stop.store(true, Relaxed);
        Outcome(self.task.await.unwrap())
    }
}

/// Asks this: the server that answered, and what was wrong.
async fn asked(client: Client, body: &Value) -> (String, Option<String>) {
    let reply = match client.attempt(COMPLETIONS, body).await {
        Err(error) => return (String::new(), Some(format!("{error:#}"))),
        Ok(reply) => reply,
    };
    let text = String::from_utf8_lossy(&reply.body).into_owned();
    if reply.status != 200 {
        return (String::new(), Some(format!("{} {text}", reply.status)));
    }
    let broken = body["stream"] == true && sse_events(&text).last() != Some(&"[DONE]");
    let fault = broken.then(|| "the stream broke off".to_owned());
    (reply.header("x-sim-server").to_owned(), fault)
}

/// What became of the requests.
pub(crate) struct Outcome(pub(crate) Vec<Ended>);

impl Outcome {
    /// Requests that failed.
    pub(crate) fn lost(&self) -> usize {
        self.0.iter().filter(|request| request.fault.is_some()).count()
    }

    /// Fails if a request failed before `event`, or later than `limit` after it. Gives when the last one failed,
    /// from the event on.
    pub(crate) fn last_failure(&self, event: Duration, limit: Duration) -> Duration {
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
    pub(crate) fn told(&self, what: &str, last: Duration) {
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
