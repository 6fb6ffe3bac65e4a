//! The shell around the gate: the tasks that wait for a release, and one timer.
//!
//! One lock covers each decision together with its delivery to the waiting task. The lock is held only for that time,
//! and never across an await. A task that gives up therefore finds either that its request still waits, or the decision
//! that was made for it.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use hashbrown::HashMap;
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot, watch};

use super::arrival::Arrival;
use super::gate::{Gate, Load};
use super::limit::Queued;
use super::observer::Observer;
use super::outcome::{GateDecision, Outcome, Rejection};
use super::queue::Ticket;
use super::settings::FlowSettings;
use crate::clock;

mod elsewhere;
mod reconfigure;
mod shown;

/// The decision for a waiting task. A release carries a stop signal if the request may be stopped while it runs.
type WaitEnd = Result<Option<oneshot::Receiver<()>>, Rejection>;

struct Waiter {
    verdict: oneshot::Sender<WaitEnd>,
    /// True if the request may be stopped while it runs.
    revocable: bool,
    /// What it came with, if it was not released at once.
    arrival: Option<Arrival>,
}

struct State {
    gate: Gate,
    /// The waiting tasks, by [`Ticket::index`].
    waiters: Vec<Option<Waiter>>,
    /// Stop signals of the running requests that may be stopped.
    stops: HashMap<Ticket, oneshot::Sender<()>>,
    /// A buffer that is empty between calls.
    decisions: Vec<GateDecision>,
    /// The time at which the timer checks the queues next. `None` while the timer sleeps until it is woken.
    armed: Option<Instant>,
    judging: Judging,
}

/// In a pool with at most this many endpoints, the queues are checked at each reading of a load.
const JUDGED_AT_ONCE: usize = 64;
/// The shortest time, for each endpoint of a larger pool, between two checks that readings cause. A check costs a few
/// nanoseconds for each endpoint, and a large pool has ten thousand readings a second.
const PAUSE: Duration = Duration::from_micros(1);

/// The times of the last check and of a postponed check that a change of the load caused.
#[derive(Debug, Default)]
struct Judging {
    last: Option<Instant>,
    /// The time of the postponed check.
    postponed: Option<Instant>,
}

impl Judging {
    /// True if a change in a pool of `size` endpoints has to be checked now. Otherwise the change is checked later,
    /// together with the changes that come until then.
    fn begins(&mut self, size: usize, now: Instant) -> bool {
        let pause = if size > JUDGED_AT_ONCE {
            PAUSE * u32::try_from(size).unwrap_or(u32::MAX)
        } else {
            Duration::ZERO
        };
        let due = self.last.and_then(|last| last.checked_add(pause)).filter(|due| *due > now);
        self.postponed = due;
        if due.is_none() {
            self.last = Some(now);
        }
        due.is_none()
    }
}

/// Flow control of one pool, for tasks that await the release of their requests.
pub struct Controller {
    state: Mutex<State>,
    load: Box<dyn Load + Send + Sync>,
    observer: Box<dyn Observer>,
    rearm: Notify,
    /// The number of undecided requests. A request is counted before its task reads the load.
    undecided: AtomicU64,
    /// Copies of the gate's counts, which can be read without the lock.
    requests: AtomicU64,
    bytes: AtomicU64,
    tokens: AtomicU64,
    in_flight: AtomicU64,
    waiting: watch::Sender<bool>,
    draining: AtomicBool,
    eviction: AtomicBool,
}

impl std::fmt::Debug for Controller {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Controller").field("queued", &self.queued()).finish_non_exhaustive()
    }
}

impl Controller {
    /// A controller with empty queues. [`Controller::run`] must be spawned, or waits do not end.
    pub fn new(
        settings: FlowSettings,
        load: impl Load + Send + Sync + 'static,
        observer: impl Observer + 'static,
    ) -> Arc<Self> {
        let eviction = settings.eviction;
        let state = State {
            gate: Gate::new(settings, now()),
            waiters: Vec::new(),
            stops: HashMap::new(),
            decisions: Vec::new(),
            armed: None,
            judging: Judging::default(),
        };
        Arc::new(Self {
            state: Mutex::new(state),
            load: Box::new(load),
            observer: Box::new(observer),
            rearm: Notify::new(),
            undecided: AtomicU64::new(0),
            requests: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            tokens: AtomicU64::new(0),
            in_flight: AtomicU64::new(0),
            waiting: watch::Sender::new(false),
            draining: AtomicBool::new(false),
            eviction: AtomicBool::new(eviction),
        })
    }

