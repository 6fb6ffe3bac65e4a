//! Series of the pool as a whole: averages that are refreshed now and then.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use prometheus::{Gauge, GaugeVec, Registry};

use super::endpoints::EndpointFamilies;
use super::family::{Definition, Family, Twin};
use crate::pool::{Age, Load, LoadFigure, Pool};

const POOL: [&str; 1] = ["name"];

const AVERAGE_KV: Definition<1> = Definition::new(
    "llm_d_epp_average_kv_cache_utilization",
    "Mean KV-cache usage of the endpoints with fresh metrics.",
    POOL,
)
.legacy("inference_pool_average_kv_cache_utilization", &[("name", "name")]);

const AVERAGE_QUEUE: Definition<1> = Definition::new(
    "llm_d_epp_average_queue_size",
    "Mean number of waiting requests of the endpoints with fresh metrics.",
    POOL,
)
.legacy("inference_pool_average_queue_size", &[("name", "name")]);

const AVERAGE_RUNNING: Definition<1> = Definition::new(
    "llm_d_epp_average_running_requests",
    "Mean number of running requests of the endpoints with fresh metrics.",
    POOL,
)
.legacy("inference_pool_average_running_requests", &[("name", "name")]);

const DEVIATION_KV: Definition<1> = Definition::new(
    "llm_d_epp_std_dev_kv_cache_utilization",
    "Standard deviation of the KV-cache usage over the endpoints with fresh metrics.",
    POOL,
);

const DEVIATION_QUEUE: Definition<1> = Definition::new(
    "llm_d_epp_std_dev_queue_size",
    "Standard deviation of the waiting requests over the endpoints with fresh metrics.",
    POOL,
);

const DEVIATION_RUNNING: Definition<1> = Definition::new(
    "llm_d_epp_std_dev_running_requests",
    "Standard deviation of the running requests over the endpoints with fresh metrics.",
    POOL,
);

const READY: Definition<1> = Definition::new(
    "llm_d_epp_ready_endpoints",
    "Endpoints with fresh metrics, which need not be ready for Kubernetes.",
    POOL,
)
.legacy("inference_pool_ready_pods", &[("name", "name")]);

const AVERAGES_AGE: Definition<1> = Definition::new(
    "pointsman_pool_averages_age_seconds",
    "Time since the pool's averages were last computed from a fresh endpoint; they keep their value meanwhile.",
    POOL,
);

/// How a figure of an endpoint is read.
type ReadFigure = fn(&Load) -> f64;

/// The figures that averages are made of, in the order of their families.
const FIGURES: [(LoadFigure, ReadFigure); 3] = [
    (LoadFigure::KvUsage, Load::kv_usage),
    (LoadFigure::Waiting, |load| load.waiting() as f64),
    (LoadFigure::Running, |load| load.running() as f64),
];

/// The families of this file, and those that are read at the scrape.
pub(super) struct PoolFamilies {
    /// KV-cache usage, waiting, running; so are the deviations.
    means: [Family<GaugeVec, 1>; 3],
    deviations: [Family<GaugeVec, 1>; 3],
    ready: Family<GaugeVec, 1>,
    age: Family<GaugeVec, 1>,
    endpoints: EndpointFamilies,
}

impl PoolFamilies {
    pub(super) fn register(registry: &Registry) -> Self {
        let family = |definition| Family::register(definition, registry);
        Self {
            means: [AVERAGE_KV, AVERAGE_QUEUE, AVERAGE_RUNNING].map(family),
            deviations: [DEVIATION_KV, DEVIATION_QUEUE, DEVIATION_RUNNING].map(family),
            ready: family(READY),
            age: family(AVERAGES_AGE),
            endpoints: EndpointFamilies::register(registry),
        }
    }

    pub(super) fn watch(self: &Arc<Self>, pool: &Arc<Pool>) -> PoolCollector {
        self.endpoints.watch(pool);
        PoolCollector { families: Arc::clone(self), pool: Arc::clone(pool), last_fresh: Mutex::new(None) }
    }
}

