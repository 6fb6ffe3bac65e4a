//! The command lines of older deployments.

use std::path::Path;

use tonic::transport::Channel;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::support::{
    BodyMode, EndpointsFile, Envoy, Fleet, Pointsman, Recorder, SCORERS, chat, config, holds, within,
};

/// As the chart of version 1.1.0 writes it, with discovery added.
fn chart_config(endpoints: &Path) -> String {
    format!(
        "apiVersion: inference.networking.x-k8s.io/v1alpha1\nkind: EndpointPickerConfig\nplugins:\n\
         - type: queue-scorer\n- type: kv-cache-utilization-scorer\n- type: prefix-cache-scorer\n\
         - type: file-discovery\n  parameters: {{path: {}}}\n\
         schedulingProfiles:\n- name: default\n  plugins:\n  - pluginRef: queue-scorer\n\
         \x20 - pluginRef: kv-cache-utilization-scorer\n  - pluginRef: prefix-cache-scorer\n\
         dataLayer:\n  discovery:\n    pluginRef: file-discovery\n",
        endpoints.display()
    )
}

/// The chart's arguments in its order.
fn chart_arguments(config_file: &str) -> Vec<&str> {
    let text = "--pool-name pool-x --pool-namespace ns --pool-group inference.networking.k8s.io --zap-encoder json \
                --config-file FILE --v 1 --tracing false --metrics-endpoint-auth=false";
    text.split(' ').map(|word| if word == "FILE" { config_file } else { word }).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_arguments_of_the_old_chart_start_a_picker_that_serves() {
    let fleet = Fleet::start(2, &[]).await;
    let endpoints = EndpointsFile::with(fleet.list());
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("default-plugins.yaml");
    std::fs::write(&file, chart_config(&endpoints.path())).unwrap();
    let mut arguments = chart_arguments(file.to_str().unwrap());
    arguments.extend(["--total-queued-requests-metric", "vllm:num_requests_waiting"]);
    arguments.extend([
        "--kv-cache-usage-percentage-metric=vllm:kv_cache_usage_perc",
        "--lora-info-metric",
        "",
    ]);
    let pointsman = Pointsman::start_in(&[], &arguments).await;
    holds("both servers were scraped", async || {
        pointsman.metric("inference_pool_ready_pods", &[("name", "pool-x")]).await == Some(2.0)
    })
    .await;
    let envoy = Envoy::start(pointsman.grpc, true, BodyMode::FullDuplexStreamed).await;
    let reply = envoy.http1().post("/v1/chat/completions", &chat("as ever", 2, false)).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    let total = pointsman.metric("inference_objective_request_total", &[("model_name", "sim-model")]).await;
    assert_eq!(total, Some(1.0));
    let log = pointsman.process.log().join("\n");
    assert!(!log.contains("has no effect\",\"message\":\"command line"), "a stray word: {log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_service_name_that_probes_use_is_serving() {
    let endpoints = EndpointsFile::with([]);
    let pointsman = Pointsman::start(&config(&endpoints.path(), SCORERS), &[]).await;
    let channel = Channel::from_shared(format!("http://{}", pointsman.health)).unwrap();
    let mut client = HealthClient::new(within("health port", channel.connect()).await.unwrap());
    for service in
        ["inference-extension", "", "readiness", "liveness", "envoy.service.ext_proc.v3.ExternalProcessor"]
    {
        let request = HealthCheckRequest { service: service.to_owned() };
        let answer = within("health", client.check(request)).await;
        let status = answer.unwrap_or_else(|error| panic!("{service:?}: {error}")).into_inner().status;
        assert_eq!(status, i32::from(ServingStatus::Serving), "{service:?}");
    }
}

const CUSTOM_PAGE: &str = "# TYPE vllm:num_requests_running gauge\nvllm:num_requests_running 3\n\
    # TYPE vllm:num_requests_waiting gauge\nvllm:num_requests_waiting 1\n\
    # TYPE custom:queue gauge\ncustom:queue{kind=\"done\"} 5\ncustom:queue{kind=\"waiting\"} 7\n\
    # TYPE vllm:kv_cache_usage_perc gauge\nvllm:kv_cache_usage_perc 0.25\n\
    # TYPE custom:usage gauge\ncustom:usage 0.75\n";

async fn reads(flags: &[&str], queue: f64, usage: f64) -> Pointsman {
    let server = Recorder::start_with_page(CUSTOM_PAGE).await;
    let endpoints = EndpointsFile::with([("one", server.addr)]);
    let pointsman = Pointsman::start(&config(&endpoints.path(), SCORERS), flags).await;
    holds("the figures are those of the named series", async || {
        let labels = [("model_server_endpoint", "one")];
        pointsman.metric("llm_d_epp_per_endpoint_queue_size", &labels).await == Some(queue)
            && pointsman.metric("llm_d_epp_average_kv_cache_utilization", &[]).await == Some(usage)
            && pointsman.metric("llm_d_epp_ready_endpoints", &[]).await == Some(1.0)
    })
    .await;
    pointsman
}

fn assert_warned(pointsman: &Pointsman, flag: &str, replacement: &str) {
    let log = pointsman.process.log();
    let warned = log.iter().any(|line| {
        line.contains("warn") && line.contains(&format!("--{flag}")) && line.contains(replacement)
    });
    assert!(warned, "no warning of {flag}: {log:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_metric_flag_still_chooses_the_series_and_names_its_successor() {
    reads(&[], 1.0, 0.25).await;
    for (kind, queue) in [("done", 5.0), ("waiting", 7.0)] {
        let series = format!("custom:queue{{kind=\"{kind}\"}}");
        let pointsman = reads(&["--total-queued-requests-metric", &series], queue, 0.25).await;
        assert_warned(&pointsman, "total-queued-requests-metric", "queuedRequestsSpec");
    }
    // Without a selector both rows are the figure. Nothing says that `kind` numbers parts, so that they state one
    // thing: the higher counts.
    let pointsman = reads(
        &["--total-queued-requests-metric=custom:queue", "-kv-cache-usage-percentage-metric", "custom:usage"],
        7.0,
        0.75,
    )
    .await;
    assert_warned(&pointsman, "kv-cache-usage-percentage-metric", "kvUsageSpec");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_port_flag_still_chooses_where_pages_are_read() {
    let pages = Recorder::start_with_page(CUSTOM_PAGE).await;
    // Nothing answers on the endpoint's own port.
    let endpoints = EndpointsFile::with([("one", "127.0.0.1:1".parse().unwrap())]);
    let port = pages.addr.port().to_string();
    let flags = ["--model-server-metrics-port", &port, "--model-server-metrics-scheme", "http"];
    let pointsman = Pointsman::start(&config(&endpoints.path(), SCORERS), &flags).await;
    holds("the page of the other port is read", async || {
        pointsman.metric("llm_d_epp_per_endpoint_queue_size", &[]).await == Some(1.0)
    })
    .await;
    assert_warned(&pointsman, "model-server-metrics-port", "metrics-data-source");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_flag_given_twice_the_last_one_counts() {
    let fleet = Fleet::start(1, &[]).await;
    let endpoints = EndpointsFile::with(fleet.list());
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("default-plugins.yaml");
    std::fs::write(&file, chart_config(&endpoints.path())).unwrap();
    // What an operator sets comes behind what the chart sets.
    let mut arguments = chart_arguments(file.to_str().unwrap());
    arguments.extend(["--v", "4", "--pool-name=pool-y", "--tracing", "true", "--tracing=false"]);
    let pointsman = Pointsman::start_in(&[], &arguments).await;
    holds("the later name is the pool's", async || {
        pointsman.metric("inference_pool_ready_pods", &[("name", "pool-y")]).await == Some(1.0)
    })
    .await;
    assert_eq!(pointsman.metric("inference_pool_ready_pods", &[("name", "pool-x")]).await, None);
}
