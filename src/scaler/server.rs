//! Listening for KEDA.

use std::future::Future;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::Server;

use super::KedaScaler;

/// How often a silent connection is asked whether it still lives; a dead one gives its streams back.
const PING_INTERVAL: Duration = Duration::from_secs(20);
/// How long the answer may take.
const PING_TIMEOUT: Duration = Duration::from_secs(10);
/// Calls at once on one connection.
const CALLS_PER_CONNECTION: u32 = 128;

/// Why the server stopped.
#[derive(Debug, thiserror::Error)]
pub enum ScalerServerError {
    /// Serving failed.
    #[error("scaler server: {0}")]
    Transport(#[from] tonic::transport::Error),
}

/// Serves without TLS until `shutdown` resolves; open streams then end, and calls that are being answered are.
pub async fn serve(
    listener: TcpListener,
    service: KedaScaler,
    shutdown: impl Future<Output = ()>,
) -> Result<(), ScalerServerError> {
    let ends = {
        let service = service.clone();
        async move {
            shutdown.await;
            service.close();
        }
    };
    let server = Server::builder()
        .max_concurrent_streams(CALLS_PER_CONNECTION)
        .http2_keepalive_interval(Some(PING_INTERVAL))
        .http2_keepalive_timeout(Some(PING_TIMEOUT))
        .tcp_nodelay(true)
        .serve_with_incoming_shutdown(service.clone(), TcpListenerStream::new(listener), ends);
    let remembering = async {
        service.remember().await;
        std::future::pending::<()>().await;
    };
    tokio::select! {
        result = server => Ok(result?),
        () = remembering => Ok(()),
    }
}
