//! The `flowControl` section with its references resolved: settings as values.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::flow_control::{FlowControl, PriorityBand, SaturationDetector};
use super::instances::Instances;
use super::reference::{Reference, near_name};
use crate::document::Problems;
use crate::flow::detector::{Detector, DetectorKind, Utilization};
use crate::flow::settings::{
    BandSettings, DEFAULT_BAND_BYTES, DEFAULT_BAND_REQUESTS, FlowSettings, no_endpoint_ttl, request_ttl,
};
use crate::plugins::Roles;

/// A kind of plugin that flow control refers to.
struct Kind<T> {
    /// Name of the role, as error texts call it.
    role: &'static str,
    /// The type that stands in for an absent reference, under its own name. It needs no row in `plugins`.
    default_type: &'static str,
    pick: fn(&Roles) -> Option<T>,
}

impl<T: Default> Kind<T> {
    /// The value of what `reference` names, and that name. Faults are said, and the default holds.
    fn resolve(
        &self,
        reference: Option<&Reference>,
        instances: &mut Instances<'_>,
        problems: &mut Problems,
    ) -> (T, Arc<str>) {
        let name = reference.map_or(self.default_type, |reference| &reference.name);
        let (line, path) = reference.map_or((0, ""), |reference| (reference.line, &reference.path));
        let mut value = None;
        if let Some(index) = instances.find(name) {
            instances.mark_used(index);
            let instance = &instances.list()[index];
            value = (self.pick)(&instance.roles);
            if value.is_none() && !instance.broken {
                let message = format!("\"{name}\" is no {}: {}", self.role, instance.abilities());
                let (line, path) =
                    if reference.is_some() { (line, path) } else { (instance.line, &*instance.path) };
                problems.error(line, path, message);
            }
        } else if name != self.default_type {
            let hint = if instances.has_type(name) {
                format!("; add `- type: {name}` to `plugins`")
            } else {
                near_name(name, instances.names())
            };
            problems.error(line, path, format!("there is no plugin named \"{name}\"{hint}"));
        }
        (value.unwrap_or_default(), name.into())
    }
}

/// The saturation detector, which counts whether or not the feature gate is on.
pub(super) fn detector(
    section: &FlowControl,
    instances: &mut Instances<'_>,
    problems: &mut Problems,
) -> Detector {
    let kind = Kind {
        role: "saturation detector",
        default_type: "utilization-detector",
        pick: |roles| roles.detector.clone(),
    };
    let written = section.saturation_detector.as_ref();
    let reference = written.and_then(|written| written.plugin.as_ref());
    let (mut kind, name): (DetectorKind, Arc<str>) = kind.resolve(reference, instances, problems);
    if let Some(written) = written {
        inline(written, &mut kind, &name, problems);
    }
    Detector { name, kind }
}

/// Applies thresholds that stand in the section itself, as they did before there were plugins.
fn inline(written: &SaturationDetector, kind: &mut DetectorKind, name: &str, problems: &mut Problems) {
    if !written.has_thresholds() {
        return;
    }
    let DetectorKind::Utilization(settings) = kind else {
        let message = format!("has thresholds that have no effect: \"{name}\" is no `utilization-detector`");
        problems.warning(written.line, &written.path, message);
        return;
    };
    let message =
        "has thresholds itself, which is deprecated; set them as parameters of a `utilization-detector`";
    problems.warning(written.line, &written.path, message);
    let Utilization { queue_depth_threshold, kv_cache_util_threshold, staleness_threshold, .. } = settings;
    *queue_depth_threshold = written.queue_depth_threshold.unwrap_or(*queue_depth_threshold);
    *kv_cache_util_threshold = written.kv_cache_util_threshold.unwrap_or(*kv_cache_util_threshold);
    *staleness_threshold = written.staleness_threshold.unwrap_or(*staleness_threshold);
}

/// Names of a band's policies, for the effective configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct BandNames {
    pub(super) fairness: Arc<str>,
    pub(super) ordering: Arc<str>,
}

/// Names of all policies, for the effective configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FlowNames {
    pub(super) usage_limit: Arc<str>,
    pub(super) default_band: BandNames,
    pub(super) default_negative_band: Option<BandNames>,
    pub(super) bands: BTreeMap<i32, BandNames>,
}

