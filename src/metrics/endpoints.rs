//! Series of single endpoints, read from the pool at the scrape: nothing to keep in step, and nothing left behind by an
//! endpoint that went.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Instant;

use parking_lot::Mutex;
use prometheus::Registry;
use prometheus::core::{Collector, Desc};
use prometheus::proto::{Gauge, LabelPair, Metric, MetricFamily, MetricType};

use super::family::Definition;
use crate::pool::{Age, Endpoint, Pool, Snapshot};

const ENDPOINT: [&str; 2] = ["name", "model_server_endpoint"];

const ENDPOINTS: Definition<1> =
    Definition::new("pointsman_pool_endpoints", "Endpoints that discovery knows.", ["name"]);

const QUEUE: Definition<2> = Definition::new(
    "llm_d_epp_per_endpoint_queue_size",
    "Waiting requests of an endpoint at its last scrape; 0 if it was never scraped.",
    ENDPOINT,
)
.legacy(
    "inference_pool_per_pod_queue_size",
    &[("name", "name"), ("model_server_pod", "model_server_endpoint")],
);

const IN_FLIGHT: Definition<2> = Definition::new(
    "pointsman_endpoint_in_flight_requests",
    "Requests of this process that an endpoint is serving.",
    ENDPOINT,
);

const IN_FLIGHT_TOKENS: Definition<2> = Definition::new(
    "pointsman_endpoint_in_flight_tokens",
    "Estimated tokens of the requests of this process that an endpoint is serving.",
    ENDPOINT,
);

const METRICS_AGE: Definition<2> = Definition::new(
    "pointsman_endpoint_metrics_age_seconds",
    "Time since an endpoint was last scraped with success; absent if it never was.",
    ENDPOINT,
);

/// Pools whose endpoints are exported.
pub(super) struct EndpointFamilies {
    pools: Arc<Mutex<Vec<Weak<Pool>>>>,
}

impl EndpointFamilies {
    #[allow(
        clippy::expect_used,
        reason = "only a name that is no metric name, or one used twice, can fail here"
    )]
    pub(super) fn register(registry: &Registry) -> Self {
        let pools = Arc::<Mutex<Vec<Weak<Pool>>>>::default();
        let collector = EndpointCollector::new(Arc::clone(&pools)).expect("metric names are valid");
        registry.register(Box::new(collector)).expect("metric names are unique");
        Self { pools }
    }

    /// Exports the endpoints of `pool` for as long as it lives.
    pub(super) fn watch(&self, pool: &Arc<Pool>) {
        let mut pools = self.pools.lock();
        pools.retain(|known| known.strong_count() > 0 && !std::ptr::eq(known.as_ptr(), Arc::as_ptr(pool)));
        pools.push(Arc::downgrade(pool));
    }
}

type ReadEndpoint = fn(&Endpoint, Instant) -> Option<f64>;

/// One exported name: its labels in the order of [`ENDPOINT`], and how its value is read.
struct Column {
    name: &'static str,
    help: String,
    labels: Vec<&'static str>,
    read: ReadEndpoint,
}

struct EndpointCollector {
    pools: Arc<Mutex<Vec<Weak<Pool>>>>,
    columns: Vec<Column>,
    descriptions: Vec<Desc>,
}

