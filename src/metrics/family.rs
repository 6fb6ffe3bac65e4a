//! One series under its current and its legacy name.

use std::collections::HashMap;

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{
    Counter, CounterVec, Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec,
    IntGauge, IntGaugeVec, Opts, Registry,
};
use smallvec::SmallVec;

/// Name, meaning, labels and buckets of a series. The value of `N` makes the number of label values a matter of types.
#[derive(Clone, Copy, Debug)]
pub(super) struct Definition<const N: usize> {
    name: &'static str,
    help: &'static str,
    labels: [&'static str; N],
    legacy: Option<Legacy>,
    buckets: &'static [f64],
}

/// Labels of a legacy twin, each with the current label that its value comes from.
pub(super) type LegacyLabels = &'static [(&'static str, &'static str)];

#[derive(Clone, Copy, Debug)]
struct Legacy {
    name: &'static str,
    labels: LegacyLabels,
    /// True if its help points to the current name. The help of two legacy families of the reference does not.
    announced: bool,
}

impl<const N: usize> Definition<N> {
    pub(super) const fn new(name: &'static str, help: &'static str, labels: [&'static str; N]) -> Self {
        Self { name, help, labels, legacy: None, buckets: &[] }
    }

    pub(super) const fn buckets(mut self, buckets: &'static [f64]) -> Self {
        self.buckets = buckets;
        self
    }

    /// Adds a deprecated twin.
    pub(super) const fn legacy(mut self, name: &'static str, labels: LegacyLabels) -> Self {
        self.legacy = Some(Legacy { name, labels, announced: true });
        self
    }

    /// Adds a twin whose help does not say that it is deprecated.
    pub(super) const fn unannounced_legacy(mut self, name: &'static str, labels: LegacyLabels) -> Self {
        self.legacy = Some(Legacy { name, labels, announced: false });
        self
    }

    pub(super) fn name(&self) -> &'static str {
        self.name
    }

    pub(super) fn labels(&self) -> [&'static str; N] {
        self.labels
    }

    /// Name and label names of the legacy twin.
    pub(super) fn legacy_shape(&self) -> Option<(&'static str, Vec<&'static str>)> {
        self.legacy.map(|legacy| (legacy.name, legacy.labels.iter().map(|(name, _)| *name).collect()))
    }

    /// Help text: families of the reference carry its stage mark, ours do not.
    pub(super) fn help(&self) -> String {
        if self.name.starts_with("pointsman_") {
            self.help.to_owned()
        } else {
            format!("[ALPHA] {}", self.help)
        }
    }

    pub(super) fn legacy_help(&self) -> String {
        match self.legacy {
            Some(Legacy { announced: true, .. }) => {
                format!("[ALPHA] [Deprecated: Use {}] {}", self.name, self.help)
            }
            _ => self.help(),
        }
    }
}

/// A vector of the `prometheus` crate.
pub(super) trait Vector: Collector + Clone + 'static {
    /// One series of it.
    type Child: Clone;

    fn create(name: &str, help: String, labels: &[&str], buckets: &[f64]) -> prometheus::Result<Self>;
    fn child(&self, values: &[&str]) -> Self::Child;
    fn remove(&self, values: &[&str]);
}

macro_rules! vector {
    ($vector:ty, $child:ty) => {
        impl Vector for $vector {
            type Child = $child;

            fn create(
                name: &str,
                help: String,
                labels: &[&str],
                _buckets: &[f64],
            ) -> prometheus::Result<Self> {
                Self::new(Opts::new(name, help), labels)
            }

            fn child(&self, values: &[&str]) -> $child {
                self.with_label_values(values)
            }

            fn remove(&self, values: &[&str]) {
                // Fails only if there is no such child, which is what the caller wants.
                let _ = self.remove_label_values(values);
            }
        }
    };
}

vector!(IntCounterVec, IntCounter);
vector!(IntGaugeVec, IntGauge);
vector!(GaugeVec, Gauge);
vector!(CounterVec, Counter);

impl Vector for HistogramVec {
    type Child = Histogram;

    fn create(name: &str, help: String, labels: &[&str], buckets: &[f64]) -> prometheus::Result<Self> {
        Self::new(HistogramOpts::new(name, help).buckets(buckets.to_vec()), labels)
    }

    fn child(&self, values: &[&str]) -> Histogram {
        self.with_label_values(values)
    }

    fn remove(&self, values: &[&str]) {
        let _ = self.remove_label_values(values);
    }
}

/// Label names and values of one series.
pub(super) type LabelValues = Vec<(String, String)>;

/// A registered family and its legacy twin. Nothing is exported before the first child exists. A twin with the same
/// labels is a mirror of the family and costs nothing but space on the page; another one is counted on its own.
#[derive(Clone)]
pub(super) struct Family<V, const N: usize> {
    current: V,
    legacy: Option<LegacyFamily<V>>,
}

#[derive(Clone)]
struct LegacyFamily<V> {
    vector: V,
    /// For each of its labels the place of the value among the current labels.
    columns: Vec<usize>,
}

impl<V: Vector, const N: usize> Family<V, N> {
    pub(super) fn register(definition: Definition<N>, registry: &Registry) -> Self {
        let current =
            make::<V>(registry, definition.name, definition.help(), &definition.labels, definition.buckets);
        let mirrored = definition.legacy.filter(|legacy| mirrors(&definition.labels, legacy.labels));
        if let Some(legacy) = mirrored {
            mirror(registry, &current, legacy.name, definition.legacy_help(), &definition.labels);
            return Self { current, legacy: None };
        }
        let legacy = definition.legacy.map(|legacy| {
            let (names, columns): (Vec<&str>, Vec<usize>) = legacy
                .labels
                .iter()
                .filter_map(|(name, source)| {
                    definition.labels.iter().position(|label| label == source).map(|column| (*name, column))
                })
                .unzip();
            let vector =
                make::<V>(registry, legacy.name, definition.legacy_help(), &names, definition.buckets);
            LegacyFamily { vector, columns }
        });
        Self { current, legacy }
    }

