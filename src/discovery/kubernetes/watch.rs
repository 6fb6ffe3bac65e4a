//! One watch: lists, follows, and begins anew with growing pauses when it fails. What was learned before goes on being used meanwhile.

use std::convert::Infallible;
use std::fmt::Debug;
use std::future::Future;
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use kube::runtime::watcher::{self, Event};
use kube::{Api, Resource};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;

use super::cluster::Delta;
use crate::kubernetes::Failure;
use crate::metrics::WatchMetrics;
use crate::telemetry::Repeat;

/// Longest wait for the next object of a list.
const LIST: Duration = Duration::from_secs(15);
/// Length of a watch call. A connection that died without a word is noticed a few seconds later.
const WATCH_SECONDS: u32 = 60;
/// First pause after a failure; it doubles with each further one of the same kind.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// Longest pause while the server does not answer: on its return nobody shall wait for us.
const OUTAGE_PAUSE: Duration = Duration::from_secs(1);
/// Longest pause while the server says no: a definition may be installed, or a right be granted.
const REFUSAL_PAUSE: Duration = Duration::from_secs(10);

/// Names and duties of a watch.
pub(super) struct Watched {
    /// Resource in plural, for people.
    pub(super) resource: &'static str,
    /// Its API group.
    pub(super) group: String,
    /// What does not work without it, for people.
    pub(super) without: &'static str,
    /// Its series.
    pub(super) metrics: WatchMetrics,
}

/// Where the steps of a watch go, as messages `M`.
pub(super) struct Sink<M, F> {
    /// The receiver's queue. While it is full the watch waits, and the API server with it.
    pub(super) to: mpsc::Sender<M>,
    /// Makes a message of a step.
    pub(super) step: F,
    /// Message after the first word of the watch, be it that it failed.
    pub(super) heard: Option<M>,
}

impl<M, F> Sink<M, F> {
    /// Passes a step on. False if nobody listens any more.
    async fn tell<T>(&mut self, delta: Option<Delta<T>>) -> bool
    where
        F: Fn(Delta<T>) -> M,
    {
        if let Some(delta) = delta
            && self.to.send((self.step)(delta)).await.is_err()
        {
            return false;
        }
        match self.heard.take() {
            Some(heard) => self.to.send(heard).await.is_ok(),
            None => true,
        }
    }
}

/// How long to wait before the next attempt.
#[derive(Debug, Default)]
struct Patience {
    last: Option<Failure>,
    attempts: u32,
}

impl Patience {
    /// The pause after this failure; `spread` in 0..1 keeps replicas apart.
    fn pause(&mut self, failure: Failure, spread: f64) -> Duration {
        if self.last.replace(failure) != Some(failure) {
            self.attempts = 0;
        }
        let longest = match failure {
            Failure::Expired | Failure::Unavailable => OUTAGE_PAUSE,
            Failure::Absent | Failure::Forbidden | Failure::Refused => REFUSAL_PAUSE,
        };
        let pause = FIRST_PAUSE.saturating_mul(1 << self.attempts.min(10)).min(longest);
        self.attempts = self.attempts.saturating_add(1);
        pause.mul_f64(0.8 + 0.4 * spread)
    }

    /// It works.
    fn reset(&mut self) {
        *self = Self::default();
    }
}