    /// The timer task. It ends waits that last too long. While no request waits, it sleeps without any wake-up. It runs
    /// until it is dropped.
    pub async fn run(self: Arc<Self>) {
        loop {
            let armed = self.state.lock().armed;
            let Some(at) = armed else {
                self.rearm.notified().await;
                continue;
            };
            tokio::select! {
                () = tokio::time::sleep_until(at.into()) => self.look(),
                () = self.rearm.notified() => {}
            }
        }
    }

    /// The time at which [`Controller::run`] checks the queues next. `None` while it sleeps until an event. A caller
    /// that replaces that task, in virtual time, needs this time.
    pub fn next_look(&self) -> Option<Instant> {
        self.state.lock().armed
    }

    /// Checks the queues, as [`Controller::run`] does at that time.
    pub fn look(&self) {
        self.act(|state, load, now| {
            state.armed = None;
            state.judging = Judging { last: Some(now), postponed: None };
            state.gate.advance(now, load, &mut state.decisions);
        });
    }

    /// Waits until the request may be scheduled. Dropping the future withdraws the request. Dropping the permit ends
    /// the request.
    /// The error says why the request will not be served: a bound, the end of its wait, or the end of the process.
    pub async fn admit(self: &Arc<Self>, arrival: Arrival) -> Result<Permit, Rejection> {
        let began = now();
        self.undecided.fetch_add(1, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        let (sender, receiver) = oneshot::channel();
        let revocable = self.eviction.load(Ordering::Relaxed) && arrival.priority < 0;
        let submitted = self.act(|state, load, now| {
            let ticket = state.gate.submit(&arrival, now, load, &mut state.decisions)?;
            // This call may have ended another request whose slot the ticket reuses. The waiter of that request must be
            // told before the new waiter takes its place.
            self.tell(state, Some(ticket));
            if state.waiters.len() <= ticket.index() {
                state.waiters.resize_with(ticket.index() + 1, || None);
            }
            let kept = state.gate.waits(ticket).then(|| arrival.clone());
            state.waiters[ticket.index()] = Some(Waiter { verdict: sender, revocable, arrival: kept });
            Ok(ticket)
        });
        let ticket = submitted.inspect_err(|_: &Rejection| self.decided())?;
        let mut waiting = Waiting { controller: self, arrival: &arrival, ticket, receiver, decided: false };
        let verdict = (&mut waiting.receiver).await;
        waiting.decided = true;
        // The controller sends a decision to each waiter before it drops the waiter, so this error does not happen.
        let verdict =
            verdict.unwrap_or_else(|_| Err(Rejection::new(Outcome::EvictedOther, self.load.is_empty())));
        self.decided();
        let waited = now().saturating_duration_since(began);
        verdict.map(|stop| Permit {
            controller: Arc::clone(self),
            ticket,
            fairness_id: Arc::clone(&arrival.fairness_id),
            tokens: arrival.tokens,
            placed: false,
            waited,
            stop,
        })
    }

    /// Notes that the pool's load or its endpoints changed. The call costs one atomic read while no request waits. In a
    /// large pool, changes within one microsecond for each endpoint are judged together.
    pub fn notify_load(&self) {
        // This fence pairs with the count in `admit`. Either this call sees the request there, or the request sees the
        // new load.
        fence(Ordering::SeqCst);
        if self.undecided.load(Ordering::SeqCst) == 0 {
            return;
        }
        {
            let mut state = self.state.lock();
            if !state.judging.begins(self.load.size(), now()) {
                self.arm(&mut state);
                return;
            }
        }
        self.act(|state, load, now| state.gate.advance(now, load, &mut state.decisions));
    }

    /// Gives each of these priorities a band; see [`Gate::provision`].
    pub fn provision(&self, priorities: &[i32]) {
        self.act(|state, _, _| state.gate.provision(priorities));
    }

    /// Starts a drain, during which waiting requests are still released. Resolves when none is left. Bound this future
    /// by the time of the drain, then call [`Controller::close`].
    pub async fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
        let mut waiting = self.waiting.subscribe();
        // The sender lives as long as `self`, so this wait cannot fail.
        _ = waiting.wait_for(|waiting| !waiting).await;
    }

