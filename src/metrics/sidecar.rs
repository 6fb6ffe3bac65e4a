//! Series of the sidecar. It has a page of its own: it serves no ext_proc, and an endpoint picker splits no requests.

use std::sync::Arc;
use std::time::Duration;

use prometheus::process_collector::ProcessCollector;
use prometheus::{HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry};

use super::bounds::MetricBounds;
use super::encode::Format;
use super::family::{Definition, Family};
use super::ports::{PortFamilies, PortMetrics};

const REQUESTS: Definition<1> = Definition::new(
    "llm_d_disagg_sidecar_requests_total",
    "Requests to the APIs that are split, by API.",
    ["api_type"],
);
const SPLIT: Definition<1> = Definition::new(
    "llm_d_disagg_sidecar_disagg_requests_total",
    "Requests to these APIs, by the stages that the routing headers name servers for.",
    ["disagg_type"],
);
const ERRORS: Definition<1> =
    Definition::new("llm_d_disagg_sidecar_request_errors_total", "Failures of calls, by stage.", ["stage"]);
/// Name of the counter of requests by where their prompt was processed.
pub const SIDECAR_OUTCOMES: &str = "pointsman_sidecar_outcomes_total";

const OUTCOMES: Definition<2> = Definition::new(
    SIDECAR_OUTCOMES,
    "Requests to the APIs that are split, by where the prompt was processed, and why.",
    ["outcome", "reason"],
);
const IN_FLIGHT: Definition<1> = Definition::new(
    "pointsman_sidecar_in_flight_requests",
    "Requests that are being answered, split or passed on.",
    ["kind"],
);
const BYTES: Definition<1> = Definition::new(
    "pointsman_sidecar_bytes_total",
    "Bytes of bodies: from clients in requests, to clients in answers.",
    ["direction"],
);
const RETRIES: Definition<1> = Definition::new(
    "pointsman_sidecar_prefill_retries_total",
    "Further attempts after a prefill server failed, by where: the same server, the next one, the local engine.",
    ["kind"],
);
const LATE: Definition<0> = Definition::new(
    "pointsman_sidecar_late_prefill_failures_total",
    "Prefill servers that failed after the client had the first byte of its answer.",
    [],
);
const BUFFERED: Definition<0> = Definition::new(
    "pointsman_sidecar_buffered_bytes",
    "Bytes of bodies of requests that are being split.",
    [],
);
const READY: Definition<0> = Definition::new(
    "pointsman_sidecar_engine_ready",
    "1 if the engine's health was good when it was last asked.",
    [],
);

/// Buckets of durations in seconds: prompts take milliseconds to minutes.
const SECONDS: &[f64] =
    &[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0];

const DURATIONS: [(&str, Definition<0>); 3] = [
    (
        "encode",
        Definition::new(
            "llm_d_disagg_sidecar_encode_duration_seconds",
            "Seconds of a call to an encode server until its whole answer was there.",
            [],
        )
        .buckets(SECONDS),
    ),
    (
        "prefill",
        Definition::new(
            "llm_d_disagg_sidecar_prefill_duration_seconds",
            "Seconds of a call to a prefill server until its whole answer was there.",
            [],
        )
        .buckets(SECONDS),
    ),
    (
        "decode",
        Definition::new(
            "llm_d_disagg_sidecar_decode_duration_seconds",
            "Seconds of a call to the engine until its answer began.",
            [],
        )
        .buckets(SECONDS),
    ),
];

/// Which way bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From a client.
    Request,
    /// To a client.
    Response,
}

/// Where a prompt is processed after a prefill server failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PrefillRetry {
    /// At the same server.
    Same,
    /// At the next one that the header names.
    Next,
    /// At the local engine.
    Local,
}

/// The series of a sidecar. Clones share them.
#[derive(Clone)]
pub struct SidecarMetrics {
    families: Arc<Families>,
}

struct Families {
    registry: Registry,
    requests: Family<IntCounterVec, 1>,
    split: Family<IntCounterVec, 1>,
    errors: Family<IntCounterVec, 1>,
    outcomes: Family<IntCounterVec, 2>,
    in_flight: [IntGauge; 2],
    bytes: [IntCounter; 2],
    retries: [IntCounter; 3],
    late: IntCounter,
    buffered: IntGauge,
    ready: IntGauge,
    durations: [prometheus::Histogram; 3],
    ports: PortFamilies,
}

