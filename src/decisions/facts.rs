//! What the steps of a request tell its record.

use std::sync::Arc;
use std::time::{Duration, Instant};

use smallvec::SmallVec;

use crate::pool::Endpoint;

/// What is known of a request before it is decided.
#[derive(Clone, Debug, Default)]
pub struct Known {
    /// Request id.
    pub id: String,
    /// Model as asked for.
    pub model: String,
    /// Model after rewriting.
    pub target_model: String,
    /// Fairness id.
    pub fairness_id: String,
    /// Priority.
    pub priority: i32,
    /// Tokens of the prompts.
    pub tokens: u64,
    /// The tokens were counted, not estimated.
    pub exact: bool,
}

impl Known {
    pub(super) fn bytes(&self) -> usize {
        self.id.capacity()
            + self.model.capacity()
            + self.target_model.capacity()
            + self.fairness_id.capacity()
    }
}

/// What a request waited for before it was decided.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Waited {
    /// In the queues of flow control.
    pub queue: Duration,
    /// It did not go on at once, but waits since then: there was no room, or others went first.
    pub held: Option<Instant>,
    /// For what plugins find out before scheduling, after its turn had come.
    pub preparation: Duration,
}

impl Waited {
    /// The same at `now`: a request that still waits has waited until then.
    #[must_use]
    pub fn until(self, now: Instant) -> Self {
        match self.held {
            Some(since) if self.queue.is_zero() => {
                Self { queue: now.saturating_duration_since(since), ..self }
            }
            _ => self,
        }
    }
}

/// How a request was decided.
#[derive(Clone, Debug)]
pub enum Verdict {
    /// It was forwarded.
    Routed {
        /// Endpoints in the order in which the proxy tries them.
        targets: SmallVec<[Arc<Endpoint>; 1]>,
        /// Index of the profile that answers.
        primary: usize,
        /// Header changes of plugins: names and values, cut.
        edits: Vec<(String, String)>,
    },
    /// It was refused.
    Refused {
        /// Label of the reason.
        reason: &'static str,
        /// HTTP status.
        status: u16,
        /// Text of the refusal; empty where it may quote the client.
        message: String,
    },
    /// The client went away before it was decided.
    Abandoned,
}

impl Verdict {
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Routed { edits, targets, .. } => {
                targets.len() * 8
                    + edits
                        .iter()
                        .map(|(name, value)| 2 * size_of::<String>() + name.capacity() + value.capacity())
                        .sum::<usize>()
            }
            Self::Refused { message, .. } => message.capacity(),
            Self::Abandoned => 0,
        }
    }
}
