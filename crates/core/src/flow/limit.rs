//! The bounds on the number, the size and the wait of requests.

use std::collections::BTreeSet;
use std::time::Duration;

use hashbrown::HashMap;

use super::ordering::{NEVER, Nanos, later};
use super::outcome::Outcome;
use super::queue::{Items, List, Via};

/// The number and the size of the requests that wait in a band or in all bands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Queued {
    /// The number of requests.
    pub requests: u64,
    /// The length of their bodies in bytes.
    pub bytes: u64,
    /// The number of their estimated tokens.
    pub tokens: u64,
}

impl Queued {
    pub(super) fn add(&mut self, bytes: u64, tokens: u64) {
        self.requests += 1;
        self.bytes += bytes;
        self.tokens += tokens;
    }

    pub(super) fn subtract(&mut self, bytes: u64, tokens: u64) {
        self.requests = self.requests.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(bytes);
        self.tokens = self.tokens.saturating_sub(tokens);
    }

    /// The sum of `self` and `other`.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            requests: self.requests.saturating_add(other.requests),
            bytes: self.bytes.saturating_add(other.bytes),
            tokens: self.tokens.saturating_add(other.tokens),
        }
    }

    /// The bound that leaves no room for a body of `bytes`; `None` if the body fits. A `None` among the arguments sets
    /// no bound.
    pub(super) fn full(&self, bytes: u64, max_requests: Option<u64>, max_bytes: Option<u64>) -> Option<Full> {
        let requests = max_requests.filter(|max| self.requests >= *max).map(Full::Requests);
        requests.or_else(|| max_bytes.filter(|max| self.bytes.saturating_add(bytes) > *max).map(Full::Bytes))
    }
}

/// The bound that a request would exceed, with its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Full {
    /// The bound on the number of requests.
    Requests(u64),
    /// The bound on the bytes of the bodies.
    Bytes(u64),
}

/// The time after the longest wait at which a request is rejected, even if the pool became empty and filled again so
/// that its wait began anew.
const BACKSTOP_MARGIN: Duration = Duration::from_secs(2);

/// The number of different longest waits that are told apart. A request with a further one gets the default wait.
const WAITS: usize = 4096;

/// The waiting requests, grouped by their longest wait. Each group is in the order of arrival, so only the first
/// request of a group can expire next. All deadlines change when the pool becomes empty or stops being empty. That
/// costs work for each group, and none for each request.
#[derive(Debug)]
pub(super) struct Waits {
    default_ttl: Option<Duration>,
    no_endpoint_ttl: Option<Duration>,
    groups: Vec<Group>,
    free: Vec<u32>,
    by_ttl: HashMap<Option<Duration>, u32>,
    /// The group of the default wait, which most requests have. This group is never dropped.
    default_group: Option<u32>,
    /// The deadline of the first request of each group that has a deadline.
    due: BTreeSet<(Nanos, u32)>,
    empty: bool,
    /// The time at which the pool last became empty, or stopped being empty.
    since: Nanos,
}

#[derive(Debug)]
struct Group {
    ttl: Option<Duration>,
    list: List,
    /// The deadline of this group's entry in `due`.
    deadline: Nanos,
}

impl Waits {
    pub(super) fn new(default_ttl: Option<Duration>, no_endpoint_ttl: Option<Duration>) -> Self {
        Self {
            default_ttl,
            no_endpoint_ttl,
            groups: Vec::new(),
            free: Vec::new(),
            by_ttl: HashMap::new(),
            default_group: None,
            due: BTreeSet::new(),
            empty: false,
            since: 0,
        }
    }

    /// Without requests, and with other waits, for the same pool.
    pub(super) fn again(&self, default_ttl: Option<Duration>, no_endpoint_ttl: Option<Duration>) -> Self {
        Self { empty: self.empty, since: self.since, ..Self::new(default_ttl, no_endpoint_ttl) }
    }

    /// The longest wait of a request that asks for `wanted`. It is at most the wait of the request's band, where zero
    /// waits for ever. A band without a wait of its own takes the pool's default.
    pub(super) fn ttl(&self, wanted: Option<Duration>, band: Option<Duration>) -> Option<Duration> {
        let most = match band {
            Some(own) => (!own.is_zero()).then_some(own),
            None => self.default_ttl,
        };
        match (wanted.filter(|wanted| !wanted.is_zero()), most) {
            (Some(wanted), Some(most)) => Some(wanted.min(most)),
            (wanted, most) => wanted.or(most),
        }
    }

