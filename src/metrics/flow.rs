//! Series of flow control: what waits, how long it waited and how that ended, and how full the pool is.

use std::sync::Arc;
use std::time::{Duration, Instant};

use prometheus::{GaugeVec, Histogram, HistogramVec, IntCounter, IntCounterVec, IntGaugeVec, Registry};

use super::buckets::{QUEUE_SECONDS, REVOCATION_SECONDS, SCHEDULING_SECONDS};
use super::cardinality::Limiter;
use super::family::{Definition, Family, LegacyLabels, Twin};
use super::flow_sets::{FlowSets, OUTCOMES, QueuedGuard};
use super::label_sets::RequestLabels;

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
    cycle: Family<HistogramVec, 0>,
    saturation: Family<GaugeVec, 2>,
    stale: Family<IntGaugeVec, 1>,
    band: [Family<GaugeVec, 2>; 2],
    global: [Family<GaugeVec, 1>; 2],
    pub(super) requests: Family<IntCounterVec, 3>,
    issued: Family<IntCounterVec, 2>,
    revoked: Family<IntCounterVec, 2>,
    target: Family<GaugeVec, 1>,
    pending: Family<GaugeVec, 1>,
    confirmation: Family<HistogramVec, 1>,
    jain: Family<GaugeVec, 0>,
    program_wait: Family<GaugeVec, 1>,
    program_service: Family<GaugeVec, 1>,
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

/// Handles of the queues of one pool. Clones share the series.
#[derive(Clone)]
pub struct FlowMetrics {
    inner: Arc<Inner>,
}

struct Inner {
    families: Arc<FlowFamilies>,
    pool: Box<str>,
    sets: Arc<FlowSets>,
    cycle: Twin<Histogram>,
}

impl FlowMetrics {
    pub(super) fn new(families: Arc<FlowFamilies>, pool: &str, bands: impl IntoIterator<Item = i32>) -> Self {
        let sets = Arc::new(FlowSets::new(Arc::clone(&families), pool));
        let cycle = families.cycle.child([]);
        for outcome in ["confirmed", "timed_out"] {
            families.revoked.child([outcome, pool]);
        }
        let metrics = Self { inner: Arc::new(Inner { families, pool: pool.into(), sets, cycle }) };
        bands.into_iter().for_each(|priority| metrics.add_band(priority));
        metrics
    }

    /// A band with this priority exists now: its gauges and counters show 0 until something waits, under the default
    /// flow and without models, so that no sum over the pool is ever empty. Does nothing for a band that was added
    /// before.
    pub fn add_band(&self, priority: i32) {
        if self.inner.sets.pin(priority) {
            self.band_use(priority, 0.0, 0.0);
            let Inner { families, pool, .. } = &*self.inner;
            let priority = priority.to_string();
            families.issued.child([&priority, pool]);
            for outcome in OUTCOMES {
                families.requests.child([outcome, &priority, pool]);
            }
        }
    }

    /// The band is gone. Its gauges go too, once nothing of it waits.
    pub fn remove_band(&self, priority: i32) {
        self.inner.sets.unpin(priority);
        for family in &self.inner.families.band {
            family.remove([&priority.to_string(), &self.inner.pool]);
        }
    }

    /// A request with a body of `bytes` enters. It counts until the guard is finished or dropped; `labels.priority` is
    /// the one it asked for.
    pub fn enqueued(&self, labels: RequestLabels<'_>, bytes: u64, now: Instant) -> QueuedGuard {
        self.inner.sets.enter(labels, bytes, now)
    }

    /// Drops series of flows in which nothing has waited for `idle`. Those of bands stay. Call it now and then.
    pub fn prune(&self, now: Instant, idle: Duration) {
        self.inner.sets.prune(now, idle);
    }

    /// One look at the queues took this long.
    pub fn dispatch_cycle(&self, took: Duration) {
        self.inner.cycle.observe(took.as_secs_f64());
    }

    /// Sets how full the pool is: by stage, where `None` is a stage without endpoints, and as a whole.
    pub fn saturation(&self, prefill: Option<f64>, decode: Option<f64>, effective: f64) {
        let stages = [("prefill", prefill), ("decode", decode), ("effective", Some(effective))];
        for (stage, value) in stages {
            let labels = [&*self.inner.pool, stage];
            match value {
                Some(value) => self.inner.families.saturation.child(labels).set(value),
                None => self.inner.families.saturation.remove(labels),
            }
        }
    }

    /// Sets the number of endpoints whose reading is too old for `detector`.
    pub fn stale_endpoints(&self, detector: &str, endpoints: u64) {
        self.inner.families.stale(detector, endpoints);
    }

    /// Sets how much of its limits the band of `priority` uses, as shares.
    pub fn band_use(&self, priority: i32, requests: f64, bytes: f64) {
        let priority = priority.to_string();
        for (family, share) in self.inner.families.band.iter().zip([requests, bytes]) {
            family.child([&priority, &self.inner.pool]).set(share);
        }
    }

    /// Sets how much of the limits for all bands is used, as shares; `None` for a limit that there is not.
    pub fn global_use(&self, requests: Option<f64>, bytes: Option<f64>) {
        for (family, share) in self.inner.families.global.iter().zip([requests, bytes]) {
            if let Some(share) = share {
                family.child([&self.inner.pool]).set(share);
            }
        }
    }

    /// A running request was told to stop, for one of the band of `priority`.
    pub fn revocation_issued(&self, priority: i32) {
        self.inner.families.issued.child([&priority.to_string(), &self.inner.pool]).inc();
    }

    /// A request that was told to stop ended after this time, or did not (`confirmed` is false) and is waited for no
    /// more.
    pub fn revocation_ended(&self, confirmed: bool, took: Duration) {
        let outcome = if confirmed { "confirmed" } else { "timed_out" };
        self.inner.families.revoked.child([outcome, &self.inner.pool]).inc();
        if confirmed {
            self.inner.families.confirmation.child([&self.inner.pool]).observe(took.as_secs_f64());
        }
    }

    /// Sets the saturation that is to be won back by stopping requests, and what those stopped already will give.
    pub fn reclaim(&self, target: f64, pending: f64) {
        self.inner.families.target.child([&self.inner.pool]).set(target);
        self.inner.families.pending.child([&self.inner.pool]).set(pending);
    }

    /// Sets how evenly programs wait, in (0, 1].
    pub fn programs_fairness(&self, jain: f64) {
        self.inner.families.jain.child([]).set(jain);
    }

    /// Sets the mean wait of a program, and the service it got. Programs beyond the bound of fairness ids share one
    /// series.
    pub fn program(&self, program: &str, average_wait: Duration, service: f64) {
        let families = &self.inner.families;
        let program = families.fairness.admit(program);
        families.program_wait.child([program]).set(average_wait.as_secs_f64() * 1000.0);
        families.program_service.child([program]).set(service);
    }

    /// Drops the series of a program. One that shares the series of all others leaves it to them.
    pub fn forget_program(&self, program: &str) {
        if !self.inner.families.fairness.knows(program) {
            return;
        }
        self.inner.families.program_wait.remove([program]);
        self.inner.families.program_service.remove([program]);
    }
}

impl std::fmt::Debug for FlowMetrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FlowMetrics").field("pool", &self.inner.pool).finish_non_exhaustive()
    }
}
