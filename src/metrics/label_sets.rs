//! The bounded map from a request's labels to its series.

use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use arc_swap::ArcSwap;
use hashbrown::{Equivalent, HashMap, HashSet};
use parking_lot::Mutex;
use prometheus::IntCounter;

use super::cardinality::{Limiter, OTHER};
use super::histogram_set::HistogramSet;
use super::labels::{Labels, RequestLabels};
use super::request::LabelSet;
use super::request_families::RequestFamilies;

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

/// How many sets there may be.
#[derive(Clone, Copy, Debug)]
pub(super) struct SetBounds {
    /// Label sets with a fairness id of their own.
    pub(super) sets: usize,
    /// Further label sets, whose fairness id is folded.
    pub(super) folded: usize,
    /// Sets of histograms; half of them may have a fairness id of their own.
    pub(super) histograms: usize,
}

/// Label sets by value. A set that exists is found with one hash and no lock.
#[derive(Debug)]
pub(super) struct LabelSets {
    pub(super) sets: ArcSwap<HashSet<Arc<LabelSet>>>,
    pub(super) writer: Mutex<Written>,
    pub(super) models: Arc<Limiter>,
    pub(super) fairness: Arc<Limiter>,
    families: Arc<RequestFamilies>,
    folded: IntCounter,
    folded_histograms: IntCounter,
    pub(super) bounds: SetBounds,
    /// For what has no room at all, the priority included.
    pub(super) last: Arc<LabelSet>,
    pub(super) crowded: AtomicBool,
}

/// The part that changes under the lock only.
#[derive(Debug, Default)]
pub(super) struct Written {
    pub(super) histograms: HashMap<Labels, Arc<HistogramSet>>,
    /// Sets that lost their place. Their series stay until the last request that has them ends.
    pub(super) retired: Vec<Arc<LabelSet>>,
}

impl LabelSets {
    /// Sets whose models and fairness ids these limiters bound. `folded` counts requests whose set was folded for lack
    /// of room, `folded_histograms` sets that have no histograms of their own.
    pub(super) fn new(
        families: Arc<RequestFamilies>,
        bounds: SetBounds,
        models: Arc<Limiter>,
        fairness: Arc<Limiter>,
        folded: IntCounter,
        folded_histograms: IntCounter,
    ) -> Self {
        let histograms = Arc::new(HistogramSet::new(Arc::clone(&families), Labels::other()));
        let last = Arc::new(LabelSet::new(Arc::clone(&families), Labels::other(), histograms));
        Self {
            sets: ArcSwap::default(),
            writer: Mutex::default(),
            models,
            fairness,
            families,
            folded,
            folded_histograms,
            bounds,
            last,
            crowded: AtomicBool::new(false),
        }
    }

    /// The set for `labels`.
    pub(super) fn get(&self, labels: RequestLabels<'_>) -> Arc<LabelSet> {
        if let Some(set) = self.sets.load().get(&labels) {
            set.uses.fetch_add(1, Relaxed);
            return Arc::clone(set);
        }
        let admitted = RequestLabels {
            model: self.models.admit(labels.model),
            target_model: self.models.admit(labels.target_model),
            fairness_id: self.fairness.admit(labels.fairness_id),
            priority: labels.priority,
        };
        let without_fairness = RequestLabels { fairness_id: OTHER, ..admitted };
        let SetBounds { sets, folded, .. } = self.bounds;
        let found = self.find_or_insert(admitted, sets).or_else(|| {
            self.folded.inc();
            self.crowded.store(true, Relaxed);
            self.find_or_insert(without_fairness, sets + folded)
        });
        let set = found.unwrap_or_else(|| Arc::clone(&self.last));
        set.uses.fetch_add(1, Relaxed);
        set
    }

    fn find_or_insert(&self, labels: RequestLabels<'_>, cap: usize) -> Option<Arc<LabelSet>> {
        if let Some(set) = self.sets.load().get(&labels) {
            return Some(Arc::clone(set));
        }
        if self.sets.load().len() >= cap {
            return None;
        }
        let mut writer = self.writer.lock();
        let sets = self.sets.load();
        if let Some(set) = sets.get(&labels) {
            return Some(Arc::clone(set));
        }
        if sets.len() + writer.retired.len() >= cap {
            return None;
        }
        let histograms = self.histograms(&mut writer, labels).unwrap_or_else(|| {
            self.folded_histograms.inc();
            self.last.histograms()
        });
        let set = Arc::new(LabelSet::new(Arc::clone(&self.families), Labels::new(labels), histograms));
        let mut next = HashSet::clone(&sets);
        next.insert(Arc::clone(&set));
        self.sets.store(Arc::new(next));
        drop(writer);
        Some(set)
    }

    /// Histograms for a set: with its fairness id while there is much room, else shared by all tenants of the model, if
    /// there is room at all.
    pub(super) fn histograms(
        &self,
        writer: &mut Written,
        labels: RequestLabels<'_>,
    ) -> Option<Arc<HistogramSet>> {
        let bound = self.bounds.histograms;
        let shared = RequestLabels { fairness_id: OTHER, ..labels };
        for (labels, bound) in [(labels, bound / 2), (shared, bound)] {
            let labels = Labels::new(labels);
            if let Some(known) = writer.histograms.get(&labels) {
                return Some(Arc::clone(known));
            }
            if writer.histograms.len() < bound {
                let made = Arc::new(HistogramSet::new(Arc::clone(&self.families), labels.clone()));
                writer.histograms.insert(labels, Arc::clone(&made));
                return Some(made);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::{MetricBounds, Metrics};

    #[test]
    fn a_full_map_gives_up_fairness_ids_before_models() {
        let mut metrics = Metrics::new();
        let sets = metrics.label_sets();
        sets.bounds.sets = 2;
        let get = |model, fairness_id| {
            let labels = RequestLabels { model, target_model: model, fairness_id, priority: 0 };
            let set = sets.get(labels);
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

    #[test]
    fn series_of_a_priority_that_no_objective_has_go_once_nothing_uses_them() {
        let metrics = Metrics::bounded(MetricBounds::default());
        for priority in 1..=50 {
            metrics
                .request(RequestLabels { model: "m", target_model: "m", fairness_id: "f", priority })
                .requested(1);
        }
        let running = metrics
            .request(RequestLabels { model: "m", target_model: "m", fairness_id: "f", priority: 7 })
            .running_guard();
        let series = || {
            let page = metrics.encode(super::super::Format::Text);
            page.lines().filter(|line| line.starts_with("llm_d_epp_request_total{")).count()
        };
        assert_eq!(series(), 50);
        for _ in 0..12 {
            metrics.elect(&[0, 3]);
        }
        assert_eq!(series(), 2, "the objective's own, and that of a request that runs");
        drop(running);
        metrics.elect(&[0, 3]);
        metrics.elect(&[0, 3]);
        assert_eq!(series(), 1);
        let page = metrics.encode(super::super::Format::Text);
        assert!(!page.contains("priority=\"7\""), "{page}");
        // Legacy series have no tenant, and are shared by what is left.
        assert!(
            page.contains(
                "inference_objective_request_sizes_count{model_name=\"m\",target_model_name=\"m\"} "
            )
        );
    }
}
