//! A model server with a scripted metrics page, and a data layer that scrapes it.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use pointsman::datalayer::exposition::Figures;
use pointsman::datalayer::{DataLayer, Observer, ScrapeError, Settings, Variant};
use pointsman::pool::{Endpoint, EndpointId, EndpointSpec, Load, Pool};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};

/// Longest that a test waits for anything.
const PATIENCE: Duration = Duration::from_secs(20);

/// One request as the server saw it.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    /// Path and query.
    pub(crate) path: String,
    /// Number of the connection, from 0.
    pub(crate) connection: usize,
    /// Number of the request over all connections, from 0.
    pub(crate) number: usize,
    /// Everything up to the empty line, in lower case.
    pub(crate) head: String,
}

/// What the server does about a request.
pub(crate) enum Answer {
    Send(Vec<u8>),
    SendAndClose(Vec<u8>),
    Hang,
}

/// A `200` with this page and its length.
pub(crate) fn page(text: &str) -> Answer {
    Answer::Send(http("200 OK", "", text))
}

/// A response with this status line, further header lines, and body.
pub(crate) fn http(status: &str, headers: &str, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n{headers}\r\n{body}", body.len()).into_bytes()
}

/// The three gauges of a vLLM server, and its cache geometry.
pub(crate) fn vllm(waiting: u32) -> String {
    format!(
        "vllm:num_requests_waiting {waiting}\nvllm:num_requests_running 2\nvllm:kv_cache_usage_perc 0.5\n\
         vllm:cache_config_info{{block_size=\"16\",num_gpu_blocks=\"100\"}} 1\n"
    )
}

type Answering = Pin<Box<dyn Future<Output = Answer> + Send>>;
pub(crate) type Handler = Arc<dyn Fn(Request) -> Answering + Send + Sync>;

/// A handler that needs no waiting.
pub(crate) fn at_once(answer: impl Fn(Request) -> Answer + Send + Sync + 'static) -> Handler {
    Arc::new(move |request| {
        let answer = answer(request);
        Box::pin(async move { answer })
    })
}

/// A listening server; it stops with the value.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    /// Connections that the client has ended.
    pub(crate) ended: watch::Receiver<usize>,
    pub(crate) seen: watch::Receiver<Vec<Request>>,
    _stop: DropGuard,
}

/// Turns an accepted connection into one that carries HTTP.
pub(crate) trait Accept: Send + Sync + 'static {
    type Stream: AsyncRead + AsyncWrite + Unpin + Send;
    fn accept(
        &self,
        stream: tokio::net::TcpStream,
    ) -> impl Future<Output = std::io::Result<Self::Stream>> + Send;
}

/// No TLS.
pub(crate) struct Plain;

impl Accept for Plain {
    type Stream = tokio::net::TcpStream;

    async fn accept(&self, stream: tokio::net::TcpStream) -> std::io::Result<Self::Stream> {
        Ok(stream)
    }
}

impl Server {
    pub(crate) async fn start(handler: Handler) -> Self {
        Self::start_with(Plain, handler).await
    }

    pub(crate) async fn start_with(accept: impl Accept, handler: Handler) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let (ended, ended_seen) = watch::channel(0);
        let (seen, requests) = watch::channel(Vec::new());
        let shared = Arc::new((accept, handler, ended, seen, AtomicUsize::new(0)));
        let token = stop.clone();
        tokio::spawn(async move {
            for connection in 0.. {
                let Some(Ok((stream, _))) = token.run_until_cancelled(listener.accept()).await else {
                    return;
                };
                let (shared, token) = (Arc::clone(&shared), token.clone());
                tokio::spawn(async move {
                    let serving = async {
                        if let Ok(stream) = shared.0.accept(stream).await {
                            let _ = serve(stream, connection, &shared.1, &shared.3, &shared.4).await;
                        }
                        shared.2.send_modify(|ended| *ended += 1);
                    };
                    token.run_until_cancelled(serving).await;
                });
            }
        });
        Self { address, ended: ended_seen, seen: requests, _stop: stop.drop_guard() }
    }
}

async fn serve(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    connection: usize,
    handler: &Handler,
    seen: &watch::Sender<Vec<Request>>,
    counter: &AtomicUsize,
) -> std::io::Result<()> {
    let mut buffer = Vec::new();
    loop {
        while !buffer.ends_with(b"\r\n\r\n") {
            if stream.read_buf(&mut buffer).await? == 0 {
                return Ok(());
            }
        }
        let head = String::from_utf8_lossy(&buffer).into_owned();
        buffer.clear();
        let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
        let number = counter.fetch_add(1, Ordering::SeqCst);
        let request = Request { path, connection, number, head: head.to_lowercase() };
        seen.send_modify(|seen| seen.push(request.clone()));
        match handler(request).await {
            Answer::Send(bytes) => stream.write_all(&bytes).await?,
            Answer::SendAndClose(bytes) => {
                stream.write_all(&bytes).await?;
                return stream.shutdown().await;
            }
            Answer::Hang => {
                // Until the client gives up.
                while stream.read_buf(&mut buffer).await? > 0 {}
                return Ok(());
            }
        }
    }
}

