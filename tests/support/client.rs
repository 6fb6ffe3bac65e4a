//! HTTP/1.1 and HTTP/2 clients.

use std::convert::Infallible;
use std::net::SocketAddr;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use tokio::net::TcpStream;

use super::poll::within;

type Body = UnsyncBoxBody<Bytes, Infallible>;

/// Sends each request on a connection of its own.
#[derive(Clone, Copy)]
pub(crate) struct Client {
    addr: SocketAddr,
    http2: bool,
}

/// A whole response.
#[derive(Debug)]
pub(crate) struct Reply {
    /// Status code.
    pub(crate) status: u16,
    /// Response headers.
    pub(crate) headers: HeaderMap,
    /// Body bytes.
    pub(crate) body: Bytes,
}

impl Reply {
    /// A header's text, or nothing.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// The body as JSON.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error} in {self:?}"))
    }

    /// The body as text.
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
}

impl Client {
    /// A client that speaks HTTP/1.1.
    pub(crate) fn http1(addr: SocketAddr) -> Self {
        Self { addr, http2: false }
    }

    /// A client that speaks HTTP/2 from the first byte.
    pub(crate) fn http2(addr: SocketAddr) -> Self {
        Self { addr, http2: true }
    }

    /// GET.
    pub(crate) async fn get(&self, path: &str) -> Reply {
        self.send(Method::GET, path, &[], Full::default().boxed_unsync()).await
    }

    /// GET with further headers.
    pub(crate) async fn get_with(&self, path: &str, headers: &[(&str, &str)]) -> Reply {
        self.send(Method::GET, path, headers, Full::default().boxed_unsync()).await
    }

    /// DELETE.
    pub(crate) async fn delete(&self, path: &str) -> Reply {
        self.send(Method::DELETE, path, &[], Full::default().boxed_unsync()).await
    }

    /// POST of a JSON value.
    pub(crate) async fn post(&self, path: &str, body: &Value) -> Reply {
        self.post_with(path, &[], body.to_string()).await
    }

    /// PUT of a text.
    pub(crate) async fn put(&self, path: &str, body: &str) -> Reply {
        let body = Full::new(Bytes::copy_from_slice(body.as_bytes())).boxed_unsync();
        self.send(Method::PUT, path, &[], body).await
    }

    /// POST of bytes with further headers.
    pub(crate) async fn post_with(
        &self,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Reply {
        self.send(Method::POST, path, headers, Full::new(body.into()).boxed_unsync()).await
    }

    /// POST of a body in these pieces, ended by trailers.
    pub(crate) async fn post_with_trailers(
        &self,
        path: &str,
        pieces: Vec<Bytes>,
        trailers: HeaderMap,
    ) -> Reply {
        let frames = pieces.into_iter().map(Frame::data).chain([Frame::trailers(trailers)]).map(Ok);
        let body = StreamBody::new(futures_util::stream::iter(frames)).boxed_unsync();
        self.send(Method::POST, path, &[], body).await
    }

    /// POST that gives the response as soon as its headers are there. The exchange is broken off when it is dropped.
    pub(crate) async fn open(&self, path: &str, body: &Value) -> Response<Incoming> {
        self.open_with(path, &[], body).await
    }

    /// The same with further headers.
    pub(crate) async fn open_with(
        &self,
        path: &str,
        headers: &[(&str, &str)],
        body: &Value,
    ) -> Response<Incoming> {
        let body = Full::new(Bytes::from(body.to_string())).boxed_unsync();
        within(path, self.exchange(Method::POST, path, headers, body)).await.unwrap()
    }

    /// POST whose failure to get an answer at all is a result and not the end of the test.
    pub(crate) async fn attempt(&self, path: &str, body: &Value) -> anyhow::Result<Reply> {
        let body = Full::new(Bytes::from(body.to_string())).boxed_unsync();
        within(path, async { whole(self.exchange(Method::POST, path, &[], body).await?).await }).await
    }

    /// POST of bytes whose failure to get an answer is a result, without a limit of time.
    pub(crate) async fn try_post(
        &self,
        path: &str,
        headers: &[(&str, &str)],
        body: Bytes,
    ) -> anyhow::Result<Reply> {
        whole(self.exchange(Method::POST, path, headers, Full::new(body).boxed_unsync()).await?).await
    }

    async fn send(&self, method: Method, path: &str, headers: &[(&str, &str)], body: Body) -> Reply {
        within(path, async { whole(self.exchange(method, path, headers, body).await?).await })
            .await
            .unwrap_or_else(|error| panic!("{path} at {}: {error:#}", self.addr))
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Body,
    ) -> anyhow::Result<Response<Incoming>> {
        let stream = TcpStream::connect(self.addr).await?;
        stream.set_nodelay(true)?;
        let io = TokioIo::new(stream);
        let uri = if self.http2 { format!("http://{}{path}", self.addr) } else { path.to_owned() };
        let mut request = Request::builder().method(method).uri(uri);
        if !headers.iter().any(|(name, _)| *name == "content-type") {
            request = request.header("content-type", "application/json");
        }
        if !self.http2 {
            request = request.header("host", self.addr.to_string());
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(body)?;
        if self.http2 {
            let (mut sender, connection) =
                hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await?;
            tokio::spawn(connection);
            Ok(sender.send_request(request).await?)
        } else {
            let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await?;
            tokio::spawn(connection);
            Ok(sender.send_request(request).await?)
        }
    }
}

async fn whole(response: Response<Incoming>) -> anyhow::Result<Reply> {
    let (parts, body) = response.into_parts();
    let body = body.collect().await?.to_bytes();
    Ok(Reply { status: parts.status.as_u16(), headers: parts.headers, body })
}

/// Sends these bytes as they are and gives everything that comes back until the peer closes.
pub(crate) async fn lone_request(addr: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut stream = TcpStream::connect(addr).await.unwrap();
    let (mut read, mut write) = stream.split();
    let mut answer = Vec::new();
    let sent = async {
        // The peer may answer and close before it has read all.
        let _ = write.write_all(bytes).await;
    };
    let received = async {
        let _ = read.read_to_end(&mut answer).await;
    };
    within("answer to raw bytes", async { tokio::join!(sent, received) }).await;
    answer
}

/// A chat request with one message.
pub(crate) fn chat(text: &str, max_tokens: u32, stream: bool) -> Value {
    let mut body = json!({
        "model": "sim-model",
        "messages": [{"role": "user", "content": text}],
        "max_tokens": max_tokens,
    });
    if stream {
        body["stream"] = json!(true);
        body["stream_options"] = json!({"include_usage": true});
    }
    body
}

/// The `data:` payloads of an event stream.
pub(crate) fn sse_events(text: &str) -> Vec<&str> {
    text.lines().filter_map(|line| line.strip_prefix("data: ")).collect()
}
