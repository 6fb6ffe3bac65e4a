//! The bounds of the metrics page, and the share of each kind of series.

use super::cardinality::VALUES;
use super::label_sets::SetBounds;

/// Lines of all histograms of one set, the legacy ones included.
const HISTOGRAM_LINES: usize = 430;

/// Bounds of the metrics page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MetricBounds {
    /// Lines with a value.
    pub series: usize,
    /// Bytes.
    pub bytes: usize,
    /// Fairness ids with a label of their own.
    pub fairness_ids: usize,
}

impl Default for MetricBounds {
    fn default() -> Self {
        Self { series: 30_000, bytes: 10 << 20, fairness_ids: VALUES }
    }
}

impl MetricBounds {
    /// Two fifths go to histograms of requests, an eighth to their counters and gauges; see `docs/limits.md`.
    pub(super) fn sets(self) -> SetBounds {
        SetBounds {
            sets: self.series / 40,
            folded: self.series / 160,
            histograms: (self.series * 2 / 5 / HISTOGRAM_LINES).max(2),
        }
    }
}