    /// True once [`Controller::drain`] was called.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// Rejects all waiting and all coming requests, because the process shuts down.
    pub fn close(&self) {
        self.act(|state, load, now| state.gate.close(now, load, &mut state.decisions));
    }

    /// The number and the size of the waiting requests.
    pub fn queued(&self) -> Queued {
        Queued {
            requests: self.requests.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
            tokens: self.tokens.load(Ordering::Relaxed),
        }
    }

    /// The number of requests that were released and have not ended.
    pub fn in_flight(&self) -> u64 {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// True if no request waits and no request runs.
    pub fn is_idle(&self) -> bool {
        self.queued().requests == 0 && self.in_flight() == 0
    }

    /// The released requests that do not show in the load of any endpoint yet.
    pub fn unplaced(&self) -> super::Unplaced {
        self.state.lock().gate.unplaced()
    }

    /// True if the saturation of the pool is 1 or more.
    pub fn is_full(&self) -> bool {
        self.load.fill(self.unplaced(), now()).gating >= 1.0
    }

    /// Saturation that the last eviction wanted to free, and the part that stopped requests will still free; `None`
    /// without eviction.
    pub fn reclaim(&self) -> Option<(f64, f64)> {
        self.state.lock().gate.reclaim()
    }

    /// A channel that tells whether requests wait.
    pub fn waiting(&self) -> watch::Receiver<bool> {
        self.waiting.subscribe()
    }

    /// Notes that a submitted request was decided.
    fn decided(&self) {
        self.undecided.fetch_sub(1, Ordering::SeqCst);
    }

    /// The number of requests that were submitted and not decided.
    #[cfg(test)]
    pub(super) fn undecided(&self) -> u64 {
        self.undecided.load(Ordering::SeqCst)
    }

    /// Runs one operation on the gate, and delivers the decisions that it made.
    fn act<R>(&self, operation: impl FnOnce(&mut State, &dyn Load, Instant) -> R) -> R {
        let (result, took) = {
            let mut state = self.state.lock();
            let began = now();
            let result = operation(&mut state, &*self.load, began);
            self.settle(&mut state);
            (result, now().saturating_duration_since(began))
        };
        self.observer.cycle(took);
        result
    }

    /// Delivers the decisions to their waiters, except for those of the request `except`.
    fn tell(&self, state: &mut State, except: Option<Ticket>) {
        let State { decisions, waiters, stops, .. } = state;
        decisions.retain(|decision| {
            let (ticket, rejection) = match *decision {
                GateDecision::Release { ticket, .. } => (ticket, None),
                GateDecision::Reject { ticket, rejection, .. } => (ticket, Some(rejection)),
                // This call released the request too, so its waiter must hear of the release first.
                GateDecision::Revoke { ticket, .. } if except == Some(ticket) => return true,
                GateDecision::Revoke { ticket, demand } => {
                    self.observer.revocation_issued(demand);
                    // A request that is just ending does not listen to its stop signal any more.
                    _ = stops.remove(&ticket).map(|stop| stop.send(()));
                    return false;
                }
                GateDecision::RevocationEnded { confirmed, took } => {
                    self.observer.revocation_ended(confirmed, took);
                    return false;
                }
            };
            if except == Some(ticket) {
                return true;
            }
            let Some(waiter) = waiters.get_mut(ticket.index()).and_then(Option::take) else { return false };
            let verdict = match rejection {
                Some(rejection) => Err(rejection),
                None if waiter.revocable => {
                    let (stop, stopped) = oneshot::channel();
                    stops.insert(ticket, stop);
                    Ok(Some(stopped))
                }
                None => Ok(None),
            };
            // The receiver lives until its waiter has taken this lock, so the decision arrives.
            _ = waiter.verdict.send(verdict);
            false
        });
    }

    fn settle(&self, state: &mut State) {
        self.tell(state, None);
        let queued = state.gate.queued();
        self.requests.store(queued.requests, Ordering::Relaxed);
        self.bytes.store(queued.bytes, Ordering::Relaxed);
        self.tokens.store(queued.tokens, Ordering::Relaxed);
        self.in_flight.store(state.gate.in_flight(), Ordering::Relaxed);
        let waits = queued.requests > 0;
        if *self.waiting.borrow() != waits {
            self.waiting.send_replace(waits);
        }
        self.arm(state);
    }

    /// Sets the timer. A timer that is set too early wakes once without need, which is cheaper than changing it at
    /// every release.
    fn arm(&self, state: &mut State) {
        let next = [state.gate.next_wakeup(), state.judging.postponed].into_iter().flatten().min();
        if let Some(next) = next
            && state.armed.is_none_or(|armed| next < armed)
        {
            state.armed = Some(next);
            self.rearm.notify_one();
        }
    }

    /// Ends the wait of a request whose future was dropped.
    fn withdraw(&self, arrival: &Arrival, ticket: Ticket, receiver: &mut oneshot::Receiver<WaitEnd>) {
        self.act(|state, load, now| {
            if state.gate.cancel(ticket, now, load, &mut state.decisions) {
                if let Some(waiter) = state.waiters.get_mut(ticket.index()) {
                    *waiter = None;
                }
            } else if let Ok(Ok(_)) = receiver.try_recv() {
                state.stops.remove(&ticket);
                state.gate.session_request_ended(&arrival.fairness_id, now);
                state.gate.complete(ticket, Some(arrival.tokens), now, load, &mut state.decisions);
            }
        });
    }
}

/// A request in the queue. Dropping this value withdraws the request.
struct Waiting<'a> {
    controller: &'a Controller,
    arrival: &'a Arrival,
    ticket: Ticket,
    receiver: oneshot::Receiver<WaitEnd>,
    decided: bool,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if !self.decided {
            self.controller.withdraw(self.arrival, self.ticket, &mut self.receiver);
            self.controller.decided();
        }
    }
}

