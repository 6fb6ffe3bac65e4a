//! The series of flow control, defined, and their families.

use std::sync::Arc;

use prometheus::{GaugeVec, HistogramVec, IntCounter, IntCounterVec, IntGaugeVec, Registry};

use super::buckets::{QUEUE_SECONDS, REVOCATION_SECONDS, SCHEDULING_SECONDS};
use super::cardinality::Limiter;
use super::family::{Definition, Family, LegacyLabels};
use crate::flow::Outcome;

/// Outcomes that have a cell of their own in a label set, by label value: those of flow control, and of a request that
/// is still waiting.
pub(super) const OUTCOMES: [&str; Outcome::ALL.len() + 1] = {
    let mut labels = [WAITING; Outcome::ALL.len() + 1];
    let mut place = 0;
    while place < Outcome::ALL.len() {
        labels[place] = Outcome::ALL[place].label();
        place += 1;
    }
    labels
};

/// The outcome of a request that is still waiting; it stands last in [`OUTCOMES`].
const WAITING: &str = "NotYetFinalized";

const POOL: &str = "inference_pool";
const PRIORITY: &str = "priority";
const FAIRNESS: &str = "fairness_id";
const MODEL: &str = "model_name";
const TARGET: &str = "target_model_name";
const OUTCOME: &str = "outcome";

const FLOW: [&str; 5] = [FAIRNESS, PRIORITY, POOL, MODEL, TARGET];
const FLOW_LEGACY: LegacyLabels =
    &[(FAIRNESS, FAIRNESS), (PRIORITY, PRIORITY), (POOL, POOL), (MODEL, MODEL), (TARGET, TARGET)];

const SIZE: Definition<5> = Definition::new(
    "llm_d_epp_flow_control_queue_size",
    "Requests that flow control holds, those about to be released at once included.",
    FLOW,
)
.legacy("inference_extension_flow_control_queue_size", FLOW_LEGACY);

const BYTES: Definition<5> = Definition::new(
    "llm_d_epp_flow_control_queue_bytes",
    "Bytes of the bodies of requests that flow control holds.",
    FLOW,
)
.legacy("inference_extension_flow_control_queue_bytes", FLOW_LEGACY);

const WAIT: Definition<6> = Definition::new(
    "llm_d_epp_flow_control_request_queue_duration_seconds",
    "Time from entering flow control to the outcome, in seconds.",
    [FAIRNESS, PRIORITY, OUTCOME, POOL, MODEL, TARGET],
)
.legacy(
    "inference_extension_flow_control_request_queue_duration_seconds",
    &[
        (FAIRNESS, FAIRNESS),
        (PRIORITY, PRIORITY),
        (OUTCOME, OUTCOME),
        (POOL, POOL),
        (MODEL, MODEL),
        (TARGET, TARGET),
    ],
)
.buckets(QUEUE_SECONDS);

const ENQUEUE: Definition<3> = Definition::new(
    "llm_d_epp_flow_control_request_enqueue_duration_seconds",
    "Time that putting a request into its queue took, in seconds.",
    [FAIRNESS, PRIORITY, OUTCOME],
)
.legacy(
    "inference_extension_flow_control_request_enqueue_duration_seconds",
    &[(FAIRNESS, FAIRNESS), (PRIORITY, PRIORITY), (OUTCOME, OUTCOME)],
)
.buckets(SCHEDULING_SECONDS);

const CYCLE: Definition<0> = Definition::new(
    "llm_d_epp_flow_control_dispatch_cycle_duration_seconds",
    "Time of one look at the queues, in seconds. There is none while nothing happens.",
    [],
)
.legacy("inference_extension_flow_control_dispatch_cycle_duration_seconds", &[])
.buckets(SCHEDULING_SECONDS);

const SATURATION: Definition<2> = Definition::new(
    "llm_d_epp_flow_control_pool_saturation",
    "How full the pool is by stage, 1 being full: the plain mean, not capped as for the decision.",
    [POOL, "stage"],
)
.legacy("inference_extension_flow_control_pool_saturation", &[(POOL, POOL), ("stage", "stage")]);

const STALE: Definition<1> = Definition::new(
    "llm_d_epp_flow_control_stale_endpoints",
    "Endpoints whose last reading was too old for the saturation detector.",
    ["detector"],
);

const BAND_REQUESTS: Definition<2> = Definition::new(
    "llm_d_epp_flow_control_capacity_utilization_requests",
    "Waiting requests of a priority band as a share of its limit.",
    [PRIORITY, POOL],
);

const BAND_BYTES: Definition<2> = Definition::new(
    "llm_d_epp_flow_control_capacity_utilization_bytes",
    "Waiting bytes of a priority band as a share of its limit.",
    [PRIORITY, POOL],
);

const GLOBAL_REQUESTS: Definition<1> = Definition::new(
    "llm_d_epp_flow_control_global_capacity_utilization_requests",
    "Waiting requests as a share of the limit for all bands; absent without one.",
    [POOL],
);

const GLOBAL_BYTES: Definition<1> = Definition::new(
    "llm_d_epp_flow_control_global_capacity_utilization_bytes",
    "Waiting bytes as a share of the limit for all bands; absent without one.",
    [POOL],
);

