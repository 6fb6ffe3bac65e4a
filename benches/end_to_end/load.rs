//! The proxy's part: requests in full-duplex mode, and responses once they are decided.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use bytes::Bytes;
use hdrhistogram::Histogram;
use http::uri::PathAndQuery;
use parking_lot::Mutex;
use pointsman::extproc::wire::{
    HeaderMap, HeaderValue, HttpBody, HttpHeaders, Mutation, ProcessingRequest, Request, Response,
};
use pointsman::extproc::{PROCESS_PATH, client_codec};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};

/// Connections that share the load, as a proxy's worker threads would.
const CONNECTIONS: usize = 2;
/// Bytes in one body message.
const PIECE: usize = 65_536;
/// Groups of requests that share the beginning of their prompt.
const GROUPS: u64 = 64;

/// A load: closed with `streams` at once, or open with `rate` requests a second.
#[derive(Clone, Copy)]
pub struct Load {
    /// Streams at once; counts if `rate` is 0.
    pub streams: usize,
    /// Requests per second; 0 makes a closed loop.
    pub rate: f64,
    /// Bytes of a prompt.
    pub prompt_bytes: usize,
    /// Bytes that a group shares.
    pub shared_bytes: usize,
    /// Messages of a response body.
    pub response_chunks: usize,
}

impl Default for Load {
    fn default() -> Self {
        Self { streams: 32, rate: 0.0, prompt_bytes: 800, shared_bytes: 400, response_chunks: 1 }
    }
}

/// How a load went.
#[derive(Default)]
pub struct Outcome {
    /// Requests that were decided.
    pub requests: u64,
    /// Requests that were not.
    pub failed: u64,
    /// Decided requests a second.
    pub per_second: f64,
    /// Time from the first message to the decision.
    pub p50_ms: f64,
    /// Time from the first message to the decision.
    pub p99_ms: f64,
}

struct Tally {
    decisions: Mutex<Histogram<u64>>,
    failed: AtomicU64,
    sequence: AtomicU64,
}

impl Load {
    /// Runs for `time`.
    pub async fn run(self, port: u16, time: Duration) -> Outcome {
        let mut channels = Vec::new();
        for _ in 0..CONNECTIONS {
            channels.push(connect(port).await.expect("the server accepts a connection"));
        }
        let tally = Arc::new(Tally {
            decisions: Mutex::new(
                Histogram::new_with_bounds(1, 60_000_000, 3).expect("the bounds are in order"),
            ),
            failed: AtomicU64::new(0),
            sequence: AtomicU64::new(0),
        });
        let (start, end) = (Instant::now(), Instant::now() + time);
        let mut tasks = Vec::new();
        if self.rate > 0.0 {
            let mut next = start;
            while next < end {
                tokio::time::sleep_until(next.into()).await;
                let channel = channels[tasks.len() % CONNECTIONS].clone();
                tasks.push(tokio::spawn(self.one(channel, Arc::clone(&tally))));
                next += Duration::from_secs_f64(1.0 / self.rate);
            }
        } else {
            for stream in 0..self.streams {
                let (channel, tally) = (channels[stream % CONNECTIONS].clone(), Arc::clone(&tally));
                tasks.push(tokio::spawn(async move {
                    while Instant::now() < end {
                        self.one(channel.clone(), Arc::clone(&tally)).await;
                    }
                }));
            }
        }
        for task in tasks {
            task.await.expect("a load task does not panic");
        }
        let decisions = tally.decisions.lock();
        Outcome {
            requests: decisions.len(),
            failed: tally.failed.load(Relaxed),
            per_second: decisions.len() as f64 / start.elapsed().as_secs_f64(),
            p50_ms: decisions.value_at_quantile(0.5) as f64 / 1e3,
            p99_ms: decisions.value_at_quantile(0.99) as f64 / 1e3,
        }
    }

    /// One request, to see whether there is an answer.
    pub async fn once(self, port: u16) -> Result<Duration, String> {
        self.exchange(connect(port).await?, 0).await
    }

    async fn one(self, channel: Channel, tally: Arc<Tally>) {
        let number = tally.sequence.fetch_add(1, Relaxed);
        match self.exchange(channel, number).await {
            Ok(decision) => {
                let micros = decision.as_micros() as u64;
                tally.decisions.lock().saturating_record(micros);
            }
            Err(_) => {
                tally.failed.fetch_add(1, Relaxed);
            }
        }
    }

