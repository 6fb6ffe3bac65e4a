//! Clients, and neighbours of the picker, that mean no good. Each goes on until a time and says how often it struck.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

use super::http2;
use crate::support::{Client, Stack, chat};

const COMPLETIONS: &str = "/v1/chat/completions";
const PROCESS: &str = "/envoy.service.ext_proc.v3.ExternalProcessor/Process";
/// Pause between two strikes of one abuser, so that the machine's two cores are not what breaks.
const PAUSE: Duration = Duration::from_millis(50);
/// How long a strike may wait for an answer that nobody owes it.
const SHORT: Duration = Duration::from_secs(2);

/// A way to abuse.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Abuse {
    /// Bursts of HEADERS and RST_STREAM, through Envoy and to the picker's own port.
    Resets,
    /// Bodies with a hundred thousand members `model`, and a long name to put in.
    DuplicateMembers,
    /// Fifty kilobytes of headers.
    HugeHeaders,
    /// Bodies that stop in the middle, through Envoy and to the metrics port.
    HalfSentBodies,
    /// Answers that are never read.
    SlowReading,
    /// gRPC messages that announce four megabytes and never end.
    UnfinishedMessages,
    /// A new fairness id, session, model and objective with each request.
    Floods,
    /// Connections that say nothing, to every port.
    Silence,
    /// A pool whose servers come and go.
    Flaps,
}

impl Abuse {
    pub(super) const ALL: [Self; 9] = [
        Self::Resets,
        Self::DuplicateMembers,
        Self::HugeHeaders,
        Self::HalfSentBodies,
        Self::SlowReading,
        Self::UnfinishedMessages,
        Self::Floods,
        Self::Silence,
        Self::Flaps,
    ];

    /// Strikes again and again until `end`; returns how often.
    pub(super) async fn go_on_until(self, end: Instant, stack: &Stack) -> u64 {
        let mut strikes = 0;
        // Connections that are kept open until the end, the oldest given up for new ones.
        let mut kept = Kept::default();
        while Instant::now() < end {
            strikes += 1;
            match self {
                Self::Resets => resets(stack, strikes).await,
                Self::DuplicateMembers => duplicates(stack).await,
                Self::HugeHeaders => huge_headers(stack).await,
                Self::HalfSentBodies => half_sent(stack, &mut kept).await,
                Self::SlowReading => slow_reading(stack, &mut kept).await,
                Self::UnfinishedMessages => unfinished(stack.pointsman.grpc, &mut kept).await,
                Self::Floods => flood(stack, strikes).await,
                Self::Silence => silence(stack, &mut kept).await,
                Self::Flaps => flap(stack, strikes).await,
            }
            sleep(PAUSE).await;
        }
        if self == Self::Flaps {
            stack.endpoints.write(stack.fleet.list());
        }
        strikes
    }
}

/// What an abuser holds open.
#[derive(Default)]
struct Kept {
    connections: std::collections::VecDeque<TcpStream>,
    answers: std::collections::VecDeque<http::Response<Incoming>>,
}

impl Kept {
    fn hold(&mut self, connection: TcpStream, most: usize) {
        self.connections.push_back(connection);
        if self.connections.len() > most {
            self.connections.pop_front();
        }
    }
}

/// Sends these bytes on a new connection, which stays open. It does not matter whether they are taken.
async fn send(addr: SocketAddr, bytes: &[u8]) -> Option<TcpStream> {
    let mut stream = TcpStream::connect(addr).await.ok()?;
    let _ = timeout(SHORT, stream.write_all(bytes)).await;
    Some(stream)
}

async fn resets(stack: &Stack, strikes: u64) {
    let (addr, path, kind) = if strikes.is_multiple_of(4) {
        (stack.pointsman.grpc, PROCESS, "application/grpc")
    } else {
        (stack.envoy.addr, COMPLETIONS, "application/json")
    };
    let mut bytes = http2::preface();
    for number in 0..200 {
        let stream = 2 * number + 1;
        bytes.extend(http2::post(stream, path, kind));
        bytes.extend(http2::reset(stream));
    }
    let Some(mut connection) = send(addr, &bytes).await else { return };
    let mut rest = [0; 1024];
    let _ = timeout(Duration::from_millis(200), connection.read(&mut rest)).await;
}

