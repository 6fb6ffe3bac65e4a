//! A document in which a plugin has its place, for whoever wants to use it.

use std::fmt::Write;
use std::sync::Arc;

use super::entries::roles;
use crate::config::options::LoadOptions;
use crate::config::resolve::load;
use crate::config::source::ConfigSource;
use crate::metrics::Metrics;
use crate::plugins::{BuildCx, PluginType, Registry};

/// The document with the plugin as a program with this registry would load it.
pub(super) fn example(registry: Registry, plugin: &PluginType) -> String {
    let candidates = drafts(registry, plugin);
    let quiet = candidates.iter().find(|text| loads(registry, text) == Some(0));
    let chosen = quiet.or_else(|| candidates.iter().find(|text| loads(registry, text).is_some()));
    chosen.or(candidates.first()).cloned().unwrap_or_default()
}

/// The number of warnings with which a document loads; `None` if it does not.
pub(super) fn loads(registry: Registry, text: &str) -> Option<usize> {
    let options =
        LoadOptions { allow_experimental: true, registry, ..LoadOptions::new(Arc::new(Metrics::new())) };
    let plan = load(&ConfigSource::Text(text.to_owned()), &options).ok()?;
    Some(plan.problems.of(crate::document::Level::Warning).count())
}

/// The row of `plugins`.
fn row(plugin: &PluginType) -> String {
    let mut text = format!("- type: {}\n", plugin.name);
    if !plugin.example.is_empty() {
        text.push_str("  parameters:\n");
        for line in plugin.example.lines() {
            let _ = writeln!(text, "    {line}");
        }
    }
    text
}

/// Sources of pages, each with the extractor that reads them.
const PAGES: &[(&str, &str)] = &[
    ("metrics-data-source", "core-metrics-extractor"),
    ("dcgm-data-source", "dcgm-extractor"),
    ("models-data-source", "models-data-extractor"),
    ("multicluster-metrics-data-source", "multicluster-metrics-extractor"),
];

/// Documents that may suit the plugin, the best first.
fn drafts(registry: Registry, plugin: &PluginType) -> Vec<String> {
    let name = plugin.name;
    let mut rows = row(plugin);
    let asked =
        registry.iter().filter(|other| plugin.example.contains(&format!("pluginRef: {}", other.name)));
    asked.for_each(|other| rows.push_str(&row(other)));
    match roles(plugin).first().copied().unwrap_or_default() {
        "filter" | "scorer" | "picker" => vec![document("", &rows, &profile("default", &[name]), "")],
        "profile handler" => handled(&rows),
        "decider" => decided(name, &rows),
        "parser" => {
            let tail = format!("requestHandler:\n  parsers:\n  - pluginRef: {name}\n");
            vec![with_queue(&rows, &tail)]
        }
        "data source" => {
            let draft = |(_, extractor): &(&str, &str)| {
                let tail = format!(
                    "dataLayer:\n  sources:\n  - pluginRef: {name}\n    extractors:\n    - pluginRef: {extractor}\n"
                );
                with_queue(&format!("{rows}- type: {extractor}\n"), &tail)
            };
            PAGES.iter().map(draft).chain([with_queue(&rows, "")]).collect()
        }
        "extractor" => {
            let draft = |(source, _): &(&str, &str)| {
                let tail = format!(
                    "dataLayer:\n  sources:\n  - pluginRef: {source}\n    extractors:\n    - pluginRef: {name}\n"
                );
                with_queue(&format!("{rows}- type: {source}\n"), &tail)
            };
            PAGES.iter().map(draft).chain([with_queue(&rows, "")]).collect()
        }
        "notification source" => {
            let readers = "- type: approx-prefix-cache-producer\n- type: prefix-cache-scorer\n";
            let tail = format!(
                "dataLayer:\n  sources:\n  - pluginRef: {name}\n    extractors:\n    \
                 - pluginRef: approx-prefix-cache-producer\n"
            );
            let profiles = profile("default", &["prefix-cache-scorer"]);
            vec![document("", &format!("{rows}{readers}"), &profiles, &tail), with_queue(&rows, "")]
        }
        "endpoint discovery" => {
            let tail = format!("dataLayer:\n  discovery:\n    endpoints:\n      pluginRef: {name}\n");
            vec![with_queue(&rows, &tail)]
        }
        "saturation detector" => {
            vec![flow(&rows, &format!("  saturationDetector: {{pluginRef: {name}}}\n"))]
        }
        "ordering policy" => {
            vec![flow(&rows, &format!("  defaultPriorityBand: {{orderingPolicyRef: {name}}}\n"))]
        }
        "fairness policy" => {
            vec![flow(&rows, &format!("  defaultPriorityBand: {{fairnessPolicyRef: {name}}}\n"))]
        }
        "usage limit policy" => vec![flow(&rows, &format!("  usageLimitPolicyPluginRef: {name}\n"))],
        _ => {
            let read = reader(registry, name).map(|reader| {
                let rows = format!("{rows}- type: {reader}\n");
                document("", &rows, &profile("default", &[reader]), "")
            });
            let scores = roles(plugin).contains(&"scorer");
            let own = scores.then(|| document("", &rows, &profile("default", &[name]), ""));
            own.into_iter()
                .chain(read)
                .chain([by_prefix(name, &rows), by_session(name, &rows), with_queue(&rows, "")])
                .collect()
        }
    }
}

