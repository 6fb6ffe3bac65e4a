//! The step that may hold a request.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use crate::pool::{Pool, Subset};
use crate::request::{Headers, Usage};

use super::Refusal;

/// The facts about a request that admission may use.
#[derive(Clone, Copy, Debug)]
pub struct AdmissionCall<'a> {
    /// Request headers, for limits that a client may set.
    pub headers: &'a Headers,
    /// Priority of the objective.
    pub priority: i32,
    /// Fairness id.
    pub fairness_id: &'a str,
    /// Model as asked for.
    pub model: &'a str,
    /// Target model.
    pub target_model: &'a str,
    /// Bytes of the body.
    pub size: u64,
    /// Exact tokens of the prompts, if they are known already.
    pub tokens: Option<u64>,
    /// The time at which the request headers came.
    pub received: Instant,
    /// Endpoints that may serve; `None` for the whole pool.
    pub subset: Option<&'a Subset>,
    /// The pool.
    pub pool: &'a Arc<Pool>,
}

/// A place that an admitted request holds until its stream ends.
pub trait Place: Send + Sync {
    /// The request now counts in the load of an endpoint.
    fn placed(&mut self) {}

    /// The request now takes up less of its endpoint, though it goes on.
    fn eased(&mut self) {}

    /// The response has ended, at this cost.
    fn served(&mut self, _usage: &Usage) {}

    /// Ready if the request should be stopped to make room for a more important one.
    fn poll_revoked(&mut self, _cx: &mut Context<'_>) -> Poll<()> {
        Poll::Pending
    }
}

/// The place of an admitted request; `None` where nobody counts.
pub type AdmissionPlace = Option<Box<dyn Place>>;

/// What a request would meet if it came now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outlook {
    /// It would wait.
    pub would_wait: bool,
    /// Requests that would go before it.
    pub ahead: u64,
    /// It would be refused.
    pub refusal: Option<Refusal>,
}

/// Admits requests, now or later. Dropping the future withdraws the request.
pub trait Admission: Send + Sync {
    /// Number of held requests that would go before a new request of this priority; `None` if this admission never
    /// holds
    /// any.
    fn ahead(&self, _priority: i32) -> Option<u64> {
        None
    }

    /// What this request would meet now. Nothing is booked.
    fn outlook(&self, _call: &AdmissionCall<'_>) -> Outlook {
        Outlook::default()
    }

    /// Resolves when the request may be scheduled.
    fn admit<'a>(
        &'a self,
        call: AdmissionCall<'a>,
    ) -> Pin<Box<dyn Future<Output = Result<AdmissionPlace, Refusal>> + Send + 'a>>;
}