/// Keeps the averages of one pool. Its endpoints show on the metrics page for as long as the pool lives.
pub struct PoolCollector {
    families: Arc<PoolFamilies>,
    pool: Arc<Pool>,
    last_fresh: Mutex<Option<Instant>>,
}

impl PoolCollector {
    /// Computes the averages over the endpoints whose last reading of the figure is at most `staleness` old. If no
    /// endpoint answers, the averages keep their value, and their age tells. A pool without endpoints has averages of
    /// 0; a figure that all pages lost has none.
    pub fn refresh(&self, now: Instant, staleness: Duration) {
        let snapshot = self.pool.snapshot();
        let loads = || snapshot.endpoints().iter().map(|endpoint| endpoint.load());
        let fresh = loads().filter(|load| load.age(now).is_fresh(staleness)).count();
        let gauge = |family: &Family<GaugeVec, 1>| -> Twin<Gauge> { family.child([self.pool.name()]) };
        gauge(&self.families.ready).set(fresh as f64);
        let mut last_fresh = self.last_fresh.lock();
        if fresh > 0 || snapshot.is_empty() {
            *last_fresh = Some(now);
        }
        for (quantity, (figure, read)) in FIGURES.into_iter().enumerate() {
            // A figure that a server never had counts as 0, as long as the server answers.
            let is_fresh = |load: &&Arc<Load>| match load.figure_age(figure, now) {
                Age::Never => load.age(now).is_fresh(staleness),
                age @ Age::Since(_) => age.is_fresh(staleness),
            };
            let values: Vec<f64> = loads().filter(is_fresh).map(|load| read(load)).collect();
            let families = [&self.families.means[quantity], &self.families.deviations[quantity]];
            if !values.is_empty() || snapshot.is_empty() {
                let summary = Summary::of(values.into_iter());
                gauge(families[0]).set(summary.mean);
                gauge(families[1]).set(summary.deviation);
            } else if fresh > 0 {
                // The pages come, and none of them has the figure any more.
                for family in families {
                    family.remove([self.pool.name()]);
                }
            }
        }
        if let Some(at) = *last_fresh {
            gauge(&self.families.age).set(now.saturating_duration_since(at).as_secs_f64());
        }
    }
}

impl std::fmt::Debug for PoolCollector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PoolCollector").field("pool", &self.pool.name()).finish_non_exhaustive()
    }
}

/// Mean and sample standard deviation, both rounded to two decimals, half away from zero.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Summary {
    mean: f64,
    deviation: f64,
}

impl Summary {
    /// Zeroes for no values. The deviation is taken from the mean before that is rounded.
    fn of(values: impl Iterator<Item = f64> + Clone) -> Self {
        let count = values.clone().count();
        let mean = values.clone().sum::<f64>() / count.max(1) as f64;
        let squares: f64 = values.map(|value| (value - mean).powi(2)).sum();
        let deviation = (squares / count.saturating_sub(1).max(1) as f64).sqrt();
        Self { mean: round(mean), deviation: round(deviation) }
    }
}

