//! Upgrades and `CONNECT`: an answer at once, bytes both ways, and a share of load for as long as the tunnel lasts.

use std::net::SocketAddr;

use bytes::Bytes;
use http_body_util::Empty;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::support::{BodyMode, EndpointsFile, Envoy, Pointsman, SCORERS, config, holds, within};

/// A model server that takes every upgrade and sends back whatever comes.
struct Echo {
    addr: SocketAddr,
    accepting: JoinHandle<()>,
}

impl Echo {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let accepting = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(echo(stream));
            }
        });
        Self { addr, accepting }
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let Ok(byte) = stream.read_u8().await else { break };
        head.push(byte);
    }
    String::from_utf8(head).unwrap()
}

async fn echo(mut stream: TcpStream) {
    let asked = head(&mut stream).await;
    if !asked.to_ascii_lowercase().contains("upgrade: websocket") {
        let answer = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
        let _ = stream.write_all(answer.as_bytes()).await;
        return;
    }
    let answer = "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\n\r\n";
    let _ = stream.write_all(answer.as_bytes()).await;
    let (mut read, mut write) = stream.split();
    let _ = tokio::io::copy(&mut read, &mut write).await;
}

struct Bench {
    pointsman: Pointsman,
    _server: Echo,
    _endpoints: EndpointsFile,
}

impl Bench {
    async fn start() -> Self {
        let server = Echo::start().await;
        let endpoints = EndpointsFile::with([("only", server.addr)]);
        let pointsman = Pointsman::start(&config(&endpoints.path(), SCORERS), &[]).await;
        Self { pointsman, _server: server, _endpoints: endpoints }
    }

    async fn in_flight(&self, count: f64) {
        holds(&format!("{count} requests are in flight"), async || {
            let gauge = self.pointsman.metric("pointsman_endpoint_in_flight_requests", &[]).await;
            gauge.unwrap_or(0.0) == count
        })
        .await;
    }
}

async fn upgrades(bench: &Bench, request: BodyMode, response: BodyMode) {
    let case = format!("{request:?} {response:?}");
    let envoy = Envoy::start_in_modes(bench.pointsman.grpc, request, response).await;
    let mut stream = TcpStream::connect(envoy.addr).await.unwrap();
    let asked = format!(
        "GET /v1/realtime?model=m HTTP/1.1\r\nHost: {}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n",
        envoy.addr
    );
    stream.write_all(asked.as_bytes()).await.unwrap();
    let answer = within(&format!("an answer to the upgrade, {case}"), head(&mut stream)).await;
    assert!(answer.starts_with("HTTP/1.1 101"), "{case}: {answer}");
    for said in ["ping", "and once more", &"x".repeat(300_000)] {
        stream.write_all(said.as_bytes()).await.unwrap();
        let mut heard = vec![0; said.len()];
        within(&format!("the echo, {case}"), stream.read_exact(&mut heard)).await.unwrap();
        assert_eq!(heard, said.as_bytes(), "{case}");
    }
    bench.in_flight(1.0).await;
    drop(stream);
    bench.in_flight(0.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_is_answered_at_once_and_holds_its_share_of_load_until_it_ends() {
    let bench = Bench::start().await;
    upgrades(&bench, BodyMode::FullDuplexStreamed, BodyMode::FullDuplexStreamed).await;
    upgrades(&bench, BodyMode::Streamed, BodyMode::Streamed).await;
    let errors = bench.pointsman.metric("llm_d_epp_request_error_total", &[]).await;
    assert_eq!(errors.unwrap_or(0.0), 0.0, "101 is no error");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_passes_where_bodies_are_buffered() {
    let bench = Bench::start().await;
    upgrades(&bench, BodyMode::Buffered, BodyMode::Buffered).await;
    upgrades(&bench, BodyMode::BufferedPartial, BodyMode::Streamed).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_extended_connect_of_http2_is_answered_at_once_and_bytes_pass_both_ways() {
    let bench = Bench::start().await;
    let envoy = Envoy::start_in_modes(
        bench.pointsman.grpc,
        BodyMode::FullDuplexStreamed,
        BodyMode::FullDuplexStreamed,
    )
    .await;
    let io = TokioIo::new(TcpStream::connect(envoy.addr).await.unwrap());
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
    tokio::spawn(connection);
    let request = http::Request::builder()
        .method("CONNECT")
        .uri(format!("http://{}/v1/realtime?model=m", envoy.addr))
        .extension(hyper::ext::Protocol::from_static("websocket"))
        .header("sec-websocket-version", "13")
        .body(Empty::<Bytes>::new())
        .unwrap();
    sender.ready().await.unwrap();
    let response = within("an answer to CONNECT", sender.send_request(request)).await.unwrap();
    assert_eq!(response.status(), 200);
    let mut tunnel = TokioIo::new(hyper::upgrade::on(response).await.unwrap());
    for text in ["ping", "and once more"] {
        tunnel.write_all(text.as_bytes()).await.unwrap();
        let mut heard = vec![0; text.len()];
        within("the echo", tunnel.read_exact(&mut heard)).await.unwrap();
        assert_eq!(heard, text.as_bytes());
    }
    bench.in_flight(1.0).await;
    drop((tunnel, sender));
    bench.in_flight(0.0).await;
}
