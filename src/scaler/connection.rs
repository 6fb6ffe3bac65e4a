//! One connection, which ends when another replica is to be asked.

use std::time::Duration;

use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{sleep, timeout};
use tonic::body::Body;
use tower_service::Service as _;

use super::{KedaScaler, Role};

/// How often a silent connection is asked whether it still lives; a dead one gives its streams back.
const PING_INTERVAL: Duration = Duration::from_secs(20);
/// How long the answer may take.
const PING_TIMEOUT: Duration = Duration::from_secs(10);
/// Calls at once on one connection.
const CALLS_PER_CONNECTION: u32 = 128;
/// Shortest life of a connection to a replica that does not answer. Clients come again at once: without a pause they would do nothing else. One
/// that is refused outright would come again later and later.
pub(super) const LEAST_LIFE: Duration = Duration::from_secs(1);
/// Longest wait for the client to let go of a connection that ends.
pub(super) const GOODBYE: Duration = Duration::from_secs(1);

/// Serves one connection until the client closes it, or this replica stops answering.
///
/// The client is then told to take another connection (GOAWAY): a Service sends that to the replica that answers.
pub(super) async fn serve(socket: impl AsyncRead + AsyncWrite + Send + Unpin + 'static, service: KedaScaler) {
    let ends = ends(&service);
    let calls = service_fn(|request: http::Request<hyper::body::Incoming>| {
        service.clone().call(request.map(Body::new))
    });
    let connection = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .max_concurrent_streams(CALLS_PER_CONNECTION)
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT)
        .serve_connection(TokioIo::new(socket), calls);
    let mut connection = std::pin::pin!(connection);
    let outcome = tokio::select! {
        outcome = connection.as_mut() => outcome,
        () = ends => {
            connection.as_mut().graceful_shutdown();
            match timeout(GOODBYE, connection).await {
                Ok(outcome) => outcome,
                Err(_) => return tracing::debug!("a scaler connection is cut off"),
            }
        }
    };
    if let Err(error) = outcome {
        tracing::debug!(%error, "scaler connection failed");
    }
}

/// Resolves when a connection that begins now has to end.
async fn ends(service: &KedaScaler) {
    let mut role = service.role();
    let closed = async {
        let mut role = service.role();
        // The service keeps the sender.
        let _: Result<_, _> = role.wait_for(|role| *role == Role::Closed).await;
    };
    let unheard = async {
        sleep(LEAST_LIFE).await;
        let _: Result<_, _> = role.wait_for(|role| *role != Role::Answering).await;
    };
    tokio::select! {
        () = closed => {}
        () = unheard => {}
    }
}
