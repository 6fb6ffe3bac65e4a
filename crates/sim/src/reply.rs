//! The responses of a server, and how they are made.

use std::convert::Infallible;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use http::{Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full};
use serde::Serialize;

use super::api::error::ApiError;

/// The body of a response, complete or streamed.
pub(crate) type Body = UnsyncBoxBody<Bytes, Reset>;

/// The error by which a handler breaks the connection instead of answering.
#[derive(Debug, thiserror::Error)]
#[error("connection reset by a fault switch")]
pub(crate) struct Reset;

pub(crate) const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// A response with a complete body.
pub(crate) fn whole(
    status: StatusCode,
    content_type: Option<HeaderValue>,
    body: impl Into<Bytes>,
) -> Response<Body> {
    let body = Full::new(body.into()).map_err(|never: Infallible| match never {}).boxed_unsync();
    let mut response = Response::new(body);
    *response.status_mut() = status;
    if let Some(content_type) = content_type {
        response.headers_mut().insert(CONTENT_TYPE, content_type);
    }
    response
}

/// A response with the status 200 and JSON text.
pub(crate) fn json(body: impl Into<Bytes>) -> Response<Body> {
    whole(StatusCode::OK, Some(JSON), body)
}

/// A response with the status 200 and `value` as JSON.
pub(crate) fn object(value: &impl Serialize) -> Response<Body> {
    match serde_json::to_vec(value) {
        Ok(body) => json(body),
        Err(error) => detail(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}

/// An error in the form of the API.
pub(crate) fn api_error(error: &ApiError) -> Response<Body> {
    whole(error.status, Some(JSON), error.body())
}

/// An error in the form of the HTTP framework.
pub(crate) fn detail(status: StatusCode, detail: &str) -> Response<Body> {
    whole(status, Some(JSON), format!(r#"{{"detail":{}}}"#, super::api::json::quoted(detail)))
}

pub(crate) fn not_found() -> Response<Body> {
    detail(StatusCode::NOT_FOUND, "Not Found")
}

pub(crate) fn method_not_allowed() -> Response<Body> {
    detail(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed")
}

/// Adds the headers that name the server.
pub(crate) fn sign(response: &mut Response<Body>, name: &str, port: u16) {
    let headers = response.headers_mut();
    headers.insert("server", HeaderValue::from_static("uvicorn"));
    if let Ok(name) = HeaderValue::from_str(name) {
        headers.insert(HeaderName::from_static("x-sim-server"), name.clone());
        headers.insert(HeaderName::from_static("x-inference-pod"), name);
    }
    headers.insert(HeaderName::from_static("x-inference-port"), HeaderValue::from(port));
}
