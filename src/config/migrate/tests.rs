use super::*;

fn migrated(text: &str) -> Migrated {
    let migrated = migrate(&ConfigSource::Text(text.to_owned())).unwrap();
    let again = migrate(&ConfigSource::Text(migrated.text.clone())).unwrap();
    assert_eq!(again.text, migrated.text, "a second time changes nothing");
    assert!(again.edits.is_empty(), "{:?} in\n{}", again.edits, migrated.text);
    migrated
}

#[test]
fn comments_blank_lines_and_order_stay() {
    let text = "\
# The pool of team A.
apiVersion: config.x-k8s.io/v1alpha1 # old group
kind: EndpointPickerConfig

featureGates:
- prepareDataPlugins # gone
# kept
- flowControl

# Scoring.
plugins:
  # the queue
  - type: queue-scorer   # by length
  - name: kv
    type: kv-cache-scorer
    # free
  - type: max-score-picker
    parameters:
      # one
      maxEndpoints: 1 # only
schedulingProfiles:
  - name: default
    plugins:
      - pluginRef: queue-scorer # first
        weight: 2
      - pluginRef: kv
# The end.
";
    let expected = "\
# The pool of team A.
apiVersion: llm-d.ai/v1alpha1  # old group
kind: EndpointPickerConfig

featureGates:
# kept
- flowControl

# Scoring.
plugins:
  # the queue
  - type: queue-scorer   # by length
  - name: kv
    type: kv-cache-utilization-scorer
    # free
  - type: max-score-picker
    parameters:
      # one
      maxNumOfEndpoints: 1 # only
schedulingProfiles:
  - name: default
    plugins:
      - pluginRef: queue-scorer # first
        weight: 2
      - pluginRef: kv
# The end.
";
    let migrated = migrated(text);
    assert!(migrated.keeps_comments);
    assert_eq!(migrated.text, expected);
    assert_eq!(migrated.edits.len(), 4, "{:?}", migrated.edits);
}

#[test]
fn a_section_that_moved_takes_its_comments_along() {
    let text = "\
data:
  # where from
  sources:
  - pluginRef: metrics-data-source # pages
    extractors:
    - pluginRef: core-metrics-extractor
saturationDetector:
  # full
  pluginRef: utilization-detector
";
    let expected = "\
dataLayer:
  # where from
  sources:
  - pluginRef: metrics-data-source # pages
    extractors:
    - pluginRef: core-metrics-extractor
flowControl:
  saturationDetector:
    # full
    pluginRef: utilization-detector
";
    assert_eq!(migrated(text).text, expected);
}

#[test]
fn a_scorer_that_held_its_index_gets_a_producer_behind_the_other_plugins() {
    let text = "\
plugins:
- type: prefix-cache-scorer
  parameters:
    hashBlockSize: 256
    lruCapacityPerServer: 100 # entries

- type: random-picker
";
    let expected = "\
plugins:
- type: prefix-cache-scorer

- type: random-picker
- type: approx-prefix-cache-producer
  name: approx-prefix-cache-producer
  parameters:
    lruCapacityPerServer: 100
    blockSizeTokens: 64
";
    let migrated = migrated(text);
    assert_eq!(migrated.text, expected);
    assert!(migrated.keeps_comments);
}

#[test]
fn json_stays_json_and_flow_style_is_written_on_one_line() {
    let json = migrated("{\"plugins\": [{\"type\": \"queue\"}]}").text;
    assert!(json.starts_with("{\n  \"plugins\": [\n    {\n"), "{json}");
    let flow = migrated("plugins: [{type: queue}] # all\n").text;
    assert_eq!(flow, "plugins:\n- name: queue\n  type: queue-scorer\n");
}

#[test]
fn thresholds_of_the_detector_become_parameters_of_its_plugin() {
    let text = "\
plugins:
- type: queue-scorer
saturationDetector:
  queueDepthThreshold: 9
  metricsStalenessThreshold: 300ms
";
    let expected = "\
plugins:
- type: queue-scorer
- type: utilization-detector
  parameters:
    queueDepthThreshold: 9
    metricsStalenessThreshold: 300ms
flowControl:
  saturationDetector:
    pluginRef: utilization-detector
";
    assert_eq!(migrated(text).text, expected);
}

#[test]
fn a_document_of_today_is_printed_as_it_is() {
    let text = "plugins: [ {type: queue-scorer} ]   # spaced\n\n\n";
    let migrated = migrated(text);
    assert_eq!(migrated.text, text);
    assert_eq!(migrated.edits, []);
    assert_eq!(super::migrate(&ConfigSource::Text("# none\n".to_owned())).unwrap().text, "# none\n");
    assert!(super::migrate(&ConfigSource::Text("a: [".to_owned())).is_err());
}

#[test]
fn anchors_survive_or_the_document_is_written_anew() {
    let text = "\
x: &p # shared
  maxEndpoints: 2
plugins:
- type: max-score-picker
  parameters: *p
- type: kv-cache-scorer
";
    let migrated = super::migrate(&ConfigSource::Text(text.to_owned())).unwrap();
    let root = parse(&migrated.text).unwrap().unwrap();
    assert_eq!(root.to_json()["plugins"][0]["parameters"]["maxNumOfEndpoints"], 2);
}
