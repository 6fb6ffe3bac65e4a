//! The profile that a session is bound by.

use std::sync::Arc;

use crate::scheduling::{Decision, ProfileResult};

/// The profile whose choice counts.
#[derive(Debug)]
pub(super) struct Profile {
    /// Empty for the primary one.
    pub(super) name: String,
}

impl Profile {
    /// Its result, if it ran.
    pub(super) fn result<'d>(&self, decision: &'d Decision, names: &[Arc<str>]) -> Option<&'d ProfileResult> {
        if self.name.is_empty() {
            return decision.primary_result();
        }
        let index = names.iter().position(|name| **name == *self.name)?;
        decision.profiles.get(index)?.as_ref()
    }
}
