//! Releases of the reference's charts that become releases of this one, in place: Helm installs objects with the names,
//! labels and selectors of those charts, then upgrades them to this chart with the values that were theirs. The picker
//! that comes of it serves.
//!
//! The charts themselves are not here. What matters for an upgrade is written down instead: what cannot be changed
//! afterwards, and who owns what.

use std::path::Path;
use std::time::Instant;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Service};
use kube::Api;
use serde_json::{Value, json};

use super::installing::Site;
use crate::support::cluster::{ApiServer, POOL, free_port, simulate};
use crate::support::{BodyMode, Envoy, Pointsman, chat, eventually, holds};

/// A chart of the reference, and a values file as people wrote it then.
struct Generation {
    chart: &'static str,
    version: &'static str,
    /// Key of the label by which its Deployment finds its pods; the value is the Deployment's name.
    selector: &'static str,
    /// API version of its InferencePool; empty without one.
    pool: &'static str,
    values: &'static str,
    /// What the notes say of these values.
    said: &'static [&'static str],
}

const EARLY: Generation = Generation {
    chart: "inferencepool",
    version: "v0.5.1",
    selector: "app",
    pool: "inference.networking.x-k8s.io/v1alpha2",
    values: "
inferenceExtension:
  replicas: 1
  image: {name: llm-d-inference-scheduler, hub: ghcr.io/llm-d, tag: v0.2.1, pullPolicy: Always}
  extProcPort: 9002
  logVerbosity: 4
  env: {ENABLE_LOAD_AWARE_SCORER: 'true'}
  pluginsConfigFile: plugins-v2.yaml
inferencePool:
  apiVersion: inference.networking.x-k8s.io/v1alpha2
  targetPortNumber: PORT
  modelServerType: vllm
  modelServers: {matchLabels: {app: vllm}}
provider: {name: none}
",
    said: &[],
};

const STABLE: Generation = Generation {
    chart: "inferencepool",
    version: "v1.2.0",
    selector: "inferencepool",
    pool: "inference.networking.k8s.io/v1",
    values: "
inferenceExtension:
  replicas: 1
  flags: {kv-cache-usage-percentage-metric: 'vllm:kv_cache_usage_perc', v: 1}
  image: {name: llm-d-inference-scheduler, hub: ghcr.io/llm-d, tag: v0.5.0, pullPolicy: Always}
  extProcPort: 9002
  pluginsConfigFile: custom-plugins.yaml
  pluginsCustomConfig:
    custom-plugins.yaml: |
      apiVersion: inference.networking.x-k8s.io/v1alpha1
      kind: EndpointPickerConfig
      plugins:
      - type: queue-scorer
      - type: prefix-cache-scorer
      schedulingProfiles:
      - name: default
        plugins:
        - pluginRef: queue-scorer
        - pluginRef: prefix-cache-scorer
  monitoring:
    interval: 10s
    gke: {enable: false}
    prometheus: {enabled: true, auth: {secretName: pool-gateway-sa-metrics-reader-secret}}
inferencePool:
  targetPorts: [{number: PORT}]
  modelServerType: vllm
  modelServers: {matchLabels: {app: vllm}}
provider:
  name: istio
  istio:
    destinationRule:
      trafficPolicy: {connectionPool: {http: {maxRequestsPerConnection: 256000}}}
",
    said: &[],
};

const GATEWAY: Generation = Generation {
    chart: "llm-d-router-gateway",
    version: "v0.9.0",
    selector: "llm-d-router-gateway",
    pool: "inference.networking.k8s.io/v1",
    values: "
router:
  epp:
    replicas: 1
    image: {registry: ghcr.io/llm-d, repository: llm-d-router-endpoint-picker, tag: v0.9.1, pullPolicy: Always}
    flags: {v: 1}
    pluginsConfigFile: default-plugins.yaml
  modelServers:
    type: vllm
    protocol: http
    matchLabels: {app: vllm}
    targetPorts: [{number: PORT}]
  inferencePool: {failureMode: FailOpen}
provider: {name: none}
",
    said: &[],
};

const STANDALONE: Generation = Generation {
    chart: "llm-d-router-standalone",
    version: "v0.10.0",
    selector: "llm-d-router-standalone",
    pool: "",
    values: "
router:
  epp:
    image: {registry: ghcr.io/llm-d, repository: llm-d-router-endpoint-picker, tag: v0.10.0}
    flags: {enable-pprof: 'true', v: 4}
  extraServicePorts: [{name: http, port: 80, protocol: TCP, targetPort: 8081}]
  inferencePool: {create: false}
  modelServers:
    matchLabels: {app: vllm}
    targetPorts: [{number: PORT}]
  proxy:
    args: [--service-node, envoy-sidecar, --log-level, warn, -c, /etc/envoy/envoy.yaml]
    failOpen: false
  tracing: {otelExporterEndpoint: 'http://localhost:4317'}
",
    said: &["an Envoy stands in front"],
};

