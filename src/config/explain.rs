//! The effective configuration as a document that loads to the same plan.

use std::fmt::Write;
use std::path::PathBuf;

use serde_json::Value;

use super::names::{BandNames, FlowNames};
use super::plan::{Origin, Plan, PlannedInstance};
use crate::document::scalar::format_go_duration;
use crate::flow::settings::{BandSettings, FlowSettings};

impl Plan {
    /// The configuration with every default filled in, as YAML. Comments say what was added and who reads which data.
    /// Loading it gives the same plan.
    pub fn effective_yaml(&self) -> String {
        let mut out = String::new();
        // Writing to a string cannot fail.
        let _ = self.write_effective(&mut out);
        out
    }

    fn write_effective(&self, out: &mut String) -> std::fmt::Result {
        writeln!(out, "apiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerConfig")?;
        writeln!(out, "featureGates:")?;
        for gate in self.gates.listed() {
            writeln!(out, "- {gate}")?;
        }
        writeln!(out, "plugins:")?;
        for instance in &self.instances {
            write_instance(out, instance)?;
        }
        writeln!(out, "schedulingProfiles:")?;
        for profile in self.scheduler.profiles() {
            writeln!(out, "- name: {}\n  plugins:", scalar(&profile.name))?;
            // One row a plugin, whatever its roles; the order of filters matters, that of scorers does not.
            let mut scorers: Vec<_> = profile.scorers.iter().collect();
            for filter in &profile.filters {
                writeln!(out, "  - pluginRef: {}", scalar(&filter.name))?;
                if let Some(place) = scorers.iter().position(|row| row.scorer.name == filter.name) {
                    writeln!(out, "    weight: {}", scorers.remove(place).weight)?;
                }
            }
            for row in scorers {
                writeln!(out, "  - pluginRef: {}\n    weight: {}", scalar(&row.scorer.name), row.weight)?;
            }
            let picker = &profile.picker.name;
            let filters = profile.filters.iter().map(|filter| &filter.name);
            if !filters.chain(profile.scorers.iter().map(|row| &row.scorer.name)).any(|name| name == picker) {
                writeln!(out, "  - pluginRef: {}", scalar(picker))?;
            }
        }
        writeln!(out, "requestHandler:\n  parsers:")?;
        for parser in &self.parsers {
            writeln!(out, "  - pluginRef: {}", scalar(&parser.name))?;
        }
        self.write_data_layer(out)?;
        match (&self.flow, &self.flow_names) {
            (Some(settings), Some(names)) => self.write_flow(out, settings, names),
            _ => self.write_idle_flow(out),
        }
    }

    fn write_flow(&self, out: &mut String, settings: &FlowSettings, names: &FlowNames) -> std::fmt::Result {
        writeln!(out, "flowControl:")?;
        for (field, limit) in [("maxBytes", settings.max_bytes), ("maxRequests", settings.max_requests)] {
            if let Some(limit) = limit {
                writeln!(out, "  {field}: {limit}")?;
            }
        }
        for (field, ttl) in [
            ("defaultRequestTTL", settings.default_request_ttl),
            ("noEndpointRequestTTL", settings.no_endpoint_request_ttl),
        ] {
            writeln!(out, "  {field}: {}", format_go_duration(ttl.unwrap_or_default()))?;
        }
        writeln!(out, "  defaultPriorityBand:")?;
        write_band(out, "    ", &settings.default_band, &names.default_band)?;
        if let (Some(band), Some(names)) = (&settings.default_negative_band, &names.default_negative_band) {
            writeln!(out, "  defaultNegativePriorityBand:")?;
            write_band(out, "    ", band, names)?;
        }
        writeln!(out, "  priorityBands:")?;
        for ((priority, band), names) in settings.bands.iter().zip(names.bands.values()).rev() {
            writeln!(out, "  - priority: {priority}")?;
            write_band(out, "    ", band, names)?;
        }
        writeln!(out, "  usageLimitPolicyPluginRef: {}", scalar(&names.usage_limit))?;
        writeln!(out, "  saturationDetector: {}", self.detector_section())?;
        writeln!(out, "  enableEviction: {}", settings.eviction)
    }

    /// The detector counts without flow control too; the rest is printed as it was written.
    fn write_idle_flow(&self, out: &mut String) -> std::fmt::Result {
        let mut section = match &self.flow_control.as_written {
            Some(Value::Object(section)) => section.clone(),
            _ => serde_json::Map::new(),
        };
        if self.flow_control.saturation_detector.is_some() {
            section.insert("saturationDetector".to_owned(), self.detector_section());
        }
        if section.is_empty() {
            return Ok(());
        }
        let comment = match (self.flow_control.has_settings(), &self.flow_control.saturation_detector) {
            (false, _) => "",
            (true, None) => "  # no effect: the feature gate is off",
            (true, Some(_)) => "  # no effect but for the detector: the feature gate is off",
        };
        writeln!(out, "flowControl: {}{comment}", Value::Object(section))
    }

