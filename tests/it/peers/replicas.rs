//! Some replicas of one pool.

use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU16, Ordering::Relaxed};

use serde_json::Value;
use tonic::transport::Channel;
use tonic_health::pb::health_check_response::ServingStatus;

use super::over::Over;
use crate::support::{
    Carries, Client, EndpointsFile, Exchange, Line, Pointsman, Proxy, body, chat, config, destination,
    eventually, headers, health, holds,
};

/// Replicas, each with the addresses of all.
pub(super) struct Replicas {
    all: Vec<Option<Pointsman>>,
    /// Where each is followed.
    pub(super) addresses: Vec<SocketAddr>,
    /// Configuration of each.
    configs: Vec<String>,
    /// Flags of each.
    flags: Vec<Vec<String>>,
    /// Lines on which each hears each other one, if they can be made bad.
    lines: Vec<Vec<Line>>,
}

/// A port that nobody listens on. It lies below those that the system chooses from, so that nobody is given it before a
/// replica listens, and no other test of this process gets it.
pub(super) fn free_port() -> SocketAddr {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = 16_000 + (std::process::id() % 32) as u16 * 500;
    loop {
        let address = SocketAddr::from(([127, 0, 0, 1], first + NEXT.fetch_add(1, Relaxed) % 500));
        if TcpListener::bind(address).is_ok() {
            return address;
        }
    }
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
        let peers = vec![addresses.clone(); count];
        Self::described(addresses, &peers, config, flags).begun().await
    }

    /// The same with this configuration, reached in this way.
    pub(super) async fn over(over: &Over, count: usize, config: &str, flags: &[&str]) -> Self {
        let flags = [over.flags(), flags].concat();
        let config = over.config(config);
        match over {
            Over::Streams => Self::with(count, &config, &flags).await,
            Over::Server(server) => {
                // Nothing is left of replicas that ended without a word.
                assert!(server.ask("FLUSHALL").await.starts_with("+OK"));
                Self::on_their_own(count, &config, &flags).begun().await
            }
        }
    }

    /// Replicas that no flag tells of each other; none of them runs yet.
    pub(super) fn on_their_own(count: usize, config: &str, flags: &[&str]) -> Self {
        let flags: Vec<String> =
            ["--secure-serving=false"].iter().chain(flags).map(|flag| (*flag).to_owned()).collect();
        Self {
            all: (0..count).map(|_| None).collect(),
            addresses: Vec::new(),
            configs: vec![config.to_owned(); count],
            flags: vec![flags; count],
            lines: Vec::new(),
        }
    }

    /// The same, and none of them runs yet.
    pub(super) fn none(count: usize, config: &str, flags: &[&str]) -> Self {
        let addresses: Vec<SocketAddr> = (0..count).map(|_| free_port()).collect();
        let peers = vec![addresses.clone(); count];
        Self::described(addresses, &peers, config, flags)
    }

    /// The same; each hears each other one over a line of its own.
    pub(super) async fn over_lines(count: usize, config: &str, flags: &[&str]) -> Self {
        let addresses: Vec<SocketAddr> = (0..count).map(|_| free_port()).collect();
        let mut lines: Vec<Vec<Line>> = Vec::new();
        for _ in 0..count {
            let mut row = Vec::new();
            for address in &addresses {
                row.push(Line::to(*address).await);
            }
            lines.push(row);
        }
        let peers: Vec<Vec<SocketAddr>> =
            lines.iter().map(|row| row.iter().map(|line| line.addr).collect()).collect();
        let mut replicas = Self::described(addresses, &peers, config, flags).begun().await;
        replicas.lines = lines;
        replicas
    }

    /// The same, and each reaches the server at `server` over a line of its own. `config` gives the configuration for the
    /// port of a line.
    pub(super) async fn over_lines_to_a_server(
        count: usize,
        server: SocketAddr,
        config: impl Fn(u16) -> String,
        flags: &[&str],
    ) -> Self {
        let mut replicas = Self::on_their_own(count, "", flags);
        for number in 0..count {
            let line = Line::to(server).await;
            replicas.configs[number] = config(line.addr.port());
            replicas.lines.push(vec![line]);
        }
        replicas.begun().await
    }

    fn described(
        addresses: Vec<SocketAddr>,
        peers: &[Vec<SocketAddr>],
        config: &str,
        flags: &[&str],
    ) -> Self {
        let flags = peers.iter().zip(&addresses).map(|(peers, address)| {
            let list: Vec<String> = peers.iter().map(ToString::to_string).collect();
            let own = [format!("--peers={}", list.join(",")), format!("--peer-port={}", address.port())];
            let usual = ["--secure-serving=false"].iter().chain(flags).map(|flag| (*flag).to_owned());
            usual.chain(own).collect()
        });
        let flags: Vec<Vec<String>> = flags.collect();
        let all = flags.iter().map(|_| None).collect();
        let configs = vec![config.to_owned(); flags.len()];
        Self { all, addresses, configs, flags, lines: Vec::new() }
    }

    async fn begun(mut self) -> Self {
        for number in 0..self.all.len() {
            self.begin_again(number).await;
        }
        self
    }

    /// From now on the line on which `follower` hears `heard` does this.
    pub(super) fn line(&self, follower: usize, heard: usize, carries: Carries) {
        // A line to a server is one for all that is heard on it.
        let row = &self.lines[follower];
        row[heard.min(row.len() - 1)].carry(carries);
    }

    /// All lines are good from now on.
    pub(super) fn mend_lines(&self) {
        self.lines.iter().flatten().for_each(|line| line.carry(Carries::Everything));
    }

    /// Further flags of this one, from its next life on.
    pub(super) fn add_flags(&mut self, number: usize, flags: impl IntoIterator<Item = String>) {
        self.flags[number].extend(flags);
    }

    /// `count` replicas that know nothing of each other.
    pub(super) async fn alone(count: usize, endpoints: &EndpointsFile, scorers: &[(&str, u32)]) -> Self {
        let config = config(&endpoints.path(), scorers);
        let mut replicas = Vec::new();
        for _ in 0..count {
            replicas.push(Some(Pointsman::start(&config, &["--secure-serving=false"]).await));
        }
        Self {
            all: replicas,
            addresses: Vec::new(),
            configs: Vec::new(),
            flags: Vec::new(),
            lines: Vec::new(),
        }
    }

    /// Starts this one, which does not run.
    pub(super) async fn begin_again(&mut self, number: usize) {
        let flags: Vec<&str> = self.flags[number].iter().map(String::as_str).collect();
        self.all[number] = Some(Pointsman::start(&self.configs[number], &flags).await);
    }

    /// Ends this one without a word.
    pub(super) async fn kill(&mut self, number: usize) {
        let mut replica = self.all[number].take().unwrap();
        replica.process.kill().await;
    }

    /// Asks this one to end, and waits until it has.
    pub(super) async fn end(&mut self, number: usize) {
        let mut replica = self.all[number].take().unwrap();
        replica.process.terminate().await;
        assert!(replica.process.ended().await.success());
    }

    /// This one, which runs.
    pub(super) fn one(&self, number: usize) -> &Pointsman {
        self.all[number].as_ref().unwrap()
    }

    /// Numbers of those that run.
    pub(super) fn numbers(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.all.len()).filter(|number| self.all[*number].is_some())
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
        let replica = self.one(number);
        let reply = Client::http1(replica.metrics).get(path).await;
        assert_eq!(reply.status, 200, "{reply:?}");
        serde_json::from_str(reply.text()).unwrap()
    }

    /// Requests in flight on all endpoints, as each that runs sees them.
    pub(super) async fn in_flight(&self) -> Vec<u64> {
        let mut sums = Vec::new();
        for number in self.numbers() {
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
        let address = self.one(number).health;
        let channel = Channel::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap();
        holds("the replica is ready", async || {
            health(&channel, "readiness").await == Some(ServingStatus::Serving)
        })
        .await;
    }
}
