//! An API server that is a function, for tests.

use std::convert::Infallible;
use std::future::{Future, ready};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::{Request, Response, StatusCode};
use kube::Client;
use kube::client::Body;

type Answer = Pin<Box<dyn Future<Output = (u16, String)> + Send>>;

/// A client whose requests `answer` answers, with a status and a body.
pub(crate) fn client(answer: impl Fn(&Request<Body>) -> (u16, String) + Send + Sync + 'static) -> Client {
    slow_client(move |request| Box::pin(ready(answer(&request))))
}

/// A client whose requests `answer` answers when it likes.
pub(crate) fn slow_client(answer: impl Fn(Request<Body>) -> Answer + Send + Sync + 'static) -> Client {
    Client::new(Playing(Arc::new(answer)), "ns")
}

#[derive(Clone)]
struct Playing(Arc<dyn Fn(Request<Body>) -> Answer + Send + Sync>);

impl tower_service::Service<Request<Body>> for Playing {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let answer = (self.0)(request);
        Box::pin(async move {
            let (status, body) = answer.await;
            let mut response = Response::new(Body::from(body.into_bytes()));
            *response.status_mut() = StatusCode::from_u16(status).unwrap_or_default();
            Ok(response)
        })
    }
}
