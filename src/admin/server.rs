//! The servers of the pages and of health.

use std::future::Future;

use axum::Router;
use axum::body::Bytes;
use axum::http::{Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use tower_service::Service;

use super::HealthRpc;
use super::pages::{AdminState, router};
use crate::transport::{Http2Settings, Port, serve_grpc, serve_pages};

/// Serves the admin pages until `shutdown` resolves; then requests that are being answered get 5 s to finish.
pub async fn serve(port: Port, state: AdminState, shutdown: impl Future<Output = ()>) {
    let router = router(state);
    serve_pages(port, move |request| answer(router.clone(), request), shutdown).await;
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
