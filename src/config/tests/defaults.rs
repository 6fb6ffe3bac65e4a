use std::time::Duration;

use super::fakes::{notes, options, plan, warnings};
use crate::config::{ConfigSource, Origin, load};
use crate::datalayer::EngineTable;
use crate::request::ParserKind;

fn names(plan: &crate::config::Plan) -> Vec<&str> {
    plan.instances.iter().map(|instance| &*instance.name).collect()
}

#[test]
fn an_empty_mapping_becomes_a_whole_configuration() {
    let plan = plan("kind: EndpointPickerConfig\n");
    assert_eq!(
        names(&plan),
        [
            "max-score-picker",
            "single-profile-handler",
            "openai-parser",
            "anthropic-parser",
            "vllmhttp-parser",
            "passthrough-parser",
            "metrics-data-source",
            "core-metrics-extractor",
        ]
    );
    assert!(plan.instances.iter().all(|instance| matches!(instance.origin, Origin::Injected(_))));
    assert_eq!(plan.scheduler.profile_names().len(), 1);
    assert!(plan.metrics_source.is_some());
    assert_eq!(plan.engines, EngineTable::builtin());
    assert_eq!((plan.gates.flow_control, plan.gates.ha_populate_non_leader_datastore), (false, true));
}

#[test]
fn blank_text_is_the_built_in_default() {
    let given = plan("# nothing\n");
    let default = load(&ConfigSource::BuiltIn, &options()).unwrap();
    assert_eq!(given.effective_yaml(), default.effective_yaml());
    let notes = notes("# nothing\n");
    assert!(notes.iter().any(|note| note == "is empty; the built-in default holds"), "{notes:?}");
}

#[test]
fn the_built_in_default_brings_its_producers_along() {
    let plan = load(&ConfigSource::BuiltIn, &options()).unwrap();
    let profile = &plan.scheduler.profiles()[0];
    let weights: Vec<_> = profile.scorers.iter().map(|row| (&*row.scorer.name, row.weight)).collect();
    assert_eq!(
        weights,
        [("queue-scorer", 2.0), ("kv-cache-utilization-scorer", 2.0), ("prefix-cache-scorer", 3.0)]
    );
    assert_eq!(&*profile.picker.name, "max-score-picker");
    let order: Vec<&str> = plan.producers.iter().map(|producer| &*producer.name).collect();
    assert_eq!(order, ["token-producer", "approx-prefix-cache-producer"], "tokens first, they are read");
    assert_eq!(plan.pre_request.len(), 1);
    assert_eq!(plan.problems.of(crate::document::Level::Warning).count(), 0);
}

#[test]
fn without_profiles_one_takes_every_filter_scorer_and_picker_in_document_order() {
    let plan = plan(
        "plugins:\n- type: random-picker\n- {type: label-selector-filter, name: f2}\n- type: queue-scorer\n- {type: label-selector-filter, name: f1}\n- type: token-producer\n",
    );
    let profile = &plan.scheduler.profiles()[0];
    assert_eq!(&*profile.name, "default");
    let filters: Vec<&str> = profile.filters.iter().map(|filter| &*filter.name).collect();
    assert_eq!(filters, ["f2", "f1"]);
    assert_eq!(profile.scorers.len(), 1);
    assert_eq!(&*profile.picker.name, "random-picker");
}

#[test]
fn a_profile_without_a_picker_gets_the_first_there_is() {
    let text = "plugins:\n- type: random-picker\n- type: max-score-picker\nschedulingProfiles:\n- name: a\n";
    assert_eq!(&*plan(text).scheduler.profiles()[0].picker.name, "random-picker");
    let warnings = warnings(text);
    assert!(warnings.iter().any(|text| text.contains("the first of several")), "{warnings:?}");
}

#[test]
fn a_name_defaults_to_the_type_and_a_weight_to_one() {
    let plan = plan(
        "plugins:\n- type: queue-scorer\nschedulingProfiles:\n- name: a\n  plugins:\n  - pluginRef: queue-scorer\n",
    );
    assert!(plan.scheduler.profiles()[0].scorers[0].weight.total_cmp(&1.0).is_eq());
}