/// Objects that the chart makes, reduced to what an upgrade meets.
fn objects(generation: &Generation) -> Vec<Value> {
    let name = "pool-epp";
    let selector = json!({generation.selector: name});
    let labels = json!({"app.kubernetes.io/name": name, "app.kubernetes.io/version": generation.version});
    let rights = |kind: &str, spec: Value| {
        let mut object = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": kind, "metadata": {"name": "pool-epp-sa", "labels": labels}});
        object.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        object
    };
    let mut all = vec![
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name, "labels": labels}}),
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"default-plugins.yaml": "{}"}}),
        rights("Role", json!({"rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]})),
        rights(
            "RoleBinding",
            json!({"subjects": [{"kind": "ServiceAccount", "name": name}],
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "pool-epp-sa"}}),
        ),
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "labels": labels}, "spec": {
            "selector": selector, "ports": [{"name": "grpc-ext-proc", "port": 9002}, {"name": "http-metrics", "port": 9090}]}}),
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name, "labels": labels}, "spec": {
        "replicas": 1,
        "strategy": {"type": "Recreate"},
        "selector": {"matchLabels": selector},
        "template": {"metadata": {"labels": selector}, "spec": {
            "serviceAccountName": name,
            "terminationGracePeriodSeconds": 130,
            "containers": [{"name": "epp", "image": "ghcr.io/llm-d/llm-d-inference-scheduler:v0.5.0",
                "args": ["--pool-name", POOL, "--zap-encoder", "json"],
                "ports": [{"name": "grpc", "containerPort": 9002}, {"name": "grpc-health", "containerPort": 9003}, {"name": "metrics", "containerPort": 9090}],
                "env": [{"name": "NAMESPACE", "valueFrom": {"fieldRef": {"fieldPath": "metadata.namespace"}}}],
                "volumeMounts": [{"name": "plugins-config-volume", "mountPath": "/config"}]}],
            "volumes": [{"name": "plugins-config-volume", "configMap": {"name": name}}],
        }}}}),
    ];
    if generation.values.contains("secretName") {
        all.push(json!({"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/service-account-token",
            "metadata": {"name": "pool-gateway-sa-metrics-reader-secret", "annotations": {"kubernetes.io/service-account.name": name}}}));
    }
    let spec = match generation.pool {
        "" => return all,
        "inference.networking.k8s.io/v1" => {
            json!({"targetPorts": [{"number": 8000}], "selector": {"matchLabels": {"app": "vllm"}},
            "endpointPickerRef": {"name": name, "port": {"number": 9002}}})
        }
        _ => json!({"targetPortNumber": 8000, "selector": {"app": "vllm"}, "extensionRef": {"name": name}}),
    };
    all.push(json!({"apiVersion": generation.pool, "kind": "InferencePool", "metadata": {"name": POOL, "labels": labels}, "spec": spec}));
    all
}

/// Writes a chart with these objects.
fn write_chart(folder: &Path, generation: &Generation) {
    std::fs::create_dir(folder.join("templates")).unwrap();
    let about = json!({"apiVersion": "v2", "name": generation.chart, "version": generation.version});
    std::fs::write(folder.join("Chart.yaml"), about.to_string()).unwrap();
    let text: Vec<String> = objects(generation).iter().map(Value::to_string).collect();
    std::fs::write(folder.join("templates/all.yaml"), text.join("\n---\n")).unwrap();
}

/// Kinds of other software that the values ask for, without rules.
async fn foreign_kinds(server: &ApiServer) {
    for (group, version, kind, plural) in [
        ("monitoring.coreos.com", "v1", "ServiceMonitor", "servicemonitors"),
        ("networking.istio.io", "v1", "DestinationRule", "destinationrules"),
    ] {
        let definition = json!({
            "apiVersion": "apiextensions.k8s.io/v1",
            "kind": "CustomResourceDefinition",
            "metadata": {"name": format!("{plural}.{group}")},
            "spec": {
                "group": group,
                "scope": "Namespaced",
                "names": {"kind": kind, "listKind": format!("{kind}List"), "plural": plural, "singular": kind.to_lowercase()},
                "versions": [{"name": version, "served": true, "storage": true, "schema": {"openAPIV3Schema": {
                    "type": "object", "x-kubernetes-preserve-unknown-fields": true,
                }}}],
            },
        });
        server.apply_object(&definition, None).await;
    }
}

async fn live(site: &Site) -> Value {
    let deployments: Api<Deployment> = site.api();
    serde_json::to_value(deployments.get("pool-epp").await.unwrap()).unwrap()
}

