//! Values of the charts `inferencepool`, `llm-d-router-gateway` and `llm-d-router-standalone` with this one.

use std::path::PathBuf;

use serde_json::{Value, json};

use super::{LABEL, NAME, RELEASE, args, containers, has, list, names, object, path, render};
use crate::support::documents;

/// Renders these values, given as YAML.
fn render_text(text: &str) -> Vec<Value> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("values.yaml");
    std::fs::write(&file, text).unwrap();
    render(&["--values", file.to_str().unwrap()])
}

fn deployment(objects: &[Value]) -> &Value {
    object(objects, &format!("Deployment {NAME}"))
}

/// What the chart says of the values, a line each.
fn warnings(objects: &[Value]) -> Vec<&str> {
    let said = deployment(objects)["metadata"].get("annotations");
    said.map_or_else(Vec::new, |said| said["pointsman/values"].as_str().unwrap().lines().collect())
}

fn container<'a>(objects: &'a [Value], name: &str) -> &'a Value {
    let all = containers(objects);
    let found = all.iter().find(|(_, container)| container["name"] == name);
    found.unwrap_or_else(|| panic!("no container {name}")).1
}

const ROUTER: &str = "
router:
  epp:
    replicas: 2
    image: {registry: ghcr.io/llm-d, repository: llm-d-router-endpoint-picker, tag: v0.9.1, pullPolicy: Always}
    grpcHealthPort: 9013
    flags: {v: 4, ha-enable-leader-election: 'false'}
    env: [{name: TEAM, value: inference}]
    resources: {requests: {cpu: '4', memory: 8Gi}}
    pluginsConfigFile: mine.yaml
    pluginsConfig:
      apiVersion: llm-d.ai/v1alpha1
      kind: EndpointPickerConfig
      plugins: [{type: queue-scorer}]
    podAnnotations: {prometheus.io/port: 9090}
    volumes: [{name: more, emptyDir: {}}]
    volumeMounts: [{name: more, mountPath: /more}]
    deploymentStrategy: {type: Recreate}
    terminationGracePeriodSeconds: 77
  modelServers:
    matchLabels: {llm-d.ai/guide: pd}
    type: sglang
    targetPorts: [{number: 8000}, {number: 8001}]
  inferencePool: {failureMode: FailClosed}
  inferenceObjectives: [{name: batch, priority: -1}]
  monitoring: {interval: 5s, prometheus: {enabled: true, auth: {secretName: reader}}}
  tracing: {enabled: true, otelExporterEndpoint: 'http://collector:4317'}
";

#[test]
fn values_of_llm_d_router_gateway_come_out_as_there() {
    let objects = render_text(&format!("{ROUTER}provider: {{name: istio}}\n"));
    let args = args(&objects);
    for arg in [
        "--pool-name=vllm-llama3-8b-instruct",
        "--config-file=/config/mine.yaml",
        "--v=4",
        "--ha-enable-leader-election=false",
        "--grpc-health-port=9013",
        "--tracing=true",
        "--default-engine=sglang",
    ] {
        assert!(args.contains(&arg), "no {arg} in {args:?}");
    }
    let deployment = deployment(&objects);
    assert_eq!(deployment["spec"]["replicas"], 2);
    assert_eq!(deployment["spec"]["strategy"], json!({"type": "Recreate"}));
    assert_eq!(deployment["spec"]["selector"]["matchLabels"], json!({"llm-d-router-gateway": NAME}));
    let template = &deployment["spec"]["template"];
    assert_eq!(template["metadata"]["annotations"]["prometheus.io/port"], "9090");
    assert_eq!(template["spec"]["terminationGracePeriodSeconds"], 77);
    assert_eq!(list(&template["spec"]["containers"]).len(), 1, "no Envoy beside a gateway");
    let picker = container(&objects, "epp");
    assert_eq!(picker["resources"], json!({"requests": {"cpu": "4", "memory": "8Gi"}}));
    assert_eq!(picker["readinessProbe"]["grpc"]["port"], 9013);
    assert!(list(&picker["env"]).contains(&json!({"name": "TEAM", "value": "inference"})));
    assert!(list(&picker["volumeMounts"]).contains(&json!({"name": "more", "mountPath": "/more"})));
    let config = &object(&objects, &format!("ConfigMap {NAME}"))["data"];
    assert_eq!(
        documents(config["mine.yaml"].as_str().unwrap())[0]["plugins"],
        json!([{"type": "queue-scorer"}])
    );
    assert!(config["payload-agnostic.yaml"].is_string());
    let pool = &object(&objects, &format!("InferencePool {RELEASE}"))["spec"];
    assert_eq!(pool["selector"]["matchLabels"], json!({"llm-d.ai/guide": "pd"}));
    assert_eq!(pool["targetPorts"], json!([{"number": 8000}, {"number": 8001}]));
    assert_eq!(pool["endpointPickerRef"]["failureMode"], "FailClose");
    object(&objects, "InferenceObjective batch");
    object(&objects, "Secret reader");
    assert_eq!(
        object(&objects, &format!("ServiceMonitor {NAME}-monitor"))["spec"]["endpoints"][0]["interval"],
        "5s"
    );
    assert!(has(&objects, "DestinationRule"));
}

