//! The stage before scheduling in which plugins may wait for something outside.
//!
//! Work begins when a request is understood, and goes on while the request waits in flow control. Once the request is
//! admitted, it waits for the rest only as long as the [`Breaker`] of the plugin allows; then it goes on without. The
//! work belongs to the request: whoever drops the request ends it.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use smallvec::SmallVec;
use tokio::runtime::Handle;
use tokio::sync::futures::OwnedNotified;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::{Sleep, sleep};

use super::breaker::{Breaker, Mode};
use super::{BodyBudget, Share};
use crate::metrics::{Metrics, Preparation as Outcome, PrepareMetrics};
use crate::request::Tokenized;
use crate::scheduling::{
    Finding, PrepareCall, PrepareError, PrepareLimits, Prepared, Preparer, Preparing, ProfilePlugin,
};

/// Longest that a probe may take.
const LONGEST_PROBE: Duration = Duration::from_secs(5);

/// All preparers of a director.
pub(super) struct PrepareStage(Vec<Arc<Lane>>);

/// One preparer, and how it is doing.
struct Lane {
    plugin: ProfilePlugin<dyn Preparer>,
    limits: PrepareLimits,
    breaker: Mutex<Breaker>,
    places: Arc<Semaphore>,
    /// Notified when requests must not wait any more.
    suspended: Arc<Notify>,
    budget: Arc<BodyBudget>,
    metrics: PrepareMetrics,
}

impl PrepareStage {
    pub(super) fn new(
        preparers: &[ProfilePlugin<dyn Preparer>],
        budget: &Arc<BodyBudget>,
        metrics: &Metrics,
    ) -> Self {
        let lane = |plugin: &ProfilePlugin<dyn Preparer>| {
            let limits = plugin.plugin.limits();
            Arc::new(Lane {
                plugin: plugin.clone(),
                limits,
                breaker: Mutex::new(Breaker::new(limits.patience)),
                places: Arc::new(Semaphore::new(limits.concurrent)),
                suspended: Arc::new(Notify::new()),
                budget: Arc::clone(budget),
                metrics: metrics.preparer(plugin.kind, &plugin.name),
            })
        };
        Self(preparers.iter().map(lane).collect())
    }

    /// True if there is nothing to do for any request.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Probes everybody.
    pub(super) fn warm_up(&self) {
        self.0.iter().for_each(Lane::probe);
    }

    /// Begins to work on a request that is not waiting for anything else yet.
    pub(super) fn begin(&self, call: &PrepareCall<'_>) -> Preparation {
        let mut preparation = Preparation::default();
        for lane in &self.0 {
            let mode = lane.breaker.lock().mode(now());
            match mode {
                Mode::Run => preparation.running.extend(Running::begin(lane, call)),
                Mode::WhileHeld => preparation.put_off.push(Arc::clone(lane)),
                Mode::Skip => lane.metrics.outcome(Outcome::Skipped),
                Mode::Probe => {
                    lane.metrics.outcome(Outcome::Skipped);
                    lane.probe();
                }
            }
        }
        preparation
    }
}

impl Lane {
    /// Asks the smallest thing there is, for nobody.
    fn probe(self: &Arc<Self>) {
        let mut report = ProbeReport { lane: Arc::clone(self), took: None };
        // Without a runtime there is no probe, and the report says so.
        let Ok(runtime) = Handle::try_current() else { return };
        let work = self.plugin.plugin.probe();
        let timeout = self.limits.timeout.min(LONGEST_PROBE);
        runtime.spawn(async move {
            let began = now();
            match tokio::time::timeout(timeout, work).await {
                Ok(Ok(_) | Err(PrepareError::Refused(_))) => report.took = Some(now() - began),
                Ok(Err(PrepareError::Failed(error))) => {
                    tracing::debug!(preparer = %report.lane.plugin.name, error, "a probe failed");
                }
                Err(_) => tracing::debug!(preparer = %report.lane.plugin.name, "a probe took too long"),
            }
            drop(report);
        });
    }

    /// Tells the breaker something, and everybody what follows from it.
    fn tell(&self, tell: impl FnOnce(&mut Breaker)) {
        let (before, after) = {
            let mut breaker = self.breaker.lock();
            let before = breaker.is_suspended();
            tell(&mut breaker);
            (before, breaker.is_suspended())
        };
        if before == after {
            return;
        }
        self.metrics.suspend(after);
        let name = &self.plugin.name;
        if after {
            self.suspended.notify_waiters();
            tracing::warn!(plugin = %name, "requests go on without what this plugin finds out: it is too slow or fails");
        } else {
            tracing::info!(plugin = %name, "requests wait again for what this plugin finds out");
        }
    }
}

/// Tells the breaker how a probe went, however it ends.
struct ProbeReport {
    lane: Arc<Lane>,
    took: Option<Duration>,
}

impl Drop for ProbeReport {
    fn drop(&mut self) {
        self.lane.tell(|breaker| breaker.probed(self.took, now()));
    }
}

/// The tokens of a request, and their share of the memory for bodies.
pub(super) struct HeldTokens {
    pub(super) tokens: Tokenized,
    _share: Share,
}

/// The facts that preparers are gathering about one request.
#[derive(Default)]
pub(super) struct Preparation {
    running: SmallVec<[Running; 1]>,
    /// Those that begin only if the request waits.
    put_off: SmallVec<[Arc<Lane>; 1]>,
    tokens: Option<HeldTokens>,
    findings: SmallVec<[Finding; 1]>,
}

impl Preparation {
    /// Number of tokens of the request, if they are known already.
    pub(super) fn token_count(&self) -> Option<u64> {
        self.tokens.as_ref().map(|held| held.tokens.count())
    }

