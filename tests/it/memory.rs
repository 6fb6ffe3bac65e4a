//! Bounds in bytes say what the process takes.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::StreamBody;
use hyper::body::Frame;
use hyper_util::rt::{TokioExecutor, TokioIo};
use pointsman::extproc::PROCESS_PATH;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;

use crate::support::{
    BodyMode, EndpointsFile, Exchange, Fleet, Pointsman, Proxy, SCORERS, Stack, body, chat, config,
    destination, headers, holds,
};

const MIB: u64 = 1 << 20;

struct Bench {
    pointsman: Pointsman,
    fleet: Fleet,
    _endpoints: EndpointsFile,
}

impl Bench {
    async fn start(flags: &[&str]) -> Self {
        let fleet = Fleet::start(1, &[]).await;
        let endpoints = EndpointsFile::with(fleet.list());
        let flags = [&["--secure-serving=false"], flags].concat();
        let pointsman = Pointsman::start(&config(&endpoints.path(), SCORERS), &flags).await;
        Self { pointsman, fleet, _endpoints: endpoints }
    }

    /// Fails unless an ordinary request is picked for and nothing is held any more.
    async fn assert_well(&mut self) {
        let proxy = Proxy::connect(self.pointsman.grpc).await;
        let mut exchange = proxy.open().await;
        exchange.say(headers("/v1/chat/completions", [], false)).await;
        exchange.say(body(chat("well?", 1, false).to_string(), true)).await;
        let answer = exchange.answer().await.unwrap().unwrap();
        assert_eq!(destination(&answer), Some(self.fleet.servers[0].addr.to_string()));
        drop(exchange);
        holds("nothing is buffered", async || {
            self.pointsman.metric("pointsman_buffered_body_bytes", &[]).await == Some(0.0)
        })
        .await;
    }
}

