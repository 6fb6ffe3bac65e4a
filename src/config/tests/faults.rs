use super::fakes::{errors, load_text, warnings};

#[test]
fn an_unknown_plugin_type_is_named_with_the_nearest_one() {
    assert_eq!(
        errors("plugins:\n- type: queue-scorer\n- type: qeue-scorer\n"),
        ["3: plugins[1].type: unknown plugin type \"qeue-scorer\"; did you mean `queue-scorer`?"]
    );
}

#[test]
fn a_type_that_only_the_reference_has_is_said_to_be_missing_here() {
    assert_eq!(
        errors("plugins:\n- type: sheddable-eviction-filter\n"),
        [
            "2: plugins[0].type: plugin type \"sheddable-eviction-filter\" exists in the reference but not in this version"
        ]
    );
}

#[test]
fn an_unknown_parameter_is_told_with_line_path_and_nearest_name() {
    let text = "plugins:\n- type: approx-prefix-cache-producer\n  parameters:\n    blockSise: 16\n";
    assert_eq!(
        errors(text),
        ["4: plugins[0].parameters.blockSise: unknown parameter; did you mean `blockSize`?"]
    );
}

#[test]
fn a_parameter_of_the_wrong_type_shows_what_was_given_and_what_is_expected() {
    let text = "plugins:\n- type: approx-prefix-cache-producer\n  parameters:\n\n    BLOCKSIZE: \"high\"\n";
    assert_eq!(
        errors(text),
        ["5: plugins[0].parameters.blockSize: got \"high\", expected a whole number of at least 0"]
    );
}

#[test]
fn a_misspelt_field_is_told_at_every_depth() {
    let text = "plugin:\n- type: queue-scorer\nplugins:\n- type: queue-scorer\n  params: {}\n\
                schedulingProfiles:\n- name: a\n  plugins:\n  - pluginref: queue-scorer\n    wieght: 1\n";
    assert_eq!(
        errors(text),
        [
            "1: plugin: unknown field; did you mean `plugins`?",
            "5: plugins[0].params: unknown field; did you mean `parameters`?",
            "9: schedulingProfiles[0].plugins[0].pluginRef: is required",
            "9: schedulingProfiles[0].plugins[0].pluginref: unknown field; did you mean `pluginRef`?",
            "10: schedulingProfiles[0].plugins[0].wieght: unknown field; did you mean `weight`?",
        ]
    );
}

#[test]
fn an_unknown_section_points_to_the_nearest_name() {
    assert_eq!(
        errors("dataLayers:\n  sources: []\n"),
        ["1: dataLayers: unknown field; did you mean `dataLayer`?"]
    );
}

#[test]
fn a_dangling_reference_is_told_wherever_it_stands() {
    let text = "plugins:\n- type: queue-scorer\n\
                schedulingProfiles:\n- name: a\n  plugins:\n  - pluginRef: queue-score\n\
                requestHandler:\n  parsers:\n  - pluginRef: nobody\n\
                dataLayer:\n  sources:\n  - pluginRef: none\n    extractors:\n    - pluginRef: nil\n  discovery:\n    pluginRef: nowhere\n";
    assert_eq!(
        errors(text),
        [
            "6: schedulingProfiles[0].plugins[0].pluginRef: there is no plugin named \"queue-score\"; did you mean `queue-scorer`?",
            "9: requestHandler.parsers[0].pluginRef: there is no plugin named \"nobody\"",
            "12: dataLayer.sources[0].pluginRef: there is no plugin named \"none\"",
            "14: dataLayer.sources[0].extractors[0].pluginRef: there is no plugin named \"nil\"",
            "16: dataLayer.discovery.pluginRef: there is no plugin named \"nowhere\"",
        ]
    );
}

#[test]
fn duplicate_names_are_told_with_both_lines() {
    let text = "plugins:\n- type: queue-scorer\n- type: active-request-scorer\n  name: queue-scorer\n\
                schedulingProfiles:\n- name: a\n- name: a\n";
    let errors = errors(text);
    assert_eq!(errors[0], "3: plugins[1].name: the name \"queue-scorer\" is taken by the plugin in line 2");
    assert_eq!(errors[1], "7: schedulingProfiles[1].name: the name \"a\" is taken by the profile in line 6");
}

