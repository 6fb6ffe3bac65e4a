//! Each former form beside today's: both load to the same plan, and only the former one warns.

use std::sync::Arc;

use serde_json::json;

use super::translate;
use crate::config::{ConfigSource, LoadOptions, Plan, load};
use crate::document::{Level, Problems, parse};
use crate::metrics::Metrics;

fn plan(text: &str) -> Plan {
    let options = LoadOptions { allow_experimental: true, ..LoadOptions::new(Arc::new(Metrics::new())) };
    load(&ConfigSource::Text(text.to_owned()), &options)
        .unwrap_or_else(|problems| panic!("{text}\n{problems}"))
}

fn warnings(plan: &Plan) -> Vec<String> {
    plan.problems.of(Level::Warning).map(|problem| format!("{}: {}", problem.path, problem.message)).collect()
}

/// The former document says what the other one says, and each of `said` once beside it.
pub(super) fn assert_translated(former: &str, today: &str, said: &[&str]) {
    let (former_plan, today_plan) = (plan(former), plan(today));
    assert_eq!(former_plan.effective_yaml(), today_plan.effective_yaml(), "{former}");
    let (new, known) = (warnings(&former_plan), warnings(&today_plan));
    let new: Vec<&String> = new.iter().filter(|text| !known.contains(text)).collect();
    assert_eq!(new.len(), said.len(), "{new:?}");
    for (text, part) in new.iter().zip(said) {
        assert!(text.contains(part), "{text} lacks {part}");
    }
}

#[test]
fn former_names_of_types_load_as_todays_and_references_to_them_keep_working() {
    assert_translated(
        "plugins:\n- type: kv-cache-scorer\n- type: prefix-cache\n- type: max-score\n- type: single-profile\n\
         schedulingProfiles:\n- name: default\n  plugins:\n  - pluginRef: kv-cache-scorer\n    weight: 2\n  - pluginRef: prefix-cache\n  - pluginRef: max-score\n",
        "plugins:\n- {type: kv-cache-utilization-scorer, name: kv-cache-scorer}\n- {type: prefix-cache-scorer, name: prefix-cache}\n\
         - {type: max-score-picker, name: max-score}\n- {type: single-profile-handler, name: single-profile}\n\
         schedulingProfiles:\n- name: default\n  plugins:\n  - pluginRef: kv-cache-scorer\n    weight: 2\n  - pluginRef: prefix-cache\n  - pluginRef: max-score\n",
        &[
            "plugins[0].type: \"kv-cache-scorer\" is the former name of \"kv-cache-utilization-scorer\"",
            "plugins[1].type: \"prefix-cache\"",
            "plugins[2].type: \"max-score\"",
            "plugins[3].type: \"single-profile\"",
        ],
    );
}

#[test]
fn former_parameters_load_as_todays() {
    assert_translated(
        "plugins:\n- type: random-picker\n  parameters: {MAXENDPOINTS: 3}\n",
        "plugins:\n- type: random-picker\n  parameters: {maxNumOfEndpoints: 3}\n",
        &["plugins[0].parameters.MAXENDPOINTS: is the former name of `maxNumOfEndpoints`"],
    );
    assert_translated(
        "plugins:\n- type: random-picker\n  parameters: {maxEndpoints: 3, maxNumOfEndpoints: 2}\n",
        "plugins:\n- type: random-picker\n  parameters: {maxNumOfEndpoints: 2}\n",
        &["has no effect beside `maxNumOfEndpoints`"],
    );
}

#[test]
fn the_first_scorer_by_latency_leaves_to_others_what_they_do_today() {
    assert_translated(
        "plugins:\n- type: predicted-latency-scorer\n  parameters: {headroomTTFTWeight: 0.9, headroomTPOTWeight: 0.1, \
         maxSampledTokens: 30, affinityGateTauGlobal: 0.95, epsilonExploreNeg: 0.03, selectionMode: linear, \
         compositeKVWeight: 2}\n",
        "plugins:\n- type: latency-scorer\n  name: predicted-latency-scorer\n  parameters: {ttftWeight: 0.9, \
         tpotWeight: 0.1, compositeKVWeight: 2}\n",
        &[
            "write `type: latency-scorer`",
            "affinityGateTauGlobal: has no effect any more: `prefix-cache-affinity-filter` keeps",
            "epsilonExploreNeg: has no effect any more: `slo-headroom-tier-filter`",
            "headroomTPOTWeight: is the former name of `tpotWeight`",
            "headroomTTFTWeight: is the former name of `ttftWeight`",
            "maxSampledTokens: has no effect any more",
            "selectionMode: has no effect any more: the picker chooses",
        ],
    );
}

