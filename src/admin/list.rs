//! The health service with its `List` call, which the generated server does not have yet.

use std::collections::HashMap;
use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use tonic::body::Body;
use tonic::server::{Grpc, NamedService, UnaryService};
use tonic::{Request, Response, Status};
use tonic_health::pb::HealthCheckResponse;
use tonic_health::pb::health_server::HealthServer;
use tonic_prost::ProstCodec;
use tower_service::Service;

use super::health::{HealthService, response};

const LIST: &str = "/grpc.health.v1.Health/List";

/// `grpc.health.v1.HealthListRequest`.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ListRequest {}

/// `grpc.health.v1.HealthListResponse`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ListResponse {
    /// Status of each service, by its name.
    #[prost(map = "string, message", tag = "1")]
    pub statuses: HashMap<String, HealthCheckResponse>,
}

/// The gRPC service: `Check`, `List` and `Watch`.
#[derive(Clone, Debug)]
pub struct HealthRpc {
    health: HealthService,
    generated: HealthServer<HealthService>,
}

impl HealthRpc {
    /// Serves `health`.
    pub fn new(health: HealthService) -> Self {
        Self { generated: HealthServer::new(health.clone()), health }
    }
}

impl NamedService for HealthRpc {
    const NAME: &'static str = <HealthServer<HealthService> as NamedService>::NAME;
}

type Answer<T, E> = Pin<Box<dyn Future<Output = Result<T, E>> + Send>>;

impl<B> Service<http::Request<B>> for HealthRpc
where
    B: http_body::Body + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>> + Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Answer<Self::Response, Infallible>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        if request.uri().path() != LIST {
            return self.generated.call(request);
        }
        let list = List(self.health.clone());
        Box::pin(async move { Ok(Grpc::new(ProstCodec::default()).unary(list, request).await) })
    }
}

struct List(HealthService);

impl UnaryService<ListRequest> for List {
    type Response = ListResponse;
    type Future = Answer<Response<ListResponse>, Status>;

    fn call(&mut self, _request: Request<ListRequest>) -> Self::Future {
        let state = self.0.state();
        let statuses =
            state.services().iter().map(|name| ((*name).to_owned(), response(state.status(name)))).collect();
        Box::pin(async move { Ok(Response::new(ListResponse { statuses })) })
    }
}
