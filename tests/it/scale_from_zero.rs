//! A pool at zero: requests wait for its first servers, and the autoscalers hear of them.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use http::uri::PathAndQuery;
use parking_lot::Mutex;
use pointsman::scaler::STREAM_IS_ACTIVE_PATH;
use pointsman::scaler::wire::{IsActiveResponse, ScaledObjectRef};
use tokio::task::JoinSet;
use tonic::transport::Channel;
use tonic_prost::ProstCodec;

use crate::autoscaling::{POOL, queries};
use crate::support::{
    BodyMode, EndpointsFile, Envoy, Fleet, Pointsman, Prometheus, Stack, Target, chat, eventually, holds,
    within,
};

const FLOWS: [&str; 4] = ["ann", "bob", "cy", "dee"];
const REQUESTS_OF_A_FLOW: usize = 50;
const REQUESTS: f64 = 200.0;
const QUEUE: &str = "sum(inference_extension_flow_control_queue_size)";

/// File discovery, and requests of a band taken by turns of their fairness ids.
fn config(endpoints: &Path) -> String {
    format!(
        "apiVersion: config.x-k8s.io/v1alpha1
kind: EndpointPickerConfig
featureGates: [flowControl]
plugins:
- type: file-discovery
  parameters: {{path: {}, watchFile: true}}
- type: queue-scorer
- type: utilization-detector
  parameters: {{queueDepthThreshold: 5, kvCacheUtilThreshold: 0.9}}
- type: round-robin-fairness-policy
- type: max-score-picker
- type: single-profile-handler
schedulingProfiles:
- name: default
  plugins:
  - pluginRef: queue-scorer
    weight: 1
  - pluginRef: max-score-picker
flowControl:
  saturationDetector: {{pluginRef: utilization-detector}}
  defaultPriorityBand: {{fairnessPolicyRef: round-robin-fairness-policy}}
dataLayer:
  discovery: {{pluginRef: file-discovery}}
",
        endpoints.display()
    )
}

/// A pool that no server is listed for, behind Envoy, and its servers, which run already.
async fn empty_pool(flags: &[&str]) -> Stack {
    let fleet = Fleet::start(2, &["--max-num-seqs", "16", "--inter-token-ms", "30"]).await;
    let endpoints = EndpointsFile::with([]);
    endpoints.write_text("endpoints: []\n");
    let pointsman = Pointsman::start(&config(&endpoints.path()), flags).await;
    let envoy = Envoy::start(pointsman.grpc, true, BodyMode::FullDuplexStreamed).await;
    Stack { envoy, pointsman, fleet, endpoints }
}