#[test]
fn values_of_llm_d_router_standalone_bring_an_envoy_beside_the_picker_and_its_pool() {
    let text = "
  extraServicePorts: [{name: http, port: 80, protocol: TCP, targetPort: 8081}]
  proxy:
    args: [--log-level, warn, --concurrency, '8', -c, /etc/envoy/envoy.yaml]
    resources: {requests: {cpu: '4', memory: 8Gi}, limits: {memory: 16Gi}}
";
    let objects = render_text(&format!("{ROUTER}{text}"));
    let envoy = container(&objects, "envoy");
    assert_eq!(
        envoy["args"],
        json!(["--log-level", "warn", "--concurrency", "8", "-c", "/etc/envoy/envoy.yaml"])
    );
    assert_eq!(envoy["resources"]["limits"], json!({"memory": "16Gi"}));
    assert_eq!(envoy["ports"][0], json!({"name": "http", "containerPort": 8081}));
    let ports = list(&object(&objects, &format!("Service {NAME}"))["spec"]["ports"]);
    assert!(ports.contains(&json!({"name": "http", "port": 80, "protocol": "TCP", "targetPort": 8081})));
    object(&objects, &format!("InferencePool {RELEASE}"));
    assert!(warnings(&objects).iter().any(|line| line.contains("router.proxy.enabled=false")));

    // Without a pool the pods are found by their labels.
    let objects = render_text(
        "router: {modelServers: {matchLabels: {app: x}}, inferencePool: {create: false}, proxy: {enabled: true}}",
    );
    assert!(!has(&objects, "InferencePool"));
    assert!(args(&objects).contains(&"--endpoint-selector=app=x"));
    assert_eq!(
        deployment(&objects)["spec"]["selector"]["matchLabels"],
        json!({"llm-d-router-standalone": NAME})
    );

    // Proxies of their own take the port along.
    let mode = "router: {modelServers: {matchLabels: {app: x}}, extraServicePorts: [{name: http, port: 80, targetPort: 8081}], proxy: {mode: service, replicas: 3}}";
    let objects = render_text(mode);
    let proxy = object(&objects, &format!("Deployment {RELEASE}-proxy"));
    assert_eq!(proxy["spec"]["replicas"], 3);
    assert_eq!(object(&objects, &format!("Service {RELEASE}-proxy"))["spec"]["ports"][0]["port"], 80);
    let ports = list(&object(&objects, &format!("Service {NAME}"))["spec"]["ports"]);
    assert!(!ports.iter().any(|port| port["name"] == "http"), "{ports:?}");
}

#[test]
fn agentgateway_is_a_proxy_too() {
    let text = "router: {modelServers: {matchLabels: {app: x}}, inferencePool: {create: false}, proxy: {enabled: true, proxyType: agentgateway}}";
    let objects = render_text(text);
    let proxy = container(&objects, "agentgateway");
    assert_eq!(proxy["args"], json!(["-f", "/config/config.yaml"]));
    assert!(args(&objects).contains(&"--secure-serving=false"));
    let data = &object(&objects, &format!("ConfigMap {RELEASE}-proxy"))["data"];
    let config = &documents(data["config.yaml"].as_str().unwrap())[0];
    let policy = &config["binds"][0]["listeners"][0]["routes"][0]["backends"][0]["policies"];
    assert_eq!(policy["inferenceRouting"]["endpointPicker"]["host"], "127.0.0.1:9002");
}

