//! The precise prefix cache: engines tell of their caches, and requests go where their prompts are.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use serde_json::json;

use crate::support::kv_publisher::{KvPublisher, cleared, free_ports, stored};
use crate::support::{EndpointsFile, Pointsman, Proxy, Recorder, body, destination, headers, holds};

/// Two engines on addresses of their own, and a picker that hears them. Nobody serves requests: it is asked alone.
struct Bench {
    engines: [KvPublisher; 2],
    targets: [String; 2],
    pointsman: Pointsman,
    _endpoints: EndpointsFile,
}

fn configuration(endpoints: &Path, port: u16, replay: u16) -> String {
    let path = endpoints.display();
    format!(
        "apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins:
- type: file-discovery
  parameters: {{path: {path}, watchFile: true}}
- type: endpoint-notification-source
- type: precise-prefix-cache-producer
  parameters:
    kvEventsConfig:
      podDiscoveryConfig: {{socketPort: {port}, replaySocketPort: {replay}}}
- type: prefix-cache-scorer
  parameters: {{prefixMatchInfoProducerName: precise-prefix-cache-producer}}
- type: max-score-picker
dataLayer:
  discovery: {{pluginRef: file-discovery}}
  sources:
  - pluginRef: endpoint-notification-source
    extractors:
    - pluginRef: precise-prefix-cache-producer
schedulingProfiles:
- name: default
  plugins: [{{pluginRef: prefix-cache-scorer}}, {{pluginRef: max-score-picker}}]
"
    )
}

impl Bench {
    async fn start(replay: bool) -> Self {
        Self::start_in(41, replay).await
    }

    /// With engines in a network of this number.
    async fn start_in(network: u8, replay: bool) -> Self {
        let addresses = [IpAddr::from([127, 0, network, 1]), IpAddr::from([127, 0, network, 2])];
        let port = free_ports(addresses).await;
        let engines = [
            KvPublisher::start((addresses[0], port).into()).await,
            KvPublisher::start((addresses[1], port).into()).await,
        ];
        let targets = addresses.map(|address| SocketAddr::new(address, 8000));
        let endpoints = EndpointsFile::with([("one", targets[0]), ("two", targets[1])]);
        let text = configuration(&endpoints.path(), port, if replay { port + 1 } else { 0 });
        let pointsman = Pointsman::start(&text, &["--secure-serving=false"]).await;
        let bench = Self {
            engines,
            targets: targets.map(|address| address.to_string()),
            pointsman,
            _endpoints: endpoints,
        };
        holds("both engines are heard", async || {
            bench.metric("llm_d_epp_kv_cache_events_active_subscribers").await == Some(2.0)
        })
        .await;
        bench
    }

    async fn metric(&self, name: &str) -> Option<f64> {
        self.pointsman.metric(name, &[]).await
    }

    async fn entries(&self, count: f64) {
        // The figure is written with each request.
        holds("the index has so many entries", async || {
            self.sent(&[9; 64]).await;
            self.metric("llm_d_epp_prefix_indexer_size").await == Some(count)
        })
        .await;
    }

    /// Where a prompt of these tokens is sent.
    async fn sent(&self, tokens: &[u32]) -> String {
        let proxy = Proxy::connect(self.pointsman.grpc).await;
        let mut exchange = proxy.open().await;
        exchange.say(headers("/v1/completions", [], false)).await;
        exchange.say(body(json!({"model": "m", "prompt": tokens}).to_string(), true)).await;
        destination(&exchange.answer().await.unwrap().unwrap()).unwrap()
    }

    /// Fails unless every one of some requests goes to this engine.
    async fn assert_goes_to(&self, engine: usize, tokens: &[u32]) {
        for _ in 0..8 {
            assert_eq!(self.sent(tokens).await, self.targets[engine]);
        }
    }
}

