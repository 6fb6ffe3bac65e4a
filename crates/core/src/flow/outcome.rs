//! The ways in which a request leaves the queue, and the client's answer if the request was not released.

use std::fmt;
use std::time::Duration;

use super::Ticket;

/// The final state of a request, as the `outcome` label of the metrics names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Outcome {
    /// The request was released and may be scheduled.
    Dispatched,
    /// The request was not queued, because a bound was reached while the pool had endpoints.
    RejectedCapacity,
    /// The request was not queued, because a bound was reached while the pool had no endpoint.
    RejectedNoEndpoints,
    /// The request was not queued for another reason, such as the shutdown of the process.
    RejectedOther,
    /// The request waited for longer than it may.
    EvictedTtl,
    /// The request waited for longer than it may for the pool to get an endpoint.
    EvictedNoEndpoints,
    /// The client left while the request waited.
    EvictedContextCancelled,
    /// The request was taken out of the queue for another reason, such as the shutdown of the process.
    EvictedOther,
}

impl Outcome {
    /// All outcomes.
    pub const ALL: [Self; 8] = [
        Self::Dispatched,
        Self::RejectedCapacity,
        Self::RejectedNoEndpoints,
        Self::RejectedOther,
        Self::EvictedTtl,
        Self::EvictedNoEndpoints,
        Self::EvictedContextCancelled,
        Self::EvictedOther,
    ];

    /// The value of the label `outcome`.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Dispatched => "Dispatched",
            Self::RejectedCapacity => "RejectedCapacity",
            Self::RejectedNoEndpoints => "RejectedNoEndpoints",
            Self::RejectedOther => "RejectedOther",
            Self::EvictedTtl => "EvictedTTL",
            Self::EvictedNoEndpoints => "EvictedNoEndpoints",
            Self::EvictedContextCancelled => "EvictedContextCancelled",
            Self::EvictedOther => "EvictedOther",
        }
    }
}

/// Why a request was not released, as the client is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DropReason {
    /// A queue was full.
    Saturated,
    /// The request waited for as long as it may.
    TtlExpired,
    /// The pool has no endpoint.
    NoEndpoints,
    /// The client left.
    ContextCancelled,
    /// The queues are closed, because the process shuts down.
    ShuttingDown,
}

impl DropReason {
    /// All reasons.
    pub const ALL: [Self; 5] =
        [Self::Saturated, Self::TtlExpired, Self::NoEndpoints, Self::ContextCancelled, Self::ShuttingDown];
}

/// The bound of a queue that left no room for a request. Each variant holds the value of the bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueueBound {
    /// The number of requests in one priority band.
    BandRequests(u64),
    /// The body bytes of the requests in one priority band.
    BandBytes(u64),
    /// The number of requests in all bands together.
    Requests(u64),
    /// The body bytes of the requests in all bands together.
    Bytes(u64),
}

impl fmt::Display for QueueBound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BandRequests(bound) => write!(f, "maxRequests of the priority band is {bound}"),
            Self::BandBytes(bound) => write!(f, "maxBytes of the priority band is {bound}"),
            Self::Requests(bound) => write!(f, "flowControl.maxRequests is {bound}"),
            Self::Bytes(bound) => write!(f, "flowControl.maxBytes is {bound}"),
        }
    }
}

/// A request that was not released.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.message())]
pub struct Rejection {
    /// The final state of the request; never [`Outcome::Dispatched`].
    pub outcome: Outcome,
    /// True if the pool had no endpoint at the time of the decision.
    pub pool_empty: bool,
    /// The bound that left no room for the request, if a bound was the reason.
    pub bound: Option<QueueBound>,
}

impl Rejection {
    /// Makes the rejection of a request that no bound kept out.
    pub fn new(outcome: Outcome, pool_empty: bool) -> Self {
        Self { outcome, pool_empty, bound: None }
    }

    /// Makes the rejection of a request that `bound` kept out.
    pub fn full(bound: QueueBound, pool_empty: bool) -> Self {
        let outcome = if pool_empty { Outcome::RejectedNoEndpoints } else { Outcome::RejectedCapacity };
        Self { outcome, pool_empty, bound: Some(bound) }
    }