#[test]
fn a_scorer_with_an_index_of_its_own_becomes_a_scorer_and_a_producer() {
    assert_translated(
        "plugins:\n- type: prefix-cache-scorer\n  parameters: {hashBlockSize: 1000, maxPrefixBlocksToMatch: 256, lrucapacityperserver: 31}\n- type: queue-scorer\n",
        "plugins:\n- type: prefix-cache-scorer\n  parameters: {}\n- type: queue-scorer\n\
         - type: approx-prefix-cache-producer\n  parameters: {lruCapacityPerServer: 31, maxPrefixBlocksToMatch: 256, blockSizeTokens: 250}\n",
        &["write `- {type: approx-prefix-cache-producer, parameters: {\"blockSizeTokens\":250,"],
    );
}

#[test]
fn scorers_share_an_index_if_their_parameters_are_equal_and_have_two_otherwise() {
    let scorer = |name: &str, capacity: u32| {
        format!(
            "- type: prefix-cache-scorer\n  name: {name}\n  parameters: {{autoTune: false, blockSizeTokens: 64, lruCapacityPerServer: {capacity}}}\n"
        )
    };
    let producers =
        |text: &str| plan(text).effective_yaml().matches("type: approx-prefix-cache-producer").count();
    assert_eq!(producers(&format!("plugins:\n{}{}", scorer("a", 5), scorer("b", 5))), 1);
    let two = format!("plugins:\n{}{}", scorer("a", 5), scorer("b", 6));
    assert_eq!(producers(&two), 2);
    assert!(plan(&two).effective_yaml().contains("\"prefixMatchInfoProducerName\":\"b-index\""));
}

#[test]
fn parameters_of_the_index_beside_a_producer_are_told_to_have_no_effect() {
    assert_translated(
        "plugins:\n- type: approx-prefix-cache-producer\n  parameters: {lruCapacityPerServer: 9}\n- type: prefix-cache-scorer\n  parameters: {blockSize: 64}\n",
        "plugins:\n- type: approx-prefix-cache-producer\n  parameters: {lruCapacityPerServer: 9}\n- type: prefix-cache-scorer\n  parameters: {}\n",
        &[
            "`blockSize` (in characters) have no effect here: they are parameters of \"approx-prefix-cache-producer\" today",
        ],
    );
}

#[test]
fn sections_that_moved_load_from_where_they_stood() {
    let metrics = "plugins:\n- type: metrics-data-source\n  name: pages\n- type: core-metrics-extractor\n  name: reader\n";
    let sources = "  sources:\n  - pluginRef: pages\n    extractors:\n    - pluginRef: reader\n";
    assert_translated(
        &format!("{metrics}data:\n{sources}"),
        &format!("{metrics}dataLayer:\n{sources}"),
        &["data: is the former name of `dataLayer`"],
    );
    let discovery = "plugins:\n- type: file-discovery\n  parameters: {path: /e.yaml}\n";
    assert_translated(
        &format!("{discovery}discovery:\n  pluginRef: file-discovery\n"),
        &format!("{discovery}dataLayer:\n  discovery:\n    pluginRef: file-discovery\n"),
        &["discovery: is the former name of `dataLayer.discovery`"],
    );
    assert_translated(
        "requestHandler:\n  parser:\n    pluginRef: openai-parser\n",
        "requestHandler:\n  parsers:\n  - pluginRef: openai-parser\n",
        &["requestHandler.parser: is an element of the list `requestHandler.parsers` today"],
    );
    assert_translated(
        "plugins:\n- type: queue-scorer\nprofileHandler:\n  type: single-profile-handler\n",
        "plugins:\n- type: queue-scorer\n- type: single-profile-handler\n",
        &["profileHandler: is a row of `plugins` today"],
    );
    assert_translated(
        "metadata:\n  name: x\nplugins:\n- type: queue-scorer\n",
        "plugins:\n- type: queue-scorer\n",
        &["metadata: has no effect"],
    );
}

