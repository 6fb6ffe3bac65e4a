//! Listening for the proxy, with or without TLS.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::StreamExt;
use http::{Request, Response};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tonic::body::Body;
use tonic::transport::Server;
use tower_service::Service;

use super::ExtProc;
use crate::transport::{
    Connections, Identity, TlsError, TlsSettings, accept, accept_tls, grpc_tls, watch_certificate,
};

/// HTTP/2 window of a stream: a whole prompt fits.
const STREAM_WINDOW: u32 = 1 << 20;
/// HTTP/2 window of a connection: several do.
const CONNECTION_WINDOW: u32 = 16 << 20;
/// Connections whose handshake is done and which the server has not taken yet.
const ACCEPT_BACKLOG: usize = 64;

/// Why the server stopped or did not start.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// TLS cannot be set up.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// Serving failed.
    #[error("ext_proc server: {0}")]
    Transport(#[from] tonic::transport::Error),
}

/// How the server listens.
#[derive(Clone, Debug)]
pub struct ServerSettings {
    /// TLS and its settings; `None` serves plaintext.
    pub tls: Option<TlsSettings>,
    /// Read the certificate files again when they change.
    pub reload: bool,
}

impl ServerSettings {
    /// Tries out all that can be wrong with them, so that a fault is told before anything listens.
    pub fn check(&self) -> Result<(), TlsError> {
        let Some(tls) = &self.tls else { return Ok(()) };
        grpc_tls(tls, Identity::load(tls)?).map(|_| ())
    }
}

/// A listener with its address.
#[derive(Debug)]
pub struct Listening {
    /// The socket.
    pub listener: TcpListener,
    /// Where it listens.
    pub address: SocketAddr,
}

/// Serves until `shutdown` resolves, then lets open streams finish. `health` is served beside the service if given.
pub async fn serve<H>(
    listening: Listening,
    service: ExtProc,
    health: Option<H>,
    connections: Connections,
    settings: ServerSettings,
    shutdown: impl Future<Output = ()>,
) -> Result<(), ServerError>
where
    H: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    H::Future: Send + 'static,
{
    let services = Services { extproc: service, health };
    let server = Server::builder()
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW);
    let Some(tls) = settings.tls else {
        let incoming =
            accept(listening.listener).map(move |stream| stream.map(|stream| connections.count(stream)));
        return Ok(server.serve_with_incoming_shutdown(services, incoming, shutdown).await?);
    };
    let identity = Identity::load(&tls)?;
    let acceptor = TlsAcceptor::from(grpc_tls(&tls, Arc::clone(&identity))?);
    let reload = watch_certificate(settings.reload.then_some(tls.cert_path).flatten(), identity);
    let (sender, receiver) = mpsc::channel(ACCEPT_BACKLOG);
    let accept = accept_tls(listening.listener, acceptor, connections, sender);
    let incoming = tokio_stream::wrappers::ReceiverStream::new(receiver);
    let serving = server.serve_with_incoming_shutdown(services, incoming, shutdown);
    tokio::select! {
        result = serving => Ok(result?),
        () = accept => Ok(()),
        () = reload => Ok(()),
    }
}

/// The two services of the port, told apart by path.
#[derive(Clone)]
struct Services<H> {
    extproc: ExtProc,
    health: Option<H>,
}

impl<H> Service<Request<Body>> for Services<H>
where
    H: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
    H::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        match &mut self.health {
            Some(health) if request.uri().path().starts_with("/grpc.health.v1.Health/") => {
                Box::pin(health.call(request))
            }
            _ => self.extproc.call(request),
        }
    }
}
