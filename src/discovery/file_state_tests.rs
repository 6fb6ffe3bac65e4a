use proptest::prelude::*;

use super::*;
use crate::pool::Rewrites;

fn state(text: &str) -> FileState {
    FileState::parse(text.as_bytes(), "e.yaml").unwrap_or_else(|problems| panic!("{problems}"))
}

fn faults(text: &str) -> Vec<String> {
    let problems = FileState::parse(text.as_bytes(), "e.yaml").expect_err("must be refused");
    problems.of(Level::Error).map(|problem| problem.to_string().replacen("e.yaml:", "", 1)).collect()
}

fn warnings(text: &str) -> Vec<String> {
    state(text).warnings.iter().map(|problem| problem.to_string().replacen("e.yaml:", "", 1)).collect()
}

#[test]
fn endpoints_come_in_file_order_with_their_defaults() {
    let text = "endpoints:\n- name: b\n  address: 10.0.0.2\n  port: \"8000\"\n- name: a\n  namespace: n\n  address: fd00::1\n  port: 8001\n  labels: {k: v}\n";
    let state = state(text);
    let first = EndpointSpec::new(EndpointId::new("default", "b"), "10.0.0.2:8000".parse().unwrap());
    let second = EndpointSpec::new(EndpointId::new("n", "a"), "[fd00::1]:8001".parse().unwrap());
    assert_eq!(state.endpoints, [first, second.with_labels([("k", "v")])]);
    assert_eq!(state.warnings, []);
}

#[test]
fn an_address_may_be_a_host_name() {
    let row = |address: &str| format!("endpoints: [{{name: a, address: \"{address}\", port: 1}}]\n");
    for name in ["localhost", "vllm-0.vllm.default.svc.cluster.local", "gpu_1", "0x.example.", "Host-7"] {
        let state = state(&row(name));
        let written = name.trim_end_matches('.').to_ascii_lowercase();
        assert_eq!(state.hosts.names().map(|host| &**host).collect::<Vec<_>>(), [written], "{name}");
        assert_eq!(state.warnings, []);
    }
    let long = [["a"; 64].concat(), ["a."; 127].concat() + "aaaa"];
    for wrong in ["10.0.0.300", "10.0.0", "a b", "-a", "a..b", ".", "a:80", "http://a", &long[0], &long[1]] {
        let faults = faults(&row(wrong));
        assert!(
            faults.len() == 1 && faults[0].contains("expected an IPv4 or IPv6 address or a host name"),
            "{faults:?}"
        );
    }
}

#[test]
fn metrics_may_have_a_port_and_a_scheme_of_their_own() {
    let row = |more: &str| format!("endpoints: [{{name: a, address: 10.0.0.1, port: 1, {more}}}]\n");
    for (more, port, https) in [
        ("metricsPort: \"21002\"", 21002, None),
        ("metricsPort: 21002, metricsScheme: https", 21002, Some(true)),
        ("scheme: HTTP", 1, Some(false)),
    ] {
        let state = state(&row(more));
        let spec = &state.endpoints[0];
        assert_eq!((spec.address.port(), spec.metrics_address.port()), (1, port), "{more}");
        assert_eq!((spec.metrics.port.is_some(), spec.metrics.https), (port != 1, https), "{more}");
        assert_eq!(state.warnings, []);
    }
    let port = "endpoints[0].metricsPort: got 0, expected a port from 1 to 65535 (endpoint \"a\")";
    assert!(faults(&row("metricsPort: 0"))[0].contains(port));
    let scheme = "endpoints[0].metricsScheme: got \"ftp\", expected \"http\" or \"https\" (endpoint \"a\")";
    assert!(faults(&row("metricsScheme: ftp"))[0].contains(scheme));
}

#[test]
fn json_is_read_too() {
    let text = r#"{"endpoints": [{"name": "a", "address": "127.0.0.1", "port": "1"}]}"#;
    assert_eq!(state(text).endpoints.len(), 1);
}

#[test]
fn a_pool_without_endpoints_is_said_so_and_an_empty_file_is_a_fault() {
    assert_eq!(state("endpoints: []\n").endpoints, []);
    for text in ["", "\n", "# only a comment\n", "objectives: []\n", "endpoints:\n", "{}"] {
        assert_eq!(faults(text).len(), 1, "{text:?}");
    }
}