impl EndpointCollector {
    fn new(pools: Arc<Mutex<Vec<Weak<Pool>>>>) -> prometheus::Result<Self> {
        let readers: [(Definition<2>, ReadEndpoint); 4] = [
            (QUEUE, |endpoint, _| Some(endpoint.load().waiting() as f64)),
            (IN_FLIGHT, |endpoint, _| Some(endpoint.load().own_in_flight() as f64)),
            (IN_FLIGHT_TOKENS, |endpoint, _| Some(endpoint.load().own().tokens as f64)),
            (METRICS_AGE, |endpoint, now| match endpoint.load().age(now) {
                Age::Never => None,
                Age::Since(age) => Some(age.as_secs_f64()),
            }),
        ];
        let mut columns = Vec::new();
        for (definition, read) in readers {
            let (name, help) = (definition.name(), definition.help());
            columns.push(Column { name, help, labels: definition.labels().to_vec(), read });
            if let Some((name, labels)) = definition.legacy_shape() {
                columns.push(Column { name, help: definition.legacy_help(), labels, read });
            }
        }
        let describe = |name: &str, help: String, labels: &[&str]| {
            let labels = labels.iter().map(|label| (*label).to_owned()).collect();
            Desc::new(name.to_owned(), help, labels, HashMap::new())
        };
        let mut descriptions = vec![describe(ENDPOINTS.name(), ENDPOINTS.help(), &ENDPOINTS.labels())?];
        for column in &columns {
            descriptions.push(describe(column.name, column.help.clone(), &column.labels)?);
        }
        Ok(Self { pools, columns, descriptions })
    }
}

impl Collector for EndpointCollector {
    fn desc(&self) -> Vec<&Desc> {
        self.descriptions.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let pools: Vec<Arc<Pool>> = self.pools.lock().iter().filter_map(Weak::upgrade).collect();
        let snapshots: Vec<_> = pools.iter().map(|pool| (pool.name(), pool.snapshot())).collect();
        let now = Instant::now();
        let sizes = snapshots
            .iter()
            .map(|(name, snapshot)| sample(&ENDPOINTS.labels(), &[name], snapshot.len() as f64))
            .collect();
        let mut families = vec![family(ENDPOINTS.name(), ENDPOINTS.help(), sizes)];
        let labels: Vec<Vec<Cow<'_, str>>> = snapshots.iter().map(|(_, snapshot)| labels(snapshot)).collect();
        for column in &self.columns {
            let mut samples = Vec::new();
            for ((name, snapshot), labels) in snapshots.iter().zip(&labels) {
                for (endpoint, label) in snapshot.endpoints().iter().zip(labels) {
                    if let Some(value) = (column.read)(endpoint, now) {
                        samples.push(sample(&column.labels, &[name, label], value));
                    }
                }
            }
            families.push(family(column.name, column.help.clone(), samples));
        }
        families
    }
}

/// What the endpoints are called on the page. A name that occurs in several namespaces gets its namespace in front: the
/// same series twice would make a page that no scraper takes.
fn labels(snapshot: &Snapshot) -> Vec<Cow<'_, str>> {
    let mut names: HashMap<&str, u32> = HashMap::new();
    for endpoint in snapshot.endpoints() {
        *names.entry(endpoint.id().name()).or_default() += 1;
    }
    let label = |endpoint: &'_ Endpoint| -> String {
        format!("{}/{}", endpoint.id().namespace(), endpoint.id().name())
    };
    snapshot
        .endpoints()
        .iter()
        .map(|endpoint| match names.get(endpoint.id().name()) {
            Some(2..) => Cow::Owned(label(endpoint)),
            _ => Cow::Borrowed(endpoint.id().name()),
        })
        .collect()
}

fn family(name: &str, help: String, samples: Vec<Metric>) -> MetricFamily {
    let mut family = MetricFamily::default();
    family.set_name(name.to_owned());
    family.set_help(help);
    family.set_field_type(MetricType::GAUGE);
    family.set_metric(samples);
    family
}

fn sample(names: &[&str], values: &[&str], value: f64) -> Metric {
    let mut labels: Vec<LabelPair> = names
        .iter()
        .zip(values)
        .map(|(name, value)| {
            let mut label = LabelPair::default();
            label.set_name((*name).to_owned());
            label.set_value((*value).to_owned());
            label
        })
        .collect();
    labels.sort_by(|a, b| a.name().cmp(b.name()));
    let mut gauge = Gauge::default();
    gauge.set_value(value);
    let mut metric = Metric::from_gauge(gauge);
    metric.set_label(labels);
    metric
}