#[test]
fn a_scorer_listed_twice_adds_its_weights_up() {
    let text = "plugins:\n- type: queue-scorer\nschedulingProfiles:\n- name: a\n  plugins:\n  - pluginRef: queue-scorer\n  - pluginRef: queue-scorer\n    weight: 2\n";
    assert_eq!(plan(text).scheduler.profiles()[0].scorers.len(), 2);
    assert!(warnings(text)[0].contains("weights add up"));
}

#[test]
fn a_listed_parser_needs_no_row_of_its_own_but_an_explicit_list_stays_as_it_is() {
    let plan =
        plan("requestHandler:\n  parsers:\n  - pluginRef: anthropic-parser\n  - pluginRef: openai-parser\n");
    let kinds: Vec<_> = plan.parsers.iter().map(|parser| parser.kind).collect();
    assert_eq!(kinds, [ParserKind::Anthropic, ParserKind::OpenAi]);
}

#[test]
fn parsers_behind_the_one_that_takes_everything_are_told() {
    let text = "plugins:\n- {type: openai-parser, name: again}\nrequestHandler:\n  parsers:\n  - pluginRef: openai-parser\n  - pluginRef: again\n  - pluginRef: passthrough-parser\n  - pluginRef: vllmhttp-parser\n";
    assert_eq!(plan(text).parsers.len(), 2);
    let warnings = warnings(text);
    assert!(warnings[0].contains("listed already"), "{warnings:?}");
    assert!(warnings[1].contains("takes every path"), "{warnings:?}");
}

#[test]
fn a_metrics_source_under_another_name_gets_no_second_one_beside_it() {
    let text = "plugins:\n- type: metrics-data-source\n  name: mine\n  parameters:\n    interval: 250ms\n    port: 9000\n\
                dataLayer:\n  sources:\n  - pluginRef: mine\n    extractors:\n    - pluginRef: core-metrics-extractor\n";
    let plan = plan(text);
    let source = plan.metrics_source.as_ref().unwrap();
    assert_eq!((source.interval, source.port), (Some(Duration::from_millis(250)), Some(9000)));
    assert!(!names(&plan).contains(&"metrics-data-source"));
}

#[test]
fn a_source_that_is_named_where_it_is_used_needs_no_row_of_its_own() {
    let text = "dataLayer:\n  sources:\n  - pluginRef: metrics-data-source\n    extractors:\n    - pluginRef: core-metrics-extractor\n";
    let plan = plan(text);
    assert!(plan.metrics_source.is_some());
    assert_eq!(names(&plan).iter().filter(|name| **name == "metrics-data-source").count(), 1);
}

#[test]
fn a_declared_extractor_is_used_by_the_default_source() {
    let text = "plugins:\n- type: core-metrics-extractor\n  parameters:\n    defaultEngine: sglang\n";
    assert_eq!(plan(text).engines.default_engine, "sglang");
    assert_eq!(warnings(text), [""; 0]);
}

#[test]
fn without_injected_defaults_no_metrics_are_read() {
    let text = "dataLayer:\n  injectDefaults: false\n";
    assert!(plan(text).metrics_source.is_none());
    assert_eq!(warnings(text).len(), 1);
}

#[test]
fn file_discovery_is_found_by_reference() {
    let text = "plugins:\n- type: file-discovery\n  name: f\n  parameters: {path: /e, watchFile: on}\ndataLayer:\n  discovery: {pluginRef: f}\n";
    let discovery = plan(text).discovery.unwrap();
    assert!(discovery.watch, "`on` is true");
}

#[test]
fn data_that_is_read_if_present_is_noted_when_absent() {
    let notes = notes("plugins:\n- type: context-length-aware\n");
    assert!(notes.iter().any(|text| text.contains("would read Tokens from \"token-producer\"")), "{notes:?}");
}

#[test]
fn json_loads_like_yaml() {
    let json = "{\n\t\"plugins\": [{\"type\": \"queue-scorer\"}],\n\t\"schedulingProfiles\": [{\"name\": \"a\", \"plugins\": [{\"pluginRef\": \"queue-scorer\", \"weight\": 2}]}]\n}\n";
    assert!(plan(json).scheduler.profiles()[0].scorers[0].weight.total_cmp(&2.0).is_eq());
}
