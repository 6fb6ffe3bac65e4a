//! Objects that a `k8s-notification-source` watches on a real API server.

use serde_json::{Value, json};

use crate::support::cluster::{ApiServer, Namespace, picker};
use crate::support::{Client, Pointsman, holds};

/// A source of config maps that nobody listens to, and one of pods to which the extractor of places listens.
const CONFIG: &str = "plugins:
- {type: k8s-notification-source, name: maps, parameters: {version: v1, kind: ConfigMap}}
- {type: k8s-notification-source, name: pods, parameters: {version: v1, kind: Pod}}
- {type: k8s-notification-source, name: later, parameters: {group: example.com, version: v1, kind: Thing}}
- type: topology-extractor
- type: topology-affinity-scorer
- type: random-picker
dataLayer:
  sources:
  - pluginRef: maps
  - {pluginRef: pods, extractors: [{pluginRef: topology-extractor}]}
  - pluginRef: later
";

/// What the page of plugins shows of the source of this name.
async fn shown(pointsman: &Pointsman, name: &str) -> Value {
    let page = Client::http1(pointsman.metrics).get("/debug/plugins/state").await.json();
    page["plugins"][name]["state"].clone()
}

async fn knows(pointsman: &Pointsman, name: &str, live: bool, objects: u64) {
    holds(&format!("{name}: {objects} objects, live {live}"), async || {
        let state = shown(pointsman, name).await;
        state["live"] == live && state["objects"] == objects
    })
    .await;
}

async fn may_read(namespace: &Namespace, resource: &str) {
    let name = format!("read-{resource}");
    let rules = json!([{"apiGroups": [""], "resources": [resource], "verbs": ["get", "list", "watch"]}]);
    let api = "rbac.authorization.k8s.io/v1";
    namespace
        .apply(&json!({"apiVersion": api, "kind": "Role", "metadata": {"name": name}, "rules": rules}))
        .await;
    namespace
        .apply(&json!({
            "apiVersion": api,
            "kind": "RoleBinding",
            "metadata": {"name": name},
            "subjects": [{"kind": "ServiceAccount", "name": "pool-epp", "namespace": namespace.name}],
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name},
        }))
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_are_watched_as_soon_as_that_is_allowed_and_the_page_counts_them() {
    let server = ApiServer::shared().await;
    let namespace = Namespace::with_chart_rights(server, &[]).await;
    namespace.pool(&[8000]).await;
    namespace.pod("pod-1", namespace.address(1)).await;
    let flags = ["--allow-experimental-plugins", "--config-text", CONFIG];
    let pointsman = picker(server, &namespace, &flags).await;
    knows(&pointsman, "pods", true, 1).await;
    // The chart's account may not read config maps, and nobody knows the kind of the third source.
    let refused = [("resource", "notify_configmap_maps"), ("reason", "forbidden")];
    holds("the refusal is counted", async || {
        pointsman.metric("pointsman_discovery_errors_total", &refused).await.is_some_and(|count| count > 0.0)
    })
    .await;
    knows(&pointsman, "maps", false, 0).await;
    knows(&pointsman, "later", false, 0).await;
    let map = |name: &str| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"a": "b"}});
    namespace.apply(&map("one")).await;
    may_read(&namespace, "configmaps").await;
    holds("the watch is live", async || {
        pointsman.metric("pointsman_discovery_synced", &[("resource", "notify_configmap_maps")]).await
            == Some(1.0)
    })
    .await;
    let first = shown(&pointsman, "maps").await["objects"].as_u64().unwrap_or(0);
    holds("the first map is known", async || shown(&pointsman, "maps").await["objects"].as_u64() >= Some(1))
        .await;
    namespace.apply(&map("two")).await;
    let all = shown(&pointsman, "maps").await["objects"].as_u64().unwrap_or(0).max(first);
    holds("the second one, too", async || {
        shown(&pointsman, "maps").await["objects"].as_u64().is_some_and(|now| now >= 2 && now >= all)
    })
    .await;
    let before = shown(&pointsman, "maps").await["objects"].as_u64().unwrap();
    namespace.delete("", "v1", "ConfigMap", "one").await;
    knows(&pointsman, "maps", true, before - 1).await;
    namespace.pod("pod-2", namespace.address(2)).await;
    knows(&pointsman, "pods", true, 2).await;
    let log = pointsman.process.log();
    let said = |text: &str| log.iter().any(|line| line.contains(text) && line.contains("later"));
    assert!(said("the API does not serve it"), "no line about the kind that is not installed");
}
