//! The HTTP server of the admin pages: few connections, each with bounds on how long it may keep us.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower_service::Service;
use tracing::{debug, warn};

use super::pages::{AdminState, router};
use crate::telemetry::Repeat;

/// Open connections. Scrapers, probes and a person or two; more wait in the listen queue.
const CONNECTIONS: usize = 64;

/// Longest TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// Longest wait for the head of a request, also between two requests of a connection.
const HEAD: Duration = Duration::from_secs(30);

/// Longest wait for open connections at the end.
const FAREWELL: Duration = Duration::from_secs(5);

/// Pause after a failed accept, which nearly always means that file descriptors have run out.
const PAUSE: Duration = Duration::from_millis(100);

/// Where the admin pages are served.
pub struct AdminListener {
    tcp: TcpListener,
    tls: Option<TlsAcceptor>,
}

impl AdminListener {
    /// Plain HTTP.
    pub fn plain(tcp: TcpListener) -> Self {
        Self { tcp, tls: None }
    }

    /// HTTPS. A certificate that is to be reloaded comes through the configuration's resolver.
    pub fn tls(tcp: TcpListener, config: Arc<ServerConfig>) -> Self {
        Self { tcp, tls: Some(TlsAcceptor::from(config)) }
    }
}

impl From<TcpListener> for AdminListener {
    fn from(tcp: TcpListener) -> Self {
        Self::plain(tcp)
    }
}

impl std::fmt::Debug for AdminListener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AdminListener").field("tcp", &self.tcp).field("tls", &self.tls.is_some()).finish()
    }
}

/// Serves the admin pages until `shutdown` resolves; then requests that are being answered get 5 s to finish.
pub async fn serve(
    listener: impl Into<AdminListener>,
    state: AdminState,
    shutdown: impl Future<Output = ()>,
) {
    let AdminListener { tcp, tls } = listener.into();
    let router = router(state);
    let slots = Arc::new(Semaphore::new(CONNECTIONS));
    let (tasks, closing) = (TaskTracker::new(), CancellationToken::new());
    let accepting = async {
        let failures = Repeat::every(Duration::from_secs(30));
        loop {
            // The semaphore is never closed.
            let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return };
            match tcp.accept().await {
                Ok((stream, _)) => {
                    tasks.spawn(connection(stream, tls.clone(), router.clone(), closing.clone(), slot));
                }
                Err(error) => {
                    if let Some(suppressed) = failures.due(Instant::now()) {
                        warn!(error = %error, suppressed, "admin connection could not be accepted");
                    }
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    };
    tokio::select! {
        () = accepting => {}
        () = shutdown => {}
    }
    drop(tcp);
    closing.cancel();
    tasks.close();
    if timeout(FAREWELL, tasks.wait()).await.is_err() {
        debug!("admin connections were cut");
    }
}

async fn connection(
    stream: TcpStream,
    tls: Option<TlsAcceptor>,
    router: Router,
    closing: CancellationToken,
    slot: OwnedSemaphorePermit,
) {
    // Answers are written in one piece; without this the last part of a page could wait for an acknowledgement.
    let _ = stream.set_nodelay(true);
    let result = match tls {
        None => exchange(stream, router, closing).await,
        Some(acceptor) => match timeout(HANDSHAKE, acceptor.accept(stream)).await {
            Ok(Ok(stream)) => exchange(stream, router, closing).await,
            Ok(Err(error)) => Err(error),
            Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "TLS handshake took too long")),
        },
    };
    if let Err(error) = result {
        debug!(error = %error, "admin connection ended");
    }
    drop(slot);
}

async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    router: Router,
    closing: CancellationToken,
) -> io::Result<()> {
    let service = service_fn(move |request| router.clone().call(request));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    tokio::select! {
        result = &mut connection => return result.map_err(io::Error::other),
        () = closing.cancelled() => {}
    }
    connection.as_mut().graceful_shutdown();
    match timeout(FAREWELL, connection).await {
        Ok(result) => result.map_err(io::Error::other),
        Err(_) => Ok(()),
    }
}
