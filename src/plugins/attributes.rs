//! How plugins read the scalar attributes of endpoints.

use std::time::Instant;

use super::{BuildCx, BuildError, sources};
use crate::pool::{Age, AttributeKey, Endpoint, Load, LoadFigure};

/// The usual producer: the extractor of metrics pages.
const DEFAULT_PRODUCER: &str = sources::CORE_METRICS_EXTRACTOR.name;

/// A name, the figure that it stands for, and how it is read.
type Figure = (&'static str, LoadFigure, fn(&Load) -> f64);

/// Figures of every endpoint, under the names that the reference declares for them.
const FIGURES: &[Figure] = &[
    ("KVCacheUsagePercent", LoadFigure::KvUsage, Load::kv_usage),
    ("RunningRequestsSize", LoadFigure::Running, |load| load.running() as f64),
    ("WaitingQueueSize", LoadFigure::Waiting, |load| load.waiting() as f64),
];

/// Where a plugin finds the attribute that its parameters name.
#[derive(Debug)]
pub(super) enum AttributeSource {
    /// A figure that every endpoint has once it was read.
    Figure(LoadFigure, fn(&Load) -> f64),
    /// An attribute that some plugin writes.
    Attribute(AttributeKey),
}

impl AttributeSource {
    /// From the parameter `name` with the value `attribute`, and the parameter `producer`. An absent producer is the
    /// extractor of metrics pages; one that is given as an empty string is none at all. `attribute/producer`, the
    /// older form, is taken with a warning.
    pub(super) fn read(
        cx: &mut BuildCx<'_>,
        name: &'static str,
        attribute: &str,
        producer: Option<&str>,
    ) -> Result<Self, BuildError> {
        let nobody = cx.is_empty_text("producer");
        let (attribute, producer) = match (producer, attribute.rsplit_once('/')) {
            (Some(producer), _) => (attribute, producer),
            (None, _) if nobody => (attribute, ""),
            (None, Some((attribute, producer))) => {
                cx.warn(format!(
                    "names the producer in {name}, the older form; write `{name}: {attribute}` and `producer: {producer}`"
                ));
                (attribute, producer)
            }
            (None, None) => (attribute, DEFAULT_PRODUCER),
        };
        if attribute.is_empty() {
            return Err(BuildError::at(name, "is required: the name of an attribute of endpoints"));
        }
        let figure = FIGURES.iter().find(|(known, ..)| producer == DEFAULT_PRODUCER && *known == attribute);
        if let Some((_, figure, value)) = figure {
            return Ok(Self::Figure(*figure, *value));
        }
        let key = AttributeKey::new(attribute, producer);
        cx.reads_attribute(&key);
        Ok(Self::Attribute(key))
    }

    /// The value of an endpoint, however old; `None` if there never was one.
    pub(super) fn value(&self, endpoint: &Endpoint, now: Instant) -> Option<f64> {
        let load = endpoint.load();
        match self {
            Self::Figure(figure, value) => (load.figure_age(*figure, now) != Age::Never).then(|| value(load)),
            Self::Attribute(key) => load.attribute(key),
        }
    }
}
