//! Who may read the metrics port.

use serde_json::json;

use crate::support::cluster::{ApiServer, Namespace, picker};
use crate::support::{Client, holds};

async fn status(client: &Client, token: Option<&str>, path: &str) -> u16 {
    let header = token.map(|token| format!("Bearer {token}"));
    let headers: Vec<(&str, &str)> = header.iter().map(|text| ("authorization", text.as_str())).collect();
    client.get_with(path, &headers).await.status
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_are_for_those_whom_the_api_server_lets_read_them() {
    let server = ApiServer::start().await;
    server.install_definitions().await;
    let namespace =
        Namespace::with_chart_rights(&server, &["inferenceExtension.monitoring.prometheus.enabled=true"])
            .await;
    namespace.pool(&[8000]).await;
    let pointsman = picker(&server, &namespace, &["--metrics-endpoint-auth=true"]).await;
    let client = Client::http1(pointsman.metrics);

    assert_eq!(status(&client, None, "/metrics").await, 401);
    assert_eq!(status(&client, Some("invented"), "/metrics").await, 401);
    assert_eq!(status(&client, Some(ApiServer::stranger()), "/metrics").await, 403);
    assert_eq!(status(&client, None, "/healthz").await, 200, "which says nothing");
    server
        .apply_object(
            &json!({
                "apiVersion": "rbac.authorization.k8s.io/v1",
                "kind": "ClusterRole",
                "metadata": {"name": "stranger-reads"},
                "rules": [{"nonResourceURLs": ["/metrics"], "verbs": ["get"]}],
            }),
            None,
        )
        .await;
    server
        .apply_object(&json!({
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": "stranger-reads"},
            "subjects": [{"kind": "User", "name": "stranger", "apiGroup": "rbac.authorization.k8s.io"}],
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "stranger-reads"},
        }), None)
        .await;
    holds("the right is found after a refusal", async || {
        status(&client, Some(ApiServer::stranger()), "/metrics").await == 200
    })
    .await;
    for path in ["/debug/pool", "/debug/plugins/state", "/debug/log-level"] {
        assert_eq!(
            status(&client, Some(ApiServer::stranger()), path).await,
            403,
            "{path} is a right of its own"
        );
    }

    server.stop();
    assert_eq!(status(&client, Some(ApiServer::stranger()), "/metrics").await, 200, "known");
    assert_eq!(status(&client, Some("another"), "/metrics").await, 500, "nobody can be asked");
}