impl Watched {
    /// Follows `api` until nobody listens any more. `read` turns an object into what is remembered of it; `None` if it does not concern us.
    pub(super) async fn follow<K, T, M>(
        self,
        api: Api<K>,
        config: watcher::Config,
        read: impl Fn(K) -> Option<T>,
        mut sink: Sink<M, impl Fn(Delta<T>) -> M>,
    ) where
        K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
    {
        let config = config.timeout(WATCH_SECONDS);
        let log = Repeat::every(Duration::from_mins(5));
        let (mut patience, mut live_until) = (Patience::default(), Instant::now());
        let mut down: Option<Failure> = None;
        loop {
            let mut events = std::pin::pin!(watcher::watcher(api.clone(), config.clone()));
            let mut listing = Vec::new();
            let mut listed = false;
            let error = loop {
                let next = if listed {
                    events.next().await
                } else {
                    match self.aging(live_until, tokio::time::timeout(LIST, events.next())).await {
                        Ok(next) => next,
                        Err(_) => break None,
                    }
                };
                let delta = match next {
                    Some(Ok(Event::Init)) => {
                        listing.clear();
                        continue;
                    }
                    Some(Ok(Event::InitApply(object))) => {
                        listing.extend(read(object));
                        continue;
                    }
                    Some(Ok(Event::InitDone)) => {
                        listed = true;
                        patience.reset();
                        self.metrics.show(None);
                        if down.take().is_some() {
                            tracing::info!(
                                resource = self.resource,
                                group = self.group,
                                "watch is live again"
                            );
                        }
                        Delta::Listed(std::mem::take(&mut listing))
                    }
                    Some(Ok(Event::Apply(object))) => {
                        let name = object.meta().name.clone().unwrap_or_default();
                        read(object).map_or(Delta::Removed(name), Delta::Applied)
                    }
                    Some(Ok(Event::Delete(object))) => {
                        Delta::Removed(object.meta().name.clone().unwrap_or_default())
                    }
                    Some(Err(error)) => break Some(error),
                    None => break None,
                };
                if !sink.tell(Some(delta)).await {
                    return;
                }
            };
            let now = Instant::now();
            if listed {
                live_until = now;
            }
            let failure = error.as_ref().map_or(Failure::Unavailable, Failure::from);
            self.metrics.failed(failure.name());
            self.say(failure, error.as_ref(), &mut down, &log);
            if !sink.tell(None).await {
                return;
            }
            let pause = patience.pause(failure, fastrand::f64());
            self.aging(live_until, tokio::time::sleep(pause)).await;
        }
    }

    /// Shows how long the watch has not been live while `work` goes on.
    async fn aging<F: Future>(&self, since: Instant, work: F) -> F::Output {
        tokio::select! {
            biased;
            done = work => done,
            never = self.age(since) => match never {},
        }
    }

    async fn age(&self, since: Instant) -> Infallible {
        loop {
            self.metrics.show(Some(since.elapsed().as_secs_f64()));
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }

    /// A line when the kind of failure changes, and now and then while it stays.
    fn say(
        &self,
        failure: Failure,
        error: Option<&watcher::Error>,
        down: &mut Option<Failure>,
        log: &Repeat,
    ) {
        // A watch that ended because its version is too old is listed again; that is everyday life.
        if failure == Failure::Expired {
            return;
        }
        if down.replace(failure) != Some(failure) {
            log.reset();
        }
        let Some(suppressed) = log.due(Instant::now()) else { return };
        let error = error.map_or_else(|| "no answer".to_owned(), ToString::to_string);
        let Self { resource, group, without, .. } = self;
        match failure {
            Failure::Absent => tracing::info!(
                resource,
                group,
                suppressed,
                "not installed in this cluster: {without}; looked for again every few seconds"
            ),
            Failure::Forbidden => tracing::warn!(
                resource,
                group,
                error,
                suppressed,
                "forbidden: {without}; the account needs get, list and watch on this resource, and is tried again every few seconds"
            ),
            _ => tracing::warn!(
                resource,
                group,
                error,
                suppressed,
                "watch failed; what was known before stays in force until it is back"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pauses(failures: &[Failure]) -> Vec<u128> {
        let mut patience = Patience::default();
        failures.iter().map(|failure| patience.pause(*failure, 0.5).as_millis()).collect()
    }

    #[test]
    fn pauses_double_up_to_a_second_during_an_outage() {
        assert_eq!(pauses(&[Failure::Unavailable; 7]), [100, 200, 400, 800, 1000, 1000, 1000]);
        assert_eq!(pauses(&[Failure::Unavailable; 100])[99], 1000);
    }

    #[test]
    fn pauses_double_up_to_ten_seconds_while_the_server_says_no() {
        assert_eq!(pauses(&[Failure::Absent; 9])[6..], [6400, 10_000, 10_000]);
    }

    #[test]
    fn a_server_that_refuses_on_its_way_back_is_asked_again_soon() {
        let mut failures = vec![Failure::Unavailable; 60];
        failures.push(Failure::Forbidden);
        assert_eq!(pauses(&failures)[60], 100);
    }
}
