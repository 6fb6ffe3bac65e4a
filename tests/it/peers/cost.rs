//! What it costs replicas to know of each other. Run by hand, on a machine that does nothing else; see
//! `docs/performance.md`.

use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use super::over::Over;
use super::replicas::Replicas;
use crate::support::{
    EndpointsFile, Fleet, Pointsman, Proxy, body, chat, config, destination, headers, within,
};

const SCORERS: &[(&str, u32)] = &[
    ("queue-scorer", 2),
    ("kv-cache-utilization-scorer", 2),
    ("prefix-cache-scorer", 3),
    ("no-hit-lru-scorer", 2),
];
const REPLICAS: usize = 3;
const SERVERS: usize = 20;
/// Requests in a second at all replicas together.
const RATE: u32 = 500;
/// Time of one turn with exchange or without, and turns of each.
const TURN: Duration = Duration::from_secs(6);
const TURNS: usize = 4;
/// Time for which a request is open.
const LASTS: Duration = Duration::from_millis(400);
/// Most CPU that the exchange may add, as a share, and most bytes in a second to a peer.
const MOST_CPU: f64 = 0.05;
const MOST_BYTES: f64 = 2e6;

/// About 2,000 tokens, of which the first half is shared by every tenth prompt.
fn text(number: usize) -> String {
    let shared = format!("system prompt {} of an application. ", number % 10).repeat(125);
    let own = format!("request {number} says something. ").repeat(125);
    chat(&format!("{shared}{own}"), 100, true).to_string()
}

/// Figures of one turn.
#[derive(Clone, Copy, Debug, Default)]
struct Cost {
    requests: usize,
    cpu: Duration,
    exchange: Duration,
    bytes: f64,
    /// Times from a request's first message to its decision, sorted, at a place in a hundred.
    p99: Duration,
}

async fn sent(replica: &Pointsman) -> f64 {
    replica.metric("pointsman_peer_bytes_total", &[("direction", "sent")]).await.unwrap_or(0.0)
}

fn cpu(replicas: &Replicas) -> (Duration, Duration) {
    let all = replicas.running().map(|replica| &replica.process);
    all.fold(Default::default(), |(cpu, exchange), process| {
        (cpu + process.cpu(), exchange + process.thread_cpu("peers").unwrap_or_default())
    })
}

/// Sends the load for one turn.
async fn turn(replicas: &Replicas, first: usize) -> Cost {
    let mut proxies = Vec::new();
    for replica in replicas.running() {
        proxies.push(Proxy::connect(replica.grpc).await);
    }
    let (mut before, mut after) = (0.0, 0.0);
    for replica in replicas.running() {
        before += sent(replica).await;
    }
    let start = cpu(replicas);
    let mut requests = JoinSet::new();
    let mut tick = tokio::time::interval(Duration::from_secs(1) / RATE);
    let begun = Instant::now();
    let mut number = first;
    while begun.elapsed() < TURN {
        tick.tick().await;
        let mut exchange = proxies[number % REPLICAS].open().await;
        let prompt = text(number);
        requests.spawn(async move {
            let asked = Instant::now();
            exchange.say(headers("/v1/chat/completions", [], false)).await;
            exchange.say(body(prompt, true)).await;
            let answer = within("a decision", exchange.answer()).await.unwrap().unwrap();
            assert!(destination(&answer).is_some());
            let took = asked.elapsed();
            tokio::time::sleep(LASTS).await;
            took
        });
        number += 1;
    }
    let took = begun.elapsed();
    let mut times = requests.join_all().await;
    let end = cpu(replicas);
    for replica in replicas.running() {
        after += sent(replica).await;
    }
    times.sort_unstable();
    Cost {
        requests: times.len(),
        cpu: end.0.saturating_sub(start.0),
        exchange: end.1.saturating_sub(start.1),
        // Each replica sends to each other one.
        bytes: (after - before) / (REPLICAS * (REPLICAS - 1)) as f64 / took.as_secs_f64(),
        p99: times[times.len() * 99 / 100],
    }
}

fn shown(name: &str, turns: &[Cost]) -> f64 {
    let requests: usize = turns.iter().map(|turn| turn.requests).sum();
    let micros = |time: Duration| time.as_secs_f64() * 1e6 / requests as f64;
    let cpu = micros(turns.iter().map(|turn| turn.cpu).sum());
    let exchange = micros(turns.iter().map(|turn| turn.exchange).sum());
    let bytes = turns.iter().map(|turn| turn.bytes).sum::<f64>() / turns.len() as f64;
    let p99 = turns.iter().map(|turn| turn.p99).min().unwrap_or_default();
    eprintln!(
        "{name}: {cpu:.0} µs CPU a request, {exchange:.1} of them on the thread of peers; {bytes:.0} bytes/s to each peer; \
         best p99 of a decision {p99:.2?}"
    );
    cpu
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes, and needs a quiet machine and an optimised program; see docs/performance.md"]
async fn what_replicas_pay_for_knowing_of_each_other() {
    let fleet = Fleet::start(SERVERS, &[]).await;
    let endpoints = EndpointsFile::with(fleet.list());
    let text = config(&endpoints.path(), SCORERS);
    let mut ways = vec![("without peers", Replicas::alone(REPLICAS, &endpoints, SCORERS).await)];
    let streams = Replicas::over(&Over::Streams, REPLICAS, &text, &[]).await;
    streams.all_follow().await;
    ways.push(("with streams", streams));
    let server = Over::server().await;
    if let Some(over) = &server {
        let replicas = Replicas::over(over, REPLICAS, &text, &[]).await;
        replicas.all_follow().await;
        ways.push(("over a server", replicas));
    }
    let mut costs: Vec<Vec<Cost>> = vec![Vec::new(); ways.len()];
    let mut first = 0;
    // In turns, so that a change of the machine's speed meets all.
    for number in 0..=TURNS {
        for ((_, replicas), costs) in ways.iter().zip(&mut costs) {
            let cost = turn(replicas, first).await;
            first += cost.requests;
            // The first one warms up.
            if number > 0 {
                costs.push(cost);
            }
        }
    }
    let cpu: Vec<f64> = ways.iter().zip(&costs).map(|((name, _), costs)| shown(name, costs)).collect();
    let bytes = costs[1].iter().map(|turn| turn.bytes).fold(0.0, f64::max);
    eprintln!("CPU with streams: {:.3} of that without", cpu[1] / cpu[0]);
    assert!(bytes < MOST_BYTES, "{bytes} bytes/s");
    assert!(cpu[1] < cpu[0] * (1.0 + MOST_CPU), "{cpu:?}");
}
