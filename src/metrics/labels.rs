//! Label values of requests: as they come, and as series have them.

use super::cardinality::OTHER;

/// The labels of a request's series, as they come; bounds are applied inside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RequestLabels<'l> {
    /// Model the client asked for; empty if unknown.
    pub model: &'l str,
    /// Model it was rewritten to; empty if unknown.
    pub target_model: &'l str,
    /// Fairness id, with its default filled in.
    pub fairness_id: &'l str,
    /// Priority of the objective; 0 without one.
    pub priority: i32,
}

/// Label values of a set.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Labels {
    pub(super) model: Box<str>,
    pub(super) target_model: Box<str>,
    pub(super) fairness_id: Box<str>,
    pub(super) priority: i32,
    pub(super) priority_text: Box<str>,
}

impl Labels {
    pub(super) fn new(labels: RequestLabels<'_>) -> Self {
        Self {
            model: labels.model.into(),
            target_model: labels.target_model.into(),
            fairness_id: labels.fairness_id.into(),
            priority: labels.priority,
            priority_text: labels.priority.to_string().into(),
        }
    }

    /// The labels of all requests beyond the bounds, the priority included.
    pub(super) fn other() -> Self {
        let other = || Box::<str>::from(OTHER);
        Self {
            model: other(),
            target_model: other(),
            fairness_id: other(),
            priority: 0,
            priority_text: other(),
        }
    }

    pub(super) fn key(&self) -> RequestLabels<'_> {
        RequestLabels {
            model: &self.model,
            target_model: &self.target_model,
            fairness_id: &self.fairness_id,
            priority: self.priority,
        }
    }

    pub(super) fn values(&self) -> [&str; 4] {
        [&self.model, &self.target_model, &self.fairness_id, &self.priority_text]
    }

    pub(super) fn values_and<'s>(&'s self, last: &'s str) -> [&'s str; 5] {
        let [model, target, fairness, priority] = self.values();
        [model, target, fairness, priority, last]
    }

    /// True if a legacy series, which has no tenant, belongs to both.
    pub(super) fn shares_legacy(&self, other: &Self) -> bool {
        (&self.model, &self.target_model) == (&other.model, &other.target_model)
    }
}
