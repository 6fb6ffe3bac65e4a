//! Who takes the last places when several replicas release into one pool.
//!
//! Each replica hears a little late what the others released. So each has a share: it releases no more within [`LEAD`]
//! than would still fit if every other replica released as many.
//!
//! Where there are fewer places than replicas, replicas go one after the other. Those whose requests wait form a line
//! that all of them compute from the same state, and the line turns with each request that any of them sends. The first
//! in line releases at once. Each further one leaves those before it [`LEAD`] to act, after which it would know that
//! they did. A replica whose request has just come is not in the others' line yet. So its request waits for [`LEAD`]
//! first, which is long enough for the others to know of it.
//!
//! The price is that a full pool has places that nobody takes for some milliseconds: about as many as requests end
//! within [`LEAD`].

use std::collections::VecDeque;
use std::time::Duration;

use crate::flow::ordering::{Nanos, later};
use crate::flow::saturation::Unplaced;

/// Time that a replica leaves to whoever comes before it. It is more than two exchanges between replicas take: one until
/// the other knows of the place, and one until what it did is known here.
const LEAD: Duration = Duration::from_millis(20);

/// The other replicas that release into the same pool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rivals {
    /// Their number. 0 makes all of this cost nothing.
    pub others: u32,
    /// Those whose requests wait and who come before this replica now.
    pub before: u32,
    /// Those whose requests wait.
    pub waiting: u32,
    /// Requests that all replicas have ever sent. The line turns with it.
    pub sent: u64,
}

/// What this replica did that the others cannot know yet, and how long it has left others the place.
#[derive(Debug, Default)]
pub(super) struct Reserve {
    rivals: Rivals,
    /// When it released what the others may not have heard of.
    unheard: VecDeque<Nanos>,
    /// The state of the line, and when it was first seen like that.
    line: Option<(u64, Nanos)>,
}

impl Reserve {
    pub(super) fn set(&mut self, rivals: Rivals) {
        if rivals.others == 0 {
            *self = Self::default();
        }
        self.rivals = rivals;
    }

    /// True if other replicas release requests to the same endpoints.
    pub(super) fn has_rivals(&self) -> bool {
        self.rivals.others > 0
    }

    /// There is no room. Whoever waits for the next place begins anew.
    pub(super) fn held(&mut self) {
        self.line = None;
    }

    /// When a request may be released that came to the queue at `enqueued`; `None` for at once. To be asked where there
    /// are rivals. `most` is the fill up to
    /// which the pool takes it, and `unplaced` what was released and is not placed, without it.
    pub(super) fn waits(
        &mut self,
        enqueued: Nanos,
        tokens: u64,
        most: f64,
        unplaced: Unplaced,
        at: Nanos,
        fill: impl Fn(Unplaced) -> f64,
    ) -> Option<Nanos> {
        while self.unheard.front().is_some_and(|released| later(*released, LEAD) <= at) {
            self.unheard.pop_front();
        }
        let others = u64::from(self.rivals.others);
        // True if there is room for this request, and for as many of each other replica as this one has released.
        let fits = |each: u64| {
            let theirs = others.saturating_mul(each);
            let fill = fill(Unplaced {
                requests: unplaced.requests.saturating_add(theirs),
                tokens: unplaced.tokens.saturating_add(tokens.saturating_mul(theirs)),
            });
            fill < most
        };
        let unheard = self.unheard.len() as u64;
        let share_is_used_up = || self.unheard.front().map(|released| later(*released, LEAD));
        if fits(1) {
            self.line = None;
            return if unheard == 0 || fits(unheard + 1) { None } else { share_is_used_up() };
        }
        let (sent, since) = *self.line.get_or_insert((self.rivals.sent, at));
        let since = if sent == self.rivals.sent { since } else { at };
        self.line = Some((self.rivals.sent, since));
        let turn = later(enqueued, LEAD).max(later(since, LEAD * self.rivals.before));
        let due = share_is_used_up().map_or(turn, |heard| heard.max(turn));
        (due > at).then_some(due)
    }

    /// A request was released. In the line this replica is the last from now on.
    pub(super) fn released(&mut self, at: Nanos) {
        if self.has_rivals() {
            self.unheard.push_back(at);
            if self.line.take().is_some() {
                self.rivals.before = self.rivals.waiting;
            }
        }
    }
}