    /// The text for the client.
    pub fn message(self) -> String {
        let text = match (self.outcome, self.pool_empty) {
            (Outcome::RejectedCapacity, _) => "request rejected pre-queue: queue at capacity",
            (Outcome::RejectedNoEndpoints, _) => {
                "request rejected pre-queue: no endpoints available, and the queue is at capacity"
            }
            (Outcome::EvictedTtl, false) => "request timed out in queue: request TTL expired",
            (Outcome::EvictedTtl, true) | (Outcome::EvictedNoEndpoints, _) => {
                "request timed out in queue: no endpoints available: request TTL expired"
            }
            (Outcome::EvictedContextCancelled, _) => "client disconnected while the request was in queue",
            (Outcome::RejectedOther, _) => "request rejected pre-queue: flow controller shutting down",
            (Outcome::EvictedOther | Outcome::Dispatched, _) => {
                "request ended in queue: flow controller shutting down"
            }
        };
        self.bound.map_or_else(|| text.to_owned(), |bound| format!("{text}: {bound}"))
    }

    /// The reason that the client is told.
    pub fn drop_reason(self) -> DropReason {
        match (self.outcome, self.pool_empty) {
            (Outcome::RejectedCapacity, _) => DropReason::Saturated,
            (Outcome::EvictedTtl, false) => DropReason::TtlExpired,
            (Outcome::RejectedNoEndpoints | Outcome::EvictedNoEndpoints, _) | (Outcome::EvictedTtl, true) => {
                DropReason::NoEndpoints
            }
            (Outcome::EvictedContextCancelled, _) => DropReason::ContextCancelled,
            (Outcome::RejectedOther | Outcome::EvictedOther | Outcome::Dispatched, _) => {
                DropReason::ShuttingDown
            }
        }
    }
}

/// A decision of the gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GateDecision {
    /// The request may be scheduled. It counts as in flight until [`super::Gate::complete`].
    Release {
        /// The request that may be scheduled.
        ticket: Ticket,
        /// The time that the request spent in the queue.
        waited: Duration,
    },
    /// The request will not be served.
    Reject {
        /// The request that will not be served.
        ticket: Ticket,
        /// Why the request will not be served.
        rejection: Rejection,
        /// The time that the request spent in the queue.
        waited: Duration,
    },
    /// The request is being served and should be stopped, to make room for a more important one.
    Revoke {
        /// The running request that should be stopped.
        ticket: Ticket,
        /// The priority of the band that needs the room.
        demand: i32,
    },
    /// A request that was told to stop has ended.
    RevocationEnded {
        /// False if the request did not end in time and the gate stopped waiting for its end.
        confirmed: bool,
        /// The time since the decision to stop the request.
        took: Duration,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expired_wait_is_overload_unless_the_pool_is_empty() {
        let expired = |pool_empty| Rejection::new(Outcome::EvictedTtl, pool_empty);
        assert_eq!(expired(false).drop_reason(), DropReason::TtlExpired);
        assert_eq!(expired(true).drop_reason(), DropReason::NoEndpoints);
        assert!(expired(true).to_string().contains("no endpoints available"));
    }

    #[test]
    fn the_message_names_the_bound_and_its_value() {
        let text = Rejection::full(QueueBound::BandRequests(5), false).to_string();
        assert_eq!(
            text,
            "request rejected pre-queue: queue at capacity: maxRequests of the priority band is 5"
        );
        let text = Rejection::full(QueueBound::Bytes(7), true).to_string();
        assert!(text.ends_with("flowControl.maxBytes is 7") && text.contains("no endpoints"), "{text}");
    }

    #[test]
    fn a_wait_that_ended_is_not_called_evicted() {
        for outcome in Outcome::ALL {
            for pool_empty in [false, true] {
                let text = Rejection::new(outcome, pool_empty).to_string();
                assert!(!text.contains("evicted"), "{text}");
            }
        }
    }

    #[test]
    fn labels_of_outcomes_are_distinct() {
        let labels: std::collections::BTreeSet<_> = Outcome::ALL.iter().map(|o| o.label()).collect();
        assert_eq!(labels.len(), Outcome::ALL.len());
        for (place, outcome) in Outcome::ALL.into_iter().enumerate() {
            assert_eq!(outcome as usize, place, "the list is in the order of the type");
        }
    }
}