fn round(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use proptest::prelude::*;

    use super::*;
    use crate::metrics::{Format, Metrics};
    use crate::pool::{EndpointId, EndpointSpec, Lease, Reading};

    fn spec(name: &str) -> EndpointSpec {
        EndpointSpec::new(EndpointId::new("ns", name), SocketAddr::from(([10, 0, 0, 1], 8000)))
    }

    fn value(metrics: &Metrics, series: &str) -> Option<String> {
        let page = metrics.encode(Format::Text);
        page.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ').map(str::to_owned))
    }

    fn reading(waiting: u64, kv: f64) -> Reading {
        Reading { waiting: Some(waiting), running: Some(1), kv_usage: Some(kv), ..Reading::default() }
    }

    #[test]
    fn averages_cover_fresh_endpoints_and_freeze_when_there_is_none() {
        let start = Instant::now();
        let metrics = Metrics::new();
        let pool = Arc::new(Pool::new("ns", "p", start));
        pool.replace_endpoints(vec![spec("a"), spec("b"), spec("c")]);
        let collector = metrics.pool_collector(&pool);
        let snapshot = pool.snapshot();
        snapshot.endpoints()[0].load().record(reading(1, 0.25), 0, start);
        snapshot.endpoints()[1].load().record(reading(4, 0.5), 0, start);
        let stale = Duration::from_secs(2);
        collector.refresh(start, stale);
        assert_eq!(value(&metrics, "llm_d_epp_ready_endpoints{name=\"p\"}").as_deref(), Some("2"));
        assert_eq!(value(&metrics, "inference_pool_average_queue_size{name=\"p\"}").as_deref(), Some("2.5"));
        assert_eq!(value(&metrics, "llm_d_epp_std_dev_queue_size{name=\"p\"}").as_deref(), Some("2.12"));
        assert_eq!(
            value(&metrics, "llm_d_epp_average_kv_cache_utilization{name=\"p\"}").as_deref(),
            Some("0.38")
        );
        collector.refresh(start + Duration::from_secs(5), stale);
        assert_eq!(value(&metrics, "inference_pool_ready_pods{name=\"p\"}").as_deref(), Some("0"));
        assert_eq!(value(&metrics, "llm_d_epp_average_queue_size{name=\"p\"}").as_deref(), Some("2.5"));
        assert_eq!(value(&metrics, "pointsman_pool_averages_age_seconds{name=\"p\"}").as_deref(), Some("5"));
    }

    #[test]
    fn a_pool_without_endpoints_has_averages_of_zero_and_not_the_last_ones() {
        let start = Instant::now();
        let metrics = Metrics::new();
        let pool = Arc::new(Pool::new("ns", "p", start));
        pool.replace_endpoints(vec![spec("a"), spec("b")]);
        let collector = metrics.pool_collector(&pool);
        for (endpoint, waiting) in pool.snapshot().endpoints().iter().zip([8, 12]) {
            endpoint.load().record(reading(waiting, 0.5), 0, start);
        }
        collector.refresh(start, Duration::from_secs(2));
        let figures = ["average_kv_cache_utilization", "average_queue_size", "std_dev_queue_size"];
        let figures = figures.map(|figure| format!("llm_d_epp_{figure}{{name=\"p\"}}"));
        let read = || figures.clone().map(|series| value(&metrics, &series).unwrap());
        assert_eq!(read(), ["0.5", "10", "2.83"]);
        pool.replace_endpoints(vec![]);
        collector.refresh(start + Duration::from_mins(1), Duration::from_secs(2));
        assert_eq!(read(), ["0", "0", "0"]);
        assert_eq!(value(&metrics, "inference_pool_average_queue_size{name=\"p\"}").as_deref(), Some("0"));
    }

    #[test]
    fn a_figure_that_vanished_from_a_page_leaves_its_average_and_only_that() {
        let start = Instant::now();
        let metrics = Metrics::new();
        let pool = Arc::new(Pool::new("ns", "p", start));
        pool.replace_endpoints(vec![spec("a"), spec("b")]);
        let collector = metrics.pool_collector(&pool);
        let snapshot = pool.snapshot();
        let [a, b] = snapshot.endpoints() else { unreachable!("there are two") };
        a.load().record(reading(10, 0.5), 0, start);
        let later = start + Duration::from_secs(5);
        a.load().record(Reading { waiting: None, ..reading(0, 0.5) }, 0, later);
        b.load().record(reading(2, 0.7), 0, later);
        collector.refresh(later, Duration::from_secs(2));
        assert_eq!(value(&metrics, "llm_d_epp_average_queue_size{name=\"p\"}").as_deref(), Some("2"));
        let usage = value(&metrics, "llm_d_epp_average_kv_cache_utilization{name=\"p\"}");
        assert_eq!(usage.as_deref(), Some("0.6"));
        assert_eq!(value(&metrics, "llm_d_epp_ready_endpoints{name=\"p\"}").as_deref(), Some("2"));
        let later = later + Duration::from_secs(5);
        for endpoint in [a, b] {
            endpoint.load().record(Reading { waiting: None, ..reading(0, 0.5) }, 0, later);
        }
        collector.refresh(later, Duration::from_secs(2));
        assert_eq!(value(&metrics, "llm_d_epp_average_queue_size{name=\"p\"}"), None);
    }

    #[test]
    fn one_name_in_two_namespaces_makes_two_series() {
        let metrics = Metrics::new();
        let pool = Arc::new(Pool::new("ns", "p", Instant::now()));
        let other = EndpointSpec::new(EndpointId::new("else", "a"), SocketAddr::from(([10, 0, 0, 2], 8000)));
        pool.replace_endpoints(vec![spec("a"), other, spec("b")]);
        let _collector = metrics.pool_collector(&pool);
        let page = metrics.encode(Format::Text);
        let mut series: Vec<&str> =
            page.lines().filter_map(|line| line.rsplit_once(' ')).map(|(series, _)| series).collect();
        let all = series.len();
        series.sort_unstable();
        series.dedup();
        assert_eq!(series.len(), all, "{page}");
        for endpoint in ["ns/a", "else/a", "b"] {
            let queue = format!(
                "llm_d_epp_per_endpoint_queue_size{{model_server_endpoint=\"{endpoint}\",name=\"p\"}}"
            );
            assert_eq!(value(&metrics, &queue).as_deref(), Some("0"), "{endpoint}");
        }
    }

    #[test]
    fn endpoints_show_at_once_and_vanish_with_the_endpoint_and_the_pool() {
        let start = Instant::now();
        let metrics = Metrics::new();
        let pool = Arc::new(Pool::new("ns", "p", start));
        pool.replace_endpoints(vec![spec("a"), spec("b")]);
        let collector = metrics.pool_collector(&pool);
        let lease = Lease::take(&pool.snapshot().endpoints()[0], 7);
        pool.snapshot().endpoints()[0].load().record(reading(3, 0.0), 0, start);
        let queue = "llm_d_epp_per_endpoint_queue_size{model_server_endpoint=\"a\",name=\"p\"}";
        assert_eq!(value(&metrics, queue).as_deref(), Some("3"));
        let never = "inference_pool_per_pod_queue_size{model_server_pod=\"b\",name=\"p\"}";
        assert_eq!(value(&metrics, never).as_deref(), Some("0"));
        let never = "pointsman_endpoint_metrics_age_seconds{model_server_endpoint=\"b\",name=\"p\"}";
        assert_eq!(value(&metrics, never), None);
        let tokens = "pointsman_endpoint_in_flight_tokens{model_server_endpoint=\"a\",name=\"p\"}";
        assert_eq!(value(&metrics, tokens).as_deref(), Some("7"));
        drop(lease);
        pool.replace_endpoints(vec![spec("b")]);
        assert_eq!(value(&metrics, queue), None);
        assert_eq!(value(&metrics, "pointsman_pool_endpoints{name=\"p\"}").as_deref(), Some("1"));
        drop((collector, pool));
        assert_eq!(value(&metrics, "pointsman_pool_endpoints{name=\"p\"}"), None);
    }

    #[test]
    fn rounding_goes_away_from_zero_at_half_a_hundredth() {
        assert_eq!(Summary::of([0.125].into_iter()), Summary { mean: 0.13, deviation: 0.0 });
        assert_eq!(Summary::of([0.004].into_iter()), Summary { mean: 0.0, deviation: 0.0 });
        assert_eq!(Summary::of(std::iter::empty()), Summary { mean: 0.0, deviation: 0.0 });
    }

    proptest! {
        #[test]
        fn the_mean_lies_between_the_extremes(values in prop::collection::vec(0.0f64..1000.0, 1..20)) {
            let summary = Summary::of(values.iter().copied());
            let least = values.iter().copied().fold(f64::INFINITY, f64::min);
            let most = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            prop_assert!(summary.mean >= least - 0.006 && summary.mean <= most + 0.006);
            prop_assert!(summary.deviation >= 0.0 && summary.deviation <= (most - least) + 0.006);
        }
    }
}
