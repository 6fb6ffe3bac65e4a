//! The bounded map from a request's labels to its series.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arc_swap::ArcSwap;
use hashbrown::{Equivalent, HashSet};
use parking_lot::Mutex;
use prometheus::IntCounter;

use super::cardinality::{Limiter, OTHER};
use super::request::LabelSet;

/// Distinct label sets with a fairness id of their own. Every set is some 200 lines of the metrics page, so this bounds the page to tens of megabytes.
const SETS: usize = 4096;

/// Further sets, whose fairness id is folded, once there are [`SETS`].
const FOLDED_SETS: usize = 1024;

/// What a request's series are labelled with, as they come; bounds are applied inside.
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

impl Equivalent<Arc<LabelSet>> for RequestLabels<'_> {
    fn equivalent(&self, set: &Arc<LabelSet>) -> bool {
        *self == set.key()
    }
}

impl Hash for LabelSet {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.key().hash(state);
    }
}

impl PartialEq for LabelSet {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for LabelSet {}

/// Label sets by value. A set that exists is found with one hash and no lock.
#[derive(Debug)]
pub(super) struct LabelSets {
    sets: ArcSwap<HashSet<Arc<LabelSet>>>,
    writer: Mutex<()>,
    models: Arc<Limiter>,
    fairness: Arc<Limiter>,
    folded: IntCounter,
    cap: usize,
}

impl LabelSets {
    /// Sets whose models and fairness ids these limiters bound. `folded` counts requests whose set was folded for lack of room.
    pub(super) fn new(models: Arc<Limiter>, fairness: Arc<Limiter>, folded: IntCounter) -> Self {
        Self { sets: ArcSwap::default(), writer: Mutex::new(()), models, fairness, folded, cap: SETS }
    }

    /// The set for `labels`; `make` builds one that is new.
    pub(super) fn get(
        &self,
        labels: RequestLabels<'_>,
        make: impl Fn(RequestLabels<'_>) -> LabelSet,
    ) -> Arc<LabelSet> {
        if let Some(set) = self.sets.load().get(&labels) {
            return Arc::clone(set);
        }
        let admitted = RequestLabels {
            model: self.models.admit(labels.model),
            target_model: self.models.admit(labels.target_model),
            fairness_id: self.fairness.admit(labels.fairness_id),
            priority: labels.priority,
        };
        let without_fairness = RequestLabels { fairness_id: OTHER, ..admitted };
        // The last resort is bounded by the number of priorities, which only objectives can raise.
        let last_resort = RequestLabels {
            model: OTHER,
            target_model: OTHER,
            fairness_id: OTHER,
            priority: labels.priority,
        };
        self.find_or_insert(admitted, self.cap, &make)
            .or_else(|| {
                self.folded.inc();
                self.find_or_insert(without_fairness, self.cap + FOLDED_SETS, &make)
            })
            .or_else(|| self.find_or_insert(last_resort, usize::MAX, &make))
            .unwrap_or_else(|| Arc::new(make(last_resort)))
    }

    fn find_or_insert(
        &self,
        labels: RequestLabels<'_>,
        cap: usize,
        make: impl Fn(RequestLabels<'_>) -> LabelSet,
    ) -> Option<Arc<LabelSet>> {
        if let Some(set) = self.sets.load().get(&labels) {
            return Some(Arc::clone(set));
        }
        if self.sets.load().len() >= cap {
            return None;
        }
        let writer = self.writer.lock();
        let sets = self.sets.load();
        if let Some(set) = sets.get(&labels) {
            return Some(Arc::clone(set));
        }
        if sets.len() >= cap {
            return None;
        }
        let set = Arc::new(make(labels));
        let mut next = HashSet::clone(&sets);
        next.insert(Arc::clone(&set));
        self.sets.store(Arc::new(next));
        drop(writer);
        Some(set)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Metrics;

    #[test]
    fn a_full_map_gives_up_fairness_ids_before_models() {
        let metrics = Metrics::new();
        let counter = |name| IntCounter::new(name, "test").unwrap();
        let models = Arc::new(Limiter::new(9, counter("models")));
        let mut sets =
            LabelSets::new(models, Arc::new(Limiter::new(9, counter("fairness"))), counter("sets"));
        sets.cap = 2;
        let get = |model, fairness_id| {
            let labels = RequestLabels { model, target_model: model, fairness_id, priority: 0 };
            let set = sets.get(labels, |labels| metrics.label_set(labels));
            (set.key().model.to_owned(), set.key().fairness_id.to_owned())
        };
        assert_eq!(get("a", "x"), ("a".into(), "x".into()));
        assert_eq!(get("a", "y"), ("a".into(), "y".into()));
        assert_eq!(get("a", "z"), ("a".into(), "other".into()));
        assert_eq!(get("b", "x"), ("b".into(), "other".into()));
        assert_eq!(get("a", "x"), ("a".into(), "x".into()));
        assert_eq!(sets.folded.get(), 2);
    }

    #[test]
    fn the_same_labels_share_one_set() {
        let metrics = Metrics::new();
        let labels = RequestLabels { model: "m", target_model: "t", fairness_id: "f", priority: -1 };
        let (first, second) = (metrics.request(labels), metrics.request(labels));
        first.requested(1);
        second.requested(1);
        assert!(metrics.encode(super::super::Format::Text).contains(
            "llm_d_epp_request_total{fairness_id=\"f\",model_name=\"m\",priority=\"-1\",target_model_name=\"t\"} 2\n"
        ));
    }
}
