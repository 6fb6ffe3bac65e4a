//! One connection to a model server, plain or TLS.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::ScrapeError;
use super::tls::TlsClient;

/// An open connection.
#[derive(Debug)]
pub(super) enum Connection {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Connection {
    /// Connects within `limit`. With `tls` the certificate must carry the name beside it, or else the address.
    pub(super) async fn open(
        address: SocketAddr,
        tls: Option<(&TlsClient, Option<&str>)>,
        limit: Duration,
    ) -> Result<Self, ScrapeError> {
        let connect = async {
            let stream = TcpStream::connect(address).await?;
            // A request is one small segment; waiting to merge it with another helps nobody.
            stream.set_nodelay(true)?;
            let Some((tls, host)) = tls else { return Ok(Self::Plain(stream)) };
            let connector = TlsConnector::from(tls.config(Instant::now()));
            let session = connector.connect(TlsClient::server_name(address.ip(), host), stream).await?;
            Ok(Self::Tls(Box::new(session)))
        };
        match tokio::time::timeout(limit, connect).await {
            Ok(opened) => opened.map_err(ScrapeError::Connect),
            Err(_) => Err(ScrapeError::ConnectTimeout(limit)),
        }
    }

    /// Sends all of `request`.
    pub(super) async fn send(&mut self, request: &[u8]) -> io::Result<()> {
        let mut rest = request;
        while !rest.is_empty() {
            match std::future::poll_fn(|cx| self.poll_write(cx, rest)).await? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                sent => rest = &rest[sent..],
            }
        }
        if let Self::Tls(stream) = self {
            std::future::poll_fn(|cx| Pin::new(&mut **stream).poll_flush(cx)).await?;
        }
        Ok(())
    }

    /// True if an idle connection can take a request: nothing has come, not even the end. Costs no system call as long
    /// as nothing has.
    pub(super) async fn is_idle(&mut self) -> bool {
        let mut byte = [0];
        let mut buffer = ReadBuf::new(&mut byte);
        std::future::poll_fn(|cx| Poll::Ready(self.poll_read(cx, &mut buffer).is_pending())).await
    }

    /// Reads what has come into `buffer`; nothing means the end.
    pub(super) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Tls(stream) => Pin::new(&mut **stream).poll_read(cx, buffer),
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Tls(stream) => Pin::new(&mut **stream).poll_write(cx, bytes),
        }
    }
}