    /// The detector with its name filled in, and the thresholds that were written beside it.
    fn detector_section(&self) -> Value {
        let written = self.flow_control.saturation_detector.as_ref().map(|section| &section.as_written);
        let mut section = match written {
            Some(Value::Object(section)) => section.clone(),
            _ => serde_json::Map::new(),
        };
        section.insert("pluginRef".to_owned(), Value::String(self.detector.name.to_string()));
        Value::Object(section)
    }

    fn write_data_layer(&self, out: &mut String) -> std::fmt::Result {
        writeln!(out, "dataLayer:")?;
        let names = &self.data_layer;
        if names.source.is_none() {
            writeln!(out, "  injectDefaults: false")?;
        }
        let metrics = names.source.iter().map(|source| (source, names.extractor.as_slice()));
        let pages = names.pages.iter().map(|(source, extractors)| (source, extractors.as_slice()));
        for (index, (source, extractors)) in metrics.chain(pages).enumerate() {
            if index == 0 {
                writeln!(out, "  sources:")?;
            }
            writeln!(out, "  - pluginRef: {}", scalar(source))?;
            if !extractors.is_empty() {
                writeln!(out, "    extractors:")?;
            }
            for extractor in extractors {
                writeln!(out, "    - pluginRef: {}", scalar(extractor))?;
            }
        }
        if let Some(discovery) = &self.data_layer.discovery {
            writeln!(out, "  discovery:\n    pluginRef: {}", scalar(discovery))?;
        }
        if let Some(redis) = &self.redis {
            writeln!(out, "  crossReplica:\n    redis:")?;
            let file = |path: &Option<PathBuf>| path.as_ref().map(|path| path.display().to_string());
            let (certificate, key) = redis.identity.clone().unzip();
            let fields = [
                ("url", Some(redis.url.text())),
                ("passwordFile", file(&redis.password_file)),
                ("keyPrefix", Some(redis.key_prefix.clone())),
                ("caFile", file(&redis.ca_file)),
                ("certFile", file(&certificate)),
                ("keyFile", file(&key)),
            ];
            for (name, value) in fields {
                if let Some(value) = value {
                    writeln!(out, "      {name}: {}", scalar(&value))?;
                }
            }
        }
        Ok(())
    }
}

fn write_band(out: &mut String, indent: &str, band: &BandSettings, names: &BandNames) -> std::fmt::Result {
    writeln!(out, "{indent}maxBytes: {}", band.max_bytes)?;
    writeln!(out, "{indent}maxRequests: {}", band.max_requests)?;
    if let Some(ttl) = band.request_ttl {
        writeln!(out, "{indent}defaultRequestTTL: {}", format_go_duration(ttl))?;
    }
    writeln!(out, "{indent}fairnessPolicyRef: {}", scalar(&names.fairness))?;
    writeln!(out, "{indent}orderingPolicyRef: {}", scalar(&names.ordering))
}

fn write_instance(out: &mut String, instance: &PlannedInstance) -> std::fmt::Result {
    let mut comments = Vec::new();
    if let Origin::Injected(reason) = &instance.origin {
        comments.push(format!("added: {reason}"));
    }
    for (data, readers) in &instance.produces {
        let readers: Vec<&str> = readers.iter().map(|name| &**name).collect();
        let readers = if readers.is_empty() { "nobody".to_owned() } else { readers.join(", ") };
        comments.push(format!("writes {data} for {readers}"));
    }
    // Names are free text; a line break in one must not end the comment.
    let comments = comments.join("; ").replace(|c: char| c.is_control(), " ");
    let gap = if comments.is_empty() { "" } else { "  # " };
    writeln!(out, "- type: {}{gap}{comments}", scalar(instance.kind))?;
    if *instance.name != *instance.kind {
        writeln!(out, "  name: {}", scalar(&instance.name))?;
    }
    match &instance.parameters {
        None | Some(Value::Null) => Ok(()),
        Some(parameters) => writeln!(out, "  parameters: {parameters}"),
    }
}

/// Text as a YAML scalar: bare if nothing could read it as something else.
fn scalar(text: &str) -> String {
    let plain =
        text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'/'));
    let wordy = text.len() > 3
        && text.starts_with(|c: char| c.is_ascii_alphabetic())
        && !["true", "false", "null"].iter().any(|word| text.eq_ignore_ascii_case(word));
    if plain && wordy { text.to_owned() } else { Value::String(text.to_owned()).to_string() }
}