#[test]
fn a_negative_weight_is_a_penalty_and_a_zero_weight_is_nothing() {
    let text = "plugins:\n- type: queue-scorer\n- type: active-request-scorer\n\
                schedulingProfiles:\n- name: a\n  plugins:\n  - pluginRef: queue-scorer\n    weight: -2\n  - pluginRef: active-request-scorer\n    weight: 0\n";
    assert_eq!(
        warnings(text),
        [
            "8: schedulingProfiles[0].plugins[0].weight: is -2: below 0 makes \"queue-scorer\" a penalty, and the endpoints it likes least win",
            "10: schedulingProfiles[0].plugins[1].weight: is 0: \"active-request-scorer\" has no influence",
        ]
    );
}

#[test]
fn a_wrong_api_version_or_kind_is_told_with_the_right_one() {
    let errors = errors("apiVersion: llm-d.ai/v2\nkind: EndpointPicker\n");
    assert!(
        errors[0].starts_with("1: apiVersion: got \"llm-d.ai/v2\", expected \"llm-d.ai/v1alpha1\""),
        "{errors:?}"
    );
    assert_eq!(errors[1], "2: kind: got \"EndpointPicker\", expected \"EndpointPickerConfig\"");
}

#[test]
fn former_api_groups_are_accepted_with_a_warning() {
    for group in ["inference.networking.x-k8s.io", "config.x-k8s.io"] {
        let warnings = warnings(&format!("apiVersion: {group}/v1alpha1\nkind: EndpointPickerConfig\n"));
        assert_eq!(warnings.len(), 1, "{warnings:?}");
        assert!(warnings[0].starts_with("1: apiVersion:"), "{warnings:?}");
    }
    assert_eq!(warnings("kind: EndpointPickerConfig\n"), [""; 0]);
}

#[test]
fn a_tab_as_indentation_is_told_with_its_line() {
    assert_eq!(
        errors("plugins:\n- type: queue-scorer\n\tname: x\n"),
        ["3: the line begins with a tab: YAML is indented with spaces only"]
    );
}

#[test]
fn repeated_keys_are_errors_in_yaml_and_the_last_counts_in_json_parameters() {
    let yaml = "plugins:\n- type: approx-prefix-cache-producer\n  type: queue-scorer\n  parameters:\n    blockSize: 1\n    blockSize: 2\n";
    assert_eq!(
        errors(yaml),
        [
            "3: plugins[0].type: is given twice; first in line 2",
            "6: plugins[0].parameters.blockSize: is given twice; first in line 5",
        ]
    );
    let json = "{\"plugins\": [{\"type\": \"approx-prefix-cache-producer\",\n \"parameters\": {\"blockSize\": 9999, \"blockSize\": 16}}]}";
    let warnings = warnings(json);
    let text = "2: plugins[0].parameters.blockSize: is given twice (first in line 2); the last one counts";
    assert!(warnings.iter().any(|warning| warning == text), "{warnings:?}");
}

#[test]
fn all_problems_are_told_at_once_and_none_twice() {
    let text = "featureGates: [flowcontrol, 'flowControl=maybe', 3]\n\
                plugins:\n- name: x\n- type: approx-prefix-cache-producer\n  parameters: {blockSize: 2000}\n- type: prefix-cache-scorer\n\
                schedulingProfiles:\n- plugins:\n  - pluginRef: prefix-cache-scorer\n    weight: heavy\n\
                flowControl:\n  maxBytes: 1KB\n  defaultRequestTTL: 1\n";
    assert_eq!(
        errors(text),
        [
            "1: featureGates[0]: unknown feature gate \"flowcontrol\"; did you mean `flowControl`?",
            "1: featureGates[1]: got \"flowControl=maybe\", expected `flowControl=true` or `flowControl=false`",
            "1: featureGates[2]: got 3, expected a string",
            "3: plugins[0].type: is required",
            "5: plugins[1].parameters.blockSize: got 2000, expected at most 1024",
            "8: schedulingProfiles[0].name: is required",
            "10: schedulingProfiles[0].plugins[0].weight: got \"heavy\", expected a number",
            "12: flowControl.maxBytes: got \"1KB\", expected a quantity such as \"5000\", \"500M\" or \"1Gi\"",
            "13: flowControl.defaultRequestTTL: got \"1\", expected a duration such as \"2s\", \"100ms\" or \"1h30m\"",
        ]
    );
}