/// What the recipes' queries give here and now: those about waiting requests, those about running ones.
async fn assert_recipes_see(prometheus: &Prometheus, waiting: f64) {
    for query in queries() {
        if query.name.ends_with(" series")
            || query.promql.contains("vllm:")
            || query.promql.contains("running")
        {
            continue;
        }
        let promql = query.promql.replace(POOL, "test-pool");
        assert_eq!(prometheus.value(&promql).await, Some(waiting), "{}: {promql}", query.name);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_for_an_empty_pool_wait_for_its_first_servers_and_none_is_lost() {
    let stack = empty_pool(&[]).await;
    let scraped = [Target { job: "epp", addr: stack.pointsman.metrics, labels: &[] }];
    let prometheus = Prometheus::start(&scraped).await;
    assert_recipes_see(&prometheus, 0.0).await;

    // One flow after the other, so that its turns are not the order of arrival.
    let order: Arc<Mutex<Vec<(&str, String)>>> = Arc::default();
    let mut asking = JoinSet::new();
    for (number, flow) in FLOWS.into_iter().enumerate() {
        for _ in 0..REQUESTS_OF_A_FLOW {
            let (client, order) = (stack.client(), Arc::clone(&order));
            asking.spawn(async move {
                let headers = [("x-llm-d-inference-fairness-id", flow)];
                let body = chat("good morning", 5, false).to_string();
                let reply = client.post_with("/v1/chat/completions", &headers, body).await;
                order.lock().push((flow, reply.header("x-sim-server").to_owned()));
                reply.status
            });
        }
        let waiting = ((number + 1) * REQUESTS_OF_A_FLOW) as f64;
        holds("the flow waits", async || {
            let name = "inference_extension_flow_control_queue_size";
            stack.pointsman.metric(name, &[]).await == Some(waiting)
        })
        .await;
    }

    // Fifteen scrapes, a second each, see them all wait.
    let seen = format!("count_over_time(({QUEUE} == {REQUESTS})[25s:1s])");
    eventually("15 s at zero servers", async || (prometheus.value(&seen).await? >= 15.0).then_some(())).await;
    assert_recipes_see(&prometheus, REQUESTS).await;
    assert!(order.lock().is_empty(), "nobody can have been answered");

    let servers: Vec<_> = stack.fleet.list().collect();
    stack.endpoints.write(servers[..1].iter().copied());
    holds("the first answer", async || !order.lock().is_empty()).await;
    stack.endpoints.write(servers.iter().copied());

    let statuses = within("all answers", asking.join_all()).await;
    assert_eq!(statuses.len() as f64, REQUESTS);
    assert!(statuses.iter().all(|status| *status == 200), "{statuses:?}");
    let order = order.lock().clone();
    for (name, _) in &servers {
        assert!(order.iter().any(|(_, server)| server == name), "{name} answered nothing");
    }
    // By turns, the first half of the answers has about as many of each flow. By arrival it had all of two flows and
    // none of the others.
    for flow in FLOWS {
        let early = order[..order.len() / 2].iter().filter(|(of, _)| *of == flow).count();
        assert!((15..=35).contains(&early), "{flow}: {early} of the first {}", order.len() / 2);
    }

    holds("the queue is empty in prometheus", async || prometheus.value(QUEUE).await == Some(0.0)).await;
    assert_eq!(prometheus.value(&format!("max_over_time({QUEUE}[2m:1s])")).await, Some(REQUESTS));
    assert_recipes_see(&prometheus, 0.0).await;
    stack.assert_idle().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keda_is_told_of_the_first_waiting_request_and_of_the_end() {
    let mut stack = empty_pool(&["--keda-scaler-port", "0"]).await;
    let keda = stack.pointsman.keda().await;
    let channel = Channel::from_shared(format!("http://{keda}")).unwrap().connect().await.unwrap();
    let mut grpc = tonic::client::Grpc::new(channel);
    grpc.ready().await.unwrap();
    let metadata = [("targetValue", "250"), ("coolDown", "500ms"), ("pool", "test-pool")];
    let asked = ScaledObjectRef {
        name: "pool".to_owned(),
        namespace: "default".to_owned(),
        scaler_metadata: metadata.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
    };
    let codec = ProstCodec::<ScaledObjectRef, IsActiveResponse>::default();
    let path = PathAndQuery::from_static(STREAM_IS_ACTIVE_PATH);
    let mut said = grpc.server_streaming(tonic::Request::new(asked), path, codec).await.unwrap().into_inner();
    assert!(!within("first word", said.message()).await.unwrap().unwrap().result);

    let client = stack.client();
    let start = Instant::now();
    let asking =
        tokio::spawn(
            async move { client.post("/v1/chat/completions", &chat("good morning", 5, false)).await },
        );
    assert!(within("active", said.message()).await.unwrap().unwrap().result);
    // Through Envoy and back; the tenth of a second from the queue to the stream is measured where nothing else runs,
    // beside the scaler.
    assert!(start.elapsed().as_secs_f64() < 1.0, "{:?}", start.elapsed());
    stack.endpoints.write(stack.fleet.list());
    assert_eq!(within("answer", asking).await.unwrap().status, 200);
    assert!(!within("inactive", said.message()).await.unwrap().unwrap().result);
}