/// The settings, for an open feature gate.
pub(super) fn settings(
    section: &FlowControl,
    detector: &Detector,
    instances: &mut Instances<'_>,
    problems: &mut Problems,
) -> (FlowSettings, FlowNames) {
    let usage_limit = Kind {
        role: "usage limit policy",
        default_type: "static-usage-limit-policy",
        pick: |roles| roles.usage_limit.clone(),
    };
    let (usage_limit, usage_limit_name) =
        usage_limit.resolve(section.usage_limit_policy.as_ref(), instances, problems);
    let defaults = [&section.default_priority_band, &section.default_negative_priority_band];
    for band in defaults.into_iter().flatten().filter(|band| band.priority.is_some()) {
        problems.warning(band.line, format!("{}.priority", band.path), "has no effect in a default band");
    }
    let written = section.default_priority_band.clone().unwrap_or_default();
    let (default_band, default_names) = band(&written, instances, problems);
    let negative =
        section.default_negative_priority_band.as_ref().map(|written| band(written, instances, problems));
    let (default_negative_band, negative_names) = negative.unzip();
    let (mut bands, mut band_names) = (BTreeMap::new(), BTreeMap::new());
    for written in &section.priority_bands {
        let priority = written.priority.unwrap_or(0);
        let (settings, names) = band(written, instances, problems);
        if bands.insert(priority, settings).is_some() {
            let message = format!("priority {priority} has a band already");
            problems.error(written.line, format!("{}.priority", written.path), message);
        }
        band_names.insert(priority, names);
    }
    // Requests without an objective have priority 0, so its band is always there.
    bands.entry(0).or_insert_with(|| default_band.clone());
    band_names.entry(0).or_insert_with(|| default_names.clone());
    let limit = |written: Option<u64>| written.filter(|limit| *limit > 0);
    let settings = FlowSettings {
        max_bytes: limit(section.max_bytes),
        max_requests: limit(section.max_requests),
        default_request_ttl: request_ttl(section.default_request_ttl),
        no_endpoint_request_ttl: no_endpoint_ttl(
            section.no_endpoint_request_ttl,
            section.default_request_ttl,
        ),
        default_band,
        default_negative_band,
        bands,
        usage_limit,
        eviction: section.enable_eviction,
        detector: detector.clone(),
    };
    let names = FlowNames {
        usage_limit: usage_limit_name,
        default_band: default_names,
        default_negative_band: negative_names,
        bands: band_names,
    };
    (settings, names)
}

/// Checks references that nothing will use, because the feature gate is off.
pub(super) fn check_idle(section: &FlowControl, instances: &mut Instances<'_>, problems: &mut Problems) {
    if section.has_settings() {
        let message = if section.saturation_detector.is_some() {
            "has no effect but for its saturation detector: the feature gate `flowControl` is off"
        } else {
            "has no effect: the feature gate `flowControl` is off"
        };
        problems.warning(section.line, "flowControl", message);
        settings(section, &Detector::default(), instances, problems);
    }
}

fn band(
    written: &PriorityBand,
    instances: &mut Instances<'_>,
    problems: &mut Problems,
) -> (BandSettings, BandNames) {
    let fairness = Kind {
        role: "fairness policy",
        default_type: "global-strict-fairness-policy",
        pick: |roles| roles.fairness.clone(),
    };
    let ordering =
        Kind { role: "ordering policy", default_type: "fcfs-ordering-policy", pick: |roles| roles.ordering };
    let (fairness, fairness_name) = fairness.resolve(written.fairness_policy.as_ref(), instances, problems);
    let (ordering, ordering_name) = ordering.resolve(written.ordering_policy.as_ref(), instances, problems);
    let limit = |written: Option<u64>, default| written.filter(|limit| *limit > 0).unwrap_or(default);
    let settings = BandSettings {
        max_bytes: limit(written.max_bytes, DEFAULT_BAND_BYTES),
        max_requests: limit(written.max_requests, DEFAULT_BAND_REQUESTS),
        request_ttl: written.default_request_ttl,
        fairness,
        ordering,
    };
    (settings, BandNames { fairness: fairness_name, ordering: ordering_name })
}