/// Starts the container of the live Deployment, with the rights of its account.
async fn run(server: &ApiServer, site: &Site, deployment: &Value, folder: &Path) -> Pointsman {
    let maps: Api<ConfigMap> = site.api();
    for (name, text) in maps.get("pool-epp").await.unwrap().data.unwrap() {
        std::fs::write(folder.join(name), text).unwrap();
    }
    let containers = deployment["spec"]["template"]["spec"]["containers"].as_array().unwrap();
    let picker = containers.iter().find(|container| container["name"] == "epp").unwrap();
    let config = format!("--config-file={}/", folder.display());
    let args = picker["args"].as_array().unwrap().iter().map(|arg| arg.as_str().unwrap());
    // The ports are those that the system chooses.
    let args = args.filter(|arg| !arg.starts_with("--grpc-port"));
    let args = args.map(|arg| {
        arg.replace("$(NAMESPACE)", &site.namespace.name).replace("--config-file=/config/", &config)
    });
    let args: Vec<String> = args.chain(["--metrics-endpoint-auth=false".to_owned()]).collect();
    let kubeconfig = server.kubeconfig(&site.namespace.token).display().to_string();
    let environment = [("KUBECONFIG", kubeconfig.as_str()), ("POD_NAME", "pool-epp-7d9f8c6b5-x2x4z")];
    Pointsman::start_in(&environment, &args.iter().map(String::as_str).collect::<Vec<_>>()).await
}

/// From a release of that chart to a request that Pointsman has placed.
async fn takes_over(generation: &Generation) {
    let server = ApiServer::shared().await;
    foreign_kinds(server).await;
    let site = Site::start(server).await;
    // The model server's pod is none of the chart's.
    site.namespace.label("pod-security.kubernetes.io/enforce", "privileged").await;
    let folder = tempfile::tempdir().unwrap();
    write_chart(folder.path(), generation);
    site.release(folder.path().to_str().unwrap(), &[]).await.unwrap();
    let before = live(&site).await;

    let address = site.namespace.address(1);
    let port = free_port(&[address]);
    let _servers = simulate(&[address], port, &[]).await;
    site.namespace.pod("server-1", address).await;

    let started = Instant::now();
    let values = folder.path().join("values.yaml");
    std::fs::write(&values, generation.values.replace("PORT", &port.to_string())).unwrap();
    let image = if generation.values.contains("router:") {
        "router.epp.image.registry=mirror.example,router.epp.image.repository=pointsman,router.epp.image.tag=1.0"
    } else {
        "inferenceExtension.image.hub=mirror.example,inferenceExtension.image.name=pointsman,inferenceExtension.image.tag=1.0"
    };
    let args = ["--values", values.to_str().unwrap(), "--set-string", image];
    let notes = eventually("the kinds of other software are served", async || {
        match site.release("deploy/charts/pointsman", &args).await {
            Ok(notes) => Some(notes),
            Err(error) if error.contains("no matches for kind") => None,
            Err(error) => panic!("{error}"),
        }
    })
    .await;
    for expected in generation.said {
        assert!(notes.contains(expected), "no {expected:?} in {notes}");
    }

    let after = live(&site).await;
    assert_eq!(after["metadata"]["uid"], before["metadata"]["uid"], "the Deployment stays");
    let selector = json!({generation.selector: "pool-epp"});
    assert_eq!(after["spec"]["selector"]["matchLabels"], selector);
    let services: Api<Service> = site.api();
    let service = services.get("pool-epp").await.unwrap().spec.unwrap().selector.unwrap();
    assert_eq!(serde_json::to_value(service).unwrap(), selector, "the Service finds old pods and new ones");
    let pod = &after["spec"]["template"];
    assert_eq!(pod["metadata"]["labels"][generation.selector], "pool-epp");
    let images: Vec<_> =
        pod["spec"]["containers"].as_array().unwrap().iter().map(|one| &one["image"]).collect();
    assert!(images.contains(&&json!("mirror.example/pointsman:1.0")), "{images:?}");

    let picker = run(server, &site, &after, folder.path()).await;
    holds("the pod is known", async || picker.metric("pointsman_pool_endpoints", &[]).await == Some(1.0))
        .await;
    let envoy = Envoy::start(picker.grpc, true, BodyMode::FullDuplexStreamed).await;
    let reply = envoy.http1().post("/v1/chat/completions", &chat("hello", 1, false)).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    #[allow(clippy::print_stdout, reason = "the time is for whoever runs the tests")]
    {
        println!(
            "{} {}: {:.1} s to the first answer",
            generation.chart,
            generation.version,
            started.elapsed().as_secs_f32()
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_of_inferencepool_before_1_0_is_taken_over_with_its_values() {
    takes_over(&EARLY).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_of_inferencepool_1_is_taken_over_with_its_values() {
    takes_over(&STABLE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_of_llm_d_router_gateway_is_taken_over_with_its_values() {
    takes_over(&GATEWAY).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_of_llm_d_router_standalone_is_taken_over_with_its_values() {
    takes_over(&STANDALONE).await;
}