/// Documents for a profile handler: with stages and a decider, with stages alone, with one profile.
fn handled(rows: &str) -> Vec<String> {
    let one = profile("default", &["queue-scorer"]);
    let two = format!("{}{}", stage("prefill"), stage("decode"));
    let queue = format!("{rows}- type: queue-scorer\n");
    let staged = format!("{rows}- type: decode-filter\n- type: prefill-filter\n");
    let decided = format!("{staged}- type: always-disagg-pd-decider\n");
    let deciding = decided.replacen(
        rows,
        &format!("{rows}  parameters:\n    deciders: {{prefill: always-disagg-pd-decider}}\n"),
        1,
    );
    let deciding_formerly = decided.replacen(
        rows,
        &format!("{rows}  parameters:\n    deciderPluginName: always-disagg-pd-decider\n"),
        1,
    );
    vec![
        document("", &deciding, &two, ""),
        document("", &deciding_formerly, &two, ""),
        document("", &staged, &two, ""),
        document("", &queue, &one, ""),
    ]
}

/// Documents for a decider: of the prefill stage, or of the encode stage.
fn decided(name: &str, rows: &str) -> Vec<String> {
    let stages = ["prefill", "encode"].map(|side| {
        let handler = format!(
            "- type: disagg-profile-handler\n  parameters:\n    deciders: {{{side}: {name}}}\n\
             - type: decode-filter\n- type: {side}-filter\n"
        );
        document("", &format!("{rows}{handler}"), &format!("{}{}", stage("decode"), stage(side)), "")
    });
    let encodes = name.contains("multimodal") || name.contains("encode");
    let [prefill, encode] = stages;
    if encodes { vec![encode, prefill] } else { vec![prefill, encode] }
}

fn document(gates: &str, plugins: &str, profiles: &str, tail: &str) -> String {
    format!(
        "apiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerConfig\n{gates}plugins:\n{plugins}\
         schedulingProfiles:\n{profiles}{tail}"
    )
}

/// A document whose scorer reads the prefix matches of the producer `name`.
fn by_prefix(name: &str, rows: &str) -> String {
    let scorer = "prefix-cache-scorer";
    let rows = format!("{rows}- type: {scorer}\n  parameters:\n    prefixMatchInfoProducerName: {name}\n");
    document("", &rows, &profile("default", &[scorer]), "")
}

/// A document whose scorer takes the session from what the producer `name` writes.
fn by_session(name: &str, rows: &str) -> String {
    let scorer = "session-affinity-scorer";
    let source = format!("{{attribute: SessionIDDataKey, producer: {name}}}");
    let rows = format!(
        "{rows}- type: {scorer}\n  parameters:\n    strategy: session_id\n    sessionIdConfig:\n      \
         sources: [{source}]\n"
    );
    document("", &rows, &profile("default", &[scorer]), "")
}

/// A document that scores by queues, and has these rows and this end besides.
fn with_queue(rows: &str, tail: &str) -> String {
    document("", &format!("{rows}- type: queue-scorer\n"), &profile("default", &["queue-scorer"]), tail)
}

/// A document with flow control, which has these rows and this section.
fn flow(rows: &str, section: &str) -> String {
    let gates = "featureGates: [flowControl]\n";
    let profiles = profile("default", &["queue-scorer"]);
    document(gates, &format!("{rows}- type: queue-scorer\n"), &profiles, &format!("flowControl:\n{section}"))
}

fn profile(name: &str, plugins: &[&str]) -> String {
    let mut text = format!("- name: {name}\n  plugins:\n");
    for plugin in plugins {
        let _ = writeln!(text, "  - pluginRef: {plugin}");
    }
    text
}

/// The profile of a stage of disaggregated serving.
fn stage(name: &str) -> String {
    profile(name, &[&format!("{name}-filter")])
}

/// A scorer that reads what the producer `name` writes, if it is not told otherwise; else such a filter.
fn reader(registry: Registry, name: &str) -> Option<&'static str> {
    let mut filter = None;
    for plugin in registry.iter().filter(|plugin| plugin.superseded.is_none()) {
        let (metrics, mut columns) = (Arc::new(Metrics::new()), Vec::new());
        let mut cx = BuildCx::new(plugin.name, None, &metrics, &mut columns, 0);
        let Ok(roles) = (plugin.build)(&mut cx) else { continue };
        if !cx.consumed.iter().any(|consumption| consumption.key.producer == name) {
            continue;
        }
        if roles.scorer.is_some() {
            return Some(plugin.name);
        }
        filter = filter.or(roles.filter.map(|_| plugin.name));
    }
    filter
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugins::REGISTRY;

    #[test]
    fn the_example_of_every_type_names_it_and_loads() {
        for plugin in REGISTRY {
            let text = example(REGISTRY, plugin);
            assert!(text.contains(&format!("- type: {}\n", plugin.name)), "{text}");
            let warnings =
                loads(REGISTRY, &text).unwrap_or_else(|| panic!("{} does not load:\n{text}", plugin.name));
            // The successor's example is the one to follow. Scorers of clusters need a source that is theirs alone, and
            // nothing listens to a source of other objects.
            let lonely = plugin.name.starts_with("multicluster-") || plugin.name == "k8s-notification-source";
            assert!(
                warnings == 0 || plugin.superseded.is_some() || lonely,
                "{} loads with {warnings} warnings:\n{text}",
                plugin.name
            );
        }
    }
}