/// A released request. Dropping the permit ends the request. Drop the lease on the endpoint first, so that the gate
/// sees the free room.
#[derive(Debug)]
#[must_use = "dropping a permit ends the request"]
pub struct Permit {
    controller: Arc<Controller>,
    ticket: Ticket,
    fairness_id: Arc<str>,
    tokens: u64,
    placed: bool,
    waited: Duration,
    stop: Option<oneshot::Receiver<()>>,
}

impl Permit {
    /// Notes that the request now counts in the load of an endpoint. Before this call the controller adds the request
    /// to the pool's load.
    pub fn placed(&mut self) {
        if !std::mem::replace(&mut self.placed, true) {
            let tokens = self.tokens;
            self.controller.act(|state, load, now| {
                state.gate.placed(tokens, now, load, &mut state.decisions);
            });
        }
    }

    /// Notes that the request goes on but takes less room on its endpoint, so that others may find room.
    pub fn eased(&self) {
        self.controller.notify_load();
    }

    /// Reports the tokens of the request, which program-aware fairness counts.
    pub fn served(&self, prompt_tokens: u64, completion_tokens: u64) {
        self.controller.act(|state, _, now| {
            state.gate.served(&self.fairness_id, prompt_tokens, completion_tokens, now);
        });
    }

    /// The time that the request spent in the queue.
    pub fn waited(&self) -> Duration {
        self.waited
    }

    /// Returns `Ready` once if the request has to stop to make room for a more important one.
    pub fn poll_revoked(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(stop) = &mut self.stop else { return Poll::Pending };
        let stopped = ready!(Pin::new(stop).poll(cx));
        self.stop = None;
        if stopped.is_ok() { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Resolves if the request has to stop to make room for a more important one. For most requests it never resolves.
    pub async fn revoked(&mut self) {
        poll_fn(|cx| self.poll_revoked(cx)).await;
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let unplaced = (!self.placed).then_some(self.tokens);
        let ticket = self.ticket;
        self.controller.act(|state, load, now| {
            state.stops.remove(&ticket);
            state.gate.session_request_ended(&self.fairness_id, now);
            state.gate.complete(ticket, unplaced, now, load, &mut state.decisions);
        });
    }
}

fn now() -> Instant {
    clock::simulated().unwrap_or_else(|| tokio::time::Instant::now().into_std())
}
