//! An API server that is a function, for tests.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::task::{Context, Poll};

use http::{Request, Response};
use kube::Client;
use kube::client::Body;

/// A client whose requests `answer` answers, with a status and a body.
pub(crate) fn client(
    answer: impl Fn(&Request<Body>) -> (u16, String) + Clone + Send + Sync + 'static,
) -> Client {
    Client::new(Playing(answer), "ns")
}

#[derive(Clone)]
struct Playing<F>(F);

impl<F: Fn(&Request<Body>) -> (u16, String)> tower_service::Service<Request<Body>> for Playing<F> {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Ready<Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let (status, body) = (self.0)(&request);
        let mut response = Response::new(Body::from(body.into_bytes()));
        *response.status_mut() = http::StatusCode::from_u16(status).unwrap_or_default();
        ready(Ok(response))
    }
}
