//! Feature gates that are gone.

/// A gate of an earlier release, and what became of it.
const GONE: &[(&str, &str)] = &[
    ("dataLayer", "the data layer is always on"),
    ("enableLegacyMetrics", "metrics are always read by the data layer"),
    ("epdDisaggregation", "the profile handler alone decides about disaggregation"),
    ("prepareDataPlugins", "data producers always run"),
];

/// Why the gate `name` is gone; `None` if there never was one.
pub(in crate::config) fn why_gone(name: &str) -> Option<&'static str> {
    GONE.iter().find(|(gone, _)| *gone == name).map(|(_, why)| *why)
}
