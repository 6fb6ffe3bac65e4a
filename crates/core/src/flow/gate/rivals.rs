//! Shares the last places of a pool among several replicas that release into it.
//!
//! Each replica hears with a short delay of the requests that the others released. Therefore each replica has a share:
//! within [`LEAD`] it releases no more requests than would fit if every other replica released as many.
//!
//! Where the pool has fewer places than there are replicas, the replicas take the places one after the other. The
//! replicas whose requests wait form a line. All of them compute the same line from the same state, and the line turns
//! with each request that any replica sends. The first replica in the line releases at once. Each further replica
//! leaves [`LEAD`] to each replica before it, after which it knows what they did. A replica whose request has just come
//! is not in the line of the others yet. Its request therefore waits for [`LEAD`] first, so that the others hear of it.
//!
//! The cost is that places of a full pool stay free for some milliseconds: about as many as requests end within
//! [`LEAD`].

use std::collections::VecDeque;
use std::time::Duration;

use crate::flow::ordering::{Nanos, later};
use crate::flow::saturation::Unplaced;

/// The time that a replica leaves to each replica before it in the line. It is longer than two exchanges between
/// replicas. In the first the other replica hears of the free place, and in the second this replica hears what the
/// other one did.
const LEAD: Duration = Duration::from_millis(20);

/// The other replicas that release into the same pool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rivals {
    /// The number of other replicas. With 0 the shares and the line cost nothing.
    pub others: u32,
    /// The number of replicas in the line before this replica.
    pub before: u32,
    /// The number of other replicas whose requests wait.
    pub waiting: u32,
    /// The number of requests that all replicas have ever sent. The line turns with this number.
    pub sent: u64,
}

/// The releases of this replica that the others cannot know of yet, and the time for which it has left places to
/// others.
#[derive(Debug, Default)]
pub(super) struct Reserve {
    rivals: Rivals,
    /// The times of the releases that the others may not have heard of.
    unheard: VecDeque<Nanos>,
    /// The `sent` of the line, and the time at which it was first seen.
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

    /// Notes that the pool has no room, so that the wait for the next place begins anew.
    pub(super) fn held(&mut self) {
        self.line = None;
    }

    /// The time from which a request may be released that came to the queue at `enqueued`; `None` if it may go at once.
    /// The caller asks only while [`Reserve::has_rivals`]. The pool takes the request while its fill is below `most`.
    /// `unplaced` is the released requests without a place, this request not counted.
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

    /// Notes that a request was released beside rivals. This replica is now the last in the line.
    pub(super) fn released(&mut self, at: Nanos) {
        self.unheard.push_back(at);
        if self.line.take().is_some() {
            self.rivals.before = self.rivals.waiting;
        }
    }
}
