//! Durations of plugin calls.

use std::sync::Arc;
use std::time::Instant;

use prometheus::{Histogram, HistogramVec, Registry};

use super::buckets::SCHEDULING_SECONDS;
use super::family::{Definition, Family, Twin};
use crate::request::ParserKind;
use crate::scheduling::Stopwatch;

const DURATION: Definition<3> = Definition::new(
    "llm_d_epp_plugin_duration_seconds",
    "Time of one call of a plugin, in seconds.",
    ["extension_point", "plugin_type", "plugin_name"],
)
.legacy(
    "inference_extension_plugin_duration_seconds",
    &[("extension_point", "extension_point"), ("plugin_type", "plugin_type"), ("plugin_name", "plugin_name")],
)
.buckets(SCHEDULING_SECONDS);

/// The family of all timers.
pub(super) struct TimerFamily(Family<HistogramVec, 3>);

impl TimerFamily {
    pub(super) fn register(registry: &Registry) -> Self {
        Self(Family::register(DURATION, registry))
    }

    pub(super) fn timer(&self, point: ExtensionPoint, kind: &str, name: &str) -> PluginTimer {
        PluginTimer { series: self.0.child([point.label(), kind, name]) }
    }
}

/// A parser of the configuration, and the measures of its two calls.
#[derive(Clone, Debug)]
pub struct TimedParser {
    /// Instance name.
    pub name: Arc<str>,
    /// The parser.
    pub kind: ParserKind,
    /// Measures the reading of request bodies.
    pub request_timer: PluginTimer,
    /// Measures the reading of response bodies.
    pub response_timer: PluginTimer,
}

/// Measures the calls of one plugin at one extension point.
#[derive(Clone, Debug)]
pub struct PluginTimer {
    series: Twin<Histogram>,
}

impl PluginTimer {
    /// Runs `call` and records how long it took, in seconds.
    pub fn time<R>(&self, call: impl FnOnce() -> R) -> R {
        let started = self.start();
        let result = call();
        self.stop(started);
        result
    }
}

impl Stopwatch for PluginTimer {
    fn start(&self) -> Instant {
        Instant::now()
    }

    fn stop(&self, started: Instant) {
        self.series.observe(started.elapsed().as_secs_f64());
    }
}

/// Where in the life of a request a plugin is called; the value of the `extension_point` label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ExtensionPoint {
    /// Plugin that reads request headers.
    RequestHeader,
    /// Screener.
    Screener,
    /// Admitter.
    Admission,
    /// Profile handler, choosing profiles.
    ProfilePicker,
    /// Filter.
    Filter,
    /// Scorer.
    Scorer,
    /// Picker.
    Picker,
    /// Profile handler, choosing the primary profile.
    ProcessProfilesResults,
    /// Parser, request body.
    RequestParsing,
    /// Parser, response body.
    ResponseParsing,
    /// Data producer.
    DataProducer,
    /// Pre-request hook.
    PreRequest,
    /// Response header hook.
    ResponseReceived,
    /// Hook at the end of a response, or report on a complete one.
    ResponseComplete,
}

impl ExtensionPoint {
    /// Label value.
    pub fn label(self) -> &'static str {
        match self {
            Self::RequestHeader => "RequestHeader",
            Self::Screener => "Screener",
            Self::Admission => "Admission",
            Self::ProfilePicker => "ProfilePicker",
            Self::Filter => "Filter",
            Self::Scorer => "Scorer",
            Self::Picker => "Picker",
            Self::ProcessProfilesResults => "ProcessProfilesResults",
            Self::RequestParsing => "RequestParsing",
            Self::ResponseParsing => "ResponseParsing",
            Self::DataProducer => "DataProducer",
            Self::PreRequest => "PreRequest",
            Self::ResponseReceived => "ResponseReceived",
            Self::ResponseComplete => "ResponseComplete",
        }
    }
}
