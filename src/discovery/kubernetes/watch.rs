//! One watch: lists, follows, and begins anew with growing pauses when it fails. What was learned before goes on being
//! used meanwhile.

use std::convert::Infallible;
use std::fmt::Debug;
use std::future::Future;
use std::time::Duration;

use futures_util::{Stream, StreamExt as _};
use kube::runtime::watcher::{self, Event};
use kube::{Api, Resource};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::cluster::Delta;
use super::resources::LEGACY_GROUP;
use crate::kubernetes::{Failure, told};
use crate::metrics::WatchMetrics;
use crate::telemetry::Repeat;

/// Longest wait for the next object of a list.
const LIST: Duration = Duration::from_secs(15);
/// Length of a watch call. A connection that died without a word is noticed by the end of it, or of the call after.
const WATCH_SECONDS: u32 = 25;
/// First pause after a failure; it doubles with each further one of the same kind.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// Longest pause while the server does not answer: on its return nobody shall wait for us.
const OUTAGE_PAUSE: Duration = Duration::from_millis(500);
/// Longest pause while the server says no: a definition may be installed, or a right be granted.
const REFUSAL_PAUSE: Duration = Duration::from_secs(10);
/// Time between two lines about one watch that say the same.
const SAID_AGAIN: Duration = Duration::from_mins(5);

/// Names and duties of a watch.
pub(super) struct Watched {
    /// Resource in plural, for people.
    pub(super) resource: String,
    /// Its API group.
    pub(super) group: String,
    /// The features that do not work without this watch, for people.
    pub(super) without: &'static str,
    /// Its series.
    pub(super) metrics: WatchMetrics,
}

/// Sends the steps of a watch on, as messages `M`.
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

/// The pause before the next attempt.
#[derive(Debug, Default)]
struct Patience {
    last: Option<Failure>,
    attempts: u32,
}

/// The failures that were logged, so that they are not logged all the time.
#[derive(Debug)]
struct Troubles {
    last: Option<Failure>,
    begins: Repeat,
    ends: Repeat,
}

impl Default for Troubles {
    fn default() -> Self {
        Self { last: None, begins: Repeat::every(SAID_AGAIN), ends: Repeat::every(SAID_AGAIN) }
    }
}

impl Patience {
    /// The pause after this failure, `barren` if a list had just succeeded; `spread` in 0..1 keeps replicas apart.
    fn pause(&mut self, failure: Failure, barren: bool, spread: f64) -> Duration {
        if self.last.replace(failure) != Some(failure) {
            self.attempts = 0;
        }
        let longest = match failure {
            Failure::Expired | Failure::Unavailable if !barren => OUTAGE_PAUSE,
            Failure::Expired
            | Failure::Unavailable
            | Failure::Absent
            | Failure::Forbidden
            | Failure::Refused => REFUSAL_PAUSE,
        };
        let pause = FIRST_PAUSE.saturating_mul(1 << self.attempts.min(10)).min(longest);
        self.attempts = self.attempts.saturating_add(1);
        pause.mul_f64(1.0 - 0.2 * spread)
    }
}

/// The outcome of one round of listing and following.
struct Round {
    /// Time at which the list was complete; `None` if it never was.
    listed: Option<Instant>,
    /// The error that ended the round; `None` if the server gave no answer.
    error: Option<watcher::Error>,
}

impl Watched {
    /// Follows `api` until nobody listens any more. `read` turns an object into what is remembered of it; `None` if it
    /// does not concern us.
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
        let mut patience = Patience::default();
        let mut troubles = Troubles::default();
        // Until it was live once, nothing of it is in use, and nothing has an age.
        let mut live_until = None;
        loop {
            let events = watcher::watcher(api.clone(), config.clone());
            let Some(round) = self.round(events, live_until, &read, &mut sink, &troubles).await else {
                return;
            };
            let now = Instant::now();
            let lived = round.listed.map(|listed| now.duration_since(listed));
            if lived.is_some() {
                live_until = Some(now);
            }
            // A watch that fails as soon as it has listed does not work, and shall not list all the time.
            let barren = lived.is_some_and(|lived| lived < REFUSAL_PAUSE);
            if lived.is_some() && !barren {
                patience = Patience::default();
                troubles = Troubles::default();
            }
            let failure = round.error.as_ref().map_or(Failure::Unavailable, Failure::from);
            self.metrics.failed(failure.name());
            self.say(failure, round.error.as_ref(), &mut troubles);
            if !sink.tell(None).await {
                return;
            }
            let pause = patience.pause(failure, barren, fastrand::f64());
            self.aging(live_until, tokio::time::sleep(pause)).await;
        }
    }

    /// Lists and follows until that fails. `None` if nobody listens any more.
    async fn round<K, T, M>(
        &self,
        events: impl Stream<Item = watcher::Result<Event<K>>>,
        live_until: Option<Instant>,
        read: &impl Fn(K) -> Option<T>,
        sink: &mut Sink<M, impl Fn(Delta<T>) -> M>,
        troubles: &Troubles,
    ) -> Option<Round>
    where
        K: Resource,
    {
        let mut events = std::pin::pin!(events);
        let mut listing = Vec::new();
        let mut listed = None;
        loop {
            let next = if listed.is_some() {
                events.next().await
            } else {
                match self.aging(live_until, tokio::time::timeout(LIST, events.next())).await {
                    Ok(next) => next,
                    Err(_) => return Some(Round { listed, error: None }),
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
                    listed = Some(Instant::now());
                    self.metrics.show(None);
                    if troubles.last.is_some() && troubles.ends.due(std::time::Instant::now()).is_some() {
                        tracing::info!(resource = self.resource, group = self.group, "watch is live again");
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
                Some(Err(error)) => return Some(Round { listed, error: Some(error) }),
                None => return Some(Round { listed, error: None }),
            };
            if !sink.tell(Some(delta)).await {
                return None;
            }
        }
    }

    /// Shows how long the watch has not been live while `work` goes on.
    async fn aging<F: Future>(&self, since: Option<Instant>, work: F) -> F::Output {
        tokio::select! {
            biased;
            done = work => done,
            never = self.age(since) => match never {},
        }
    }

    async fn age(&self, since: Option<Instant>) -> Infallible {
        loop {
            self.metrics.show(Some(since.map_or(0.0, |since| since.elapsed().as_secs_f64())));
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }

    /// A line when the kind of failure changes, and now and then while it stays.
    fn say(&self, failure: Failure, error: Option<&watcher::Error>, troubles: &mut Troubles) {
        // A watch that ended because its version is too old is listed again; that is everyday life.
        if failure == Failure::Expired {
            return;
        }
        if troubles.last.replace(failure) != Some(failure) {
            troubles.begins.reset();
        }
        let Some(suppressed) = troubles.begins.due(std::time::Instant::now()) else { return };
        let error = error.map_or_else(|| "no answer".to_owned(), |error| told(error));
        let (resource, group, without) = (&*self.resource, &*self.group, self.without);
        match failure {
            Failure::Absent if group == LEGACY_GROUP => tracing::info!(
                resource,
                group,
                suppressed,
                "not installed in this cluster: {without}; looked for again every few seconds"
            ),
            Failure::Absent => tracing::warn!(
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
#[path = "watch_tests.rs"]
mod tests;
