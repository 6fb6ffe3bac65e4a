//! The effective configuration as a document that loads to the same plan.

use std::fmt::Write;

use serde_json::Value;

use super::plan::{Origin, Plan, PlannedInstance};

impl Plan {
    /// The configuration with every default filled in, as YAML. Comments say what was added and who reads which data. Loading it gives the
    /// same plan.
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
        if let Some(section) = &self.flow_control.as_written {
            writeln!(out, "flowControl: {section}  # no effect: the feature gate is off")?;
        } else if let Some(detector) = &self.flow_control.saturation_detector {
            writeln!(out, "flowControl:\n  saturationDetector:\n    pluginRef: {}", scalar(&detector.name))?;
        }
        Ok(())
    }

    fn write_data_layer(&self, out: &mut String) -> std::fmt::Result {
        writeln!(out, "dataLayer:")?;
        match &self.data_layer.source {
            None => writeln!(out, "  injectDefaults: false")?,
            Some(source) => {
                writeln!(out, "  sources:\n  - pluginRef: {}", scalar(source))?;
                if let Some(extractor) = &self.data_layer.extractor {
                    writeln!(out, "    extractors:\n    - pluginRef: {}", scalar(extractor))?;
                }
            }
        }
        if let Some(discovery) = &self.data_layer.discovery {
            writeln!(out, "  discovery:\n    pluginRef: {}", scalar(discovery))?;
        }
        Ok(())
    }
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