    /// The group of the longest wait `ttl`.
    pub(super) fn group(&mut self, ttl: Option<Duration>) -> u32 {
        match self.default_group {
            Some(index) if ttl == self.default_ttl => index,
            _ => self.find_or_add_group(ttl),
        }
    }

    fn find_or_add_group(&mut self, ttl: Option<Duration>) -> u32 {
        let full = self.by_ttl.len() >= WAITS && !self.by_ttl.contains_key(&ttl);
        let ttl = if full { self.default_ttl } else { ttl };
        if let Some(index) = self.by_ttl.get(&ttl) {
            return *index;
        }
        let group = Group { ttl, list: List::default(), deadline: NEVER };
        let index = self.free.pop().unwrap_or(self.groups.len() as u32);
        match self.groups.get_mut(index as usize) {
            Some(slot) => *slot = group,
            None => self.groups.push(group),
        }
        self.by_ttl.insert(ttl, index);
        if ttl == self.default_ttl {
            self.default_group = Some(index);
        }
        index
    }

    /// True if the pool had no endpoint when it was last observed.
    pub(super) fn is_empty_pool(&self) -> bool {
        self.empty
    }

    /// Notes whether the pool has endpoints. If that changed, the wait of every request begins anew.
    pub(super) fn observe(&mut self, empty: bool, items: &Items, now: Nanos) {
        if self.empty == empty {
            return;
        }
        self.empty = empty;
        self.since = now;
        (0..self.groups.len() as u32).for_each(|group| self.rearm(group, items));
    }

    pub(super) fn add(&mut self, items: &mut Items, index: u32, group: u32) {
        if let Some(slot) = self.groups.get_mut(group as usize) {
            let was_empty = slot.list.head().is_none();
            slot.list.push(items, Via::Wait, index);
            if was_empty {
                self.rearm(group, items);
            }
        }
    }

    pub(super) fn remove(&mut self, items: &mut Items, index: u32, group: u32) {
        let Some(slot) = self.groups.get_mut(group as usize) else { return };
        let was_head = slot.list.head() == Some(index);
        slot.list.remove(items, Via::Wait, index);
        if !was_head {
            return;
        }
        let (ttl, unused) = (slot.ttl, slot.list.head().is_none());
        self.rearm(group, items);
        if unused && ttl != self.default_ttl {
            self.by_ttl.remove(&ttl);
            self.free.push(group);
        }
    }

    /// A request whose wait has ended at `now`, with the outcome of the request.
    pub(super) fn expired(&self, items: &Items, now: Nanos) -> Option<(u32, Outcome)> {
        let (_, group) = self.due.first().filter(|(deadline, _)| *deadline <= now)?;
        let group = self.groups.get(*group as usize)?;
        let index = group.list.head()?;
        let (budget, _) = self.deadlines(group, items.get(index)?.enqueued);
        let outcome =
            if self.empty && budget <= now { Outcome::EvictedNoEndpoints } else { Outcome::EvictedTtl };
        Some((index, outcome))
    }

    /// The time at which the next wait ends.
    pub(super) fn next(&self) -> Option<Nanos> {
        self.due.first().map(|(deadline, _)| *deadline)
    }

    /// The end of the wait that applies now, and the end of every wait however often the pool changed.
    fn deadlines(&self, group: &Group, enqueued: Nanos) -> (Nanos, Nanos) {
        let budget = if self.empty { self.no_endpoint_ttl } else { group.ttl };
        let end = budget.map_or(NEVER, |budget| later(enqueued.max(self.since), budget));
        let last = match (group.ttl, self.no_endpoint_ttl) {
            (Some(ttl), Some(other)) => later(enqueued, ttl.max(other).saturating_add(BACKSTOP_MARGIN)),
            _ => NEVER,
        };
        (end, last)
    }

    fn rearm(&mut self, index: u32, items: &Items) {
        let Some(group) = self.groups.get(index as usize) else { return };
        let deadline = group.list.head().and_then(|head| items.get(head)).map_or(NEVER, |head| {
            let (end, last) = self.deadlines(group, head.enqueued);
            end.min(last)
        });
        let old = self.groups.get_mut(index as usize).map(|g| std::mem::replace(&mut g.deadline, deadline));
        if old == Some(deadline) {
            return;
        }
        if let Some(old) = old.filter(|old| *old != NEVER) {
            self.due.remove(&(old, index));
        }
        if deadline != NEVER {
            self.due.insert((deadline, index));
        }
    }
}
