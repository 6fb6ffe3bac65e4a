//! A limit of concurrency holds for all replicas together.

use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use super::over::{Over, over_both};
use super::replicas::{Replicas, open};
use crate::support::{EndpointsFile, Fleet, Proxy, body, chat, destination, headers};

/// Requests of an endpoint.
const ROOM: usize = 3;
const SERVERS: usize = 4;
/// Time without a change after which all are served that will be.
const QUIET: Duration = Duration::from_millis(600);
/// Time between two requests of the burst: 250 a second.
const PACE: Duration = Duration::from_millis(4);
/// Requests that may be too many for each other replica: one as documented, and one because processes of a test wait for
/// the processor.
const TOO_MANY: usize = 2;

fn config(endpoints: &EndpointsFile, room: usize, bounds: &str) -> String {
    format!(
        "apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
featureGates: [flowControl]
plugins:
- type: file-discovery
  parameters: {{path: {}, watchFile: true}}
- type: active-request-scorer
- type: concurrency-detector
  parameters: {{maxConcurrency: {room}}}
- type: max-score-picker
- type: single-profile-handler
schedulingProfiles:
- name: default
  plugins:
  - pluginRef: active-request-scorer
    weight: 1
  - pluginRef: max-score-picker
flowControl:
  saturationDetector: {{pluginRef: concurrency-detector}}{bounds}
dataLayer:
  discovery: {{pluginRef: file-discovery}}
",
        endpoints.path().display()
    )
}

/// Requests of a burst that are served at once by this many replicas.
async fn served_at_once(over: &Over, count: usize) -> usize {
    let fleet = Fleet::start(SERVERS, &[]).await;
    let endpoints = EndpointsFile::with(fleet.list());
    let flags = ["--allow-experimental-plugins", "--drain-timeout=0s"];
    let replicas = Replicas::over(over, count, &config(&endpoints, ROOM, ""), &flags).await;
    replicas.all_follow().await;
    let mut requests = JoinSet::new();
    let grpc: Vec<_> = replicas.running().map(|replica| replica.grpc).collect();
    for number in 0..SERVERS * ROOM + 4 * count.max(4) {
        let grpc = grpc[number % count];
        requests.spawn(async move { open(&Proxy::connect(grpc).await, &format!("request {number}")).await });
        tokio::time::sleep(PACE).await;
    }
    let mut served = Vec::new();
    let mut quiet_since = Instant::now();
    // Until nobody was served for a while.
    while quiet_since.elapsed() < QUIET {
        tokio::time::sleep(PACE).await;
        while let Some(Ok(request)) = requests.try_join_next() {
            served.push(request);
            quiet_since = Instant::now();
        }
    }
    let at_once = served.len();
    assert!(!requests.is_empty(), "some wait");
    replicas.agree_on(at_once as u64).await;
    // Whoever ends makes room for one that waits, at whichever replica, once no more is in flight than fits.
    served.truncate(SERVERS * ROOM - 1);
    let next = crate::support::within("the next one is served", requests.join_next()).await;
    assert!(next.is_some_and(|next| next.is_ok()));
    at_once
}

over_both!(
    a_burst_overshoots_by_no_more_than_what_comes_within_an_exchange,
    queues_of_all_replicas_together_keep_to_their_bounds,
);

async fn a_burst_overshoots_by_no_more_than_what_comes_within_an_exchange(over: &Over) {
    for count in [1, 3, 8] {
        let at_once = served_at_once(over, count).await;
        let bound = SERVERS * ROOM + (count - 1) * TOO_MANY;
        assert!(
            (SERVERS * ROOM..=bound).contains(&at_once),
            "{count} replicas serve {at_once} at once, and {} would fit",
            SERVERS * ROOM
        );
        eprintln!("{count} replicas serve {at_once} at once where {} fit", SERVERS * ROOM);
    }
}

/// Requests that fit into the queues in the test of their bounds, and bytes of one.
const PLACES: usize = 12;

/// Requests of a burst that wait at the same time at this many replicas, where the queues have these bounds.
async fn waiting_at_once(over: &Over, count: usize, bounds: &str) -> usize {
    let fleet = Fleet::start(1, &[]).await;
    let endpoints = EndpointsFile::with(fleet.list());
    let flags = ["--allow-experimental-plugins", "--drain-timeout=0s"];
    let replicas = Replicas::over(over, count, &config(&endpoints, 1, bounds), &flags).await;
    replicas.all_follow().await;
    let grpc: Vec<_> = replicas.running().map(|replica| replica.grpc).collect();
    let _served = open(&Proxy::connect(grpc[0]).await, "served").await;
    replicas.agree_on(1).await;
    let mut requests = JoinSet::new();
    let sent = PLACES + 4 * count.max(4);
    for number in 0..sent {
        let grpc = grpc[number % count];
        requests.spawn(async move {
            let mut exchange = Proxy::connect(grpc).await.open().await;
            exchange.say(headers("/v1/chat/completions", [], false)).await;
            exchange.say(body(text(number), true)).await;
            let answer = exchange.answer().await.unwrap().unwrap();
            assert_eq!(destination(&answer), None, "there is no room in the pool");
        });
        tokio::time::sleep(PACE).await;
    }
    // Whoever finds no place is refused at once.
    tokio::time::sleep(QUIET).await;
    let mut refused = 0;
    while let Some(request) = requests.try_join_next() {
        request.unwrap();
        refused += 1;
    }
    sent - refused
}

/// A body, of the same length for each number.
fn text(number: usize) -> String {
    chat(&format!("request {number:03}"), 1, false).to_string()
}

async fn queues_of_all_replicas_together_keep_to_their_bounds(over: &Over) {
    let bytes = format!("\n  maxBytes: {}", PLACES * text(0).len());
    let requests = format!("\n  maxRequests: {PLACES}");
    let band = format!("\n  priorityBands: [{{priority: 0, maxRequests: {PLACES}}}]");
    for (count, bounds) in
        [(1, &requests), (1, &bytes), (3, &requests), (3, &bytes), (3, &band), (8, &requests)]
    {
        let waiting = waiting_at_once(over, count, bounds).await;
        let bound = PLACES + (count - 1) * TOO_MANY;
        assert!((PLACES..=bound).contains(&waiting), "{count} replicas hold {waiting} with{bounds}");
        eprintln!("{count} replicas hold {waiting} where {PLACES} fit with{bounds}");
    }
}
