//! Pages over HTTP/1.1: requests are small, answers may have any size, and each part of an exchange has a time limit.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::{Stream, StreamExt as _};
use http::header::{CONNECTION, EXPECT};
use http::{HeaderValue, Request, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::Port;
use super::connections::{Answering, Peer};
use super::io::Io;
use super::port::{Client, Ended};
use super::settings::GREETING;
use super::writers::{Writers, Writing};
use crate::metrics::ConnectionEnd;

/// The longest wait for the head of a request, also between two requests of a connection.
const HEAD: Duration = Duration::from_secs(30);

/// The longest wait for the body of a request.
const BODY: Duration = Duration::from_secs(5);

/// The largest body of a request on most pages. Setting a log level needs a few bytes.
const BODY_BYTES: usize = 1024;

/// The body of an answer.
pub enum PageBody {
    /// A body that is complete.
    Whole(Bytes),
    /// A body whose pieces are sent as they come. It ends when the stream ends, the client leaves or the port closes.
    Live(Pin<Box<dyn Stream<Item = Bytes> + Send>>),
}

impl From<Bytes> for PageBody {
    fn from(bytes: Bytes) -> Self {
        Self::Whole(bytes)
    }
}

/// The page whose requests may have larger bodies.
#[derive(Clone, Debug)]
pub struct LargeBodies {
    /// The path of the page.
    pub path: &'static str,
    /// The largest body, in bytes.
    pub bytes: usize,
    /// The requests that may be answered at the same time. Further requests get the status 429.
    pub places: Arc<Semaphore>,
}

/// The bytes of a body that may be read without a place among the large bodies.
const SMALL_BODY: usize = 64 << 10;

/// The number of larger bodies that may be read at the same time. For a further body, the connection of the one that
/// has taken longest is closed.
const LARGE_BODIES: usize = 4;

/// How many bytes, and for how long, are read of a body that is too long before the connection is closed.
const DISCARDED: usize = 8 << 20;
const DISCARDING: Duration = Duration::from_secs(1);

/// The number of answers above `BUFFER` that may be sent at the same time.
const PAGES: usize = 16;

/// The most bytes of a request's head, and of an answer that wait for the client to read them.
const BUFFER: usize = 64 << 10;

/// The bytes of a page that are handed to the connection at a time.
const PIECE: usize = 32 << 10;

/// The bytes of an answer that the system holds for a client. Left to itself the system would hold megabytes, so that a
/// client that does not read could have page after page made.
const SEND_BUFFER: usize = 128 << 10;

/// The longest wait for open connections when the port closes.
const FAREWELL: Duration = Duration::from_secs(5);

/// The address of the client, which is among the extensions of a request.
#[derive(Clone, Copy, Debug)]
pub struct ClientAddress(pub SocketAddr);

/// Serves pages on `port` until `shutdown` resolves. Then open answers have 5 s to end. `answer` gets requests whose
/// bodies are complete.
pub async fn serve_pages<A, F>(
    mut port: Port,
    large: LargeBodies,
    answer: A,
    shutdown: impl Future<Output = ()>,
) where
    A: Fn(Request<Bytes>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<PageBody>> + Send + 'static,
{
    let shared = Shared { writers: Writers::new(PAGES), readers: Writers::new(LARGE_BODIES), large };
    port.send_buffer = Some(SEND_BUFFER);
    port.run(shutdown, move |io, client| connection(io, client, shared.clone(), answer.clone())).await;
}

/// The state that the connections of a port share.
#[derive(Clone)]
struct Shared {
    /// The answers that are being sent to clients.
    writers: Writers,
    /// The large bodies that are being read from clients.
    readers: Writers,
    large: LargeBodies,
}

async fn connection<A, F>(io: Io, client: Client, shared: Shared, answer: A) -> Result<(), Ended>
where
    A: Fn(Request<Bytes>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<PageBody>> + Send + 'static,
{
    let Client { address, closing, peer } = client;
    let service = {
        let (peer, closing) = (peer.clone(), closing.clone());
        service_fn(move |request| {
            let whom = Client { address, closing: closing.clone(), peer: peer.clone() };
            exchange(request, whom, shared.clone(), answer.clone())
        })
    };
    let mut connection = std::pin::pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD)
            .max_buf_size(BUFFER)
            .serve_connection(TokioIo::new(io), service)
    );
    tokio::select! {
        result = &mut connection => return served(result, &peer),
        () = silence(&peer) => return Err(Ended::Ours(ConnectionEnd::Silent)),
        () = closing.cancelled() => connection.as_mut().graceful_shutdown(),
    }
    match timeout(FAREWELL, connection).await {
        Ok(result) => Ok(result?),
        Err(_) => Ok(()),
    }
}

/// Turns the end of a connection into a result. A client that sends no further request is not a failure.
fn served(result: hyper::Result<()>, peer: &Peer) -> Result<(), Ended> {
    match result {
        Err(error) if error.is_timeout() && peer.is_known() => Ok(()),
        result => Ok(result?),
    }
}

/// Resolves if the client has not sent a whole request within the greeting time.
async fn silence(peer: &Peer) {
    tokio::time::sleep(GREETING).await;
    if peer.is_known() {
        std::future::pending::<()>().await;
    }
}

async fn exchange<A, F>(
    request: Request<Incoming>,
    whom: Client,
    shared: Shared,
    answer: A,
) -> Result<Response<Page>, Infallible>
where
    A: Fn(Request<Bytes>) -> F,
    F: Future<Output = Response<PageBody>>,
{
    let (head, body) = request.into_parts();
    let is_large = head.uri.path() == shared.large.path;
    let limit = if is_large { shared.large.bytes } else { BODY_BYTES };
    // The connection counts as idle until the whole request is here.
    let mut body = body;
    let body = match timeout(BODY, whole(&mut body, limit, &shared.readers, &whom.peer)).await {
        Ok(Ok(body)) => body,
        Ok(Err(Unread::TooLong)) => {
            if !head.headers.contains_key(EXPECT) {
                discard(body).await;
            }
            return Ok(refusal(
                StatusCode::PAYLOAD_TOO_LARGE,
                if limit == BODY_BYTES {
                    "the body is longer than 1024 bytes\n"
                } else {
                    "the body is longer than this page takes\n"
                },
            ));
        }
        Ok(Err(Unread::Broken)) => {
            return Ok(refusal(StatusCode::BAD_REQUEST, "the body is cut off or malformed\n"));
        }
        Err(_) => return Ok(refusal(StatusCode::REQUEST_TIMEOUT, "the body did not come within 5 s\n")),
    };
    // A request to this page takes a place until it is answered. A client that is still sending takes no place.
    let place = is_large.then(|| Arc::clone(&shared.large.places).try_acquire_owned());
    let Ok(_place) = place.transpose() else {
        let text = "too many requests of this kind at once\n";
        return Ok(refusal(StatusCode::TOO_MANY_REQUESTS, text));
    };
    // Yielding lets other tasks run between two requests of a client that sends one after the other.
    tokio::task::yield_now().await;
    let answering = whom.peer.answering();
    let mut request = Request::from_parts(head, body);
    request.extensions_mut().insert(ClientAddress(whom.address));
    let (head, body) = answer(request).await.into_parts();
    let (rest, live, writing) = match body {
        PageBody::Whole(rest) => {
            let writing = (rest.len() > BUFFER).then(|| shared.writers.begin(&whom.peer));
            (rest, None, writing)
        }
        // A live answer has no time limit. A client that reads nothing is disconnected by the limit on stalled writes.
        PageBody::Live(pieces) => {
            let live: Live = Box::pin(pieces.take_until(whom.closing.cancelled_owned()));
            (Bytes::new(), Some(live), None)
        }
    };
    Ok(Response::from_parts(head, Page { rest, live, _answering: Some(answering), _writing: writing }))
}

/// Why a body was not read.
enum Unread {
    TooLong,
    Broken,
}

/// Reads and drops the rest of a body that is too long, for a short while. A client that is still writing when the
/// connection closes may never see the answer.
async fn discard(mut body: Incoming) {
    let mut left = DISCARDED;
    // A client that writes for longer does not get the answer.
    let _ = timeout(DISCARDING, async {
        while let Some(Ok(frame)) = body.frame().await {
            left = left.saturating_sub(frame.data_ref().map_or(0, Bytes::len));
            if left == 0 {
                return;
            }
        }
    })
    .await;
}

/// Reads a body of at most `limit` bytes. While a large body is read, it has a place among the `readers`.
async fn whole(body: &mut Incoming, limit: usize, readers: &Writers, peer: &Peer) -> Result<Bytes, Unread> {
    if body.size_hint().lower() > limit as u64 {
        return Err(Unread::TooLong);
    }
    let mut read = BytesMut::new();
    let mut place = None;
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|_| Unread::Broken)?.into_data() else { continue };
        let length = read.len() + data.len();
        if length > limit {
            return Err(Unread::TooLong);
        }
        if length > SMALL_BODY && place.is_none() {
            place = Some(readers.begin(peer));
        }
        read.extend_from_slice(&data);
    }
    Ok(read.freeze())
}

fn refusal(status: StatusCode, text: &'static str) -> Response<Page> {
    let page =
        Page { rest: Bytes::from_static(text.as_bytes()), live: None, _answering: None, _writing: None };
    let mut response = Response::new(page);
    *response.status_mut() = status;
    // The rest of the body is not read, so the connection has to close.
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    response
}

type Live = Pin<Box<dyn Stream<Item = Bytes> + Send>>;

/// The body of an answer, which is handed on in pieces as the client reads it.
struct Page {
    rest: Bytes,
    /// Pieces that follow `rest` as they come.
    live: Option<Live>,
    _answering: Option<Answering>,
    _writing: Option<Writing>,
}

impl Body for Page {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if let Some(live) = &mut self.live {
            return live.poll_next_unpin(cx).map(|piece| piece.map(|piece| Ok(Frame::data(piece))));
        }
        let length = self.rest.len().min(PIECE);
        let piece = (length > 0).then(|| Ok(Frame::data(self.rest.split_to(length))));
        Poll::Ready(piece)
    }

    fn is_end_stream(&self) -> bool {
        self.live.is_none() && self.rest.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        if self.live.is_some() { SizeHint::default() } else { SizeHint::with_exact(self.rest.len() as u64) }
    }
}