#[test]
fn deprecated_sections_are_moved_with_a_warning() {
    let text = "plugins:\n- type: passthrough-parser\nparser:\n  pluginRef: passthrough-parser\nsaturationDetector:\n  pluginRef: utilization-detector\n";
    let plan = load_text(text).unwrap();
    assert_eq!(plan.parsers.len(), 1);
    assert_eq!(plan.flow_control.saturation_detector.unwrap().plugin.unwrap().name, "utilization-detector");
    assert_eq!(&*plan.detector.name, "utilization-detector");
    let warnings = warnings(text);
    assert!(warnings.iter().any(|text| text.starts_with("3: parser: is deprecated")), "{warnings:?}");
    assert!(
        warnings.iter().any(|text| text.starts_with("5: saturationDetector: is deprecated")),
        "{warnings:?}"
    );
}

#[test]
fn an_experimental_type_needs_the_flag() {
    let errors = errors("plugins:\n- type: session-affinity-scorer\n");
    assert_eq!(
        errors,
        [
            "2: plugins[0].type: plugin type \"session-affinity-scorer\" is experimental; it needs --allow-experimental-plugins"
        ]
    );
}

#[test]
fn a_superseded_type_is_told_with_its_replacement() {
    let warnings = warnings("plugins:\n- type: by-label-selector\n");
    assert_eq!(
        warnings,
        [
            "2: plugins[0].type: plugin type \"by-label-selector\" is deprecated since v0.9.0; use \"label-selector-filter\""
        ]
    );
}

#[test]
fn plugins_that_nothing_uses_are_told() {
    let text = "plugins:\n- type: queue-scorer\n- type: active-request-scorer\n- type: token-producer\n- type: passthrough-parser\n- type: max-score-picker\n\
                schedulingProfiles:\n- name: a\n  plugins:\n  - pluginRef: queue-scorer\n  - pluginRef: token-producer\n    weight: 2\n\
                requestHandler:\n  parsers:\n  - pluginRef: openai-parser\n";
    assert_eq!(
        warnings(text),
        [
            "3: plugins[1]: \"active-request-scorer\" is in no profile and neither filters, scores nor picks",
            "5: plugins[3]: \"passthrough-parser\" has no effect: nothing refers to it",
            "11: schedulingProfiles[0].plugins[1].pluginRef: \"token-producer\" has no effect in a profile: it is a data producer",
            "12: schedulingProfiles[0].plugins[1].weight: has no effect: \"token-producer\" is no scorer",
        ]
    );
}

#[test]
fn a_producer_that_nobody_reads_is_told() {
    let warnings = warnings("plugins:\n- type: token-producer\n");
    assert_eq!(warnings, ["2: plugins[0]: nobody reads what \"token-producer\" produces (Tokens)"]);
}

#[test]
fn handlers_and_profiles_must_fit() {
    let two = "schedulingProfiles:\n- name: a\n- name: b\n";
    assert_eq!(
        errors(two),
        ["3: schedulingProfiles: 2 profiles need a profile handler plugin, and there is none"]
    );
    let single = format!("plugins:\n- type: single-profile-handler\n{two}");
    assert_eq!(
        errors(&single),
        ["2: plugins[0]: \"single-profile-handler\" runs one profile, and there are 2"]
    );
    let both = "plugins:\n- type: single-profile-handler\n- type: disagg-profile-handler\n";
    let text = "3: plugins[1]: \"disagg-profile-handler\" is a second profile handler beside \"single-profile-handler\"; there is one";
    assert_eq!(errors(both), [text]);
}