#[test]
fn keys_without_effect_are_named_in_an_annotation_and_nothing_is_refused_for_them() {
    let sets = "inferenceExtension.replica=2,provider.name=kong,inferencePool.name=p,\
                inferenceExtension.monitoring.prometheus.enable=true";
    let objects = render(&["--set", LABEL, "--set", sets]);
    let said = warnings(&objects);
    for expected in [
        "inferenceExtension.replica is unknown and has no effect, did you mean replicas?",
        "inferenceExtension.monitoring.prometheus.enable has no effect: the key is called enabled",
        "inferencePool.name has no effect: the pool has the name of the release",
        "provider.name kong brings no objects",
    ] {
        assert!(said.iter().any(|line| line.contains(expected)), "no {expected:?} in {said:?}");
    }
    assert!(!has(&objects, "ServiceMonitor"), "as with the other chart");
    let autoscaling = |on: bool| {
        let text = format!(
            "router: {{modelServers: {{matchLabels: {{app: x}}}}, epp: {{autoscaling: {{enabled: {on}}}}}}}"
        );
        warnings(&render_text(&text)).len()
    };
    assert_eq!((autoscaling(true), autoscaling(false)), (1, 0), "what is off needs no word");
    // Every key of the chart's own is known.
    assert_eq!(warnings(&render(&["--set", LABEL])), Vec::<&str>::new());
}

#[test]
fn the_chart_standalone_calls_its_envoy_a_sidecar() {
    let objects = render_text(
        "
inferenceExtension:
  replicas: '1'
  endpointsServer: {createInferencePool: false, endpointSelector: 'app=x,tier==a', targetPorts: '8000,8001'}
  extraServicePorts: [{name: http, port: 80, targetPort: '8082'}]
  sidecar: {enabled: true, resources: {limits: {memory: 16Gi}}}
",
    );
    assert!(args(&objects).contains(&"--endpoint-selector=app=x,tier=a"), "{:?}", args(&objects));
    assert!(args(&objects).contains(&"--endpoint-target-ports=8000,8001"));
    let envoy = container(&objects, "envoy");
    assert_eq!(envoy["resources"]["limits"], json!({"memory": "16Gi"}));
    assert_eq!(envoy["ports"][0]["containerPort"], 8082);
    assert_eq!(deployment(&objects)["spec"]["selector"]["matchLabels"], json!({"epp": NAME}));
}

#[test]
fn keys_with_nothing_below_them_mean_the_default() {
    let objects = render_text(
        "
inferencePool: {modelServers: {matchLabels: {app: x}}}
inferenceExtension: {monitoring: {prometheus: null, provider: {gmp: null}}, tracing: null, pluginsCustomConfig: null, env: null, resources: {limits: null}}
istio: {destinationRule: null}
provider: {name: null, gke: null}
experimentalHttpRoute: null
",
    );
    let args = args(&objects);
    assert!(args.contains(&"--metrics-endpoint-auth=true") && args.contains(&"--tracing=false"), "{args:?}");
    let text = "router: {modelServers: {matchLabels: {app: x}, type: null}, monitoring: {prometheus: {auth: null}}, epp: {resources: {limits: null, requests: {cpu: 1}}, flags: null}, proxy: null}";
    let objects = render_text(text);
    assert_eq!(container(&objects, "epp")["resources"], json!({"requests": {"cpu": 1}}));
}

#[test]
fn the_references_image_gives_way_to_pointsmans_and_any_other_is_taken() {
    let picks = |sets: &str| {
        let objects = render(&["--set", LABEL, "--set", sets]);
        let image = container(&objects, "epp")["image"].as_str().unwrap().to_owned();
        (image, warnings(&objects).join("\n"))
    };
    let own = format!("ghcr.io/pointsman/pointsman:{}", env!("CARGO_PKG_VERSION"));
    for theirs in [
        "image.hub=ghcr.io/llm-d,inferenceExtension.image.name=llm-d-inference-scheduler,inferenceExtension.image.tag=v0.5.0",
        "image.hub=registry.k8s.io/gateway-api-inference-extension,inferenceExtension.image.name=epp,inferenceExtension.image.tag=v1.2.0",
        "image.registry=ghcr.io,inferenceExtension.image.repository=llm-d/llm-d-router-endpoint-picker-dev,inferenceExtension.image.tag=main",
    ] {
        let (image, said) = picks(&format!("inferenceExtension.{theirs}"));
        assert_eq!(image, own, "{theirs}");
        assert!(said.contains("is not Pointsman's"), "{said}");
    }
    let mirrored = "inferenceExtension.image.registry=mirror.example:5000/ai,inferenceExtension.image.repository=epp,inferenceExtension.image.tag=1";
    let (image, said) = picks(mirrored);
    assert_eq!((image.as_str(), said.as_str()), ("mirror.example:5000/ai/epp:1", ""));
    // As README's command does over values of the reference that are used again.
    let over = "inferenceExtension.image.registry=ghcr.io/llm-d,inferenceExtension.image.repository=llm-d-router-endpoint-picker,\
                inferenceExtension.image.hub=mirror.example,inferenceExtension.image.name=pointsman,inferenceExtension.image.tag=2";
    let (image, said) = picks(over);
    assert_eq!((image.as_str(), said.as_str()), ("mirror.example/pointsman:2", ""));
}

