//! gRPC over HTTP/2, with an explicit value for every limit of the protocol. `docs/limits.md` says why each has its
//! value.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::{Request, Response};
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper_util::rt::{TokioIo, TokioTimer};
use tonic::body::Body;
use tower_service::Service;

use super::connections::{Answering, Peer};
use super::inbound::Inbound;
use super::io::Io;
use super::port::{Client, Ended};
use super::settings::GREETING;
use super::socket::{GREETING_BYTES, READ_TURN, Turn};
use super::unread::Guarded;
use super::{Keepalive, Port};
use crate::metrics::ConnectionEnd;

/// A gRPC service that a port can serve.
pub trait GrpcService:
    Service<Request<Body>, Response = Response<Body>, Error = Infallible, Future: Send + Unpin + 'static>
    + Clone
    + Send
    + Sync
    + 'static
{
}

impl<S> GrpcService for S where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible, Future: Send + Unpin + 'static>
        + Clone
        + Send
        + Sync
        + 'static
{
}

/// The HTTP/2 bounds on each connection of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Http2Settings {
    /// The bytes that a client may send on one stream before they are read.
    pub stream_window: u32,
    /// The bytes that a client may send on all streams of a connection before they are read.
    pub connection_window: u32,
    /// The most open streams of a connection. The server refuses further streams, and the client may try again.
    pub max_streams: u32,
}

impl Default for Http2Settings {
    /// The values for clients that send few and small messages.
    fn default() -> Self {
        Self { stream_window: 64 << 10, connection_window: 1 << 20, max_streams: 128 }
    }
}

/// The bound on streams that were opened and reset before the server looked at them. A HEADERS and a RST_STREAM frame
/// take at least 22 bytes, so one turn of reading brings fewer such streams than this. The bound is therefore never
/// reached.
const UNSEEN_RESETS: usize = READ_TURN;

/// The bound on resets that the server sends because of errors of the client, over the life of a connection. There is
/// none, because a proxy's connection may live for months. Their cost is bounded in another way: the server does not
/// read from a client that does not read.
const RESETS_FOR_ERRORS: Option<usize> = None;

/// The largest header list. A proxy forwards at most 60 KiB of its client's headers. A larger list costs the client the
/// stream, and one of four times this size costs it the connection.
const HEADER_LIST: u32 = 64 << 10;

/// The largest frame that is accepted, which is the smallest bound that HTTP/2 allows. A frame that was sent in part is
/// held in memory.
const FRAME: u32 = 16 << 10;

/// The most bytes of an answer that wait on one stream for the client to read them.
const SEND_BUFFER: usize = 400 << 10;

fn builder(settings: Http2Settings, keepalive: Keepalive) -> http2::Builder<Guarded> {
    let mut builder = http2::Builder::new(Guarded);
    builder
        .timer(TokioTimer::new())
        // The windows keep these sizes. Adaptive windows would grow.
        .adaptive_window(false)
        .initial_stream_window_size(settings.stream_window)
        .initial_connection_window_size(settings.connection_window)
        .max_concurrent_streams(settings.max_streams)
        .max_pending_accept_reset_streams(UNSEEN_RESETS)
        .max_local_error_reset_streams(RESETS_FOR_ERRORS)
        .max_header_list_size(HEADER_LIST)
        .max_frame_size(FRAME)
        .max_send_buf_size(SEND_BUFFER)
        .keep_alive_interval(keepalive.interval())
        .keep_alive_timeout(keepalive.timeout);
    builder
}

/// Serves gRPC on `port` until `shutdown` resolves. Then open streams finish. Returns when the last connection is
/// closed.
pub async fn serve_grpc<S: GrpcService>(
    port: Port,
    settings: Http2Settings,
    service: S,
    shutdown: impl Future<Output = ()>,
) {
    let builder = builder(settings, port.keepalive);
    let serve = move |io, client| {
        let closed = std::future::pending();
        connection(builder.clone(), io, client, service.clone(), (closed, Duration::MAX))
    };
    port.run(shutdown, serve).await;
}

/// Serves gRPC on `port` as [`serve_grpc`] does, for a service that sends its clients to other replicas at times.
/// `ends` makes a future for each new connection. When that future or `shutdown` resolves, the client is told to take
/// another connection, and has the time `goodbye` to close this one.
pub async fn serve_grpc_while<S, E, F>(
    port: Port,
    settings: Http2Settings,
    service: S,
    (ends, goodbye): (E, Duration),
    shutdown: impl Future<Output = ()>,
) where
    S: GrpcService,
    E: Fn() -> F + Clone + Send + Sync + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    let builder = builder(settings, port.keepalive);
    let serve = move |io, client| connection(builder.clone(), io, client, service.clone(), (ends(), goodbye));
    port.run(shutdown, serve).await;
}

async fn connection<S: GrpcService>(
    builder: http2::Builder<Guarded>,
    io: Io,
    client: Client,
    service: S,
    (ends, goodbye): (impl Future<Output = ()> + Send, Duration),
) -> Result<(), Ended> {
    let turn = io.turn();
    let counted = Counted { service, peer: client.peer };
    let mut connection = std::pin::pin!(builder.serve_connection(TokioIo::new(io), counted));
    tokio::select! {
        result = &mut connection => return Ok(result?),
        () = silence(&turn) => return Err(Ended::Ours(ConnectionEnd::Silent)),
        () = client.closing.cancelled() => {}
        () = ends => {}
    }
    connection.as_mut().graceful_shutdown();
    // A client that has not sent its greeting loses nothing when the connection closes.
    if turn.heard() < GREETING_BYTES {
        return Ok(());
    }
    match tokio::time::timeout(goodbye, connection).await {
        Ok(result) => Ok(result?),
        Err(_) => Ok(()),
    }
}

/// Resolves if the client has not sent its greeting within the greeting time.
async fn silence(turn: &Turn) {
    tokio::time::sleep(GREETING).await;
    if turn.heard() >= GREETING_BYTES {
        std::future::pending::<()>().await;
    }
}

/// A service whose requests count as being answered until their bodies are dropped.
struct Counted<S> {
    service: S,
    peer: Peer,
}

impl<S: GrpcService> hyper::service::Service<Request<Incoming>> for Counted<S> {
    type Response = Response<Answer>;
    type Error = Infallible;
    type Future = Call<S::Future>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let answering = self.peer.answering();
        let request = request.map(|body| Body::new(Inbound::new(body)));
        Call { future: self.service.clone().call(request), answering: Some(answering) }
    }
}

/// A request that has no response yet.
struct Call<F> {
    future: F,
    answering: Option<Answering>,
}

impl<F> Future for Call<F>
where
    F: Future<Output = Result<Response<Body>, Infallible>> + Unpin,
{
    type Output = Result<Response<Answer>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let response = ready!(Pin::new(&mut self.future).poll(cx))?;
        let answering = self.answering.take();
        Poll::Ready(Ok(response.map(|body| Answer { body, _answering: answering })))
    }
}

/// The body of a response.
struct Answer {
    body: Body,
    _answering: Option<Answering>,
}

impl HttpBody for Answer {
    type Data = bytes::Bytes;
    type Error = tonic::Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
