//! Label values of requests, and the histograms of one combination of them.

use std::sync::{Arc, OnceLock};

use prometheus::Histogram;

use super::RequestLabels;
use super::cardinality::OTHER;
use super::family::{Family, Twin, Vector};
use super::request::RequestFamilies;

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

    /// What everything beyond all bounds becomes, the priority included.
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

/// Histograms of one combination of label values, as far as they were used.
pub(super) struct HistogramSet {
    pub(super) families: Arc<RequestFamilies>,
    labels: Labels,
    pub(super) duration: OnceLock<Twin<Histogram>>,
    pub(super) request_size: OnceLock<Twin<Histogram>>,
    pub(super) response_size: OnceLock<Twin<Histogram>>,
    pub(super) input: OnceLock<Twin<Histogram>>,
    pub(super) output: OnceLock<Twin<Histogram>>,
    pub(super) cached: OnceLock<Twin<Histogram>>,
    pub(super) ntpot: OnceLock<Twin<Histogram>>,
    /// Without and with streaming.
    pub(super) ttft: [OnceLock<Twin<Histogram>>; 2],
    pub(super) tpot: OnceLock<Twin<Histogram>>,
    pub(super) itl: OnceLock<Twin<Histogram>>,
}

impl HistogramSet {
    pub(super) fn new(families: Arc<RequestFamilies>, labels: Labels) -> Self {
        Self {
            families,
            labels,
            duration: OnceLock::new(),
            request_size: OnceLock::new(),
            response_size: OnceLock::new(),
            input: OnceLock::new(),
            output: OnceLock::new(),
            cached: OnceLock::new(),
            ntpot: OnceLock::new(),
            ttft: [OnceLock::new(), OnceLock::new()],
            tpot: OnceLock::new(),
            itl: OnceLock::new(),
        }
    }

    /// Takes the series off the page. `shared` tells whether another set still has the legacy ones.
    pub(super) fn remove(&self, shared: bool) {
        let families = &*self.families;
        let values = self.labels.values();
        let four = [
            &families.duration,
            &families.request_size,
            &families.response_size,
            &families.input,
            &families.output,
            &families.cached,
            &families.ntpot,
            &families.tpot,
            &families.itl,
        ];
        for family in four {
            family.remove_current(values);
            if !shared {
                family.remove_legacy(values);
            }
        }
        for streaming in ["false", "true"] {
            families.ttft.remove_current(self.labels.values_and(streaming));
        }
    }

    pub(super) fn child<'s, V: Vector>(
        &self,
        cell: &'s OnceLock<Twin<V::Child>>,
        family: &Family<V, 4>,
    ) -> &'s Twin<V::Child> {
        cell.get_or_init(|| family.child(self.labels.values()))
    }

    pub(super) fn ttft(&self, streaming: bool) -> &Twin<Histogram> {
        let text = if streaming { "true" } else { "false" };
        let [whole, streamed] = &self.ttft;
        let cell = if streaming { streamed } else { whole };
        cell.get_or_init(|| self.families.ttft.child(self.labels.values_and(text)))
    }
}

impl std::fmt::Debug for HistogramSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.labels.fmt(f)
    }
}