#[test]
fn a_profile_has_one_picker() {
    let text = "plugins:\n- type: random-picker\n- type: max-score-picker\n";
    assert_eq!(
        errors(text),
        [
            "3: plugins[1]: \"max-score-picker\" is a second picker beside \"random-picker\"; a profile has one"
        ]
    );
}

#[test]
fn a_plugin_in_the_wrong_place_is_told_with_what_it_is() {
    let text = "plugins:\n- type: queue-scorer\nrequestHandler:\n  parsers:\n  - pluginRef: queue-scorer\n\
                dataLayer:\n  sources:\n  - pluginRef: queue-scorer\n";
    assert_eq!(
        errors(text),
        [
            "5: requestHandler.parsers[0].pluginRef: \"queue-scorer\" is no parser: it is a scorer",
            "8: dataLayer.sources[0].pluginRef: \"queue-scorer\" is no data source: it is a scorer",
        ]
    );
}

#[test]
fn a_reader_of_a_named_producer_needs_that_very_producer() {
    let text = "plugins:\n- type: approx-prefix-cache-producer\n- type: prefix-cache-scorer\n  parameters:\n    prefixMatchInfoProducerName: precise\n";
    assert_eq!(
        errors(text),
        [
            "3: plugins[1]: \"prefix-cache-scorer\" reads Match from \"precise\", and there is no such plugin; it is produced by `approx-prefix-cache-producer`"
        ]
    );
    let text =
        "plugins:\n- type: queue-scorer\n  name: approx-prefix-cache-producer\n- type: prefix-cache-scorer\n";
    assert_eq!(
        errors(text),
        [
            "4: plugins[1]: \"prefix-cache-scorer\" reads Match from \"approx-prefix-cache-producer\", and the plugin of that name does not produce it"
        ]
    );
}

#[test]
fn producers_that_wait_for_each_other_are_told() {
    let text = "plugins:\n- {type: ring, name: ring-a}\n- {type: ring, name: ring-b}\n";
    assert_eq!(errors(text), ["2: plugins[0]: data producers wait for each other: `ring-a`, `ring-b`"]);
}

#[test]
fn where_peers_are_is_said_by_flags() {
    let text = "dataLayer:\n  peerDiscovery:\n    pluginRef: anything\n";
    assert_eq!(
        warnings(text),
        [
            "2: dataLayer.peerDiscovery: has no effect: --peers or --peer-service says where the other replicas are"
        ]
    );
    let text = "dataLayer:\n  crossReplicaSyncerPluginRef: sync\n";
    assert!(warnings(text)[0].starts_with("2: dataLayer.crossReplicaSyncerPluginRef: \"sync\" is not asked"));
    let text = "dataLayer:\n  crossReplicaSyncInterval: 200ms\n";
    assert!(warnings(text)[0].contains("within 5ms"));
    assert!(errors("dataLayer:\n  crossReplicaSyncInterval: often\n")[0].contains("expected a duration"));
}

#[test]
fn a_document_that_is_no_mapping_is_refused() {
    assert_eq!(errors("- type: queue-scorer\n"), ["1: got a list, expected a mapping"]);
    assert_eq!(errors("just text\n"), ["1: got \"just text\", expected a mapping"]);
}

#[test]
fn weights_without_a_finite_sum_are_refused() {
    let text = |weight: &str| {
        format!(
            "plugins:\n- type: queue-scorer\n- type: kv-cache-utilization-scorer\nschedulingProfiles:\n- name: a\n  plugins:\n  - pluginRef: queue-scorer\n    weight: {weight}\n  - pluginRef: kv-cache-utilization-scorer\n    weight: {weight}\n"
        )
    };
    assert_eq!(
        errors(&text("1.0e308")),
        [
            "5: schedulingProfiles[0]: the weights of profile \"a\" have no finite sum; expected weights near 1"
        ]
    );
    assert!(load_text(&text("1.0e300")).is_ok());
}
