//! The `flowControl` section, as written.

use std::time::Duration;

use serde_json::Value;

use super::reference::Reference;
use crate::document::scalar::{go_duration, quantity};
use crate::document::{Fields, Level, Node, Problems};
use crate::flow::settings::{DEFAULT_BAND_BYTES, DEFAULT_BAND_REQUESTS};
use crate::plugins::flow_control::utilization_detector::{
    doubt_about_staleness, kv_threshold, staleness_threshold,
};

/// A priority band. `None` is for the default of whoever reads it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PriorityBand {
    /// Priority; below 0 is sheddable.
    pub priority: Option<i32>,
    /// Bytes that may wait. 0 stands for the default too.
    pub max_bytes: Option<u64>,
    /// Requests that may wait. 0 stands for the default too.
    pub max_requests: Option<u64>,
    /// Longest wait; 0 is forever.
    pub default_request_ttl: Option<Duration>,
    /// Fairness policy.
    pub fairness_policy: Option<Reference>,
    /// Ordering policy.
    pub ordering_policy: Option<Reference>,
    /// Line of the band; 0 if it is absent.
    pub line: u32,
    /// Path of the band.
    pub path: String,
}

/// `saturationDetector`: a reference, or thresholds as they stood here before there were plugins.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SaturationDetector {
    /// The plugin.
    pub plugin: Option<Reference>,
    /// Waiting requests of a full endpoint; at least 1.
    pub queue_depth_threshold: Option<u64>,
    /// Cache usage of a full endpoint, in (0, 1].
    pub kv_cache_util_threshold: Option<f64>,
    /// Age from which a reading is not believed; above 0.
    pub staleness_threshold: Option<Duration>,
    /// Line of the section.
    pub line: u32,
    /// Path of the section.
    pub path: String,
    /// The section as a value, to print it.
    pub as_written: Value,
}

impl SaturationDetector {
    pub(super) fn read(node: &Node, path: &str, problems: &mut Problems) -> Option<Self> {
        let mut fields = Fields::of(node, path, problems)?;
        let plugin = plain_reference(&mut fields, "pluginRef", problems);
        let mut section = Self {
            plugin,
            staleness_threshold: None,
            line: node.line,
            path: path.to_owned(),
            as_written: node.to_json(),
            ..Self::default()
        };
        let field = "metricsStalenessThreshold";
        section.staleness_threshold = fields.scalar(field, problems, staleness_threshold);
        if let Some(doubt) = section.staleness_threshold.and_then(doubt_about_staleness) {
            problems.warning(fields.line_of(field), fields.path(field), doubt);
        }
        let field = "queueDepthThreshold";
        if let Some(depth) = fields.integer(field, problems) {
            section.queue_depth_threshold = u64::try_from(depth).ok().filter(|depth| *depth > 0);
            if section.queue_depth_threshold.is_none() {
                let message = format!("got {depth}, expected a whole number of at least 1");
                problems.error(fields.line_of(field), fields.path(field), message);
            }
        }
        let field = "kvCacheUtilThreshold";
        if let Some(usage) = fields.number(field, problems) {
            match kv_threshold(usage) {
                Ok(usage) => section.kv_cache_util_threshold = Some(usage),
                Err(message) => problems.error(fields.line_of(field), fields.path(field), message),
            }
        }
        fields.finish(Level::Error, problems);
        Some(section)
    }

    /// True if a threshold stands in the section itself.
    pub fn has_thresholds(&self) -> bool {
        self.queue_depth_threshold.is_some()
            || self.kv_cache_util_threshold.is_some()
            || self.staleness_threshold.is_some()
    }
}

/// `flowControl`. `None` is for the default of whoever reads it.
#[derive(Clone, Debug, Default, PartialEq)]
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
    /// The band of priorities that have none of their own.
    pub default_priority_band: Option<PriorityBand>,
    /// The same for priorities below 0.
    pub default_negative_priority_band: Option<PriorityBand>,
    /// Bands by priority.
    pub priority_bands: Vec<PriorityBand>,
    /// Caps what a priority may use.
    pub usage_limit_policy: Option<Reference>,
    /// Says whether the pool is full.
    pub saturation_detector: Option<SaturationDetector>,
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
        section.default_request_ttl = fields.scalar("defaultRequestTTL", problems, longest_wait);
        section.no_endpoint_request_ttl = fields.scalar("noEndpointRequestTTL", problems, longest_wait);
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
            section.saturation_detector =
                SaturationDetector::read(node, &fields.path("saturationDetector"), problems);
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
}

impl PriorityBand {
    fn read(node: &Node, path: &str, problems: &mut Problems) -> Option<Self> {
        let mut fields = Fields::of(node, path, problems)?;
        let mut band = Self {
            priority: fields.integer("priority", problems),
            max_bytes: fields.scalar("maxBytes", problems, quantity),
            max_requests: fields.scalar("maxRequests", problems, quantity),
            default_request_ttl: fields.scalar("defaultRequestTTL", problems, longest_wait),
            fairness_policy: plain_reference(&mut fields, "fairnessPolicyRef", problems),
            ordering_policy: plain_reference(&mut fields, "orderingPolicyRef", problems),
            line: node.line,
            path: path.to_owned(),
        };
        let bounds = [
            ("maxBytes", &mut band.max_bytes, DEFAULT_BAND_BYTES),
            ("maxRequests", &mut band.max_requests, DEFAULT_BAND_REQUESTS),
        ];
        for (name, written, default) in bounds {
            if *written == Some(0) {
                let message = format!(
                    "is 0, which stands for the default of {default} and not for none; expected at least 1"
                );
                problems.warning(fields.line_of(name), fields.path(name), message);
            }
        }
        fields.finish(Level::Error, problems);
        Some(band)
    }
}

/// Waits shorter than this end before a request can be released.
const SHORTEST_WAIT: Duration = Duration::from_millis(1);

/// Reads how long a request may wait; 0 is forever.
fn longest_wait(text: &str) -> Result<Duration, String> {
    let wait = go_duration(text)?;
    if wait.is_zero() || wait >= SHORTEST_WAIT {
        return Ok(wait);
    }
    Err(format!(
        "got \"{text}\", expected 0 (for ever) or at least 1ms: every request that waits would be refused"
    ))
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
