//! Trees of filters of the first releases, whose nodes are other plugins.

use std::sync::Arc;

use crate::config::{ConfigSource, LoadOptions, Plan, load};
use crate::document::Problems;
use crate::metrics::Metrics;

/// A configuration with a tree whose one node is this plugin.
fn loaded(reference: &str) -> Result<Plan, Problems> {
    let text = format!(
        "apiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerConfig\nplugins:\n- type: decision-tree-filter\n  name: tree\n  \
         parameters: {{current: {{pluginRef: {reference}}}}}\n- type: low-queue-filter\n- type: random-picker\n\
         schedulingProfiles:\n- name: default\n  plugins: [{{pluginRef: tree}}]\n"
    );
    load(&ConfigSource::Text(text), &LoadOptions::new(Arc::new(Metrics::new())))
}

#[test]
fn a_tree_finds_its_filters_and_those_are_not_said_to_be_idle() {
    let plan = loaded("low-queue-filter").unwrap();
    assert_eq!(plan.scheduler.profiles()[0].filters.len(), 1);
    let problems = plan.problems.to_string();
    assert!(!problems.contains("\"low-queue-filter\" is in no profile"), "{problems}");
}

#[test]
fn a_node_that_is_no_filter_or_a_tree_of_another_plugin_is_refused_by_path() {
    for wrong in ["tree", "low-queue", "random-picker"] {
        let problems = loaded(wrong).unwrap_err().to_string();
        assert!(problems.contains("parameters.current.pluginRef"), "{problems}");
    }
}
