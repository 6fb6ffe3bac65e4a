//! One replica of the picker: the program's own director, fed in virtual time.

use std::collections::BTreeMap;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use pointsman_sim::Glance;

use crate::datalayer::{Pace, Schedule};
use crate::director::{Ask, Director, Exchange, Refusal, ResponseSide, Routed};
use crate::flow::Controller;
use crate::pool::{EndpointId, EndpointSpec, LoraReading, Pool, Reading};
use crate::telemetry::Span;

/// The parts that `serve` builds from a configuration, without the ports.
pub struct Brain {
    /// Makes the decisions.
    pub director: Arc<Director>,
    /// The controller of flow control, if the configuration enables it.
    pub controller: Option<Arc<Controller>>,
    /// The endpoints of the pool.
    pub pool: Arc<Pool>,
    /// Mean absolute error of the predicted times to the first token over the last 100 requests, as a share of their
    /// mean; `None` if nobody predicts, or until enough requests were answered.
    pub prediction_error: Box<dyn Fn() -> Option<f64>>,
}

impl std::fmt::Debug for Brain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Brain").finish_non_exhaustive()
    }
}

/// The decision on a request: the request goes on, or is refused.
pub(super) type Verdict = Result<Routed<Exchange>, Refusal>;
type Deciding = Pin<Box<dyn Future<Output = Verdict>>>;

/// The requests whose tasks were woken, in the order of the wake-ups.
type Woken = Arc<Mutex<Vec<usize>>>;

struct Alarm {
    request: usize,
    woken: Woken,
}

impl Wake for Alarm {
    fn wake(self: Arc<Self>) {
        self.woken.lock().push(self.request);
    }
}

/// A metrics page that was asked for and has not been read yet.
#[derive(Debug)]
pub(super) struct Page {
    pub(super) replica: usize,
    pub(super) server: usize,
    reading: Reading,
    dispatched_before: u64,
}

/// One replica of the picker.
pub(super) struct Replica {
    pub(super) brain: Brain,
    number: usize,
    schedule: Schedule,
    held: BTreeMap<usize, Deciding>,
    running: BTreeMap<usize, Exchange>,
    woken: Woken,
    /// For each server, whether it is in the pool.
    members: Vec<bool>,
}

impl Replica {
    /// Makes a replica that knows `servers` servers and has read none of them.
    pub(super) fn new(
        brain: Brain,
        number: usize,
        servers: usize,
        interval: Duration,
        start: Instant,
    ) -> Self {
        // The first reading of each replica comes at another time in the interval, spread by the golden ratio.
        let offset = interval.mul_f64((number as f64 * 0.618_034).fract());
        let mut replica = Self {
            brain,
            number,
            schedule: Schedule::new(Pace::every(interval), start.checked_sub(offset).unwrap_or(start)),
            held: BTreeMap::new(),
            running: BTreeMap::new(),
            woken: Woken::default(),
            members: vec![false; servers],
        };
        for server in 0..servers {
            replica.set_member(server, true, start);
        }
        replica
    }

    /// Adds a server to the pool, or removes it.
    pub(super) fn set_member(&mut self, server: usize, member: bool, now: Instant) {
        if let Some(place) = self.members.get_mut(server) {
            *place = member;
        }
        if member {
            self.schedule.add(server as u64, now);
        } else {
            self.schedule.remove(server as u64);
        }
        let members = self.members.iter().enumerate().filter(|(_, member)| **member);
        self.brain.pool.replace_endpoints(members.map(|(server, _)| spec(server)).collect());
        self.notify();
    }

    /// Handles a request that has come. Returns the decision, or `None` if the request waits.
    pub(super) fn arrive(&mut self, request: usize, ask: Ask, now: Instant) -> Option<Verdict> {
        let director = Arc::clone(&self.brain.director);
        let deciding: Deciding = Box::pin(async move { director.handle(ask, now, &mut Span::off()).await });
        self.held.insert(request, deciding);
        self.poll_held(request)
    }

    fn waker(&self, request: usize) -> Waker {
        Waker::from(Arc::new(Alarm { request, woken: Arc::clone(&self.woken) }))
    }