#[test]
fn the_engine_counts_beside_a_configuration_that_does_not_say_it() {
    let config = |plugins: &str| {
        format!(
            "
inferencePool: {{modelServerType: sglang, modelServers: {{matchLabels: {{app: x}}}}}}
inferenceExtension:
  pluginsConfigFile: mine.yaml
  pluginsCustomConfig:
    mine.yaml: |
      kind: EndpointPickerConfig
      plugins: {plugins}
"
        )
    };
    let engine = "--default-engine=sglang";
    assert!(args(&render_text(&config("[{type: queue-scorer}]"))).contains(&engine));
    assert!(args(&render_text(&config("[{type: core-metrics-extractor}]"))).contains(&engine));
    let said = config("[{type: core-metrics-extractor, parameters: {defaultEngine: tgi}}]");
    assert!(!args(&render_text(&said)).contains(&engine));
    let own = "inferencePool: {modelServerType: sglang, modelServers: {matchLabels: {app: x}}}";
    assert!(!args(&render_text(own)).contains(&engine), "default-plugins.yaml says it");
}

#[test]
fn older_spellings_of_the_pickers_keys_count() {
    let objects = render_text(
        "
inferencePool: {selector: {app: x}}
inferenceExtension:
  image: {hub: ghcr.io/llm-d, name: llm-d-inference-scheduler, tag: v0.2.0}
  env: {ENABLE: true, COUNT: 4000000}
  logVerbosity: 4
  enableLeaderElection: true
  grpcPort: 9012
  failureMode: FailOpen
  flags: {'cache-info-metric=mine': ''}
  resources: {requests: {memory: 8Gi}}
  extraServicePorts: [{name: metrics, port: 9090}, {name: zmq, containerPort: 5557}]
",
    );
    let args = args(&objects);
    for arg in ["--v=4", "--ha-enable-leader-election=true", "--grpc-port=9012", "--cache-info-metric=mine"] {
        assert!(args.contains(&arg), "no {arg} in {args:?}");
    }
    let picker = container(&objects, "epp");
    for variable in [json!({"name": "ENABLE", "value": "true"}), json!({"name": "COUNT", "value": "4000000"})]
    {
        assert!(list(&picker["env"]).contains(&variable), "{}", picker["env"]);
    }
    // The chart's own limit does not stand below the values' request.
    assert_eq!(picker["resources"], json!({"requests": {"cpu": "500m", "memory": "8Gi"}, "limits": {}}));
    let pool = &object(&objects, &format!("InferencePool {RELEASE}"))["spec"];
    assert_eq!(pool["selector"]["matchLabels"], json!({"app": "x"}));
    assert_eq!(pool["endpointPickerRef"]["failureMode"], "FailOpen");
    let ports = list(&object(&objects, &format!("Service {NAME}"))["spec"]["ports"]);
    assert_eq!(ports.iter().filter(|port| port["port"] == 9090).count(), 1, "{ports:?}");
    assert!(ports.contains(&json!({"name": "zmq", "port": 5557})), "{ports:?}");
}

