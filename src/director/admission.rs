//! The step that may hold a request.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

use crate::pool::{Pool, Subset};
use crate::request::Headers;

use super::Refusal;

/// What admission may know of a request.
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
    /// When the request headers came.
    pub received: Instant,
    /// Endpoints that may serve; `None` for the whole pool.
    pub subset: Option<&'a Subset>,
    /// The pool.
    pub pool: &'a Arc<Pool>,
}

/// A place that an admitted request holds until its stream ends.
pub type Permit = Option<Box<dyn Send + Sync>>;

/// Admits requests, now or later. Dropping the future withdraws the request.
pub trait Admission: Send + Sync {
    /// Resolves when the request may be scheduled.
    fn admit<'a>(
        &'a self,
        call: AdmissionCall<'a>,
    ) -> Pin<Box<dyn Future<Output = Result<Permit, Refusal>> + Send + 'a>>;
}