    /// The series with these label values, in the order of the definition; made if there is none yet.
    pub(super) fn child(&self, values: [&str; N]) -> Twin<V::Child> {
        let legacy = self.legacy.as_ref().map(|legacy| legacy.vector.child(&legacy.values(values)));
        Twin { current: self.current.child(&values), legacy }
    }

    /// Drops the series with these label values, and its twin.
    pub(super) fn remove(&self, values: [&str; N]) {
        self.remove_current(values);
        self.remove_legacy(values);
    }

    /// Drops the series with these label values and leaves its twin, which others may share.
    pub(super) fn remove_current(&self, values: [&str; N]) {
        self.current.remove(&values);
    }

    /// Drops the twin of the series with these label values.
    pub(super) fn remove_legacy(&self, values: [&str; N]) {
        if let Some(legacy) = &self.legacy {
            legacy.vector.remove(&legacy.values(values));
        }
    }

    /// Label values of all children of the current name, by label name.
    pub(super) fn children(&self) -> Vec<LabelValues> {
        self.gauges().into_iter().map(|(labels, _)| labels).collect()
    }

    /// The same, each with its value if it is a gauge.
    pub(super) fn gauges(&self) -> Vec<(LabelValues, f64)> {
        self.each(|metric| metric.get_gauge().get_value())
    }

    /// The same, each with its count if it is a counter.
    pub(super) fn counts(&self) -> Vec<(LabelValues, u64)> {
        self.each(|metric| metric.get_counter().get_value() as u64)
    }

    fn each<T>(&self, read: impl Fn(&prometheus::proto::Metric) -> T) -> Vec<(LabelValues, T)> {
        let families = self.current.collect();
        families
            .iter()
            .flat_map(prometheus::proto::MetricFamily::get_metric)
            .map(|metric| {
                let labels = metric.get_label().iter();
                let labels =
                    labels.map(|label| (label.name().to_owned(), label.value().to_owned())).collect();
                (labels, read(metric))
            })
            .collect()
    }
}

impl<V> LegacyFamily<V> {
    fn values<'a, const N: usize>(&self, values: [&'a str; N]) -> SmallVec<[&'a str; 8]> {
        self.columns.iter().filter_map(|column| values.get(*column).copied()).collect()
    }
}

/// True if a legacy family has the labels of the current one, under the same names.
fn mirrors(current: &[&str], legacy: LegacyLabels) -> bool {
    legacy.len() == current.len()
        && legacy.iter().all(|(name, source)| name == source && current.contains(name))
}

/// Shows all series of `current` under another name, too. Nothing is counted twice for it.
#[allow(clippy::expect_used, reason = "names are constants of this crate; a test registers all of them")]
fn mirror<V: Vector>(registry: &Registry, current: &V, name: &str, help: String, labels: &[&str]) {
    let labels = labels.iter().map(|label| (*label).to_owned()).collect();
    let desc = Desc::new(name.to_owned(), help, labels, HashMap::new()).expect("metric names are valid");
    registry.register(Box::new(Mirror { current: current.clone(), desc })).expect("metric names are unique");
}

/// A family that has the values of another one under its own name and help.
struct Mirror<V> {
    current: V,
    desc: Desc,
}

impl<V: Vector> Collector for Mirror<V> {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.desc]
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let mut families = self.current.collect();
        for family in &mut families {
            family.set_name(self.desc.fq_name.clone());
            family.set_help(self.desc.help.clone());
        }
        families
    }
}

/// Makes and registers a vector. Names are constants of this crate; a test registers all of them.
#[allow(clippy::expect_used, reason = "only a name that is no metric name, or one used twice, can fail here")]
fn make<V: Vector>(registry: &Registry, name: &str, help: String, labels: &[&str], buckets: &[f64]) -> V {
    let vector = V::create(name, help, labels, buckets).expect("metric names are valid");
    registry.register(Box::new(vector.clone())).expect("metric names are unique");
    vector
}

/// One series under both names.
#[derive(Clone, Debug)]
pub(super) struct Twin<M> {
    current: M,
    legacy: Option<M>,
}

impl<M> Twin<M> {
    fn each(&self) -> impl Iterator<Item = &M> {
        std::iter::once(&self.current).chain(&self.legacy)
    }
}

impl<M> Twin<M> {
    /// The series under its current name.
    pub(super) fn into_current(self) -> M {
        self.current
    }
}

impl Twin<Histogram> {
    pub(super) fn observe(&self, value: f64) {
        self.each().for_each(|histogram| histogram.observe(value));
    }
}

impl Twin<IntCounter> {
    pub(super) fn inc(&self) {
        self.each().for_each(IntCounter::inc);
    }

    pub(super) fn inc_by(&self, count: u64) {
        self.each().for_each(|counter| counter.inc_by(count));
    }
}

impl Twin<IntGauge> {
    pub(super) fn add(&self, change: i64) {
        self.each().for_each(|gauge| gauge.add(change));
    }

    pub(super) fn set(&self, value: u64) {
        self.each().for_each(|gauge| gauge.set(i64::try_from(value).unwrap_or(i64::MAX)));
    }
}

impl Twin<Gauge> {
    pub(super) fn set(&self, value: f64) {
        self.each().for_each(|gauge| gauge.set(value));
    }
}
