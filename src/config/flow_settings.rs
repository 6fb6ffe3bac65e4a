//! The `flowControl` section with its references resolved: settings as values.

use std::collections::BTreeMap;

use super::flow_control::{FlowControl, PriorityBand, SaturationDetector};
use super::names::{BandNames, FlowNames};
use super::resolver::{Resolver, Role};
use crate::document::Problems;
use crate::flow::detector::{Detector, DetectorKind, Utilization};
use crate::flow::settings::{
    BandSettings, DEFAULT_BAND_BYTES, DEFAULT_BAND_REQUESTS, Fairness, FlowSettings, Ordering, UsageLimit,
    no_endpoint_ttl, request_ttl,
};
use crate::plugins::flow_control::{fairness, ordering, usage_limits, utilization_detector};

const DETECTOR: Role<DetectorKind> =
    Role::new("saturation detector", |instance| instance.roles.detector.clone())
        .or_default(utilization_detector::TYPE.name);
const USAGE_LIMIT: Role<UsageLimit> =
    Role::new("usage limit policy", |instance| instance.roles.usage_limit.clone())
        .or_default(usage_limits::STATIC.name);
const FAIRNESS: Role<Fairness> = Role::new("fairness policy", |instance| instance.roles.fairness.clone())
    .or_default(fairness::GLOBAL_STRICT.name);
const ORDERING: Role<Ordering> =
    Role::new("ordering policy", |instance| instance.roles.ordering).or_default(ordering::FCFS.name);

impl Resolver<'_> {
    /// The saturation detector, which counts whether or not the feature gate is on.
    pub(super) fn detector(&mut self, section: &FlowControl) -> Detector {
        let written = section.saturation_detector.as_ref();
        let reference = written.and_then(|written| written.plugin.as_ref());
        let (mut kind, name) = self.lookup_or_default(reference, &DETECTOR);
        if let Some(written) = written {
            inline(written, &mut kind, &name, &mut self.problems);
        }
        Detector { name, kind }
    }

    /// The settings, for an open feature gate.
    pub(super) fn flow_settings(
        &mut self,
        section: &FlowControl,
        detector: &Detector,
    ) -> (FlowSettings, FlowNames) {
        let (usage_limit, usage_limit_name) =
            self.lookup_or_default(section.usage_limit_policy.as_ref(), &USAGE_LIMIT);
        let defaults = [&section.default_priority_band, &section.default_negative_priority_band];
        for band in defaults.into_iter().flatten().filter(|band| band.priority.is_some()) {
            self.problems.warning(
                band.line,
                format!("{}.priority", band.path),
                "has no effect in a default band",
            );
        }
        let written = section.default_priority_band.clone().unwrap_or_default();
        let (default_band, default_names) = self.band(&written);
        let negative = section.default_negative_priority_band.as_ref().map(|written| self.band(written));
        let (default_negative_band, negative_names) = negative.unzip();
        let (mut bands, mut band_names) = (BTreeMap::new(), BTreeMap::new());
        for written in &section.priority_bands {
            let priority = written.priority.unwrap_or(0);
            let (settings, names) = self.band(written);
            if bands.insert(priority, settings).is_some() {
                let message = format!("priority {priority} has a band already");
                self.problems.error(written.line, format!("{}.priority", written.path), message);
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
    pub(super) fn check_idle_flow(&mut self, section: &FlowControl) {
        if section.has_settings() {
            let message = if section.saturation_detector.is_some() {
                "has no effect but for its saturation detector: the feature gate `flowControl` is off"
            } else {
                "has no effect: the feature gate `flowControl` is off"
            };
            self.problems.warning(section.line, "flowControl", message);
            self.flow_settings(section, &Detector::default());
        }
    }

    fn band(&mut self, written: &PriorityBand) -> (BandSettings, BandNames) {
        let (fairness, fairness_name) = self.lookup_or_default(written.fairness_policy.as_ref(), &FAIRNESS);
        let (ordering, ordering_name) = self.lookup_or_default(written.ordering_policy.as_ref(), &ORDERING);
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
