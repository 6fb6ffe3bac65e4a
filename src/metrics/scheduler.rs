//! Series of scheduling runs.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use prometheus::{Histogram, HistogramVec, IntCounterVec, Registry};

use super::buckets::SCHEDULING_SECONDS;
use super::cardinality::{Gate, Limiter, OTHER};
use super::family::{Definition, Family, Twin};
use crate::pool::{Endpoint, Snapshot};

const DURATION: Definition<0> = Definition::new(
    "llm_d_epp_scheduler_e2e_duration_seconds",
    "Time of one scheduling run over all profiles, in seconds.",
    [],
)
.legacy("inference_extension_scheduler_e2e_duration_seconds", &[])
.buckets(SCHEDULING_SECONDS);

const ATTEMPTS: Definition<5> = Definition::new(
    "llm_d_epp_scheduler_attempts_total",
    "Scheduling runs by outcome and chosen endpoint.",
    ["status", "target_model_name", "endpoint_name", "namespace", "port"],
)
.legacy(
    "inference_extension_scheduler_attempts_total",
    &[
        ("status", "status"),
        ("target_model_name", "target_model_name"),
        ("pod_name", "endpoint_name"),
        ("namespace", "namespace"),
        ("port", "port"),
    ],
);

/// Outcomes of scheduling runs.
#[derive(Clone)]
pub struct SchedulerMetrics {
    duration: Twin<Histogram>,
    attempts: Family<IntCounterVec, 5>,
    models: Arc<Limiter>,
    gate: Arc<Gate>,
}

impl SchedulerMetrics {
    /// `gate` bounds the series of attempts.
    pub(super) fn register(registry: &Registry, models: Arc<Limiter>, gate: Gate) -> Self {
        Self {
            duration: Family::<HistogramVec, 0>::register(DURATION, registry).child([]),
            attempts: Family::register(ATTEMPTS, registry),
            models,
            gate: Arc::new(gate),
        }
    }

    /// Records how long a run took, successful or not.
    pub fn e2e_duration(&self, duration: Duration) {
        self.duration.observe(duration.as_secs_f64());
    }

    /// Counts a run that chose `endpoint`, the first target of the primary profile, for the target model `model`.
    pub fn success(&self, model: &str, endpoint: &Endpoint) {
        let model = self.models.admit(model);
        self.count(["success", model, &endpoint.spec().pod, endpoint.id().namespace(), port(endpoint)]);
    }

    /// Beyond the bound the models of an endpoint share one series.
    fn count(&self, values: [&str; 5]) {
        let [status, _, endpoint @ ..] = values;
        let [pod, namespace, port] = endpoint;
        let admitted = self.gate.admits(&values);
        self.attempts.child(if admitted { values } else { [status, OTHER, pod, namespace, port] }).inc();
    }

    /// Counts a run that chose nothing.
    pub fn failure(&self, model: &str) {
        self.count(["failure", self.models.admit(model), "", "", ""]);
    }

    /// Drops the series of endpoints that are not in `snapshot`. Call it when the pool has changed.
    pub fn prune_endpoints(&self, snapshot: &Snapshot) {
        let live: HashSet<[&str; 3]> = snapshot
            .endpoints()
            .iter()
            .map(|endpoint| [&*endpoint.spec().pod, endpoint.id().namespace(), port(endpoint)])
            .collect();
        for labels in self.attempts.children() {
            let values = ATTEMPTS.labels().map(|label| {
                labels.iter().find(|(name, _)| name == label).map_or("", |(_, value)| value.as_str())
            });
            let [_, _, endpoint @ ..] = values;
            if endpoint != ["", "", ""] && !live.contains(&endpoint) {
                self.attempts.remove(values);
                self.gate.forget(&values);
            }
        }
    }
}

impl std::fmt::Debug for SchedulerMetrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SchedulerMetrics").finish_non_exhaustive()
    }
}

/// The port of the endpoint's address; the part of its target after the last colon, so nothing is formatted.
fn port(endpoint: &Endpoint) -> &str {
    endpoint.target().rsplit_once(':').map_or("", |(_, port)| port)
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::time::Instant;

    use crate::metrics::{Format, Metrics};
    use crate::pool::{EndpointId, EndpointSpec, Pool};

    fn spec(name: &str, port: u16) -> EndpointSpec {
        EndpointSpec::new(EndpointId::new("ns", name), SocketAddr::from(([10, 0, 0, 1], port)))
    }

    #[test]
    fn series_of_an_endpoint_that_left_are_dropped_and_others_stay() {
        let metrics = Metrics::new();
        let scheduler = metrics.scheduler();
        let pool = Pool::new("ns", "pool", Instant::now());
        pool.replace_endpoints(vec![spec("a", 8000), spec("b", 8001)]);
        for endpoint in pool.snapshot().endpoints() {
            scheduler.success("m", endpoint);
        }
        scheduler.failure("m");
        pool.replace_endpoints(vec![spec("b", 8001)]);
        scheduler.prune_endpoints(&pool.snapshot());
        let page = metrics.encode(Format::Text);
        let lines: Vec<&str> =
            page.lines().filter(|line| line.contains("scheduler_attempts_total{")).collect();
        let expected = [
            "inference_extension_scheduler_attempts_total{namespace=\"\",pod_name=\"\",port=\"\",status=\"failure\",target_model_name=\"m\"} 1",
            "inference_extension_scheduler_attempts_total{namespace=\"ns\",pod_name=\"b\",port=\"8001\",status=\"success\",target_model_name=\"m\"} 1",
            "llm_d_epp_scheduler_attempts_total{endpoint_name=\"\",namespace=\"\",port=\"\",status=\"failure\",target_model_name=\"m\"} 1",
            "llm_d_epp_scheduler_attempts_total{endpoint_name=\"b\",namespace=\"ns\",port=\"8001\",status=\"success\",target_model_name=\"m\"} 1",
        ];
        assert_eq!(lines, expected);
    }
}