    fn poll_held(&mut self, request: usize) -> Option<Verdict> {
        let waker = self.waker(request);
        let deciding = self.held.get_mut(&request)?;
        match deciding.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(verdict) => {
                self.held.remove(&request);
                Some(verdict)
            }
            Poll::Pending => None,
        }
    }

    /// Returns the decisions since the last call. Each is a decision on a waiting request, or `None` for a running
    /// request that has to stop.
    pub(super) fn decided(&mut self) -> Vec<(usize, Option<Verdict>)> {
        let mut decided = Vec::new();
        loop {
            let woken = std::mem::take(&mut *self.woken.lock());
            if woken.is_empty() {
                return decided;
            }
            for request in woken {
                if self.held.contains_key(&request) {
                    decided.extend(self.poll_held(request).map(|verdict| (request, Some(verdict))));
                } else if self.is_revoked(request) {
                    decided.push((request, None));
                }
            }
        }
    }

    /// Returns whether a running request has to stop, and registers a wake-up for the time when it has to.
    pub(super) fn is_revoked(&mut self, request: usize) -> bool {
        let waker = self.waker(request);
        let Some(exchange) = self.running.get_mut(&request) else { return false };
        exchange.poll_revoked(&mut Context::from_waker(&waker)).is_ready()
    }

    /// Keeps the response side of a request that was sent to a server.
    pub(super) fn place(&mut self, request: usize, exchange: Exchange) {
        self.running.insert(request, exchange);
    }

    pub(super) fn exchange(&mut self, request: usize) -> Option<&mut Exchange> {
        self.running.get_mut(&request)
    }

    /// Notes that the request is over.
    pub(super) fn end(&mut self, request: usize) {
        self.held.remove(&request);
        self.running.remove(&request);
    }

    /// The time of the next request for a server's metrics.
    pub(super) fn next_scrape(&self) -> Option<Instant> {
        self.schedule.next_due()
    }

    /// The server that is to be asked for its metrics now.
    pub(super) fn take_due(&mut self, now: Instant) -> Option<usize> {
        self.schedule.take_due(now).map(|key| key as usize)
    }

    /// Asks a server for its metrics. With the answer `None` the server does not answer.
    pub(super) fn scrape(&mut self, server: usize, answer: Option<Answer<'_>>, now: Instant) -> Option<Page> {
        let endpoint = self.endpoint(server)?;
        let Some(answer) = answer else {
            endpoint.load().note_silence(true);
            self.schedule.finished(server as u64, false, now);
            self.notify();
            return None;
        };
        let dispatched_before = endpoint.load().dispatched();
        Some(Page { replica: self.number, server, reading: answer.reading(), dispatched_before })
    }

    /// Handles a page that has come.
    pub(super) fn read(&mut self, page: Page, now: Instant) {
        if let Some(endpoint) = self.endpoint(page.server) {
            endpoint.load().note_answer();
            endpoint.load().record(page.reading, page.dispatched_before, now);
        }
        self.schedule.finished(page.server as u64, true, now);
        self.notify();
    }

    fn endpoint(&self, server: usize) -> Option<Arc<crate::pool::Endpoint>> {
        let address = address(server);
        let snapshot = self.brain.pool.snapshot();
        // While no server has left the pool, the index of a server is its number.
        let at_its_place = snapshot.endpoints().get(server).filter(|found| found.spec().address == address);
        let found = at_its_place
            .or_else(|| snapshot.endpoints().iter().find(|found| found.spec().address == address));
        found.cloned()
    }

    fn notify(&self) {
        if let Some(controller) = &self.brain.controller {
            controller.notify_load();
        }
    }

    /// The time at which flow control's timer checks the queues next.
    pub(super) fn next_look(&self) -> Option<Instant> {
        self.brain.controller.as_ref().and_then(|controller| controller.next_look())
    }

    pub(super) fn look(&self) {
        if let Some(controller) = &self.brain.controller {
            controller.look();
        }
    }
}

/// The figures that a server would show on its metrics page.
#[derive(Debug, Clone, Copy)]
pub(super) struct Answer<'s> {
    pub(super) glance: &'s Glance,
    pub(super) block_size: usize,
    pub(super) blocks: usize,
    pub(super) max_adapters: Option<usize>,
}

impl Answer<'_> {
    fn reading(&self) -> Reading {
        let names = |text: &str| text.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect();
        Reading {
            waiting: Some(self.glance.waiting as u64),
            running: Some(self.glance.running as u64),
            kv_usage: Some(self.glance.kv_usage),
            block_size: u32::try_from(self.block_size).ok(),
            num_blocks: u32::try_from(self.blocks).ok(),
            lora: self.max_adapters.map(|max| LoraReading {
                active: names(&self.glance.adapters_running),
                waiting: names(&self.glance.adapters_waiting),
                max_active: max as u64,
            }),
            attributes: Vec::new(),
        }
    }
}

/// The address of a server.
fn address(server: usize) -> SocketAddr {
    let [.., a, b, c] = (server as u64 + 1).to_be_bytes();
    SocketAddr::from(([10, a, b, c], 8000))
}

fn spec(server: usize) -> EndpointSpec {
    EndpointSpec::new(EndpointId::new("default", &format!("server-{server:04}")), address(server))
}

/// The server that a destination names first, which is the chosen one.
pub(super) fn server_of(destination: &[u8]) -> Option<usize> {
    let text = std::str::from_utf8(destination).ok()?;
    let SocketAddr::V4(address) = text.split(',').next()?.parse().ok()? else { return None };
    let [_, a, b, c] = address.ip().octets();
    usize::try_from(u32::from_be_bytes([0, a, b, c])).ok()?.checked_sub(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_destination_names_its_server() {
        for server in [0, 7, 255, 256, 70_000] {
            assert_eq!(server_of(format!("{},10.0.0.9:8000", address(server)).as_bytes()), Some(server));
        }
        assert_eq!(server_of(b"nonsense"), None);
    }
}