    async fn exchange(self, channel: Channel, number: u64) -> Result<Duration, String> {
        let body = self.body(number);
        let start = Instant::now();
        let (sender, receiver) = mpsc::channel(64);
        let mut client = tonic::client::Grpc::new(channel).max_decoding_message_size(64 << 20);
        client.ready().await.map_err(|error| error.to_string())?;
        let path = PathAndQuery::from_static(PROCESS_PATH);
        let feeder = tokio::spawn(feed(sender.clone(), body));
        let outbound = tonic::Request::new(ReceiverStream::new(receiver));
        let answers =
            client.streaming(outbound, path, client_codec()).await.map_err(|status| status.to_string())?;
        let mut answers = answers.into_inner();
        let mut decision = None;
        while let Some(message) = answers.message().await.map_err(|status| status.to_string())? {
            match message.response {
                Some(Response::RequestHeaders(_)) => decision = Some(start.elapsed()),
                Some(Response::RequestBody(answer)) if is_last(answer.response.as_ref()) => {
                    tokio::spawn(respond(sender.clone(), self.response_chunks));
                }
                Some(Response::ResponseBody(answer)) if is_last(answer.response.as_ref()) => break,
                Some(Response::ImmediateResponse(answer)) => {
                    return Err(format!("status {}", answer.status.unwrap_or_default().code));
                }
                _ => {}
            }
        }
        feeder.abort();
        decision.ok_or_else(|| "the stream ended without a decision".to_owned())
    }

    fn body(&self, number: u64) -> Bytes {
        let shared = text(number % GROUPS + 1, self.shared_bytes.min(self.prompt_bytes));
        let own = text(number + 1_000_003, self.prompt_bytes.saturating_sub(self.shared_bytes));
        format!(
            r#"{{"model":"m","stream":{},"max_tokens":100,"temperature":0.7,"messages":[{{"role":"system","content":"{shared}"}},{{"role":"user","content":"{own}"}}]}}"#,
            self.response_chunks > 1
        )
        .into()
    }
}

async fn connect(port: u16) -> Result<Channel, String> {
    Endpoint::from_shared(format!("http://127.0.0.1:{port}"))
        .map_err(|error| error.to_string())?
        .initial_stream_window_size(1 << 20)
        .initial_connection_window_size(16 << 20)
        .connect()
        .await
        .map_err(|error| error.to_string())
}

/// Words that differ by seed.
fn text(seed: u64, length: usize) -> String {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut text = String::with_capacity(length + 8);
    while text.len() < length {
        text += &format!("{:x} ", random.u32(..0x10_0000));
    }
    text.truncate(length);
    text
}

fn message(request: Request) -> ProcessingRequest {
    ProcessingRequest { request: Some(request), ..ProcessingRequest::default() }
}

fn headers(list: &[(&'static str, &str)]) -> HttpHeaders {
    let headers = list.iter().map(|(key, value)| HeaderValue {
        key: Bytes::from_static(key.as_bytes()),
        value: Bytes::new(),
        raw_value: Bytes::copy_from_slice(value.as_bytes()),
    });
    HttpHeaders { headers: Some(HeaderMap { headers: headers.collect() }), end_of_stream: false }
}

async fn feed(sender: mpsc::Sender<ProcessingRequest>, mut body: Bytes) {
    let length = body.len().to_string();
    let list = [
        (":method", "POST"),
        (":path", "/v1/chat/completions"),
        (":authority", "llm.example"),
        ("content-type", "application/json"),
        ("content-length", length.as_str()),
        ("x-request-id", "bench"),
    ];
    if sender.send(message(Request::RequestHeaders(headers(&list)))).await.is_err() {
        return;
    }
    while !body.is_empty() {
        let piece = body.split_to(body.len().min(PIECE));
        let piece = HttpBody { body: piece, end_of_stream: body.is_empty() };
        if sender.send(message(Request::RequestBody(piece))).await.is_err() {
            return;
        }
    }
}

async fn respond(sender: mpsc::Sender<ProcessingRequest>, chunks: usize) {
    let kind = if chunks > 1 { "text/event-stream" } else { "application/json" };
    let list = [(":status", "200"), ("content-type", kind)];
    if sender.send(message(Request::ResponseHeaders(headers(&list)))).await.is_err() {
        return;
    }
    for index in 0..chunks {
        let last = index + 1 == chunks;
        let text: &'static str = match (chunks > 1, last) {
            (true, false) => {
                "data: {\"id\":\"c\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"m\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\" word\"},\"finish_reason\":null}]}\n\n"
            }
            (true, true) => {
                "data: {\"id\":\"c\",\"model\":\"m\",\"choices\":[],\"usage\":{\"prompt_tokens\":200,\"completion_tokens\":100,\"total_tokens\":300}}\n\ndata: [DONE]\n\n"
            }
            _ => {
                "{\"id\":\"c\",\"object\":\"chat.completion\",\"model\":\"m\",\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":\"hello\"}}],\"usage\":{\"prompt_tokens\":200,\"completion_tokens\":100,\"total_tokens\":300}}"
            }
        };
        let piece = HttpBody { body: Bytes::from_static(text.as_bytes()), end_of_stream: last };
        if sender.send(message(Request::ResponseBody(piece))).await.is_err() {
            return;
        }
    }
}

fn is_last(response: Option<&pointsman::extproc::wire::CommonResponse>) -> bool {
    let mutation = response.and_then(|response| response.body_mutation.as_ref());
    match mutation.and_then(|mutation| mutation.mutation.as_ref()) {
        Some(Mutation::StreamedResponse(piece)) => piece.end_of_stream,
        _ => true,
    }
}
