use super::fakes::plan;

const RICH: &str = "\
plugins:
- {type: label-selector-filter, name: \"odd: name # 1\"}
- type: context-length-aware
- type: prefix-cache-scorer
- type: queue-scorer
- {type: label-selector-filter, name: last}
- type: approx-prefix-cache-producer
  parameters: {blockSize: 16, MAXPREFIXTOKENS: 4}
- {type: metrics-data-source, name: mine, parameters: {scheme: https}}
- type: disagg-profile-handler
- type: random-picker
- type: edf-ordering-policy
- {type: file-discovery, parameters: {path: /etc/e.yaml}}
schedulingProfiles:
- name: prefill
  plugins:
  - pluginRef: \"odd: name # 1\"
  - pluginRef: context-length-aware
    weight: 0.5
  - pluginRef: queue-scorer
    weight: -3
  - pluginRef: last
- name: \"true\"
  plugins:
  - pluginRef: prefix-cache-scorer
    weight: 1e-3
  - pluginRef: random-picker
requestHandler:
  parsers:
  - pluginRef: openai-parser
dataLayer:
  sources:
  - pluginRef: mine
  discovery:
    pluginRef: file-discovery
flowControl:
  maxRequests: 10
";

fn without_comments(yaml: &str) -> String {
    yaml.lines().map(|line| line.split("  # ").next().unwrap_or_default().to_owned() + "\n").collect()
}

#[test]
fn the_effective_configuration_loads_to_itself() {
    for text in [RICH, "kind: EndpointPickerConfig\n", "plugins:\n- type: prefix-cache-scorer\n", ""] {
        let first = plan(text).effective_yaml();
        let second = plan(&first).effective_yaml();
        assert_eq!(without_comments(&first), without_comments(&second));
    }
}

#[test]
fn the_same_document_gives_the_same_plan_every_time() {
    let first = plan(RICH);
    for _ in 0..20 {
        let again = plan(RICH);
        assert_eq!(first.effective_yaml(), again.effective_yaml());
        assert_eq!(first.problems, again.problems);
        assert_eq!(first.instances, again.instances);
    }
}

#[test]
fn the_effective_configuration_reads_well() {
    insta::assert_snapshot!(plan(RICH).effective_yaml(), @r#"
apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
featureGates:
- flowControl=false
- haPopulateNonLeaderDatastore=true
plugins:
- type: label-selector-filter
  name: "odd: name # 1"
- type: context-length-aware
- type: prefix-cache-scorer
- type: queue-scorer
- type: label-selector-filter
  name: last
- type: approx-prefix-cache-producer  # writes Match for prefix-cache-scorer
  parameters: {"MAXPREFIXTOKENS":4,"blockSize":16}
- type: metrics-data-source
  name: mine
  parameters: {"scheme":"https"}
- type: disagg-profile-handler
- type: random-picker
- type: edf-ordering-policy
- type: file-discovery
  parameters: {"path":"/etc/e.yaml"}
- type: openai-parser  # added: a list of parsers names it
- type: token-producer  # added: "approx-prefix-cache-producer" reads Tokens; writes Tokens for context-length-aware, approx-prefix-cache-producer
schedulingProfiles:
- name: prefill
  plugins:
  - pluginRef: "odd: name # 1"
  - pluginRef: context-length-aware
    weight: 0.5
  - pluginRef: last
  - pluginRef: queue-scorer
    weight: -3
  - pluginRef: random-picker
- name: "true"
  plugins:
  - pluginRef: prefix-cache-scorer
    weight: 0.001
  - pluginRef: random-picker
requestHandler:
  parsers:
  - pluginRef: openai-parser
dataLayer:
  sources:
  - pluginRef: mine
  discovery:
    pluginRef: file-discovery
flowControl: {"maxRequests":10}  # no effect: the feature gate is off
"#);
}

#[test]
fn hooks_and_filters_run_in_document_order() {
    let plan = plan(RICH);
    let filters: Vec<&str> =
        plan.scheduler.profiles()[0].filters.iter().map(|filter| &*filter.name).collect();
    assert_eq!(filters, ["odd: name # 1", "context-length-aware", "last"]);
    let producers: Vec<&str> = plan.producers.iter().map(|producer| &*producer.name).collect();
    assert_eq!(producers, ["token-producer", "approx-prefix-cache-producer"]);
}
