//! Bounds of what waits, and for how long.

use std::collections::BTreeSet;
use std::time::Duration;

use hashbrown::HashMap;

use super::ordering::{NEVER, Nanos, later};
use super::outcome::Outcome;
use super::queue::{Items, List, Via};

/// Number and bytes of the requests that wait, in a band or in all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Queued {
    /// Requests.
    pub requests: u64,
    /// Bytes of their bodies.
    pub bytes: u64,
    /// Their estimated tokens.
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

    /// The sum of both.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            requests: self.requests.saturating_add(other.requests),
            bytes: self.bytes.saturating_add(other.bytes),
            tokens: self.tokens.saturating_add(other.tokens),
        }
    }

    /// The bound that leaves no room for a body of `bytes`; `None` if it fits. A bound of `None` is no bound.
    pub(super) fn full(&self, bytes: u64, max_requests: Option<u64>, max_bytes: Option<u64>) -> Option<Full> {
        let requests = max_requests.filter(|max| self.requests >= *max).map(Full::Requests);
        requests.or_else(|| max_bytes.filter(|max| self.bytes.saturating_add(bytes) > *max).map(Full::Bytes))
    }
}

/// The bound of what waits that is reached, with its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Full {
    /// Number of requests.
    Requests(u64),
    /// Bytes of their bodies.
    Bytes(u64),
}

/// Time past the longest wait after which a request goes even though the pool kept coming and going.
const BACKSTOP_MARGIN: Duration = Duration::from_secs(2);

/// Distinct waits that requests may ask for; further ones get the default.
const WAITS: usize = 4096;

/// Waiting requests by their longest wait. Each group of equal waits is in order of arrival, so only the heads of the
/// groups can expire next, and a change between a pool with and one without endpoints, which changes every deadline,
/// costs nothing per request.
#[derive(Debug)]
pub(super) struct Waits {
    default_ttl: Option<Duration>,
    no_endpoint_ttl: Option<Duration>,
    groups: Vec<Group>,
    free: Vec<u32>,
    by_ttl: HashMap<Option<Duration>, u32>,
    /// The group of the default wait, which most requests have and which is never dropped.
    default_group: Option<u32>,
    /// Deadline of the head of each group that has one.
    due: BTreeSet<(Nanos, u32)>,
    empty: bool,
    /// Time at which the pool last became empty, or stopped being empty.
    since: Nanos,
}

#[derive(Debug)]
struct Group {
    ttl: Option<Duration>,
    list: List,
    /// As it stands in `due`.
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

    /// The longest wait of a request that asks for `wanted`: never more than that of its band, where zero is forever,
    /// or else the pool's default.
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

    /// The group of `ttl`.
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

    /// True if the pool was without endpoints when last looked at.
    pub(super) fn is_empty_pool(&self) -> bool {
        self.empty
    }

    /// Takes note of whether the pool has endpoints. Every wait starts anew when that changes.
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

    /// A request that has waited for too long at `now`, and how it ends.
    pub(super) fn expired(&self, items: &Items, now: Nanos) -> Option<(u32, Outcome)> {
        let (_, group) = self.due.first().filter(|(deadline, _)| *deadline <= now)?;
        let group = self.groups.get(*group as usize)?;
        let index = group.list.head()?;
        let (budget, _) = self.deadlines(group, items.get(index)?.enqueued);
        let outcome =
            if self.empty && budget <= now { Outcome::EvictedNoEndpoints } else { Outcome::EvictedTtl };
        Some((index, outcome))
    }

    /// Time at which the next request will have waited for too long.
    pub(super) fn next(&self) -> Option<Nanos> {
        self.due.first().map(|(deadline, _)| *deadline)
    }

    /// End of the wait that counts now, and end of all waiting.
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
