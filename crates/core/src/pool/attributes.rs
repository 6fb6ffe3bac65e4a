//! Scalar figures of an endpoint beyond those that every engine has.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use arc_swap::ArcSwap;

/// Most attributes that an endpoint has. Their names come from the configuration, so no page can make more.
const MAX_ATTRIBUTES: usize = 256;

/// Name of an attribute: the figure's name, and the plugin instance that writes it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AttributeKey {
    attribute: Arc<str>,
    producer: Arc<str>,
}

impl AttributeKey {
    /// The attribute that the plugin instance `producer` writes; empty for one that belongs to no plugin.
    pub fn new(attribute: &str, producer: &str) -> Self {
        Self { attribute: attribute.into(), producer: producer.into() }
    }

    /// Name of the figure.
    pub fn attribute(&self) -> &str {
        &self.attribute
    }

    /// Plugin instance that writes the attribute; empty if the attribute belongs to no plugin.
    pub fn producer(&self) -> &str {
        &self.producer
    }
}

impl fmt::Display for AttributeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.producer {
            "" => f.write_str(&self.attribute),
            producer => write!(f, "{} of \"{producer}\"", self.attribute),
        }
    }
}

/// A series of a metrics page whose value becomes an attribute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttributeSeries {
    /// The attribute that gets the value.
    pub attribute: AttributeKey,
    /// The name of the series.
    pub metric: &'static str,
    /// The name and the value of a label that must match; `None` for any labels.
    pub label: Option<(&'static str, &'static str)>,
}

/// The attributes of one endpoint. Reading and writing a known one is lock-free and allocates nothing.
#[derive(Debug, Default)]
pub(super) struct Attributes(ArcSwap<Vec<(AttributeKey, Arc<AtomicU64>)>>);

impl Attributes {
    pub(super) fn get(&self, key: &AttributeKey) -> Option<f64> {
        let all = self.0.load();
        let (_, value) = all.iter().find(|(known, _)| known == key)?;
        Some(f64::from_bits(value.load(Relaxed)))
    }

    /// Sets a value. A value that is not a finite number changes nothing.
    pub(super) fn set(&self, key: &AttributeKey, value: f64) {
        if !value.is_finite() {
            return;
        }
        let bits = value.to_bits();
        if let Some((_, known)) = self.0.load().iter().find(|(known, _)| known == key) {
            known.store(bits, Relaxed);
            return;
        }
        self.0.rcu(|all| {
            let mut all = Vec::clone(all);
            match all.iter().find(|(known, _)| known == key) {
                Some((_, known)) => known.store(bits, Relaxed),
                None if all.len() < MAX_ATTRIBUTES => all.push((key.clone(), Arc::new(bits.into()))),
                None => {}
            }
            all
        });
    }

    /// All of them, in the order in which they came.
    pub(super) fn listed(&self) -> Vec<(AttributeKey, f64)> {
        let all = self.0.load();
        all.iter().map(|(key, value)| (key.clone(), f64::from_bits(value.load(Relaxed)))).collect()
    }

    /// Makes these the attributes, and there are no others.
    pub(super) fn become_these(&self, all: &[(AttributeKey, f64)]) {
        let known = self.0.load();
        let others = known.iter().any(|(key, _)| !all.iter().any(|(wanted, _)| wanted == key));
        if others {
            self.clear();
        }
        for (key, value) in all {
            self.set(key, *value);
        }
    }

    pub(super) fn clear(&self) {
        self.0.store(Arc::default());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attribute_keeps_its_last_number_and_is_known_by_its_name_and_producer() {
        let attributes = Attributes::default();
        let (gpu, other) = (AttributeKey::new("gpu", "dcgm"), AttributeKey::new("gpu", ""));
        assert_eq!(attributes.get(&gpu), None);
        attributes.set(&gpu, 0.25);
        attributes.set(&gpu, f64::NAN);
        attributes.set(&gpu, f64::INFINITY);
        assert_eq!((attributes.get(&gpu), attributes.get(&other)), (Some(0.25), None));
        attributes.set(&gpu, -3.0);
        attributes.set(&other, 1.0);
        assert_eq!((attributes.get(&gpu), attributes.get(&other)), (Some(-3.0), Some(1.0)));
        attributes.clear();
        assert_eq!(attributes.get(&gpu), None);
    }

    #[test]
    fn an_endpoint_has_no_more_attributes_than_the_bound() {
        let attributes = Attributes::default();
        let key = |number: usize| AttributeKey::new(&number.to_string(), "");
        (0..=MAX_ATTRIBUTES).for_each(|number| attributes.set(&key(number), 1.0));
        assert_eq!(attributes.get(&key(MAX_ATTRIBUTES - 1)), Some(1.0));
        assert_eq!(attributes.get(&key(MAX_ATTRIBUTES)), None);
    }
}
