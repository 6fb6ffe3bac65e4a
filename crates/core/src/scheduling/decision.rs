//! What the scheduler decided.

use std::sync::Arc;

use smallvec::SmallVec;

use crate::pool::Endpoint;

/// What one profile chose.
#[derive(Clone, Debug)]
pub struct ProfileResult {
    /// Chosen endpoints, best first; never empty. The first serves, the others are fallbacks.
    pub targets: SmallVec<[Arc<Endpoint>; 1]>,
    /// Slot and weighted total of every endpoint that survived the filters, in slot order.
    pub scored: Vec<(u32, f64)>,
}

/// The scheduler's answer.
#[derive(Clone, Debug)]
pub struct Decision {
    /// Results by profile index; `None` for a profile that did not run or found nothing.
    pub profiles: SmallVec<[Option<ProfileResult>; 1]>,
    /// Index of the profile whose targets answer the request.
    pub primary: usize,
}

impl Decision {
    /// Targets of the primary profile, best first.
    pub fn targets(&self) -> &[Arc<Endpoint>] {
        self.primary_result().map(|result| result.targets.as_slice()).unwrap_or_default()
    }

    /// The primary profile's result.
    pub fn primary_result(&self) -> Option<&ProfileResult> {
        self.profiles.get(self.primary)?.as_ref()
    }
}
