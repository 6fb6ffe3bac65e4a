//! Listening for KEDA.

use std::future::Future;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::KedaScaler;
use super::connection;

/// Connections at once. KEDA has one for each address and set of certificates that its triggers name.
pub(super) const MAX_CONNECTIONS: usize = 256;
/// Pause after a failure to accept: nearly always descriptors have run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves without TLS until `shutdown` resolves. Open streams and connections then end, at the latest after [`connection::GOODBYE`].
pub async fn serve(listener: TcpListener, service: KedaScaler, shutdown: impl Future<Output = ()>) {
    let mut connections = JoinSet::new();
    let accepting = async {
        loop {
            tokio::select! {
                accepted = listener.accept() => match accepted {
                    // Whoever comes beyond the bound is told at once.
                    Ok((socket, peer)) if connections.len() >= MAX_CONNECTIONS => {
                        drop(socket);
                        tracing::debug!(%peer, max = MAX_CONNECTIONS, "too many scaler connections");
                    }
                    Ok((socket, _)) => {
                        if let Err(error) = socket.set_nodelay(true) {
                            tracing::debug!(%error, "cannot switch off delayed sending");
                        }
                        connections.spawn(connection::serve(socket, service.clone()));
                    }
                    Err(error) => {
                        tracing::warn!(%error, "cannot accept a scaler connection");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                },
                Some(_) = connections.join_next() => {}
            }
        }
    };
    let remembering = async {
        service.remember().await;
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = accepting => {}
        () = remembering => {}
        () = shutdown => {}
    }
    drop(listener);
    service.close();
    while connections.join_next().await.is_some() {}
}