#[test]
fn a_former_section_beside_todays_is_told_to_have_no_effect() {
    let today =
        "dataLayer:\n  injectDefaults: true\nrequestHandler:\n  parsers:\n  - pluginRef: openai-parser\n";
    assert_translated(
        "data:\n  injectDefaults: false\ndataLayer:\n  injectDefaults: true\nrequestHandler:\n  parsers:\n  - pluginRef: openai-parser\n  parser:\n    pluginRef: x\n",
        today,
        &["data: has no effect beside `dataLayer`", "requestHandler.parser: has no effect beside"],
    );
}

#[test]
fn gates_that_are_gone_warn_whatever_they_say() {
    for gate in ["prepareDataPlugins", "dataLayer", "enableLegacyMetrics=false"] {
        let name = gate.split('=').next().unwrap();
        let said = format!("featureGates[0]: the feature gate \"{name}\" is gone");
        let text = format!("featureGates:\n- {gate}\nplugins:\n- type: queue-scorer\n");
        assert_translated(&text, "plugins:\n- type: queue-scorer\n", &[&said]);
    }
}

#[test]
fn every_version_of_a_former_group_loads_and_an_empty_version_is_none() {
    let body = "plugins:\n- type: queue-scorer\n";
    for version in [
        "inference.networking.x-k8s.io/v1alpha1",
        "inference.networking.x-k8s.io/v1alpha2",
        "inference.networking.k8s.io/v1",
        "config.x-k8s.io/v1alpha1",
        "config.apix.gateway-api-inference-extension.sigs.k8s.io/v1alpha1",
    ] {
        let said = format!("apiVersion: \"{version}\" is a former group");
        assert_translated(&format!("apiVersion: {version}\n{body}"), body, &[&said]);
    }
    for silent in
        ["apiVersion: ''\nkind: ''\n", "apiVersion: llm-d.ai/v1\n", "apiVersion: llm-d.ai/v1alpha1\n"]
    {
        assert_translated(&format!("{silent}{body}"), body, &[]);
    }
    let options = LoadOptions::new(Arc::new(Metrics::new()));
    for strange in ["llm-d.ai/v2", "inference.networking.x-k8s.io/latest", "router.llm-d.ai/v1beta1", "v1"] {
        let text = format!("apiVersion: {strange}\n{body}");
        assert!(load(&ConfigSource::Text(text), &options).is_err(), "{strange}");
    }
}

#[test]
fn both_forms_of_the_data_layer_say_the_same() {
    let discovery =
        "plugins:\n- type: file-discovery\n  parameters: {path: /e.yaml}\ndataLayer:\n  discovery:\n";
    let today = format!("{discovery}    pluginRef: file-discovery\n");
    assert_translated(&format!("{discovery}    endpoints:\n      pluginRef: file-discovery\n"), &today, &[]);
    assert_translated(
        &format!(
            "{discovery}    endpoints:\n      pluginRef: file-discovery\n    pluginRef: other\n    peers:\n      pluginRef: p\n"
        ),
        &today,
        &["dataLayer.discovery.pluginRef: has no effect beside", "dataLayer.discovery.peers: has no effect"],
    );
    assert_translated(
        &format!(
            "{today}  crossReplica:\n    syncerPluginRef: ''\n    syncInterval: 500ms\n    publishTimeout: 2s\n  crossReplicaPublishTimeout: 1s\n"
        ),
        &today,
        &[
            "crossReplica.syncInterval: has no effect",
            "crossReplica.publishTimeout",
            "crossReplicaPublishTimeout",
        ],
    );
    let syncer = format!("{today}  crossReplica:\n    syncerPluginRef: local\n");
    assert_translated(&syncer, &today, &["dataLayer.crossReplica.syncerPluginRef: \"local\" is not asked"]);
    let wrong = format!("{discovery}    endpoints:\n      pluginRef: file-discovery\n      extra: 1\n");
    let problems = load(&ConfigSource::Text(wrong), &LoadOptions::new(Arc::new(Metrics::new()))).unwrap_err();
    let text = problems.to_string();
    assert!(
        text.ends_with("dataLayer.discovery.endpoints.extra: unknown field; valid are `pluginRef`"),
        "{text}"
    );
}