/// What an observer was told.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Told {
    Scraped { endpoint: String, bytes: usize },
    PollError { endpoint: String, error: String },
    ExtractError { missing: Figures, malformed: u32 },
    Adopted(Variant),
    Refused,
}

struct Recorder(watch::Sender<Vec<Told>>);

impl Recorder {
    fn tell(&self, told: Told) {
        self.0.send_modify(|all| all.push(told));
    }
}

impl Observer for Recorder {
    fn scraped(&self, endpoint: &Endpoint, bytes: usize, _: Duration) {
        self.tell(Told::Scraped { endpoint: endpoint.id().name().to_owned(), bytes });
    }

    fn poll_error(&self, endpoint: &Endpoint, error: &ScrapeError) {
        self.tell(Told::PollError { endpoint: endpoint.id().name().to_owned(), error: error.to_string() });
    }

    fn extract_error(&self, _: &Endpoint, missing: Figures, malformed: u32) {
        self.tell(Told::ExtractError { missing, malformed });
    }

    fn adopted(&self, _: &Endpoint, variant: Variant) {
        self.tell(Told::Adopted(variant));
    }

    fn refused(&self, _: &Endpoint) {
        self.tell(Told::Refused);
    }
}

/// A pool, a data layer over it, and what that told.
pub(crate) struct Harness {
    pub(crate) pool: Arc<Pool>,
    pub(crate) layer: Arc<DataLayer>,
    pub(crate) told: watch::Receiver<Vec<Told>>,
    _stop: DropGuard,
}

impl Harness {
    /// Scrapes these servers, named `e0`, `e1` and so on.
    pub(crate) fn start(settings: Settings, servers: &[SocketAddr]) -> Self {
        let harness = Self::start_empty(settings);
        let specs = servers.iter().enumerate().map(|(index, address)| spec(&format!("e{index}"), *address));
        harness.pool.replace_endpoints(specs.collect());
        harness
    }

    pub(crate) fn start_empty(settings: Settings) -> Self {
        let pool = Arc::new(Pool::new("ns", "pool", Instant::now()));
        let (sender, told) = watch::channel(Vec::new());
        let layer = DataLayer::new(Arc::clone(&pool), settings, Arc::new(Recorder(sender))).unwrap();
        let stop = CancellationToken::new();
        tokio::spawn(Arc::clone(&layer).run(stop.clone()));
        Self { pool, layer, told, _stop: stop.drop_guard() }
    }

    pub(crate) fn load(&self, index: usize) -> Arc<Load> {
        Arc::clone(self.pool.snapshot().endpoints()[index].load())
    }

    /// Waits until what was told satisfies `condition`, and returns it.
    pub(crate) async fn until(&mut self, condition: impl Fn(&[Told]) -> bool) -> Vec<Told> {
        until(&mut self.told, |told| condition(told)).await
    }

    /// Waits for `count` more pages of endpoint `name`.
    pub(crate) async fn pages(&mut self, name: &str, count: usize) {
        let pages = |told: &[Told]| {
            told.iter().filter(|t| matches!(t, Told::Scraped { endpoint, .. } if endpoint == name)).count()
        };
        let before = pages(&self.told.borrow());
        self.until(|told| pages(told) >= before + count).await;
    }

    /// Waits for a poll error that contains `text`.
    pub(crate) async fn poll_error(&mut self, text: &str) {
        self.until(|told| {
            told.iter().any(|t| matches!(t, Told::PollError { error, .. } if error.contains(text)))
        })
        .await;
    }

    pub(crate) fn poll_errors(&self) -> Vec<Told> {
        self.told.borrow().iter().filter(|told| matches!(told, Told::PollError { .. })).cloned().collect()
    }
}

pub(crate) fn spec(name: &str, address: SocketAddr) -> EndpointSpec {
    EndpointSpec::new(EndpointId::new("ns", name), address)
}

/// Waits until a watched value satisfies `condition`, and returns it.
pub(crate) async fn until<T: Clone + std::fmt::Debug>(
    watched: &mut watch::Receiver<T>,
    condition: impl Fn(&T) -> bool,
) -> T {
    let found =
        tokio::time::timeout(PATIENCE, watched.wait_for(condition)).await.map(|found| found.unwrap().clone());
    found.unwrap_or_else(|_| panic!("in vain; last seen: {:?}", watched.borrow()))
}

/// Defaults, without filtered pages.
pub(crate) fn unfiltered() -> Settings {
    Settings { filtered: false, ..Settings::default() }
}
