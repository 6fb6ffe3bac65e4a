//! Listening for the proxy, with or without TLS.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::{Stream, StreamExt};
use http::{Request, Response};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;
use tonic::body::Body;
use tonic::transport::Server;
use tower_service::Service;

use super::ExtProc;
use super::connections::{Connections, Counted};
use super::tls::{self, Identity, TlsError, TlsSettings};

/// HTTP/2 window of a stream: a whole prompt fits.
const STREAM_WINDOW: u32 = 1 << 20;
/// HTTP/2 window of a connection: several do.
const CONNECTION_WINDOW: u32 = 16 << 20;
/// Longest TLS handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Handshakes under way at once.
const HANDSHAKES: usize = 256;
/// Pause after a failure to accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
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
        tls::server_config(tls, Identity::load(tls)?).map(|_| ())
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
    let acceptor = TlsAcceptor::from(tls::server_config(&tls, Arc::clone(&identity))?);
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

/// Connections as they come. A failure to accept nearly always means that descriptors have run out: it is told, and waited out.
pub fn accept(listener: TcpListener) -> impl Stream<Item = io::Result<TcpStream>> + Send {
    futures_util::stream::unfold(listener, |listener| async {
        Some((Ok(next_connection(&listener).await), listener))
    })
}

async fn next_connection(listener: &TcpListener) -> TcpStream {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                without_delay(&stream);
                return stream;
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

fn without_delay(stream: &TcpStream) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "cannot switch off delayed sending");
    }
}

/// Accepts connections and shakes hands, each in a task of its own: a slow client keeps nobody waiting.
async fn accept_tls(
    listener: TcpListener,
    acceptor: TlsAcceptor,
    connections: Connections,
    sender: mpsc::Sender<io::Result<Counted<tokio_rustls::server::TlsStream<TcpStream>>>>,
) {
    let handshakes = Arc::new(Semaphore::new(HANDSHAKES));
    loop {
        let stream = next_connection(&listener).await;
        // With too many handshakes under way, further clients wait in the listen queue.
        let Ok(permit) = Arc::clone(&handshakes).acquire_owned().await else { return };
        let (acceptor, sender, connections) = (acceptor.clone(), sender.clone(), connections.clone());
        tokio::spawn(async move {
            let _permit = permit;
            match tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
                Ok(Ok(stream)) => {
                    // A closed channel means the server is shutting down.
                    let _: Result<(), _> = sender.send(Ok(connections.count(stream))).await;
                }
                Ok(Err(error)) => tracing::debug!(%error, "tls handshake failed"),
                Err(_) => tracing::debug!("tls handshake took too long"),
            }
        });
    }
}

/// How often certificate files are looked at. Reading them is cheap, and no way of replacing them goes unseen.
const CERTIFICATE_POLL: Duration = Duration::from_secs(5);

/// Takes over renewed certificate files of this folder, for ever; without a folder there is nothing to do.
pub async fn watch_certificate(folder: Option<std::path::PathBuf>, identity: Arc<Identity>) {
    let Some(folder) = folder else { return std::future::pending().await };
    let read = async || {
        let mut files = Vec::new();
        for name in ["tls.crt", "tls.key"] {
            files.extend(tokio::fs::read(folder.join(name)).await.unwrap_or_default());
        }
        files
    };
    let mut seen = read().await;
    loop {
        tokio::time::sleep(CERTIFICATE_POLL).await;
        let found = read().await;
        if found == seen {
            continue;
        }
        match identity.reload(&folder) {
            Ok(()) => tracing::info!(path = %folder.display(), "serving certificate renewed"),
            Err(error) => tracing::warn!(%error, "serving certificate not renewed; the old one stays in use"),
        }
        seen = found;
    }
}