#[test]
fn empty_strings_for_names_mean_the_default() {
    let empty = "plugins:\n- {type: prefix-cache-scorer, name: '', parameters: {prefixMatchInfoProducerName: ''}}\n\
         - {type: no-hit-lru-scorer, parameters: {PREFIXMATCHINFOPRODUCERNAME: ''}}\n\
         - {type: session-affinity-scorer, parameters: {strategy: '', headerName: '', encodedEndpointHeaderConfig: {header: ''}}}\n\
         - {type: concurrency-detector, parameters: {concurrencyMode: '', inFlightLoadProducerName: ''}}\n\
         - {type: utilization-detector, parameters: {stalenessPolicy: ''}}\n\
         - {type: metrics-data-source, parameters: {scheme: ''}}\n\
         - {type: program-aware-fairness, parameters: {strategy: ''}}\n";
    let plan = plan(empty);
    assert!(plan.effective_yaml().contains("writes PrefixMatch for prefix-cache-scorer, no-hit-lru-scorer"));
}

#[test]
fn a_document_of_any_shape_is_translated_without_a_panic() {
    for text in [
        "plugins: 5\nprofileHandler: 4\nrequestHandler: 3\ndata: 2\ndataLayer: 1\ndiscovery: {}\n",
        "plugins: [[], 3, {type: prefix-cache}, {type: prefix-cache, parameters: 4}]\n",
        "plugins:\n- {type: prefix-cache-scorer, parameters: {hashBlockSize: -5, blockSize: x, autoTune: null}}\n",
        "plugins:\n- {type: prefix-cache-scorer, parameters: {hashBlockSize: 18446744073709551615}}\n",
        "[]\n",
        "data: null\nmetadata: null\nprofileHandler: null\nrequestHandler: {parser: null, parsers: null}\n",
    ] {
        let _ = load(&ConfigSource::Text(text.to_owned()), &LoadOptions::new(Arc::new(Metrics::new())));
    }
}

/// The tree after translation, and what was said.
fn translated(text: &str) -> (serde_json::Value, Vec<String>) {
    let mut problems = Problems::new("t");
    let mut root = parse(text).unwrap().unwrap();
    translate(&mut root, &mut problems);
    (root.to_json(), problems.iter().map(ToString::to_string).collect())
}

#[test]
fn profile_handlers_that_decided_themselves_get_the_decider_that_decides_the_same() {
    let cases = [
        ("{threshold: 0, hashBlockSize: 5}", json!({"type": "always-disagg-pd-decider"})),
        ("{prefillThreshold: 0}", json!({"type": "always-disagg-pd-decider"})),
        (
            "{THRESHOLD: 10, primaryPort: 8000}",
            json!({"type": "prefix-based-pd-decider", "parameters": {"nonCachedTokens": 3}}),
        ),
        (
            "{decider: {name: d, parameters: {nonCachedTokens: 8}}}",
            json!({"type": "prefix-based-pd-decider", "parameters": {"nonCachedTokens": 8}}),
        ),
        ("{}", json!({"type": "always-disagg-pd-decider"})),
        ("null", json!({"type": "always-disagg-pd-decider"})),
    ];
    for (parameters, decider) in cases {
        let text = format!("plugins:\n- type: pd-profile-handler\n  parameters: {parameters}\n");
        let (document, said) = translated(&text);
        assert_eq!(document["plugins"][1], decider, "{parameters}");
        assert_eq!(document["plugins"][0]["parameters"]["deciderPluginName"], decider["type"]);
        assert!(document["plugins"][0]["parameters"].get("threshold").is_none());
        assert_eq!(said.len(), 1, "{said:?}");
        assert!(said[0].contains(&format!("type: {}", decider["type"].as_str().unwrap())), "{said:?}");
    }
}