impl SidecarMetrics {
    /// Series with a registry of their own, and the figures of this process. The series of `apis`, and of `outcomes`
    /// with their reasons, are there from the start.
    pub fn new(apis: &[&str], outcomes: impl Iterator<Item = (&'static str, &'static str)>) -> Self {
        let registry = Registry::new();
        // Nothing else registers these names, and a process without them still serves.
        let _ = registry.register(Box::new(ProcessCollector::for_self()));
        let in_flight = Family::<IntGaugeVec, 1>::register(IN_FLIGHT, &registry);
        let bytes = Family::<IntCounterVec, 1>::register(BYTES, &registry);
        let retries = Family::<IntCounterVec, 1>::register(RETRIES, &registry);
        let durations = DURATIONS.map(|(_, definition)| {
            Family::<HistogramVec, 0>::register(definition, &registry).child([]).into_current()
        });
        let families = Families {
            requests: Family::register(REQUESTS, &registry),
            split: Family::register(SPLIT, &registry),
            errors: Family::register(ERRORS, &registry),
            outcomes: Family::register(OUTCOMES, &registry),
            in_flight: ["split", "passed"].map(|kind| in_flight.child([kind]).into_current()),
            bytes: ["request", "response"].map(|direction| bytes.child([direction]).into_current()),
            retries: ["same", "next", "local"].map(|kind| retries.child([kind]).into_current()),
            late: Family::<IntCounterVec, 0>::register(LATE, &registry).child([]).into_current(),
            buffered: Family::<IntGaugeVec, 0>::register(BUFFERED, &registry).child([]).into_current(),
            ready: Family::<IntGaugeVec, 0>::register(READY, &registry).child([]).into_current(),
            durations,
            ports: PortFamilies::register(&registry),
            registry,
        };
        for api in apis {
            families.requests.child([api]);
        }
        for stage in ["encode", "prefill", "decode"] {
            families.errors.child([stage]);
        }
        for (outcome, reason) in outcomes {
            families.outcomes.child([outcome, reason]);
        }
        Self { families: Arc::new(families) }
    }

    /// A request to an API that is split, with the stages that it names servers for.
    pub fn request(&self, api: &str, stages: &str) {
        self.families.requests.child([api]).inc();
        self.families.split.child([stages]).inc();
    }

    /// What came of it.
    pub fn outcome(&self, outcome: &str, reason: &str) {
        self.families.outcomes.child([outcome, reason]).inc();
    }

    /// How many requests had this outcome for this reason.
    pub fn outcomes(&self, outcome: &str, reason: &str) -> u64 {
        self.families.outcomes.child([outcome, reason]).into_current().get()
    }

    /// A call failed.
    pub fn call_failed(&self, stage: &str) {
        self.families.errors.child([stage]).inc();
    }

    /// A call of `stage` took this long.
    pub fn call_took(&self, stage: &str, time: Duration) {
        let index = DURATIONS.iter().position(|(name, _)| *name == stage);
        if let Some(histogram) = index.and_then(|index| self.families.durations.get(index)) {
            histogram.observe(time.as_secs_f64());
        }
    }

    /// A prompt is processed elsewhere after a failure.
    pub fn retried(&self, retry: PrefillRetry) {
        self.families.retries[retry as usize].inc();
    }

    /// A prefill server failed too late for the client to be told.
    pub fn late_failure(&self) {
        self.families.late.inc();
    }

    /// Bytes of a body passed.
    pub fn bytes(&self, direction: Direction, bytes: usize) {
        self.families.bytes[direction as usize].inc_by(bytes as u64);
    }

    /// Bytes of bodies that are held.
    pub fn buffered(&self, change: i64) {
        self.families.buffered.add(change);
    }

    /// Whether the engine is ready.
    pub fn engine_ready(&self, ready: bool) {
        self.families.ready.set(i64::from(ready));
    }

    /// Counts a request as in flight until the guard is dropped; `split` if it has stages.
    pub fn in_flight(&self, split: bool) -> SidecarInFlight {
        let gauge = self.families.in_flight[usize::from(!split)].clone();
        gauge.inc();
        SidecarInFlight { gauge }
    }

    /// Requests in flight, of both kinds.
    pub fn open_requests(&self) -> i64 {
        self.families.in_flight.iter().map(IntGauge::get).sum()
    }

    /// Series of the port called `name`.
    pub fn port(&self, name: &str) -> PortMetrics {
        self.families.ports.port(name)
    }

    /// The page.
    pub fn encode(&self, format: Format) -> String {
        format.encode(&self.families.registry.gather(), MetricBounds::default()).0
    }
}

impl std::fmt::Debug for SidecarMetrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SidecarMetrics").finish_non_exhaustive()
    }
}

/// A request in flight.
#[derive(Debug)]
pub struct SidecarInFlight {
    gauge: IntGauge,
}

impl Drop for SidecarInFlight {
    fn drop(&mut self) {
        self.gauge.dec();
    }
}
