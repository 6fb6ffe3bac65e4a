//! What people write: the configuration and the endpoints file.

use std::sync::Arc;

use pointsman::config::{ConfigSource, LoadOptions, load};
use pointsman::discovery::FileState;
use pointsman::metrics::Metrics;

use super::{path, size_class};
use crate::engine::{Broken, Target, run};

const CONFIGS: [&str; 3] = [
    include_str!("../../../config/default.yaml"),
    "apiVersion: inference.networking.x-k8s.io/v1alpha1\nkind: EndpointPickerConfig\nfeatureGates: [flowControl]\nplugins:\n- type: queue-scorer\n- type: prefix-cache-scorer\n  parameters: {blockSizeTokens: 16}\n- name: picker\n  type: max-score-picker\n  parameters: {maxNumOfEndpoints: 1}\n- type: concurrency-detector\n  parameters: {maxConcurrency: 1}\nschedulingProfiles:\n- name: default\n  plugins:\n  - {pluginRef: queue-scorer, weight: 2}\n  - pluginRef: prefix-cache-scorer\n  - pluginRef: picker\nflowControl:\n  saturationDetector: {pluginRef: concurrency-detector}\n  priorityBands:\n  - {priority: 0, maxRequests: 1, maxBytes: 1Gi}\n",
    "apiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerConfig\nplugins:\n- type: file-discovery\n  parameters: {path: endpoints.yaml}\ndataLayer: {discovery: {pluginRef: file-discovery}}\n",
];

const ENDPOINTS: [&str; 2] = [
    "endpoints:\n- {name: a, address: 127.0.0.1, port: \"8000\", labels: {x: y}}\n- {name: b, namespace: n, address: \"::1\", port: \"8001\"}\nobjectives:\n- {name: o, priority: 3}\nmodelRewrites:\n- name: r\n  rules:\n  - matches: [{model: {value: alias}}]\n    targets: [{modelRewrite: real, weight: 1}]\n",
    "endpoints: []\n",
];

const WORDS: [&str; 24] = [
    "\n- ",
    "\n  ",
    ": ",
    "&a ",
    "*a",
    "<<: *a",
    "!!binary ",
    "? ",
    "| \n",
    "> \n",
    "'",
    "\"",
    "#",
    "---\n",
    "...\n",
    "%YAML 1.1\n",
    "{",
    "}",
    "[",
    "]",
    "type: ",
    "parameters: ",
    "\t",
    "\u{feff}",
];

fn texts(seeds: &[&str]) -> Vec<Vec<u8>> {
    seeds.iter().map(|text| text.as_bytes().to_vec()).collect()
}

#[test]
fn a_configuration_loads_or_is_refused_with_words() {
    let target = Target {
        name: "configurations",
        seeds: texts(&CONFIGS),
        words: &WORDS,
        memory_factor: 400,
        memory_base: 4 << 20,
    };
    let metrics = Arc::new(Metrics::new());
    run(&target, |input| {
        let text = String::from_utf8_lossy(input).into_owned();
        let options = LoadOptions::new(Arc::clone(&metrics));
        match load(&ConfigSource::Text(text), &options) {
            Ok(plan) => Ok(path((plan.instances.len(), plan.problems.iter().count()))),
            Err(problems) => refused(problems.iter().map(ToString::to_string), input.len()),
        }
    });
}

#[test]
fn an_endpoints_file_is_taken_or_refused_with_words() {
    let target = Target {
        name: "endpoints_files",
        seeds: texts(&ENDPOINTS),
        words: &WORDS,
        memory_factor: 400,
        memory_base: 1 << 20,
    };
    run(&target, |input| match FileState::parse(input, "endpoints.yaml") {
        Ok(state) => {
            Ok(path((size_class(state.endpoints.len()), state.objectives.len(), state.rewrites.len())))
        }
        Err(problems) => refused(problems.iter().map(ToString::to_string), input.len()),
    });
}

/// A refusal says something, and not much more than what was written.
fn refused(said: impl Iterator<Item = String>, came: usize) -> Result<u64, Broken> {
    let said: Vec<String> = said.collect();
    let bytes: usize = said.iter().map(String::len).sum();
    if said.is_empty() {
        return Err("refused without a word".to_owned());
    }
    if bytes > 64 * came + (64 << 10) {
        return Err(format!("{bytes} bytes of findings about {came} bytes"));
    }
    Ok(path(
        said.first().map(|first| first.chars().take(60).filter(|c| !c.is_ascii_digit()).collect::<String>()),
    ))
}
