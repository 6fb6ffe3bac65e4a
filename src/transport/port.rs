//! One port: its socket, its TLS, its connections, and the loop that accepts them.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::connections::{Admitted, Peer};
use super::io::Io;
use super::settings::GREETING;
use super::socket::{Socket, Turn};
use super::tcp::{next_connection, set_up};
use super::{ConnectionBounds, Connections, Keepalive, Tls};
use crate::metrics::{ConnectionEnd, Metrics, PortMetrics};
use crate::telemetry::Repeat;

/// The shortest time between two warnings that connections cannot be accepted.
const WARNINGS: Duration = Duration::from_secs(30);

/// A listening port.
#[derive(Debug)]
pub struct Port {
    listener: TcpListener,
    tls: Option<Tls>,
    pub(super) keepalive: Keepalive,
    /// The bytes that the system holds for a client that does not read. `None` leaves the number to the system.
    pub(super) send_buffer: Option<usize>,
    connections: Connections,
}

impl Port {
    /// Makes a plaintext port that metrics call `name`.
    pub fn new(
        name: &'static str,
        listener: TcpListener,
        bounds: ConnectionBounds,
        keepalive: Keepalive,
        metrics: &Metrics,
    ) -> Self {
        Self::counted(listener, bounds, keepalive, metrics.port(name))
    }

    /// Makes a plaintext port that counts its connections in `metrics`.
    pub fn counted(
        listener: TcpListener,
        bounds: ConnectionBounds,
        keepalive: Keepalive,
        metrics: PortMetrics,
    ) -> Self {
        let connections = Connections::new(bounds, metrics);
        Self { listener, tls: None, keepalive, send_buffer: None, connections }
    }

    /// Adds TLS to the port, unless `tls` is `None`.
    #[must_use]
    pub fn with_tls(self, tls: Option<Tls>) -> Self {
        Self { tls, ..self }
    }

    /// The address that the port listens on.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// The open connections of the port.
    pub fn connections(&self) -> Connections {
        self.connections.clone()
    }

    /// Accepts connections until `shutdown` resolves, and serves each with `serve` in a task of its own. Then the
    /// connections are told to finish, and the call returns when the last one is closed. Nothing that a client does or
    /// omits delays the next connection.
    pub(super) async fn run<S, F>(self, shutdown: impl Future<Output = ()>, serve: S)
    where
        S: Fn(Io, Client) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Result<(), Ended>> + Send + 'static,
    {
        let Self { listener, tls, keepalive, send_buffer, connections } = self;
        let (acceptor, renewal) = tls.map(Tls::into_parts).unzip();
        let (tasks, closing) = (TaskTracker::new(), CancellationToken::new());
        let accepting = async {
            let failures = Repeat::every(WARNINGS);
            loop {
                let (stream, address) = next_connection(&listener, &connections, &failures).await;
                let Some(admitted) = connections.admit() else { continue };
                set_up(&stream, keepalive, send_buffer);
                let socket = Socket::new(stream, keepalive.write_patience());
                let client = Client { address, closing: closing.clone(), peer: admitted.peer().clone() };
                tasks.spawn(connection(socket, acceptor.clone(), admitted, client, serve.clone()));
            }
        };
        let renewing = async {
            match renewal.flatten() {
                Some(renewal) => renewal.watch().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = accepting => {}
            () = renewing => {}
            () = shutdown => {}
        }
        drop(listener);
        closing.cancel();
        tasks.close();
        tasks.wait().await;
    }
}

/// The client of a connection, as `serve` gets it.
#[derive(Clone)]
pub(super) struct Client {
    /// The address of the client.
    pub(super) address: SocketAddr,
    /// Cancelled when the port closes. Open answers are finished, and no further request is read.
    pub(super) closing: CancellationToken,
    /// The client in the list of connections.
    pub(super) peer: Peer,
}

/// Why serving a connection ended.
pub(super) enum Ended {
    /// The server ended the connection for this reason.
    Ours(ConnectionEnd),
    /// The connection broke, or the client broke the protocol.
    Broken(hyper::Error),
}

impl From<hyper::Error> for Ended {
    fn from(error: hyper::Error) -> Self {
        Self::Broken(error)
    }
}

async fn connection<S, F>(
    socket: Socket<TcpStream>,
    acceptor: Option<TlsAcceptor>,
    admitted: Admitted,
    client: Client,
    serve: S,
) where
    S: Fn(Io, Client) -> F + Send + Sync + 'static,
    F: Future<Output = Result<(), Ended>> + Send + 'static,
{
    let (turn, peer) = (socket.turn(), admitted.peer());
    let served = async {
        let Some(io) = greet(socket, acceptor, peer, &client.closing).await else { return Ok(()) };
        serve(io, client).await
    };
    let ended = turn.around(async {
        tokio::select! {
            result = served => result,
            () = peer.given_up() => Ok(()),
        }
    });
    match ended.await {
        Ok(()) => {}
        Err(Ended::Ours(end)) => peer.ended(end),
        Err(Ended::Broken(error)) => tell(peer, &turn, &error),
    }
}

fn tell(peer: &Peer, turn: &Turn, error: &hyper::Error) {
    if turn.stalled() {
        peer.ended(ConnectionEnd::Stalled);
    } else if error.is_timeout() {
        peer.ended(ConnectionEnd::Unanswered);
    }
    tracing::debug!(%error, "connection ended");
}

/// Sets up TLS if the port has TLS. Returns `None` if the handshake fails or takes too long.
async fn greet(
    socket: Socket<TcpStream>,
    acceptor: Option<TlsAcceptor>,
    peer: &Peer,
    closing: &CancellationToken,
) -> Option<Io> {
    let Some(acceptor) = acceptor else { return Some(Io::Plain(socket)) };
    let shaken = tokio::select! {
        shaken = timeout(GREETING, acceptor.accept(socket)) => shaken,
        () = closing.cancelled() => return None,
    };
    match shaken {
        Ok(Ok(stream)) => return Some(Io::Tls(Box::new(stream))),
        Ok(Err(error)) => tracing::debug!(%error, "tls handshake failed"),
        Err(_) => tracing::debug!("tls handshake took too long"),
    }
    peer.ended(ConnectionEnd::Handshake);
    None
}
