//! The metrics page under a flood of names that clients choose.

use bytes::Bytes;

use crate::support::{
    EndpointsFile, Fleet, Pointsman, Proxy, SCORERS, body, config, destination, eventually, headers,
    response_headers,
};

/// Distinct tenants and models.
const NAMES: usize = 3000;

/// One request from its headers to the headers of its response.
async fn send(proxy: &Proxy, tenant: &str, model: &str) {
    let mut exchange = proxy.open().await;
    let name = Bytes::from_static(b"x-llm-d-inference-fairness-id");
    let tenant = (name, Bytes::copy_from_slice(tenant.as_bytes()));
    exchange.say(headers("/v1/completions", [tenant], false)).await;
    exchange.say(body(format!(r#"{{"model":"{model}","prompt":"hello"}}"#), true)).await;
    assert!(destination(&exchange.answer().await.unwrap().unwrap()).is_some());
    exchange.say(response_headers("200")).await;
    exchange.finish().await;
}

/// Series and bytes of a page.
fn size(page: &str) -> (usize, usize) {
    (page.lines().filter(|line| !line.starts_with('#')).count(), page.len())
}

#[tokio::test(flavor = "multi_thread")]
async fn thousands_of_tenants_and_models_fit_on_the_page_and_a_busy_tenant_keeps_its_own_label() {
    let fleet = Fleet::start(2, &[]).await;
    let endpoints = EndpointsFile::with(fleet.list());
    let config = config(&endpoints.path(), SCORERS);
    let pointsman = Pointsman::start(&config, &["--secure-serving=false"]).await;
    let proxy = Proxy::connect(pointsman.grpc).await;
    for index in 0..NAMES {
        send(&proxy, &format!("tenant-{index}"), &format!("model-{index}")).await;
    }
    let (series, bytes) = size(&pointsman.page().await);
    assert!(series <= 30_000 && bytes <= 10 << 20, "{series} series in {bytes} bytes");
    // It comes when every place is taken.
    let own = "llm_d_epp_request_total{fairness_id=\"busy\",model_name=\"busy-model\"";
    eventually("a label of its own for the busy tenant", async || {
        for index in 0..20 {
            send(&proxy, "busy", "busy-model").await;
            send(&proxy, &format!("late-{index}"), "busy-model").await;
        }
        pointsman.page().await.contains(own).then_some(())
    })
    .await;
    let (series, bytes) = size(&pointsman.page().await);
    assert!(series <= 30_000 && bytes <= 10 << 20, "{series} series in {bytes} bytes");
    for label in ["fairness_id", "model_name", "histogram"] {
        let folded = pointsman.metric("pointsman_metric_labels_folded_total", &[("label", label)]).await;
        assert!(folded.unwrap() > 0.0, "{label}");
    }
    let counted = pointsman.metric("llm_d_epp_request_total", &[("fairness_id", "other")]).await;
    assert!(counted.unwrap() > 1000.0, "what is folded still counts: {counted:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_bounds_of_the_page_are_flags() {
    let fleet = Fleet::start(1, &[]).await;
    let endpoints = EndpointsFile::with(fleet.list());
    let config = config(&endpoints.path(), SCORERS);
    let flags = ["--secure-serving=false", "--max-metric-series", "3000", "--max-metrics-bytes", "500Ki"];
    let pointsman = Pointsman::start(&config, &flags).await;
    let proxy = Proxy::connect(pointsman.grpc).await;
    for index in 0..300 {
        send(&proxy, &format!("tenant-{index}"), &format!("model-{index}")).await;
    }
    let (series, bytes) = size(&pointsman.page().await);
    assert!(series <= 3000 && bytes <= 500 << 10, "{series} series in {bytes} bytes");
}
