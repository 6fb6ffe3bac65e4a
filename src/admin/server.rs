//! The servers of the pages and of health.

use std::future::Future;
use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::http::{Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use tokio::sync::Semaphore;
use tower_service::Service;

use super::HealthRpc;
use super::dry_runs::DECIDE;
use super::pages::{AdminState, router};
use crate::transport::{Http2Settings, LargeBodies, Port, serve_grpc, serve_pages};

/// Largest request that is decided for nobody.
const DECIDE_BYTES: usize = 2 << 20;
/// Requests that are decided for nobody at once.
const DECIDE_AT_ONCE: usize = 4;

/// Serves the admin pages until `shutdown` resolves; then requests that are being answered get 5 s to finish.
pub async fn serve(port: Port, state: AdminState, shutdown: impl Future<Output = ()>) {
    let router = router(state);
    let large =
        LargeBodies { path: DECIDE, bytes: DECIDE_BYTES, places: Arc::new(Semaphore::new(DECIDE_AT_ONCE)) };
    serve_pages(port, large, move |request| answer(router.clone(), request), shutdown).await;
}

/// Serves health over gRPC until `shutdown` resolves.
pub async fn serve_health(port: Port, health: HealthRpc, shutdown: impl Future<Output = ()>) {
    serve_grpc(port, Http2Settings::default(), health, shutdown).await;
}

/// The whole answer to a whole request.
async fn answer(mut router: Router, request: Request<Bytes>) -> Response<Bytes> {
    let response = match router.call(request.map(axum::body::Body::from)).await {
        Ok(response) => response,
        Err(never) => match never {},
    };
    let (mut head, body) = response.into_parts();
    let Ok(body) = body.collect().await else {
        head.status = StatusCode::INTERNAL_SERVER_ERROR;
        return Response::from_parts(head, Bytes::new());
    };
    Response::from_parts(head, body.to_bytes())
}
