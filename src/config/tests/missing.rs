//! Plugin types that are not built yet: checked, refused, or left out on request.

use std::sync::Arc;

use crate::config::{ConfigSource, LoadOptions, Plan, load};
use crate::document::{Level, Problems};
use crate::metrics::Metrics;

const MISSING: &str = "
apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins:
- type: a-missing-producer
  parameters:
    maxPerReplicas: 64
- type: prefix-cache-scorer
  parameters:
    prefixMatchInfoProducerName: a-missing-producer
- type: queue-scorer
schedulingProfiles:
- name: default
  plugins:
  - pluginRef: prefix-cache-scorer
    weight: 3
  - pluginRef: queue-scorer
";

fn loaded(allow_missing: bool) -> Result<Plan, Problems> {
    let options = LoadOptions { allow_missing, ..LoadOptions::new(Arc::new(Metrics::new())) };
    load(&ConfigSource::Text(MISSING.to_owned()), &options)
}

#[test]
fn types_that_are_not_built_yet_end_the_start_and_the_error_names_the_flag() {
    let problems = loaded(false).unwrap_err();
    let errors: Vec<String> = problems.of(Level::Error).map(ToString::to_string).collect();
    assert_eq!(errors.len(), 1, "{errors:#?}");
    assert!(errors.iter().all(|error| error.contains("--allow-missing-plugins")), "{errors:#?}");
    assert!(errors[0].contains("a-missing-producer") && errors[0].contains("plugins[0].type"));
}

#[test]
fn with_leave_the_rest_loads_and_everything_that_is_not_in_force_is_said() {
    let plan = loaded(true).unwrap();
    let missing: Vec<&str> =
        plan.instances.iter().filter(|one| one.missing.is_some()).map(|one| one.kind).collect();
    assert_eq!(missing, ["a-missing-producer"]);
    let warnings: Vec<String> = plan.problems.of(Level::Warning).map(ToString::to_string).collect();
    let said = |text: &str| warnings.iter().any(|warning| warning.contains(text));
    assert!(said("\"a-missing-producer\" is not in force"), "{warnings:#?}");
    assert!(said("which is not in force: it finds nothing"), "{warnings:#?}");
    assert!(said("parameters.maxPerReplicas"), "{warnings:#?}");
    let scorers: Vec<&str> =
        plan.scheduler.profiles()[0].scorers.iter().map(|row| &*row.scorer.name).collect();
    assert_eq!(scorers, ["prefix-cache-scorer", "queue-scorer"]);
}

#[test]
fn a_token_producer_asks_a_render_endpoint_or_says_how_tokens_are_estimated() {
    let load = |parameters: &str| {
        let text = format!("plugins:\n- type: token-producer\n{parameters}- type: queue-scorer\n");
        load(&ConfigSource::Text(text), &LoadOptions::new(Arc::new(Metrics::new()))).unwrap()
    };
    let warned =
        |plan: &Plan| plan.problems.of(Level::Warning).any(|warning| warning.to_string().contains("token"));
    let plain = load("");
    assert!(!warned(&plain) && plain.preparers.is_empty());
    let sized = "  parameters:\n    estimate: {image: {defaultResolution: {width: 1280, height: 720}}}\n";
    assert_eq!(load(sized).media.picture_size, (1280, 720));
    let remote = load("  parameters:\n    modelName: m\n    vllm:\n      url: http://localhost:8000\n");
    assert!(!warned(&remote));
    assert_eq!(remote.preparers.len(), 1);
}

fn with_source(source: &str, extractor: &str) -> Result<Plan, Problems> {
    let text = format!(
        "plugins:\n- type: {source}\n- type: {extractor}\n- type: queue-scorer\n\
         dataLayer:\n  sources:\n  - pluginRef: {source}\n    extractors:\n    - pluginRef: {extractor}\n"
    );
    let options = LoadOptions {
        allow_missing: true,
        allow_experimental: true,
        ..LoadOptions::new(Arc::new(Metrics::new()))
    };
    load(&ConfigSource::Text(text), &options)
}

#[test]
fn a_notification_source_takes_extractors_that_follow_endpoints_and_refuses_others() {
    for follower in [
        "approx-prefix-cache-producer",
        "precise-prefix-cache-producer",
        "precise-prefix-cache-scorer",
        "mm-embeddings-cache-producer",
        "inflight-load-producer",
    ] {
        let plan = with_source("endpoint-notification-source", follower);
        assert!(plan.unwrap().metrics_source.is_some(), "the metrics source is added as ever");
    }
    for other in ["core-metrics-extractor", "token-producer", "lora-affinity-scorer"] {
        let problems = with_source("endpoint-notification-source", other).unwrap_err().to_string();
        assert!(problems.contains("is no plugin that follows endpoints"), "{problems}");
    }
}

#[test]
fn a_source_of_other_pages_takes_the_extractors_that_read_them_and_refuses_others() {
    for (source, extractor) in [
        ("models-data-source", "models-data-extractor"),
        ("dcgm-data-source", "dcgm-extractor"),
        ("multicluster-metrics-data-source", "multicluster-metrics-extractor"),
    ] {
        let plan = with_source(source, extractor).unwrap();
        let pages: Vec<_> =
            plan.pages.iter().map(|pages| (pages.source.kind, pages.extractors.len())).collect();
        assert_eq!(pages, [(source, 1)]);
        assert!(plan.metrics_source.is_some(), "the metrics source is added as ever");
        let again = load(
            &ConfigSource::Text(plan.effective_yaml()),
            &LoadOptions { allow_experimental: true, ..LoadOptions::new(Arc::new(Metrics::new())) },
        );
        assert_eq!(again.unwrap().pages.len(), 1, "what is printed loads to the same");
    }
    for (source, extractor, fault) in [
        ("models-data-source", "dcgm-extractor", "reads the pages of a `dcgm-data-source`"),
        ("models-data-source", "core-metrics-extractor", "is no extractor of such pages"),
    ] {
        let problems = with_source(source, extractor).unwrap_err().to_string();
        assert!(problems.contains(fault), "{problems}");
    }
}
