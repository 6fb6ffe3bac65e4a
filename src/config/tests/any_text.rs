use proptest::prelude::*;
use serde_json::Value;

use super::fakes::load_text;
use crate::config::ConfigSource;

/// Trees out of the words that configurations are made of, in places that may or may not suit them.
fn tree() -> impl Strategy<Value = Value> {
    let word = prop::sample::select(vec![
        "apiVersion",
        "llm-d.ai/v1alpha1",
        "kind",
        "EndpointPickerConfig",
        "featureGates",
        "flowControl",
        "flowControl=false",
        "plugins",
        "type",
        "name",
        "parameters",
        "pluginRef",
        "weight",
        "schedulingProfiles",
        "dataLayer",
        "sources",
        "extractors",
        "injectDefaults",
        "discovery",
        "requestHandler",
        "parsers",
        "parser",
        "saturationDetector",
        "priorityBands",
        "defaultPriorityBand",
        "maxBytes",
        "1Gi",
        "10s",
        "queue-scorer",
        "prefix-cache-scorer",
        "approx-prefix-cache-producer",
        "max-score-picker",
        "random-picker",
        "single-profile-handler",
        "metrics-data-source",
        "core-metrics-extractor",
        "file-discovery",
        "ring",
        "ring-a",
        "ring-b",
        "token-producer",
        "openai-parser",
        "utilization-detector",
        "concurrency-detector",
        "queueDepthThreshold",
        "defaultNegativePriorityBand",
        "priority",
        "fairnessPolicyRef",
        "round-robin-fairness-policy",
        "usageLimitPolicyPluginRef",
        "blockSize",
        "path",
        "engineConfigs",
        "",
        "é",
        "\n",
        "# ",
        "latency-scorer",
    ]);
    let leaf = prop_oneof![
        4 => word.clone().prop_map(Value::from),
        1 => Just(Value::Null),
        1 => any::<bool>().prop_map(Value::from),
        1 => any::<i64>().prop_map(Value::from),
        1 => any::<f64>().prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 64, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::vec((word.clone(), inner), 0..6)
                .prop_map(|map| map.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()),
        ]
    })
}

/// Sections of flow control of which most load.
fn flow_section() -> impl Strategy<Value = Value> {
    let band = (any::<i8>(), any::<Option<u8>>(), prop::sample::select(vec!["", "fcfs-ordering-policy", "a"]))
        .prop_map(|(priority, requests, ordering)| {
            serde_json::json!({"priority": priority, "maxRequests": requests, "orderingPolicyRef": ordering})
        });
    let detector = (any::<Option<u8>>(), prop::sample::select(vec!["", "utilization-detector", "b"]))
        .prop_map(|(depth, plugin)| serde_json::json!({"pluginRef": plugin, "queueDepthThreshold": depth}));
    let ttl = prop::sample::select(vec!["0s", "100ms", "1h", "x"]);
    let optional = |strategy| prop::option::weighted(0.5, strategy);
    (
        prop::collection::vec(band.clone(), 0..4),
        prop::option::of(band),
        prop::option::of(detector),
        optional(ttl),
        any::<Option<u16>>(),
    )
        .prop_map(|(bands, default, detector, ttl, limit)| {
            serde_json::json!({
                "priorityBands": bands, "defaultNegativePriorityBand": default, "saturationDetector": detector,
                "noEndpointRequestTTL": ttl, "maxBytes": limit,
            })
        })
}

/// Well-shaped documents with wild content.
fn document() -> impl Strategy<Value = Value> {
    let plugin = (tree(), tree(), prop::option::of(tree())).prop_map(
        |(kind, name, parameters)| serde_json::json!({"type": kind, "name": name, "parameters": parameters}),
    );
    let kind = prop::sample::select(vec![
        "queue-scorer",
        "prefix-cache-scorer",
        "ring",
        "max-score-picker",
        "token-producer",
        "approx-prefix-cache-producer",
        "single-profile-handler",
        "context-length-aware",
        "metrics-data-source",
        "file-discovery",
        "edf-ordering-policy",
        "utilization-detector",
        "concurrency-detector",
    ]);
    let name = prop::sample::select(vec![
        "a",
        "b",
        "ring-a",
        "ring-b",
        "token-producer",
        "metrics-data-source",
        "openai-parser",
    ]);
    let sane = (kind, prop::option::of(name.clone()))
        .prop_map(|(kind, name)| serde_json::json!({"type": kind, "name": name}));
    let plugins = prop::collection::vec(prop_oneof![4 => sane, 1 => plugin], 0..6);
    let row = (name.clone(), any::<Option<i8>>())
        .prop_map(|(name, weight)| serde_json::json!({"pluginRef": name, "weight": weight}));
    let profile = (name, prop::collection::vec(row.clone(), 0..4))
        .prop_map(|(name, plugins)| serde_json::json!({"name": name, "plugins": plugins}));
    let profiles = prop::collection::vec(profile, 0..3);
    let gates = prop::sample::select(vec![serde_json::json!([]), serde_json::json!(["flowControl"])]);
    let flow = prop_oneof![flow_section().prop_map(Some), prop::option::of(tree())];
    (plugins, profiles, prop::option::of(tree()), flow, prop::option::of(row), gates).prop_map(
        |(plugins, profiles, layer, flow, parser, gates)| {
            serde_json::json!({
                "featureGates": gates, "plugins": plugins, "schedulingProfiles": profiles, "dataLayer": layer, "flowControl": flow, "parser": parser,
            })
        },
    )
}

fn check(text: &str) -> Result<(), TestCaseError> {
    match load_text(text) {
        Ok(plan) => {
            prop_assert!(!plan.problems.has_errors());
            let effective = plan.effective_yaml();
            let again = load_text(&effective);
            prop_assert!(
                again.is_ok(),
                "{}\n{}",
                effective,
                again.err().map(|it| it.to_string()).unwrap_or_default()
            );
        }
        Err(problems) => prop_assert!(problems.has_errors()),
    }
    Ok(())
}

proptest! {
    #[test]
    fn no_text_upsets_the_loader(text in "[-\\[\\]{}:,&*!|>'\"%@`#?~<= \t\na-c0-2.]{0,120}") {
        check(&text)?;
    }

    #[test]
    fn no_tree_upsets_the_loader_and_what_loads_can_be_printed_and_loaded_again(tree in tree()) {
        check(&tree.to_string())?;
    }

    #[test]
    fn no_wild_content_in_a_sound_frame_upsets_the_loader(document in document()) {
        check(&document.to_string())?;
    }

    #[test]
    fn no_damage_to_a_good_document_upsets_the_loader(at in 0usize..900, gone in 0usize..40, put in "[-:#{}\\[\\] \n\ta*&]{0,4}") {
        let mut text = ConfigSource::built_in().to_owned();
        let start = at.min(text.len());
        let end = (start + gone).min(text.len());
        text.replace_range(start..end, &put);
        check(&text)?;
    }
}
