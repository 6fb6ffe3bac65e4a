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

/// Largest HTTP/2 window of a stream: a whole prompt fits.
const STREAM_WINDOW: u32 = 1 << 20;
/// Largest HTTP/2 window of a connection: several do.
const CONNECTION_WINDOW: u32 = 16 << 20;
/// Smallest window of either.
const LEAST_WINDOW: u32 = 256 << 10;
/// A connection's window is at most this part of the memory for all bodies, which says what the process takes.
const WINDOW_PART: u64 = 64;
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
    let connection_window = window(service.budget_limit());
    let stream_window = connection_window.min(STREAM_WINDOW);
    let settings = Http2Settings { stream_window, connection_window, max_streams };
    serve_grpc(port, settings, Services { extproc: service, health }, shutdown).await;
}

/// Window of a connection beside bodies that may take `limit` bytes; 0 = no bound.
fn window(limit: u64) -> u32 {
    match u32::try_from(limit / WINDOW_PART) {
        Ok(part) if limit > 0 => part.clamp(LEAST_WINDOW, CONNECTION_WINDOW),
        _ => CONNECTION_WINDOW,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_connection_may_have_on_its_way_is_a_small_part_of_what_bodies_may_take() {
        for (limit, kibibytes) in
            [(0, 16 << 10), (512 << 20, 8 << 10), (1 << 40, 16 << 10), (128 << 20, 2 << 10), (1 << 20, 256)]
        {
            assert_eq!(window(limit), kibibytes << 10, "{limit}");
        }
    }
}
