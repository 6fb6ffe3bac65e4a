//! How a request leaves the queue, and what the client is told if it was not released.

use std::time::Duration;

use super::Ticket;

/// The final state of a request, as the `outcome` label of the metrics names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Outcome {
    /// Released to be scheduled.
    Dispatched,
    /// Not queued: a bound was reached while the pool had endpoints.
    RejectedCapacity,
    /// Not queued: a bound was reached while the pool had none.
    RejectedNoEndpoints,
    /// Not queued for another reason, such as shutdown.
    RejectedOther,
    /// Waited for too long.
    EvictedTtl,
    /// Waited for too long for the pool to get an endpoint.
    EvictedNoEndpoints,
    /// The client left while the request waited.
    EvictedContextCancelled,
    /// Taken out of the queue for another reason, such as shutdown.
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

    /// Label value.
    pub fn label(self) -> &'static str {
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

/// What kind of trouble a refused request met.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Trouble {
    /// Too much load (`ResourceExhausted`).
    Overload,
    /// Nobody can serve now (`ServiceUnavailable`).
    Unavailable,
}

/// A request that was not released.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.message())]
pub struct Rejection {
    /// Final state; never [`Outcome::Dispatched`].
    pub outcome: Outcome,
    /// The pool had no endpoint when this was decided.
    pub pool_empty: bool,
}

impl Rejection {
    /// Text for the client.
    pub fn message(self) -> &'static str {
        match (self.outcome, self.pool_empty) {
            (Outcome::RejectedCapacity, _) => "request rejected pre-queue: queue at capacity",
            (Outcome::RejectedNoEndpoints, _) => {
                "no endpoints available: request rejected pre-queue: no endpoints available"
            }
            (Outcome::EvictedTtl, false) => {
                "request timed out in queue: request evicted from queue: request TTL expired"
            }
            (Outcome::EvictedTtl, true) => {
                "request timed out in queue and no endpoints are available: request evicted from queue: request TTL expired"
            }
            (Outcome::EvictedNoEndpoints, _) => {
                "request timed out in queue and no endpoints are available: request evicted from queue: request TTL expired: no endpoints available"
            }
            (Outcome::EvictedContextCancelled, _) => {
                "client disconnected: request evicted from queue: request context cancelled: context canceled"
            }
            (Outcome::RejectedOther, _) => {
                "flow controller shutting down: request rejected pre-queue: flow controller is not running"
            }
            (Outcome::EvictedOther | Outcome::Dispatched, _) => {
                "flow controller shutting down: request evicted from queue: flow controller is not running"
            }
        }
    }

    /// Value of `x-llm-d-request-dropped-reason`.
    pub fn dropped_reason(self) -> &'static str {
        match (self.outcome, self.pool_empty) {
            (Outcome::RejectedCapacity, _) => "rejected-saturated",
            (Outcome::EvictedTtl, false) => "rejected-ttl-expired",
            (Outcome::RejectedNoEndpoints | Outcome::EvictedNoEndpoints, _) | (Outcome::EvictedTtl, true) => {
                "rejected-no-endpoints"
            }
            (Outcome::EvictedContextCancelled, _) => "rejected-context-cancelled",
            (Outcome::RejectedOther | Outcome::EvictedOther | Outcome::Dispatched, _) => {
                "rejected-shutting-down"
            }
        }
    }

    /// Kind of trouble.
    pub fn trouble(self) -> Trouble {
        match (self.outcome, self.pool_empty) {
            (Outcome::RejectedCapacity, _) | (Outcome::EvictedTtl, false) => Trouble::Overload,
            _ => Trouble::Unavailable,
        }
    }
}

/// What the gate decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// The request may be scheduled. It counts as in flight until [`super::Gate::complete`].
    Release {
        /// The request.
        ticket: Ticket,
        /// Time in the queue.
        waited: Duration,
    },
    /// The request will not be served.
    Reject {
        /// The request.
        ticket: Ticket,
        /// Why.
        rejection: Rejection,
        /// Time in the queue.
        waited: Duration,
    },
    /// The request is being served and should be stopped, to make room for a more important one.
    Revoke {
        /// The request.
        ticket: Ticket,
        /// Priority of the band that needs the room.
        demand: i32,
    },
    /// A request that was told to stop has ended.
    RevocationEnded {
        /// False if it did not end in time and is not waited for any more.
        confirmed: bool,
        /// Time since the decision.
        took: Duration,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expired_wait_is_overload_unless_the_pool_is_empty() {
        let expired = |pool_empty| Rejection { outcome: Outcome::EvictedTtl, pool_empty };
        assert_eq!(expired(false).trouble(), Trouble::Overload);
        assert_eq!(expired(false).dropped_reason(), "rejected-ttl-expired");
        assert_eq!(expired(true).trouble(), Trouble::Unavailable);
        assert_eq!(expired(true).dropped_reason(), "rejected-no-endpoints");
        assert!(expired(true).to_string().contains("no endpoints are available"));
    }

    #[test]
    fn labels_of_outcomes_are_distinct() {
        let labels: std::collections::BTreeSet<_> = Outcome::ALL.iter().map(|o| o.label()).collect();
        assert_eq!(labels.len(), Outcome::ALL.len());
    }
}
