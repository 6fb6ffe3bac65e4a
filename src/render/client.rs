//! HTTP to a render endpoint: connections that are kept, answers of bounded size.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HOST};
use http::{HeaderValue, Method, Request, StatusCode, Uri};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use hyper_rustls::{ConfigBuilderExt as _, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use smallvec::SmallVec;

use crate::request::cut;

/// Idle connections that are kept.
const IDLE_CONNECTIONS: usize = 16;
/// How long they are kept. Servers close idle connections too, uvicorn after 5 s.
const IDLE_FOR: Duration = Duration::from_secs(4);
/// Longest wait for a connection.
const CONNECT: Duration = Duration::from_secs(5);
/// Bytes of all answers that are being read, at most.
const ALL_ANSWERS: usize = 256 << 20;
/// Bytes of an error answer that are looked at.
const ERROR_TEXT: usize = 1024;

/// Why there is no answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum NoAnswer {
    /// The endpoint does not take this request.
    Refused(String),
    /// The endpoint cannot be reached or does not work.
    Failed(String),
}

/// The system has no certificate authorities, and the endpoint has an address that begins with `https`.
#[derive(Debug, thiserror::Error)]
#[error("no certificate authorities to verify the render endpoint with: {0}")]
pub struct NoAuthorities(std::io::Error);

type Pieces = stream::Iter<smallvec::IntoIter<[Result<Frame<Bytes>, Infallible>; 3]>>;

/// The endpoint.
#[derive(Debug)]
pub(super) struct RenderClient {
    client: Client<HttpsConnector<HttpConnector>, StreamBody<Pieces>>,
    base: String,
    host: Option<HeaderValue>,
    /// Bytes of answers that are being read.
    reading: Arc<AtomicUsize>,
}

/// Bytes of an answer, counted as long as this lives.
struct Reading {
    all: Arc<AtomicUsize>,
    bytes: usize,
}

impl Reading {
    fn grow(&mut self, bytes: usize) -> bool {
        self.bytes += bytes;
        self.all.fetch_add(bytes, Relaxed) + bytes <= ALL_ANSWERS
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        self.all.fetch_sub(self.bytes, Relaxed);
    }
}

impl RenderClient {
    /// A client for the endpoint below `base`, which has no slash at its end.
    pub(super) fn new(base: &Uri) -> Result<Self, NoAuthorities> {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.enforce_http(false);
        connector.set_connect_timeout(Some(CONNECT));
        let roots = rustls::ClientConfig::builder();
        let tls = match roots.with_native_roots() {
            Ok(roots) => roots.with_no_client_auth(),
            Err(error) if base.scheme_str() == Some("https") => return Err(NoAuthorities(error)),
            // Nobody is going to be verified.
            Err(_) => rustls::ClientConfig::builder()
                .with_root_certificates(rustls::RootCertStore::empty())
                .with_no_client_auth(),
        };
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_http1()
            .wrap_connector(connector);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_FOR)
            .pool_max_idle_per_host(IDLE_CONNECTIONS)
            .build(connector);
        let host = base.authority().and_then(|authority| HeaderValue::from_str(authority.as_str()).ok());
        let base = base.to_string().trim_end_matches('/').to_owned();
        Ok(Self { client, base, host, reading: Arc::default() })
    }

    /// Posts JSON to `path`, and returns the body of the answer, of which there are at most `limit` bytes.
    pub(super) async fn post(
        &self,
        path: &str,
        body: SmallVec<[Bytes; 3]>,
        limit: usize,
    ) -> Result<Vec<u8>, NoAnswer> {
        let failed = |error: &dyn std::fmt::Display| NoAnswer::Failed(format!("{path}: {error}"));
        let length: usize = body.iter().map(Bytes::len).sum();
        let frames: SmallVec<[_; 3]> = body.into_iter().map(|piece| Ok(Frame::data(piece))).collect();
        let mut request = Request::new(StreamBody::new(stream::iter(frames)));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = format!("{}{path}", self.base).parse().map_err(|error| failed(&error))?;
        let headers = request.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
        headers.extend(self.host.clone().map(|host| (HOST, host)));
        let answer = self.client.request(request).await.map_err(|error| failed(&Chain(&error)))?;
        let status = answer.status();
        let limit = if status.is_success() { limit } else { ERROR_TEXT };
        let mut reading = Reading { all: Arc::clone(&self.reading), bytes: 0 };
        let mut bytes = Vec::new();
        let mut answer = answer.into_body();
        while let Some(frame) = answer.frame().await {
            let frame = frame.map_err(|error| failed(&Chain(&error)))?;
            let Some(data) = frame.data_ref() else { continue };
            let room = limit - bytes.len();
            if data.len() > room && status.is_success() {
                let text = format!("{path}: the answer has more than {limit} bytes");
                return Err(NoAnswer::Refused(text));
            }
            let data = data.get(..room).unwrap_or(data);
            if !reading.grow(data.len()) {
                return Err(NoAnswer::Refused(format!("{path}: too many bytes of answers at once")));
            }
            bytes.extend_from_slice(data);
            if bytes.len() >= limit && !status.is_success() {
                break;
            }
        }
        if status.is_success() {
            return Ok(bytes);
        }
        Err(no_answer(path, status, &bytes))
    }
}

/// What an error answer means.
fn no_answer(path: &str, status: StatusCode, text: &[u8]) -> NoAnswer {
    let text = String::from_utf8_lossy(text);
    let text = format!("{path}: status {}: {}", status.as_u16(), cut(&text, ERROR_TEXT));
    match status {
        StatusCode::BAD_REQUEST | StatusCode::PAYLOAD_TOO_LARGE | StatusCode::UNPROCESSABLE_ENTITY => {
            NoAnswer::Refused(text)
        }
        _ => NoAnswer::Failed(text),
    }
}

/// An error with those that it comes from.
struct Chain<'e>(&'e (dyn std::error::Error + 'static));

impl std::fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)?;
        let mut source = self.0.source();
        while let Some(error) = source {
            write!(f, ": {error}")?;
            source = error.source();
        }
        Ok(())
    }
}
