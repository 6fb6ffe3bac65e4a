//! The `flowControl` section, as written.

use std::time::Duration;

use serde_json::Value;

use super::schema::{Reference, reference};
use crate::document::scalar::{go_duration, quantity};
use crate::document::{Fields, Level, Node, Problems};

/// A priority band. `None` is for the default of whoever reads it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PriorityBand {
    /// Priority; below 0 is sheddable.
    pub priority: Option<i32>,
    /// Bytes that may wait. 0 stands for the default too.
    pub max_bytes: Option<u64>,
    /// Requests that may wait. 0 stands for the default too.
    pub max_requests: Option<u64>,
    /// Fairness policy.
    pub fairness_policy: Option<Reference>,
    /// Ordering policy.
    pub ordering_policy: Option<Reference>,
}

/// `flowControl`. `None` is for the default of whoever reads it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FlowControl {
    /// Line of the section; 0 if it is absent.
    pub line: u32,
    /// Bytes that may wait in all; 0 is unlimited.
    pub max_bytes: Option<u64>,
    /// Requests that may wait in all; 0 is unlimited.
    pub max_requests: Option<u64>,
    /// Longest wait; 0 is forever.
    pub default_request_ttl: Option<Duration>,
    /// Longest wait while there are no endpoints; 0 is forever.
    pub no_endpoint_request_ttl: Option<Duration>,
    /// What priorities without a band of their own get.
    pub default_priority_band: Option<PriorityBand>,
    /// The same for priorities below 0.
    pub default_negative_priority_band: Option<PriorityBand>,
    /// Bands by priority.
    pub priority_bands: Vec<PriorityBand>,
    /// Caps what a priority may use.
    pub usage_limit_policy: Option<Reference>,
    /// Says whether the pool is full.
    pub saturation_detector: Option<Reference>,
    /// Running requests may be stopped in favour of more important ones.
    pub enable_eviction: bool,
    /// The section as a value, to print it.
    pub as_written: Option<Value>,
}

impl FlowControl {
    pub(super) fn read(node: &Node, path: &str, problems: &mut Problems) -> Self {
        let mut section = Self { line: node.line, as_written: Some(node.to_json()), ..Self::default() };
        let Some(mut fields) = Fields::of(node, path, problems) else { return section };
        section.line = fields.line();
        section.max_bytes = fields.scalar("maxBytes", problems, quantity);
        section.max_requests = fields.scalar("maxRequests", problems, quantity);
        section.default_request_ttl = fields.scalar("defaultRequestTTL", problems, go_duration);
        section.no_endpoint_request_ttl = fields.scalar("noEndpointRequestTTL", problems, go_duration);
        for (name, band) in [
            ("defaultPriorityBand", &mut section.default_priority_band),
            ("defaultNegativePriorityBand", &mut section.default_negative_priority_band),
        ] {
            *band = fields.get(name).and_then(|node| PriorityBand::read(node, &fields.path(name), problems));
        }
        let at = fields.path("priorityBands");
        for (index, node) in fields.list("priorityBands", problems).iter().enumerate() {
            section.priority_bands.extend(PriorityBand::read(node, &format!("{at}[{index}]"), problems));
        }
        section.usage_limit_policy = plain_reference(&mut fields, "usageLimitPolicyPluginRef", problems);
        if let Some(node) = fields.get("saturationDetector") {
            section.saturation_detector = reference(node, &fields.path("saturationDetector"), problems);
        }
        section.enable_eviction = fields.boolean("enableEviction", problems).unwrap_or(false);
        fields.finish(Level::Error, problems);
        section
    }

    /// True if anything is set besides the saturation detector.
    pub fn has_settings(&self) -> bool {
        let bare = Self {
            line: self.line,
            saturation_detector: self.saturation_detector.clone(),
            as_written: self.as_written.clone(),
            ..Self::default()
        };
        *self != bare
    }

    /// All bands, the default ones first.
    pub fn bands(&self) -> impl Iterator<Item = &PriorityBand> {
        let defaults = self.default_priority_band.iter().chain(&self.default_negative_priority_band);
        defaults.chain(&self.priority_bands)
    }
}

impl PriorityBand {
    fn read(node: &Node, path: &str, problems: &mut Problems) -> Option<Self> {
        let mut fields = Fields::of(node, path, problems)?;
        let band = Self {
            priority: fields.integer("priority", problems),
            max_bytes: fields.scalar("maxBytes", problems, quantity),
            max_requests: fields.scalar("maxRequests", problems, quantity),
            fairness_policy: plain_reference(&mut fields, "fairnessPolicyRef", problems),
            ordering_policy: plain_reference(&mut fields, "orderingPolicyRef", problems),
        };
        fields.finish(Level::Error, problems);
        Some(band)
    }
}

/// A field whose string is the reference itself.
fn plain_reference(
    fields: &mut Fields<'_>,
    name: &'static str,
    problems: &mut Problems,
) -> Option<Reference> {
    let text = fields.text(name, problems).filter(|text| !text.is_empty())?;
    Some(Reference { name: text.to_owned(), line: fields.line_of(name), path: fields.path(name) })
}
