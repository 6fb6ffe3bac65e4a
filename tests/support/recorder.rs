//! A model server of the test's own that keeps what it received, byte for byte.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

const METRICS: &str = "# TYPE vllm:num_requests_running gauge\nvllm:num_requests_running{model_name=\"sim-model\"} 0.0\n\
    # TYPE vllm:num_requests_waiting gauge\nvllm:num_requests_waiting{model_name=\"sim-model\"} 0.0\n\
    # TYPE vllm:kv_cache_usage_perc gauge\nvllm:kv_cache_usage_perc{model_name=\"sim-model\"} 0.0\n";

const ANSWER: &str = r#"{"id":"r","object":"chat.completion","model":"sim-model","choices":[{"index":0,"message":{"role":"assistant","content":"ok"},"finish_reason":"stop"}],"usage":{"prompt_tokens":1,"completion_tokens":1,"total_tokens":2}}"#;

/// What arrived.
#[derive(Clone)]
pub(crate) struct Received {
    /// Headers.
    pub(crate) headers: HeaderMap,
    /// Body bytes.
    pub(crate) body: Bytes,
}

/// The server. It listens as long as this lives.
pub(crate) struct Recorder {
    /// Where it listens.
    pub(crate) addr: SocketAddr,
    page: Arc<Mutex<&'static str>>,
    received: Arc<Mutex<Vec<Received>>>,
    accepting: JoinHandle<()>,
}

impl Recorder {
    /// Starts a server.
    pub(crate) async fn start() -> Self {
        Self::start_with_page(METRICS).await
    }

    /// Starts a server with this metrics page.
    pub(crate) async fn start_with_page(page: &'static str) -> Self {
        Self::start_at(SocketAddr::from(([127, 0, 0, 1], 0)), page).await
    }

    /// Starts a server with this metrics page at this address.
    pub(crate) async fn start_at(addr: SocketAddr, page: &'static str) -> Self {
        let listener = TcpListener::bind(addr).await.unwrap();
        let addr = listener.local_addr().unwrap();
        let received: Arc<Mutex<Vec<Received>>> = Arc::default();
        let log = Arc::clone(&received);
        let page = Arc::new(Mutex::new(page));
        let shown = Arc::clone(&page);
        let accepting = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (log, shown) = (Arc::clone(&log), Arc::clone(&shown));
                let service = service_fn(move |request| {
                    let page = *shown.lock();
                    answer(request, page, Arc::clone(&log))
                });
                tokio::spawn(
                    hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service),
                );
            }
        });
        Self { addr, page, received, accepting }
    }

    /// Shows this metrics page from now on.
    pub(crate) fn show(&self, page: &'static str) {
        *self.page.lock() = page;
    }

    /// The requests so far, scrapes left out, oldest first.
    pub(crate) fn received(&self) -> Vec<Received> {
        self.received.lock().clone()
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn answer(
    request: Request<Incoming>,
    metrics: &'static str,
    log: Arc<Mutex<Vec<Received>>>,
) -> Result<Response<Full<Bytes>>, hyper::Error> {
    if request.uri().path().starts_with("/metrics") {
        let page = Response::builder().header("content-type", "text/plain; version=0.0.4");
        return Ok(page.body(Full::from(metrics)).unwrap());
    }
    let (parts, body) = request.into_parts();
    let body = body.collect().await?.to_bytes();
    log.lock().push(Received { headers: parts.headers, body });
    Ok(Response::builder().header("content-type", "application/json").body(Full::from(ANSWER)).unwrap())
}
