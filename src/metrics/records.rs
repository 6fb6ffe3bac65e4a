//! Series of the records of decisions.

use prometheus::{Gauge, GaugeVec, IntCounter, IntCounterVec, Registry};

use super::family::{Definition, Family};

const RECORDS: Definition<0> =
    Definition::new("pointsman_decision_records", "Records of decisions that are kept.", []);

const BYTES: Definition<0> =
    Definition::new("pointsman_decision_record_bytes", "Memory of the records of decisions, in bytes.", []);

const LIMIT: Definition<0> = Definition::new(
    "pointsman_decision_record_limit_bytes",
    "Memory that the records of decisions may take, in bytes; 0 if none are kept.",
    [],
);

const ONE_IN: Definition<0> = Definition::new(
    "pointsman_decision_records_one_in",
    "Of the requests that are noted one in this many keeps its record, beside refused and slow ones, so that the records hold a minute.",
    [],
);

const PASSED_OVER: Definition<0> = Definition::new(
    "pointsman_decision_records_passed_over_total",
    "Requests that were not noted, because more than 1,000 came in a second after a burst of 10,000.",
    [],
);

const GENERATION: Definition<0> = Definition::new(
    "pointsman_config_generation",
    "Number of the running configuration: 1 at the start, and one more with each reload that was taken over.",
    [],
);

/// The series of the running configuration.
pub(super) fn config_generation(registry: &Registry) -> Gauge {
    let gauge = Family::<GaugeVec, 0>::register(GENERATION, registry).child([]).into_current();
    gauge.set(1.0);
    gauge
}

/// Handles of these series. Cheap to clone.
#[derive(Clone, Debug)]
pub struct RecordMetrics {
    records: Gauge,
    bytes: Gauge,
    limit: Gauge,
    one_in: Gauge,
    passed_over: IntCounter,
}

impl RecordMetrics {
    pub(super) fn register(registry: &Registry) -> Self {
        let gauge =
            |definition| Family::<GaugeVec, 0>::register(definition, registry).child([]).into_current();
        let passed_over =
            Family::<IntCounterVec, 0>::register(PASSED_OVER, registry).child([]).into_current();
        Self {
            records: gauge(RECORDS),
            bytes: gauge(BYTES),
            limit: gauge(LIMIT),
            one_in: gauge(ONE_IN),
            passed_over,
        }
    }

    /// Sets how much the ring may hold.
    pub fn bound(&self, bytes: usize) {
        self.limit.set(bytes as f64);
        self.one_in.set(1.0);
    }

    /// A request is not noted.
    pub fn passed_over(&self) {
        self.passed_over.inc();
    }

    /// Sets how much the ring holds.
    pub fn holds(&self, records: usize, bytes: usize, one_in: u64) {
        self.records.set(records as f64);
        self.bytes.set(bytes as f64);
        self.one_in.set(one_in as f64);
    }
}
