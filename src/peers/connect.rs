//! A connection to a peer: TCP, TLS unless the settings ask for plaintext, and HTTP/2 with pings that notice a dead
//! peer.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint};
use tower_service::Service;

use crate::transport::PeerTls;

/// The longest wait for the TCP connection, and the longest wait for the TLS handshake.
const CONNECT: Duration = Duration::from_secs(1);
/// The time without traffic after which a ping asks whether the peer is alive.
const ASK: Duration = Duration::from_secs(1);
/// The longest wait for the answer to the ping.
const ANSWER: Duration = Duration::from_secs(2);
/// The bytes that a peer may send before they are read.
const WINDOW: u32 = 1 << 20;

/// A connection with or without TLS.
pub(super) trait Connection: AsyncRead + AsyncWrite + Send + Unpin {}

impl<C: AsyncRead + AsyncWrite + Send + Unpin> Connection for C {}

/// Connects to the peer at `address`.
pub(super) async fn channel(
    address: SocketAddr,
    tls: Option<&PeerTls>,
) -> Result<Channel, tonic::transport::Error> {
    let endpoint = Endpoint::from_static("http://replica")
        .http2_keep_alive_interval(ASK)
        .keep_alive_timeout(ANSWER)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW);
    endpoint.connect_with_connector(Connector { address, tls: tls.cloned() }).await
}

/// Makes the connection of one channel.
struct Connector {
    address: SocketAddr,
    tls: Option<PeerTls>,
}

impl Service<Uri> for Connector {
    type Response = TokioIo<Box<dyn Connection>>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        Box::pin(connect(self.address, self.tls.clone()))
    }
}

async fn connect(address: SocketAddr, tls: Option<PeerTls>) -> io::Result<TokioIo<Box<dyn Connection>>> {
    let late = |what: &'static str| move |_| io::Error::new(io::ErrorKind::TimedOut, what);
    let stream =
        tokio::time::timeout(CONNECT, TcpStream::connect(address)).await.map_err(late("no connection"))??;
    stream.set_nodelay(true)?;
    let Some(tls) = tls else { return Ok(TokioIo::new(Box::new(stream))) };
    let config = tls.client().map_err(io::Error::other)?;
    let greeting = TlsConnector::from(config).connect(tls.name().clone(), stream);
    let stream = tokio::time::timeout(CONNECT, greeting).await.map_err(late("no tls handshake"))??;
    Ok(TokioIo::new(Box::new(stream)))
}
