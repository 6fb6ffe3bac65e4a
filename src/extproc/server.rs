//! Serving the proxy.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use http::{Request, Response};
use tonic::body::Body;
use tower_service::Service;

use super::ExtProc;
use crate::transport::{GrpcService, Http2Settings, Port, serve_grpc};

/// HTTP/2 window of a stream: a whole prompt fits.
const STREAM_WINDOW: u32 = 1 << 20;
/// HTTP/2 window of a connection: several do.
const CONNECTION_WINDOW: u32 = 16 << 20;
/// Streams of a connection beyond those that are open in all: they are opened and refused with an answer that clients
/// understand.
const STREAMS_TO_REFUSE: u64 = 1024;
/// Streams of a connection where the number of all is not bounded.
const STREAMS: u32 = 1 << 20;

/// Serves until `shutdown` resolves, then lets open streams finish. `health` is served beside the service if given.
pub async fn serve<H: GrpcService>(
    port: Port,
    service: ExtProc,
    health: Option<H>,
    shutdown: impl Future<Output = ()>,
) {
    let max_streams = match service.max_streams() {
        0 => STREAMS,
        bound => u32::try_from(bound.saturating_add(STREAMS_TO_REFUSE)).unwrap_or(u32::MAX),
    };
    let settings =
        Http2Settings { stream_window: STREAM_WINDOW, connection_window: CONNECTION_WINDOW, max_streams };
    serve_grpc(port, settings, Services { extproc: service, health }, shutdown).await;
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