#[test]
fn sidecars_stand_beside_the_picker_with_what_they_need_and_may_run_as_they_were_built() {
    let objects = render_text(
        "
inferencePool: {modelServers: {matchLabels: {app: x}}}
inferenceExtension:
  sidecar:
    enabled: true
    name: tokenizer-uds
    image: ghcr.io/llm-d/llm-d-uds-tokenizer:v0.7.0
    command: serve
    env: [{name: TOKENIZERS_DIR, value: /tokenizers}]
    volumeMounts: [{mountPath: /run/tokenizer, name: tokenizer-uds}]
    volumes: [{name: more, configMap: {name: '{{ .Release.Name }}-x'}}]
    configMap: {name: tokenizer-uds-config, data: {placeholder: ''}}
  volumes: [{emptyDir: {}, name: tokenizer-uds}]
  volumeMounts: [{mountPath: /run/tokenizer, name: tokenizer-uds}]
",
    );
    let sidecar = container(&objects, "tokenizer-uds");
    assert_eq!(sidecar["command"], json!(["serve"]));
    assert_eq!(sidecar["imagePullPolicy"], "IfNotPresent");
    assert!(sidecar.get("configMap").is_none() && sidecar.get("enabled").is_none(), "{sidecar}");
    object(&objects, "ConfigMap tokenizer-uds-config");
    let pod = &deployment(&objects)["spec"]["template"]["spec"];
    let volumes = list(&pod["volumes"]);
    assert!(
        volumes.contains(&json!({"name": "more", "configMap": {"name": format!("{RELEASE}-x")}})),
        "{volumes:?}"
    );
    assert!(pod["securityContext"].get("runAsUser").is_none(), "{}", pod["securityContext"]);
    assert_eq!(container(&objects, "epp")["securityContext"]["runAsUser"], 65532);
    assert_eq!(container(&objects, "epp")["securityContext"]["runAsNonRoot"], true);

    let objects = render_text(
        "router: {modelServers: {matchLabels: {app: x}}, tokenizer: {enabled: true, modelName: Qwen/Qwen3-32B, extraArgs: [--x]}}",
    );
    let tokenizer = container(&objects, "vllm-render");
    assert_eq!(tokenizer["command"], json!(["vllm", "launch", "render"]));
    assert_eq!(tokenizer["args"], json!(["Qwen/Qwen3-32B", "--port=8000", "--x"]));
}

/// Charts of others, where somebody has put them: `target/charts/NAME`, as `helm pull --untar` leaves them.
fn fetched(name: &str) -> Option<PathBuf> {
    let folder = path(&format!("target/charts/{name}"));
    if !folder.join("Chart.yaml").exists() {
        #[allow(clippy::print_stdout, reason = "whoever runs the tests is told")]
        {
            println!("SKIPPED: there is no chart in target/charts/{name}");
        }
        return None;
    }
    Some(folder)
}

/// What of an object says how requests are routed, in which both charts agree.
fn essence(object: &Value) -> Value {
    match object["kind"].as_str().unwrap() {
        "InferencePool" | "DestinationRule" | "HTTPRoute" | "HealthCheckPolicy" | "GCPBackendPolicy" => {
            object["spec"].clone()
        }
        "Deployment" => {
            let pod = &object["spec"]["template"]["spec"];
            let picker = list(&pod["containers"]).iter().find(|one| one["name"] == "epp").unwrap();
            json!({"replicas": object["spec"]["replicas"], "selector": object["spec"]["selector"],
                "account": pod["serviceAccountName"], "ports": list(&picker["ports"]).iter().map(|port| &port["containerPort"]).collect::<Vec<_>>()})
        }
        _ => Value::Null,
    }
}

#[test]
fn objects_are_those_of_the_other_chart_where_it_has_been_fetched() {
    for (chart, label) in [
        ("inferencepool", "inferencePool.modelServers.matchLabels.app=x"),
        (
            "llm-d-router-gateway",
            "router.modelServers.matchLabels.app=x,router.inferencePool.failureMode=FailOpen",
        ),
    ] {
        let Some(folder) = fetched(chart) else { continue };
        let sets = format!("{label},provider.name=istio");
        let args = [
            "template",
            RELEASE,
            folder.to_str().unwrap(),
            "--namespace",
            "default",
            "--kube-version",
            "1.33.0",
        ];
        let (good, out, error) = crate::support::helm(&[&args[..], &["--set", &sets]].concat());
        assert!(good, "{chart}: {error}");
        let ours = render(&["--set", &sets]);
        for theirs in documents(&out) {
            let key = super::key(&theirs);
            let Some(own) = ours.iter().find(|own| super::key(own) == key) else {
                // Rights stand under other names.
                let rights = key.contains("Role") || key.contains("ServiceAccount");
                assert!(rights, "{chart}: no {key} among {:?}", names(&ours));
                continue;
            };
            assert_eq!(essence(own), essence(&theirs), "{chart}: {key}");
        }
    }
}