#[test]
fn every_fault_is_told_with_line_index_and_name() {
    let text = "\
endpoints:
- name: a
  address: local host
  port: \"0\"
- name: \"\"
  address: 10.0.0.1
  port: 65536
- address: 10.0.0.1
  port: \"1\"
- name: ok
  address: 10.0.0.1
  port: \"1\"
- name: ok
  address: 10.0.0.2
  port: \"1\"
- name: l
  address: 10.0.0.3
  port: [1]
  labels: {a: 1, b: true}
- 7
";
    assert_eq!(
        faults(text),
        [
            "3: endpoints[0].address: got \"local host\", expected an IPv4 or IPv6 address or a host name (endpoint \"a\")",
            "4: endpoints[0].port: got \"0\", expected a port from 1 to 65535 (endpoint \"a\")",
            "5: endpoints[1].name: is empty",
            "7: endpoints[1].port: got 65536, expected a port from 1 to 65535",
            "8: endpoints[2].name: is required",
            "13: endpoints[4].name: default/ok is listed already, in line 10",
            "18: endpoints[5].port: got a list, expected a port from 1 to 65535 (endpoint \"l\")",
            "19: endpoints[5].labels.a: got 1, expected a string in quotes (endpoint \"l\")",
            "19: endpoints[5].labels.b: got true, expected a string in quotes (endpoint \"l\")",
            "20: endpoints[6]: got 7, expected a mapping",
        ]
    );
}

#[test]
fn what_means_nothing_is_a_warning_with_the_nearest_name() {
    let text = "endpoint: []\nendpoints:\n- name: a\n  address: 10.0.0.1\n  port: \"1\"\n  lables: {}\n- name: b\n  address: 10.0.0.1\n  port: \"1\"\n";
    assert_eq!(
        warnings(text),
        [
            "1: endpoint: unknown field; did you mean `endpoints`?",
            "6: endpoints[0].lables: unknown field; did you mean `labels`?",
            "7: endpoints[1]: default/b has the address 10.0.0.1:1 of the endpoint in line 3",
        ]
    );
}

#[test]
fn objectives_are_read_flat_and_as_resources() {
    let text = "\
endpoints: []
objectives:
- name: a
  priority: 5
- name: b
- name: c
  priority: -1
  poolRef: other
- apiVersion: llm-d.ai/v1alpha2
  kind: InferenceObjective
  metadata: {name: d, namespace: x, labels: {}}
  spec: {priority: 7, poolRef: {name: p, group: inference.networking.k8s.io}}
  status: {}
";
    let objective = |name: &str, priority, pool: Option<&str>| FileObjective {
        name: name.into(),
        priority,
        pool: pool.map(str::to_owned),
    };
    let state = state(text);
    assert_eq!(
        state.objectives,
        [
            objective("a", 5, None),
            objective("b", 0, None),
            objective("c", -1, Some("other")),
            objective("d", 7, Some("p"))
        ]
    );
    assert_eq!(state.warnings, []);
}

#[test]
fn faulty_objectives_refuse_the_file() {
    let text = "endpoints: []\nobjectives:\n- name: a\n  priority: high\n- name: a\n- priority: 1\n- metadata: {name: m}\n- spec: {}\n";
    assert_eq!(
        faults(text),
        [
            "4: objectives[0].priority: got \"high\", expected a whole number from -2147483648 to 2147483647",
            "5: objectives[1]: \"a\" is listed already, in line 3",
            "6: objectives[2].name: is required",
            "7: objectives[3].spec: is required (\"m\")",
            "8: objectives[4].metadata: is required",
        ]
    );
}

