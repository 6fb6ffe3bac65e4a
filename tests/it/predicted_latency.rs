//! Latency prediction through the real program: it learns from answers, and requests with an objective go where the
//! objective is kept.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use pointsman::extproc::wire::{HttpBody, Request};

use crate::support::{
    EndpointsFile, Pointsman, Proxy, Script, Scripted, body, chat, destination, headers, holds,
    response_headers,
};

const CONFIG: &str = "
- type: predicted-latency-producer
- type: slo-headroom-tier-filter
  parameters: {epsilonExploreNeg: 0}
- type: latency-scorer
- type: latency-slo-admitter
- type: metrics-data-source
  parameters: {path: /figures}
- type: random-picker
schedulingProfiles:
- name: default
  plugins:
  - pluginRef: slo-headroom-tier-filter
  - pluginRef: random-picker
dataLayer: {discovery: {pluginRef: file-discovery}}
";

/// How long a server takes to its first byte.
const SLOW: Duration = Duration::from_millis(150);

/// Sends one request, whose answer begins after what the chosen server takes; the chosen server.
async fn request(proxy: &Proxy, slow: SocketAddr, objective: Option<&str>) -> String {
    let mut exchange = proxy.open().await;
    let bytes = |text: &str| Bytes::copy_from_slice(text.as_bytes());
    let objective = objective.map(|limit| (bytes("x-llm-d-slo-ttft-ms"), bytes(limit)));
    exchange.say(headers("/v1/chat/completions", objective, false)).await;
    exchange.say(body(chat("hello", 1, true).to_string(), true)).await;
    let chosen = destination(&exchange.answer().await.unwrap().unwrap()).unwrap();
    if chosen == slow.to_string() {
        tokio::time::sleep(SLOW).await;
    }
    exchange.say(response_headers("200")).await;
    let chunk = HttpBody { body: Bytes::from_static(b"data: {}\n\n"), end_of_stream: true };
    exchange.say(Request::ResponseBody(chunk)).await;
    exchange.finish().await;
    chosen
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_with_an_objective_go_where_it_is_kept_once_the_servers_are_known() {
    let figures = "vllm:num_requests_waiting 0\nvllm:num_requests_running 0\nvllm:kv_cache_usage_perc 0.1\n";
    let slow = Scripted::start(move |_, _| Script::json(figures)).await;
    let fast = Scripted::start(move |_, _| Script::json(figures)).await;
    let listed = EndpointsFile::listed([("slow", slow.addr), ("fast", fast.addr)]);
    let endpoints = EndpointsFile::of(&listed);
    let config = format!(
        "apiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerConfig\nplugins:\n- type: file-discovery\n  \
         parameters: {{path: {}}}{CONFIG}",
        endpoints.path().display()
    );
    let pointsman = Pointsman::start(&config, &["--secure-serving=false"]).await;
    holds("both servers were scraped", async || {
        pointsman.metric("llm_d_epp_ready_endpoints", &[]).await == Some(2.0)
    })
    .await;
    let proxy = Proxy::connect(pointsman.grpc).await;
    let in_force = ("latency", "ttft");
    let metric = "pointsman_latency_prediction_in_force";
    assert_eq!(pointsman.metric(metric, &[in_force]).await, Some(0.0));

    let mut requests = 0;
    while pointsman.metric(metric, &[in_force]).await != Some(1.0) {
        request(&proxy, slow.addr, None).await;
        requests += 1;
        assert!(requests < 200, "latencies are not predicted after {requests} requests");
    }
    // Each server is known by its own answers then.
    for _ in 0..40 {
        request(&proxy, slow.addr, None).await;
    }
    for _ in 0..20 {
        assert_eq!(request(&proxy, slow.addr, Some("75")).await, fast.addr.to_string());
    }
    let within = pointsman.metric("pointsman_latency_predicted_within_slo_ratio", &[]).await;
    assert_eq!(within, Some(1.0));
    let seen = pointsman.metric("llm_d_epp_request_predicted_ttft_seconds_count", &[]).await;
    assert!(seen >= Some(20.0), "{seen:?}");
}