#[test]
fn the_newer_handler_with_the_older_parameters_decides_as_they_say() {
    for (parameters, decider) in [
        ("{threshold: 0, hashBlockSize: 5}", "always-disagg-pd-decider"),
        ("{threshold: 40}", "prefix-based-pd-decider"),
        ("{hashBlockSize: 5}", "always-disagg-pd-decider"),
    ] {
        let text = format!("plugins:\n- type: disagg-profile-handler\n  parameters: {parameters}\n");
        let (document, said) = translated(&text);
        let rows = &document["plugins"];
        assert_eq!(rows[0]["parameters"], json!({"deciderPluginName": decider}), "{parameters}");
        assert_eq!((&rows[1]["type"], said.len()), (&json!(decider), 1), "{said:?}");
    }
    let text = "plugins:\n- type: disagg-profile-handler\n  parameters: {stageOrder: prefill-first}\n";
    assert_eq!(translated(text), (parse(text).unwrap().unwrap().to_json(), Vec::new()));
}

#[test]
fn a_handler_of_encode_and_decode_becomes_that_of_all_stages() {
    for former in ["ed-profile-handler", "e-pd-profile-handler"] {
        let text = format!(
            "plugins:\n- type: {former}\n  parameters: {{deciderPluginName: mine, primaryPort: 8000}}\n"
        );
        let (document, said) = translated(&text);
        let row = &document["plugins"][0];
        assert_eq!(row["type"], "disagg-profile-handler");
        assert_eq!(row["parameters"], json!({"deciders": {"encode": "mine"}}));
        assert!(
            said.len() == 2 && said.iter().any(|text| text.contains("primaryPort: has no effect")),
            "{said:?}"
        );
    }
}

#[test]
fn a_profile_handler_with_a_decider_keeps_it() {
    for handler in ["{deciderPluginName: mine}", "{}"] {
        let text = format!(
            "plugins:\n- {{type: pd-profile-handler, parameters: {handler}}}\n- {{type: prefix-based-pd-decider, parameters: {{nonCachedTokens: 4}}}}\n"
        );
        let (document, said) = translated(&text);
        assert_eq!((document, said), (parse(&text).unwrap().unwrap().to_json(), Vec::new()));
    }
    let (document, said) = translated(
        "plugins:\n- {type: pd-profile-handler, parameters: {deciderPluginName: mine, threshold: 7}}\n",
    );
    assert_eq!(
        document["plugins"],
        json!([{"type": "pd-profile-handler", "parameters": {"deciderPluginName": "mine"}}])
    );
    assert!(said[0].contains("`threshold` have no effect"), "{said:?}");
}

#[test]
fn a_prefix_scorer_that_followed_events_becomes_the_precise_one() {
    for parameters in ["{mode: cache_tracking, lruCapacityPerServer: 5}", "{kvEventsConfig: {}}"] {
        let text = format!("plugins:\n- {{type: prefix-cache-scorer, parameters: {parameters}}}\n");
        let (document, said) = translated(&text);
        let row = &document["plugins"][0];
        assert_eq!(
            (&row["type"], &row["name"]),
            (&json!("precise-prefix-cache-scorer"), &json!("prefix-cache-scorer"))
        );
        assert_eq!((document["plugins"].as_array().unwrap().len(), said.len()), (1, 1));
    }
    let (document, said) =
        translated("plugins:\n- {type: prefix-cache-scorer, parameters: {mode: estimate}}\n");
    assert_eq!(document["plugins"], json!([{"type": "prefix-cache-scorer", "parameters": {}}]));
    assert!(said[0].contains("parameters.mode: has no effect any more"), "{said:?}");
}

