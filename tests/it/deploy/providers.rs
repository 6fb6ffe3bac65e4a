//! What the gateway's provider and the older keys for it bring.

use serde_json::json;

use super::{LABEL, NAME, RELEASE, args, has, object, render, values};

#[test]
fn providers_bring_their_objects() {
    let istio = values("istio");
    let rule = object(&istio, &format!("DestinationRule {NAME}"));
    assert_eq!(rule["spec"]["host"], format!("{NAME}.default.svc.cluster.local"));
    assert_eq!(rule["spec"]["trafficPolicy"]["tls"], json!({"mode": "SIMPLE", "insecureSkipVerify": true}));
    assert_eq!(rule["spec"]["trafficPolicy"]["connectionPool"]["tcp"]["maxConnections"], 256_000);
    let gke = values("gke");
    for kind in ["HealthCheckPolicy", "GCPBackendPolicy"] {
        let policy = object(&gke, &format!("{kind} {RELEASE}"));
        assert_eq!(policy["spec"]["targetRef"]["kind"], "InferencePool");
    }
    assert!(has(&gke, "PodMonitoring"));
    for kind in ["DestinationRule", "HealthCheckPolicy", "GCPBackendPolicy", "PodMonitoring", "HTTPRoute"] {
        assert!(!has(&values("default"), kind), "{kind}");
    }
}

#[test]
fn older_keys_of_the_other_chart_count() {
    let objects = values("inferencepool");
    let secret = object(&objects, "Secret inference-gateway-sa-metrics-reader-secret");
    let reader = &secret["metadata"]["annotations"]["kubernetes.io/service-account.name"];
    object(&objects, &format!("ServiceAccount {}", reader.as_str().unwrap()));
    let monitor = object(&objects, &format!("ServiceMonitor {NAME}-monitor"));
    let credentials = &monitor["spec"]["endpoints"][0]["authorization"]["credentials"];
    assert_eq!(credentials["name"], secret["metadata"]["name"]);

    let number = "inferencePool.targetPortNumber=9000";
    let pool = &render(&["--set", LABEL, "--set", number]);
    assert_eq!(
        object(pool, &format!("InferencePool {RELEASE}"))["spec"]["targetPorts"],
        json!([{"number": 9000}])
    );

    let old = values("old-pool");
    let pool = object(&old, &format!("InferencePool {RELEASE}"));
    assert_eq!(pool["apiVersion"], "inference.networking.x-k8s.io/v1alpha2");
    assert_eq!(pool["spec"]["selector"], json!({"app": RELEASE}));
    assert_eq!(pool["spec"]["targetPortNumber"], 8080);
    assert_eq!(pool["spec"]["extensionRef"]["name"], NAME);
    assert!(args(&old).contains(&"--pool-group=inference.networking.x-k8s.io"));
}

#[test]
fn istios_rule_may_stand_below_the_provider_and_be_switched_off() {
    let istio = "provider.name=istio,provider.istio.destinationRule.host=epp.mesh,\
                 provider.istio.destinationRule.trafficPolicy.connectionPool.http.maxRequestsPerConnection=9";
    let objects = render(&["--set", LABEL, "--set", istio]);
    let rule = object(&objects, &format!("DestinationRule {NAME}"));
    let expected = json!({
        "tls": {"mode": "SIMPLE", "insecureSkipVerify": true},
        "connectionPool": {"http": {"maxRequestsPerConnection": 9}},
    });
    assert_eq!((&rule["spec"]["host"], &rule["spec"]["trafficPolicy"]), (&json!("epp.mesh"), &expected));
    let off = render(&["--set", LABEL, "--set", "provider.name=istio,istio.destinationRule.enabled=false"]);
    assert!(!has(&off, "DestinationRule"));
}

#[test]
fn a_route_has_the_gateways_namespace_the_headers_and_the_timeout_of_the_values() {
    let route = "experimentalHttpRoute.enabled=true,experimentalHttpRoute.inferenceGatewayName=gate,\
                 experimentalHttpRoute.inferenceGatewayNamespace=infra,experimentalHttpRoute.baseModel=llama,\
                 experimentalHttpRoute.headerMatches.x-tier=gold,experimentalHttpRoute.requestTimeout=120s";
    let objects = render(&["--set", LABEL, "--set", route]);
    let spec = &object(&objects, &format!("HTTPRoute {RELEASE}"))["spec"];
    assert_eq!(spec["parentRefs"][0]["name"], "gate");
    assert_eq!(spec["parentRefs"][0]["namespace"], "infra");
    assert_eq!(spec["rules"][0]["timeouts"]["request"], "120s");
    let headers = json!([
        {"type": "Exact", "name": "X-Gateway-Base-Model-Name", "value": "llama"},
        {"type": "Exact", "name": "x-tier", "value": "gold"},
    ]);
    assert_eq!(spec["rules"][0]["matches"][0]["headers"], headers);
    // Google's gateway takes no timeouts in routes.
    let objects = render(&["--set", LABEL, "--set", &format!("{route},provider.name=gke")]);
    assert!(object(&objects, &format!("HTTPRoute {RELEASE}"))["spec"]["rules"][0].get("timeouts").is_none());
}

#[test]
fn on_googles_gateway_its_own_collectors_read_the_metrics() {
    let sets = "provider.name=gke,inferenceExtension.monitoring.prometheus.enabled=true";
    let objects = render(&["--set", LABEL, "--set", sets]);
    assert!(has(&objects, "PodMonitoring") && !has(&objects, "ServiceMonitor"));
    let sets = format!("{sets},inferenceExtension.monitoring.provider.name=prometheusoperator");
    let objects = render(&["--set", LABEL, "--set", &sets]);
    assert!(has(&objects, "ServiceMonitor") && !has(&objects, "PodMonitoring"));
}

#[test]
fn servers_that_speak_grpc_are_announced_and_checked_in_their_protocol() {
    let sets = "provider.name=gke,inferencePool.modelServerProtocol=grpc";
    let objects = render(&["--set", LABEL, "--set", sets]);
    let pool = object(&objects, &format!("InferencePool {RELEASE}"));
    assert_eq!(pool["spec"]["appProtocol"], "kubernetes.io/h2c");
    let policy = object(&objects, &format!("HealthCheckPolicy {RELEASE}"));
    assert_eq!(policy["spec"]["default"]["config"]["type"], "GRPC");
    assert!(args(&objects).contains(&"--config-file=/config/default-plugins.yaml"));
    let config = &object(&objects, &format!("ConfigMap {NAME}"))["data"]["default-plugins.yaml"];
    assert!(config.as_str().unwrap().contains("- pluginRef: vllmgrpc-parser"), "{config}");
}
