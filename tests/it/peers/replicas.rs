//! Some replicas of one pool.

use std::net::{SocketAddr, TcpListener};

use serde_json::Value;
use tonic::transport::Channel;
use tonic_health::pb::health_check_response::ServingStatus;

use crate::support::{
    Client, EndpointsFile, Exchange, Pointsman, Proxy, body, chat, config, destination, eventually, headers,
    health, holds,
};

/// Replicas, each with the addresses of all.
pub(super) struct Replicas {
    all: Vec<Option<Pointsman>>,
    /// Where each is followed.
    pub(super) addresses: Vec<SocketAddr>,
    config: String,
    flags: Vec<String>,
}

/// A port that nobody listens on for now.
pub(super) fn free_port() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// Begins a request and leaves it open; the endpoint that it goes to.
pub(super) async fn open(proxy: &Proxy, text: &str) -> (Exchange, String) {
    let mut exchange = proxy.open().await;
    exchange.say(headers("/v1/chat/completions", [], false)).await;
    exchange.say(body(chat(text, 1, false).to_string(), true)).await;
    let picked = destination(&exchange.answer().await.unwrap().unwrap()).unwrap();
    (exchange, picked)
}

impl Replicas {
    /// `count` replicas that know of each other, with these scorers and further flags.
    pub(super) async fn start(
        count: usize,
        endpoints: &EndpointsFile,
        scorers: &[(&str, u32)],
        flags: &[&str],
    ) -> Self {
        Self::with(count, &config(&endpoints.path(), scorers), flags).await
    }

    /// The same with this configuration.
    pub(super) async fn with(count: usize, config: &str, flags: &[&str]) -> Self {
        let addresses: Vec<SocketAddr> = (0..count).map(|_| free_port()).collect();
        let list: Vec<String> = addresses.iter().map(ToString::to_string).collect();
        let mut all = vec!["--secure-serving=false".to_owned(), format!("--peers={}", list.join(","))];
        all.extend(flags.iter().map(|flag| (*flag).to_owned()));
        let mut replicas = Self { all: Vec::new(), addresses, config: config.to_owned(), flags: all };
        for number in 0..count {
            replicas.all.push(None);
            replicas.begin_again(number).await;
        }
        replicas
    }

    /// `count` replicas that know nothing of each other.
    pub(super) async fn alone(count: usize, endpoints: &EndpointsFile, scorers: &[(&str, u32)]) -> Self {
        let config = config(&endpoints.path(), scorers);
        let mut replicas = Vec::new();
        for _ in 0..count {
            replicas.push(Some(Pointsman::start(&config, &["--secure-serving=false"]).await));
        }
        Self { all: replicas, addresses: Vec::new(), config, flags: Vec::new() }
    }

    /// Starts this one, which does not run.
    pub(super) async fn begin_again(&mut self, number: usize) {
        let port = format!("--peer-port={}", self.addresses[number].port());
        let mut flags: Vec<&str> = self.flags.iter().map(String::as_str).collect();
        flags.push(&port);
        self.all[number] = Some(Pointsman::start(&self.config, &flags).await);
    }

    /// Ends this one without a word.
    pub(super) async fn kill(&mut self, number: usize) {
        let mut replica = self.all[number].take().unwrap();
        replica.process.kill().await;
    }

    /// Those that run.
    pub(super) fn running(&self) -> impl Iterator<Item = &Pointsman> {
        self.all.iter().flatten()
    }

    /// Waits until each hears all others.
    pub(super) async fn all_follow(&self) {
        let others = self.running().count() - 1;
        for replica in self.running() {
            holds("every peer is followed", async || {
                replica.metric("pointsman_peers", &[("state", "following")]).await == Some(others as f64)
            })
            .await;
        }
    }

    /// A page of this replica.
    pub(super) async fn page(&self, number: usize, path: &str) -> Value {
        let replica = self.all[number].as_ref().unwrap();
        let reply = Client::http1(replica.metrics).get(path).await;
        assert_eq!(reply.status, 200, "{reply:?}");
        serde_json::from_str(reply.text()).unwrap()
    }

    /// Requests in flight on all endpoints, as each that runs sees them.
    pub(super) async fn in_flight(&self) -> Vec<u64> {
        let mut sums = Vec::new();
        for number in (0..self.all.len()).filter(|number| self.all[*number].is_some()) {
            let page = self.page(number, "/debug/pool").await;
            let endpoints = page["endpoints"].as_array().unwrap();
            sums.push(endpoints.iter().map(|one| one["in_flight_requests"].as_u64().unwrap()).sum());
        }
        sums
    }

    /// Waits until all see this many requests in flight.
    pub(super) async fn agree_on(&self, requests: u64) {
        let what = format!("{requests} requests in flight everywhere");
        eventually(&what, async || self.in_flight().await.iter().all(|sum| *sum == requests).then_some(()))
            .await;
    }

    /// Waits until this one says that it is ready.
    pub(super) async fn is_ready(&self, number: usize) {
        let address = self.all[number].as_ref().unwrap().health;
        let channel = Channel::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap();
        holds("the replica is ready", async || {
            health(&channel, "readiness").await == Some(ServingStatus::Serving)
        })
        .await;
    }
}