const REQUESTS: Definition<3> = Definition::new(
    "llm_d_epp_flow_control_requests_total",
    "Requests that left flow control, by outcome and by the priority they asked for.",
    [OUTCOME, PRIORITY, POOL],
);

const ISSUED: Definition<2> = Definition::new(
    "llm_d_epp_flow_control_revocations_issued_total",
    "Running requests that were told to stop, by the priority that needed the room.",
    [PRIORITY, POOL],
);

const REVOKED: Definition<2> = Definition::new(
    "llm_d_epp_flow_control_revocations_total",
    "Requests told to stop that ended (`confirmed`) or did not in time (`timed_out`).",
    [OUTCOME, POOL],
);

const TARGET_GAUGE: Definition<1> = Definition::new(
    "llm_d_epp_flow_control_reclaim_target",
    "Saturation that had to be won back at the last decision to stop requests.",
    [POOL],
);

const PENDING: Definition<1> = Definition::new(
    "llm_d_epp_flow_control_pending_reclaim",
    "Saturation that requests told to stop will give back.",
    [POOL],
);

const CONFIRMATION: Definition<1> = Definition::new(
    "llm_d_epp_flow_control_revocation_confirmation_seconds",
    "Time from telling a request to stop to its end, in seconds.",
    [POOL],
)
.buckets(REVOCATION_SECONDS);

const JAIN: Definition<0> = Definition::new(
    "llm_d_epp_program_aware_jains_fairness_index",
    "How evenly programs wait: 1 if all do alike, down to 1 over their number.",
    [],
);

const PROGRAM_WAIT: Definition<1> = Definition::new(
    "llm_d_epp_program_aware_avg_wait_time_milliseconds",
    "Mean wait of a program's requests, in milliseconds.",
    ["program_id"],
);

const PROGRAM_SERVICE: Definition<1> = Definition::new(
    "llm_d_epp_program_aware_attained_service_tokens",
    "Weighted tokens that a program got, decayed.",
    ["program_id"],
);

/// The families of this file.
pub(super) struct FlowFamilies {
    pub(super) size: Family<IntGaugeVec, 5>,
    pub(super) bytes: Family<IntGaugeVec, 5>,
    pub(super) wait: Family<HistogramVec, 6>,
    pub(super) enqueue: Family<HistogramVec, 3>,
    pub(super) cycle: Family<HistogramVec, 0>,
    pub(super) saturation: Family<GaugeVec, 2>,
    pub(super) stale: Family<IntGaugeVec, 1>,
    pub(super) band: [Family<GaugeVec, 2>; 2],
    pub(super) global: [Family<GaugeVec, 1>; 2],
    pub(super) requests: Family<IntCounterVec, 3>,
    pub(super) issued: Family<IntCounterVec, 2>,
    pub(super) revoked: Family<IntCounterVec, 2>,
    pub(super) target: Family<GaugeVec, 1>,
    pub(super) pending: Family<GaugeVec, 1>,
    pub(super) confirmation: Family<HistogramVec, 1>,
    pub(super) jain: Family<GaugeVec, 0>,
    pub(super) program_wait: Family<GaugeVec, 1>,
    pub(super) program_service: Family<GaugeVec, 1>,
    pub(super) models: Arc<Limiter>,
    pub(super) fairness: Arc<Limiter>,
    pub(super) folded: IntCounter,
    /// Label sets with a fairness id of their own.
    pub(super) cap: usize,
}

impl FlowFamilies {
    /// `folded` counts requests whose labels were folded for lack of room beyond `cap` label sets.
    pub(super) fn register(
        registry: &Registry,
        models: Arc<Limiter>,
        fairness: Arc<Limiter>,
        folded: IntCounter,
        cap: usize,
    ) -> Self {
        Self {
            size: Family::register(SIZE, registry),
            bytes: Family::register(BYTES, registry),
            wait: Family::register(WAIT, registry),
            enqueue: Family::register(ENQUEUE, registry),
            cycle: Family::register(CYCLE, registry),
            saturation: Family::register(SATURATION, registry),
            stale: Family::register(STALE, registry),
            band: [BAND_REQUESTS, BAND_BYTES].map(|definition| Family::register(definition, registry)),
            global: [GLOBAL_REQUESTS, GLOBAL_BYTES].map(|definition| Family::register(definition, registry)),
            requests: Family::register(REQUESTS, registry),
            issued: Family::register(ISSUED, registry),
            revoked: Family::register(REVOKED, registry),
            target: Family::register(TARGET_GAUGE, registry),
            pending: Family::register(PENDING, registry),
            confirmation: Family::register(CONFIRMATION, registry),
            jain: Family::register(JAIN, registry),
            program_wait: Family::register(PROGRAM_WAIT, registry),
            program_service: Family::register(PROGRAM_SERVICE, registry),
            models,
            fairness,
            folded,
            cap,
        }
    }

    /// Drops the counters of a priority that nothing has any more.
    pub(super) fn forget_priority(&self, priority: &str, pool: &str) {
        self.issued.remove([priority, pool]);
        for outcome in OUTCOMES {
            self.requests.remove([outcome, priority, pool]);
        }
    }

    /// Sets the number of endpoints that `detector` found stale.
    pub(super) fn stale(&self, detector: &str, endpoints: u64) {
        self.stale.child([detector]).set(endpoints);
    }
}
