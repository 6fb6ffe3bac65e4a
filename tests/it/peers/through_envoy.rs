//! Replicas behind Envoy, which gives each request to the next one: as many hits as one replica has.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::over::{Over, over_both};
use super::replicas::Replicas;
use crate::support::{BodyMode, EndpointsFile, Envoy, Fleet, Pointsman, chat, config};

/// Prompts that begin alike go together, and new beginnings go to who got one longest ago.
const SCORERS: &[(&str, u32)] = &[("prefix-cache-scorer", 3), ("no-hit-lru-scorer", 1)];
const SERVERS: usize = 20;
/// Beginnings, each of which comes this many times.
const GROUPS: usize = 20;
const TURNS: usize = 5;
/// What several replicas may do worse than one, as a share.
const WORSE: f64 = 0.02;
/// Pause between two requests. An exchange takes 5 ms and the time for which a process waits for a processor.
const PAUSE: Duration = Duration::from_millis(12);
/// The same where eight processes share the processors of a small machine.
const PAUSE_OF_EIGHT: Duration = Duration::from_millis(25);

/// How well requests were placed.
#[derive(Debug)]
struct Placed {
    /// Share of the requests whose beginning the server had seen, of those whose beginning any server had seen.
    hits: f64,
    /// Requests of the busiest server by those of the mean one.
    imbalance: f64,
}

/// Sends the load through Envoy to these pickers.
async fn place(pickers: impl Iterator<Item = &Pointsman>, pause: Duration) -> Placed {
    let ports: Vec<_> = pickers.map(|picker| picker.grpc).collect();
    let envoy = Envoy::start_with_several(&ports, false, BodyMode::FullDuplexStreamed).await;
    let client = envoy.http1();
    let mut seen: Vec<BTreeSet<String>> = vec![BTreeSet::new(); GROUPS];
    let mut requests: BTreeMap<String, usize> = BTreeMap::new();
    let mut hits = 0;
    for turn in 0..TURNS {
        for (group, servers) in seen.iter_mut().enumerate() {
            let beginning = format!("Beginning {group} of a long prompt that others share. ").repeat(40);
            let reply =
                client.post("/v1/chat/completions", &chat(&format!("{beginning} {turn}"), 1, false)).await;
            assert_eq!(reply.status, 200, "{reply:?}");
            let server = reply.header("x-sim-server").to_owned();
            hits += usize::from(servers.contains(&server));
            servers.insert(server.clone());
            *requests.entry(server).or_default() += 1;
            tokio::time::sleep(pause).await;
        }
    }
    let most = requests.values().max().copied().unwrap_or_default();
    Placed {
        hits: hits as f64 / (GROUPS * (TURNS - 1)) as f64,
        imbalance: (most * SERVERS) as f64 / (GROUPS * TURNS) as f64,
    }
}

/// `several` is as good as `one`.
fn as_good(several: &Placed, one: &Placed) {
    assert!(several.hits >= one.hits - WORSE, "{several:?}, {one:?}");
    assert!(several.imbalance <= one.imbalance * (1.0 + WORSE), "{several:?}, {one:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn three_replicas_place_requests_as_well_as_one_and_without_the_exchange_they_do_not() {
    let fleet = Fleet::start(SERVERS, &[]).await;
    let endpoints = EndpointsFile::with(fleet.list());
    let one = Replicas::alone(1, &endpoints, SCORERS).await;
    let one = place(one.running(), PAUSE).await;
    let apart = Replicas::alone(3, &endpoints, SCORERS).await;
    let apart = place(apart.running(), PAUSE).await;
    let three = Replicas::start(3, &endpoints, SCORERS, &["--peer-plaintext"]).await;
    three.all_follow().await;
    let three = place(three.running(), PAUSE).await;
    eprintln!("one replica {one:?}, three with the exchange {three:?}, three without it {apart:?}");
    as_good(&three, &one);
    assert!(apart.hits < one.hits - 0.1, "{apart:?}, {one:?}: the test would not see the loss");
}

over_both!(eight_replicas_place_requests_as_well_as_one);

async fn eight_replicas_place_requests_as_well_as_one(over: &Over) {
    let fleet = Fleet::start(SERVERS, &[]).await;
    let endpoints = EndpointsFile::with(fleet.list());
    let one = Replicas::alone(1, &endpoints, SCORERS).await;
    let one = place(one.running(), PAUSE).await;
    let eight = Replicas::over(over, 8, &config(&endpoints.path(), SCORERS), &[]).await;
    eight.all_follow().await;
    let eight = place(eight.running(), PAUSE_OF_EIGHT).await;
    eprintln!("one replica {one:?}, eight {eight:?}");
    as_good(&eight, &one);
}