fn tokens(from: u32, count: u32) -> Vec<u32> {
    (from..from + count).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_go_to_the_engine_that_says_that_it_holds_their_prompt() {
    let bench = Bench::start(false).await;
    let (a, b) = (tokens(1000, 64), tokens(5000, 64));
    // The engine's own block size counts, not the configured one.
    bench.engines[0].say(&[stored(&[1, 2], None, &a, 32)]);
    bench.engines[1].say(&[stored(&[1, 2], None, &b[..32], 16), stored(&[3], Some(2), &b[32..48], 16)]);
    bench.entries(5.0).await;
    bench.assert_goes_to(0, &a).await;
    bench.assert_goes_to(1, &b).await;
    bench.engines[0].say(&[cleared()]);
    bench.engines[1].say(&[stored(&[7, 8, 9, 10], None, &a, 16)]);
    bench.entries(7.0).await;
    bench.assert_goes_to(1, &a).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_missed_is_repeated_and_otherwise_forgotten() {
    let bench = Bench::start(true).await;
    let a = tokens(1000, 64);
    bench.engines[0].say(&[stored(&[1, 2], None, &a[..32], 16)]);
    bench.entries(2.0).await;
    // What is lost is asked for again with the next message.
    bench.engines[0].lose(&[stored(&[3], Some(2), &a[32..48], 16)]);
    bench.engines[0].say(&[stored(&[4], Some(3), &a[48..64], 16)]);
    bench.entries(4.0).await;
    // An engine that cannot repeat is learned anew.
    bench.engines[0].lose(&[stored(&[5], None, &tokens(1, 16), 16)]);
    bench.engines[0].forget();
    bench.engines[0].say(&[stored(&[6], None, &tokens(2, 16), 16)]);
    bench.entries(1.0).await;
    let gaps = async |outcome| {
        bench.pointsman.metric("pointsman_kv_event_gaps_total", &[("outcome", outcome)]).await
    };
    assert_eq!(gaps("forgotten").await, Some(1.0));
    assert!(gaps("replayed").await.is_some_and(|count| count >= 1.0));
}

const BUSY: &str = "vllm:num_requests_running 0\nvllm:num_requests_waiting 0\nvllm:kv_cache_usage_perc 0.5\n\
    vllm:prompt_tokens_total{engine=\"0\"} 2178.0\nvllm:engine_sleep_state{sleep_state=\"awake\"} 1.0\n";
const ANEW: &str = "vllm:num_requests_running 0\nvllm:num_requests_waiting 0\nvllm:kv_cache_usage_perc 0\n\
    vllm:prompt_tokens_total{engine=\"0\"} 64.0\nvllm:engine_sleep_state{sleep_state=\"awake\"} 1.0\n";
const ASLEEP: &str = "vllm:num_requests_running 0\nvllm:num_requests_waiting 0\nvllm:kv_cache_usage_perc 0\n\
    vllm:prompt_tokens_total{engine=\"0\"} 64.0\nvllm:engine_sleep_state{sleep_state=\"awake\"} 0.0\n";

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_whose_page_shows_another_process_or_sleep_is_learned_anew() {
    let server = Recorder::start_at(SocketAddr::from(([127, 0, 42, 1], 8000)), BUSY).await;
    let bench = Bench::start_in(42, false).await;
    let rebuilt = async |reason| {
        bench.pointsman.metric("pointsman_prefix_index_rebuilds_total", &[("reason", reason)]).await
    };
    bench.engines[0].say(&[stored(&[1, 2], None, &tokens(1000, 32), 16)]);
    bench.entries(2.0).await;
    // What is seen first is no fall: two looks after the page was read, it was seen.
    holds("the page was read", async || {
        bench.metric("llm_d_epp_average_kv_cache_utilization").await > Some(0.0)
    })
    .await;
    for _ in 0..2 {
        let age = bench.metric("pointsman_kv_event_age_seconds").await;
        holds("another look", async || bench.metric("pointsman_kv_event_age_seconds").await > age).await;
    }
    server.show(ANEW);
    holds("the fall was seen", async || rebuilt("counters").await == Some(1.0)).await;
    bench.entries(0.0).await;
    bench.engines[0].say(&[stored(&[1, 2], None, &tokens(1000, 32), 16)]);
    bench.entries(2.0).await;
    server.show(ASLEEP);
    holds("sleep was seen", async || rebuilt("asleep").await == Some(1.0)).await;
    bench.entries(0.0).await;
    assert_eq!(rebuilt("counters").await, Some(1.0));
}
