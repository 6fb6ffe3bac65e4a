//! Why a scrape yielded nothing.

use std::io;
use std::time::Duration;

use super::ResponseError;

/// The reason why a page could not be read whole.
#[derive(Debug, thiserror::Error)]
pub enum ScrapeError {
    /// No connection, or no TLS session on it.
    #[error("cannot connect: {0}")]
    Connect(#[source] io::Error),
    /// No connection within this time.
    #[error("no connection after {0:?}")]
    ConnectTimeout(Duration),
    /// No whole answer within this time.
    #[error("no answer after {0:?}")]
    Timeout(Duration),
    /// The connection failed.
    #[error("connection failed: {0}")]
    Connection(#[source] io::Error),
    /// The server closed the connection before the answer was complete.
    #[error("connection closed before the end of the answer")]
    Closed,
    /// The answer is no HTTP/1.1.
    #[error("answer is no http: {0}")]
    Response(#[from] ResponseError),
    /// A status other than 200.
    #[error("status {0}")]
    Status(u16),
    /// A redirect to another server, which is never followed.
    #[error("redirect to another server: {0}")]
    RedirectElsewhere(String),
    /// More redirects than a server in its right mind sends.
    #[error("too many redirects")]
    TooManyRedirects,
    /// The body is compressed although nobody asked for it.
    #[error("body is encoded")]
    Encoded,
    /// The body is longer than this many bytes.
    #[error("body exceeds {0} bytes")]
    TooLarge(usize),
}

impl ScrapeError {
    /// True if the server answered, only not with a page: a different request may fare better.
    pub fn is_answer(&self) -> bool {
        matches!(self, Self::Status(_) | Self::RedirectElsewhere(_) | Self::TooManyRedirects | Self::Encoded)
    }

    /// True if it is certain that nothing listens there.
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::Connect(error) if error.kind() == io::ErrorKind::ConnectionRefused)
    }

    /// True if nothing came back at all: the server is gone, or stands still. Trouble of this machine (no descriptors,
    /// no ports) and of certificates says nothing of the server.
    pub fn is_silence(&self) -> bool {
        use io::ErrorKind::{
            ConnectionAborted, ConnectionReset, HostUnreachable, NetworkUnreachable, TimedOut,
        };
        match self {
            Self::Connect(error) => {
                self.is_refusal()
                    || matches!(
                        error.kind(),
                        ConnectionAborted | ConnectionReset | HostUnreachable | NetworkUnreachable | TimedOut
                    )
            }
            Self::ConnectTimeout(_) | Self::Timeout(_) | Self::Connection(_) | Self::Closed => true,
            _ => false,
        }
    }

    /// True if the connection broke, which is what a request on a connection that was idle too long meets.
    pub(super) fn is_connection_loss(&self) -> bool {
        matches!(self, Self::Connection(_) | Self::Closed)
    }
}
