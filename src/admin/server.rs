//! The servers of the pages and of health.

use std::future::Future;
use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::http::header::CONTENT_TYPE;
use axum::http::{Request, Response, StatusCode};
use futures_util::StreamExt as _;
use http_body_util::BodyExt as _;
use tokio::sync::Semaphore;
use tower_service::Service;

use super::HealthRpc;
use super::dry_runs::DECIDE;
use super::page::Feed;
use super::pages::{router, router_for_people};
use super::state::AdminState;
use crate::transport::{Http2Settings, LargeBodies, PageBody, Port, serve_grpc, serve_pages};

/// Largest request that is decided for nobody.
const DECIDE_BYTES: usize = 2 << 20;
/// Requests that are decided for nobody at once.
const DECIDE_AT_ONCE: usize = 4;

/// Serves the admin pages until `shutdown` resolves; then requests that are being answered get 5 s to finish.
pub async fn serve(port: Port, state: AdminState, feed: Feed, shutdown: impl Future<Output = ()>) {
    serve_router(port, router(state, feed), shutdown).await;
}

/// Serves the same pages to people on this machine, without a further door. The port must be one of loopback.
pub async fn serve_people(port: Port, state: AdminState, feed: Feed, shutdown: impl Future<Output = ()>) {
    serve_router(port, router_for_people(state, feed), shutdown).await;
}

async fn serve_router(port: Port, router: Router, shutdown: impl Future<Output = ()>) {
    let large =
        LargeBodies { path: DECIDE, bytes: DECIDE_BYTES, places: Arc::new(Semaphore::new(DECIDE_AT_ONCE)) };
    serve_pages(port, large, move |request| answer(router.clone(), request), shutdown).await;
}

/// Serves health over gRPC until `shutdown` resolves.
pub async fn serve_health(port: Port, health: HealthRpc, shutdown: impl Future<Output = ()>) {
    serve_grpc(port, Http2Settings::default(), health, shutdown).await;
}

/// The answer to a whole request: whole too, but for events, which go on.
async fn answer(mut router: Router, request: Request<Bytes>) -> Response<PageBody> {
    let response = match router.call(request.map(axum::body::Body::from)).await {
        Ok(response) => response,
        Err(never) => match never {},
    };
    let (mut head, body) = response.into_parts();
    if head.headers.get(CONTENT_TYPE).is_some_and(|kind| kind == "text/event-stream") {
        let pieces = body.into_data_stream().filter_map(async |piece| piece.ok());
        return Response::from_parts(head, PageBody::Live(Box::pin(pieces)));
    }
    let Ok(body) = body.collect().await else {
        head.status = StatusCode::INTERNAL_SERVER_ERROR;
        return Response::from_parts(head, Bytes::new().into());
    };
    Response::from_parts(head, body.to_bytes().into())
}