    /// True if there is nothing left to wait for.
    pub(super) fn is_done(&self) -> bool {
        self.running.is_empty()
    }

    /// The request waits for another reason: begins what was put off until then.
    pub(super) fn held(&mut self, call: &PrepareCall<'_>) {
        for lane in std::mem::take(&mut self.put_off) {
            self.running.extend(Running::begin(&lane, call));
        }
    }

    /// Goes on as far as it comes without waiting.
    pub(super) async fn advance(&mut self) {
        poll_fn(|cx| {
            let _ = self.poll(cx);
            Poll::Ready(())
        })
        .await;
    }

    /// Goes on. Ready if there is nothing left to wait for.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Self { running, tokens, findings, .. } = self;
        running.retain(|work| match work.poll(cx) {
            Poll::Pending => true,
            Poll::Ready((prepared, finding)) => {
                *tokens = tokens.take().or(prepared);
                findings.extend(finding);
                false
            }
        });
        if running.is_empty() { Poll::Ready(()) } else { Poll::Pending }
    }

    /// The request has nothing else to wait for. Gives what is known once all is done, or nobody waits any more.
    pub(super) async fn finish(mut self) -> (Option<HeldTokens>, SmallVec<[Finding; 1]>) {
        self.put_off.iter().for_each(|lane| lane.metrics.outcome(Outcome::Skipped));
        self.running.retain(Running::only_wait);
        if !self.running.is_empty() {
            poll_fn(|cx| self.poll(cx)).await;
        }
        (self.tokens, self.findings)
    }
}

/// What came of one piece of work.
type Found = (Option<HeldTokens>, Option<Finding>);

/// One piece of work for one request.
struct Running {
    lane: Arc<Lane>,
    work: Preparing,
    began: Instant,
    /// Set once the work has turned out to take time.
    deadline: Option<Pin<Box<Sleep>>>,
    wait: Option<Wait>,
    /// True once the outcome was counted.
    counted: bool,
    _place: OwnedSemaphorePermit,
}

/// The request waits for this work alone.
struct Wait {
    since: Instant,
    patience: Pin<Box<Sleep>>,
    suspended: Pin<Box<OwnedNotified>>,
}

impl Running {
    fn begin(lane: &Arc<Lane>, call: &PrepareCall<'_>) -> Option<Self> {
        let work = lane.plugin.call(|preparer| preparer.prepare(call))?;
        let Ok(place) = Arc::clone(&lane.places).try_acquire_owned() else {
            lane.metrics.outcome(Outcome::Busy);
            return None;
        };
        let lane = Arc::clone(lane);
        Some(Self { lane, work, began: now(), deadline: None, wait: None, counted: false, _place: place })
    }

    /// The request waits for nothing else from now on. False if it shall not wait for this.
    fn only_wait(&mut self) -> bool {
        let suspended = Box::pin(Arc::clone(&self.lane.suspended).notified_owned());
        // Who looks now is told of all that happens from now on.
        let patience = self.lane.breaker.lock().patience();
        if patience.is_zero() {
            self.count(Outcome::Late);
            return false;
        }
        self.wait = Some(Wait { since: now(), patience: Box::pin(sleep(patience)), suspended });
        true
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Found> {
        if let Poll::Ready(result) = self.work.as_mut().poll(cx) {
            return Poll::Ready(self.settle(result));
        }
        let timeout = self.lane.limits.timeout;
        if self.deadline.get_or_insert_with(|| Box::pin(sleep(timeout))).as_mut().poll(cx).is_ready() {
            self.count(Outcome::TimedOut);
            self.lane.tell(|breaker| breaker.failed(now()));
            return Poll::Ready((None, None));
        }
        let Some(wait) = &mut self.wait else { return Poll::Pending };
        if wait.patience.as_mut().poll(cx).is_ready() || wait.suspended.as_mut().poll(cx).is_ready() {
            self.count(Outcome::Late);
            return Poll::Ready((None, None));
        }
        Poll::Pending
    }

    fn settle(&mut self, result: Result<Prepared, PrepareError>) -> Found {
        let (took, name) = (self.began.elapsed(), Arc::clone(&self.lane.plugin.name));
        match result {
            Ok(Prepared { tokens, finding }) => {
                self.lane.metrics.took(took.as_secs_f64());
                self.lane.tell(|breaker| breaker.answered(took));
                let mut share = Share::new(Arc::clone(&self.lane.budget));
                let fits = tokens.as_ref().is_none_or(|tokens| share.grow(tokens.held_bytes()));
                self.count(if fits { Outcome::Done } else { Outcome::NoRoom });
                (tokens.filter(|_| fits).map(|tokens| HeldTokens { tokens, _share: share }), finding)
            }
            Err(PrepareError::Refused(error)) => {
                tracing::debug!(plugin = %name, error, "nothing could be found out about a request");
                self.lane.tell(|breaker| breaker.answered(took));
                self.count(Outcome::Refused);
                (None, None)
            }
            Err(PrepareError::Failed(error)) => {
                tracing::debug!(plugin = %name, error, "a preparation failed");
                self.lane.tell(|breaker| breaker.failed(now()));
                self.count(Outcome::Failed);
                (None, None)
            }
        }
    }

    /// Counts what came of it, and the wait.
    fn count(&mut self, outcome: Outcome) {
        self.counted = true;
        self.lane.metrics.outcome(outcome);
        let Some(wait) = self.wait.take() else { return };
        let waited = now() - wait.since;
        self.lane.metrics.waited(waited.as_secs_f64());
        if matches!(outcome, Outcome::Late | Outcome::Cancelled | Outcome::TimedOut | Outcome::Failed) {
            self.lane.tell(|breaker| breaker.lost(waited, now()));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.counted {
            self.count(Outcome::Cancelled);
        }
    }
}

fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
