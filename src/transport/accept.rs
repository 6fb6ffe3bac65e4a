//! Taking connections, with or without TLS.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures_util::Stream;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::connections::{Connections, Counted};

/// Longest TLS handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Handshakes under way at once.
const HANDSHAKES: usize = 256;
/// Pause after a failure to accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

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
pub async fn accept_tls(
    listener: TcpListener,
    acceptor: TlsAcceptor,
    connections: Connections,
    sender: mpsc::Sender<io::Result<Counted<TlsStream<TcpStream>>>>,
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