#[test]
fn rewrites_without_a_time_are_ordered_as_in_the_file_and_older_than_the_others() {
    let text = "\
endpoints: []
modelRewrites:
- metadata: {name: timed, creationTimestamp: \"2020-01-01T00:00:00Z\"}
  spec:
    rules:
    - matches: [{model: {type: Exact, value: m}}]
      targets: [{modelRewrite: from-timed}]
- name: z
  rules:
  - matches: [{model: {value: m}}, {model: {value: n}}]
    targets: [{modelRewrite: from-z, weight: 3}, {modelRewrite: other, weight: 1}]
- name: a
  rules:
  - targets: [{modelRewrite: from-a}]
  - matches: [{model: {value: m}}]
    targets: [{modelRewrite: late}]
";
    let rewrites = Rewrites::new(state(text).rewrites.into_iter().map(|rewrite| rewrite.rewrite).collect());
    let found = |model: &str| rewrites.find(model).map(|(name, _)| name.to_owned());
    assert_eq!(found("m").as_deref(), Some("z"));
    assert_eq!(found("n").as_deref(), Some("z"));
    assert_eq!(found("q").as_deref(), Some("a"));
}

#[test]
fn faulty_rewrites_refuse_the_file() {
    let text = "\
endpoints: []
modelRewrites:
- name: r
  rules:
  - matches:
    - headers: {}
    - model: {type: Prefix, value: \"\"}
    targets:
    - modelRewrite: a
      weight: 0
  - matches: []
- metadata: {name: t, creationTimestamp: soon}
  spec: {}
";
    assert_eq!(
        faults(text),
        [
            "6: modelRewrites[0].rules[0].matches[0].model: is required (rewrite \"r\")",
            "7: modelRewrites[0].rules[0].matches[1].model.type: got \"Prefix\", expected \"Exact\" (rewrite \"r\")",
            "7: modelRewrites[0].rules[0].matches[1].model.value: is empty (rewrite \"r\")",
            "10: modelRewrites[0].rules[0].targets[0].weight: got 0, expected a weight from 1 to 1000000 (rewrite \"r\")",
            "11: modelRewrites[0].rules[1].targets: needs at least one target (rewrite \"r\")",
            "12: modelRewrites[1].metadata.creationTimestamp: got \"soon\", expected a time such as 2024-05-01T12:00:00Z (\"t\")",
        ]
    );
}

#[test]
fn mixed_weights_are_a_warning() {
    let text = "endpoints: []\nmodelRewrites:\n- name: r\n  rules:\n  - targets: [{modelRewrite: a, weight: 1}, {modelRewrite: b}]\n";
    assert_eq!(warnings(text).len(), 1);
}

#[test]
fn a_file_that_is_too_large_or_not_text_is_refused() {
    assert!(FileState::parse(&vec![b' '; MAX_DOCUMENT_BYTES + 1], "e").is_err());
    assert!(FileState::parse(b"endpoints: [\xff]", "e").is_err());
}

#[test]
fn the_example_file_is_good() {
    let text = include_str!("../../config/endpoints.example.yaml");
    let state = state(text);
    assert_eq!((state.endpoints.len(), state.objectives.len(), state.rewrites.len()), (2, 2, 1));
    assert_eq!(state.warnings, []);
}

#[test]
fn the_file_for_the_simulator_lists_its_four_servers() {
    let state = state(include_str!("../../config/endpoints.sim.yaml"));
    assert_eq!((state.endpoints.len(), state.warnings.len()), (4, 0));
}

proptest! {
    #[test]
    fn no_content_upsets_the_reader(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = FileState::parse(&bytes, "e");
    }

    #[test]
    fn no_damage_to_a_good_file_upsets_the_reader(at in 0usize..1400, gone in 0usize..40, put in "[-:#{}\\[\\] \n\ta*&]{0,4}") {
        let mut text = include_str!("../../config/endpoints.example.yaml").to_owned();
        let start = at.min(text.len());
        let end = (start + gone).min(text.len());
        text.replace_range(start..end, &put);
        if let Err(problems) = FileState::parse(text.as_bytes(), "e") {
            prop_assert!(problems.has_errors());
        }
    }
}

#[test]
fn a_misspelt_field_is_told_beside_the_one_that_is_missing_for_it() {
    let text = "endpoints:\n- name: a\n  adress: 10.0.0.1\n  port: 1\n  colour: red\n";
    let told = FileState::parse(text.as_bytes(), "e.yaml").expect_err("must be refused").to_string();
    for line in [
        "e.yaml:2: endpoints[0].address: is required (endpoint \"a\")",
        "warning: e.yaml:3: endpoints[0].adress: unknown field; did you mean `address`?",
        "warning: e.yaml:5: endpoints[0].colour: unknown field; valid are ",
    ] {
        assert!(told.contains(line), "{line} is not in\n{told}");
    }
    let valid = told.lines().find(|line| line.contains("colour")).unwrap();
    for field in ["name", "namespace", "address", "port", "metricsPort", "metricsScheme", "labels"] {
        assert!(valid.contains(&format!("`{field}`")), "{valid}");
    }
}

#[test]
fn duplicates_and_other_faults_are_told_at_once() {
    let text = "endpoints:\n- {name: a, address: 10.0.0.1, port: 1}\n- {name: a, address: 10.0.0.300, port: 0}\n- {name: a, port: 1}\n\
                objectives:\n- {priority: high}\n- {name: o, priority: 1}\n- {name: o, priority: x}\n\
                modelRewrites:\n- {metadata: {}, spec: {rules: [{targets: []}]}}\n- {spec: {rule: []}}\n";
    let told = faults(text).join("\n");
    for fault in [
        "endpoints[1].name: default/a is listed already, in line 2",
        "endpoints[1].address: got \"10.0.0.300\"",
        "endpoints[1].port: got 0",
        "endpoints[2].name: default/a is listed already, in line 2",
        "endpoints[2].address: is required",
        "objectives[0].name: is required",
        "objectives[0].priority: got \"high\"",
        "objectives[2]: \"o\" is listed already",
        "objectives[2].priority: got \"x\"",
        "modelRewrites[0].metadata.name: is required",
        "modelRewrites[0].spec.rules[0].targets: needs at least one target",
        "modelRewrites[1].metadata: is required",
    ] {
        assert!(told.contains(fault), "{fault} is not in\n{told}");
    }
    let problems = FileState::parse(text.as_bytes(), "e.yaml").expect_err("must be refused").to_string();
    assert!(!problems.contains("unknown field; did you mean `priority`"), "{problems}");
    assert!(problems.contains("spec.rule: unknown field; did you mean `rules`?"), "{problems}");
}

#[test]
fn labels_of_a_cluster_say_where_it_is_scraped() {
    let file = "endpoints:\n\
        - {name: a, address: 10.0.0.1, port: 80, labels: {metricsAddress: 10.1.1.1, metricsPort: \"9090\"}}\n\
        - {name: b, address: east.example, port: 80, labels: {metricsAddress: metrics.East.example}}\n\
        - {name: c, address: 'fd00::1', port: 80, labels: {metricsPort: \"91\", metricsAddress: ''}}\n\
        - {name: d, address: 10.0.0.4, port: 80, metricsPort: 92}\n";
    let state = FileState::parse_clusters(file.as_bytes(), "c").unwrap();
    let scraped: Vec<String> = state.endpoints.iter().map(|spec| spec.metrics_address.to_string()).collect();
    assert_eq!(scraped, ["10.1.1.1:9090", "[100::]:80", "[fd00::1]:91", "10.0.0.4:92"]);
    assert_eq!(state.endpoints[1].metrics.host.as_deref(), Some("metrics.east.example"));
    let names: Vec<&str> = state.hosts.names().map(|name| &**name).collect();
    assert_eq!(names, ["east.example", "metrics.east.example"]);
    // The labels of servers say nothing of the kind.
    let plain = FileState::parse(file.as_bytes(), "c").unwrap();
    assert_eq!(plain.endpoints[0].metrics_address.to_string(), "10.0.0.1:80");
}

#[test]
fn faulty_labels_of_a_cluster_are_told_by_name_and_value() {
    let file = "endpoints:\n\
        - {name: a, address: 10.0.0.1, port: 80, labels: {metricsAddress: a_b..c, metricsPort: \"0\"}}\n";
    let problems = FileState::parse_clusters(file.as_bytes(), "c").unwrap_err().to_string();
    for part in
        ["labels.metricsPort", "got \"0\"", "labels.metricsAddress", "got \"a_b..c\"", "endpoint \"a\""]
    {
        assert!(problems.contains(part), "{part}: {problems}");
    }
}
