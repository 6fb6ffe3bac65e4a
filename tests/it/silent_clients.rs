//! Connections that send nothing, or half of something, and never take what they asked for: others are served at once.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use pointsman::scaler::IS_ACTIVE_PATH;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tonic::transport::Channel;
use tonic_health::pb::health_check_response::ServingStatus;

use crate::support::raw_http2::{self, RawHttp2};
use crate::support::{
    Client, EndpointsFile, Fleet, Pointsman, Proxy, SCORERS, body, chat, config, destination, headers,
    health, holds, lone_request, within,
};

/// What "at once" means on a machine that runs other tests too. Every time limit that a silent client could be waited
/// out by is longer.
const AT_ONCE: Duration = Duration::from_secs(4);

const SILENT: usize = 400;

/// A picker with a scaler port and a server behind it.
struct Bench {
    pointsman: Pointsman,
    scaler: SocketAddr,
    _fleet: Fleet,
    _endpoints: EndpointsFile,
}

impl Bench {
    async fn start(flags: &[&str]) -> Self {
        let fleet = Fleet::start(1, &[]).await;
        let endpoints = EndpointsFile::with(fleet.list());
        let flags = [&["--keda-scaler-port", "0"], flags].concat();
        let mut pointsman = Pointsman::start(&config(&endpoints.path(), SCORERS), &flags).await;
        let scaler = |line: &str| line.strip_prefix("keda-scaler ")?.trim().parse().ok();
        let scaler = pointsman.process.line("address of the scaler", scaler).await;
        Self { pointsman, scaler, _fleet: fleet, _endpoints: endpoints }
    }

    /// Fails unless a new client of each port is served at once.
    async fn assert_open(&self, what: &str) {
        let asked = async {
            let start = Instant::now();
            let channel = Channel::from_shared(format!("http://{}", self.pointsman.health)).unwrap();
            let status = health(&channel.connect().await.unwrap(), "").await;
            assert_eq!(status, Some(ServingStatus::Serving), "{what}");
            assert_eq!(Client::http1(self.pointsman.metrics).get("/metrics").await.status, 200, "{what}");
            let answer = Client::http2(self.scaler).get(IS_ACTIVE_PATH).await;
            assert!(answer.headers.contains_key("grpc-status"), "{what}: {answer:?}");
            self.assert_picks().await;
            start.elapsed()
        };
        let took = within(what, asked).await;
        assert!(took < AT_ONCE, "{what}: served after {took:?}");
    }

    async fn assert_picks(&self) {
        let proxy = Proxy::connect(self.pointsman.grpc).await;
        let mut exchange = proxy.open().await;
        exchange.say(headers("/v1/chat/completions", [], false)).await;
        exchange.say(body(chat("anybody?", 1, false).to_string(), true)).await;
        let answer = exchange.answer().await.unwrap().unwrap();
        assert!(destination(&answer).is_some());
    }
}

/// This many connections that have sent these bytes and wait.
async fn waiting(addr: SocketAddr, count: usize, bytes: &[u8]) -> Vec<TcpStream> {
    let mut streams = Vec::new();
    for _ in 0..count {
        let mut stream = TcpStream::connect(addr).await.unwrap();
        // The port may have given this one up already.
        let _ = stream.write_all(bytes).await;
        streams.push(stream);
    }
    streams
}

/// Preface, settings and half of a HEADERS frame.
fn half_a_call() -> Vec<u8> {
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    raw_http2::frame(&mut bytes, 4, 0, 0, &[]);
    raw_http2::open(&mut bytes, 1, "/some/path", &[]);
    bytes.truncate(bytes.len() - 5);
    bytes
}

