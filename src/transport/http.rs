//! HTTP/1.1 and HTTP/2 for a proxy: requests and answers are forwarded as they come, with no bound on their length or
//! time.

use std::convert::Infallible;
use std::error::Error;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::time::timeout;

use super::connections::{Answering, Peer};
use super::http1::ClientAddress;
use super::io::Io;
use super::port::{Client, Ended};
use super::settings::GREETING;
use super::{Keepalive, Port};
use crate::metrics::ConnectionEnd;

/// The longest wait for the head of a further request on a connection that has already sent a request.
const HEAD: Duration = Duration::from_mins(5);

/// The most bytes of a request's head, and of one piece of a body.
const BUFFER: usize = 256 << 10;

/// The most bytes of the headers of a request over HTTP/2.
const HEADER_LIST: u32 = 256 << 10;

/// The bytes that a client may send before they are read: on one stream, and on all streams of a connection.
const STREAM_WINDOW: u32 = 256 << 10;
const CONNECTION_WINDOW: u32 = 4 << 20;

/// The most bytes of an answer that wait on one stream.
const SEND_BUFFER: usize = 64 << 10;

/// The most open streams of one connection.
const STREAMS: u32 = 4096;

/// Serves requests on `port` with `answer` until `shutdown` resolves. Then open requests have the time `farewell` to
/// end.
pub async fn serve_http<A, F, B>(
    port: Port,
    answer: A,
    farewell: Duration,
    shutdown: impl Future<Output = ()>,
) where
    A: Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<B>> + Send + 'static,
    B: Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let builder = builder(port.keepalive);
    port.run(shutdown, move |io, client| connection(builder.clone(), io, client, answer.clone(), farewell))
        .await;
}

fn builder(keepalive: Keepalive) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD).max_buf_size(BUFFER);
    builder
        .http2()
        .timer(TokioTimer::new())
        .adaptive_window(false)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_concurrent_streams(STREAMS)
        .max_header_list_size(HEADER_LIST)
        .max_send_buf_size(SEND_BUFFER)
        .keep_alive_interval(keepalive.interval())
        .keep_alive_timeout(keepalive.timeout);
    builder
}

async fn connection<A, F, B>(
    builder: auto::Builder<TokioExecutor>,
    io: Io,
    client: Client,
    answer: A,
    farewell: Duration,
) -> Result<(), Ended>
where
    A: Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<B>> + Send + 'static,
    B: Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let Client { address, closing, peer } = client;
    let service = {
        let peer = peer.clone();
        service_fn(move |mut request: Request<Incoming>| {
            let answering = peer.answering();
            request.extensions_mut().insert(ClientAddress(address));
            let answer = answer(request);
            async move {
                let response = answer.await;
                Ok::<_, Infallible>(response.map(|body| Counted { body, _answering: answering }))
            }
        })
    };
    let mut connection = std::pin::pin!(builder.serve_connection_with_upgrades(TokioIo::new(io), service));
    tokio::select! {
        result = &mut connection => return served(result, &peer),
        () = silence(&peer) => return Err(Ended::Ours(ConnectionEnd::Silent)),
        () = closing.cancelled() => connection.as_mut().graceful_shutdown(),
    }
    match timeout(farewell, connection).await {
        Ok(result) => served(result, &peer),
        Err(_) => Ok(()),
    }
}

/// Turns the end of a connection into a result. A client that sends no further request is not a failure.
fn served(result: Result<(), Box<dyn Error + Send + Sync>>, peer: &Peer) -> Result<(), Ended> {
    let Err(error) = result else { return Ok(()) };
    match error.downcast::<hyper::Error>() {
        Ok(error) if error.is_timeout() && peer.is_known() => Ok(()),
        Ok(error) => Err(Ended::Broken(*error)),
        Err(error) => {
            tracing::debug!(%error, "connection ended");
            Ok(())
        }
    }
}

/// Resolves if the client has not sent the head of a request within the greeting time.
async fn silence(peer: &Peer) {
    tokio::time::sleep(GREETING).await;
    if peer.is_known() {
        std::future::pending::<()>().await;
    }
}

/// The body of an answer. Its connection counts as busy until the body is dropped.
struct Counted<B> {
    body: B,
    _answering: Answering,
}

impl<B: Body<Data = Bytes> + Unpin> Body for Counted<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
