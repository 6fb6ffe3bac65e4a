//! gRPC over HTTP/2, with every limit of the protocol set on purpose. `docs/limits.md` says why each has its value.

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

/// A gRPC service as a port serves it.
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

/// The bounds on one connection of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Http2Settings {
    /// Bytes that a client may send on one stream before they are read.
    pub stream_window: u32,
    /// The same on all streams of a connection together.
    pub connection_window: u32,
    /// Streams that are open at once on a connection; those beyond are refused, and the client may try again.
    pub max_streams: u32,
}

impl Default for Http2Settings {
    /// For small messages and few of them.
    fn default() -> Self {
        Self { stream_window: 64 << 10, connection_window: 1 << 20, max_streams: 128 }
    }
}

/// Resets of streams that nobody has looked at yet. A HEADERS and a RST_STREAM frame take 22 bytes at the very least,
/// so that one turn of reading brings fewer than this: it is never reached, whatever is sent.
const UNSEEN_RESETS: usize = READ_TURN;

/// Resets that are ours because of an error of the client, in the whole life of a connection: without a bound, for such
/// a connection may live for months. What they cost is bounded by not reading from who does not read.
const RESETS_FOR_ERRORS: Option<usize> = None;

/// Largest header list. A proxy passes on at most 60 KiB of its client's headers; more costs the stream, and four times
/// as much the connection.
const HEADER_LIST: u32 = 64 << 10;

/// Largest frame taken, which is the smallest bound that the protocol knows: a half-sent one is held in memory.
const FRAME: u32 = 16 << 10;

/// Bytes of answers that wait on one stream for the client to take them.
const SEND_BUFFER: usize = 400 << 10;

fn builder(settings: Http2Settings, keepalive: Keepalive) -> http2::Builder<Guarded> {
    let mut builder = http2::Builder::new(Guarded);
    builder
        .timer(TokioTimer::new())
        // The windows are what they are set to; measuring would let them grow.
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

/// Serves gRPC on `port` until `shutdown` resolves; then open streams finish. Returns when the last connection is gone.
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

/// The same for a service whose clients are sent elsewhere at times: `ends` makes a future for each new connection, and
/// when that resolves, the client is told to take another connection, and has the time given to let go of this one.
/// That holds at shutdown too.
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
    // Whoever has not said a word has nothing to lose.
    if turn.heard() < GREETING_BYTES {
        return Ok(());
    }
    match tokio::time::timeout(goodbye, connection).await {
        Ok(result) => Ok(result?),
        Err(_) => Ok(()),
    }
}

/// Resolves if the client has not greeted in its time.
async fn silence(turn: &Turn) {
    tokio::time::sleep(GREETING).await;
    if turn.heard() >= GREETING_BYTES {
        std::future::pending::<()>().await;
    }
}

/// A service whose requests count for as long as they are answered.
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

/// A request before its response.
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