/// Sends a body of 20 MB in pieces as Envoy does, as far as it is taken. Nothing reads the answers while it does.
async fn half_a_body(proxy: &Proxy, megabytes: usize) -> Exchange {
    let exchange = proxy.open().await;
    exchange.say(headers("/v1/chat/completions", [], false)).await;
    exchange.say(body("{\"model\":\"sim-model\",\"prompt\":\"", false)).await;
    let piece = Bytes::from(vec![b'x'; 50_000]);
    for _ in 0..megabytes * 20 {
        exchange.say(body(piece.clone(), false)).await;
    }
    exchange
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_take_no_more_memory_than_their_bound_says() {
    let limit = 300 * MIB;
    let mut bench = Bench::start(&["--max-buffered-bodies", "300Mi"]).await;
    bench.assert_well().await;
    let base = bench.pointsman.process.memory();
    let mut exchanges = Vec::new();
    let proxy = Proxy::connect(bench.pointsman.grpc).await;
    for count in 1..=24_u32 {
        exchanges.push(half_a_body(&proxy, 20).await);
        // What is still on its way waits in windows of the connection, not in bodies.
        holds("the body has come, or was refused", async || {
            let held = bench.pointsman.metric("pointsman_buffered_body_bytes", &[]).await.unwrap();
            let bound = [("bound", "buffered_bodies")];
            let hits = bench.pointsman.metric("pointsman_bound_hits_total", &bound).await;
            held >= f64::from(count) * 20e6 || hits.is_some_and(|hits| hits >= f64::from(count) - 15.0)
        })
        .await;
    }
    let grown = bench.pointsman.process.peak_memory().saturating_sub(base);
    println!("base {base}, grown by {grown} of {limit}");
    assert!(grown <= limit + limit / 10, "{} MiB over a bound of 300 MiB", grown / MIB);
    drop(exchanges);
    bench.assert_well().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_that_many_clients_send_at_once_keep_within_the_bound() {
    let limit = 100 * MIB;
    let flags = ["--max-buffered-bodies", "100Mi"];
    let stack = Stack::of(Fleet::start(1, &[]).await, BodyMode::FullDuplexStreamed, &flags).await;
    let warm = stack.client().post("/v1/chat/completions", &chat("warm", 1, false)).await;
    assert_eq!(warm.status, 200);
    let base = stack.pointsman.process.memory();
    let text = Bytes::from(chat(&"x".repeat(20_000_000), 1, false).to_string());
    let asks = (0..16).map(|_| {
        let (client, text) = (stack.client(), text.clone());
        tokio::spawn(async move { client.post_with("/v1/chat/completions", &[], text).await.status })
    });
    let asks: Vec<_> = asks.collect();
    for ask in asks {
        let status = ask.await.unwrap();
        assert!(matches!(status, 200 | 400 | 413 | 503), "{status}");
    }
    let grown = stack.pointsman.process.peak_memory().saturating_sub(base);
    println!("base {base}, grown by {grown} of {limit}");
    assert!(grown <= limit + limit / 10, "{} MiB over a bound of 100 MiB", grown / MIB);
    stack.assert_idle().await;
}

/// A chat request of about `length` bytes, compressed to a fraction of them.
fn compressed(length: usize) -> Vec<u8> {
    let mut noise = fastrand::Rng::with_seed(1);
    let mut text = String::with_capacity(length + 1100);
    while text.len() < length {
        (0..64).for_each(|_| text.push(noise.alphanumeric()));
        text.push_str(&"x".repeat(960));
    }
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut encoder, chat(&text, 1, false).to_string().as_bytes()).unwrap();
    encoder.finish().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn decoded_bodies_keep_within_the_bound_of_all_bodies() {
    let limit = 200 * MIB;
    let mut bench = Bench::start(&["--max-buffered-bodies", "200Mi"]).await;
    bench.assert_well().await;
    let base = bench.pointsman.process.memory();
    let small = Bytes::from(compressed(25_000_000));
    assert!(small.len() < 5_000_000, "{}", small.len());
    let proxy = Proxy::connect(bench.pointsman.grpc).await;
    let extra = [("content-encoding", "gzip"), ("x-llm-d-model-name-rewrite", "sim-model-2")];
    let extra = extra.map(|(name, value)| (Bytes::from(name), Bytes::from(value)));
    let mut exchanges = Vec::new();
    // Nobody reads the answers, so that every rewritten body stays where it is.
    for _ in 0..24 {
        let exchange = proxy.open().await;
        exchange.say(headers("/v1/chat/completions", extra.clone(), false)).await;
        for piece in small.chunks(50_000) {
            exchange.say(body(Bytes::copy_from_slice(piece), false)).await;
        }
        exchange.say(body(Bytes::new(), true)).await;
        exchanges.push(exchange);
    }
    holds("most are refused", async || {
        let bound = [("bound", "buffered_bodies")];
        let hits = bench.pointsman.metric("pointsman_bound_hits_total", &bound).await;
        hits.is_some_and(|hits| hits >= 16.0)
    })
    .await;
    let held = bench.pointsman.metric("pointsman_buffered_body_bytes", &[]).await.unwrap();
    assert!(held >= 100e6 && held <= limit as f64, "{held}");
    let grown = bench.pointsman.process.peak_memory().saturating_sub(base);
    println!("base {base}, grown by {grown} of {limit}");
    assert!(grown <= limit + limit / 10, "{} MiB over a bound of 200 MiB", grown / MIB);
    drop(exchanges);
    bench.assert_well().await;
}

/// Opens `count` streams on one connection and sends on each the prefix of a message of `claimed` bytes and `sent` of
/// its bytes, no more.
async fn unfinished(bench: &Bench, count: usize, claimed: u32, sent: usize) -> Vec<mpsc::Sender<Bytes>> {
    let io = TokioIo::new(TcpStream::connect(bench.pointsman.grpc).await.unwrap());
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
    tokio::spawn(connection);
    let mut open = Vec::new();
    for _ in 0..count {
        let (said, queue) = mpsc::channel::<Bytes>(4);
        let frames =
            ReceiverStream::new(queue).map(|bytes| Ok::<_, std::convert::Infallible>(Frame::data(bytes)));
        let request = http::Request::builder()
            .method("POST")
            .uri(format!("http://{}{PROCESS_PATH}", bench.pointsman.grpc))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(StreamBody::new(frames))
            .unwrap();
        sender.ready().await.unwrap();
        tokio::spawn(sender.send_request(request));
        let mut wire = vec![0];
        wire.extend_from_slice(&claimed.to_be_bytes());
        wire.resize(5 + sent, 7);
        let _ = said.send(Bytes::from(wire)).await;
        open.push(said);
    }
    open
}

#[tokio::test(flavor = "multi_thread")]
async fn unfinished_messages_count_against_the_bound_of_all_bodies() {
    let mut bench = Bench::start(&["--max-buffered-bodies", "1Mi"]).await;
    bench.assert_well().await;
    let base = bench.pointsman.process.memory();
    let large = unfinished(&bench, 30, 4 << 20, 4_000_000).await;
    let small = unfinished(&bench, 90, 64_000, 60_000).await;
    holds("the bound is reached by most of them", async || {
        let hits =
            bench.pointsman.metric("pointsman_bound_hits_total", &[("bound", "buffered_bodies")]).await;
        hits.is_some_and(|hits| hits >= 80.0)
    })
    .await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let held = bench.pointsman.metric("pointsman_buffered_body_bytes", &[]).await.unwrap();
    assert!(held <= MIB as f64, "{held}");
    let grown = bench.pointsman.process.peak_memory().saturating_sub(base);
    println!("base {base}, grown by {grown}");
    assert!(grown <= 24 * MIB, "{} MiB for unfinished messages over a bound of 1 MiB", grown / MIB);
    drop((large, small));
    bench.assert_well().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unfinished_message_of_one_stream_leaves_the_others_alone() {
    let mut bench = Bench::start(&["--max-buffered-bodies", "1Mi"]).await;
    let stalled = unfinished(&bench, 20, 4 << 20, 30_000).await;
    for _ in 0..20 {
        bench.pointsman.page().await;
        let proxy = Proxy::connect(bench.pointsman.grpc).await;
        let mut exchange = proxy.open().await;
        exchange.say(headers("/v1/chat/completions", [], false)).await;
        exchange.say(body(chat("well?", 1, false).to_string(), true)).await;
        let answer = exchange.answer().await.unwrap().unwrap();
        assert_eq!(destination(&answer), Some(bench.fleet.servers[0].addr.to_string()));
    }
    drop(stalled);
    bench.assert_well().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_whose_proxy_stops_reading_is_given_up_and_its_memory_serves_others() {
    let flags = ["--max-buffered-bodies", "8Mi", "--stream-idle-timeout", "2s"];
    let mut bench = Bench::start(&flags).await;
    let proxy = Proxy::connect(bench.pointsman.grpc).await;
    let mut unread = half_a_body(&proxy, 6).await;
    unread.say(body("\"}", true)).await;
    holds("the body waits for its reader", async || {
        bench.pointsman.metric("pointsman_buffered_body_bytes", &[]).await.is_some_and(|held| held > 5e6)
    })
    .await;
    bench.assert_well().await;
    let hits = [("bound", "unread_answers")];
    assert_eq!(bench.pointsman.metric("pointsman_bound_hits_total", &hits).await, Some(1.0));
    // What was under way comes, and then the reset.
    while let Some(Ok(_)) = unread.answer().await {}
    assert_eq!(bench.pointsman.metric("pointsman_streams", &[]).await, Some(0.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_of_requests_that_wait_count_against_the_bound_of_all_bodies() {
    let mut bench = Bench::start(&["--max-buffered-bodies", "1Mi"]).await;
    let proxy = Proxy::connect(bench.pointsman.grpc).await;
    let value = Bytes::from(vec![b'v'; 50_000]);
    let mut open = Vec::new();
    for _ in 0..40 {
        let exchange = proxy.open().await;
        let large = [(Bytes::from("x-large"), value.clone())];
        exchange.say(headers("/v1/chat/completions", large, false)).await;
        open.push(exchange);
    }
    holds("some are refused", async || {
        let hits =
            bench.pointsman.metric("pointsman_bound_hits_total", &[("bound", "buffered_bodies")]).await;
        hits == Some(20.0)
    })
    .await;
    let held = bench.pointsman.metric("pointsman_buffered_body_bytes", &[]).await.unwrap();
    assert!((1_000_000.0..=MIB as f64).contains(&held), "{held}");
    drop(open);
    bench.assert_well().await;
}
