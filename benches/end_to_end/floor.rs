//! The floor: a server that answers every message with a constant and decides nothing.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use pointsman::extproc::wire::{
    BodyMutation, BodyResponse, CommonResponse, HeaderMutation, HeaderValue, HeaderValueOption,
    HeadersResponse, HttpBody, Mutation, OVERWRITE, ProcessingRequest, ProcessingResponse, Request, Response,
    StreamedBodyResponse,
};
use tonic::body::Body;
use tonic::server::{Grpc, StreamingService};
use tonic::{Status, Streaming};
use tonic_prost::ProstCodec;
use tower_service::Service;

/// Serves until killed; prints its port.
pub fn run() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime starts");
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        #[allow(clippy::print_stdout, reason = "the parent reads it")]
        {
            println!("floor {}", listener.local_addr().expect("a bound socket has an address"));
        }
        let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener)
            .map(|stream| stream.inspect(|stream| stream.set_nodelay(true).expect("a fresh socket")));
        tonic::transport::Server::builder()
            .initial_stream_window_size(1 << 20)
            .initial_connection_window_size(16 << 20)
            .serve_with_incoming(Floor, incoming)
            .await
            .expect("the floor holds");
    });
}

#[derive(Clone)]
struct Floor;

impl Service<http::Request<Body>> for Floor {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<http::Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let codec: ProstCodec<ProcessingResponse, ProcessingRequest> = ProstCodec::default();
        let mut grpc = Grpc::new(codec).max_decoding_message_size(64 << 20);
        Box::pin(async move { Ok(grpc.streaming(Self, request).await) })
    }
}

impl StreamingService<ProcessingRequest> for Floor {
    type Response = ProcessingResponse;
    type ResponseStream = Pin<Box<dyn Stream<Item = Result<ProcessingResponse, Status>> + Send>>;
    type Future = std::future::Ready<Result<tonic::Response<Self::ResponseStream>, Status>>;

    fn call(&mut self, request: tonic::Request<Streaming<ProcessingRequest>>) -> Self::Future {
        let mut decided = false;
        let answers = request.into_inner().flat_map(move |message| {
            let answers = match message {
                Ok(message) => answer(message, &mut decided),
                Err(status) => vec![Err(status)],
            };
            futures_util::stream::iter(answers)
        });
        std::future::ready(Ok(tonic::Response::new(Box::pin(answers))))
    }
}

fn answer(message: ProcessingRequest, decided: &mut bool) -> Vec<Result<ProcessingResponse, Status>> {
    let reply =
        |response| Ok(ProcessingResponse { response: Some(response), ..ProcessingResponse::default() });
    match message.request {
        Some(Request::RequestBody(body)) => {
            let mut answers = Vec::new();
            // Like the real thing, it says nothing before the body is complete; unlike it, it does not keep the body.
            if !std::mem::replace(decided, true) {
                answers
                    .push(reply(Response::RequestHeaders(HeadersResponse { response: Some(destination()) })));
            }
            answers.push(reply(Response::RequestBody(echo(body))));
            answers
        }
        Some(Request::ResponseHeaders(_)) => {
            vec![reply(Response::ResponseHeaders(HeadersResponse::default()))]
        }
        Some(Request::ResponseBody(body)) => vec![reply(Response::ResponseBody(echo(body)))],
        _ => Vec::new(),
    }
}

fn destination() -> CommonResponse {
    let header = HeaderValue {
        key: Bytes::from_static(b"x-gateway-destination-endpoint"),
        value: Bytes::new(),
        raw_value: Bytes::from_static(b"127.0.1.1:8000"),
    };
    let set_headers = vec![HeaderValueOption { header: Some(header), append_action: OVERWRITE }];
    CommonResponse {
        header_mutation: Some(HeaderMutation { set_headers, remove_headers: Vec::new() }),
        body_mutation: None,
        clear_route_cache: true,
    }
}

fn echo(body: HttpBody) -> BodyResponse {
    let piece = StreamedBodyResponse { body: body.body, end_of_stream: body.end_of_stream };
    let body_mutation = Some(BodyMutation { mutation: Some(Mutation::StreamedResponse(piece)) });
    BodyResponse { response: Some(CommonResponse { body_mutation, ..CommonResponse::default() }) }
}