#[tokio::test(flavor = "multi_thread")]
async fn silent_connections_and_half_requests_on_any_port_leave_it_open_to_others() {
    let bench = Bench::start(&["--secure-serving=false"]).await;
    let ports = [bench.pointsman.grpc, bench.pointsman.health, bench.pointsman.metrics, bench.scaler];
    let half_a_page = b"GET /metrics HTTP/1.1\r\nhost: m".to_vec();
    let half_a_body = b"PUT /debug/log-level HTTP/1.1\r\nhost: m\r\ncontent-length: 5\r\n\r\nde".to_vec();
    let mut kept = Vec::new();
    for (number, port) in ports.into_iter().enumerate() {
        for bytes in [Vec::new(), half_a_call(), half_a_page.clone(), half_a_body.clone()] {
            kept.push(waiting(port, SILENT, &bytes).await);
            bench.assert_open(&format!("port {number}, {} bytes", bytes.len())).await;
            if kept.len() > 2 {
                kept.remove(0);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn half_sent_changes_of_the_log_level_do_not_hold_the_metrics_port() {
    let bench = Bench::start(&["--secure-serving=false"]).await;
    let half = b"PUT /debug/log-level HTTP/1.1\r\nhost: m\r\ncontent-length: 5\r\n\r\nde";
    let mut stuck = waiting(bench.pointsman.metrics, 100, half).await;
    bench.assert_open("after 100 half bodies").await;
    // And they are told, and closed, within the time that a body has.
    let mut answer = String::new();
    within("the end of a half-sent body", stuck[99].read_to_string(&mut answer)).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_that_nobody_reads_do_not_hold_the_metrics_port() {
    let bench = Bench::start(&["--secure-serving=false"]).await;
    let requests = b"GET /metrics HTTP/1.1\r\nhost: m\r\n\r\n".repeat(200);
    let _unread = waiting(bench.pointsman.metrics, 200, &requests).await;
    bench.assert_open("with 200 unread pages").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_level_is_changed_from_this_machine() {
    let bench = Bench::start(&["--secure-serving=false"]).await;
    let put =
        b"PUT /debug/log-level HTTP/1.1\r\nhost: m\r\ncontent-length: 5\r\nconnection: close\r\n\r\ndebug";
    let answer = lone_request(bench.pointsman.metrics, put).await;
    assert!(answer.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&answer));
}

#[tokio::test(flavor = "multi_thread")]
async fn silent_handshakes_do_not_delay_a_new_one() {
    let bench = Bench::start(&[]).await;
    for count in [260, 3_000] {
        let _silent = waiting(bench.pointsman.grpc, count, &[]).await;
        let start = Instant::now();
        crate::tls::shake_hands(bench.pointsman.grpc).await;
        let took = start.elapsed();
        assert!(took < AT_ONCE, "{count} silent connections delayed a handshake by {took:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_never_greet_are_closed() {
    let bench = Bench::start(&["--secure-serving=false"]).await;
    for port in [bench.pointsman.grpc, bench.pointsman.health, bench.pointsman.metrics, bench.scaler] {
        let mut silent = waiting(port, 1, &[]).await;
        let mut all = Vec::new();
        within("the end of a silent connection", silent[0].read_to_end(&mut all)).await.unwrap();
    }
    for port in ["grpc", "health", "metrics", "scaler"] {
        let labels = [("port", port), ("reason", "silent")];
        let ended = bench.pointsman.metric("pointsman_connections_ended_total", &labels).await;
        assert_eq!(ended, Some(1.0), "{port}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_proxies_make_room_for_new_ones_and_busy_ones_are_left_alone() {
    let bench = Bench::start(&["--secure-serving=false", "--max-connections", "8"]).await;
    let busy = Proxy::connect(bench.pointsman.grpc).await;
    let mut exchange = busy.open().await;
    exchange.say(headers("/v1/chat/completions", [], false)).await;
    let mut idle = JoinSet::new();
    for _ in 0..20 {
        let mut client = RawHttp2::connect(bench.pointsman.grpc).await;
        let mut bytes = Vec::new();
        raw_http2::open(&mut bytes, 1, "/nowhere", &[("content-type", "application/grpc")]);
        raw_http2::data(&mut bytes, 1, &[], true);
        client.send(&bytes).await;
        let answer = client.next().await.expect("an answer");
        assert!(answer.stream == 1, "{answer:?}");
        idle.spawn(async move { while client.next().await.is_some() {} });
    }
    let open = [("port", "grpc")];
    holds("the bound holds", async || {
        bench.pointsman.metric("pointsman_connections", &open).await.is_some_and(|open| open <= 8.0)
    })
    .await;
    exchange.say(body(chat("still there?", 1, false).to_string(), true)).await;
    let answer = exchange.answer().await.unwrap().unwrap();
    assert!(destination(&answer).is_some());
    let given_up = [("port", "grpc"), ("reason", "given_up")];
    let given_up = bench.pointsman.metric("pointsman_connections_ended_total", &given_up).await;
    assert!(given_up.is_some_and(|count| count >= 13.0), "{given_up:?}");
}
