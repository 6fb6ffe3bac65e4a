//! The histograms of one combination of label values.

use std::sync::{Arc, OnceLock};

use prometheus::Histogram;

use super::family::{Family, Twin, Vector};
use super::labels::Labels;
use super::request_families::RequestFamilies;

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
