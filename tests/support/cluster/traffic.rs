//! Requests without a pause, and when each was sent where.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::support::{Client, chat};

/// One request.
#[derive(Clone, Debug)]
pub(crate) struct Sent {
    /// When it was sent.
    pub(crate) at: Instant,
    /// Status; 0 if there was no answer.
    pub(crate) status: u16,
    /// Where the picker sent it.
    pub(crate) target: Option<SocketAddr>,
    /// What went wrong.
    pub(crate) problem: String,
}

/// Clients that send one request after the other until they are stopped.
pub(crate) struct Traffic {
    sent: Arc<Mutex<Vec<Sent>>>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

/// When which target was gone from the API.
#[derive(Default)]
pub(crate) struct Gone(BTreeMap<SocketAddr, Instant>);

impl Gone {
    /// The API has just confirmed that nothing serves there any more.
    pub(crate) fn note(&mut self, target: SocketAddr) {
        self.0.insert(target, Instant::now());
    }

    /// It serves again.
    pub(crate) fn back(&mut self, target: SocketAddr) {
        self.0.remove(&target);
    }
}

impl Traffic {
    /// `clients` clients of the pool at `addr`.
    pub(crate) fn start(addr: SocketAddr, clients: usize) -> Self {
        let traffic =
            Self { sent: Arc::default(), stop: CancellationToken::new(), tasks: TaskTracker::new() };
        for client in 0..clients {
            let (sent, stop) = (Arc::clone(&traffic.sent), traffic.stop.clone());
            traffic.tasks.spawn(async move {
                let mut number = 0u64;
                while !stop.is_cancelled() {
                    number += 1;
                    let one = request(addr, &format!("client {client} request {number}")).await;
                    sent.lock().push(one);
                }
            });
        }
        traffic.tasks.close();
        traffic
    }

    /// How many requests have ended so far.
    pub(crate) fn count(&self) -> usize {
        self.sent.lock().len()
    }

    /// Where the requests went that were sent since `at`.
    pub(crate) fn targets_since(&self, at: Instant) -> Vec<SocketAddr> {
        let sent = self.sent.lock();
        let mut targets: Vec<_> =
            sent.iter().filter(|one| one.at >= at).filter_map(|one| one.target).collect();
        targets.sort();
        targets.dedup();
        targets
    }

    /// How many requests sent since `at` were answered with 200.
    pub(crate) fn good_since(&self, at: Instant) -> usize {
        self.sent.lock().iter().filter(|one| one.at >= at && one.status == 200).count()
    }

    /// How many requests sent since `at` were not.
    pub(crate) fn bad_since(&self, at: Instant) -> usize {
        self.sent.lock().iter().filter(|one| one.at >= at && one.status != 200).count()
    }

    /// Fails if a request went to a target that had been gone for more than a second when it was sent. Call it before a
    /// target comes back.
    pub(crate) fn assert_none_went_to(&self, gone: &Gone) {
        for one in self.sent.lock().iter() {
            let since = one.target.and_then(|target| gone.0.get(&target));
            if let Some(since) = since {
                let late = one.at.saturating_duration_since(*since);
                assert!(late <= Duration::from_secs(1), "sent to a pod gone for {late:?}: {one:?}");
            }
        }
    }

    /// Stops, and gives the requests; fails if one was not answered with 200.
    pub(crate) async fn stop_all_good(self) -> Vec<Sent> {
        let sent = self.stop().await;
        let bad: Vec<_> = sent.iter().filter(|one| one.status != 200).collect();
        let first = bad.first().map(|one| &one.problem);
        assert!(bad.is_empty(), "{} of {} failed, the first with {first:?}", bad.len(), sent.len());
        assert!(!sent.is_empty());
        sent
    }

    /// Stops, and gives the requests.
    pub(crate) async fn stop(self) -> Vec<Sent> {
        self.stop.cancel();
        self.tasks.wait().await;
        std::mem::take(&mut *self.sent.lock())
    }
}

async fn request(addr: SocketAddr, text: &str) -> Sent {
    let at = Instant::now();
    match Client::http1(addr).attempt("/v1/chat/completions", &chat(text, 2, false)).await {
        Ok(reply) => Sent {
            at,
            status: reply.status,
            target: reply.header("x-picked").parse().ok(),
            problem: if reply.status == 200 { String::new() } else { format!("{reply:?}") },
        },
        Err(error) => Sent { at, status: 0, target: None, problem: format!("{error:#}") },
    }
}