async fn duplicates(stack: &Stack) {
    let body = format!("{{{}\"messages\":[]}}", "\"model\":\"x\",".repeat(100_000));
    let long = "n".repeat(50_000);
    let rewrite = [("x-llm-d-model-name-rewrite", long.as_str())];
    let _ = timeout(SHORT, stack.envoy.http2().try_post(COMPLETIONS, &rewrite, Bytes::from(body))).await;
}

async fn huge_headers(stack: &Stack) {
    let long = "h".repeat(50_000);
    for name in ["x-request-id", "x-session-id", "traceparent", "x-gateway-inference-fairness-id"] {
        let body = chat("short", 1, false).to_string();
        let headers = [(name, long.as_str())];
        let _ = timeout(SHORT, stack.envoy.http1().try_post(COMPLETIONS, &headers, Bytes::from(body))).await;
    }
}

async fn half_sent(stack: &Stack, kept: &mut Kept) {
    let head = format!("POST {COMPLETIONS} HTTP/1.1\r\nhost: pool\r\ncontent-length: 1000000\r\n\r\n");
    let half = [head.as_bytes(), &vec![b' '; 500_000]].concat();
    let log = b"PUT /debug/log-level HTTP/1.1\r\nhost: pool\r\ncontent-length: 9\r\n\r\n{";
    for (addr, bytes) in [(stack.envoy.addr, half.as_slice()), (stack.pointsman.metrics, log)] {
        if let Some(connection) = send(addr, bytes).await {
            kept.hold(connection, 200);
        }
    }
}

async fn slow_reading(stack: &Stack, kept: &mut Kept) {
    let client: Client = stack.envoy.http1();
    if let Ok(answer) = timeout(SHORT, client.open(COMPLETIONS, &chat("long", 200, true))).await {
        kept.answers.push_back(answer);
    }
    if kept.answers.len() > 20
        && let Some(mut oldest) = kept.answers.pop_front()
    {
        // One frame is read, then the client leaves.
        let _ = timeout(SHORT, oldest.body_mut().frame()).await;
    }
    if let Some(mut connection) =
        send(stack.pointsman.metrics, b"GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n").await
    {
        let _ = timeout(PAUSE, connection.read(&mut [0; 16])).await;
        kept.hold(connection, 100);
    }
}

async fn unfinished(grpc: SocketAddr, kept: &mut Kept) {
    let mut bytes = http2::preface();
    for number in 0..20 {
        let stream = 2 * number + 1;
        bytes.extend(http2::post(stream, PROCESS, "application/grpc"));
        // A message of 4 MB of which 640 kB come.
        bytes.extend(http2::data(stream, &[0, 0, 0x3f, 0xff, 0xff]));
        for _ in 0..40 {
            bytes.extend(http2::data(stream, &[b'x'; 16_000]));
        }
    }
    if let Some(connection) = send(grpc, &bytes).await {
        kept.hold(connection, 20);
    }
}

async fn flood(stack: &Stack, strikes: u64) {
    let client = stack.envoy.http2();
    let sends = (0..20).map(|number| {
        let id = format!("{strikes}-{number}-{}", "i".repeat(2_000));
        async move {
            let mut body = chat("flood", 1, false);
            body["model"] = json!(format!("model-{id}"));
            let headers = [
                ("x-gateway-inference-fairness-id", id.as_str()),
                ("x-gateway-inference-objective", id.as_str()),
                ("x-session-token", id.as_str()),
            ];
            let _ =
                timeout(SHORT, client.try_post(COMPLETIONS, &headers, Bytes::from(body.to_string()))).await;
        }
    });
    futures_util::future::join_all(sends).await;
}

async fn silence(stack: &Stack, kept: &mut Kept) {
    let ports = [stack.pointsman.grpc, stack.pointsman.health, stack.pointsman.metrics];
    for addr in ports {
        for half in [b"".as_slice(), b"GET /metr", &http2::preface()[..30]] {
            if let Some(connection) = send(addr, half).await {
                kept.hold(connection, 400);
            }
        }
    }
}

async fn flap(stack: &Stack, strikes: u64) {
    let gone = strikes as usize % stack.fleet.servers.len();
    stack.endpoints.write(
        stack.fleet.list().enumerate().filter(|(number, _)| *number != gone).map(|(_, server)| server),
    );
    sleep(Duration::from_secs(1)).await;
}