#[test]
fn former_parameters_of_the_makers_of_tokens_and_of_the_precise_index_stand_where_they_do_today() {
    let cases = [
        (
            "{type: token-producer, parameters: {backend: vllm, modelName: m, vllm: {url: u}}}",
            json!({"modelName": "m", "vllm": {"url": "u"}}),
        ),
        (
            "{type: token-producer, parameters: {modelName: m, vllmHTTP: {url: u}}}",
            json!({"modelName": "m", "vllm": {"url": "u"}}),
        ),
        (
            "{type: tokenizer, parameters: {modelName: m, VLLM: {http: u}}}",
            json!({"modelName": "m", "VLLM": {"url": "u"}}),
        ),
        (
            "{type: token-producer, parameters: {vllm: {http: former, url: today}}}",
            json!({"vllm": {"url": "today"}}),
        ),
        (
            "{type: precise-prefix-cache-scorer, parameters: {indexerConfig: {speculativeIndexing: true}}}",
            json!({"indexerConfig": {}, "speculativeIndexing": true}),
        ),
    ];
    for (row, parameters) in cases {
        let (document, said) = translated(&format!("plugins:\n- {row}\n"));
        assert_eq!(document["plugins"][0]["parameters"], parameters, "{row}");
        assert_eq!(said.len(), 1, "{said:?}");
    }
}

#[test]
fn a_profile_handler_of_the_first_predicted_latencies_becomes_one_by_header() {
    let profiles = "- type: queue-scorer\n- type: max-score-picker\nschedulingProfiles:\n\
        - name: default\n  plugins:\n  - pluginRef: queue-scorer\n- name: slo\n  plugins:\n  - pluginRef: max-score-picker\n";
    assert_translated(
        &format!("plugins:\n- type: slo-aware-profile-handler\n{profiles}"),
        &format!(
            "plugins:\n- type: header-profile-handler\n  name: slo-aware-profile-handler\n  parameters: {{defaultProfile: default}}\n{profiles}"
        ),
        &["plugins[0].type: \"slo-aware-profile-handler\" is gone; write `type: header-profile-handler`"],
    );
}

#[test]
fn the_first_parameters_of_the_reporter_become_an_attribute() {
    let attribute = "attributes: [{key: {namespace: a.b, name: cost}, expression: usage.prompt_tokens, condition: 'true'}]";
    for (former, said) in [
        (
            "metric: {namespace: a.b, name: cost, dataSource: usage, expression: usage.prompt_tokens, condition: 'true'}",
            1,
        ),
        (
            "METRIC: {Namespace: a.b, name: cost, dataSource: body, expression: usage.prompt_tokens, condition: 'true'}",
            2,
        ),
    ] {
        let row = |parameters: &str| {
            format!(
                "plugins:\n- type: queue-scorer\n- type: request-attribute-reporter\n  parameters:\n    {parameters}\n"
            )
        };
        let (former_plan, today_plan) = (plan(&row(former)), plan(&row(attribute)));
        assert_eq!(former_plan.reporters.len(), 1);
        assert_eq!(
            warnings(&former_plan).len(),
            warnings(&today_plan).len() + said,
            "{:?}",
            warnings(&former_plan)
        );
    }
}

#[test]
fn parameters_that_are_gone_are_left_out_with_a_word() {
    for (row, said) in [
        ("{type: prefix-cache-scorer, parameters: {lruIndexerCapacity: 31250}}", "lruCapacityPerServer"),
        ("{type: session-affinity-scorer, parameters: {maxAge: 3600}}", "evictionTtlSeconds"),
        (
            "{type: precise-prefix-cache-scorer, parameters: {kvCacheRedisAddr: 'redis:6379'}}",
            "--prefix-index-memory",
        ),
        (
            "{type: approx-prefix-cache-producer, parameters: {multiModalTokenEstimator: {image: {}}}}",
            "token-producer",
        ),
        ("{type: token-producer, parameters: {modelName: , vllm: {url: }}}", "tokens are estimated"),
    ] {
        let plan = plan(&format!("plugins:\n- type: queue-scorer\n- {row}\n"));
        let warnings = warnings(&plan);
        assert!(warnings.iter().any(|warning| warning.contains(said)), "{row}: {warnings:?}");
    }
}
